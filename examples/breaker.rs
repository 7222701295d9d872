//! A service that goes down and comes back, and the circuit breaker that stands before it.
//!
//! `cargo run --example breaker` starts a service on this machine, sends it twenty requests a
//! second, takes it down for five seconds, and draws what became of each request. About 11 s.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{
    BreakerConfig, BreakerState, ChangeReason, CircuitBreaker, HttpRequestError, Resilient,
    ResilientConfig, StateChange,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(50);
const GOES_DOWN: Duration = Duration::from_secs(2);
const COMES_BACK: Duration = Duration::from_secs(7);
const END: Duration = Duration::from_secs(11);

/// Requests in each line of the drawing.
const PER_LINE: u32 = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let start = Instant::now();
    let service = Service::start().await?;

    // The default rule: it opens once nothing has succeeded for two seconds and at least five
    // attempts have failed in that time. After a second it tries whether the service is back.
    let breaker = CircuitBreaker::new(BreakerConfig::default())?;
    breaker.on_state_change(move |it| explain(start, it));
    let config = ResilientConfig::builder()
        .circuit_breaker(breaker.clone())
        .attempt_timeout(Duration::from_secs(1))
        // So that the drawing shows the breaker alone: no retries, and no wait at the open breaker
        // (2 s by default), which gets most of these requests through.
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .build()?;
    let inner = Resilient::reqwest_builder().build()?;
    let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();

    println!("A service at {} gets 20 requests a second through a circuit breaker.", service.url);
    println!("It goes down after {GOES_DOWN:?} and comes back after {COMES_BACK:?}.\n");
    println!("  +  success");
    println!("  x  sent, and failed");
    println!("  .  not sent: the breaker is open, the caller knows at once\n");

    let mut seen = Seen::default();
    let mut ticks = tokio::time::interval(TICK);
    let mut line = String::new();
    while start.elapsed() < END {
        ticks.tick().await;
        let elapsed = start.elapsed();
        let down = (GOES_DOWN..COMES_BACK).contains(&elapsed);
        if service.down.swap(down, Ordering::Relaxed) != down {
            let what = if down { "goes down" } else { "is back" };
            println!("{:>5.1} s          the service {what}", elapsed.as_secs_f64());
        }
        let state = breaker.state();
        line.push(seen.send(&client, &service.url).await?);
        if line.len() as u32 == PER_LINE || breaker.state() != state {
            println!("{:>5.1} s  {:<9} {line}", elapsed.as_secs_f64(), name(state));
            line.clear();
        }
    }
    summarize(&seen, &service);
    ensure!(seen.rejected > 0, "the breaker rejected no request of a service that was down");
    Ok(())
}

/// What became of the requests.
#[derive(Default)]
struct Seen {
    succeeded: u32,
    failed: u32,
    rejected: u32,
    slowest_rejection: Duration,
}

impl Seen {
    /// Sends one request and gives its sign in the drawing.
    async fn send(&mut self, client: &ClientWithMiddleware, url: &str) -> Result<char> {
        let sent = Instant::now();
        Ok(match client.get(url).send().await {
            Ok(response) if response.status().is_success() => {
                self.succeeded += 1;
                '+'
            }
            Ok(_) => {
                self.failed += 1;
                'x'
            }
            Err(error) if HttpRequestError::find(&error).is_some_and(|it| it.is_circuit_open()) => {
                self.rejected += 1;
                self.slowest_rejection = self.slowest_rejection.max(sent.elapsed());
                '.'
            }
            Err(error) => return Err(error.into()),
        })
    }
}

/// Called by the breaker whenever its state changes.
fn explain(start: Instant, change: &StateChange) {
    let why = match change.why {
        ChangeReason::Sustained => "no success for two seconds",
        ChangeReason::ConsecutiveFailures => "too many failures in a row",
        ChangeReason::FailureRate => "too many of the last requests failed",
        ChangeReason::OpenTimeOver => "its time is over; this request is a probe",
        ChangeReason::ProbesFailed => "the probe failed",
        ChangeReason::ProbesSucceeded => "the probe succeeded",
        _ => "by hand",
    };
    let (from, to) = (name(change.from), name(change.to));
    println!("{:>5.1} s          {from} -> {to}: {why}", start.elapsed().as_secs_f64());
}

fn name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "OPEN",
        BreakerState::HalfOpen => "half-open",
        _ => "by hand",
    }
}

fn summarize(seen: &Seen, service: &Service) {
    let Seen { succeeded, failed, rejected, slowest_rejection } = seen;
    let took = service.took_while_down.load(Ordering::Relaxed);
    println!("\n{succeeded} requests succeeded, {failed} failed, {rejected} were not sent.");
    println!("While it was down the service had to deal with {took} requests");
    println!("instead of {}.", took + rejected);
    println!("A request that was not sent cost its caller {slowest_rejection:.0?} at most.");
}

/// A service that responds with 200, or while it is down with 503 after 30 ms.
#[derive(Clone, Default)]
struct Service {
    url: String,
    down: Arc<AtomicBool>,
    took_while_down: Arc<AtomicU32>,
}

impl Service {
    async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let service = Self { url, ..Self::default() };
        let accepting = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        Ok(service)
    }

    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = [0; 1024];
        while stream.read(&mut head).await? > 0 {
            let mut status = "200 OK";
            if self.down.load(Ordering::Relaxed) {
                self.took_while_down.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(30)).await;
                status = "503 Service Unavailable";
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }
}
