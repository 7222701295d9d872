//! The client for code without async: the same loop, driven by a runtime in the background.
//!
//! ```no_run
//! use reqwest_resilient::{ResilientConfig, blocking::ResilientClient};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = ResilientClient::new(ResilientConfig::default())?;
//!     let response = client.get("http://example.com/").send_resilient()?;
//!     println!("{}", response.text()?);
//!     Ok(())
//! }
//! ```
//!
//! Names and results are those of the async [`crate::ResilientClient`]; a client can be shared by
//! many threads. Nothing here panics: a call from async code, which would hold up other tasks, is
//! an error that says what to do, a [`DriveError`]. Within `tokio::task::spawn_blocking`, calls
//! are welcome.

#[cfg(feature = "download")]
mod download;
mod drive;
mod response;

#[cfg(feature = "download")]
pub use download::{Download, DownloadBuilder};
pub use drive::DriveError;
pub use functions::*;
pub use response::Response;

use http::Method;
use reqwest::IntoUrl;
use reqwest_middleware::Error;
use tokio::runtime::Handle;

use crate::client::request::{self, building};
use crate::client::resilient_client::{self, assembling, verbs};
use crate::common::fault::BuildError;
use crate::common::opaque::opaque;
use crate::config::ResilientConfig;
use crate::config::reload::ResilientHandle;
use crate::error::{Cause, HttpRequestError};
use crate::host::states::HostStates;
use crate::observe::invalid::InvalidPart;
use crate::outcome::FailureKind;
use drive::Driver;

/// The blocking counterpart of [`crate::ResilientClient`], with the same settings.
///
/// Clones share connections, runtime and all that is kept per host. Dropping it is fine anywhere,
/// in async code too.
///
/// # Examples
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use reqwest_resilient::blocking::ResilientClient;
///
/// let client = ResilientClient::builder().build()?;
/// println!("{}", client.get("https://example.com/").send_resilient()?.text()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ResilientClient {
    inner: resilient_client::ResilientClient,
    driver: Driver,
}

impl ResilientClient {
    /// Builds a client with these settings, driven by a runtime of its own with a single thread.
    ///
    /// # Errors
    ///
    /// reqwest could not build its client, or the system gave no thread.
    pub fn new(config: ResilientConfig) -> Result<Self, BuildError> {
        Self::builder().config(config).build()
    }

    /// Returns a builder, for more than settings.
    pub fn builder() -> ResilientClientBuilder {
        ResilientClientBuilder::default()
    }

    verbs!(methods -> RequestBuilder);

    /// Starts a request with any method, also one of your own.
    ///
    /// An invalid URL is an error at sending, which names it.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder(Ok((self.inner.request(method, url), self.driver.clone())))
    }

    /// Returns the handle that replaces the settings while the client works.
    pub fn reload_handle(&self) -> ResilientHandle {
        self.inner.reload_handle()
    }

    /// Returns what the client knows of hosts.
    pub fn hosts(&self) -> &HostStates {
        self.inner.hosts()
    }

    /// Returns the async client inside.
    pub fn inner(&self) -> &resilient_client::ResilientClient {
        &self.inner
    }
}

/// Builds a [`ResilientClient`].
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ResilientConfig, blocking::ResilientClient};
///
/// let client = ResilientClient::builder().config(ResilientConfig::batch()).build()?;
/// # Ok::<(), reqwest_resilient::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct ResilientClientBuilder {
    inner: resilient_client::ResilientClientBuilder,
    runtime: Option<Handle>,
}

assembling!(ResilientClientBuilder);

impl ResilientClientBuilder {
    /// Uses this runtime, which must have several threads, I/O and time, in place of one of the
    /// client's own. Keep the runtime as long as the client.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// reqwest could not build its client, the system gave no thread, or the given runtime is a
    /// current-thread one, which runs only while a thread blocks on it.
    pub fn build(self) -> Result<ResilientClient, BuildError> {
        let driver = self.runtime.map_or_else(Driver::own, Driver::given)?;
        Ok(ResilientClient { inner: self.inner.build()?, driver })
    }

    fn map(self, change: impl FnOnce(&mut resilient_client::ResilientClientBuilder)) -> Self {
        Self { inner: self.inner.map(change), ..self }
    }
}

/// A request being put together: the setters of reqwest's builder, and two ways to send it.
///
/// # Examples
///
/// ```no_run
/// # fn example(client: reqwest_resilient::blocking::ResilientClient) -> Result<(), Box<dyn std::error::Error>> {
/// let request = client.post("https://example.com/a").bearer_auth("token").body("text");
/// println!("{}", request.send_resilient()?.status());
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder(Result<(request::RequestBuilder, Driver), HttpRequestError>);

// reqwest's own would show url and headers, secrets included.
opaque!(RequestBuilder {});

building!(RequestBuilder);

impl RequestBuilder {
    fn unbuilt(error: impl Into<HttpRequestError>) -> Self {
        Self(Err(error.into()))
    }

    /// Sends the request with reqwest's conventions: the last response, whatever its status, or
    /// the last error.
    ///
    /// # Errors
    ///
    /// Those of [`crate::RequestBuilder::send`], or a [`DriveError`] inside `Error::Middleware`.
    pub fn send(self) -> reqwest_middleware::Result<Response> {
        let (request, driver) = self.0.map_err(Error::middleware)?;
        let response = driver.run(request.send()).map_err(Error::middleware)??;
        Ok(Response::new(response, driver))
    }

    /// Sends the request; a status below 400 is `Ok`, everything else an [`HttpRequestError`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::RequestBuilder::send_resilient`], or one whose source is a
    /// [`DriveError`]. [`HttpRequestError::into_blocking_response`] gives the last response.
    pub fn send_resilient(self) -> Result<Response, HttpRequestError> {
        let (request, driver) = self.0?;
        let prepared = request.prepare()?;
        let told = prepared.told.clone();
        match driver.run(prepared.send()) {
            Ok(Ok(response)) => Ok(Response::new(response, driver)),
            Ok(Err(error)) => Err(error.driven_by(&driver)),
            Err(error) => Err(told.error(Cause::Failure(FailureKind::Other, error.into()))),
        }
    }

    fn map(
        self,
        change: impl FnOnce(reqwest_middleware::RequestBuilder) -> reqwest_middleware::RequestBuilder,
    ) -> Self {
        Self(self.0.map(|(request, driver)| (request.map(change), driver)))
    }

    fn invalid(self, part: InvalidPart) -> Self {
        Self(self.0.and_then(|_| Err(HttpRequestError::unbuilt(part))))
    }
}

/// One request, without a client.
mod functions {
    use super::{RequestBuilder, ResilientClient, verbs};

    verbs!(functions -> RequestBuilder);
}
