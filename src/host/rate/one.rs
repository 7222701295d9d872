//! One rate: how many requests per time, and what they cost.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::Request;

use crate::host::rate::gcra::Pace;
use crate::outcome::Outcome;

/// A rate of requests, or of what requests cost.
///
/// Requests are spread evenly: 60 a minute are one each second, not 60 at once and then none for a
/// minute, which is what trips small quotas. [`burst`](Self::burst) allows some at once after a
/// pause.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Rate, RateLimit};
///
/// // Two a second, five of them at once after a pause, and no more than 1,000 an hour.
/// let limit = RateLimit::per_host(Rate::per_second(2).burst(5)).and(Rate::per_hour(1_000));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rate {
    pub(super) count: u32,
    pub(super) per: Duration,
    pub(super) burst: u32,
    cost: Option<CostOf>,
    pub(super) settle: Option<Settle>,
}

/// The identity of a rate across rules: its period and its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RateKind {
    pub(super) per: Duration,
    has_costs: bool,
}

/// Finds the cost of a request before it is sent.
pub(crate) type CostOf = Arc<dyn Fn(&Request) -> u32 + Send + Sync>;

/// Finds what a request did cost; `None` if the response does not say.
pub(crate) type Settle = Arc<dyn Fn(&Outcome<'_>) -> Option<u32> + Send + Sync>;

impl Rate {
    /// Builds a rate of `count` each second.
    pub const fn per_second(count: u32) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// Builds a rate of `count` each minute.
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// Builds a rate of `count` each hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_secs(3_600))
    }

    /// Builds a rate of `count` in each `period`.
    pub const fn per(count: u32, period: Duration) -> Self {
        Self { count, per: period, burst: 1, cost: None, settle: None }
    }

    /// Sets how many may go at once after a pause. Default: 1, so that requests are spread evenly.
    pub fn burst(mut self, count: u32) -> Self {
        self.burst = count;
        self
    }

    /// Counts what requests cost, in place of requests: the tokens of a prompt, for example.
    ///
    /// Called before each attempt. A cost of zero counts as one; one above the burst waits until
    /// all earlier costs are paid. A panic in it is the caller's.
    pub fn cost(mut self, cost: impl Fn(&Request) -> u32 + Send + Sync + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Corrects the cost of a request by its outcome: the tokens that a response says it took, for
    /// example. `None` leaves it as it is.
    ///
    /// Called after each attempt that was sent. A panic in it is the caller's.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Rate, RateLimit};
    ///
    /// let tokens = Rate::per_minute(90_000)
    ///     .burst(4_000)
    ///     .cost(|request| request.body().and_then(|it| it.as_bytes()).map_or(0, |it| it.len() as u32 / 4))
    ///     .settle(|outcome| outcome.headers()?.get("x-tokens-used")?.to_str().ok()?.parse().ok());
    /// let limit = RateLimit::per_host(Rate::per_minute(60)).and(tokens);
    /// ```
    pub fn settle(
        mut self,
        settle: impl Fn(&Outcome<'_>) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.settle = Some(Arc::new(settle));
        self
    }

    /// Returns a rate of another number.
    #[cfg(feature = "serde")]
    pub(crate) fn count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// Returns a rate of another period.
    #[cfg(feature = "serde")]
    pub(crate) fn period(self, per: Duration) -> Self {
        Self { per, ..self }
    }

    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.per / self.count.max(1), self.burst)
    }

    pub(super) fn kind(&self) -> RateKind {
        RateKind { per: self.per, has_costs: self.cost.is_some() }
    }

    pub(super) fn cost_of(&self, request: &Request) -> u32 {
        self.cost.as_ref().map_or(1, |it| it(request).max(1))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per, burst, .. } = self;
        f.debug_struct("Rate")
            .field("count", count)
            .field("per", per)
            .field("burst", burst)
            .field("has_costs", &self.cost.is_some())
            .finish()
    }
}
