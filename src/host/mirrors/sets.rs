//! Several sets of mirrors: the one of a request, and the faults of all.

use std::{fmt, sync::Arc};

use reqwest::Url;

use crate::common::fault::ConfigFault;
use crate::host::mirrors::{MOST_SETS, Mirrors};

/// Sets of [`Mirrors`]: one, an array or a `Vec` of them.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ConfigError, Mirrors, ResilientConfig};
///
/// # fn config() -> Result<ResilientConfig, ConfigError> {
/// let crates = Mirrors::new("https://crates.example/").also("https://mirror.example/crates/");
/// let images = Mirrors::new("https://images.example/").also("https://mirror.example/images/");
/// ResilientConfig::builder().mirrors([crates, images]).build()
/// # }
/// # config().unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct MirrorSets(Arc<[Arc<Mirrors>]>);

impl MirrorSets {
    /// Returns the set for a request; of several the one with the longest base.
    pub(crate) fn of(&self, url: &Url) -> Option<&Arc<Mirrors>> {
        let fitting = self.0.iter().filter(|it| it.rest_of(url).is_some());
        fitting.max_by_key(|it| it.name().len())
    }

    /// Returns these sets, and those of `others` for other bases.
    #[cfg(feature = "serde")]
    pub(crate) fn over(&self, others: &Self) -> Self {
        let is_other = |it: &&Arc<Mirrors>| self.0.iter().all(|own| own.prefix != it.prefix);
        Self(self.0.iter().chain(others.0.iter().filter(is_other)).map(Arc::clone).collect())
    }

    /// Returns the faults of all sets.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults: Vec<_> = self.0.iter().flat_map(|it| it.faults()).collect();
        if self.0.len() > MOST_SETS {
            faults.push(ConfigFault::new("mirrors", "must be at most 64 sets", self.0.len()));
        }
        let again = self.0.iter().enumerate().find(|(at, it)| {
            it.prefix.is_some() && self.0[..*at].iter().any(|other| other.prefix == it.prefix)
        });
        faults.extend(again.map(|(_, it)| {
            ConfigFault::new("mirrors", "must not have two sets for one base", it.name())
        }));
        faults
    }
}

impl fmt::Debug for MirrorSets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl From<Mirrors> for MirrorSets {
    fn from(mirrors: Mirrors) -> Self {
        Self([Arc::new(mirrors)].into())
    }
}

impl From<Vec<Mirrors>> for MirrorSets {
    fn from(mirrors: Vec<Mirrors>) -> Self {
        Self(mirrors.into_iter().map(Arc::new).collect())
    }
}

impl<const N: usize> From<[Mirrors; N]> for MirrorSets {
    fn from(mirrors: [Mirrors; N]) -> Self {
        Self(mirrors.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(sets: impl Into<MirrorSets>) -> Vec<String> {
        sets.into().faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mirrors_longest_base_wins() {
        let sets = MirrorSets::from([
            Mirrors::new("https://a.example/"),
            Mirrors::new("https://a.example/x/y"),
            Mirrors::new("https://a.example/x"),
        ]);
        for (url, of) in [
            ("https://a.example/x/y/z", Some("https://a.example/x/y")),
            ("https://a.example/x/yz", Some("https://a.example/x")),
            ("https://a.example/z", Some("https://a.example")),
            ("https://b.example/", None),
        ] {
            assert_eq!(sets.of(&Url::parse(url).unwrap()).map(|it| it.name()), of, "{url}");
        }
    }

    #[test]
    fn mirrors_name_every_fault_without_secrets() {
        let sound = || Mirrors::new("https://a.example/");
        assert_eq!(rules(sound().also("https://b.example/x")), Vec::<String>::new());
        let secret = sound().also("https://user:hunter2@b.example/?token=hunter2");
        let faults = rules(secret).join("; ");
        assert!(faults.contains("must be an http or https URL"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
        assert_eq!(
            rules(Mirrors::instead_of("https://a.example/")),
            ["mirrors.\"https://a.example\" must have an endpoint, got 0"]
        );
        assert_eq!(
            rules([sound().also("https://a.example"), sound().sticky(Duration::ZERO)]),
            [
                "mirrors.\"https://a.example\" must not have an endpoint twice, got \
                 \"https://a.example\"",
                "mirrors.sticky must be > 0, got 0ns",
                "mirrors must not have two sets for one base, got \"https://a.example\"",
            ]
        );
        let many = (0..16).fold(sound(), |it, i| it.also(&format!("https://a{i}.example")));
        assert_eq!(rules(many).len(), 1);
        let sets = |count| {
            let set = |it| Mirrors::new(&format!("https://a{it}.example"));
            rules((0..count).map(set).collect::<Vec<_>>())
        };
        assert!(sets(64).is_empty());
        assert_eq!(sets(65), ["mirrors must be at most 64 sets, got 65"]);
    }
}
