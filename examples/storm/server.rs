//! The server: pools of workers, in front of each a queue.

use std::collections::{BTreeMap, VecDeque};
use std::{future, time::Duration};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::random::Random;

/// All workers of the server. Their number makes every brownout a whole number of them.
const WORKERS: usize = 60;

/// How long a worker takes for a request, in seconds and on average.
const SERVICE: f64 = 0.12;

/// Requests a second that the server can serve.
pub(crate) const CAPACITY: f64 = WORKERS as f64 / SERVICE;

/// With this many requests waiting for each worker, half a second's work, a server that sheds
/// turns others away.
const LONGEST_QUEUE: usize = 4;

/// Which pools the host has, and who chooses among them. The trigger hits the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One route, one pool.
    Single,
    /// Two routes, each with a pool of its own; the first has this percentage of the requests and
    /// of the workers.
    Routes(u32),
    /// One route; a balancer sends every attempt to one of three pools at random.
    Balancer,
}

impl Layout {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Single => "one route".to_owned(),
            Self::Routes(hit) => format!("routes {}:{hit}", 100 - hit),
            Self::Balancer => "three back ends".to_owned(),
        }
    }

    pub(crate) fn routes(self) -> usize {
        if matches!(self, Self::Routes(_)) { 2 } else { 1 }
    }

    /// Chooses the route of a request.
    pub(crate) fn route(self, random: &Random) -> usize {
        match self {
            Self::Routes(hit) => usize::from(random.unit() >= f64::from(hit) / 100.0),
            Self::Single | Self::Balancer => 0,
        }
    }

    /// Chooses the pool for an attempt.
    pub(crate) fn pool(self, route: usize, random: &Random) -> usize {
        match self {
            Self::Single | Self::Routes(_) => route,
            Self::Balancer => random.below(3),
        }
    }

    pub(crate) fn pools(self, behavior: Behavior) -> Vec<Pool> {
        let workers = match self {
            Self::Single => vec![WORKERS],
            Self::Routes(hit) => {
                let first = WORKERS * hit as usize / 100;
                vec![first, WORKERS - first]
            }
            Self::Balancer => vec![WORKERS / 3; 3],
        };
        workers.into_iter().map(|it| Pool::new(it, SERVICE, behavior)).collect()
    }
}

/// What the server does beyond serving first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Nothing: it also works for clients that have left.
    WorksOn,
    /// Drops the requests of clients that have left once it comes to them.
    Cancels,
    /// Responds 503 at no cost while its queue is long.
    Sheds,
    /// The same with `Retry-After: 1`.
    ShedsWithHint,
}

impl Behavior {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WorksOn => "works on",
            Self::Cancels => "cancels",
            Self::Sheds => "sheds",
            Self::ShedsWithHint => "sheds with a hint",
        }
    }

    fn sheds(self) -> bool {
        matches!(self, Self::Sheds | Self::ShedsWithHint)
    }
}

/// Signals the end of the work to the client; closed if the client has left.
type Job = oneshot::Sender<()>;

/// Workers and the queue in front of them.
#[derive(Debug)]
pub(crate) struct Pool {
    workers: usize,
    /// How long a worker takes for a request, in seconds and on average.
    service: f64,
    behavior: Behavior,
    /// How many workers may take a next job.
    active: usize,
    queue: VecDeque<Job>,
    /// Jobs under way, by when they end, and by number where that is the same.
    busy: BTreeMap<(Instant, u64), Job>,
    started: u64,
}

/// Waits until the `next` worker is done, if one is at work, or has to be asked anew.
pub(crate) async fn next_step(next: Option<Instant>, hurry: &Notify) {
    let end = async {
        match next {
            Some(at) => sleep_until(at).await,
            None => future::pending().await,
        }
    };
    tokio::select! { () = end => {}, () = hurry.notified() => {} }
}

impl Pool {
    pub(crate) fn new(workers: usize, service: f64, behavior: Behavior) -> Self {
        Self {
            workers,
            service,
            behavior,
            active: workers,
            queue: VecDeque::new(),
            busy: BTreeMap::new(),
            started: 0,
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Returns the number of requests that wait, or are worked on.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.len() + self.busy.len()
    }

    /// Queues a request, or starts it at once; `None` if the pool sheds it.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        random: &Random,
    ) -> Option<oneshot::Receiver<()>> {
        if self.behavior.sheds() && self.queue.len() >= LONGEST_QUEUE * self.workers {
            return None;
        }
        let (done, response) = oneshot::channel();
        self.queue.push_back(done);
        self.start(now, random);
        Some(response)
    }

    /// Lets this many workers go on; those at work finish their jobs.
    pub(crate) fn set_active(&mut self, workers: usize, now: Instant, random: &Random) {
        self.active = workers;
        self.start(now, random);
    }

    /// Ends the jobs that are done, and starts the next ones when their workers became free, which
    /// may be a little earlier: timers have a resolution of a millisecond.
    pub(crate) fn advance(&mut self, now: Instant, random: &Random) {
        while let Some(entry) = self.busy.first_entry().filter(|it| it.key().0 <= now) {
            let ((ended, _), job) = entry.remove_entry();
            let _client_left = job.send(());
            self.start(ended, random);
        }
    }

    /// Returns when the next job ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.busy.first_key_value().map(|((at, _), _)| *at)
    }

    fn start(&mut self, at: Instant, random: &Random) {
        while self.busy.len() < self.active {
            let Some(job) = self.queue.pop_front() else { return };
            if self.behavior == Behavior::Cancels && job.is_closed() {
                continue;
            }
            self.started += 1;
            let ends = at + Duration::from_secs_f64(random.exponential(self.service));
            self.busy.insert((ends, self.started), job);
        }
    }
}
