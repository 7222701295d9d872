//! One client in one scenario, once.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    contestant::{Client, Contestant, End, Setup},
    figures::{Done, Figures, Ledger},
    scenario::{Arrivals, Ask, Scenario},
    scripted::Scripted,
    server::{Server, path},
};

/// The longest a request is waited for; in virtual time, which costs nothing.
const PATIENCE: Duration = Duration::from_secs(90);
const VIRTUAL_PATIENCE: Duration = Duration::from_secs(900);

/// A client that is about to run over sockets.
pub(crate) struct Prepared {
    client: Client,
    ledger: Arc<Ledger>,
}

/// Builds a client. It loads the system's certificates, which takes milliseconds of a core: done
/// before the race, so that it slows no request.
pub(crate) fn prepare(scenario: &Scenario, contestant: &Contestant) -> Prepared {
    let ledger = Arc::new(Ledger::new(scenario.hosts[0].down.clone()));
    let end = End::Sockets(Arc::clone(&ledger));
    let client = (contestant.build)(&Setup { limit: scenario.limit, end });
    Prepared { client, ledger }
}

/// Runs over sockets, against fresh servers.
pub(crate) async fn on_sockets(scenario: Arc<Scenario>, prepared: Prepared, seed: u64) -> Figures {
    let Prepared { client, ledger } = prepared;
    let mut servers = Vec::new();
    for (number, host) in scenario.hosts.iter().enumerate() {
        servers.push(Server::start(number, host, seed + number as u64, &ledger).await);
    }
    let addresses: Vec<_> = servers.iter().map(|it| it.address).collect();
    let url = move |ask: Ask| format!("http://{}{}", addresses[ask.host], path(ask));
    run(scenario, client, url, ledger).await
}

/// Runs over a scripted end, in a runtime of its own whose clock is paused.
pub(crate) fn in_virtual_time(
    scenario: Arc<Scenario>,
    contestant: &Contestant,
    seed: u64,
) -> Figures {
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let ledger = Arc::new(Ledger::new(None));
        let end = Scripted::new(Arc::clone(&scenario), seed, Arc::clone(&ledger));
        let end = End::Scripted(Arc::new(end));
        let client = (contestant.build)(&Setup { limit: scenario.limit, end });
        let url = |ask| format!("http://api.example.com{}", path(ask));
        run(scenario, client, url, ledger).await
    })
}

/// Makes the requests of a scenario and waits for all of them.
async fn run(
    scenario: Arc<Scenario>,
    client: Client,
    url: impl Fn(Ask) -> String,
    ledger: Arc<Ledger>,
) -> Figures {
    let (client, start) = (Arc::new(client), ledger.start());
    let patience = if scenario.in_virtual_time { VIRTUAL_PATIENCE } else { PATIENCE };
    let width = match scenario.arrivals {
        Arrivals::Parallel { width, .. } => width,
        Arrivals::AtOnce(_) | Arrivals::Paced { .. } => Semaphore::MAX_PERMITS,
    };
    let room = Arc::new(Semaphore::new(width));
    let mut requests = JoinSet::new();
    for id in 0..scenario.requests() {
        if let Arrivals::Paced { rate, .. } = scenario.arrivals {
            sleep_until(start + Duration::from_secs_f64(id as f64 / rate)).await;
        }
        let place = Arc::clone(&room).acquire_owned().await.expect("a place");
        let ask = scenario.ask(id);
        let (url, method, client) = (url(ask), scenario.method.clone(), Arc::clone(&client));
        let counts = scenario.counts(ask);
        requests.spawn(async move {
            let begun = Instant::now();
            let good = timeout(patience, client.request(method, &url)).await.unwrap_or(false);
            drop(place);
            Done { counts, good, took: begun.elapsed(), ended: start.elapsed() }
        });
    }
    ledger.figures(&requests.join_all().await)
}
