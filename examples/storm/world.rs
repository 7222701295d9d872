//! Many clients and one server, in virtual time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::{future, io, time::Duration};

use http::header::RETRY_AFTER;
use http::{Extensions, HeaderValue};
use reqwest::{Method, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use reqwest_resilient::fleet::{Fleet, FleetState, InProcessFleet};
use reqwest_resilient::testing::io_error;
use reqwest_resilient::{HttpRequestError, Resilient};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::policy::Policy;
use crate::random::Random;
use crate::server::{Behavior, CAPACITY, Layout, Pool, next_step};
use crate::tally::{Look, STAYS_FOR, Summary, Tally};
use crate::trigger::{Fault, Trigger, WARM_UP};

/// For how long after the trigger the world is watched at least: the shortest recovery needs it to
/// be told, and the chart shows it.
const WATCHED: f64 = 40.0;

const HOST: &str = "http://server.example";

/// The time of an exchange with the fleet's store.
const STORE_DELAY: Duration = Duration::from_millis(50);

/// One world to be simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) policy: Policy,
    pub(crate) layout: Layout,
    pub(crate) behavior: Behavior,
    pub(crate) trigger: Trigger,
    pub(crate) clients: usize,
    /// The requests of all clients as a share of the server's capacity.
    pub(crate) load: f64,
    /// How long a client waits for the response to an attempt, in seconds.
    pub(crate) timeout: u64,
    pub(crate) seed: u64,
}

impl Cell {
    /// Requests a second, of all clients together.
    pub(crate) fn rate(&self) -> f64 {
        self.load * CAPACITY
    }

    pub(crate) fn is_fleet(&self) -> bool {
        self.policy == Policy::Fleet
    }

    /// Returns how many seconds after the trigger a recovery may come.
    pub(crate) fn patience(&self) -> f64 {
        if self.clients > 500 { 150.0 } else { 90.0 }
    }

    /// Returns when the watch ends, if nothing has recovered for good until then.
    pub(crate) fn ends(&self) -> f64 {
        self.trigger.ends() + self.patience() + STAYS_FOR
    }

    /// Lives through it. The same cell gives the same tally every time; cells that differ in
    /// nothing but the policy see the same arrivals.
    pub(crate) fn run(&self) -> (Summary, Tally) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing");
        let tally = runtime.block_on(self.live());
        (tally.summary(), tally)
    }

    async fn live(&self) -> Tally {
        let seed = self.seed * 1_000_003 + self.clients as u64 * 101 + (self.load * 1e3) as u64;
        let arrivals = Random::new(seed);
        let world = World::new(*self, seed);
        tokio::spawn(Arc::clone(&world).serve());
        tokio::spawn(Arc::clone(&world).disturb());
        let (clients, nodes) = world.fleet(&Arc::new(Random::new(!seed)));
        tokio::spawn(Arc::clone(&world).look(nodes));
        let urls = ["/a", "/b"].map(|it| format!("{HOST}{it}").parse::<Url>().expect("a url"));
        let (mut at, mut look) = (0.0, self.trigger.ends() + WATCHED);
        loop {
            at += arrivals.exponential(1.0 / self.rate());
            // Once all is well for good there is nothing left to see.
            if at >= look {
                if at >= self.ends() || world.tally().recovery(look).is_some() {
                    break;
                }
                look += 1.0;
            }
            sleep_until(world.start + Duration::from_secs_f64(at)).await;
            let client = Arc::clone(&clients[arrivals.below(self.clients)]);
            let route = self.layout.route(&arrivals);
            let request = Request::new(Method::GET, urls[route].clone());
            tokio::spawn(Arc::clone(&world).call(client, request, route));
        }
        let mut tally = world.tally();
        tally.close(at);
        std::mem::take(&mut tally)
    }
}

/// The server, what there is to know of it, and what is written down.
struct World {
    cell: Cell,
    start: Instant,
    pools: Mutex<Vec<Pool>>,
    /// A job ends earlier than all the others.
    hurry: Notify,
    random: Random,
    tally: Mutex<Tally>,
}

impl World {
    fn new(cell: Cell, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            cell,
            start: Instant::now(),
            pools: Mutex::new(cell.layout.pools(cell.behavior)),
            hurry: Notify::new(),
            random: Random::new(seed ^ 0xf1ea),
            tally: Mutex::new(Tally::new(&cell)),
        })
    }

    /// Builds the clients, each with a state of its own, all with this server at the end; and the nodes
    /// of their fleet, if they are one.
    fn fleet(
        self: &Arc<Self>,
        random: &Arc<Random>,
    ) -> (Vec<Arc<ClientWithMiddleware>>, Vec<Fleet>) {
        let (Cell { policy, timeout, .. }, transport) = (self.cell, reqwest::Client::new());
        let store = InProcessFleet::new();
        store.set_delay(STORE_DELAY);
        let node = |_| {
            let random = Arc::clone(random);
            Fleet::builder(store.clone()).random(move || random.unit()).build().unwrap()
        };
        let count = if self.cell.is_fleet() { self.cell.clients } else { 0 };
        let nodes: Vec<Fleet> = (0..count).map(node).collect();
        let client = |at| {
            let resilient = Resilient::new(policy.config(Duration::from_secs(timeout), random));
            let resilient = match nodes.get(at) {
                Some(node) => resilient.with_fleet(node),
                None => resilient,
            };
            let client = ClientBuilder::new(transport.clone())
                .with(resilient)
                .with_arc(Arc::clone(self) as Arc<dyn Middleware>);
            Arc::new(client.build())
        };
        ((0..self.cell.clients).map(client).collect(), nodes)
    }

    /// Writes down, every second, what the server has to do and what the nodes of a fleet see.
    async fn look(self: Arc<Self>, nodes: Vec<Fleet>) {
        for second in 1.. {
            sleep_until(self.start + Duration::from_secs(second)).await;
            let backlog = self.pools().iter().map(Pool::backlog).sum();
            let mut look = Look { backlog, ..Look::default() };
            for node in &nodes {
                match node.state_of(HOST) {
                    FleetState::Open { .. } => look.open += 1,
                    FleetState::HalfOpen { .. } => look.half_open += 1,
                    FleetState::Closed => look.closed += 1,
                    _ => {}
                }
            }
            self.tally().looks.push(look);
        }
    }

    async fn call(
        self: Arc<Self>,
        client: Arc<ClientWithMiddleware>,
        request: Request,
        route: usize,
    ) {
        let asked = self.now();
        self.tally().request(route, asked);
        let result = client.execute(request).await;
        if matches!(&result, Ok(response) if response.status().is_success()) {
            self.tally().success(route, asked, self.now());
        } else if result
            .is_err_and(|error| HttpRequestError::find(&error).is_some_and(|it| it.attempts() == 0))
        {
            self.tally().rejected += 1;
        }
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nothing panics with the tally in hand")
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Pool>> {
        self.pools.lock().expect("nothing panics with the pools in hand")
    }

    /// Advances the pools whenever a job ends.
    async fn serve(self: Arc<Self>) {
        loop {
            let next = {
                let (mut pools, now) = (self.pools(), Instant::now());
                pools.iter_mut().for_each(|it| it.advance(now, &self.random));
                pools.iter().filter_map(Pool::next_end).min()
            };
            next_step(next, &self.hurry).await;
        }
    }

    /// Takes workers away when the trigger begins, and gives them back at its end.
    async fn disturb(self: Arc<Self>) {
        let trigger = self.cell.trigger;
        for (at, over) in [(WARM_UP, false), (trigger.ends(), true)] {
            sleep_until(self.start + Duration::from_secs_f64(at)).await;
            let pool = &mut self.pools()[0];
            let all = pool.workers();
            let left = if over { all } else { trigger.workers_left(all) };
            pool.set_active(left, Instant::now(), &self.random);
            self.hurry.notify_one();
        }
    }

    /// Returns the fault that a pool has now.
    fn fault(&self, pool: usize) -> Option<Fault> {
        let trigger = self.cell.trigger;
        let on = pool == 0 && (WARM_UP..trigger.ends()).contains(&self.now());
        on.then_some(trigger.fault)
    }

    /// Serves one attempt and returns the status.
    async fn respond(&self, route: usize) -> Result<u16, io::ErrorKind> {
        let at = self.cell.layout.pool(route, &self.random);
        match self.fault(at) {
            Some(Fault::Refused) => return Err(io::ErrorKind::ConnectionRefused),
            Some(Fault::Silent) => future::pending().await,
            Some(Fault::Stalled | Fault::Brownout(_)) | None => {}
        }
        let response = {
            let pool = &mut self.pools()[at];
            let before = pool.next_end();
            let response = pool.accept(Instant::now(), &self.random);
            if pool.next_end() != before {
                self.hurry.notify_one();
            }
            response
        };
        let Some(response) = response else { return Ok(503) };
        response.await.map_err(|_| io::ErrorKind::ConnectionReset)?;
        Ok(200)
    }
}

#[async_trait::async_trait]
impl Middleware for World {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.tally().attempt(self.now());
        let route = usize::from(request.url().path() == "/b");
        let status = self.respond(route).await.map_err(io_error)?;
        let mut response = http::Response::builder().status(status).url(request.url().clone());
        if status == 503 && self.cell.behavior == Behavior::ShedsWithHint {
            response = response.header(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Ok(response.body("").map_err(Error::middleware)?.into())
    }
}
