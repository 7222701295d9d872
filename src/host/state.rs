//! The state of one host: its breaker, its budget, its gate and its limits.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::breaker::{BreakerHandle, BreakerState, Observers, RuleSet};
use crate::common::clock::Instant;
use crate::host::fleet::hub::Hub;
use crate::host::fleet::member::{HasGates, Member};
use crate::host::gate::HostGates;
use crate::host::hedge::lanes::HostHedges;
use crate::host::limit::{ConcurrencyLimit, Limiter};
use crate::host::mirrors::Load;
use crate::host::rate::Pacer;
use crate::retry::budget::{Account, RetryBudget};

/// The state of one host, or of one key of the user's.
///
/// Parts are created when a request first uses them. Small and without an alignment of its own, as
/// a crawler creates and evicts one a request: what few hosts have is in one allocation of its own.
#[derive(Debug)]
pub(crate) struct HostState {
    key: Arc<str>,
    has_users_key: bool,
    /// Set once a response came of it.
    has_responded: AtomicBool,
    family: Arc<Family>,
    breaker: OnceLock<Arc<BreakerHandle>>,
    budget: OnceLock<Arc<Account>>,
    further: OnceLock<Box<Further>>,
    pub(crate) gates: HostGates,
}

/// The parts of a host's state that are off by default.
#[derive(Debug, Default)]
struct Further {
    limiter: OnceLock<Arc<Limiter>>,
    pacer: OnceLock<Arc<Pacer>>,
    hedges: OnceLock<Arc<HostHedges>>,
    /// Used only where requests are spread over mirrors.
    load: OnceLock<Arc<Load>>,
    /// Used only where the hosts are a fleet's.
    member: OnceLock<Arc<Member>>,
}

/// The key of a host state. The user's own keys never meet those of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key<'k> {
    text: &'k str,
    is_users: bool,
}

impl Hash for Key<'_> {
    /// Writes the text alone: few keys of the user's are the same as a host's.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.text.as_bytes());
    }
}

/// The state that all hosts of one map share.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) observers: Arc<Observers>,
    mode: Mutex<Option<Mode>>,
}

/// A mode that was set by hand for all breakers, those of hosts to come included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

/// The cost of evicting the state of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Nothing is lost that the next request would not find out.
    Free,
    /// The breaker is open, a gate is closed, or a limit is in use: evicted only if nothing else can be.
    Costly,
    /// The breaker was put into its state by hand: never evicted.
    Never,
}

impl<'k> Key<'k> {
    pub(crate) fn of_host(text: &'k str) -> Self {
        Self { text, is_users: false }
    }

    pub(crate) fn of_user(text: &'k str) -> Self {
        Self { text, is_users: true }
    }
}

impl Family {
    pub(crate) fn set_mode(&self, mode: Option<Mode>) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    pub(crate) fn mode(&self) -> Option<Mode> {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mode {
    pub(crate) fn apply(self, breaker: &BreakerHandle) {
        match self {
            Self::ForcedOpen => breaker.force_open(),
            Self::Disabled => breaker.disable(),
            Self::MetricsOnly => breaker.metrics_only(),
        }
    }

    fn state(self) -> BreakerState {
        match self {
            Self::ForcedOpen => BreakerState::ForcedOpen,
            Self::Disabled => BreakerState::Disabled,
            Self::MetricsOnly => BreakerState::MetricsOnly,
        }
    }
}

impl HasGates for HostState {
    fn gates(&self) -> &HostGates {
        &self.gates
    }
}

impl HostState {
    pub(crate) fn new(key: Key<'_>, family: &Arc<Family>) -> Self {
        Self {
            key: key.text.into(),
            has_users_key: key.is_users,
            has_responded: AtomicBool::new(false),
            family: Arc::clone(family),
            breaker: OnceLock::new(),
            budget: OnceLock::new(),
            further: OnceLock::new(),
            gates: HostGates::default(),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Records that a response came. Reads first, so that no cache line changes hands for it.
    #[inline]
    pub(crate) fn note_response(&self) {
        if !self.has_responded() {
            self.has_responded.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether any response ever came.
    #[inline]
    pub(crate) fn has_responded(&self) -> bool {
        self.has_responded.load(Ordering::Relaxed)
    }

    /// Returns whether its key is one of the user's, not a host's.
    pub(crate) fn has_users_key(&self) -> bool {
        self.has_users_key
    }

    /// Returns whether this is the state of `key`.
    #[inline]
    pub(crate) fn is(&self, key: Key<'_>) -> bool {
        *self.key == *key.text && self.has_users_key == key.is_users
    }

    /// Returns the breaker, which then follows `rules`; creates it if there is none.
    #[inline]
    pub(crate) fn breaker(&self, rules: &RuleSet) -> &Arc<BreakerHandle> {
        match self.breaker.get() {
            Some(breaker) => {
                breaker.adopt(rules);
                breaker
            }
            None => self.new_breaker(rules),
        }
    }

    #[cold]
    fn new_breaker(&self, rules: &RuleSet) -> &Arc<BreakerHandle> {
        let mut created = false;
        let breaker = self.breaker.get_or_init(|| {
            created = true;
            Arc::new(BreakerHandle::new(
                Arc::clone(&self.key),
                rules,
                Arc::clone(&self.family.observers),
            ))
        });
        // Asked once the breaker can be found: a mode that is set meanwhile reaches it from there.
        if let (true, Some(mode)) = (created, self.family.mode()) {
            mode.apply(breaker);
        }
        breaker
    }

    /// Returns the budget's account, which then follows `rules`; creates a full one if there is
    /// none.
    #[inline]
    pub(crate) fn budget(&self, rules: &RetryBudget, now: Instant) -> &Arc<Account> {
        let account = self.budget.get_or_init(|| Arc::new(Account::new(rules, now)));
        account.adopt(rules, now);
        account
    }

    /// Returns the concurrency limit, which then follows `rules`; creates it if there is none.
    pub(crate) fn limiter(&self, rules: &ConcurrencyLimit) -> &Arc<Limiter> {
        let limiter = self.further().limiter.get_or_init(|| Arc::new(Limiter::new(rules)));
        limiter.adopt(rules);
        limiter
    }

    /// Returns the slots of the rates.
    pub(crate) fn pacer(&self) -> &Arc<Pacer> {
        self.further().pacer.get_or_init(Arc::default)
    }

    /// Returns the concurrency limit if a request has used it.
    pub(crate) fn used_limiter(&self) -> Option<&Arc<Limiter>> {
        self.further.get()?.limiter.get()
    }

    /// Returns the rates if a request has used them.
    pub(crate) fn used_pacer(&self) -> Option<&Arc<Pacer>> {
        self.further.get()?.pacer.get()
    }

    /// Returns what hedges need; creates it if there is none.
    pub(crate) fn hedges(&self, now: Instant) -> &Arc<HostHedges> {
        self.further().hedges.get_or_init(|| Arc::new(HostHedges::new(now)))
    }

    /// Returns the breaker if a request has used it.
    #[inline]
    pub(crate) fn used_breaker(&self) -> Option<&Arc<BreakerHandle>> {
        self.breaker.get()
    }

    /// Returns the budget's account if a request has used it.
    #[inline]
    pub(crate) fn used_budget(&self) -> Option<&Arc<Account>> {
        self.budget.get()
    }

    /// Joins a fleet: this is the first request of the host.
    #[cold]
    pub(crate) fn join(self: Arc<Self>, fleet: &Hub, now: Instant) {
        self.further().member.get_or_init(|| {
            let host: Weak<Self> = Arc::downgrade(&self);
            fleet.join(&self.key, host, now)
        });
    }

    /// Returns the host as one of a fleet's, if it is.
    #[inline]
    pub(crate) fn used_member(&self) -> Option<&Arc<Member>> {
        self.further.get()?.member.get()
    }

    /// Returns the load of the host.
    pub(crate) fn load(&self) -> &Arc<Load> {
        self.further().load.get_or_init(Arc::default)
    }

    fn further(&self) -> &Further {
        self.further.get_or_init(Box::default)
    }

    /// Returns whether this state may be evicted at `now`.
    pub(crate) fn eviction(&self, now: Instant) -> Eviction {
        // A new limit would not count the requests under way, and a new gate would be open.
        let is_limiting = self.further.get().is_some_and(|it| it.is_limiting(now));
        let is_held = is_limiting || self.gates.hold_back(now);
        let free = if is_held { Eviction::Costly } else { Eviction::Free };
        let Some(breaker) = self.breaker.get() else { return free };
        match breaker.state() {
            BreakerState::Closed | BreakerState::HalfOpen => free,
            BreakerState::Open if breaker.rejects(now).is_some() => Eviction::Costly,
            BreakerState::Open => free,
            // A mode of the whole family is set again with the next state of the host.
            by_hand if self.family.mode().map(Mode::state) == Some(by_hand) => free,
            BreakerState::ForcedOpen | BreakerState::Disabled | BreakerState::MetricsOnly => {
                Eviction::Never
            }
        }
    }
}

impl Further {
    /// Returns whether a limit is in use.
    fn is_limiting(&self, now: Instant) -> bool {
        self.limiter.get().is_some_and(|it| it.is_in_use())
            || self.pacer.get().is_some_and(|it| it.is_ahead(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use reqwest::Request;

    use super::*;
    use crate::breaker::{BreakerConfig, CircuitBreakers};
    use crate::host::gate::{Patience, Throttle};
    use crate::host::limit::Limit;
    use crate::host::rate::{Rate, RateLimit};

    fn state(family: &Arc<Family>) -> HostState {
        HostState::new(Key::of_host("https://a.example"), family)
    }

    #[test]
    fn a_host_has_one_load() {
        let state = state(&Arc::default());
        assert!(Arc::ptr_eq(state.load(), state.load()));
    }

    #[test]
    fn a_state_whose_gate_is_closed_is_costly_to_evict() {
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let state = state(&Arc::default());
        let _ = state.gates.close(1, now, Throttle::RateLimit, Some(minute), 0.0);
        assert_eq!(state.eviction(now), Eviction::Costly);
        assert_eq!(state.eviction(now + 2 * minute), Eviction::Free);
        let patience = Patience { wait: Duration::MAX, left: Duration::MAX };
        let _waiting = state.gates.enter(|| 1, now, patience, now).unwrap();
        assert_eq!(state.eviction(now + 2 * minute), Eviction::Costly, "it opens");
    }

    #[test]
    fn a_state_whose_limit_is_in_use_is_costly_to_evict() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let limited = state(&Arc::default());
        let limiter = Arc::clone(limited.limiter(&Limit::fixed(1).into()));
        assert_eq!(limited.eviction(now), Eviction::Free);
        let permit = limiter.try_acquire();
        assert_eq!(limited.eviction(now), Eviction::Costly);
        drop(permit);
        assert_eq!(limited.eviction(now), Eviction::Free);

        let paced = state(&Arc::default());
        let rules = RateLimit::from(Rate::per_second(1));
        let pacer = paced.pacer();
        assert_eq!(paced.eviction(now), Eviction::Free);
        let request = Request::new(Method::GET, "https://a.example/".parse().unwrap());
        let _slot = pacer.reserve(&rules, &request, 1, second, now).unwrap();
        assert_eq!(paced.eviction(now), Eviction::Costly);
        assert_eq!(paced.eviction(now + second), Eviction::Free);
    }

    #[test]
    fn a_mode_of_one_host_is_kept_and_that_of_all_is_set_again() {
        let (family, now) = (Arc::default(), Instant::now());
        let state = state(&family);
        let rules = CircuitBreakers::from(BreakerConfig::consecutive(1)).rules;
        state.breaker(&rules).force_open();
        assert_eq!(state.eviction(now), Eviction::Never);
        family.set_mode(Some(Mode::Disabled));
        assert_eq!(state.eviction(now), Eviction::Never);
        family.set_mode(Some(Mode::ForcedOpen));
        assert_eq!(state.eviction(now), Eviction::Free);
    }
}
