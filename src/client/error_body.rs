//! Reading the body of the failed response that an error holds.

use bytes::{Bytes, BytesMut};
use reqwest::{Body, Response};

use crate::common::response::rebuild;
use crate::error::HttpRequestError;

/// The most that is kept of the body of a failed response.
const MOST: usize = 1024 * 1024;

/// The body of the last response. The error keeps the response, and the body with it: it can be read
/// again, also by [`into_response`](Self::into_response).
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

/// Reads the body of a response, at most 1 MiB of it, and puts it back.
pub(crate) async fn read(response: &mut Response) -> reqwest::Result<Bytes> {
    let mut read = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MOST.saturating_sub(read.len());
        read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if read.len() >= MOST {
            break;
        }
    }
    let read = read.freeze();
    let none = Response::from(http::Response::new(""));
    let whole = std::mem::replace(response, none);
    *response = rebuild(whole, |_| Body::from(read.clone()));
    Ok(read)
}
