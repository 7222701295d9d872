//! One process of the fleet: sends 20 requests a second, and prints what it learns.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use reqwest_resilient::{
    ChangeReason, Event, RequestBuilderExt as _, Resilient, ResilientConfig, fleet::Fleet,
};
use reqwest_resilient_redis::RedisFleet;

use crate::Result;

#[derive(Default)]
struct Counts {
    ok: AtomicU64,
    failed: AtomicU64,
    by_fleet: AtomicU64,
    by_own: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(redis: &str, url: &str) -> Result<()> {
    // Nothing is awaited here: redis may be down when a process starts.
    let redis = redis::Client::open(redis)?;
    let patient = ConnectionManagerConfig::new().set_max_delay(Duration::from_secs(1));
    let connection = ConnectionManager::new_lazy_with_config(redis, patient)?;
    let fleet = Fleet::new(RedisFleet::new(connection, "example"));

    let config = ResilientConfig::builder()
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .attempt_timeout(Duration::from_secs(1))
        .on_event(|event| {
            if let Event::FleetChanged(it) = event {
                say(&format!("fleet {}", it.to.as_str()));
            }
        })
        .build()?;
    let client = reqwest_middleware::ClientBuilder::new(Resilient::reqwest_builder().build()?)
        .with(Resilient::new(config).with_fleet(&fleet))
        .build();

    let counts = Arc::new(Counts::default());
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let (request, counts) = (client.get(url), Arc::clone(&counts));
        tokio::spawn(async move {
            let count = match request.send_resilient().await {
                Ok(_) => &counts.ok,
                Err(error) => match error.circuit_open().map(|it| it.cause().reason) {
                    Some(ChangeReason::Fleet) => &counts.by_fleet,
                    Some(_) => &counts.by_own,
                    None => &counts.failed,
                },
            };
            count.fetch_add(1, Relaxed);
            let [ok, failed, by_fleet, by_own] =
                [&counts.ok, &counts.failed, &counts.by_fleet, &counts.by_own]
                    .map(|it| it.load(Relaxed));
            say(&format!("counts {ok} {failed} {by_fleet} {by_own}"));
        });
    }
}

fn say(line: &str) {
    // The table has gone: so does the node.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
