//! Another URL for the same resource, when the old one has expired.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use reqwest::Request;

use crate::error::BoxError;
use crate::execution::body::BoxFuture;

/// A hook that builds another request for the same resource.
pub(crate) type Refresh =
    Arc<dyn Fn(ResumePoint) -> BoxFuture<'static, Result<Request, BoxError>> + Send + Sync>;

/// The place where a download needs another URL; see
/// [`refresh`](crate::DownloadBuilder::refresh).
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), reqwest_resilient::DownloadError> {
/// use reqwest::{Method, Request};
///
/// let url = "https://example.com/a.zip?signature=1";
/// let download = client.get(url).download().refresh(async |at| {
///     eprintln!("{} at byte {}", at.status, at.offset);
///     Ok(Request::new(Method::GET, "https://example.com/a.zip?signature=2".parse()?))
/// });
/// download.to_file("a.zip").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumePoint {
    /// The number of bytes received.
    pub offset: u64,
    /// The status by which the server refused the old URL.
    pub status: StatusCode,
    /// The `ETag` or the `Last-Modified` of what was received.
    pub validator: Option<HeaderValue>,
}
