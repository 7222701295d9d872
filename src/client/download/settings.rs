//! The settings of one download, and the methods that set them.

use std::sync::Arc;

use reqwest::Request;
use reqwest_middleware::RequestBuilder;

use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind};
use crate::client::download::refresh::{Refresh, ResumePoint};
use crate::client::download::representation::Asked;
use crate::client::download::session::{Parts, Session};
use crate::client::download::transfer::Watchers;
use crate::client::request;
use crate::common::fault::ConfigError;
use crate::common::stable_hash::fnv1a;
use crate::config::overrides::RetryOverride;
use crate::config::policy::stall_faults;
use crate::error::HttpRequestError;

/// The settings of one download.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) watchers: Watchers,
    pub(crate) refresh: Option<Refresh>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) immutable: bool,
    pub(crate) expect_length: Option<u64>,
    pub(crate) resume_key: Option<String>,
}

/// A download ready to be sent.
pub(crate) struct Prepared {
    pub(crate) session: Box<Session>,
    pub(crate) watchers: Watchers,
    /// Identifies the resource in a sidecar.
    pub(crate) key: u64,
}

impl Settings {
    /// Builds the session of this request.
    pub(crate) fn prepare(
        self,
        builder: Result<RequestBuilder, HttpRequestError>,
        restartable: bool,
    ) -> Result<Prepared, DownloadError> {
        let unbuilt =
            |error| DownloadError::unplaced(DownloadErrorKind::Request, Cause::Request(error));
        let mut builder = builder.map_err(unbuilt)?;
        // `build_split` drops the extensions.
        let mut extensions = std::mem::take(builder.extensions());
        let (client, request) = builder.build_split();
        let request = request.map_err(|error| unbuilt(request::unbuilt(error)))?;
        let Self { watchers, refresh, max_retries, immutable, expect_length, resume_key } = self;
        let limits = &watchers.limits;
        let faults = stall_faults(limits.timeout.flatten(), limits.min_speed).collect();
        // A hedged attempt waits for the first byte itself.
        if let Some(timeout) = limits.timeout {
            let rules = extensions.get_or_insert_default::<RetryOverride>();
            *rules = match timeout {
                Some(timeout) => rules.clone().stall_timeout(timeout),
                None => rules.clone().without_stall_timeout(),
            };
        }
        let checked = ConfigError::unless_none(faults);
        checked.map_err(|error| unbuilt(HttpRequestError::unbuilt(error)))?;
        let key = key_of(&request, resume_key.as_deref());
        let asked = Asked {
            immutable,
            length: expect_length,
            ..Asked::of(request.method(), request.headers())
        };
        let is_verified = watchers.verifier.is_some();
        let parts = Parts {
            client,
            request,
            extensions,
            asked,
            refresh,
            max_retries,
            restartable,
            is_verified,
        };
        Ok(Prepared { session: Session::new(parts), watchers, key })
    }

    pub(crate) fn set_refresh<F, R>(&mut self, refresh: F)
    where
        F: Fn(ResumePoint) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Request, crate::error::BoxError>> + Send + 'static,
    {
        self.refresh = Some(Arc::new(move |point| Box::pin(refresh(point))));
    }
}

/// Returns the hash of what identifies a resource: its name or URL, and the range that is asked for.
fn key_of(request: &Request, name: Option<&str>) -> u64 {
    let url = request.url();
    let without_fragment = url.as_str().split('#').next().unwrap_or_default();
    let range = request.headers().get(http::header::RANGE).map(|it| it.as_bytes());
    let name = name.unwrap_or(without_fragment).bytes();
    fnv1a(name.chain([b'\n']).chain(range.unwrap_or_default().iter().copied()))
}

/// The methods that set how a download behaves; the type has a method `change`.
macro_rules! downloading {
    ($Type:ty) => {
        /// Methods that set how the download behaves.
        impl $Type {
            /// Sets the longest wait for a byte of the body, after which the connection counts as
            /// broken. Only time counts in which the download is read and no byte is there: a
            /// reader may pause as long as it likes. Default: that of the client, 30 s.
            pub fn stall_timeout(self, timeout: std::time::Duration) -> Self {
                self.change(|it| it.watchers.limits.timeout = Some(Some(timeout)))
            }

            /// Lets a body be silent for as long as its connection lives.
            pub fn without_stall_timeout(self) -> Self {
                self.change(|it| it.watchers.limits.timeout = Some(None))
            }

            /// Sets the least speed, in bytes per second: a body that is slower on average over
            /// `period` of waiting counts as broken. Default: that of the client, none.
            pub fn min_speed(self, bytes_per_second: u64, period: std::time::Duration) -> Self {
                self.change(|it| it.watchers.limits.min_speed = Some((bytes_per_second, period)))
            }

            /// Sets the most tries in a row that bring no progress, and the most restarts from
            /// zero. Progress is 1 % of the length, or 64 KiB if that is less. Each try is a request
            /// with retries of its own. Default: `max_retries` of the client.
            pub fn max_retries(self, retries: u32) -> Self {
                self.change(|it| it.max_retries = Some(retries))
            }

            /// Shows the progress: at most every 100 ms, and at the end. A panic in `show` is the
            /// caller's.
            pub fn on_progress(
                self,
                show: impl FnMut(&$crate::client::download::Progress) + Send + 'static,
            ) -> Self {
                self.change(|it| it.watchers.on_progress = Some(Box::new(show)))
            }

            /// Checks the bytes as they come. A file that fails the check is not kept.
            pub fn verify(self, verifier: impl $crate::client::download::Verifier) -> Self {
                self.change(|it| it.watchers.verifier = Some(Box::new(verifier)))
            }

            /// Builds another request for the same resource when the server refuses the URL by
            /// 401 or 403 within the download: for presigned URLs, which expire. Without it, or if
            /// `refresh` fails, the download ends with
            /// [`NeedsNewUrl`](crate::DownloadErrorKind::NeedsNewUrl).
            ///
            /// The request replaces the old one with all its headers; the range is added to it.
            pub fn refresh<F, R>(self, refresh: F) -> Self
            where
                F: Fn($crate::client::download::ResumePoint) -> R + Send + Sync + 'static,
                R: Future<
                        Output = Result<
                            ::reqwest::Request,
                            Box<dyn std::error::Error + Send + Sync>,
                        >,
                    > + Send
                    + 'static,
            {
                self.change(|it| it.set_refresh(refresh))
            }

            /// Vouches that the resource never changes, so that a download goes on without a
            /// validator: for URLs with a digest or a version in them.
            pub fn immutable(self) -> Self {
                self.change(|it| it.immutable = true)
            }

            /// Expects this number of bytes: any other number is an error, and a body without a
            /// length of its own can be resumed.
            pub fn expect_length(self, bytes: u64) -> Self {
                self.change(|it| it.expect_length = Some(bytes))
            }

            /// Ends the download with an error if it has more bytes than this. Default: no limit.
            pub fn max_length(self, bytes: u64) -> Self {
                self.change(|it| it.watchers.max_length = Some(bytes))
            }

            /// Names the resource for the next process, in place of its URL: for URLs that change
            /// with each signature. Only a hash of it is written to disk.
            pub fn resume_key(self, name: impl Into<String>) -> Self {
                self.change(|it| it.resume_key = Some(name.into()))
            }
        }
    };
}
pub(crate) use downloading;
