//! A handle to the history of a request that is under way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;

use crate::common::lock::lock;
use crate::common::path_redactor::PathRedactor;
use crate::observe::history::{Attempt, History};
use crate::outcome::Heard;

/// A handle to the history of a request, which can be read while the request runs and afterwards.
///
/// Put a clone of it into the request's extensions:
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_middleware::Error> {
/// use reqwest_resilient::AttemptLog;
///
/// let log = AttemptLog::new();
/// let result = client.get("https://example.com").with_extension(log.clone()).send().await;
/// println!("{}", log.history());
/// # Ok(()) }
/// ```
///
/// One log serves one request at a time; another request restarts it.
#[derive(Clone, Debug, Default)]
pub struct AttemptLog(Arc<Mutex<Logged>>);

#[derive(Debug, Default)]
struct Logged {
    /// Empty after a success.
    history: History,
    /// The status of a first attempt that succeeded, and the other host that responded: few read the
    /// log of such a request, so that its history is made for them.
    success: Option<(StatusCode, Option<String>)>,
    elapsed: Duration,
    redact_path: Option<PathRedactor>,
}

impl AttemptLog {
    /// Creates an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the history so far.
    pub fn history(&self) -> History {
        self.lock(|it| match &it.success {
            None => it.history.clone(),
            Some((status, by)) => {
                let attempt = Attempt::succeeded(*status, it.elapsed, by.clone());
                History::of_success(attempt, Heard::default())
            }
        })
    }

    /// Returns the number of attempts so far.
    pub fn attempts(&self) -> u32 {
        self.lock(|it| it.success.as_ref().map_or_else(|| it.history.total(), |_| 1))
    }

    /// Returns how long the request took, waits included; up to its last attempt while it runs.
    pub fn elapsed(&self) -> Duration {
        self.lock(|it| it.elapsed)
    }

    /// Returns whether both are handles to the same log.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn redact_path(&self) -> Option<PathRedactor> {
        self.lock(|it| it.redact_path.clone())
    }

    pub(crate) fn set(
        &self,
        history: History,
        elapsed: Duration,
        redact_path: Option<&PathRedactor>,
    ) {
        let redact_path = redact_path.cloned();
        self.lock(|it| *it = Logged { history, success: None, elapsed, redact_path });
    }

    /// Records that the first attempt succeeded, and that this was all; `by` is another host that
    /// responded.
    pub(crate) fn set_success(&self, status: StatusCode, elapsed: Duration, by: Option<String>) {
        let success = Some((status, by));
        self.lock(|it| *it = Logged { success, elapsed, ..Logged::default() });
    }

    fn lock<T>(&self, read: impl FnOnce(&mut Logged) -> T) -> T {
        read(&mut lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_log_shows_what_was_last_written() {
        let log = AttemptLog::new();
        assert_eq!((log.attempts(), log.elapsed()), (0, Duration::ZERO));
        let by = || Some(String::from("b.example"));
        let attempt = Attempt::succeeded(StatusCode::OK, SECOND, by());
        let history = History::of_success(attempt, Heard::default());
        log.clone().set_success(StatusCode::OK, SECOND, by());
        for _ in 0..2 {
            assert_eq!((log.attempts(), log.elapsed()), (1, SECOND));
            assert_eq!(log.history(), history);
            log.set(history.clone(), SECOND, None);
        }
        log.set_success(StatusCode::OK, SECOND, None);
        log.set(History::default(), SECOND, None);
        assert_eq!((log.attempts(), log.history()), (0, History::default()));
    }
}
