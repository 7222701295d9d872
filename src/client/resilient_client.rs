//! The client with everything in place, and the functions for one request without a client.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use reqwest::IntoUrl;
use reqwest_middleware::{ClientWithMiddleware, Middleware};

use crate::client::end_of_chain::EndOfChain;
use crate::client::fleet::Fleet;
use crate::client::middleware::Resilient;
use crate::client::request::RequestBuilder;
use crate::common::fault::BuildError;
use crate::common::opaque::opaque;
use crate::config::ResilientConfig;
use crate::config::reload::ResilientHandle;
use crate::error::HttpRequestError;
use crate::host::states::HostStates;
use crate::observe::invalid::{GivenUrl, InvalidPart};

/// The one list of verbs: as methods beside a `request(&self, method, url)`, or as functions that
/// share a `ResilientClient`.
macro_rules! verbs {
    ($form:ident -> $Built:ty) => {
        $crate::client::resilient_client::verbs! {
            @$form $Built: get GET, post POST, put PUT, patch PATCH, delete DELETE, head HEAD,
            options OPTIONS
        }
    };
    (@methods $Built:ty: $($name:ident $METHOD:ident),*) => {$(
        #[doc = concat!("Starts a ", stringify!($METHOD), " request.")]
        ///
        /// An invalid URL is an error at sending, which names it.
        pub fn $name(&self, url: impl ::reqwest::IntoUrl) -> $Built {
            self.request(::http::Method::$METHOD, url)
        }
    )*};
    (@functions $Built:ty: $($name:ident $METHOD:ident),*) => {
        $(
            #[doc = concat!("Starts a ", stringify!($METHOD), " request of the shared client; see [`request`].")]
            pub fn $name(url: impl ::reqwest::IntoUrl) -> $Built {
                request(::http::Method::$METHOD, url)
            }
        )*

        /// Starts a request of a client that all of these functions share, built on first use with
        /// the default settings; [`RetryOverride`](crate::RetryOverride) changes them for a
        /// request.
        ///
        /// If that client cannot be built, sending is an error, and the next request tries again.
        pub fn request(method: ::http::Method, url: impl ::reqwest::IntoUrl) -> $Built {
            static SHARED: ::std::sync::OnceLock<ResilientClient> = ::std::sync::OnceLock::new();
            let built = match SHARED.get() {
                Some(client) => Ok(client),
                // Of two that are built at once, one is dropped unused.
                None => ResilientClient::builder().build().map(|it| SHARED.get_or_init(|| it)),
            };
            match built {
                Ok(client) => client.request(method, url),
                Err(error) => <$Built>::unbuilt(error),
            }
        }
    };
}
pub(crate) use verbs;

/// The methods that both builders of clients share; each has a method `map`.
macro_rules! assembling {
    ($Type:ty) => {
        /// Methods that set the parts of the client.
        impl $Type {
            /// Sets the settings. Default: those of
            /// [`ResilientConfig::default`](crate::ResilientConfig).
            pub fn config(self, config: $crate::config::ResilientConfig) -> Self {
                self.map(|it| it.config = config)
            }

            /// Adds a middleware before the retries: it sees each request once.
            pub fn before(self, middleware: impl ::reqwest_middleware::Middleware) -> Self {
                self.map(|it| it.before.push(::std::sync::Arc::new(middleware)))
            }

            /// Adds a middleware after the retries: it sees every attempt. What signs or
            /// authenticates requests belongs here, and so does tracing.
            pub fn with(self, middleware: impl ::reqwest_middleware::Middleware) -> Self {
                self.map(|it| it.after.push(::std::sync::Arc::new(middleware)))
            }

            /// Customizes the client of reqwest inside: its user agent, proxy, certificates, cookies.
            ///
            /// All the rest stays: the attempt timeout of 10 s, what
            /// [`Resilient::reqwest_builder`](crate::Resilient::reqwest_builder) sets unless `customize`
            /// replaces it, and a connection of their own for the retries that need one. A second
            /// call goes on from the first.
            ///
            /// `customize` runs twice at [`build`](Self::build): also for the connections that retries
            /// have of their own. What both are to share is made outside of it: a jar of cookies, set
            /// by `cookie_provider` and not by `cookie_store`, which would make two. A panic in it is
            /// the caller's.
            ///
            /// # Examples
            ///
            /// ```
            /// use reqwest_resilient::ResilientClient;
            ///
            /// let client = ResilientClient::builder()
            ///     .with_reqwest(|inner| inner.user_agent("crawler/1.0"))
            ///     .build()?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn with_reqwest(
                self,
                customize: impl Fn(::reqwest::ClientBuilder) -> ::reqwest::ClientBuilder
                + Send
                + Sync
                + 'static,
            ) -> Self {
                self.map(|it| it.customize.push(::std::sync::Arc::new(customize)))
            }

            /// Uses this client of reqwest, its timeouts and pool included, in place of one of its
            /// own. There is no attempt timeout then but a configured one, and retries get no
            /// connection of their own; [`with_reqwest`](Self::with_reqwest) keeps both, and is
            /// without effect beside this.
            pub fn reqwest_client(self, client: ::reqwest::Client) -> Self {
                self.map(|it| it.client = Some(client))
            }

            /// Keeps what the client learns of hosts in `hosts`, which other clients may share.
            pub fn hosts(self, hosts: $crate::host::states::HostStates) -> Self {
                self.map(|it| it.hosts = Some(hosts))
            }

            /// Makes the client's hosts those of a fleet; see
            /// [`Resilient::with_fleet`](crate::Resilient::with_fleet).
            pub fn fleet(self, fleet: &$crate::client::fleet::Fleet) -> Self {
                self.map(|it| it.fleet = Some(fleet.clone()))
            }
        }
    };
}
#[cfg(feature = "blocking")]
pub(crate) use assembling;

/// The limit of an attempt for which none is set: as in the Python library, and longer than
/// users wait for a page.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of reqwest with [`Resilient`] in place and settings that suit it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use reqwest_resilient::{ResilientClient, ResilientConfig};
///
/// let client = ResilientClient::new(ResilientConfig::default())?;
/// let response = client.get("http://example.com/").send_resilient().await?;
/// println!("{}", response.text().await?);
/// # Ok(()) }
/// ```
///
/// Clones share connections and all that is kept per host. The connections are closed when the
/// last clone is dropped; those of a [client of your own](ResilientClientBuilder::reqwest_client)
/// live as long as that.
///
/// # Settings
///
/// | setting | value | why |
/// |---|---|---|
/// | attempt timeout | 10 s up to the response head | an attempt that hangs has to end before it can be retried; a large upload needs more; a request's own [`timeout`](RequestBuilder::timeout) and [`attempt_timeout`](crate::ResilientConfigBuilder::attempt_timeout) come in its place |
/// | reqwest's own retries | off | no middleware sees them: one attempt here would be up to three |
/// | connect timeout | 5 s, shared by the addresses of a name | see [`Resilient::reqwest_builder`] for these three |
/// | HTTP/2 pings | after 5 s of silence, given up after 4 s more | |
/// | idle connections | closed after 4 s | |
/// | stall timeout | 30 s without a byte while the body is read | a connection that died within a body is silent for ever; [`stall_timeout`](crate::ResilientConfigBuilder::stall_timeout) sets it |
/// | retries after a stale or silent connection, and after 421 | on a connection of their own | others in the pool may be just as dead: those of a server that went away all are |
///
/// A body that comes may take as long as it likes;
/// [`max_total_time`](crate::ResilientConfigBuilder::max_total_time) limits it.
#[derive(Clone)]
pub struct ResilientClient {
    inner: ClientWithMiddleware,
    handle: ResilientHandle,
}

// reqwest's own would show the default headers, credentials included.
opaque!(ResilientClient { handle });

impl ResilientClient {
    /// Builds a client with these settings.
    ///
    /// # Errors
    ///
    /// reqwest could not build its client: TLS found no certificates to trust, say.
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
        let given = GivenUrl::new(url.as_str());
        match url.into_url() {
            Ok(url) => RequestBuilder::new(self.inner.request(method, url)),
            Err(error) => {
                // Such a text has its path at no certain place, where it could be redacted.
                let is_shown = self.handle.config().policy().redact_path.is_none();
                let part = InvalidPart::url(is_shown.then_some(given), error);
                RequestBuilder::unbuilt(HttpRequestError::unbuilt(part))
            }
        }
    }

    /// Returns the handle that replaces the settings while the client works.
    pub fn reload_handle(&self) -> ResilientHandle {
        self.handle.clone()
    }

    /// Returns what the client knows of hosts.
    pub fn hosts(&self) -> &HostStates {
        self.handle.hosts()
    }

    /// Returns the client of reqwest-middleware inside, for what takes one.
    pub fn inner(&self) -> &ClientWithMiddleware {
        &self.inner
    }
}

/// A change of the client of reqwest inside.
pub(crate) type Customize =
    Arc<dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync>;

/// Builds a [`ResilientClient`].
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ResilientClient, ResilientConfig};
///
/// let client = ResilientClient::builder()
///     .config(ResilientConfig::batch())
///     .with_reqwest(|inner| inner.user_agent("crawler/1.0"))
///     .build()?;
/// # Ok::<(), reqwest_resilient::BuildError>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct ResilientClientBuilder {
    pub(crate) config: ResilientConfig,
    pub(crate) before: Vec<Arc<dyn Middleware>>,
    pub(crate) after: Vec<Arc<dyn Middleware>>,
    pub(crate) client: Option<reqwest::Client>,
    pub(crate) customize: Vec<Customize>,
    pub(crate) hosts: Option<HostStates>,
    pub(crate) fleet: Option<Fleet>,
}

assembling!(ResilientClientBuilder);

impl ResilientClientBuilder {
    /// Builds the client.
    ///
    /// # Errors
    ///
    /// reqwest could not build its client. Cannot happen where one was given.
    pub fn build(self) -> Result<ResilientClient, BuildError> {
        let mut resilient = Resilient::new(self.config);
        if let Some(hosts) = self.hosts {
            resilient = resilient.with_hosts(hosts);
        }
        if let Some(fleet) = &self.fleet {
            resilient = resilient.with_fleet(fleet);
        }
        let (client, resilient, end) = match self.client {
            Some(client) => (client, resilient, None),
            None => {
                let customize = self.customize;
                let builder = move || {
                    customize
                        .iter()
                        .fold(Resilient::reqwest_builder(), |inner, change| change(inner))
                };
                let client = builder().build()?;
                let resilient = resilient.in_own_client(ATTEMPT_TIMEOUT);
                let end: Arc<dyn Middleware> = Arc::new(EndOfChain::new(builder())?);
                (client, resilient, Some(end))
            }
        };
        let handle = resilient.reload_handle();
        let resilient: Arc<dyn Middleware> = Arc::new(resilient);
        let chain: Vec<_> =
            self.before.into_iter().chain([resilient]).chain(self.after).chain(end).collect();
        Ok(ResilientClient { inner: ClientWithMiddleware::new(client, chain), handle })
    }

    pub(crate) fn map(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

opaque!(ResilientClientBuilder { config });

/// One request, without a client.
pub(crate) mod functions {
    use super::{RequestBuilder, ResilientClient};

    verbs!(functions -> RequestBuilder);
}
