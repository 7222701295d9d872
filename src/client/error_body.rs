//! Reading the body of the failed response that an error holds.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response};

use crate::common::lock::lock;
use crate::common::response::rebuild;
use crate::error::HttpRequestError;
use crate::execution::body::{Prefixed, size_with};

/// The most that is kept of the body of a failed response.
const MOST: usize = 1024 * 1024;

/// The body of the last response. The error keeps the response, and the body with it: it can be read
/// again, also by [`into_response`](Self::into_response). What was read of a body whose reading is
/// given up, as by a timeout, or fails, is kept: then the rest follows, or an error.
impl HttpRequestError {
    /// Reads the body of the last response, at most 1 MiB of it: the rest is dropped. Empty if the
    /// last attempt got no response.
    ///
    /// # Errors
    ///
    /// The connection broke, or time ran out.
    pub async fn bytes(&mut self) -> reqwest::Result<Bytes> {
        match self.response_mut() {
            Some(response) => read(response).await,
            None => Ok(Bytes::new()),
        }
    }

    /// Reads the body of the last response as text, at most 1 MiB of it, in the charset that
    /// `Content-Type` names where reqwest's feature `charset` is on, else as UTF-8. Empty if the last
    /// attempt got no response.
    ///
    /// # Errors
    ///
    /// The connection broke, or time ran out.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_resilient::ResilientClient) {
    /// if let Err(mut error) = client.get("https://api.example.com/").send_resilient().await {
    ///     let said = error.text().await.unwrap_or_default();
    ///     eprintln!("{error:#}: {said}");
    /// }
    /// # }
    /// ```
    pub async fn text(&mut self) -> reqwest::Result<String> {
        self.copy().await?.text().await
    }

    /// Reads the body of the last response as JSON, at most 1 MiB of it.
    ///
    /// # Errors
    ///
    /// It is no JSON or not of this type, there is no response, the connection broke, or time ran out.
    #[cfg(feature = "json")]
    pub async fn json<T: serde::de::DeserializeOwned>(&mut self) -> reqwest::Result<T> {
        self.copy().await?.json().await
    }

    /// Returns a response with the head's `Content-Type` and the body, for reqwest to decode.
    async fn copy(&mut self) -> reqwest::Result<Response> {
        let body = self.bytes().await?;
        Ok(self.copy_with(body))
    }

    /// Returns a response with the headers and this body.
    pub(crate) fn copy_with(&self, body: Bytes) -> Response {
        let mut copy = http::Response::new(body);
        if let Some(response) = self.response() {
            copy.headers_mut().clone_from(response.headers());
        }
        copy.into()
    }
}

/// Reads the body of a response, at most 1 MiB of it, and puts it back. What was read of one that
/// fails, or whose reading is given up, stays in front of the rest.
pub(crate) async fn read(response: &mut Response) -> reqwest::Result<Bytes> {
    let mut reading = Reading { response, read: BytesMut::new() };
    let result = reading.run().await;
    let read = mem::take(&mut reading.read).freeze();
    reading.response.extensions_mut().remove::<Start>();
    replace_body(reading.response, |_| match &result {
        Ok(()) => Body::from(read.clone()),
        Err(error) => {
            let failed = Body::wrap(Failed { is_timeout: error.is_timeout() });
            let start = Some(read.clone()).filter(|it| !it.is_empty());
            Body::wrap(Prefixed { start, rest: failed })
        }
    });
    result.map(|()| read)
}

fn replace_body(response: &mut Response, body: impl FnOnce(Body) -> Body) {
    let none = Response::from(http::Response::new(""));
    let whole = mem::replace(response, none);
    *response = rebuild(whole, body);
}

/// A body that is being read. Dropped before the end, it puts back what was read.
struct Reading<'r> {
    response: &'r mut Response,
    read: BytesMut,
}

impl Reading<'_> {
    async fn run(&mut self) -> reqwest::Result<()> {
        while let Some(chunk) = self.response.chunk().await? {
            let room = MOST.saturating_sub(self.read.len());
            self.read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if self.read.len() >= MOST {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.read.is_empty() {
            return;
        }
        let read = mem::take(&mut self.read).freeze();
        // A body that was put back before takes it, so that many attempts do not nest.
        if let Some(start) = self.response.extensions().get::<Start>() {
            *lock(&start.0) = Some(read);
            return;
        }
        let start = Start(Arc::new(Mutex::new(Some(read))));
        self.response.extensions_mut().insert(start.clone());
        replace_body(self.response, |rest| Body::wrap(Resumed { start, rest }));
    }
}

/// The start of a body that was read already; also in the extensions of its response, as a body
/// that reqwest has wrapped cannot be reached.
#[derive(Clone)]
struct Start(Arc<Mutex<Option<Bytes>>>);

/// A body whose reading was given up.
struct Resumed {
    start: Start,
    rest: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let start = lock(&self.start.0).take();
        match start {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        size_with(lock(&self.start.0).as_ref(), &self.rest)
    }
}

/// The rest of a body that failed while it was read: to poll that again might give an end, as if
/// the part were the whole.
struct Failed {
    is_timeout: bool,
}

impl http_body::Body for Failed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let (kind, text) = match self.is_timeout {
            true => (io::ErrorKind::TimedOut, "the body had timed out when it was read before"),
            false => (io::ErrorKind::UnexpectedEof, "the body had failed when it was read before"),
        };
        Poll::Ready(Some(Err(io::Error::new(kind, text))))
    }
}
