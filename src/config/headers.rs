//! Headers that tell the server about the request: how much time it has, which attempt it is.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::common::opaque::opaque;

/// A header that tells the server how long its client will wait for the response.
///
/// A server that knows need not start work whose result is of no use, and can pass the rest of
/// the time on to the servers it asks. The time is that until the nearest of `max_total_time`,
/// `attempt_timeout` and the request's own timeout, anew for each attempt, rounded down; without any
/// of these limits there is nothing to tell.
///
/// ```
/// use std::time::Duration;
/// use reqwest::header::{HeaderName, HeaderValue};
/// use reqwest_resilient::{DeadlineHeader, ResilientConfig};
///
/// let name = HeaderName::from_static("x-request-timeout-ms");
/// let config = ResilientConfig::builder()
///     .max_total_time(Duration::from_secs(30))
///     .deadline_header(DeadlineHeader::millis(name.clone()))
///     .build()?;
///
/// // In whole seconds.
/// let seconds = DeadlineHeader::new(name, |left| HeaderValue::from(left.as_secs()));
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct DeadlineHeader {
    name: HeaderName,
    write: Arc<dyn Fn(Duration) -> HeaderValue + Send + Sync>,
}

impl DeadlineHeader {
    /// Writes `grpc-timeout`, as gRPC and Envoy read it: at most eight digits and a unit, such as `29750m`.
    pub fn grpc_timeout() -> Self {
        Self::new(HeaderName::from_static("grpc-timeout"), grpc_timeout)
    }

    /// Writes the time left in milliseconds into this header.
    pub fn millis(name: HeaderName) -> Self {
        Self::new(name, |left| {
            HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// Writes the time left by `write` into this header. A panic in it is the caller's.
    pub fn new(
        name: HeaderName,
        write: impl Fn(Duration) -> HeaderValue + Send + Sync + 'static,
    ) -> Self {
        Self { name, write: Arc::new(write) }
    }

    pub(crate) fn line(&self, left: Duration) -> (HeaderName, HeaderValue) {
        (self.name.clone(), (self.write)(left))
    }
}

opaque!(DeadlineHeader { name });

/// The most that eight digits hold.
const MOST: u128 = 99_999_999;

/// The finest unit that has room for the time; never 0, which is no timeout by gRPC's rules.
fn grpc_timeout(left: Duration) -> HeaderValue {
    const UNITS: [(&str, u128); 6] = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("S", 1_000_000_000),
        ("M", 60_000_000_000),
        ("H", 3_600_000_000_000),
    ];
    let fits = |(_, nanos): &&(&str, u128)| left.as_nanos() / nanos <= MOST;
    let (unit, nanos) = UNITS.iter().find(fits).unwrap_or(&UNITS[5]);
    let number = (left.as_nanos() / nanos).clamp(1, MOST);
    HeaderValue::try_from(format!("{number}{unit}"))
        .unwrap_or_else(|_| HeaderValue::from_static("1n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_timeouts_take_the_finest_unit_that_fits() {
        let hour = Duration::from_secs(3600);
        for (left, text) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_millis(100_000), "100000m"),
            (30 * hour, "108000S"),
            (30_000 * hour, "1800000M"),
            (2_000_000 * hour, "2000000H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(grpc_timeout(left), text, "{left:?}");
        }
    }

    #[test]
    fn a_deadline_header_shows_its_name() {
        let shown = format!("{:?}", DeadlineHeader::grpc_timeout());
        assert_eq!(shown, r#"DeadlineHeader { name: "grpc-timeout", .. }"#);
    }

    proptest! {
        #[test]
        fn grpc_timeouts_are_never_longer_than_the_time_left(secs: u64, nanos in 1..1_000_000_000_u32) {
            let left = Duration::new(secs, nanos);
            let value = grpc_timeout(left);
            let (digits, unit) = value.to_str().unwrap().split_at(value.len() - 1);
            prop_assert!((1..=8).contains(&digits.len()));
            let unit: u128 = match unit {
                "n" => 1,
                "u" => 1_000,
                "m" => 1_000_000,
                "S" => 1_000_000_000,
                "M" => 60_000_000_000,
                _ => 3_600_000_000_000,
            };
            prop_assert!(digits.parse::<u128>().unwrap() * unit <= left.as_nanos());
        }
    }
}
