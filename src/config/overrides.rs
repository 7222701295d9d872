//! Settings for one request, or for all requests of one task.

use std::future::poll_fn;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::{fmt, mem, sync::Arc};

use http::Extensions;
use reqwest::Url;
use task_local_extensions::{get_local_item, set_local_item};

use crate::common::fault::ConfigError;
use crate::config::policy::{Patch, Policy, Setting};
use crate::host::mirrors::Mirrors;

/// Settings that differ for one request.
///
/// Put it into the request's extensions; what it does not set stays as configured. An invalid
/// setting, such as a wait of zero, ends the request before anything is sent, with the
/// [`ConfigError`] as its source.
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_middleware::Error> {
/// use reqwest_resilient::RetryOverride;
///
/// let patient = RetryOverride::new().max_retries(10);
/// client.get("https://example.com").with_extension(patient).send().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct RetryOverride(Arc<Patch>);

/// The overrides of the scopes around a task, outermost first: an item of its local extensions.
#[derive(Clone, Default)]
struct Scopes(Option<Arc<[RetryOverride]>>);

impl Scopes {
    /// Returns those of the task that is polled.
    fn current() -> Self {
        local_item().unwrap_or_default()
    }

    /// Makes them those of the task that is polled.
    fn set(self) {
        // Without a wait, like its counterpart.
        let _ = pin!(set_local_item(self)).poll(&mut Context::from_waker(Waker::noop()));
    }

    fn all(&self) -> &[RetryOverride] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Returns an item of the task's local extensions. Its function is async, but never waits.
#[inline]
fn local_item<T: Clone + Send + Sync + 'static>() -> Option<T> {
    match pin!(get_local_item()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

/// Puts back the outer scopes when it is dropped, be it by a panic: the thread goes on with another
/// task.
struct Entered {
    outer: Scopes,
}

impl Entered {
    fn new(scopes: Scopes) -> Self {
        let outer = Scopes::current();
        scopes.set();
        Self { outer }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        mem::take(&mut self.outer).set();
    }
}

impl RetryOverride {
    /// Creates an override that sets nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies to every request that `future` makes, also through libraries that build their own.
    ///
    /// A request's own override wins over it, and an inner scope over an outer one, setting by
    /// setting. The scope belongs to the task: what `future` spawns is outside of it.
    ///
    /// The crate `task-local-extensions` carries it, and other items of the task stay visible. An
    /// override that is such an item itself applies, too: every scope and every request's own wins
    /// over it. `with_extensions` of that crate replaces all items, a scope around it included.
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_middleware::Error> {
    /// use reqwest_resilient::RetryOverride;
    ///
    /// let once = RetryOverride::new().max_retries(0);
    /// once.scope(async { client.get("https://example.com").send().await }).await?;
    /// # Ok(()) }
    /// ```
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let outer = Scopes::current();
        let scopes = Scopes(Some(outer.all().iter().cloned().chain([self]).collect()));
        let mut future = pin!(future);
        poll_fn(move |context| {
            let _entered = Entered::new(scopes.clone());
            future.as_mut().poll(context)
        })
        .await
    }

    /// Says whether the request may take effect twice, whatever its method: a POST that the
    /// server recognises as a repeat, or a PUT that it does not.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.patch().set(Setting::Idempotent(Some(idempotent)));
        self
    }

    pub(crate) fn patch(&mut self) -> &mut Patch {
        Arc::make_mut(&mut self.0)
    }

    #[cfg(feature = "serde")]
    pub(crate) fn of_patch(patch: Arc<Patch>) -> Self {
        Self(patch)
    }

    /// Limits the request, and each attempt, to `left`.
    #[cfg(feature = "download")]
    pub(crate) fn limited_to(mut self, left: std::time::Duration) -> Self {
        self.patch().limit_to(left);
        self
    }

    pub(crate) fn into_patch(self) -> Arc<Patch> {
        self.0
    }
}

// Like a config.
impl UnwindSafe for RetryOverride {}
impl RefUnwindSafe for RetryOverride {}

impl fmt::Debug for RetryOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryOverride").finish_non_exhaustive()
    }
}

/// An invalid policy and its error; boxed because it is rare.
pub(crate) type Invalid = Box<(Arc<Policy>, ConfigError)>;

/// Returns the policy of one request. Absent settings of hosts and overrides cost next to nothing.
#[inline(always)]
pub(crate) fn resolve(
    configured: &Arc<Policy>,
    url: &Url,
    extensions: &Extensions,
) -> Result<Arc<Policy>, Invalid> {
    let configured = configured.of_host(url).unwrap_or(configured);
    let own = extensions.get::<RetryOverride>();
    let (item, scopes) = (local_item::<RetryOverride>(), Scopes::current());
    if item.is_none() && scopes.0.is_none() && own.is_none() {
        return Ok(Arc::clone(configured));
    }
    patched(configured, item.as_ref(), scopes.all(), own)
}

/// Returns the policies of a request's attempts at each endpoint of `mirrors`; `request` is its own.
pub(crate) fn resolve_endpoints(
    configured: &Arc<Policy>,
    request: &Arc<Policy>,
    (mirrors, url): (&Mirrors, &Url),
    extensions: &Extensions,
) -> Result<Vec<Arc<Policy>>, Invalid> {
    let place = |url: &Url| configured.of_host(url).map(Arc::as_ptr);
    let own = place(url);
    let of_endpoint = |endpoint: &Url| {
        if place(endpoint) == own {
            return Ok(Arc::clone(request));
        }
        let policy = resolve(configured, endpoint, extensions)?;
        Ok(Arc::new(policy.for_attempts_of(request)))
    };
    mirrors.endpoints().iter().map(|it| of_endpoint(it.url())).collect()
}

#[cold]
fn patched(
    configured: &Policy,
    item: Option<&RetryOverride>,
    scopes: &[RetryOverride],
    own: Option<&RetryOverride>,
) -> Result<Arc<Policy>, Invalid> {
    let overrides = || item.into_iter().chain(scopes).chain(own);
    let mut policy = configured.patched(overrides().map(|it| &*it.0));
    // The host is found already.
    policy.hosts = None;
    if overrides().any(|it| it.0.names_max_retries()) {
        policy.overdraft = policy.max_retries;
    }
    let mut faults = policy.faults();
    if !faults.is_empty() {
        // The override answers for its own settings: a backoff may find a fault in itself later.
        let known = configured.faults();
        faults.retain(|it| !known.contains(it));
    }
    let policy = Arc::new(policy);
    match ConfigError::unless_none(faults) {
        Ok(()) => Ok(policy),
        Err(faults) => Err(Box::new((policy, faults))),
    }
}
