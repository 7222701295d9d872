//! Pub/sub as a shortcut: what another node's report caused, before the next exchange tells it.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::{Client, RedisResult};
use reqwest_resilient::fleet::FleetNews;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, interval_at, sleep, timeout},
};

use crate::report::read_message;

/// The most messages that wait to be read; more are lost, and the next exchange makes them good.
const MOST_UNREAD: usize = 1_024;

/// The time between two heartbeats: a socket whose other end is gone without a word stays silent
/// for ever.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The time for a connection, a subscription or a heartbeat.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first and the longest wait before another connection.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A subscription that lives until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    news: mpsc::Receiver<FleetNews>,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Starts the task that subscribes; needs a tokio runtime.
    pub(crate) fn start(client: Client, channel: String) -> Self {
        let (sender, news) = mpsc::channel(MOST_UNREAD);
        let task = tokio::spawn(async move {
            let mut wait = RECONNECT.0;
            loop {
                let began = Instant::now();
                // Why it ended is of no use: the exchanges say whether the store can be had.
                let _ended = listen(&client, &channel, &sender).await;
                if began.elapsed() > RECONNECT.1 {
                    wait = RECONNECT.0;
                }
                sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                wait = (wait * 2).min(RECONNECT.1);
            }
        });
        Self { news, task }
    }

    /// Waits for the next message; `None` if its task ended with its runtime. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<FleetNews> {
        self.news.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens to one connection until it fails or a heartbeat is not answered.
async fn listen(client: &Client, channel: &str, news: &mpsc::Sender<FleetNews>) -> RedisResult<()> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let pubsub = timeout(PATIENCE, client.get_async_pubsub()).await.map_err(late)??;
    let (mut sink, mut messages) = pubsub.split();
    timeout(PATIENCE, sink.subscribe(channel)).await.map_err(late)??;
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return Ok(()) };
                let text: String = message.get_payload().unwrap_or_default();
                if let Some(it) = read_message(&text) {
                    let _lost_if_full = news.try_send(it);
                }
            }
            _ = heartbeat.tick() => {
                timeout(PATIENCE, sink.ping::<redis::Value>()).await.map_err(late)??;
            }
        }
    }
}
