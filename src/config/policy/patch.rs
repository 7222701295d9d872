//! Patches: some settings, which change those of a policy.

#[cfg(feature = "test-util")]
use std::time::SystemTime;
use std::{mem, sync::Arc, time::Duration};

use crate::common::clock::Sources;
use crate::config::policy::{Policy, Setting};
use crate::observe::listeners::{Listeners, Observer};

/// Some settings, each at most once, and listeners.
#[derive(Clone, Default)]
pub(crate) struct Patch {
    settings: Vec<Setting>,
    /// Set if a limit that was set later than the backoff cuts its cap.
    is_backoff_limited: bool,
    listeners: Listeners,
    sources: Sources,
}

impl Patch {
    /// Sets `setting`, in place of an earlier value.
    pub(crate) fn set(&mut self, setting: Setting) {
        let same = |it: &Setting| mem::discriminant(it) == mem::discriminant(&setting);
        self.settings.retain(|it| !same(it));
        self.is_backoff_limited &= !matches!(setting, Setting::Backoff(_));
        self.settings.push(setting);
    }

    /// Sets all settings of `other`.
    #[cfg(feature = "serde")]
    pub(crate) fn set_all(&mut self, other: &Self) {
        other.settings.iter().for_each(|it| self.set(it.clone()));
    }

    /// Adds an observer.
    pub(crate) fn listen(&mut self, observer: impl Observer) {
        self.listeners.observers.push(Arc::new(observer));
    }

    /// Sets the source of randomness.
    #[cfg(feature = "test-util")]
    pub(crate) fn draw_from(&mut self, random: Arc<dyn Fn() -> f64 + Send + Sync>) {
        self.sources.random = Some(random);
    }

    /// Sets the wall clock.
    #[cfg(feature = "test-util")]
    pub(crate) fn read_clock(&mut self, clock: Arc<dyn Fn() -> SystemTime + Send + Sync>) {
        self.sources.wall_clock = Some(clock);
    }

    /// Returns its settings.
    #[cfg(feature = "serde")]
    pub(crate) fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Returns whether it sets the number of retries.
    pub(crate) fn names_max_retries(&self) -> bool {
        self.settings.iter().any(|it| matches!(it, Setting::MaxRetries(_)))
    }

    /// Lets limits that are set later shorten these settings of a host, as they do with the general
    /// ones. A limit of the host's own, in `own` or here, counts in place of the one in `general`.
    pub(crate) fn shorten(&mut self, own: &Self, general: &Self) {
        self.is_backoff_limited |=
            own.limits_waits() || general.limits_waits() && !self.limits_waits();
        let inherited = if self.total_limit().is_some() { None } else { general.total_limit() };
        if let Some(Some(total)) = own.total_limit().or(inherited) {
            self.shorten_attempts(total);
        }
    }

    /// Limits the request, and each attempt, to `left`.
    #[cfg(feature = "download")]
    pub(crate) fn limit_to(&mut self, left: Duration) {
        self.shorten_attempts(left);
        self.set(Setting::MaxTotalTime(Some(left)));
    }

    fn limits_waits(&self) -> bool {
        self.settings.iter().any(|it| matches!(it, Setting::MaxWaitTime(_)))
    }

    /// Returns the limit of the whole request that is set here, which may be none.
    fn total_limit(&self) -> Option<Option<Duration>> {
        self.settings.iter().find_map(|it| match it {
            Setting::MaxTotalTime(limit) => Some(*limit),
            _ => None,
        })
    }

    /// Shortens an attempt timeout that is set here. A limit of zero is refused by itself.
    fn shorten_attempts(&mut self, limit: Duration) {
        for setting in &mut self.settings {
            if let Setting::AttemptTimeout(Some(Some(timeout))) = setting {
                *timeout = if limit.is_zero() { *timeout } else { limit.min(*timeout) };
            }
        }
    }

    pub(crate) fn apply(&self, policy: &mut Policy) {
        self.settings.iter().for_each(|it| it.apply(policy));
        self.set_guards(policy);
        policy.listeners.add(&self.listeners);
        policy.sources.replace(&self.sources);
    }

    /// Lets a limit of this patch shorten what was set elsewhere, instead of contradicting it.
    fn set_guards(&self, policy: &mut Policy) {
        let sets = |is: fn(&Setting) -> bool| self.settings.iter().any(is);
        if sets(|it| matches!(it, Setting::Backoff(_))) {
            (policy.is_backoff_set, policy.is_backoff_limited) = (true, self.is_backoff_limited);
        } else if sets(|it| matches!(it, Setting::MaxWaitTime(_))) {
            policy.is_backoff_limited = true;
        }
        let limits_attempts = sets(|it| matches!(it, Setting::MaxTotalTime(_)))
            && !sets(|it| matches!(it, Setting::AttemptTimeout(_)));
        if let (true, Some(total), Some(Some(attempt))) =
            (limits_attempts, policy.max_total_time, policy.attempt_timeout)
        {
            // A limit of zero is refused by itself.
            let longest = if total.is_zero() { Duration::MAX } else { total };
            policy.attempt_timeout = Some(Some(attempt.min(longest)));
        }
    }
}

impl FromIterator<Setting> for Patch {
    fn from_iter<I: IntoIterator<Item = Setting>>(settings: I) -> Self {
        let mut patch = Self::default();
        settings.into_iter().for_each(|it| patch.set(it));
        patch
    }
}
