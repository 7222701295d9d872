//! The scenarios, of which each is an ordinary day.

use std::time::Duration;

use http::Method;

use crate::{
    bar::Bar,
    scenario::{Arrivals, Hint, Host, Rule, Scenario, Traffic},
};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn parallel(count: usize, width: usize) -> Arrivals {
    Arrivals::Parallel { count, width }
}

const fn paced(rate: f64, count: usize) -> Arrivals {
    Arrivals::Paced { rate, count }
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    let groups =
        [rate_limits(), limits(), blips(), failures(), outages(), connections(), endpoints()];
    groups.into_iter().flatten().collect()
}

/// More requests than the host takes.
fn rate_limits() -> Vec<Scenario> {
    let limits = [(429, Hint::Seconds), (429, Hint::Date), (429, Hint::None)];
    let limits =
        limits.into_iter().chain([(503, Hint::Seconds), (503, Hint::Date), (503, Hint::None)]);
    let mut all = Vec::new();
    for (status, hint) in limits {
        let by = match hint {
            Hint::Seconds => format!("{status} with seconds"),
            Hint::Date => format!("{status} with a date"),
            Hint::None => format!("{status} without a hint"),
        };
        let hinted = hint != Hint::None;
        for (count, rate) in [(60, 10.0), (200, 10.0), (300, 100.0)] {
            let bars = match count {
                60 if hinted => vec![Bar::Succeeds(60), Bar::Seconds(7.0), Bar::Sends(150)],
                200 if hinted => vec![Bar::Succeeds(198)],
                60 if status == 429 => vec![Bar::Succeeds(45)],
                _ => vec![Bar::NotFewer],
            };
            let host = Host::new(Rule::Limit { rate, status, hint });
            let name = format!("{count} at once, {rate}/s, {by}");
            let scenario = Scenario::new(name, Arrivals::AtOnce(count), host).bars(bars);
            // The first second's tokens are there at once.
            let least = Duration::from_secs_f64(count as f64 / rate - 1.0);
            let matters = match count {
                60 => hint != Hint::Date,
                200 => (status, hint) == (429, Hint::None),
                _ => (status, hint) == (503, Hint::Seconds),
            };
            all.push(if matters { scenario.presets(least) } else { scenario });
        }
    }
    all
}

/// Hosts whose limits a client can keep to.
fn limits() -> Vec<Scenario> {
    let quota = Host::new(Rule::Quota { count: 60, window: ms(60_000) });
    let crowd = Host::new(Rule::AtATime { most: 10, latency: ms(50) });
    vec![
        // Three windows, and 20 requests at the start of the fourth.
        Scenario::new("limits: 200 at once, 60/min with headers", Arrivals::AtOnce(200), quota)
            .bars([])
            .limits("learned()", [Bar::Succeeds(200), Bar::Refused(0), Bar::Seconds(1.05 * 180.0)])
            .in_virtual_time(),
        Scenario::new("limits: 200 at once, 10 at a time", Arrivals::AtOnce(200), crowd)
            .bars([])
            .limits("limit of 10", [Bar::Succeeds(200), Bar::Refused(0), Bar::Seconds(1.05)])
            .in_virtual_time(),
    ]
}

/// Failures that are gone at the second look.
fn blips() -> Vec<Scenario> {
    let once = |every| Host::new(Rule::FailsOnce { status: 503, every });
    let restart = Host::new(Rule::Good).down(ms(700), ms(1_000));
    vec![
        Scenario::new("blip, 20 at once", Arrivals::AtOnce(20), once(1)),
        Scenario::new("blip, 200 at once", Arrivals::AtOnce(200), once(1)).presets(ms(0)),
        Scenario::new("40 files, every fifth 503 once", parallel(40, 8), once(5)),
        Scenario::new("not listening for 300 ms, 500/s", paced(500.0, 1_000), restart),
    ]
}

/// Failures that have nothing to do with each other.
fn failures() -> Vec<Scenario> {
    let fails = |status, share| Host::new(Rule::Fails { status, share });
    let hangs = Host::new(Rule::Hangs { share: 0.02 });
    let slow = Host::new(Rule::SlowTail { share: 0.02, latency: ms(2_000) });
    let mut all = vec![
        Scenario::new("10 % 503, 64 at a time", parallel(1_000, 64), fails(503, 0.1)),
        Scenario::new("20 % 503, 64 at a time", parallel(1_000, 64), fails(503, 0.2)),
        Scenario::new("40 % 502, 64 at a time", parallel(400, 64), fails(502, 0.4)).presets(ms(0)),
        Scenario::new("2 % hang, limit 300 ms", parallel(600, 32), hangs).limit(ms(300)),
        Scenario::new("2 % take 2 s, limit 500 ms", parallel(600, 32), slow).limit(ms(500)),
    ];
    for rate in [2.0, 20.0, 100.0] {
        for percent in [10, 20, 40, 50] {
            let name = format!("{percent} % 503, {rate}/s");
            let host = fails(503, f64::from(percent) / 100.0);
            let scenario = Scenario::new(name, paced(rate, 1_000), host).in_virtual_time();
            let matters = percent == 50 && rate > 2.0;
            all.push(if matters { scenario.presets(ms(0)) } else { scenario });
        }
    }
    all
}

/// A host that is down for a while: two seconds of traffic before, three after.
fn outages() -> Vec<Scenario> {
    let mut all = Vec::new();
    for rate in [10.0, 100.0] {
        for down in [300, 500, 1_000, 2_000, 3_000, 4_000, 6_000, 10_000].map(ms) {
            let host = Host::new(Rule::Good).down(ms(2_000), ms(2_000) + down);
            let count = ((down + ms(5_000)).as_secs_f64() * rate) as usize;
            let mut bars = vec![Bar::Lost { rate }];
            if down >= ms(3_000) {
                bars.push(Bar::SendsWhileDown(0.6));
            }
            let name = format!("down for {} s, {rate}/s", down.as_secs_f64());
            let scenario = Scenario::new(name, paced(rate, count), host).bars(bars);
            let matters = [1_000, 3_000, 10_000].map(ms).contains(&down);
            all.push(if matters { scenario.presets(ms(0)) } else { scenario });
        }
    }
    all
}

/// Connections that end under a request.
fn connections() -> Vec<Scenario> {
    let cuts = |processed| Host::new(Rule::Cuts { share: 0.05, processed });
    let restarts = Host::new(Rule::Good).closes_after(50);
    let post = |name, processed| {
        Scenario::new(name, parallel(400, 16), cuts(processed))
            .method(Method::POST)
            .bars([Bar::NeverTwice])
    };
    vec![
        Scenario::new("5 % cut after the request", parallel(1_000, 16), cuts(true))
            .bars([Bar::NotFewer, Bar::P99(0.1)])
            .presets(ms(0)),
        post("POSTs, 5 % cut before processing", false),
        post("POSTs, 5 % cut after processing", true),
        Scenario::new("closed after 50 requests each", parallel(2_000, 32), restarts),
    ]
}

/// Hosts of which a part fails for good.
fn endpoints() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (rate, count) in [(1.0, 600), (20.0, 300)] {
        for percent in [10, 30, 50, 80] {
            let bars = (percent <= 50).then_some(Bar::LostShare(0.02));
            let name = format!("endpoint B fails, {percent} % of {rate}/s");
            let share_of_b = f64::from(percent) / 100.0;
            let scenario = Scenario::new(name, paced(rate, count), Host::new(Rule::RouteBFails))
                .traffic(Traffic::TwoRoutes { share_of_b })
                .bars(bars);
            all.push(if rate < 2.0 { scenario.in_virtual_time() } else { scenario });
        }
    }
    let balancer = Host::new(Rule::BackEnds { count: 3 });
    let balanced = Scenario::new("one of 3 back ends dead, 80/s", paced(80.0, 1_200), balancer);
    all.push(balanced.presets(ms(0)));
    let hosts = (0..30).map(|it| match it {
        0..5 => Host::dead(),
        5..10 => Host::new(Rule::Fails { status: 503, share: 0.1 }),
        _ => Host::new(Rule::Good),
    });
    let crawl = Scenario::new("30 hosts, 5 dead, 5 fail 10 %", parallel(600, 30), Host::dead());
    let crawl = crawl.traffic(Traffic::AllHosts).hosts(hosts.collect());
    all.push(crawl.bars([Bar::NotFewer, Bar::LostShare(0.0)]).presets(ms(0)));
    all
}
