//! Settings of the corpus, in this crate's words.

use std::time::Duration;

use http::StatusCode;
use reqwest_resilient as ours;
use reqwest_resilient::{Jitter, ResilientConfig, ResilientConfigBuilder, RetryMethods};

use super::schema::{Backoff, Config, Growing, Num};

/// The reason why settings are invalid: no type holds them, or the builder rejects them.
#[derive(Debug)]
pub(crate) enum Refused {
    ByType(&'static str),
    ByBuilder(ours::ConfigError),
}

type Settled<T> = Result<T, Refused>;

pub(crate) fn duration(seconds: Num, field: &'static str) -> Settled<Duration> {
    Duration::try_from_secs_f64(seconds.0).map_err(|_| Refused::ByType(field))
}

/// A limit that is infinite is none.
pub(crate) fn limit(seconds: Num, field: &'static str) -> Settled<Duration> {
    if seconds.0 == f64::INFINITY { Ok(Duration::MAX) } else { duration(seconds, field) }
}

/// A number without a fraction, as the types of this crate have it.
pub(crate) fn whole(number: f64) -> Option<u32> {
    let whole = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
    whole.then_some(number as u32)
}

/// The reference's settings, but for the methods: the guard stays on, which is what H01 asks for.
pub(crate) fn builder(config: &Config) -> Settled<ResilientConfigBuilder> {
    let mut builder =
        ResilientConfig::aresilient().to_builder().retry_methods(RetryMethods::Idempotent);
    if let Some(Num(retries)) = config.max_retries {
        builder = builder.max_retries(whole(retries).ok_or(Refused::ByType("max_retries"))?);
    }
    if let Some(statuses) = &config.status_forcelist {
        let status =
            |it: &i64| u16::try_from(*it).ok().and_then(|it| StatusCode::from_u16(it).ok());
        let statuses: Option<Vec<_>> = statuses.iter().map(status).collect();
        builder = builder.retry_statuses(statuses.ok_or(Refused::ByType("status_forcelist"))?);
    }
    if let Some(Num(share)) = config.jitter_factor {
        builder = builder.jitter(Jitter::Proportional(share));
    }
    if let Some(written) = &config.backoff {
        builder = builder.backoff(backoff(written)?);
    }
    if let Some(total) = config.max_total_time {
        builder = builder.max_total_time(limit(total, "max_total_time")?);
    }
    if let Some(wait) = config.max_wait_time {
        // Set afterwards it cuts a longer `max_delay`, as the reference does; set together, the two
        // contradict each other and are refused.
        let wait = limit(wait, "max_wait_time")?;
        builder = build(builder)?.to_builder().max_wait_time(wait);
    }
    Ok(builder)
}

pub(crate) fn build(builder: ResilientConfigBuilder) -> Settled<ResilientConfig> {
    builder.build().map_err(Refused::ByBuilder)
}

/// Any strategy, behind the trait that a user's own would implement.
pub(crate) struct Strategy(Box<dyn ours::Backoff>);

impl ours::Backoff for Strategy {
    fn delay(&self, retry: u32) -> Duration {
        self.0.delay(retry)
    }

    fn max_delay(&self) -> Option<Duration> {
        self.0.max_delay()
    }
}

pub(crate) fn backoff(written: &Backoff) -> Settled<Strategy> {
    /// The strategies that grow are built alike, and have no trait in common to say so.
    macro_rules! growing {
        ($Strategy:ty, $written:expr, $default:expr) => {{
            let Growing { base_delay, max_delay } = $written;
            let base = duration(base_delay.unwrap_or(Num($default)), "base_delay")?;
            let strategy = <$Strategy>::new(base);
            Box::new(match max_delay {
                Some(it) => strategy.max_delay(limit(*it, "backoff.max_delay")?),
                None => strategy,
            })
        }};
    }
    Ok(Strategy(match written {
        Backoff::Exponential(it) => growing!(ours::Exponential, it, 0.3),
        Backoff::Fibonacci(it) => growing!(ours::Fibonacci, it, 1.0),
        Backoff::Linear(it) => growing!(ours::Linear, it, 1.0),
        Backoff::Constant { delay } => {
            let delay = delay.unwrap_or(Num(1.0));
            Box::new(ours::Constant::new(duration(delay, "delay")?))
        }
        Backoff::Table { delays } => {
            let delays: Vec<_> =
                delays.iter().map(|it| duration(*it, "delays")).collect::<Settled<_>>()?;
            let last = delays.len().checked_sub(1).ok_or(Refused::ByType("delays"))?;
            Box::new(move |retry: u32| delays[last.min(retry as usize)])
        }
    }))
}
