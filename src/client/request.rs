//! A request from its first setting to its outcome as one type: success, or all there is to know.

use std::mem;

use http::{Extensions, HeaderName, HeaderValue, Method};
use reqwest::{Request, Response, Url};
use reqwest_middleware::ClientWithMiddleware;

use crate::common::opaque::opaque;
use crate::common::sealed::Sealed;
use crate::error::{Cause, HttpRequestError, Inner};
use crate::observe::attempt_log::AttemptLog;
use crate::observe::history::{History, ResponseExt};
use crate::observe::invalid::InvalidPart;
use crate::outcome::transport_error;
use crate::retry::decision::StopReason;

/// The methods of every request builder of this crate, whatever sends the request in the end.
///
/// The type has a method `map` that hands the builder of reqwest-middleware to a closure.
macro_rules! building {
    ($Type:ty) => {
        /// Methods that build the request, as in reqwest.
        impl $Type {
            /// Adds a header. An invalid name or value is an error at sending, which names the
            /// header.
            pub fn header<K, V>(self, name: K, value: V) -> Self
            where
                K: AsRef<[u8]>,
                http::HeaderValue: TryFrom<V>,
                <http::HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
            {
                match $crate::client::request::header(name.as_ref(), value) {
                    Ok((name, value)) => {
                        // Named, or else the bounds above are taken for those of this call.
                        self.map(|it| it.header::<http::HeaderName, http::HeaderValue>(name, value))
                    }
                    Err(invalid) => self.invalid(invalid),
                }
            }

            /// Adds headers, in place of those of the same names.
            pub fn headers(self, headers: http::HeaderMap) -> Self {
                self.map(|it| it.headers(headers))
            }

            /// Sets the version of HTTP.
            pub fn version(self, version: http::Version) -> Self {
                self.map(|it| it.version(version))
            }

            /// Adds a user name, and maybe a password, as `Authorization: Basic`.
            pub fn basic_auth(
                self,
                user: impl std::fmt::Display,
                password: Option<impl std::fmt::Display>,
            ) -> Self {
                self.map(|it| it.basic_auth(user, password))
            }

            /// Adds a token as `Authorization: Bearer`.
            pub fn bearer_auth(self, token: impl std::fmt::Display) -> Self {
                let value = format!("Bearer {token}");
                match $crate::client::request::header(b"authorization", value) {
                    Ok((name, mut value)) => {
                        value.set_sensitive(true);
                        self.map(|it| it.header(name, value))
                    }
                    Err(invalid) => self.invalid(invalid),
                }
            }

            /// Sets the body. One that is a stream can be read only once, so that the request is
            /// sent only once; see [`BodyFactory`](crate::BodyFactory).
            pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
                self.map(|it| it.body(body))
            }

            /// Sets the longest an attempt may take, body included, in place of the client's
            /// timeout, be it shorter or longer. The limits of the settings hold besides. Where
            /// inner middleware or a [`BodyFactory`](crate::BodyFactory) takes the time, the
            /// attempt is cut a tenth of a second later.
            pub fn timeout(self, timeout: std::time::Duration) -> Self {
                self.map(|it| it.timeout(timeout))
            }

            /// Sets a form of several parts as body.
            #[cfg(feature = "multipart")]
            pub fn multipart(self, form: reqwest::multipart::Form) -> Self {
                self.map(|it| it.multipart(form))
            }

            /// Adds to the query of the URL, by serde: a list of pairs, a map or a struct.
            #[cfg(feature = "query")]
            pub fn query(self, query: &(impl serde::Serialize + ?Sized)) -> Self {
                self.map(|it| it.query(query))
            }

            /// Sets a URL-encoded form as body, by serde.
            #[cfg(feature = "form")]
            pub fn form(self, form: &(impl serde::Serialize + ?Sized)) -> Self {
                self.map(|it| it.form(form))
            }

            /// Sets JSON as body, by serde.
            #[cfg(feature = "json")]
            pub fn json(self, json: &(impl serde::Serialize + ?Sized)) -> Self {
                self.map(|it| it.json(json))
            }

            /// Attaches a value to the request: a [`RetryOverride`](crate::RetryOverride), an
            /// [`AttemptLog`](crate::AttemptLog), a [`BodyFactory`](crate::BodyFactory), or what
            /// another middleware reads. One of each type; the last one stays.
            pub fn with_extension(self, extension: impl Clone + Send + Sync + 'static) -> Self {
                self.map(|it| it.with_extension(extension))
            }
        }
    };
}
#[cfg(feature = "blocking")]
pub(crate) use building;

/// Builds a header, or names the one that is invalid.
pub(crate) fn header<V>(name: &[u8], value: V) -> Result<(HeaderName, HeaderValue), InvalidPart>
where
    HeaderValue: TryFrom<V>,
    <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
{
    let name =
        HeaderName::from_bytes(name).map_err(|error| InvalidPart::header_name(name, error))?;
    match HeaderValue::try_from(value) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(InvalidPart::header_value(name, error)),
    }
}

/// Adds [`send_resilient`](Self::send_resilient) to the request builder of reqwest-middleware, or
/// of its fork (feature `astral`).
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) {
/// use reqwest_resilient::RequestBuilderExt;
///
/// if let Err(error) = client.get("https://example.com/").send_resilient().await {
///     eprintln!("{error:#}\n{}", error.history());
/// }
/// # }
/// ```
pub trait RequestBuilderExt: Sealed {
    /// Sends the request; a status below 400 is `Ok`, everything else an [`HttpRequestError`].
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_middleware::ClientWithMiddleware) {
    /// use reqwest_resilient::RequestBuilderExt;
    ///
    /// match client.get("https://example.com").send_resilient().await {
    ///     Ok(response) => println!("{}", response.status()),
    ///     // GET request to https://example.com/ failed with status 503 after 4 attempts
    ///     Err(error) => eprintln!("{error:#}\n{}", error.history()),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever is no success, with method, URL, status, attempts, time, history and the reason
    /// why no further attempt was made. It gives back the last response if there is one.
    fn send_resilient(self) -> impl Future<Output = Result<Response, HttpRequestError>> + Send;
}

/// A request put together, with what an error says of it.
pub(crate) struct Prepared<C = ClientWithMiddleware> {
    client: C,
    request: Request,
    extensions: Extensions,
    pub(crate) told: RequestIdentity,
}

/// The identity of a request while it is sent.
#[derive(Clone)]
pub(crate) struct RequestIdentity {
    method: Method,
    url: Url,
    log: AttemptLog,
}

impl RequestIdentity {
    /// The error of a request that ended so.
    pub(crate) fn error(self, cause: Cause) -> HttpRequestError {
        let Self { method, url, log } = self;
        HttpRequestError::new(Inner::logged(Some(method), Some(url), cause, &log))
    }
}

/// Returns the error of a request that reqwest could not build, with its URL if that is known.
pub(crate) fn unbuilt(error: reqwest::Error) -> HttpRequestError {
    match error.url() {
        Some(_) => HttpRequestError::unbuilt(InvalidPart::url(None, error)),
        None => HttpRequestError::unbuilt(error),
    }
}

/// A macro, because the builders of reqwest-middleware and its fork have nothing in common.
macro_rules! sending {
    ($chain:ident) => {
        impl RequestBuilderExt for $chain::RequestBuilder {
            async fn send_resilient(self) -> Result<Response, HttpRequestError> {
                Prepared::<$chain::ClientWithMiddleware>::new(self)?.send().await
            }
        }

        impl Prepared<$chain::ClientWithMiddleware> {
            #[inline]
            pub(crate) fn new(
                mut builder: $chain::RequestBuilder,
            ) -> Result<Self, HttpRequestError> {
                // `build_split` drops the extensions.
                let mut extensions = mem::take(builder.extensions());
                let log = extensions.get_or_insert_default::<AttemptLog>().clone();
                match builder.build_split() {
                    (client, Ok(request)) => {
                        let (method, url) = (request.method().clone(), request.url().clone());
                        let told = RequestIdentity { method, url, log };
                        Ok(Self { client, request, extensions, told })
                    }
                    (_, Err(error)) => Err(unbuilt(error)),
                }
            }

            #[inline]
            pub(crate) fn send(
                self,
            ) -> impl Future<Output = Result<Response, HttpRequestError>> + Send {
                // Out of the async block, which would hold what it takes apart twice.
                let Self { client, request, mut extensions, told } = self;
                async move {
                    let cause = match client.execute_with_extensions(request, &mut extensions).await
                    {
                        Ok(response)
                            if response.status().as_u16() < 400 && !still_failing(&response) =>
                        {
                            return Ok(response);
                        }
                        Ok(response) => Cause::Response(response),
                        Err($chain::Error::Reqwest(error)) => {
                            Cause::Failure(transport_error::kind_of(&error), error.into())
                        }
                        Err($chain::Error::Middleware(error)) => match error.downcast() {
                            Ok(ours) if HttpRequestError::is_of(&ours, &told.log) => {
                                return Err(ours);
                            }
                            // Of a request that a middleware made for itself.
                            Ok(other) => {
                                Cause::Failure(transport_error::kind_of(&other), Box::new(other))
                            }
                            // Its plain conversion would hide the type from a downcast of the source.
                            Err(error) => Cause::Failure(
                                transport_error::kind_of(error.as_ref()),
                                error.reallocate_into_boxed_dyn_error_without_backtrace(),
                            ),
                        },
                    };
                    Err(told.error(cause))
                }
            }
        }
    };
}

sending!(reqwest_middleware);

#[cfg(feature = "astral")]
sending!(astral_reqwest_middleware);

/// Returns whether this response is one that the settings call a failure, such as a 202 in the list.
/// One that a middleware further out gives in place of a failure, from a cache say, is none.
fn still_failing(response: &Response) -> bool {
    let history = response.history();
    !matches!(history.and_then(History::stop_reason), None | Some(StopReason::Success))
}

/// A request being put together: the setters of reqwest's builder, and two ways to send it;
/// [`into_inner`](Self::into_inner) for `build` and `try_clone`.
///
/// An invalid part (a URL, a header, the shared client of the free functions) is an error at
/// sending, never a panic.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let request = client.put("https://example.com/a").basic_auth("user", Some("secret"));
/// let request = request.header("accept", "text/plain").body("text");
/// let response = request.timeout(Duration::from_secs(3)).send_resilient().await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder(Result<reqwest_middleware::RequestBuilder, HttpRequestError>);

// reqwest's own would show url and headers, secrets included.
opaque!(RequestBuilder {});

building!(RequestBuilder);

impl RequestBuilder {
    pub(crate) fn new(inner: reqwest_middleware::RequestBuilder) -> Self {
        Self(Ok(inner))
    }

    pub(crate) fn unbuilt(error: impl Into<HttpRequestError>) -> Self {
        Self(Err(error.into()))
    }

    /// Sends the request with reqwest's conventions: the last response, whatever its status, or
    /// the last error.
    ///
    /// # Errors
    ///
    /// The transport's own error, untouched, or an [`HttpRequestError`] for what was decided here and
    /// for an invalid URL or header, where [`HttpRequestError::find`] finds it.
    pub async fn send(self) -> reqwest_middleware::Result<Response> {
        self.0.map_err(reqwest_middleware::Error::middleware)?.send().await
    }

    /// Sends the request; a status below 400 is `Ok`, everything else an [`HttpRequestError`].
    ///
    /// ```no_run
    /// # async fn example() {
    /// match reqwest_resilient::get("http://example.com/").send_resilient().await {
    ///     Ok(response) => println!("{}", response.status()),
    ///     // GET request to http://example.com/ failed with status 503 after 4 attempts
    ///     Err(error) => eprintln!("{error:#}\n{}", error.history()),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever is no success, with method, URL, status, attempts, time, history and the reason
    /// why no further attempt was made.
    pub async fn send_resilient(self) -> Result<Response, HttpRequestError> {
        self.prepare()?.send().await
    }

    /// Returns the builder of reqwest-middleware inside, for what takes one.
    ///
    /// # Errors
    ///
    /// A URL or a header is invalid, or the shared client of the free functions could not be built.
    pub fn into_inner(self) -> Result<reqwest_middleware::RequestBuilder, HttpRequestError> {
        self.0
    }

    #[inline]
    pub(crate) fn prepare(self) -> Result<Prepared, HttpRequestError> {
        <Prepared>::new(self.0?)
    }

    #[inline]
    pub(crate) fn map(
        self,
        change: impl FnOnce(reqwest_middleware::RequestBuilder) -> reqwest_middleware::RequestBuilder,
    ) -> Self {
        match self.0 {
            Ok(inner) => Self(Ok(change(inner))),
            Err(error) => Self(Err(error)),
        }
    }

    fn invalid(self, part: InvalidPart) -> Self {
        Self(self.0.and_then(|_| Err(HttpRequestError::unbuilt(part))))
    }
}
