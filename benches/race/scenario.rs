//! What a scenario is: plain data.

use std::{ops::Range, time::Duration};

use http::Method;

use crate::bar::Bar;

/// One day in the life of a client.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) arrivals: Arrivals,
    pub(crate) traffic: Traffic,
    pub(crate) hosts: Vec<Host>,
    pub(crate) method: Method,
    /// The attempt timeout; `None` leaves it to the contestants.
    pub(crate) limit: Option<Duration>,
    /// Runs over a scripted end on a paused clock, because it takes minutes.
    pub(crate) in_virtual_time: bool,
    pub(crate) bars: Vec<Bar>,
    /// Those of `batch()`; presets run only where there are some.
    pub(crate) batch_bars: Vec<Bar>,
    /// The client with a limit that runs as well, and its bars.
    pub(crate) limit_bars: Option<(&'static str, Vec<Bar>)>,
}

/// When requests are made.
#[derive(Clone, Copy)]
pub(crate) enum Arrivals {
    AtOnce(usize),
    Paced {
        rate: f64,
        count: usize,
    },
    /// As soon as fewer than `width` are under way.
    Parallel {
        count: usize,
        width: usize,
    },
}

/// Which hosts and routes requests are for.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    /// All for route A of the first host.
    OneRoute,
    /// For the first host, with this share for route B.
    TwoRoutes { share_of_b: f64 },
    /// For route A of each host in turn.
    AllHosts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Route {
    A,
    B,
}

/// A request before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) id: usize,
    pub(crate) host: usize,
    pub(crate) route: Route,
}

/// How a host behaves.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) rule: Rule,
    /// When nothing listens, counted from the start. Connections are closed as well.
    pub(crate) down: Option<Range<Duration>>,
    /// Closes a connection after so many responses, without announcing it.
    pub(crate) closes_after: Option<usize>,
}

/// What a host responds. A share is of all sends, decided by a hash of the request and its number of
/// sends, so that all contestants meet the same luck.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    Good,
    /// Every request whose number is divisible by `every` fails the first time.
    FailsOnce {
        status: u16,
        every: usize,
    },
    Fails {
        status: u16,
        share: f64,
    },
    /// A bucket of a second's tokens, full at first.
    Limit {
        rate: f64,
        status: u16,
        hint: Hint,
    },
    /// So many requests in each window, which begins with its first; every response says what
    /// remains.
    Quota {
        count: u64,
        window: Duration,
    },
    /// 429 beyond so many requests at a time, each of which takes this long.
    AtATime {
        most: usize,
        latency: Duration,
    },
    Cuts {
        share: f64,
        processed: bool,
    },
    Hangs {
        share: f64,
    },
    SlowTail {
        share: f64,
        latency: Duration,
    },
    /// Route B fails for good.
    RouteBFails,
    /// A balancer that gives requests to back ends in turn; the last one is dead.
    BackEnds {
        count: usize,
    },
}

/// How a rate limit says when to come back.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Hint {
    Seconds,
    Date,
    None,
}

impl Host {
    pub(crate) const fn new(rule: Rule) -> Self {
        Self { rule, down: None, closes_after: None }
    }

    pub(crate) fn down(mut self, from: Duration, until: Duration) -> Self {
        self.down = Some(from..until);
        self
    }

    pub(crate) fn closes_after(mut self, responses: usize) -> Self {
        self.closes_after = Some(responses);
        self
    }

    /// A host where nothing ever listens.
    pub(crate) fn dead() -> Self {
        Self::new(Rule::Good).down(Duration::ZERO, Duration::MAX)
    }

    fn is_dead(&self) -> bool {
        self.down.as_ref().is_some_and(|it| it.end == Duration::MAX)
    }
}

impl Scenario {
    /// Starts a scenario of GETs for one host.
    pub(crate) fn new(name: impl Into<String>, arrivals: Arrivals, host: Host) -> Self {
        Self {
            name: name.into(),
            arrivals,
            traffic: Traffic::OneRoute,
            hosts: vec![host],
            method: Method::GET,
            limit: None,
            in_virtual_time: false,
            bars: vec![Bar::NotFewer],
            batch_bars: vec![],
            limit_bars: None,
        }
    }

    pub(crate) fn traffic(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    pub(crate) fn hosts(self, hosts: Vec<Host>) -> Self {
        Self { hosts, ..self }
    }

    pub(crate) fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    pub(crate) fn in_virtual_time(self) -> Self {
        Self { in_virtual_time: true, ..self }
    }

    /// Replaces the bars; the first is [`Bar::NotFewer`] alone.
    pub(crate) fn bars(self, bars: impl IntoIterator<Item = Bar>) -> Self {
        Self { bars: bars.into_iter().collect(), ..self }
    }

    /// Has presets run as well. `batch()` succeeds with 99 % of what can be had, and takes three times
    /// as long as reqwest-retry at most, or as `least`, the shortest time that the host allows.
    pub(crate) fn presets(mut self, least: Duration) -> Self {
        let time = Bar::Time { least: least.as_secs_f64() };
        self.batch_bars.extend([Bar::Share(0.99), time]);
        if self.hosts[0].down.is_some() && !self.hosts[0].is_dead() {
            self.batch_bars.push(Bar::PeakAfter(2.5));
        }
        self
    }

    /// Has a client with a limit run as well.
    pub(crate) fn limits(self, client: &'static str, bars: impl IntoIterator<Item = Bar>) -> Self {
        Self { limit_bars: Some((client, bars.into_iter().collect())), ..self }
    }

    pub(crate) fn requests(&self) -> usize {
        match self.arrivals {
            Arrivals::AtOnce(count)
            | Arrivals::Paced { count, .. }
            | Arrivals::Parallel { count, .. } => count,
        }
    }

    pub(crate) fn ask(&self, id: usize) -> Ask {
        let (host, route) = match self.traffic {
            Traffic::OneRoute => (0, Route::A),
            Traffic::TwoRoutes { share_of_b } => {
                // Evenly spread: B's turn comes whenever its share makes up another whole request.
                let due = |id: usize| (id as f64 * share_of_b).floor();
                (0, if due(id + 1) > due(id) { Route::B } else { Route::A })
            }
            Traffic::AllHosts => (id % self.hosts.len(), Route::A),
        };
        Ask { id, host, route }
    }

    /// Reports whether a request could succeed at all: not for a dead host or an endpoint that
    /// always fails. Only such requests are counted.
    pub(crate) fn counts(&self, ask: Ask) -> bool {
        let host = &self.hosts[ask.host];
        !host.is_dead() && (ask.route == Route::A || !matches!(host.rule, Rule::RouteBFails))
    }

    /// Returns how many requests a second it makes at most, retries included: by which scenarios
    /// share the machine. One whose slowest requests are judged has it to itself, and one whose limit
    /// is so short that the company would make others late.
    pub(crate) fn load(&self) -> usize {
        let is_short = self.limit.is_some_and(|it| it < Duration::from_millis(500));
        match self.arrivals {
            _ if is_short || self.bars.iter().any(|it| matches!(it, Bar::P99(_))) => usize::MAX,
            Arrivals::AtOnce(count) => 2 * count,
            Arrivals::Paced { rate, .. } => (3.0 * rate) as usize,
            Arrivals::Parallel { width, .. } => 20 * width,
        }
    }
}
