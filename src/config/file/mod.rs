//! Settings from a file or the environment (feature `serde`).
//!
//! [`ResilientConfig`] deserializes from any format that serde knows. Every setting that is data,
//! except the rate of a fleet, can be given; code (callbacks, observers, predicates, backoffs of
//! your own) is in a config that [`RawConfig::over_config`] lays the file over.
//!
//! ```
//! use reqwest_resilient::ResilientConfig;
//! use reqwest_resilient::file::RawConfig;
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
//! let code = ResilientConfig::builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
//! let config = toml::from_str::<RawConfig>(text)?.over_config(&code)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is written
//!
//! - Names are those of the [builder](crate::ResilientConfigBuilder), and so are the defaults.
//!   What is not said stays as it is in `preset`: `"default"`, `"batch"`, `"plain"`, `"aresilient"`,
//!   or `"service"`, whose deadline is `max_total_time`.
//! - A length of time is text with a unit: `"300ms"`, `"1m 30s"`. A bare number is refused, because
//!   it names no unit.
//! - What can be switched off is switched off by `false` or `"off"`, and on by `true`, `"on"` or a
//!   table: `circuit_breaker = false`.
//! - A table changes what it names. `[circuit_breaker]` with `open_for` alone is the default breaker
//!   with another open time; to open for failures in a row only, say `sustained = "off"` too. The
//!   order of keys does not matter. A `backoff.max_delay` or a `concurrency_limit.start` that a
//!   table does not name gives way to what it does: the cap to `delay` and `max_wait_time`, the
//!   start to `min` and `max`.
//! - Shares of the breaker are percents, such as `50` or `0.25`; `jitter` is `"full"`, `"equal"`,
//!   `"decorrelated"`, `"none"`, or the share itself, such as `0.25`.
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
//! and a list is written with commas. Without any such variable it fails, as the prefix may be
//! misspelled; [`RawConfig::from_env`] accepts that, and [`RawConfig::is_empty`] tells.
//! [`RawConfig::over`] lays one source over another; a limit of the upper one shortens what the lower
//! one says within it:
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
//! A file holds no code. Lay it over a config that does, at the start and whenever the file has
//! changed; a setting that is taken out of the file returns to that config's:
//!
//! ```
//! use reqwest_resilient::file::RawConfig;
//! use reqwest_resilient::{Resilient, ResilientConfig, ResilientHandle};
//!
//! fn reload(handle: &ResilientHandle, code: &ResilientConfig, text: &str) -> anyhow::Result<()> {
//!     let file: RawConfig = toml::from_str(text)?;
//!     handle.reload(file.over_config(code)?);
//!     Ok(())
//! }
//!
//! let code = ResilientConfig::builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
//! let file: RawConfig = toml::from_str("max_retries = 2")?;
//! let handle = Resilient::new(file.over_config(&code)?).reload_handle();
//! reload(&handle, &code, "max_retries = 5")?;
//! # assert!(reload(&handle, &code, "max_retries = 'many'").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A file that was refused never becomes a config, so the old settings stay. To change single
//! settings of those in force, without a file, use
//! [`ResilientHandle::reload_with`](crate::ResilientHandle::reload_with).

mod apply;
mod keys;
mod limits;
mod parts;
#[cfg(feature = "schemars")]
mod schema;
mod shape;
mod spelling;
mod tree;
mod value;

use serde::de::{Deserialize, Deserializer, Error as _};

use self::{
    tree::Tree,
    value::{Table, Value},
};
use crate::common::fault::{ConfigError, ConfigFault};
use crate::config::ResilientConfig;

/// Settings as they were written, not yet judged: to join several sources before they are.
///
/// Deserializes from whatever is well-formed; mistakes show in [`build`](Self::build).
///
/// # Examples
///
/// ```
/// use reqwest_resilient::file::RawConfig;
///
/// let file: RawConfig = toml::from_str("max_retries = 5")?;
/// let vars = RawConfig::from_env("APP_", [("APP_MAX_RETRIES", "1")]);
/// let config = vars.over(file).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
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
            if let Some(rest) = name.as_ref().strip_prefix(prefix) {
                let rest = rest.to_ascii_lowercase();
                let path: Vec<_> = match &*rest {
                    // Its fault has to name it.
                    "" => vec![prefix],
                    rest => rest.split("__").collect(),
                };
                tree.insert(&path, Tree::Bare(value.as_ref().to_owned()));
            }
        }
        Self(tree)
    }

    /// Lays these settings over `base`: tables are merged, all else, lists too, is replaced. A host,
    /// a header or a base URL is the same in every spelling.
    ///
    /// A limit here shortens what `base` says within it: `max_total_time` the `attempt_timeout`, and
    /// `max_wait_time` the `max_delay` of the backoff.
    pub fn over(self, mut base: Self) -> Self {
        keys::ROOT.respell(&self.0, &mut base.0);
        let mut merged = self.0.clone().over(base.0);
        limits::shorten(&self.0, &mut merged);
        Self(merged)
    }

    /// Returns whether nothing is set, as by an environment without a variable of the prefix.
    pub fn is_empty(&self) -> bool {
        self.0 == Tree::default()
    }

    /// Validates the settings and builds the configuration, over the defaults.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its path.
    pub fn build(&self) -> Result<ResilientConfig, ConfigError> {
        self.over_config(&ResilientConfig::default())
    }

    /// Validates the settings and lays them over `base`, which keeps what it has in code:
    /// callbacks, observers, predicates, keys, and every setting that is not named here.
    ///
    /// A limit here shortens what `base` says within it, as in [`over`](Self::over). A table changes
    /// what it names of that of `base`; a backoff of the caller's own is replaced as a whole. With a
    /// `preset` all data starts from there, and of `base` stay its callbacks, observers, predicates
    /// and hosts.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its path; also a `circuit_breaker` with other rules than
    /// those of a [`CircuitBreaker`](crate::CircuitBreaker) that `base` holds.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::ResilientConfig;
    /// use reqwest_resilient::file::RawConfig;
    ///
    /// let code = ResilientConfig::builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
    /// let file: RawConfig = toml::from_str("max_retries = 5")?;
    /// let config = file.over_config(&code)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn over_config(&self, base: &ResilientConfig) -> Result<ResilientConfig, ConfigError> {
        let mut faults = vec![];
        let table = match keys::ROOT.read(&self.0, "", &mut faults) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        let config = apply::builder(&table, base, &mut faults).build();
        if let Err(error) = &config {
            // A value that could not be read is still that of the base, which is not to blame.
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
    /// All faults at once, each with its path. No variable that begins with `prefix` is one, as the
    /// prefix may be misspelled; [`RawConfig::from_env`] accepts that.
    pub fn from_env<K: AsRef<str>, V: AsRef<str>>(
        prefix: &str,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let raw = RawConfig::from_env(prefix, vars);
        let none = raw.is_empty().then(|| {
            let rule = "must begin the name of a variable";
            ConfigFault::new(shape::shown(prefix), rule, format_args!("none that does"))
        });
        ConfigError::unless_none(none.into_iter().collect())?;
        raw.build()
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
