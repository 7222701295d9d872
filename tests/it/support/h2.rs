//! The HTTP/2 side of the server, spoken without TLS (prior knowledge).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::host::{Host, Script, pass_on_panic};
use super::log::{Log, Seen};
use super::reply::{End, Reply};
use super::server::{PATIENCE, Server};

/// The server's action on one stream.
#[derive(Clone)]
pub(crate) enum Stream {
    /// Responds; supports the faults `late`, `body_late` and `cut_body`.
    Answer(Reply),
    /// Responds as a function of the request says.
    Ask(Arc<dyn Fn(&Seen) -> Reply + Send + Sync>),
    /// Responds, then sends GOAWAY with NO_ERROR and this stream as the last.
    Farewell(Reply),
    /// GOAWAY whose last id covers this stream, after the whole request; then FIN.
    GoAwayAfter(Reason),
    /// GOAWAY whose last id is below this stream; the application never sees the request.
    GoAwayBefore(Reason),
    /// RST_STREAM with REFUSED_STREAM once the head is in; the application never sees the request.
    Refuse,
    /// Responds, and sends RST_STREAM with REFUSED_STREAM in the middle of the body.
    RefuseBody(Reply),
    /// RST_STREAM after the whole request.
    Reset(Reason),
    /// Ends the connection (or just stalls the stream) after the whole request.
    Unanswered(End),
}

impl From<Reply> for Stream {
    fn from(reply: Reply) -> Self {
        Self::Answer(reply)
    }
}

impl Server {
    /// HTTP/2: streams take the steps in the order of their arrival, whatever their connection.
    /// The last repeats.
    pub(crate) fn h2(script: impl IntoIterator<Item = Stream>) -> Self {
        let script = Arc::new(Script::new(script));
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let host = Host::run(move |number, socket| {
            serve(number, socket, Arc::clone(&script), Arc::clone(&shared))
        });
        Self { host, log }
    }
}

/// The action on the connection after a stream.
enum Verdict {
    GoOn,
    End(End),
    GoAway { last: u32, reason: Reason, end: Option<End> },
}

async fn serve(number: usize, socket: TcpStream, script: Arc<Script<Stream>>, log: Arc<Log>) {
    log.connected();
    socket.set_nodelay(true).unwrap();
    let (socket, mut raw) = twins(socket);
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    let mut streams = JoinSet::new();
    // Dropped unfinished, a stream says RST_STREAM on its own.
    let mut held = Vec::new();
    let mut bodies = Vec::new();
    let mut gone_away = false;
    loop {
        tokio::select! {
            // First the connection, so that responses are flushed before a verdict is carried out.
            biased;
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                log.began();
                if gone_away {
                    // It crossed the GOAWAY on the wire: the client knows that it is not read.
                    held.push(respond);
                    continue;
                }
                let step = script.next();
                let exchange = Exchange { number, respond, body: None, log: Arc::clone(&log) };
                streams.spawn(exchange.run(request, step));
            }
            Some(ended) = streams.join_next() => {
                let (verdict, exchange) = pass_on_panic(ended);
                held.push(exchange.respond);
                bodies.extend(exchange.body);
                match verdict {
                    Verdict::GoOn => {}
                    Verdict::End(how) => return end(&mut raw, how).await,
                    Verdict::GoAway { last, reason, end: how } => {
                        gone_away = true;
                        if raw.write_all(&go_away(last, reason)).await.is_err() {
                            return;
                        }
                        if let Some(how) = how {
                            return end(&mut raw, how).await;
                        }
                    }
                }
            }
        }
    }
}

/// One stream, its request and the way to respond.
struct Exchange {
    number: usize,
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    log: Arc<Log>,
}

impl Exchange {
    async fn run(mut self, request: Request<RecvStream>, step: Stream) -> (Verdict, Self) {
        let verdict = match step {
            Stream::GoAwayBefore(reason) => {
                let last = self.id().saturating_sub(2);
                Verdict::GoAway { last, reason, end: None }
            }
            Stream::Refuse => self.reset(Reason::REFUSED_STREAM),
            step => match self.read(request).await {
                Some(seen) => self.react(seen, step).await,
                None => Verdict::GoOn,
            },
        };
        (verdict, self)
    }

    async fn react(&mut self, seen: Seen, step: Stream) -> Verdict {
        self.log.reached(seen.clone());
        match step {
            Stream::Answer(reply) => self.respond(reply).await,
            Stream::Ask(answer) => self.respond(answer(&seen)).await,
            Stream::Farewell(reply) => {
                self.respond(reply).await;
                Verdict::GoAway { last: self.id(), reason: Reason::NO_ERROR, end: None }
            }
            Stream::GoAwayAfter(reason) => {
                Verdict::GoAway { last: self.id(), reason, end: Some(End::Close) }
            }
            Stream::Reset(reason) => self.reset(reason),
            Stream::RefuseBody(reply) => {
                self.respond(reply.cut_body(2, End::Drop)).await;
                // So that the head is on its way before.
                sleep(Duration::from_millis(20)).await;
                self.reset(Reason::REFUSED_STREAM)
            }
            Stream::Unanswered(end) => self.end(end).await,
            Stream::GoAwayBefore(_) | Stream::Refuse => unreachable!("these read nothing"),
        }
    }

    fn id(&self) -> u32 {
        self.respond.stream_id().into()
    }

    fn reset(&mut self, reason: Reason) -> Verdict {
        self.respond.send_reset(reason);
        Verdict::GoOn
    }

    async fn end(&self, end: End) -> Verdict {
        if end != End::Stall {
            return Verdict::End(end);
        }
        sleep(PATIENCE).await;
        Verdict::GoOn
    }

    async fn read(&self, request: Request<RecvStream>) -> Option<Seen> {
        let (head, mut stream) = request.into_parts();
        let mut body = BytesMut::new();
        while let Some(piece) = timeout(PATIENCE, stream.data()).await.ok()? {
            let piece = piece.ok()?;
            self.log.received(piece.len());
            stream.flow_control().release_capacity(piece.len()).ok()?;
            body.extend_from_slice(&piece);
        }
        Some(Seen {
            connection: self.number,
            method: head.method,
            path: head.uri.path_and_query()?.to_string(),
            headers: head.headers,
            body: body.freeze(),
        })
    }

    async fn respond(&mut self, reply: Reply) -> Verdict {
        sleep(reply.late).await;
        let mut head = Response::builder().status(reply.status);
        for (name, value) in &reply.headers {
            head = head.header(name, value);
        }
        // An error means that the client gave the stream up.
        let Ok(mut stream) = self.respond.send_response(head.body(()).unwrap(), false) else {
            return Verdict::GoOn;
        };
        sleep(reply.body_late).await;
        let (body, cut) = match reply.cut_body {
            Some((bytes, end)) => (reply.body.slice(..bytes), Some(end)),
            None => (reply.body, None),
        };
        let _ = stream.send_data(body, cut.is_none());
        self.body = Some(stream);
        match cut {
            Some(end) => self.end(end).await,
            None => Verdict::GoOn,
        }
    }
}

/// Two handles on one socket: one for the protocol, one for frames it would not send.
fn twins(socket: TcpStream) -> (TcpStream, TcpStream) {
    let socket = socket.into_std().unwrap();
    let twin = socket.try_clone().unwrap();
    (TcpStream::from_std(socket).unwrap(), TcpStream::from_std(twin).unwrap())
}

async fn end(socket: &mut TcpStream, end: End) {
    match end {
        End::Close => {
            // Closed with frames unread the kernel would say RST, not FIN.
            let _ = socket.shutdown().await;
            let scrap = &mut Vec::new();
            let _ = timeout(Duration::from_millis(100), socket.read_to_end(scrap)).await;
        }
        End::Drop => {}
        End::Reset => socket.set_zero_linger().unwrap(),
        End::Stall => sleep(PATIENCE).await,
    }
}

fn go_away(last: u32, reason: Reason) -> Vec<u8> {
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last.to_be_bytes());
    frame.extend_from_slice(&u32::from(reason).to_be_bytes());
    frame
}
