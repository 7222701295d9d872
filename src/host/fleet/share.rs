//! A node's share of a rate that a fleet keeps: the ratio of attempts that may go.

use std::time::Duration;

use crate::common::clock::Instant;

/// The time for which the last ratio counts.
const LASTS: Duration = Duration::from_secs(10);

/// The mean time after which an attempt that did not go asks again. As long as the fleet takes to hear of
/// the demand: asked sooner, more would go than may.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The demand of the whole fleet for one host, as of the last exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) offered_per_second: f64,
    pub(crate) nodes: u32,
    pub(crate) heard: Instant,
}

/// The turn of an attempt in a fleet's rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turn {
    Go,
    /// Ask again after this time.
    Wait(Duration),
    /// The fleet has no say: the node keeps to its share of the rate, as one of so many.
    Local {
        nodes: u32,
    },
}

impl Demand {
    /// Decides on an attempt in a rate of `limit` a second. `unit` is random from 0 to 1.
    ///
    /// Each attempt goes with the ratio of the limit and the demand of all, waiting ones that ask again
    /// included: so as many go in the whole fleet as may, whichever node they come to.
    pub(crate) fn turn(&self, limit: f64, unit: impl Fn() -> f64, now: Instant) -> Turn {
        let Self { offered_per_second, nodes, heard } = *self;
        if now.saturating_duration_since(heard) >= LASTS {
            return Turn::Local { nodes: nodes.max(1) };
        }
        if offered_per_second <= limit || unit() * offered_per_second < limit {
            return Turn::Go;
        }
        Turn::Wait(ASK_AGAIN.mul_f64(0.5 + unit().clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(offered_per_second: f64, nodes: u32) -> Demand {
        Demand { offered_per_second, nodes, heard: Instant::now() }
    }

    #[test]
    fn as_many_go_as_may() {
        let now = Instant::now();
        assert_eq!(demand(1_000.0, 5).turn(1_000.0, || unreachable!(), now), Turn::Go);
        let of = |unit: f64| demand(1_500.0, 5).turn(1_000.0, move || unit, now);
        assert_eq!(of(0.66), Turn::Go);
        assert_eq!(of(0.67), Turn::Wait(ASK_AGAIN.mul_f64(1.17)));
        let half = demand(2_000.0, 5).turn(1_000.0, || 0.5, now);
        assert_eq!(half, Turn::Wait(ASK_AGAIN));
        let gone = (0..1_000).filter(|it| of(f64::from(*it) / 1_000.0) == Turn::Go).count();
        assert_eq!(gone, 667);
    }

    #[test]
    fn old_demand_is_forgotten() {
        let now = Instant::now();
        let later = now + LASTS + Duration::from_secs(1);
        let local = demand(1e12, 0).turn(1.0, || 1.0, later);
        assert_eq!(local, Turn::Local { nodes: 1 });
    }
}
