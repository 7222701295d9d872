//! Settings for one request, or for all requests of one task.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::{fmt, sync::Arc};

use http::Extensions;
use reqwest::Url;

use crate::common::fault::ConfigError;
use crate::config::policy::{Patch, Policy, Setting};

/// Settings that differ for one request.
///
/// Put it into the request's extensions; what it does not set stays as configured. A setting that
/// cannot be, such as a wait of zero, ends the request before anything is sent, with the
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
pub struct RetryOverride(Arc<Patch>);

tokio::task_local! {
    static SCOPE: Vec<RetryOverride>;
}

impl RetryOverride {
    /// An override that sets nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies to every request that `future` makes, also through libraries that build their own.
    ///
    /// A request's own override wins over it, and an inner scope over an outer one, setting by
    /// setting. The scope belongs to the task: what `future` spawns is outside of it.
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
        let mut scopes = SCOPE.try_with(Clone::clone).unwrap_or_default();
        scopes.push(self);
        SCOPE.scope(scopes, future).await
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

/// A policy that cannot be, and what is wrong with it; boxed, as it is seldom there.
pub(crate) type Invalid = Box<(Arc<Policy>, ConfigError)>;

/// The policy of one request. What is not there costs nothing: neither
/// settings of hosts, nor an override.
#[inline(always)]
pub(crate) fn resolve(
    configured: &Arc<Policy>,
    url: &Url,
    extensions: &Extensions,
) -> Result<Arc<Policy>, Invalid> {
    let configured = configured.of_host(url).unwrap_or(configured);
    let own = extensions.get::<RetryOverride>();
    match SCOPE.try_with(|scopes| patched(configured, scopes, own)) {
        Ok(patched) => patched,
        Err(_) if own.is_none() => Ok(Arc::clone(configured)),
        Err(_) => patched(configured, &[], own),
    }
}

#[cold]
fn patched(
    configured: &Policy,
    scopes: &[RetryOverride],
    own: Option<&RetryOverride>,
) -> Result<Arc<Policy>, Invalid> {
    let mut policy = configured.patched(scopes.iter().chain(own).map(|it| &*it.0));
    // The host is found already.
    policy.hosts = None;
    if scopes.iter().chain(own).any(|it| it.0.names_max_retries()) {
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
