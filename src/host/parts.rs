//! The parts of a host's state that one request uses, of its own host or by another scope.

use std::{borrow::Cow, sync::Arc, time::Duration};

use reqwest::{Request, Url};

use crate::breaker::{BreakerHandle, BreakerScope, CircuitBreakers};
use crate::common::clock::Instant;
use crate::common::scope::Scope;
use crate::host::fleet::member::{FleetEntry, Member};
use crate::host::gate::{GateKey, HostGates};
use crate::host::hedge::lanes::HostHedges;
use crate::host::limit::ConcurrencyLimit;
use crate::host::limits::Limits;
use crate::host::map::{HostMap, host_key};
use crate::host::rate::{Paced, RateLimit};
use crate::host::state::HostState;
use crate::retry::budget::{Account, RetryBudget};

/// The settings of one request that concern its host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostRules<'p> {
    pub(crate) breaker: Option<&'p CircuitBreakers>,
    pub(crate) budget: Option<&'p RetryBudget>,
    pub(crate) gate: Option<&'p GateKey>,
    pub(crate) concurrency: Option<&'p ConcurrencyLimit>,
    pub(crate) rate: Option<&'p RateLimit>,
    /// The number of tokens below zero down to which this request may take the budget.
    pub(crate) overdraft: u32,
}

/// The parts of a host's state that one request uses.
#[derive(Debug)]
pub(crate) struct Parts<'p> {
    hosts: &'p HostMap,
    host: Cow<'p, Arc<HostState>>,
    breaker: Part<BreakerHandle>,
    budget: Part<Account>,
    pub(crate) overdraft: u32,
    pub(crate) gate: Option<&'p GateKey>,
    /// Boxed, because most requests have none.
    pub(crate) limits: Option<Box<Limits<'p>>>,
}

/// A part of a host's state, as one request uses it.
#[derive(Debug)]
enum Part<T> {
    Unused,
    OfHost,
    /// Of another scope: a key, all requests, or the caller.
    Other(Arc<T>),
}

impl<'p> Parts<'p> {
    /// Stops using the breaker: a further `Resilient` outside has asked it.
    pub(crate) fn without_breaker(self) -> Self {
        Self { breaker: Part::Unused, ..self }
    }

    /// Finds what `request` uses by these rules.
    #[inline]
    pub(crate) fn find(
        hosts: &'p HostMap,
        rules: HostRules<'p>,
        request: &Request,
        now: Instant,
    ) -> Self {
        Self::find_at(hosts, rules, request.url(), request, now)
    }

    /// Finds what `request` would use at the host of `url`.
    #[inline]
    pub(crate) fn find_at(
        hosts: &'p HostMap,
        rules: HostRules<'p>,
        url: &Url,
        request: &Request,
        now: Instant,
    ) -> Self {
        let host = hosts.find(url, now);
        // Read once: the `Cow` would be asked again for each part.
        let state: &HostState = &host;
        if let Some(fleet) = hosts.fleet().filter(|_| state.used_member().is_none()) {
            Arc::clone(&host).join(fleet, now);
        }
        let breaker = match rules.breaker {
            None => Part::Unused,
            Some(rules) => match &rules.scope {
                BreakerScope::Host => {
                    state.breaker(&rules.rules);
                    Part::OfHost
                }
                _ => Part::Other(other_breaker(hosts, rules, request, now)),
            },
        };
        let budget = match rules.budget {
            None => Part::Unused,
            Some(rules) => match &rules.scope {
                Scope::Host => {
                    state.budget(rules, now);
                    Part::OfHost
                }
                _ => Part::Other(other_budget(hosts, rules, request, now)),
            },
        };
        let HostRules { gate, overdraft, .. } = rules;
        let limits = match (rules.concurrency, rules.rate) {
            (None, None) => None,
            _ => Some(limits(hosts, state, rules, request, now)),
        };
        Self { hosts, host, breaker, budget, overdraft, gate, limits }
    }

    /// Returns how long breaker and gate of the host of `url` hold back a request whose gate has this
    /// key; zero if it is available, [`Duration::MAX`] if no wait helps.
    pub(crate) fn held_back_by(
        hosts: &HostMap,
        rules: HostRules<'_>,
        url: &Url,
        gate_key: impl FnOnce(&HostGates) -> u64,
        now: Instant,
    ) -> (Duration, Duration) {
        let host = hosts.find(url, now);
        let breaker = rules.breaker.filter(|it| matches!(it.scope, BreakerScope::Host));
        let of_fleet = || breaker_member(&host)?.rejects(now);
        let open = breaker.and_then(|_| host.used_breaker()?.rejects(now).or_else(of_fleet));
        let open = open.map_or(Duration::ZERO, |it| {
            it.retry_in().unwrap_or(Duration::MAX).max(Duration::from_nanos(1))
        });
        let closed = rules
            .gate
            .map_or(Duration::ZERO, |_| host.gates.opens_in(|| gate_key(&host.gates), now));
        (open, closed)
    }

    /// Returns how long the breaker rejects attempts from now on, if it does.
    pub(crate) fn rejects_for(&self, now: Instant) -> Option<Duration> {
        let of_fleet = || self.member()?.rejects(now);
        let rejection = self.breaker()?.rejects(now).or_else(of_fleet)?;
        // No wait helps if it was forced open.
        Some(rejection.may_close_in().unwrap_or(Duration::MAX))
    }

    #[inline]
    pub(crate) fn breaker(&self) -> Option<&Arc<BreakerHandle>> {
        match &self.breaker {
            Part::Unused => None,
            Part::OfHost => self.host.used_breaker(),
            Part::Other(breaker) => Some(breaker),
        }
    }

    #[inline]
    pub(crate) fn budget(&self) -> Option<&Arc<Account>> {
        match &self.budget {
            Part::Unused => None,
            Part::OfHost => self.host.used_budget(),
            Part::Other(account) => Some(account),
        }
    }

    #[inline]
    pub(crate) fn gates(&self) -> Option<&HostGates> {
        self.gate.map(|_| &self.host.gates)
    }

    /// Returns the key of a request's gate; 0 where there is no gate.
    pub(crate) fn gate_key(&self, request: &Request) -> u64 {
        self.gate.map_or(0, |key| self.host.gates.key_of(key, request))
    }

    /// Returns the host in its fleet, if the request uses the host's breaker, and the fleet shares it.
    #[inline]
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        breaker_member(&self.host).filter(|_| self.is_per_host())
    }

    /// Returns whether the fleet has no say in an attempt that begins now.
    #[inline]
    pub(crate) fn is_fleet_settled(&self) -> bool {
        self.member().is_none_or(|it| it.is_settled())
    }

    /// Returns the fleet's breaker, as an attempt finds it that begins now.
    #[inline]
    pub(crate) fn fleet_entry(&self) -> FleetEntry {
        self.member().map_or_else(FleetEntry::default, |it| it.entry())
    }

    /// Returns the host in its fleet, if the request uses its gate, and the fleet shares it.
    pub(crate) fn gate_member(&self) -> Option<&Arc<Member>> {
        let member = self.host.used_member().filter(|_| self.gate.is_some());
        member.filter(|it| it.signals().settings.shares_gate)
    }

    /// Returns the host in its fleet, if it is in one.
    pub(crate) fn rate_member(&self) -> Option<&Arc<Member>> {
        self.host.used_member()
    }

    pub(crate) fn is_per_host(&self) -> bool {
        matches!(self.breaker, Part::OfHost)
    }

    /// Returns another host, if it was asked before.
    pub(crate) fn known_host(&self, url: &Url) -> Option<Arc<HostState>> {
        self.hosts.peek(&host_key(url))
    }

    /// Returns the state of another host, a new one if there is none.
    pub(crate) fn host_of(&self, url: &Url, now: Instant) -> Cow<'p, Arc<HostState>> {
        self.hosts.find(url, now)
    }

    /// Records that the host responded.
    #[inline]
    pub(crate) fn note_response(&self) {
        self.host.note_response();
    }

    /// Returns whether the host ever responded.
    pub(crate) fn has_responded(&self) -> bool {
        self.host.has_responded()
    }

    /// Returns what hedges to the host need.
    pub(crate) fn hedges(&self, now: Instant) -> &Arc<HostHedges> {
        self.host.hedges(now)
    }

    /// Returns whether a gate of the host may be closed.
    #[inline]
    pub(crate) fn may_be_held_back(&self) -> bool {
        self.gates().is_some_and(HostGates::is_any_closed)
    }
}

/// Returns a host in its fleet, if the fleet shares breakers.
#[inline]
pub(crate) fn breaker_member(host: &HostState) -> Option<&Arc<Member>> {
    host.used_member().filter(|it| it.signals().settings.shares_breaker)
}

#[cold]
fn limits<'p>(
    hosts: &HostMap,
    host: &HostState,
    rules: HostRules<'p>,
    request: &Request,
    now: Instant,
) -> Box<Limits<'p>> {
    let scoped = |scope: &Scope| match scope {
        Scope::Host => None,
        Scope::Key(key_of) => Some(hosts.of_key(&key_of(request), now)),
        Scope::Shared => Some(Arc::clone(hosts.shared())),
    };
    let concurrency = rules.concurrency.map(|rules| {
        let other = scoped(&rules.scope);
        (rules, Arc::clone(other.as_deref().unwrap_or(host).limiter(rules)))
    });
    let rates = rules.rate.into_iter().flat_map(RateLimit::all).map(|rules| {
        let other = scoped(&rules.scope);
        Paced::new(rules, Arc::clone(other.as_deref().unwrap_or(host).pacer()))
    });
    Box::new(Limits::new(concurrency, rates.collect(), request))
}

#[cold]
fn other_breaker(
    hosts: &HostMap,
    rules: &CircuitBreakers,
    request: &Request,
    now: Instant,
) -> Arc<BreakerHandle> {
    match &rules.scope {
        BreakerScope::Host => Arc::clone(hosts.find(request.url(), now).breaker(&rules.rules)),
        BreakerScope::Key(key_of) => {
            Arc::clone(hosts.of_key(&key_of(request), now).breaker(&rules.rules))
        }
        BreakerScope::Shared => Arc::clone(hosts.shared().breaker(&rules.rules)),
        BreakerScope::Own(breaker) => Arc::clone(breaker.handle()),
    }
}

#[cold]
fn other_budget(
    hosts: &HostMap,
    rules: &RetryBudget,
    request: &Request,
    now: Instant,
) -> Arc<Account> {
    match &rules.scope {
        Scope::Host => Arc::clone(hosts.find(request.url(), now).budget(rules, now)),
        Scope::Key(key_of) => Arc::clone(hosts.of_key(&key_of(request), now).budget(rules, now)),
        Scope::Shared => Arc::clone(hosts.shared().budget(rules, now)),
    }
}
