//! Many clients and one server, in virtual time.

use std::future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{io, time::Duration};

use http::Extensions;
use reqwest::{Method, Request, Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use reqwest_resilient::{HttpRequestError, Resilient};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::policy::Policy;
use crate::tally::Tally;

/// Requests a second that the server can serve.
pub(crate) const CAPACITY: f64 = 500.0;

/// What the server needs for one request, and in a brownout.
const SERVICE: Duration = Duration::from_millis(2);
const BROWN_SERVICE: Duration = Duration::from_millis(10);

/// With this many requests waiting, half a second's work, a server that sheds turns others away.
const LONGEST_QUEUE: usize = 250;

/// When the trigger is pulled.
pub(crate) const WARM_UP: f64 = 20.0;

/// For how long after the trigger the world is watched, and how long it goes on after that, so that
/// the requests of the last moment come to their end.
pub(crate) const AFTER: f64 = 150.0;
const AFTERMATH: f64 = 15.0;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// For 10 s connections are refused, at once.
    Refused,
    /// For 10 s nothing answers; attempts run into their timeout.
    Silent,
    /// For 30 s the server has a fifth of its capacity.
    Brownout,
    /// At all times this share of the attempts fails at once, at random.
    Random(f64),
}

impl Trigger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Brownout => "brownout",
            Self::Random(_) => "random",
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self) -> f64 {
        match self {
            Self::Refused | Self::Silent => 10.0,
            Self::Brownout => 30.0,
            Self::Random(_) => 450.0,
        }
    }
}

/// What the server does beyond serving first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Nothing: it also works for clients that have left.
    Fifo,
    /// Drops the requests of clients that have left once it comes to them.
    Cancels,
    /// Answers 503 at no cost while its queue is long.
    Sheds,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Cancels => "cancels",
            Self::Sheds => "sheds",
        }
    }
}

/// One world to be simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) policy: Policy,
    pub(crate) server: Server,
    pub(crate) trigger: Trigger,
    pub(crate) clients: usize,
    /// Requests a second, of all clients together.
    pub(crate) rate: f64,
}

impl Cell {
    pub(crate) fn ends(&self) -> f64 {
        WARM_UP + self.trigger.lasts() + AFTER
    }

    /// Lives through it. The same cell gives the same tally every time; cells that differ in
    /// nothing but the policy see the same arrivals.
    pub(crate) fn run(&self) -> Tally {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing");
        runtime.block_on(self.live())
    }

    async fn live(&self) -> Tally {
        let seed = (self.rate * 1e3) as u64 * 1_000_003 + self.clients as u64;
        let (arrivals, random) = (Random::new(seed), Arc::new(Random::new(!seed)));
        let (queue, jobs) = mpsc::unbounded_channel();
        let world = Arc::new(World {
            cell: *self,
            start: Instant::now(),
            queue,
            waiting: AtomicUsize::new(0),
            random: Random::new(seed ^ 0xf1ea),
            tally: Mutex::new(Tally::new(self.ends() + AFTERMATH)),
        });
        tokio::spawn(Arc::clone(&world).serve(jobs));
        let transport = reqwest::Client::new();
        let clients: Vec<ClientWithMiddleware> = (0..self.clients)
            .map(|_| {
                ClientBuilder::new(transport.clone())
                    .with(Resilient::new(self.policy.config(&random)))
                    .with_arc(Arc::clone(&world) as Arc<dyn Middleware>)
                    .build()
            })
            .collect();
        let url: Url = "http://server.example/".parse().expect("a url");
        let mut at = 0.0;
        loop {
            at -= (1.0 - arrivals.unit()).ln() / self.rate;
            if at >= self.ends() + AFTERMATH {
                break;
            }
            sleep_until(world.start + Duration::from_secs_f64(at)).await;
            let client = clients[(arrivals.unit() * self.clients as f64) as usize].clone();
            let (world, request) = (Arc::clone(&world), Request::new(Method::GET, url.clone()));
            tokio::spawn(async move {
                let arrived = world.now();
                let result = client.execute(request).await;
                let ok = matches!(&result, Ok(response) if response.status().is_success());
                let rejected = result.is_err_and(|error| {
                    HttpRequestError::find(&error).is_some_and(|it| it.attempts() == 0)
                });
                world.tally().request(arrived, world.now(), ok, rejected);
            });
        }
        std::mem::take(&mut world.tally())
    }
}

/// The server, what there is to know of it, and what is written down.
struct World {
    cell: Cell,
    start: Instant,
    queue: mpsc::UnboundedSender<oneshot::Sender<()>>,
    waiting: AtomicUsize,
    random: Random,
    tally: Mutex<Tally>,
}

impl World {
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with the tally in hand")
    }

    fn triggered(&self) -> Option<Trigger> {
        let trigger = self.cell.trigger;
        (WARM_UP..WARM_UP + trigger.lasts()).contains(&self.now()).then_some(trigger)
    }

    /// Serves one request after the other.
    async fn serve(self: Arc<Self>, mut jobs: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        while let Some(client) = jobs.recv().await {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if self.cell.server == Server::Cancels && client.is_closed() {
                continue;
            }
            let brown = self.triggered() == Some(Trigger::Brownout);
            sleep(if brown { BROWN_SERVICE } else { SERVICE }).await;
            let _gone = client.send(());
        }
    }

    /// What becomes of an attempt.
    async fn answer(&self) -> Result<u16, io::ErrorKind> {
        match self.triggered() {
            Some(Trigger::Refused) => return Err(io::ErrorKind::ConnectionRefused),
            Some(Trigger::Silent) => future::pending().await,
            Some(Trigger::Random(share)) if self.random.unit() < share => return Ok(503),
            _ => {}
        }
        let sheds = self.cell.server == Server::Sheds;
        if sheds && self.waiting.load(Ordering::Relaxed) >= LONGEST_QUEUE {
            return Ok(503);
        }
        let (done, answered) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.send(done).map_err(|_| io::ErrorKind::BrokenPipe)?;
        answered.await.map_err(|_| io::ErrorKind::ConnectionReset)?;
        Ok(200)
    }
}

#[async_trait::async_trait]
impl Middleware for World {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.tally().attempt(self.now());
        let status = self.answer().await.map_err(|it| Error::middleware(io::Error::from(it)))?;
        let answer = http::Response::builder().status(status).body("");
        Ok(answer.map_err(Error::middleware)?.into())
    }
}

/// SplitMix64: a sequence of numbers that is the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    /// A number from 0 up to, and without, 1.
    pub(crate) fn unit(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut it = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((it ^ (it >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
