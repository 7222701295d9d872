//! The loop: attempt, outcome, verdict, decision, event, wait; or return.

use std::{mem, time::Duration};

use http::{Extensions, Method};
use reqwest::{Request, Response, Url};

use crate::body::{self, BodyFactory};
use crate::call::Call;
use crate::config::ResilientConfig;
use crate::decision::{Decision, StopReason};
use crate::outcome::FailureKind;
use crate::overrides;
use crate::send::{self, Chain, Sent, Terms};
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
/// up to twice and at once, unseen by any middleware, so that each attempt here may be three on
/// the wire: three attempts at a server that refuses are nine streams. An attempt here follows
/// only after the backoff. Switch the others off where it matters:
/// `reqwest::Client::builder().retry(reqwest::retry::never())`.
///
/// # Redirects
///
/// reqwest follows them within the attempt, and another attempt starts at the first url again.
/// So a POST that was redirected is not sent again, whatever became of it then.
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

            let sent = match call.guard.enter(now) {
                Ok(()) => {
                    call.starts(kept.method(), kept.url());
                    let terms = Terms {
                        policy: &policy,
                        factory: factory.as_ref(),
                        now,
                        deadline: call.retry.deadline(),
                        minds_redirects: call.retry.minds_redirects(),
                    };
                    send::attempt(chain.clone(), next, target, &terms).await
                }
                Err(open) => Sent::unsent(FailureKind::CircuitOpen, open.into()),
            };

            let started = mem::replace(&mut now, Instant::now());
            let elapsed = now.saturating_duration_since(started);
            let gave = sent.gave::<C>();
            match (call.judge(kept.method(), kept.url(), elapsed, gave, now), kept) {
                (Decision::Retry { after, .. }, Kept::Copy(copy)) => {
                    next = copy;
                    wait(after, sent, call.retry.left(now)).await;
                    now = Instant::now();
                }
                (decision, kept) => {
                    if let Some(own) = own {
                        *extensions = own;
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
async fn wait<E>(after: Duration, sent: Sent<E>, left: Option<Duration>) {
    let start = Instant::now();
    match sent {
        Sent::Answer { response, body: None, .. } => {
            Box::pin(body::drain(response, after, left)).await;
        }
        other => drop(other),
    }
    let left = after.saturating_sub(start.elapsed());
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}
