//! The errors of a configuration: every fault, by field and value; and of building a client.

use std::{borrow::Cow, error::Error, fmt};

/// An error of any type.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// One invalid setting.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let error = ResilientConfig::builder().max_wait_time(std::time::Duration::ZERO).build().unwrap_err();
/// let fault = &error.faults()[0];
/// assert_eq!((fault.field.as_ref(), fault.rule.as_ref()), ("max_wait_time", "must be > 0"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigFault {
    /// The setting's name, with its path: `circuit_breaker.open_for`.
    pub field: Cow<'static, str>,
    /// The rule it breaks, such as `must be > 0`.
    pub rule: Cow<'static, str>,
    /// The invalid value.
    pub value: String,
}

impl ConfigFault {
    /// Builds a fault of a setting: of a [`Backoff`](crate::Backoff) of your own, for example.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::{Backoff, ConfigFault, ResilientConfig};
    ///
    /// struct Steps(Vec<Duration>);
    ///
    /// impl Backoff for Steps {
    ///     fn delay(&self, retry: u32) -> Duration {
    ///         self.0.get(retry as usize).or(self.0.last()).copied().unwrap_or_default()
    ///     }
    ///
    ///     fn fault(&self) -> Option<ConfigFault> {
    ///         let is_empty = self.0.is_empty();
    ///         is_empty.then(|| ConfigFault::new("backoff.steps", "must not be empty", &self.0))
    ///     }
    /// }
    ///
    /// let error = ResilientConfig::builder().backoff(Steps(vec![])).build().unwrap_err();
    /// assert_eq!(error.to_string(), "backoff.steps must not be empty, got []");
    /// ```
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        rule: impl Into<Cow<'static, str>>,
        value: impl fmt::Debug,
    ) -> Self {
        Self { field: field.into(), rule: rule.into(), value: format!("{value:?}") }
    }

    /// Returns the same fault, in a part of the settings.
    pub(crate) fn within(mut self, part: &str) -> Self {
        self.field = format!("{part}.{}", self.field).into();
        self
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, got {}", self.field, self.rule, self.value)
    }
}

/// An invalid configuration, with all its faults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::ResilientConfig;
///
/// let error = ResilientConfig::builder()
///     .attempt_timeout(Duration::ZERO)
///     .max_total_time(Duration::ZERO)
///     .build()
///     .unwrap_err();
/// assert_eq!(error.faults().len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<ConfigFault>,
}

impl ConfigError {
    /// Returns all faults as one error; nothing if there are none.
    pub(crate) fn unless_none(faults: Vec<ConfigFault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    /// Returns every fault, in the order of the settings.
    pub fn faults(&self) -> &[ConfigFault] {
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

/// A client that could not be built.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{BuildError, ResilientClient, ResilientConfig};
///
/// fn client() -> Result<ResilientClient, BuildError> {
///     ResilientClient::new(ResilientConfig::default())
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// reqwest failed to build it: for example, TLS has no trusted certificates.
    Client(reqwest::Error),
    /// The runtime given to a blocking client has one thread, which runs only while a caller blocks
    /// on it: its requests might wait for ever.
    #[cfg(feature = "blocking")]
    CurrentThread,
    /// The system gave no threads for the runtime of a blocking client.
    #[cfg(feature = "blocking")]
    Runtime(std::io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "the HTTP client could not be built",
            #[cfg(feature = "blocking")]
            Self::CurrentThread => {
                "a blocking client cannot use a current-thread runtime, which runs only while \
                 a caller blocks on it: give it the handle of a multi-thread runtime, or none"
            }
            #[cfg(feature = "blocking")]
            Self::Runtime(_) => "the runtime of the blocking client could not be started",
        })
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Client(error) => Some(error),
            #[cfg(feature = "blocking")]
            Self::CurrentThread => None,
            #[cfg(feature = "blocking")]
            Self::Runtime(error) => Some(error),
        }
    }
}

impl From<reqwest::Error> for BuildError {
    fn from(error: reqwest::Error) -> Self {
        Self::Client(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_error_names_all_faults() {
        assert_eq!(ConfigError::unless_none(vec![]), Ok(()));
        let faults = vec![
            ConfigFault::new("max_delay", "must be > 0", 0),
            ConfigFault::new("open_for", "must be > 0", 0).within("circuit_breaker"),
        ];
        let error = ConfigError::unless_none(faults.clone()).unwrap_err();
        assert_eq!(error.faults(), faults);
        let message = "max_delay must be > 0, got 0; circuit_breaker.open_for must be > 0, got 0";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_build_error_has_the_cause_as_its_source() {
        let response = http::Response::builder().status(502).body("").unwrap();
        let cause = reqwest::Response::from(response).error_for_status().unwrap_err();
        let error = BuildError::from(cause);
        assert_eq!(error.to_string(), "the HTTP client could not be built");
        assert!(error.source().is_some_and(|it| it.is::<reqwest::Error>()));
    }

    #[cfg(feature = "blocking")]
    #[test]
    fn a_blocking_client_says_what_is_wrong_with_its_runtime() {
        let error = BuildError::Runtime(std::io::ErrorKind::OutOfMemory.into());
        assert!(error.to_string().contains("could not be started"));
        assert!(error.source().is_some_and(|it| it.is::<std::io::Error>()));
        assert!(BuildError::CurrentThread.to_string().contains("current-thread"));
        assert!(BuildError::CurrentThread.source().is_none());
    }
}
