//! Redis as the store of a fleet.

use std::{
    collections::HashSet,
    fmt, io,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{
    Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value,
    aio::ConnectionLike, cmd,
};
use reqwest_resilient::fleet::{
    BoxError, BoxFuture, FleetNews, FleetStore, HostAdvice, HostReport, NodeId,
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    news::Subscription,
    report::{Call, Context, SCRIPT, channel, command, escaped, read_reply, state_key},
};

/// The age at which a report is refused by the server.
///
/// A report that a paused server finds in its socket is old: the node has given it up, and sends the same
/// counts again.
const LONGEST_DELIVERY: Duration = Duration::from_secs(1);

/// The time for one host of a cluster: a part of it that hangs takes no advice from the others.
const SLOT_PATIENCE: Duration = Duration::from_millis(150);

/// The store of a fleet in redis or valkey.
///
/// `C` is a connection of the crate [`redis`] that can be cloned: a
/// [`ConnectionManager`](https://docs.rs/redis/1/redis/aio/struct.ConnectionManager.html), which
/// connects anew by itself, or a connection to a cluster with [`in_cluster`](Self::in_cluster).
/// Authentication and TLS are the connection's.
///
/// # What it does
///
/// - One pipeline an exchange, one command a host in it: a script, by its hash.
/// - At most five keys a host, `{rr:<namespace>:<scheme://host:port>}:st`, `ct`, `ob`, `bd` and `g`,
///   in one slot of a cluster. All expire after 60 s without a report; gates when they open.
/// - Breakers change by the server's clock, and advice is relative: clocks of nodes do not matter.
/// - A report that is older than 1 s when the server gets to it, such as after a pause, is refused: its
///   node counts it as lost and has sent the counts again.
/// - After an exchange that failed or was given up, the next begins with a `PING`, in a cluster with an
///   `EXISTS` for the host. While a connection hangs, nothing but these piles up in it.
///
/// # Failures
///
/// Where the script fails for some hosts, they get no advice; where it fails for all, or the
/// connection does, the exchange fails. Clients then decide alone.
///
/// # Examples
///
/// ```no_run
/// use redis::aio::{ConnectionManager, ConnectionManagerConfig};
/// use reqwest_resilient_redis::{RedisFleet, redis};
///
/// # async fn connect() -> redis::RedisResult<()> {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// // Nothing is awaited here: redis may be down when a process starts.
/// let config = ConnectionManagerConfig::new();
/// let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
/// let store = RedisFleet::new(connection, "checkout").with_news(client);
/// # Ok(()) }
/// ```
pub struct RedisFleet<C> {
    connection: C,
    namespace: String,
    script: Script,
    in_cluster: bool,
    /// Set if the last exchange got no response.
    is_silent: AtomicBool,
    /// The hosts whose last command got no response, in a cluster.
    silent: StdMutex<HashSet<Arc<str>>>,
    clock: StdMutex<Option<ServerClock>>,
    news: Option<News>,
}

struct News {
    client: Client,
    /// Held by the one task that waits for messages.
    subscription: Mutex<Option<Subscription>>,
}

/// The server's time, at the latest.
#[derive(Clone, Copy, Debug)]
struct ServerClock {
    millis: u64,
    /// When the exchange that brought it was sent.
    sent: Instant,
}

impl<C> RedisFleet<C> {
    /// Builds the store of the fleet `namespace`.
    ///
    /// Nodes of one namespace share their evidence: two services that must not vote for each other
    /// need two. Nothing is sent before the first exchange.
    pub fn new(connection: C, namespace: &str) -> Self {
        Self {
            connection,
            namespace: escaped(namespace),
            script: Script::new(SCRIPT),
            in_cluster: false,
            is_silent: AtomicBool::new(false),
            silent: StdMutex::default(),
            clock: StdMutex::new(None),
            news: None,
        }
    }

    /// Subscribes to the messages of other nodes, by a connection of its own from `client`. Off by
    /// default: changes are then known after the next exchange.
    ///
    /// The subscription begins when the fleet waits for its first message, connects anew by itself
    /// after 1 to 30 s, and ends with the store. A heartbeat every 5 s finds sockets that are half dead.
    #[must_use]
    pub fn with_news(mut self, client: Client) -> Self {
        self.news = Some(News { client, subscription: Mutex::new(None) });
        self
    }

    /// Sends the report of each host by itself, for a connection to a cluster: hosts lie in several
    /// slots, and a pipeline has to stay in one. Off by default.
    ///
    /// Each host has 150 ms. Where a part of the cluster does not respond, its hosts get no advice.
    #[must_use]
    pub fn in_cluster(mut self) -> Self {
        self.in_cluster = true;
        self
    }

    /// Returns the server's time in ms after which reports are refused; 0 if it is not known.
    fn deadline(&self) -> u64 {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map_or(0, |it| {
            let passed = it.sent.elapsed() + LONGEST_DELIVERY;
            it.millis.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
        })
    }

    fn set_clock(&self, clock: Option<ServerClock>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisFleet<C> {
    async fn run(&self, node: NodeId, reports: &[HostReport]) -> RedisResult<Vec<HostAdvice>> {
        // In a cluster, a PING asks all of it.
        if !self.in_cluster && self.is_silent.swap(true, Ordering::AcqRel) {
            cmd("PING").exec_async(&mut self.connection.clone()).await?;
        }
        let context = Context {
            node,
            deadline: self.deadline(),
            fresh_run: rand::random_range(1..=u64::MAX),
        };
        let sent = Instant::now();
        let hash = Call::Hash(self.script.get_hash());
        let calls = reports.iter().map(|it| (it, command(hash, &self.namespace, it, context)));
        let mut replies = self.send(calls).await?;
        self.send_text(reports, context, &mut replies).await?;
        self.is_silent.store(false, Ordering::Release);
        self.read(reports, replies, sent)
    }

    /// Sends all commands at once, and returns the reply to each.
    async fn send(
        &self,
        calls: impl Iterator<Item = (&HostReport, Cmd)>,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        if self.in_cluster {
            let each = calls.map(|(report, it)| self.send_alone(report, it));
            return Ok(join_all(each).await);
        }
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        calls.for_each(|(_, it)| {
            pipeline.add_command(it);
        });
        pipeline.query_async(&mut self.connection.clone()).await
    }

    /// Sends one command to a cluster.
    async fn send_alone(&self, report: &HostReport, command: Cmd) -> RedisResult<Value> {
        let was_silent = !self.silent().insert(Arc::clone(&report.host));
        let mut connection = self.connection.clone();
        let call = async {
            if was_silent {
                let key = state_key(&self.namespace, report);
                cmd("EXISTS").arg(key).exec_async(&mut connection).await?;
            }
            command.query_async(&mut connection).await
        };
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
        let reply: RedisResult<Value> = timeout(SLOT_PATIENCE, call).await.unwrap_or_else(late);
        // An error of the server is a response, too.
        if reply.as_ref().err().is_none_or(|it| !it.is_io_error()) {
            self.silent().remove(&report.host);
        }
        reply
    }

    fn silent(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the script by its text where the server did not have it.
    async fn send_text(
        &self,
        reports: &[HostReport],
        context: Context,
        replies: &mut [RedisResult<Value>],
    ) -> RedisResult<()> {
        let unknown: Vec<usize> = (0..reports.len().min(replies.len()))
            .filter(|&it| replies[it].as_ref().is_err_and(is_unknown))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        // Within a pipeline the first text is there for those that follow.
        let calls = unknown.iter().enumerate().map(|(nth, &at)| {
            let by_text = nth == 0 || self.in_cluster;
            let call =
                if by_text { Call::Text(SCRIPT) } else { Call::Hash(self.script.get_hash()) };
            (&reports[at], command(call, &self.namespace, &reports[at], context))
        });
        for (at, reply) in unknown.iter().zip(self.send(calls).await?) {
            replies[*at] = reply;
        }
        Ok(())
    }

    fn read(
        &self,
        reports: &[HostReport],
        replies: Vec<RedisResult<Value>>,
        sent: Instant,
    ) -> RedisResult<Vec<HostAdvice>> {
        let (mut advice, mut failed, mut now) = (Vec::with_capacity(replies.len()), None, 0);
        for (report, reply) in reports.iter().zip(replies) {
            match reply.and_then(|it| read_reply(&report.host, it)) {
                Ok((at, it)) => {
                    now = at;
                    advice.push(it);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if advice.is_empty() => {
                self.set_clock(None);
                Err(error)
            }
            _ => {
                self.set_clock((now > 0).then_some(ServerClock { millis: now, sent }));
                Ok(advice)
            }
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> FleetStore for RedisFleet<C> {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        Box::pin(async move {
            if reports.is_empty() {
                return Ok(vec![]);
            }
            // Hosts that are reported no more are forgotten.
            self.silent().retain(|it| reports.iter().any(|report| report.host == *it));
            Ok(self.run(node, reports).await?)
        })
    }

    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        Box::pin(async move {
            let Some(news) = &self.news else { return std::future::pending().await };
            let mut held = news.subscription.lock().await;
            let start = || Subscription::start(news.client.clone(), channel(&self.namespace));
            loop {
                match held.get_or_insert_with(start).next().await {
                    Some(it) => return it,
                    // The runtime in which it began is gone.
                    None => *held = None,
                }
            }
        })
    }
}

impl<C> fmt::Debug for RedisFleet<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFleet")
            .field("namespace", &self.namespace)
            .field("in_cluster", &self.in_cluster)
            .field("news", &self.news.is_some())
            .finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Arc<RedisFleet<redis::aio::MultiplexedConnection>>>();
};
