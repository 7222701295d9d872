//! Settings from a file or the environment (feature `serde`).
//!
//! [`ResilientConfig`] deserializes from any format that serde knows. Every setting that is data
//! can be given; what is code (callbacks, predicates, backoffs of your own) is added by
//! [`to_builder`](ResilientConfig::to_builder).
//!
//! ```
//! use reqwest_resilient::ResilientConfig;
//!
//! let text = r#"
//!     max_retries = 5
//!     attempt_timeout = "10s"
//!     max_total_time = "1m 30s"
//!     retry_statuses = [429, 502, 503, 504]
//!
//!     [backoff]
//!     delay = "100ms"
//!     max_delay = "5s"
//!
//!     [circuit_breaker]
//!     failure_rate = 30
//!     open_for = "10s"
//!
//!     ## What is said here goes for requests to this host alone.
//!     [hosts."payments.example.com"]
//!     max_retries = 1
//!     circuit_breaker.consecutive = 3
//! "#;
//! let config: ResilientConfig = toml::from_str(text)?;
//! let config = config.to_builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is written
//!
//! - Names are those of the [builder](crate::ResilientConfigBuilder), and so are the defaults.
//!   What is not said stays as it is in `preset`: `"default"`, `"batch"`, `"plain"`, `"aresilient"`,
//!   or `"service"`, whose deadline is `max_total_time`.
//! - A length of time is text with a unit: `"300ms"`, `"1m 30s"`. A bare number is refused, because
//!   nobody can tell of what.
//! - What can be switched off is switched off by `false` or `"off"`, and on by `true`, `"on"` or a
//!   table: `circuit_breaker = false`.
//! - A table changes what it names. `[circuit_breaker]` with `open_for` alone is the default breaker
//!   with another open time; to open for failures in a row only, say `sustained = "off"` too.
//! - Shares of the breaker are whole percents; `jitter` is `"full"`, `"equal"`, `"none"`, or the
//!   share itself, such as `0.25`.
//! - `retry_methods` is `"idempotent"`, `"all"`, or a list; `hint_headers` maps headers to `true`
//!   for a wait, to the name of a [`HintFormat`](crate::HintFormat), such as `x-go-away = "veto"`,
//!   to `{ remaining = "x-left" }` for the reset of a quota, or to `false`.
//!
//! The JSON Schema, with a line about every setting, is `docs/config.schema.json` in the
//! repository; a JSON file may name it under `$schema`.
//!
//! # Hosts
//!
//! `[hosts."api.example.com"]` takes the same settings and goes for requests to that host, on any
//! port; `[hosts."*.example.com"]` for all hosts below the domain. The most specific name wins
//! alone: two sections are not merged with one another, each is merged with the general settings.
//! See [`ResilientConfigBuilder::host`](crate::ResilientConfigBuilder::host).
//!
//! # The environment
//!
//! [`ResilientConfig::from_env`] reads variables that begin with a prefix; `__` goes into a table
//! and a list is written with commas. [`RawConfig::over`] puts one source on top of another:
//!
//! ```
//! use reqwest_resilient::file::RawConfig;
//!
//! let file: RawConfig = toml::from_str("max_retries = 5\ncircuit_breaker.open_for = '10s'")?;
//! // In a program: `std::env::vars()`.
//! let vars = [("APP_HTTP_MAX_RETRIES", "2"), ("APP_HTTP_CIRCUIT_BREAKER__MIN_SAMPLES", "50")];
//! let config = RawConfig::from_env("APP_HTTP_", vars).over(file).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Mistakes
//!
//! An unknown key and an invalid value are refused, all of them at once, each with its path. The text
//! of an unknown key is not shown, since it may be a password for something else:
//!
//! ```
//! use reqwest_resilient::ResilientConfig;
//!
//! let vars = [("X_MAX_RETRY", "5"), ("X_BACKOFF__DELAY", "fast"), ("X_READ_BODY", "0")];
//! let error = ResilientConfig::from_env("X_", vars).unwrap_err();
//! assert_eq!(error.faults().len(), 3);
//! assert_eq!(
//!     error.to_string(),
//!     "max_retry is not a setting (did you mean max_retries?), got …; \
//!      backoff.delay must be a duration such as \"300ms\", got \"fast\"; \
//!      read_body must be a whole number from 1 to 4294967295 or false, got \"0\""
//! );
//! ```
//!
//! # Changing settings at runtime
//!
//! A file that was refused never becomes a config, so the old settings stay:
//!
//! ```
//! use reqwest_resilient::{Resilient, ResilientConfig, ResilientHandle};
//!
//! fn reload(handle: &ResilientHandle, text: &str) -> Result<(), toml::de::Error> {
//!     handle.reload(toml::from_str(text)?);
//!     Ok(())
//! }
//! # let handle = Resilient::default().handle();
//! # assert!(reload(&handle, "max_retries = 5").is_ok());
//! # assert!(reload(&handle, "max_retries = 'many'").is_err());
//! ```

mod apply;
mod keys;
#[cfg(feature = "schemars")]
mod schema;
mod shape;
mod tree;

use serde::de::{Deserialize, Deserializer, Error as _};

use self::{
    shape::{Table, Value},
    tree::Tree,
};
use crate::common::fault::ConfigError;
use crate::config::ResilientConfig;

/// Settings as they were written, not yet judged: to join several sources before they are.
///
/// Deserializes from whatever is well-formed; mistakes show in [`build`](Self::build).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawConfig(Tree);

impl RawConfig {
    /// Reads `vars`, such as `std::env::vars()`; names that do not begin with `prefix` are left
    /// alone.
    ///
    /// The rest of a name is a setting in capitals, with `__` between table and key:
    /// `RESILIENT_BACKOFF__DELAY=200ms` with the prefix `RESILIENT_`.
    pub fn from_env<K: AsRef<str>, V: AsRef<str>>(
        prefix: &str,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut tree = Tree::default();
        for (name, value) in vars {
            if let Some(path) = name.as_ref().strip_prefix(prefix) {
                let path = path.to_ascii_lowercase();
                let path: Vec<_> = path.split("__").collect();
                tree.insert(&path, Tree::Bare(value.as_ref().to_owned()));
            }
        }
        Self(tree)
    }

    /// What is said here, and for the rest what `base` says. Tables are merged, all else, lists
    /// too, is replaced.
    pub fn over(self, base: Self) -> Self {
        Self(self.0.over(base.0))
    }

    /// The settings, if they can be.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its path.
    pub fn build(&self) -> Result<ResilientConfig, ConfigError> {
        let mut faults = vec![];
        let table = match keys::ROOT.read(&self.0, "", &mut faults) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        let config = apply::builder(&table, &mut faults).build();
        if let Err(error) = &config {
            // What could not be read is still at its default, which then is not to blame.
            let mut more = error.faults().to_vec();
            more.retain(|new| !faults.iter().any(|it| it.field == new.field));
            faults.extend(more);
        }
        ConfigError::unless_none(faults)?;
        config
    }
}

impl ResilientConfig {
    /// Settings from variables, such as `std::env::vars()`, whose names begin with `prefix`: see
    /// [`RawConfig::from_env`].
    ///
    /// # Errors
    ///
    /// All faults at once, each with its path.
    pub fn from_env<K: AsRef<str>, V: AsRef<str>>(
        prefix: &str,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        RawConfig::from_env(prefix, vars).build()
    }
}

impl<'de> Deserialize<'de> for RawConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tree::deserialize(deserializer).map(Self)
    }
}

/// See [`file`](mod@crate::config::file) for the format.
impl<'de> Deserialize<'de> for ResilientConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawConfig::deserialize(deserializer)?.build().map_err(D::Error::custom)
    }
}
