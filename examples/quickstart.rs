//! What `reqwest-resilient` does, told by itself while it does it.
//!
//! `cargo run --example quickstart` starts a flaky server on this machine and sends it requests;
//! `cargo run --example quickstart -- http://example.com/` asks that URL instead.

use std::time::{Duration, Instant};
use std::{collections::HashMap, env, io};

use anyhow::Result;
use reqwest_middleware::{ClientBuilder, RequestBuilder};
use reqwest_resilient::{
    AttemptLog, Event, Exponential, RequestBuilderExt, Resilient, ResilientConfig, WaitSource,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<()> {
    let start = Instant::now();
    let config = ResilientConfig::builder()
        .max_retries(3)
        .backoff(Exponential::new(Duration::from_millis(200)))
        .attempt_timeout(Duration::from_millis(if env::args().len() > 1 { 5_000 } else { 500 }))
        .max_total_time(Duration::from_secs(20))
        .on_event(move |event| tell(start.elapsed(), event))
        .build()?;
    // A client of reqwest with what suits the middleware; its own retries are off.
    let inner = Resilient::reqwest_builder().build()?;
    let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();
    let mut summary = vec![];

    if let Some(url) = env::args().nth(1) {
        summary.push(send("GET", "of the URL you gave", client.get(url)).await);
    } else {
        let server = flaky_server().await?;
        println!("A flaky server listens at {server}. The program sends each request once;");
        println!("whatever else happens to it is the work of the middleware.");
        let to = |path| format!("{server}{path}");

        let why = "meets a busy server, a broken connection and a slow response";
        summary.push(send("GET /report", why, client.get(to("/report"))).await);

        let why = "may have been processed when its connection broke: not sent twice";
        summary.push(send("POST /order", why, client.post(to("/order"))).await);

        let why = "carries a key by which the server knows a repeat: sent again";
        let order = client.post(to("/keyed-order")).header("idempotency-key", "8e03978e");
        summary.push(send("POST /keyed-order", why, order).await);

        let why = "asks for what is not there: no retry would change that";
        summary.push(send("GET /missing", why, client.get(to("/missing"))).await);
    }

    println!("\nrequest             attempts     time  result      ended because of");
    summary.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Sends a request, says why it is interesting, and returns its line of the summary.
async fn send(name: &str, why: &str, request: RequestBuilder) -> String {
    println!("\n{name} {why}");
    let log = AttemptLog::new();
    let result = request.with_extension(log.clone()).send_resilient().await;
    let status = result.map_or_else(|error| error.status(), |response| Some(response.status()));
    let result =
        status.map_or_else(|| "no response".into(), |it| format!("status {}", it.as_u16()));
    let ended = log.history().stop_reason().map_or("", |it| it.as_str());
    let (attempts, seconds) = (log.attempts(), log.elapsed().as_secs_f64());
    format!("{name:<20}{attempts:>8} {seconds:>6.2} s  {result:<11} {ended}")
}

/// Prints what happens, as it happens.
fn tell(elapsed: Duration, event: &Event<'_>) {
    let text = match event {
        Event::AttemptStarted(it) => format!("attempt {}", it.attempt),
        Event::AttemptEnded(outcome) => format!("  gave {outcome}"),
        Event::Waiting(it) => {
            let seconds = it.wait.as_secs_f64();
            match it.source {
                WaitSource::Hint(header) => {
                    format!("  wait {seconds:.2} s: the server asks for it by {header}")
                }
                WaitSource::Immediate => "  no wait: a new connection will do".to_owned(),
                source => format!("  wait {seconds:.2} s: {source}, spread by jitter"),
            }
        }
        Event::Succeeded(it) => format!("success (attempts: {})", it.attempts),
        Event::GaveUp(it) => format!("gave up: {it}"),
        _ => return,
    };
    println!("{:>6.2} s  {text}", elapsed.as_secs_f64());
}

/// What the flaky server does with one request.
#[derive(Clone, Copy)]
enum Does {
    Answer(&'static str),
    Reset,
    AnswerTooLate,
}

/// Starts a server that does something else each time a path is asked for; returns its URL.
async fn flaky_server() -> io::Result<String> {
    use Does::{Answer, AnswerTooLate, Reset};

    let busy = Answer("503 Service Unavailable\r\nRetry-After: 1");
    let mut script = HashMap::from([
        ("/report", vec![busy, Reset, AnswerTooLate, Answer("200 OK")]),
        ("/order", vec![Reset, Answer("201 Created")]),
        ("/keyed-order", vec![Reset, Answer("201 Created")]),
    ]);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..read]);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let does = match script.get_mut(path) {
                Some(steps) if !steps.is_empty() => steps.remove(0),
                _ => Answer("404 Not Found"),
            };
            tokio::spawn(async move { play(does, &mut stream).await });
        }
    });
    Ok(url)
}

async fn play(does: Does, stream: &mut TcpStream) -> io::Result<()> {
    let status = match does {
        Does::Reset => return stream.set_zero_linger(),
        Does::AnswerTooLate => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            "200 OK"
        }
        Does::Answer(status) => status,
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await
}
