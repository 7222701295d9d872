//! The loop: attempt, outcome, verdict, decision, event, wait; or return.

use std::{mem, sync::Arc, time::Duration};

use http::{Extensions, Method};
use reqwest::{Request, Response, Url};

use crate::common::clock::Instant;
use crate::config::ResilientConfig;
use crate::config::overrides::Invalid;
use crate::config::policy::Policy;
use crate::config::reload::{Current, ResilientHandle};
use crate::execution::attempt::{self, AttemptResult, Chain, Refusal, Surroundings};
use crate::execution::body::{BodyFactory, BoxFuture};
use crate::execution::boxed::Place;
use crate::execution::call::Execution;
use crate::execution::record::{OwnConnection, SendRecord};
use crate::execution::redirect;
use crate::host::admission::{self, Admission};
use crate::host::parts::Parts;
use crate::host::states::HostStates;
use crate::observe::history::AttemptLog;
use crate::outcome::{self, FailureKind, not_sent};
use crate::retry::decision::{Decision, StopReason};

/// The time for all addresses of a name; half the attempt timeout of `ResilientClient`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which an unused connection is kept.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Both together are less than the attempt timeout of `ResilientClient`.
#[cfg(feature = "http2")]
const HTTP2_PING_AFTER: Duration = Duration::from_secs(5);
#[cfg(feature = "http2")]
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(4);

/// The middleware: put it into a client, and the client's requests survive what passes.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_resilient::Resilient;
///
/// let inner = Resilient::reqwest_builder().build()?;
/// let client = ClientBuilder::new(inner).with(Resilient::default()).build();
/// let response = client.get("https://example.com").send().await?;
/// # Ok(()) }
/// ```
///
/// # Placement
///
/// Middleware added before it sees one request; middleware added after it sees every attempt.
/// Signing, authentication and tracing belong after it. Of two `Resilient`s
/// in one client, the inner one decides: what it gave up, the outer one does not retry. Give each
/// a breaker and a budget of its own: one that both share counts the outcome of every request once
/// more.
///
/// # What comes back
///
/// The result is that of reqwest: `Ok` with the last response, whatever its status, or the last error
/// of the transport, untouched. What is decided here (a limit that cut an attempt) comes as an
/// [`HttpRequestError`](crate::HttpRequestError) inside `reqwest_middleware::Error::Middleware`.
/// Every attempt runs on a copy of the request's extensions; those of the last attempt are kept.
///
/// # reqwest's own retries
///
/// A `reqwest::Client` re-sends requests that an HTTP/2 server refused (REFUSED_STREAM, GOAWAY)
/// up to twice and at once, unseen by any middleware, so that each attempt here may be three on
/// the wire: three attempts at a server that refuses are nine streams. An attempt here follows
/// only after the backoff. [`reqwest_builder`](Self::reqwest_builder) switches the others off.
///
/// # Redirects
///
/// reqwest follows them within the attempt, and another attempt starts at the first url again.
/// So a POST that was redirected is not sent again, whatever became of it then.
///
/// [`ResilientClient`](crate::ResilientClient) sees every redirect. In a client of your own, a
/// response counts as redirected if its origin or path is not the one asked for, or if a redirect
/// was noticed while the client was polled. It is not noticed if a middleware sends by a client of
/// its own in another task: a POST that is redirected to a host that refuses connections is then
/// sent again. `redirect::Policy::none()` on that client removes it.
///
/// # Middleware inside
///
/// Breaker, gate and budget of the host that was asked hear the outcome, whatever a middleware makes
/// of URL and response. An error that a middleware made or wrapped proves nothing, says nothing of
/// the host, and has a POST sent once; see [`NotSent`](crate::NotSent). An error of
/// `error_for_status` is judged by its status.
#[derive(Clone, Debug)]
pub struct Resilient {
    current: Current,
    /// The client's own, for requests without a limit.
    client_timeout: Option<Duration>,
    /// Set if the end of the chain is our own, which records what is sent.
    records: bool,
}

impl Default for Resilient {
    fn default() -> Self {
        Self::new(ResilientConfig::default())
    }
}

impl Resilient {
    /// A middleware with these settings.
    pub fn new(config: ResilientConfig) -> Self {
        let hosts = HostStates::with_max_hosts(config.policy().max_hosts);
        Self { current: Current::new(config, hosts), client_timeout: None, records: false }
    }

    /// Returns a builder for a client of reqwest that suits this middleware, to go on from.
    ///
    /// | setting | value | why |
    /// |---|---|---|
    /// | connect timeout | 5 s, shared by the addresses of a name | without one an address that does not respond takes all the time there is, and the next is never tried. A request that ends by it was not sent, so that a POST is sent again |
    /// | idle connections | closed after 4 s | sooner than servers do (Node.js: 5 s): a request sent into a connection that is being closed fails |
    /// | HTTP/2 pings | after 5 s of silence while requests are under way, given up after 4 s more | a connection that died unnoticed is left before it takes a second attempt |
    /// | redirects | those of reqwest, and seen by the middleware | a POST that was redirected is not sent again |
    /// | reqwest's own retries | off | one attempt told is one attempt made |
    ///
    /// A client of reqwest has no limit that ends at the response head: set
    /// [`attempt_timeout`](crate::ResilientConfigBuilder::attempt_timeout), as without one an attempt
    /// that hangs is never retried. [`ResilientClient`](crate::ResilientClient) has one, and gives a
    /// retry after a stale connection a connection of its own;
    /// [`with_reqwest`](crate::ResilientClientBuilder::with_reqwest) customizes its client.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_middleware::ClientBuilder;
    /// use reqwest_resilient::{Resilient, ResilientConfig};
    ///
    /// let config = ResilientConfig::builder().attempt_timeout(Duration::from_secs(10)).build()?;
    /// let inner = Resilient::reqwest_builder().user_agent("crawler/1.0").build()?;
    /// let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reqwest_builder() -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .redirect(redirect::policy());
        #[cfg(feature = "http2")]
        let builder = builder
            .http2_keep_alive_interval(HTTP2_PING_AFTER)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        builder
    }

    pub(crate) fn with_client_timeout(self, timeout: Duration) -> Self {
        Self { client_timeout: Some(timeout), ..self }
    }

    /// For a chain whose end is [`EndOfChain`](crate::client::end_of_chain::EndOfChain).
    pub(crate) fn with_records(self) -> Self {
        Self { records: true, ..self }
    }

    /// Keeps what it learns of hosts in `hosts`, which other clients may share.
    pub fn with_hosts(mut self, hosts: HostStates) -> Self {
        self.current.set_hosts(hosts);
        self
    }

    /// Returns what it knows of hosts.
    pub fn hosts(&self) -> &HostStates {
        self.current.hosts()
    }

    fn parts<'p>(&'p self, policy: &'p Policy, request: &Request, now: Instant) -> Parts<'p> {
        Parts::find(self.current.hosts().map(), policy.host_rules(), request, now)
    }

    /// Returns what a download uses besides its requests, of this request's settings and host.
    #[cfg(feature = "download")]
    pub(crate) fn context(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> Option<crate::client::download::link::Context> {
        let policy = self.current.resolve(request, extensions).ok()?;
        let (breaker, budget) = {
            let parts = self.parts(&policy, request, Instant::now());
            (parts.breaker().cloned(), parts.budget().cloned())
        };
        Some(crate::client::download::link::Context::new(policy, breaker, budget))
    }

    /// Its settings: those of requests that begin now.
    pub fn config(&self) -> ResilientConfig {
        self.current.config()
    }

    /// Returns the handle that replaces its settings, and those of its clones, while it works.
    pub fn handle(&self) -> ResilientHandle {
        self.current.handle()
    }

    /// Sends the request the quick way where that comes to the same.
    pub(crate) fn run<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, C::Error>> {
        let policy = self.current.resolve(&request, extensions);
        // Whatever an earlier request left there is not this one's.
        extensions.remove::<GaveUp>();
        not_sent::forget(extensions);
        SendRecord::forget(extensions);
        // Not matched together with the answer of `keeps_copy`: to move the policy takes 6 ns.
        let policy = match policy {
            Ok(policy) if self.client_timeout.is_none() && is_simple(&policy, extensions) => {
                if let Some(copies) = policy.keeps_copy(&request) {
                    let place = Place::default();
                    return place.fill(self.quick(chain, policy, request, copies, extensions));
                }
                Ok(policy)
            }
            policy => policy,
        };
        Place::default().fill(self.full(chain, policy, request, extensions))
    }

    /// A first attempt that keeps to nothing and that has no observer: if its response is good, that
    /// was all, and the loop need not begin. Where breaker or gate has to be asked, it does at once.
    ///
    /// A block rather than an `async fn`, whose arguments would take their place in the future
    /// twice; what is seldom awaited is boxed for the same reason.
    #[expect(clippy::manual_async_fn)]
    fn quick<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        policy: Arc<Policy>,
        mut request: Request,
        copies: bool,
        extensions: &'a mut Extensions,
    ) -> impl Future<Output = Result<Response, C::Error>> + Send + 'a {
        async move {
            let now = Instant::now();
            let parts = self.parts(&policy, &request, now);
            let Some(permit) = admission::pass(&parts, extensions, now) else {
                let guard = Admission::new(parts, extensions);
                let call = Execution::new(&policy, guard, &mut request, extensions, now);
                let request = &mut request;
                return Box::pin(self.attempts(chain, call, None, request, extensions, now)).await;
            };
            let mut left = if copies { request.try_clone() } else { None };
            let name = if copies { None } else { name(&request) };
            let gate_key = (!copies).then(|| parts.gate_key(&request));
            // A scope, so that what this attempt needs is not kept while others follow.
            let (request, first) = {
                let mut own = copies.then(|| extensions.clone());
                let target = own.as_mut().unwrap_or(&mut *extensions);
                let result = chain.clone().send(request, target).await;
                let good = result.as_ref().ok().filter(|it| policy.is_good(it.status()));
                if let Some(response) = good {
                    if permit.is_some() || parts.budget().is_some() {
                        let asked =
                            left.as_ref().map(Request::url).or_else(|| Some(&name.as_ref()?.1));
                        let cross_host_url =
                            asked.and_then(|it| outcome::cross_host_url(it, response.url()));
                        admission::succeeded(
                            &parts,
                            permit,
                            cross_host_url,
                            Instant::now(),
                            &policy.sources,
                        );
                    }
                    if let Some(own) = own {
                        *extensions = own;
                    }
                    return result;
                }
                let request = match (&mut left, name) {
                    (Some(copy), _) => copy,
                    (left, Some((method, url))) => left.insert(Request::new(method, url)),
                    // Never, as a body that is bytes can be copied.
                    (None, None) => return result,
                };
                let mut sent = AttemptResult::of(result, false);
                let extensions = own.as_ref().unwrap_or(extensions);
                let (asked, records) = (request.url(), self.records);
                sent.read::<C>(Surroundings { asked, extensions, records });
                (request, Box::new(First { sent, own }))
            };
            let guard = Admission::new(parts, extensions).with(permit, gate_key);
            let call = Execution::new(&policy, guard, request, extensions, now);
            Box::pin(self.attempts(chain, call, Some(first), request, extensions, now)).await
        }
    }

    /// All that cannot go the quick way: the loop from its beginning.
    #[expect(clippy::manual_async_fn)]
    fn full<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        policy: Result<Arc<Policy>, Invalid>,
        mut request: Request,
        extensions: &'a mut Extensions,
    ) -> impl Future<Output = Result<Response, C::Error>> + Send + 'a {
        async move {
            let now = Instant::now();
            let policy = match policy {
                Ok(policy) => policy,
                Err(invalid) => {
                    let (policy, faults) = *invalid;
                    let guard = Admission::new(self.parts(&policy, &request, now), extensions);
                    let mut call = Execution::new(&policy, guard, &mut request, extensions, now);
                    extensions.insert(GaveUp);
                    let kind = FailureKind::Builder;
                    let refusal = Refusal { kind, error: faults.into(), now };
                    return call.refuse::<C>(&request, None, refusal);
                }
            };
            let guard = Admission::new(self.parts(&policy, &request, now), extensions);
            let call = Execution::new(&policy, guard, &mut request, extensions, now);
            self.attempts(chain, call, None, &mut request, extensions, now).await
        }
    }

    /// The loop, which may begin with what a first attempt gave.
    #[expect(clippy::manual_async_fn)]
    fn attempts<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        mut call: Execution<'a>,
        mut first: Option<Box<First<C::Error>>>,
        request: &'a mut Request,
        extensions: &'a mut Extensions,
        mut now: Instant,
    ) -> impl Future<Output = Result<Response, C::Error>> + Send + 'a {
        async move {
            let timeout = call
                .policy
                .attempt_timeout
                .unwrap_or_else(|| self.client_timeout.filter(|_| request.timeout().is_none()));
            call.limit_attempts(timeout.into_iter().chain(request.timeout().copied()).min());
            let factory = extensions.get::<BodyFactory>().cloned();
            let sent_before = extensions.get::<ResendCount>().copied();
            let mut kept: Option<Box<AttemptResult<C::Error>>> = None;
            loop {
                call.retry.turn();
                if first.is_none() && (call.may_be_held_back() || call.enter(now).is_err()) {
                    now = match Box::pin(call.admit(request, now)).await {
                        Ok(now) => now,
                        Err(refusal) => {
                            extensions.insert(GaveUp);
                            return call.refuse::<C>(request, kept.map(|it| *it), refusal);
                        }
                    };
                }
                // A scope, so that what an attempt needs is not kept while waiting for the next.
                let (after, source, last) = {
                    let mut sent;
                    let mut own = None;
                    if let Some(first) = first.take() {
                        First { sent, own } = *first;
                        if own.is_none() {
                            call.retry.forbid_retry();
                        }
                        call.starts(request);
                    } else {
                        let (sending, is_free) = {
                            let copy = call.retry.may_repeat(call.policy);
                            let (mut outgoing, copied) = take(request, copy);
                            match copied {
                                true => own = Some(extensions.clone()),
                                false => {
                                    call.retry.forbid_retry();
                                    call.keep_gate_key(&outgoing);
                                }
                            }
                            call.starts(request);
                            let target = own.as_mut().unwrap_or(&mut *extensions);
                            ResendCount::mark(target, sent_before.as_ref(), call.retry.attempts());
                            call.mark(target);
                            if call.needs_own_connection() {
                                target.insert(OwnConnection);
                            }
                            let limits = !call.terms(now, timeout).apply(&mut outgoing);
                            let chain = chain.clone();
                            let sending = match &factory {
                                None => chain.send(outgoing, target),
                                Some(factory) => {
                                    attempt::with_body(chain, outgoing, target, factory)
                                }
                            };
                            (sending, !limits && call.scopes.are_none())
                        };
                        sent = if is_free {
                            AttemptResult::of(sending.await, false)
                        } else {
                            let terms = call.terms(now, timeout);
                            let attempt = Box::pin(attempt::attempt::<C>(sending, terms));
                            call.scopes.around(attempt).await
                        };
                        let extensions = own.as_ref().unwrap_or(extensions);
                        let (asked, records) = (request.url(), self.records);
                        sent.read::<C>(Surroundings { asked, extensions, records });
                    }
                    let nested = own.as_ref().unwrap_or(extensions).get::<GaveUp>().is_some();

                    let started = mem::replace(&mut now, Instant::now());
                    let elapsed = now.saturating_duration_since(started);
                    let result = sent.outcome_result::<C>();
                    match call.judge(request, elapsed, result, nested, now) {
                        // Boxed, since it is kept while the request waits.
                        Decision::Retry { after, source } => (after, source, Box::new(sent)),
                        Decision::Return(stop) => {
                            if let Some(own) = own {
                                *extensions = own;
                            }
                            if call.retry.attempts() > 1 {
                                ResendCount::restore(extensions, sent_before);
                            }
                            if stop != StopReason::Success {
                                extensions.insert(GaveUp);
                            }
                            return call.finish::<C>(sent, request, stop, now);
                        }
                    }
                };
                let last = Box::pin(last.drained(after, call.retry.left(now))).await;
                match Box::pin(call.wait_for_token(request, now)).await {
                    Ok(None) => {}
                    // The backoff begins now: what has just worked may have used up a rate limit.
                    Ok(Some(later)) => {
                        call.waits(request, last.outcome_result::<C>(), after, &source, later);
                        now = later;
                    }
                    Err(now) => {
                        extensions.insert(GaveUp);
                        return call.give_up::<C>(request, *last, StopReason::Budget, now);
                    }
                }
                kept = Some(last);
                if !after.is_zero() && !call.waits_at_gate() {
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

/// The result of a first attempt, and the extensions that were its own.
struct First<E> {
    sent: AttemptResult<E>,
    own: Option<Extensions>,
}

/// Returns whether nothing is asked of attempts, and no log is kept of them.
#[inline]
fn is_simple(policy: &Policy, extensions: &Extensions) -> bool {
    policy.simple
        && extensions.get::<BodyFactory>().is_none()
        && extensions.get::<AttemptLog>().is_none()
}

/// Left in the extensions of a request that was given up, so that a further `Resilient` around
/// this one does not multiply its attempts.
#[derive(Clone, Copy)]
struct GaveUp;

/// The number of earlier sends of a request, in the extensions of every attempt but the first: what
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

    /// Builds the number after this many sends.
    #[cfg(feature = "download")]
    pub(crate) fn of(sends: u32) -> Self {
        Self(sends)
    }

    /// Tells it to middleware further in; a first attempt costs nothing.
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

/// Takes what is to be sent, and leaves a copy in its place if one is wanted and can be had, or else
/// a request without headers and body. Says whether it is a copy.
#[inline]
fn take(request: &mut Request, copy: bool) -> (Request, bool) {
    match if copy { request.try_clone() } else { None } {
        Some(copy) => (mem::replace(request, copy), true),
        None => {
            let bare = Request::new(request.method().clone(), request.url().clone());
            (mem::replace(request, bare), false)
        }
    }
}

/// Returns method and URL of a request, for where there is no copy of it.
///
/// Neither inlined nor without its `Some`, so that it is made right where it stays: what is moved
/// soon after is slow.
#[inline(never)]
fn name(request: &Request) -> Option<(Method, Url)> {
    Some((request.method().clone(), request.url().clone()))
}
