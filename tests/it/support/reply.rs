//! The lines of a script: responses, well-behaved or not, and faults without a response.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::log::Seen;

/// A server's action on one request, or on one connection.
#[derive(Clone)]
pub(crate) struct Step {
    pub(super) read: Read,
    pub(super) acts: Vec<Act>,
}

impl Step {
    /// Responds as a function of the request says.
    pub(crate) fn ask(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self { read: Read::Whole, acts: vec![Act::Ask(Arc::new(answer))] }
    }
}

/// The part of the request that is read before acting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Read {
    /// Acts as soon as the connection is accepted.
    AtAccept,
    /// Acts when the first byte has arrived, and reads this many.
    Bytes(usize),
    Head,
    Whole,
}

#[derive(Clone)]
pub(super) enum Act {
    Ask(Arc<dyn Fn(&Seen) -> Reply + Send + Sync>),
    End(End),
    /// Goes on with the next request if it comes in time, else says the words and closes.
    Idle(Duration, Bytes),
    Pause(Duration),
    Send(Bytes),
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// A clean FIN; what the client still sends is thrown away.
    Close,
    /// The socket is closed as it is: the kernel sends RST if there are unread bytes.
    Drop,
    /// RST at once.
    Reset,
    /// Nothing is read or written any more.
    Stall,
}

/// A fault without a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Ends the connection as soon as it is accepted.
    AtAccept(End),
    /// Ends the connection after so many bytes of the request; 0 waits for the first and reads
    /// none.
    After(usize, End),
    /// Ends the connection after the whole request.
    Unanswered(End),
    /// Bytes that are not HTTP, after the whole request.
    Garbage,
}

impl From<Fault> for Step {
    fn from(fault: Fault) -> Self {
        let (read, acts) = match fault {
            Fault::AtAccept(end) => (Read::AtAccept, vec![Act::End(end)]),
            Fault::After(bytes, end) => (Read::Bytes(bytes), vec![Act::End(end)]),
            Fault::Unanswered(end) => (Read::Whole, vec![Act::End(end)]),
            Fault::Garbage => {
                let noise = Bytes::from_static(b"\x00\xffnot HTTP\r\n\r\n");
                (Read::Whole, vec![Act::Send(noise), Act::End(End::Close)])
            }
        };
        Self { read, acts }
    }
}

/// A response. By default it is whole, prompt and keeps the connection.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) late: Duration,
    pub(super) body_late: Duration,
    pub(super) cut_body: Option<(usize, End)>,
    cut_head: Option<End>,
    framing: Framing,
    interim: Vec<u16>,
    pace: Option<(usize, Duration)>,
    read: Read,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Chunked,
    Length,
    UntilClose,
}

#[derive(Clone, Debug)]
enum Then {
    End(End),
    Idle(Duration, Bytes),
    KeepAlive,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            late: Duration::ZERO,
            body_late: Duration::ZERO,
            cut_body: None,
            cut_head: None,
            framing: Framing::Length,
            interim: Vec::new(),
            pace: None,
            read: Read::Whole,
            then: Then::KeepAlive,
        }
    }

    pub(crate) fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::status(status).header("location", location)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a body with `content-length`.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A body in one chunk.
    pub(crate) fn chunked(mut self, body: impl Into<Bytes>) -> Self {
        self.framing = Framing::Chunked;
        self.body(body)
    }

    /// A body that ends where the connection does.
    pub(crate) fn until_close(mut self, body: impl Into<Bytes>) -> Self {
        self.framing = Framing::UntilClose;
        self.then = Then::End(End::Close);
        self.body(body)
    }

    /// Says a 1xx first.
    pub(crate) fn interim(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// Waits before the response.
    pub(crate) fn late(mut self, pause: Duration) -> Self {
        self.late = pause;
        self
    }

    /// Waits between head and body.
    pub(crate) fn body_late(mut self, pause: Duration) -> Self {
        self.body_late = pause;
        self
    }

    /// Sends the body in pieces of `bytes`, with a pause after each.
    pub(crate) fn drip(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes, pause));
        self
    }

    /// Ends in the middle of the head.
    pub(crate) fn cut_head(mut self, end: End) -> Self {
        self.cut_head = Some(end);
        self
    }

    /// Ends after so many bytes of the body as it is on the wire, chunk sizes included.
    pub(crate) fn cut_body(mut self, bytes: usize, end: End) -> Self {
        self.cut_body = Some((bytes, end));
        self
    }

    /// Says `connection: close` and does so.
    pub(crate) fn close(mut self) -> Self {
        self.then = Then::End(End::Close);
        self.header("connection", "close")
    }

    /// Responds as soon as the head is read and drops the connection with the rest unread.
    pub(crate) fn early(mut self) -> Self {
        self.read = Read::Head;
        self.then = Then::End(End::Drop);
        self.header("connection", "close")
    }

    /// Closes the connection when no other request came for so long.
    pub(crate) fn idle_close(mut self, patience: Duration) -> Self {
        self.then = Then::Idle(patience, Bytes::new());
        self
    }

    /// Says 408 and closes when no other request came for so long.
    pub(crate) fn idle_408(mut self, patience: Duration) -> Self {
        let farewell = "HTTP/1.1 408 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        self.then = Then::Idle(patience, Bytes::from_static(farewell.as_bytes()));
        self
    }

    pub(super) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for status in &self.interim {
            acts.push(Act::Send(format!("HTTP/1.1 {status} x\r\n\r\n").into()));
        }
        acts.push(Act::Pause(self.late));
        let head = self.head();
        if let Some(end) = self.cut_head {
            acts.extend([Act::Send(head.slice(..head.len() / 2)), Act::End(end)]);
            return acts;
        }
        acts.extend([Act::Send(head), Act::Pause(self.body_late)]);

        let body = self.framed_body();
        let (body, cut) = match self.cut_body {
            Some((bytes, end)) => (body.slice(..bytes), Some(end)),
            None => (body, None),
        };
        match self.pace {
            Some((piece, pause)) => {
                for piece in body.chunks(piece) {
                    acts.extend([Act::Send(body.slice_ref(piece)), Act::Pause(pause)]);
                }
            }
            None => acts.push(Act::Send(body)),
        }
        acts.extend(match (cut, self.then.clone()) {
            (Some(end), _) | (None, Then::End(end)) => Some(Act::End(end)),
            (None, Then::Idle(patience, farewell)) => Some(Act::Idle(patience, farewell)),
            (None, Then::KeepAlive) => None,
        });
        acts
    }

    fn head(&self) -> Bytes {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        match self.framing {
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Framing::Length => write!(head, "content-length: {}\r\n", self.body.len()).unwrap(),
            Framing::UntilClose => {}
        }
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        head.into()
    }

    fn framed_body(&self) -> Bytes {
        match self.framing {
            Framing::Length | Framing::UntilClose => self.body.clone(),
            Framing::Chunked => {
                let mut framed = format!("{:x}\r\n", self.body.len()).into_bytes();
                framed.extend_from_slice(&self.body);
                framed.extend_from_slice(b"\r\n0\r\n\r\n");
                framed.into()
            }
        }
    }
}

impl From<Reply> for Step {
    fn from(reply: Reply) -> Self {
        Self { read: reply.read, acts: reply.acts() }
    }
}
