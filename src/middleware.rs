//! The loop: attempt, outcome, verdict, decision, event, wait; or return.

use std::{mem, time::Duration};

use http::Extensions;
use reqwest::{Request, Response};

use crate::body::BodyFactory;
use crate::call::Call;
use crate::config::ResilientConfig;
use crate::decision::{Decision, StopReason};
use crate::outcome::FailureKind;
use crate::reload::{Current, ResilientHandle};
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
/// What signs or authenticates a request belongs after it, and so does tracing. Of two `Resilient`s
/// in one client, the inner one decides: what it gave up, the outer one does not retry. Give each
/// a breaker and a budget of its own: one that both share counts the outcome of every request once
/// more.
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
/// up to twice and at once, unseen by any middleware, so that each attempt here may be three on
/// the wire: three attempts at a server that refuses are nine streams. An attempt here follows
/// only after the backoff. Switch the others off where it matters:
/// `reqwest::Client::builder().retry(reqwest::retry::never())`.
///
/// # Redirects
///
/// reqwest follows them within the attempt, and another attempt starts at the first url again.
/// So a POST that was redirected is not sent again, whatever became of it then.
#[derive(Clone, Debug)]
pub struct Resilient {
    current: Current,
    /// The client's own, for requests of which nobody says how long they may take.
    client_timeout: Option<Duration>,
}

impl Default for Resilient {
    fn default() -> Self {
        Self::new(ResilientConfig::default())
    }
}

impl Resilient {
    /// A middleware with these settings.
    pub fn new(config: ResilientConfig) -> Self {
        Self { current: Current::new(config), client_timeout: None }
    }

    pub(crate) fn with_client_timeout(self, timeout: Duration) -> Self {
        Self { client_timeout: Some(timeout), ..self }
    }

    /// Its settings: those of requests that begin now.
    pub fn config(&self) -> ResilientConfig {
        self.current.config()
    }

    /// By which its settings, and those of its clones, can be replaced while it works.
    pub fn handle(&self) -> ResilientHandle {
        self.current.handle()
    }

    /// A block rather than an `async fn`, whose arguments would take their place in the future
    /// twice; what is seldom awaited is boxed for the same reason.
    #[expect(clippy::manual_async_fn)]
    pub(crate) fn run<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        mut request: Request,
        extensions: &'a mut Extensions,
    ) -> impl Future<Output = Result<Response, C::Error>> + Send + 'a {
        async move {
            let policy = match self.current.resolve(&request, extensions) {
                Ok(policy) => policy,
                Err(invalid) => {
                    let ((policy, faults), now) = (*invalid, Instant::now());
                    let mut call = Call::new(&policy, None, &mut request, extensions, now);
                    extensions.insert(GaveUp);
                    return call.reject::<C>(&request, FailureKind::Builder, faults.into(), now);
                }
            };
            let timeout = policy
                .attempt_timeout
                .unwrap_or_else(|| self.client_timeout.filter(|_| request.timeout().is_none()));
            // Whatever an earlier request left there is not this one's.
            extensions.remove::<GaveUp>();
            let mut now = Instant::now();
            let found = policy.entry(&request);
            let found = found.as_deref();
            let mut call = Call::new(&policy, found, &mut request, extensions, now);
            let factory = extensions.get::<BodyFactory>().cloned();
            let sent_before = extensions.get::<ResendCount>().copied();
            loop {
                if call.is_held_back(now) {
                    now = match Box::pin(call.pass_gate(&request)).await {
                        Ok(now) => now,
                        Err((limited, now)) => {
                            let kind = FailureKind::RateLimited;
                            extensions.insert(GaveUp);
                            return call.reject::<C>(&request, kind, limited.into(), now);
                        }
                    };
                }
                call.retry.turn();
                // A scope, so that what an attempt needs is not kept while waiting for the next.
                let (after, draining) = 'turn: {
                    let entered = call.enter(now).map(|()| call.retry.may_repeat(&policy));
                    // The copy stays where it is made: what is moved right afterwards is slow.
                    let mut kept = if let Ok(true) = entered { request.try_clone() } else { None };
                    let asked: &Request;
                    let mut own = None;
                    let sent = match entered {
                        Err(open) => {
                            asked = kept.insert(request);
                            Sent::unsent(FailureKind::CircuitOpen, open.into())
                        }
                        Ok(_) => {
                            match &kept {
                                Some(_) => own = Some(extensions.clone()),
                                None => call.retry.is_last(),
                            }
                            asked = kept.get_or_insert_with(|| name(&request));
                            call.starts(asked);
                            let target = own.as_mut().unwrap_or(&mut *extensions);
                            ResendCount::mark(target, sent_before.as_ref(), call.retry.attempts());
                            call.mark(target);
                            let is_free = call.terms(now, timeout).apply(&mut request)
                                && call.scopes.are_none();
                            let chain = chain.clone();
                            let sending = match &factory {
                                None => chain.send(request, target),
                                Some(factory) => send::with_body(chain, request, target, factory),
                            };
                            if is_free {
                                let result = sending.await;
                                if let Some(response) = call.plain(&result) {
                                    if call.goes_by_time() {
                                        now = Instant::now();
                                    }
                                    call.succeeds(asked, response, now);
                                    if let Some(own) = own {
                                        *extensions = own;
                                    }
                                    return result;
                                }
                                Sent::of::<C>(result, false)
                            } else {
                                let terms = call.terms(now, timeout);
                                let attempt = Box::pin(send::attempt::<C>(sending, terms));
                                call.scopes.around(attempt).await
                            }
                        }
                    };
                    let nested = own.as_ref().unwrap_or(extensions).get::<GaveUp>().is_some();

                    let started = mem::replace(&mut now, Instant::now());
                    let elapsed = now.saturating_duration_since(started);
                    let gave = sent.gave::<C>();
                    let (stop, asked) = match call.judge(asked, elapsed, gave, nested, now) {
                        Decision::Return(stop) => (stop, Some(asked)),
                        Decision::Retry { after, .. } => match kept {
                            Some(again) => {
                                request = again;
                                let draining = sent.drain(after, call.retry.left(now));
                                break 'turn (after, draining.map(Box::pin));
                            }
                            None => (StopReason::NotReplayable, None),
                        },
                    };
                    if let Some(own) = own {
                        *extensions = own;
                    }
                    if call.retry.attempts() > 1 {
                        ResendCount::restore(extensions, sent_before);
                    }
                    if stop != StopReason::Success {
                        extensions.insert(GaveUp);
                    }
                    return call.finish::<C>(sent, asked, stop, now);
                };
                if let Some(draining) = draining {
                    draining.await;
                }
                if !after.is_zero() {
                    Box::pin(match now.checked_add(after) {
                        Some(until) => tokio::time::sleep_until(until),
                        None => tokio::time::sleep(after),
                    })
                    .await;
                }
                now = Instant::now();
            }
        }
    }
}

/// Left in the extensions of a request that was given up, so that a further `Resilient` around
/// this one does not multiply its attempts.
#[derive(Clone, Copy)]
struct GaveUp;

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

/// What a request is called, without headers and body.
fn name(request: &Request) -> Request {
    Request::new(request.method().clone(), request.url().clone())
}
