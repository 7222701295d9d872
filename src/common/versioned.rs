//! Rules that can be replaced while what is kept under them stays.

use std::fmt;
use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use crate::common::fault::ConfigFault;
use crate::common::host_pattern::{HostMap, INVALID_HOST, host_of};

/// The rules by which something is kept for each host or key.
///
/// What is kept remembers the version of the rules it was made or last changed by; whoever finds
/// it on behalf of a request compares that with [`version`](Self::version), at the cost of one
/// atomic read, and takes over the new rules if it is another.
pub(crate) struct Rules<C> {
    version: AtomicU64,
    current: RwLock<Current<C>>,
}

#[derive(Clone)]
struct Current<C> {
    general: C,
    hosts: HostMap<C>,
}

impl<C: Clone> Rules<C> {
    pub(crate) fn new(general: C) -> Self {
        let current = Current { general, hosts: HostMap::default() };
        Self { version: AtomicU64::new(0), current: RwLock::new(current) }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The rules for `key`, and their version.
    pub(crate) fn of(&self, key: &str) -> (C, u64) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let rules = current.hosts.get(host_of(key)).unwrap_or(&current.general);
        (rules.clone(), self.version())
    }

    /// Gives a host rules of its own.
    pub(crate) fn set_host(&self, host: &str, rules: C) {
        self.change(|current| current.hosts.insert(host, rules));
    }

    /// Takes over the rules of `other`.
    pub(crate) fn replace(&self, other: &Self) {
        // Copied first: to hold both locks might be to wait for oneself.
        let theirs = other.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.change(|current| *current = theirs);
    }

    /// What `of` finds in the rules, and host names that cannot be; `field` takes them.
    pub(crate) fn faults(
        &self,
        of: impl Fn(&C) -> Vec<ConfigFault>,
        field: &'static str,
    ) -> Vec<ConfigFault> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let mut faults = of(&current.general);
        let known = faults.clone();
        for (name, rules) in current.hosts.iter() {
            // What a host has in common with all others is named once.
            let own = of(rules).into_iter().filter(|it| !known.contains(it));
            faults.extend(own.map(|it| it.within(&format!("hosts.{name:?}"))));
        }
        faults.extend(current.hosts.invalid().map(|it| ConfigFault::new(field, INVALID_HOST, it)));
        faults
    }

    fn change(&self, change: impl FnOnce(&mut Current<C>)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut current);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// As the rules alone, unless hosts have others.
impl<C: fmt::Debug> fmt::Debug for Rules<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.hosts.is_empty() {
            return current.general.fmt(f);
        }
        let Current { general, hosts } = &*current;
        f.debug_struct("Rules").field("general", general).field("hosts", hosts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_another_version() {
        let (ours, theirs) = (Rules::new(1), Rules::new(10));
        assert_eq!(ours.of("http://a.example"), (1, 0));
        ours.set_host("a.example", 2);
        assert_eq!(ours.of("http://a.example:81"), (2, 1));
        theirs.set_host("b.example", 20);
        ours.replace(&theirs);
        assert_eq!(ours.of("http://a.example"), (10, 2));
        assert_eq!((ours.of("http://b.example").0, ours.version()), (20, 2));
        ours.replace(&ours);
        assert_eq!(ours.version(), 3);
    }

    #[test]
    fn rules_show_hosts_only_where_they_have_their_own() {
        let rules = Rules::new(1);
        assert_eq!(format!("{rules:?}"), "1");
        rules.set_host("a.example", 2);
        assert_eq!(format!("{rules:?}"), r#"Rules { general: 1, hosts: {"a.example": 2} }"#);
    }

    #[test]
    fn what_hosts_have_in_common_is_a_fault_once() {
        let of = |rules: &u32| match rules {
            0 => vec![],
            value => vec![ConfigFault::new("size", "must be 0", value)],
        };
        let rules = Rules::new(1);
        rules.set_host("a.example", 1);
        rules.set_host("*.b.example", 2);
        rules.set_host("c/d", 0);
        let faults: Vec<_> = rules.faults(of, "hosts").iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "size must be 0, got 1",
                "hosts.\"*.b.example\".size must be 0, got 2",
                "hosts must be a host such as api.example.com or *.example.com, got \"c/d\"",
            ]
        );
    }
}
