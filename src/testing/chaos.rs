//! Faults on purpose: a middleware that lets a share of the requests fail, slow down or break off.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::Extensions;
use reqwest::{Request, Response};

use crate::common::host_pattern::HostPatterns;
use crate::common::lock::lock;
use crate::common::stable_hash::fnv1a;
use crate::testing::fault::{Fault, Injected};

/// The number of different requests whose count is remembered; one more clears all counts.
const MOST_COUNTED: usize = 1 << 18;

/// Faults for a share of all requests, chosen by a seed. Off until it is switched on.
///
/// Put it *inside* [`Resilient`](crate::Resilient), so added after it: every attempt then meets the
/// faults. Outside, it would fail requests that nothing retries.
///
/// Each attempt is hit or spared by a hash of the seed, method, URL, and the number of sends of
/// that method and URL so far. The order of concurrent requests does not change who is hit. The
/// first rule that matches decides; the shares of several matching rules add up, so that rules of
/// 5 % and 10 % hit 15 %.
///
/// Switched off, it hands a request on after one load of an atomic. It cannot reset a TCP connection: an injected
/// failure comes as the error that a client reports, and the connection stays whole.
///
/// # Examples
///
/// ```
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_resilient::Resilient;
/// use reqwest_resilient::testing::{Chaos, Fault, Script};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let chaos = Chaos::seeded(42).host("api.example.com", 0.2, Fault::status(503)).enabled();
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(Resilient::default())
///     .with(chaos.clone())
///     .with(Script::new([]))
///     .build();
/// for page in 0..100 {
///     let url = format!("https://api.example.com/{page}");
///     assert_eq!(client.get(url).send().await?.status(), 200);
/// }
/// assert!(chaos.switch().injected() > 10);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Chaos {
    rules: Arc<Vec<Rule>>,
    seed: u64,
    switch: ChaosSwitch,
}

/// The switch of a [`Chaos`], and the count of its faults. Clones are one switch.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::testing::Chaos;
///
/// let switch = Chaos::seeded(1).switch();
/// assert!(!switch.is_on());
/// switch.turn_on();
/// assert!(switch.is_on());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ChaosSwitch(Arc<Switched>);

#[derive(Debug, Default)]
struct Switched {
    is_on: AtomicBool,
    injected: AtomicU64,
    /// The number of sends of each method and URL, by their hash.
    counts: Mutex<HashMap<u64, u64>>,
}

#[derive(Clone)]
struct Rule {
    matches: Arc<dyn Fn(&Request) -> bool + Send + Sync>,
    /// The share of the requests, in parts of `u64::MAX`.
    share: u64,
    fault: Fault,
}

impl Chaos {
    /// Creates a middleware without faults, which is off.
    pub fn seeded(seed: u64) -> Self {
        Self { rules: Arc::default(), seed, switch: ChaosSwitch::default() }
    }

    /// Adds a fault for this share of all requests, from 0 to 1.
    pub fn all(self, share: f64, fault: Fault) -> Self {
        self.when(|_| true, share, fault)
    }

    /// Adds a fault for this share of the requests to a host, or to a pattern such as
    /// `*.example.com`. A pattern that is invalid matches nothing.
    pub fn host(self, pattern: &str, share: f64, fault: Fault) -> Self {
        let hosts: HostPatterns<()> = [(pattern, ())].into_iter().collect();
        let matches =
            move |it: &Request| it.url().host_str().and_then(|it| hosts.get(it)).is_some();
        self.when(matches, share, fault)
    }

    /// Adds a fault for this share of the requests that `matches` accepts.
    pub fn when(
        mut self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        share: f64,
        fault: Fault,
    ) -> Self {
        // A conversion of floats to integers saturates.
        let share = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        let rule = Rule { matches: Arc::new(matches), share, fault };
        Arc::make_mut(&mut self.rules).push(rule);
        self
    }

    /// Switches it on.
    pub fn enabled(self) -> Self {
        self.switch.turn_on();
        self
    }

    /// Returns the switch, to turn it on and off while requests are under way.
    pub fn switch(&self) -> ChaosSwitch {
        self.switch.clone()
    }

    /// Returns the fault that hits the next send of this request.
    fn next(&self, request: &Request) -> Option<Fault> {
        let method = request.method().as_str().bytes();
        let identity = fnv1a(method.chain([b' ']).chain(request.url().as_str().bytes()));
        let count = self.switch.count(identity);
        let fault = choose(&self.rules, request, draw(self.seed, identity, count))?;
        self.switch.0.injected.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }
}

/// Returns the fault of the rule whose part of the range `point` falls into.
fn choose(rules: &[Rule], request: &Request, point: u64) -> Option<Fault> {
    let mut end = 0_u64;
    let matching = rules.iter().filter(|it| (it.matches)(request));
    matching
        .map(|it| {
            end = end.saturating_add(it.share);
            (end, &it.fault)
        })
        .find(|(end, _)| point < *end || *end == u64::MAX)
        .map(|(_, fault)| fault.clone())
}

/// Returns a point of the whole range of `u64`, even for neighbouring arguments.
fn draw(seed: u64, identity: u64, count: u64) -> u64 {
    /// The finalizer of SplitMix64.
    fn mix(mut it: u64) -> u64 {
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    mix(mix(mix(seed.wrapping_add(STEP)) ^ identity).wrapping_add(count.wrapping_mul(STEP)))
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos")
            .field("seed", &self.seed)
            .field("rules", &self.rules.len())
            .field("is_on", &self.switch.is_on())
            .finish_non_exhaustive()
    }
}

impl ChaosSwitch {
    /// Lets faults happen from now on.
    pub fn turn_on(&self) {
        self.0.is_on.store(true, Ordering::Relaxed);
    }

    /// Ends the faults. A request that was hit already stays hit.
    pub fn turn_off(&self) {
        self.0.is_on.store(false, Ordering::Relaxed);
    }

    /// Returns whether faults happen.
    pub fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that were hit.
    pub fn injected(&self) -> u64 {
        self.0.injected.load(Ordering::Relaxed)
    }

    /// Returns the number of earlier sends of a request, and counts this one.
    fn count(&self, identity: u64) -> u64 {
        let mut counts = lock(&self.0.counts);
        if counts.len() >= MOST_COUNTED && !counts.contains_key(&identity) {
            counts.clear();
        }
        let count = counts.entry(identity).or_default();
        *count += 1;
        *count - 1
    }
}

/// Returns whether faults happen. Of C's calling convention, as Rust's may unwind.
extern "C" fn is_on(chaos: &Chaos) -> bool {
    chaos.switch.is_on()
}

/// A macro, because the traits of the two crates are alike and have nothing in common.
macro_rules! middleware {
    ($chain:ident, $pass:ident, $hit:ident, $from_error:expr) => {
        /// Written out, so that a middleware that is off hands on the future of the rest as it is, and
        /// the request where it lies: a call that could unwind, or one on each of two ways, would have
        /// it copied first. Figure: `overhead`, "Chaos, off".
        impl $chain::Middleware for Chaos {
            fn handle<'a, 'extensions, 'next, 'future>(
                &'a self,
                request: Request,
                extensions: &'extensions mut Extensions,
                next: $chain::Next<'next>,
            ) -> Pin<Box<dyn Future<Output = $chain::Result<Response>> + Send + 'future>>
            where
                'a: 'future,
                'extensions: 'future,
                'next: 'future,
                Self: 'future,
            {
                let go = if is_on(self) { $hit } else { $pass };
                go(self, request, extensions, next)
            }
        }

        fn $pass<'a>(
            _: &Chaos,
            request: Request,
            extensions: &'a mut Extensions,
            next: $chain::Next<'a>,
        ) -> Pin<Box<dyn Future<Output = $chain::Result<Response>> + Send + 'a>> {
            next.run(request, extensions)
        }

        /// Apart, so that a middleware that is off needs no room for the request.
        #[cold]
        #[inline(never)]
        fn $hit<'a>(
            chaos: &Chaos,
            request: Request,
            extensions: &'a mut Extensions,
            next: $chain::Next<'a>,
        ) -> Pin<Box<dyn Future<Output = $chain::Result<Response>> + Send + 'a>> {
            let Some(fault) = chaos.next(&request) else {
                return next.run(request, extensions);
            };
            Box::pin(async move {
                extensions.insert(Injected(fault.name));
                match fault.instead(&request).await {
                    Some(result) => result.map_err($from_error),
                    None => Ok(fault.mark(next.run(request, extensions).await?)),
                }
            })
        }
    };
}

middleware!(reqwest_middleware, pass, hit, |error| error);

#[cfg(feature = "astral")]
middleware!(astral_reqwest_middleware, pass_in_fork, hit_in_fork, |error| match error {
    reqwest_middleware::Error::Middleware(error) => error.into(),
    reqwest_middleware::Error::Reqwest(error) => error.into(),
});

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn request(number: u64) -> Request {
        let url = format!("https://api.example.com/{number}").parse().unwrap();
        Request::new(Method::GET, url)
    }

    #[test]
    fn the_order_of_requests_does_not_change_who_is_hit() {
        let hit = |order: &mut dyn Iterator<Item = u64>| {
            let chaos = Chaos::seeded(7).all(0.05, Fault::hang()).all(0.05, Fault::status(500));
            let mut hit: Vec<_> = order
                .filter_map(|it| Some((it, chaos.next(&request(it % 50_000))?.name)))
                .collect();
            hit.sort_unstable();
            hit
        };
        let forward = hit(&mut (0..50_000));
        assert_eq!(forward, hit(&mut (0..50_000).rev()));
        let share = forward.len() as f64 / 50_000.0;
        assert!((0.095..0.105).contains(&share), "the shares add up: {share}");
        let hangs = forward.iter().filter(|it| it.1 == "hang").count() as f64;
        assert!((0.45..0.55).contains(&(hangs / forward.len() as f64)), "{hangs}");
    }

    #[test]
    fn a_share_of_one_hits_all_and_one_of_zero_none() {
        let all = Chaos::seeded(1).all(0.0, Fault::hang()).all(1.0, Fault::status(500));
        assert!((0..1_000).all(|it| all.next(&request(it)).unwrap().name == "status"));
        let none = Chaos::seeded(1).host("other.example.com", 1.0, Fault::hang());
        assert!((0..1_000).all(|it| none.next(&request(it)).is_none()));
    }

    #[test]
    fn sends_of_one_request_are_told_apart() {
        let chaos = Chaos::seeded(3).all(0.5, Fault::hang());
        let hits = (0..1_000).filter(|_| chaos.next(&request(1)).is_some()).count();
        assert!((400..600).contains(&hits), "{hits}");
    }
}
