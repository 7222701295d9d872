//! The loop: attempt, outcome, verdict, decision, event, wait; or return.

use std::{mem, pin::pin, time::Duration};

use http::{Extensions, Method};
use reqwest::{Request, Response, Url};

use crate::body::{self, BodyFactory};
use crate::call::Call;
use crate::config::ResilientConfig;
use crate::decision::{Decision, StopReason};
use crate::outcome::FailureKind;
use crate::overrides;
use crate::send::{self, Chain, Sent};
use crate::time::Instant;

/// The middleware: put it into a client, and the client's requests survive what passes.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_resilient::Resilient;
///
/// let client = ClientBuilder::new(reqwest::Client::new()).with(Resilient::default()).build();
/// let response = client.get("https://example.com").send().await?;
/// # Ok(()) }
/// ```
///
/// # Placement
///
/// Middleware added before it sees one request; middleware added after it sees every attempt.
/// What signs or authenticates a request belongs after it, and so does tracing.
///
/// # What comes back
///
/// What reqwest would give: `Ok` with the last response, whatever its status, or the last error
/// of the transport, untouched. What is decided here (a limit that cut an attempt) comes as an
/// [`HttpRequestError`](crate::HttpRequestError) inside `reqwest_middleware::Error::Middleware`.
/// Every attempt runs on a copy of the request's extensions; those of the last attempt are kept.
///
/// # reqwest's own retries
///
/// A `reqwest::Client` re-sends requests that an HTTP/2 server refused (REFUSED_STREAM, GOAWAY)
/// up to twice, unseen by any middleware, so that each attempt here may be three on the wire.
/// Switch that off where it matters:
/// `reqwest::Client::builder().retry(reqwest::retry::never())`.
#[derive(Clone, Debug, Default)]
pub struct Resilient {
    config: ResilientConfig,
}

impl Resilient {
    /// A middleware with these settings.
    pub fn new(config: ResilientConfig) -> Self {
        Self { config }
    }

    /// Its settings.
    pub fn config(&self) -> &ResilientConfig {
        &self.config
    }

    pub(crate) async fn run<C: Chain>(
        &self,
        chain: C,
        request: Request,
        extensions: &mut Extensions,
    ) -> Result<Response, C::Error> {
        let (policy, invalid) = overrides::resolve(self.config.policy(), extensions);
        let mut now = Instant::now();
        let mut next = request;
        let mut call = Call::new(&policy, &mut next, extensions, now);
        if let Some(faults) = invalid {
            return call.reject::<C>(&next, FailureKind::Builder, faults.into(), now);
        }
        let factory = extensions.get::<BodyFactory>().cloned();
        let sent_before = extensions.get::<ResendCount>().copied();
        loop {
            now = match call.pass_gate(&next, now).await {
                Ok(now) => now,
                Err((error, now)) => {
                    return call.reject::<C>(&next, FailureKind::RateLimited, error.into(), now);
                }
            };
            call.retry.turn();
            let copy = if call.retry.may_repeat(&policy) { next.try_clone() } else { None };
            let kept = match copy {
                Some(copy) => Kept::Copy(copy),
                None => Kept::Head(next.method().clone(), next.url().clone()),
            };
            let mut own = matches!(kept, Kept::Copy(_)).then(|| extensions.clone());
            let target = own.as_mut().unwrap_or(&mut *extensions);

            let filled = match &factory {
                Some(factory) => factory.fill(next).await,
                None => Ok(next),
            };
            let sent = match (filled, call.enter(now)) {
                (Ok(request), Ok(())) => {
                    call.starts(kept.method(), kept.url());
                    ResendCount::mark(target, sent_before.as_ref(), call.retry.attempts());
                    let (chain, deadline) = (chain.clone(), call.retry.deadline());
                    let attempt = send::attempt(chain, request, target, &policy, now, deadline);
                    call.scopes.around(pin!(attempt)).await
                }
                (Ok(_), Err(open)) => Sent::unsent(FailureKind::CircuitOpen, open.into()),
                (Err(error), _) => Sent::unsent(FailureKind::Builder, error),
            };

            let started = mem::replace(&mut now, Instant::now());
            let elapsed = now.saturating_duration_since(started);
            let gave = sent.gave::<C>();
            match (call.judge(kept.method(), kept.url(), elapsed, gave, now), kept) {
                (Decision::Retry { after, .. }, Kept::Copy(copy)) => {
                    next = copy;
                    wait(after, sent).await;
                    now = Instant::now();
                }
                (decision, kept) => {
                    if let Some(own) = own {
                        *extensions = own;
                    }
                    if call.retry.attempts() > 1 {
                        ResendCount::restore(extensions, sent_before);
                    }
                    let stop = match decision {
                        Decision::Return(stop) => stop,
                        Decision::Retry { .. } => StopReason::NotReplayable,
                    };
                    return call.finish::<C>(sent, kept.method(), kept.url(), stop, now);
                }
            }
        }
    }
}

/// How often a request was sent before, in the extensions of every attempt but the first: what
/// OpenTelemetry calls `http.request.resend_count`.
///
/// For middleware further in, which sees one attempt only; absent means 0. Re-sends of a
/// [`Resilient`] further out count too. Redirects, which the client follows by itself, do not.
///
/// ```
/// use http::Extensions;
/// use reqwest_resilient::ResendCount;
///
/// fn on_request_start(extensions: &Extensions) {
///     // A field of the span; tracing-opentelemetry makes numbers of signed ones only.
///     let resend_count = extensions.get::<ResendCount>().map(|it| i64::from(it.get()));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResendCount(u32);

impl ResendCount {
    /// The number: 1 or more.
    pub fn get(&self) -> u32 {
        self.0
    }

    /// Says it to whoever is further in; a first attempt costs nothing.
    fn mark(extensions: &mut Extensions, before: Option<&Self>, attempt: u32) {
        if attempt > 1 {
            let before = before.map_or(0, Self::get);
            extensions.insert(Self(before.saturating_add(attempt - 1)));
        }
    }

    /// Leaves the extensions as they came: the next request is none of this one's re-sends.
    fn restore(extensions: &mut Extensions, before: Option<Self>) {
        match before {
            Some(before) => extensions.insert(before),
            None => extensions.remove::<Self>(),
        };
    }
}

/// What is left of a request once it was sent: a copy to send again, or what it was called.
enum Kept {
    Copy(Request),
    Head(Method, Url),
}

impl Kept {
    fn method(&self) -> &Method {
        match self {
            Self::Copy(request) => request.method(),
            Self::Head(method, _) => method,
        }
    }

    fn url(&self) -> &Url {
        match self {
            Self::Copy(request) => request.url(),
            Self::Head(_, url) => url,
        }
    }
}

/// Lets the time pass; meanwhile the failed response is drained and dropped.
async fn wait<E>(after: Duration, sent: Sent<E>) {
    let start = Instant::now();
    match sent {
        Sent::Answer(response, None) => Box::pin(body::drain(response)).await,
        other => drop(other),
    }
    let left = after.saturating_sub(start.elapsed());
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}
