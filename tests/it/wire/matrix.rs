//! Every fault under every kind of request: how many of them reach the application.

use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Body;
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};
use reqwest_resilient::{BodyFactory, IdempotencyKey, RetryOverride};

use super::{ms, plain, quick, resilient};
#[cfg(feature = "http2")]
use crate::support::h2::Stream;
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

/// The columns.
pub(crate) const KINDS: [Kind; 6] =
    [Kind::Get, Kind::Put, Kind::Post, Kind::Keyed, Kind::Streamed, Kind::Factory];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Get,
    Put,
    Post,
    /// A POST with an `Idempotency-Key`.
    Keyed,
    /// A POST whose body can be read only once.
    Streamed,
    /// A POST whose body is made anew for each attempt.
    Factory,
}

/// A fault, and the result of each kind of request if the server is healthy afterwards: the number
/// that reach the application, of those that begin to arrive. `a-b` stands for races.
struct Row<S> {
    fault: &'static str,
    step: S,
    expected: [&'static str; 6],
    /// `true` if the server says that it did not process the request.
    disowned: bool,
}

fn row<S>(fault: &'static str, step: impl Into<S>, expected: [&'static str; 6]) -> Row<S> {
    Row { fault, step: step.into(), expected, disowned: false }
}

/// The server says that it did not process the request.
fn disowned<S>(fault: &'static str, step: impl Into<S>, expected: [&'static str; 6]) -> Row<S> {
    Row { disowned: true, ..row(fault, step, expected) }
}

#[tokio::test]
async fn over_http1() {
    use End::*;

    // A request that was read to its end is retried only if that does no harm.
    const PROCESSED: [&str; 6] = ["2/2", "2/2", "1/1", "2/2", "1/1", "1/1"];
    // A beginning may be all that the application waits for.
    const BEGUN: [&str; 6] = ["1/2", "1/2", "0/1", "1/2", "0/1", "0/1"];
    // The connection ends while the request is on its way into it.
    const RACE: [&str; 6] = ["1/1-2", "1/1-2", "0-1/0-1", "1/1-2", "0/0-1", "0-1/0-1"];
    const DISOWNED: [&str; 6] = ["2/2", "2/2", "2/2", "2/2", "1/1", "2/2"];
    const FINAL: [&str; 6] = ["1/1"; 6];
    let ok = || Reply::status(200).body("hello");
    #[rustfmt::skip]
    let rows: Vec<Row<Step>> = vec![
        //                                                          GET    PUT    POST   KEYED  STREAM FACTORY
        row("accept, FIN", Fault::AtAccept(Close),                  RACE),
        row("accept, close", Fault::AtAccept(Drop),                 RACE),
        row("accept, RST", Fault::AtAccept(Reset),                  RACE),
        row("accept, stall", Fault::AtAccept(Stall),                ["1/1", "1/1", "0/0", "1/1", "0/0", "0/0"]),
        row("first byte, FIN", Fault::After(0, Close),              BEGUN),
        row("first byte, close", Fault::After(0, Drop),             BEGUN),
        row("first byte, RST", Fault::After(0, Reset),              BEGUN),
        row("first byte, stall", Fault::After(0, Stall),            BEGUN),
        row("40 bytes, RST", Fault::After(40, Reset),               BEGUN),
        row("request, FIN", Fault::Unanswered(Close),               PROCESSED),
        row("request, close", Fault::Unanswered(Drop),              PROCESSED),
        row("request, RST", Fault::Unanswered(Reset),               PROCESSED),
        row("request, stall", Fault::Unanswered(Stall),             PROCESSED),
        row("garbage", Fault::Garbage,                              PROCESSED),
        row("half a head, FIN", ok().cut_head(Close),               PROCESSED),
        row("half a head, RST", ok().cut_head(Reset),               PROCESSED),
        row("half a head, stall", ok().cut_head(Stall),             PROCESSED),
        row("103, half a head, RST", ok().interim(103).cut_head(Reset), PROCESSED),
        row("half a body, FIN", ok().cut_body(2, Close),            PROCESSED),
        row("half a body, RST", ok().cut_body(2, Reset),            PROCESSED),
        row("half a body, stall", ok().cut_body(2, Stall),          PROCESSED),
        row("half a chunk, FIN", ok().chunked("hello").cut_body(5, Close), PROCESSED),
        row("body until FIN", Reply::status(200).until_close("he"), FINAL),
        row("404", Reply::status(404),                              FINAL),
        row("408", Reply::status(408),                              PROCESSED),
        row("408, close", Reply::status(408).close(),               PROCESSED),
        row("409", Reply::status(409),                              FINAL),
        row("413", Reply::status(413),                              FINAL),
        row("422", Reply::status(422),                              FINAL),
        row("500", Reply::status(500),                              PROCESSED),
        row("501", Reply::status(501),                              FINAL),
        row("502", Reply::status(502),                              PROCESSED),
        row("503", Reply::status(503),                              PROCESSED),
        row("503, close", Reply::status(503).close(),               PROCESSED),
        row("504", Reply::status(504),                              PROCESSED),
        disowned("425", Reply::status(425),                         DISOWNED),
        disowned("429", Reply::status(429),                         DISOWNED),
        // A proxy may say so although the server behind it did the work.
        row("503, Retry-After", Reply::status(503).header("retry-after", "0"), PROCESSED),
    ];
    check(rows, plain(), Server::h1, Step::from).await;
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn over_http2() {
    use End::*;
    use h2::Reason;

    const PROCESSED: [&str; 6] = ["2/2", "2/2", "1/1", "2/2", "1/1", "1/1"];
    // The protocol says that the request was not processed.
    const REFUSED: [&str; 6] = ["1/2", "1/2", "1/2", "1/2", "0/1", "1/2"];
    const DISOWNED: [&str; 6] = ["2/2", "2/2", "2/2", "2/2", "1/1", "2/2"];
    let ok = || Reply::status(200).body("hello");
    #[rustfmt::skip]
    let rows: Vec<Row<Stream>> = vec![
        disowned("REFUSED_STREAM", Stream::Refuse,                            REFUSED),
        disowned("GOAWAY before", Stream::GoAwayBefore(Reason::NO_ERROR),     REFUSED),
        disowned("GOAWAY before, calm", Stream::GoAwayBefore(Reason::ENHANCE_YOUR_CALM), REFUSED),
        disowned("GOAWAY before, error", Stream::GoAwayBefore(Reason::INTERNAL_ERROR), REFUSED),
        row("GOAWAY after", Stream::GoAwayAfter(Reason::NO_ERROR),            PROCESSED),
        row("GOAWAY after, calm", Stream::GoAwayAfter(Reason::ENHANCE_YOUR_CALM), PROCESSED),
        row("RST_STREAM cancel", Stream::Reset(Reason::CANCEL),               PROCESSED),
        row("RST_STREAM error", Stream::Reset(Reason::INTERNAL_ERROR),        PROCESSED),
        row("RST_STREAM calm", Stream::Reset(Reason::ENHANCE_YOUR_CALM),      PROCESSED),
        row("request, FIN", Stream::Unanswered(Close),                        PROCESSED),
        row("request, close", Stream::Unanswered(Drop),                       PROCESSED),
        row("request, RST", Stream::Unanswered(Reset),                        PROCESSED),
        row("request, stall", Stream::Unanswered(Stall),                      PROCESSED),
        row("half a body, FIN", ok().cut_body(2, Close),                      PROCESSED),
        row("half a body, RST", ok().cut_body(2, Reset),                      PROCESSED),
        row("half a body, stall", ok().cut_body(2, Stall),                    PROCESSED),
        row("404", Reply::status(404),                                        ["1/1"; 6]),
        row("500", Reply::status(500),                                        PROCESSED),
        row("503", Reply::status(503),                                        PROCESSED),
        disowned("429", Reply::status(429),                                   DISOWNED),
        row("503, Retry-After", Reply::status(503).header("retry-after", "0"), PROCESSED),
    ];
    check(rows, super::plain_h2(), Server::h2, Stream::from).await;
}

/// Runs every cell and shows the table with what differs.
///
/// All at once, but what stalls comes after the rest: there an attempt has a limit, and there is
/// less that could keep it waiting. They share a client, as making one takes as long as an attempt
/// may; each server has a port of its own, and so connections of its own.
async fn check<S: Clone + Send + Sync>(
    mut rows: Vec<Row<S>>,
    client: reqwest::Client,
    serve: fn([S; 2]) -> Server,
    healthy: fn(Reply) -> S,
) {
    let stalls = |row: &Row<S>| row.fault.contains("stall");
    rows.sort_by_key(stalls);
    let cells = |row: &Row<S>| {
        let limit = if stalls(row) { ms(1_500) } else { ms(10_000) };
        let (step, fault, disowned) = (row.step.clone(), row.fault, row.disowned);
        let client = client.clone();
        join_all(KINDS.map(move |kind| {
            let (step, client) = (step.clone(), client.clone());
            async move {
                // Bodies are read within the attempt, so that what breaks off in them counts as
                // its fault.
                let config = quick().read_body(1024).attempt_timeout(limit);
                let server = serve([step, healthy(Reply::status(200))]);
                let _ = kind.request(&resilient(config, client), server.url("/")).send().await;
                let (reached, begun) = (server.requests(), server.begun());
                if !disowned && matches!(kind, Kind::Post | Kind::Streamed | Kind::Factory) {
                    assert!(reached < 2, "{kind:?} sent twice under {fault}");
                }
                kind.check_intact(&server);
                (reached, begun)
            }
        }))
    };
    let mut results = Vec::new();
    for rows in rows.chunk_by(|one, other| stalls(one) == stalls(other)) {
        results.extend(join_all(rows.iter().map(cells)).await);
    }
    let mut wrong = Vec::new();
    println!("{:24}{}", "", KINDS.map(|kind| format!("{:10}", format!("{kind:?}"))).concat());
    for (row, cells) in rows.iter().zip(results) {
        let shown: String = cells
            .iter()
            .map(|(reached, begun)| format!("{:10}", format!("{reached}/{begun}")))
            .collect();
        println!("{:24}{shown}", row.fault);
        for ((kind, expected), cell) in KINDS.into_iter().zip(row.expected).zip(cells) {
            if !agrees(expected, cell) {
                wrong.push(format!("{} {kind:?}: {cell:?} instead of {expected}", row.fault));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns whether the counts match an expectation such as `1/1-2`.
pub(crate) fn agrees(expected: &str, (reached, begun): (usize, usize)) -> bool {
    let within = |range: &str, count: usize| {
        let (least, most) = range.split_once('-').unwrap_or((range, range));
        (least.parse().unwrap()..=most.parse().unwrap()).contains(&count)
    };
    let (of_reached, of_begun) = expected.split_once('/').unwrap();
    within(of_reached, reached) && within(of_begun, begun)
}

impl Kind {
    pub(crate) fn request(self, client: &ClientWithMiddleware, url: String) -> RequestBuilder {
        match self {
            Self::Get => client.get(url),
            Self::Put => client.put(url).body(payload()),
            Self::Post => client.post(url).body(payload()),
            Self::Keyed => {
                let keyed = RetryOverride::new().idempotency_key(IdempotencyKey::random());
                client.post(url).body(payload()).with_extension(keyed)
            }
            Self::Streamed => client.post(url).body(stream()),
            Self::Factory => {
                client.post(url).with_extension(BodyFactory::new(async || Ok(stream())))
            }
        }
    }

    /// Every body arrived byte for byte, and a key is the same each time.
    fn check_intact(self, server: &Server) {
        let seen = server.seen();
        let whole = if self == Self::Get { Bytes::new() } else { payload() };
        assert!(seen.iter().all(|it| it.body == whole), "{self:?}: a body was changed");
        let mut keys: Vec<_> = seen.iter().map(|it| it.header("idempotency-key")).collect();
        assert!(keys.iter().all(|it| it.is_some() == (self == Self::Keyed)));
        keys.dedup();
        assert!(keys.len() <= 1, "{self:?}: several keys");
    }
}

/// Bytes that show a gap or a repetition.
fn payload() -> Bytes {
    (0..6_000_u32).flat_map(u32::to_be_bytes).collect()
}

fn stream() -> Body {
    let pieces = payload().chunks(1_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    Body::wrap_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
}
