//! What is wrong with a configuration: every fault, by field and value.

use std::{error::Error, fmt, time::Duration};

use crate::backoff::Jitter;
use crate::policy::Policy;

/// One setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The setting's name.
    pub field: &'static str,
    /// The rule it breaks, such as `must be > 0`.
    pub rule: &'static str,
    /// The value it was given.
    pub value: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, got {}", self.field, self.rule, self.value)
    }
}

/// A configuration that was refused, with all its faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// Every fault, in the order of the settings.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// Refuses a policy that cannot be meant.
pub(crate) fn check(policy: &Policy) -> Result<(), ConfigError> {
    let mut faults = vec![];
    let mut refuse = |field, rule, value: String| faults.push(Fault { field, rule, value });
    let text = |it: Duration| format!("{it:?}");

    if let Some(cap) = policy.backoff.max_delay().filter(Duration::is_zero) {
        refuse("max_delay", "must be > 0", text(cap));
    }
    if let Jitter::Proportional(share) = policy.jitter {
        if !share.is_finite() {
            refuse("jitter", "must be finite", share.to_string());
        } else if share < 0.0 {
            refuse("jitter", "must be >= 0", share.to_string());
        }
    }
    if let Some(timeout) = policy.attempt_timeout {
        if timeout.is_zero() {
            refuse("attempt_timeout", "must be > 0", text(timeout));
        }
        if policy.max_total_time.is_some_and(|it| timeout > it) {
            refuse("attempt_timeout", "must not be longer than max_total_time", text(timeout));
        }
    }
    if let Some(total) = policy.max_total_time.filter(Duration::is_zero) {
        refuse("max_total_time", "must be > 0", text(total));
    }
    if policy.max_wait_time.is_zero() {
        refuse("max_wait_time", "must be > 0", text(policy.max_wait_time));
    }
    if policy.read_body == Some(0) {
        refuse("read_body", "must be > 0", "0".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
}
