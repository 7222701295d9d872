//! The facts of events around the attempts: waits, limits, hedges, failovers, resumed downloads.

use std::{fmt, time::Duration};

use http::Method;

use crate::host::fleet::advice::FleetState;
use crate::host::hedge::HedgeRefusal;
use crate::host::limit::LimitUse;
use crate::observe::redact::RedactedUrl;
use crate::retry::decision::WaitSource;

/// A wait before an attempt: at the closed gate of a host, at an open circuit breaker, or for a
/// token of the retry budget.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::HeldBack(it) = event {
///             println!("{} waits {:?} by {}", it.url, it.wait, it.source);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HeldInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The least length of the wait, as known at its beginning: until the gate opens or the breaker
    /// admits a probe. Zero where it depends on another request: on a probe under way, or on a
    /// retry that earns the token.
    pub wait: Duration,
    /// The cause of the wait.
    pub source: &'a WaitSource,
}

/// A wait for a limit of the client, which is over.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| if let Event::Queued(it) = event { eprintln!("{:?}", it.waited) })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QueueInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The length of the wait.
    pub waited: Duration,
    /// The limit: [`WaitSource::Limit`] or [`WaitSource::Rate`].
    pub source: &'a WaitSource,
    /// The use of the concurrency limit after the wait, if there is one.
    pub limit: Option<LimitUse>,
}

/// A change of a fleet's breaker of one host, as this node sees it.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig, fleet::FleetState};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::FleetChanged(it) = event {
///             match it.to {
///                 FleetState::Unknown => eprintln!("{}: on our own, without the store", it.host),
///                 _ => eprintln!("{it}"),
///             }
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FleetInfo<'a> {
    /// The host: scheme, name and port.
    pub host: &'a str,
    /// The state before, without times.
    pub from: FleetState,
    /// The state now. [`Unknown`](FleetState::Unknown): the node lost its store, and decides alone.
    pub to: FleetState,
    /// The nodes that the store knew of within 10 s, as of the last exchange.
    pub nodes: u32,
}

/// `fleet breaker of https://example.com: closed to open`
impl fmt::Display for FleetInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.as_str(), self.to.as_str());
        write!(f, "fleet breaker of {}: {from} to {to}", self.host)
    }
}

/// A change of an adaptive concurrency limit.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| if let Event::LimitChanged(it) = event { eprintln!("{}", it.to) })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitInfo<'a> {
    /// The method of the request that changed it.
    pub method: &'a Method,
    /// The URL of that request.
    pub url: RedactedUrl<'a>,
    /// The limit before.
    pub from: u32,
    /// The limit from now on.
    pub to: u32,
    /// The use of the limit.
    pub usage: LimitUse,
}

/// A hedge about to be sent.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, Hedge, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .hedge(Hedge::learned(0.95))
///     .on_event(|event| {
///         if let Event::HedgeStarted(it) = event {
///             println!("{}: hedged after {:?}", it.url, it.delay);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HedgeInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of the attempt that is the hedge.
    pub attempt: u32,
    /// The delay between an attempt and its hedge, or between two hedges.
    pub delay: Duration,
}

/// A hedge that was due and refused.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, Hedge, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .hedge(Hedge::learned(0.95))
///     .on_event(|event| {
///         if let Event::HedgeRefused(it) = event {
///             println!("{}: no hedge, {}", it.url, it.why);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HedgeRefusedInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The delay between an attempt and its hedge, or between two hedges.
    pub delay: Duration,
    /// The reason.
    pub why: HedgeRefusal,
}

/// A gate that a response closed.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::GateClosed(it) = event {
///             println!("{}: no request for {:?}", it.url, it.closed_for);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GateInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The time until it opens.
    pub closed_for: Duration,
}

/// A retry that the budget refused.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::BudgetRefused(it) = event {
///             println!("{}: no retry after {} attempts", it.url, it.attempts);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BudgetInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The URL that the retry would have gone to. With mirrors this may be another endpoint's.
    pub url: RedactedUrl<'a>,
    /// The number of attempts so far.
    pub attempts: u32,
    /// The tokens left in the budget: less than one retry.
    pub tokens: f64,
}

/// An attempt at another endpoint than the one before.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ConfigError, Event, Mirrors, ResilientConfig};
///
/// # fn config() -> Result<ResilientConfig, ConfigError> {
/// ResilientConfig::builder()
///     .mirrors(Mirrors::new("https://a.example/").also("https://b.example/"))
///     .on_event(|event| {
///         if let Event::FailedOver(it) = event {
///             println!("{} instead of {}", it.url, it.from);
///         }
///     })
///     .build()
/// # }
/// # config().unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailoverInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The URL of the attempt that begins.
    pub url: RedactedUrl<'a>,
    /// The URL of the attempt before.
    pub from: RedactedUrl<'a>,
    /// The number of the attempt that begins, counted from 1.
    pub attempt: u32,
}

/// A download that goes on after a break.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::Resuming(it) = event {
///             println!("{}: goes on at byte {}", it.url, it.received);
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResumeInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of bytes received.
    pub received: u64,
    /// The number of bytes in all, if it is known.
    pub total: Option<u64>,
    /// `true` if it starts over from zero.
    pub restarts: bool,
    /// The length of the wait.
    pub wait: Duration,
}
