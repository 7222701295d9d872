//! What servers do when a download breaks off, over HTTP/1.1 and HTTP/2, into files, memory and
//! streams: the whole resource or an error, never a mixture.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest_middleware::RequestBuilder;
use reqwest_resilient::{DownloadBuilder, DownloadErrorKind as Kind, DownloadExt, NotResumable};

use super::origin::{
    Answer, Folder, Framing, LATER, MODIFIED, bytes, client, config, serve, server,
};
use crate::support::log::Seen;
use crate::support::reply::End;

const LENGTH: usize = 300_000;
const CUT: usize = 100_000;
const TAG: (&str, &str) = ("etag", "\"v1\"");
const OTHER: (&str, &str) = ("etag", "\"v2\"");

type Answers = Arc<dyn Fn(&World, &Seen, usize) -> Answer + Send + Sync>;
type Settings = fn(DownloadBuilder) -> DownloadBuilder;

/// Two versions of one resource.
#[derive(Clone)]
struct World {
    old: Bytes,
    new: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End_ {
    Old,
    New,
    /// The bytes of the old version in this range.
    Part(usize, usize),
    Empty,
    Fails(Kind),
}

#[derive(Clone)]
struct Case {
    name: &'static str,
    answers: Answers,
    /// The result where the download can start over, and where it cannot.
    file: End_,
    stream: End_,
    h1_only: bool,
    settings: Settings,
    range: Option<&'static str>,
}

use End_::{Fails, New, Old};

fn case(
    name: &'static str,
    file: End_,
    stream: End_,
    answers: impl Fn(&World, &Seen, usize) -> Answer + Send + Sync + 'static,
) -> Case {
    let answers = Arc::new(answers);
    Case { name, answers, file, stream, h1_only: false, settings: |it| it, range: None }
}

impl Case {
    fn h1_only(mut self) -> Self {
        self.h1_only = true;
        self
    }

    fn with(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    fn range(mut self, range: &'static str) -> Self {
        self.range = Some(range);
        self
    }
}

/// The first response breaks off, the second is `second`, and all others are good.
fn second(
    name: &'static str,
    file: End_,
    stream: End_,
    second: impl Fn(&World, &Seen) -> Answer + Send + Sync + 'static,
) -> Case {
    case(name, file, stream, move |world, seen, n| match n {
        0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
        1 => second(world, seen),
        _ => serve(&world.old, &[TAG], seen),
    })
}

/// The first response has these headers and breaks off, and all others are good.
fn first(
    name: &'static str,
    file: End_,
    stream: End_,
    headers: &'static [(&'static str, &'static str)],
) -> Case {
    case(name, file, stream, move |world, seen, n| {
        let answer = serve(&world.old, headers, seen);
        if n == 0 { answer.cut(CUT, End::Reset) } else { answer }
    })
}

const fn no(why: NotResumable) -> End_ {
    Fails(Kind::NotResumable(why))
}

const INVALID: End_ = no(NotResumable::InvalidRange);

fn breaks() -> Vec<Case> {
    let cut = |name, end| {
        case(name, Old, Old, move |world: &World, seen: &Seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            if n == 0 { answer.cut(CUT, end) } else { answer }
        })
    };
    vec![
        case("nothing happens", Old, Old, |world, seen, _| serve(&world.old, &[TAG], seen)),
        cut("reset", End::Reset),
        cut("closed early", End::Close),
        cut("dropped", End::Drop),
        cut("stalled", End::Stall),
        case("cut at its first byte", Old, Old, |world, seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            if n == 0 { answer.cut(0, End::Reset) } else { answer }
        }),
        case("cut before its last byte", Old, Old, |world, seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            if n == 0 { answer.cut(LENGTH - 1, End::Reset) } else { answer }
        }),
        case("cut again and again", Old, Old, |world, seen, _| {
            serve(&world.old, &[TAG], seen).cut(20_000, End::Reset)
        }),
        case("no progress", Fails(Kind::Exhausted), Fails(Kind::Exhausted), |world, seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            answer.cut(if n == 0 { CUT } else { 0 }, End::Reset)
        }),
        case("chunked", Old, Old, |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).framing(Framing::Chunked).cut(CUT, End::Reset),
            _ => serve(&world.old, &[TAG], seen),
        }),
        case("chunked without its end", Old, Old, |world, seen, n| match n {
            0 => {
                let mut answer = serve(&world.old, &[TAG], seen).framing(Framing::Chunked);
                answer.cut = Some((LENGTH + 7, End::Reset));
                answer
            }
            _ => serve(&world.old, &[TAG], seen),
        })
        .h1_only(),
        case("chunked, and so is the rest", Old, INVALID, |world, seen, n| {
            let answer = serve(&world.old, &[TAG], seen).framing(Framing::Chunked);
            if n == 0 { answer.cut(CUT, End::Reset) } else { answer }
        }),
        second("the rest is chunked", Old, Old, |world, seen| {
            serve(&world.old, &[TAG], seen).framing(Framing::Chunked)
        }),
        case("without a length, but one is expected", Old, Old, |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).framing(Framing::UntilClose).cut(CUT, End::Close),
            _ => serve(&world.old, &[TAG], seen),
        })
        .with(|it| it.expect_length(LENGTH as u64))
        .h1_only(),
        case("capped parts of a whole of unknown length", Old, Old, |world, seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            match answer.status {
                206 => capped(answer),
                _ if n == 0 => answer.framing(Framing::Chunked).cut(CUT, End::Reset),
                _ => answer,
            }
        }),
        case("empty", End_::Empty, End_::Empty, |_, seen, _| serve(&Bytes::new(), &[TAG], seen)),
    ]
}

/// The first bytes of a part, by a server that does not know the whole.
fn capped(answer: Answer) -> Answer {
    let range = answer.headers.iter().find(|it| it.0 == "content-range").unwrap();
    let (first, _) = range.1["bytes ".len()..].split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let body = answer.body.slice(..answer.body.len().min(80_000));
    let range = format!("bytes {first}-{}/*", first + body.len() - 1);
    Answer { body, ..answer }.with("content-range", range)
}

fn validators() -> Vec<Case> {
    const DATE: (&str, &str) = ("last-modified", MODIFIED);
    vec![
        first("last-modified", Old, Old, &[DATE]),
        first("last-modified beside a weak tag", Old, Old, &[DATE, ("etag", "W/\"v1\"")]),
        first("modified just now", Old, no(NotResumable::NoValidator), &[("last-modified", LATER)]),
        first("a weak tag", Old, no(NotResumable::NoValidator), &[("etag", "W/\"v1\"")]),
        first("a tag without quotes", Old, no(NotResumable::NoValidator), &[("etag", "v1")]),
        first("no validator", Old, no(NotResumable::NoValidator), &[]),
        first("no validator, but immutable", Old, Old, &[]).with(DownloadBuilder::immutable),
        first("no ranges", Old, no(NotResumable::NoRanges), &[TAG, ("accept-ranges", "none")]),
        first("ranges", Old, Old, &[TAG, ("accept-ranges", "bytes")]),
        first("encoded", Old, no(NotResumable::Encoded), &[TAG, ("content-encoding", "x-own")]),
        first("identity", Old, Old, &[TAG, ("content-encoding", "identity")]),
        first(
            "a stream of events",
            Old,
            no(NotResumable::Stream),
            &[TAG, ("content-type", "text/event-stream")],
        ),
        case("the last-modified changes", New, Fails(Kind::Changed), |world, seen, n| match n {
            0 => serve(&world.old, &[DATE], seen).cut(CUT, End::Reset),
            _ => serve(&world.new, &[("last-modified", "Sun, 06 Nov 1994 08:49:39 GMT")], seen),
        }),
        case("the date beside a weak tag changes", New, Fails(Kind::Changed), |world, seen, n| {
            match n {
                0 => {
                    let weak = ("etag", "W/\"v1\"");
                    serve(&world.old, &[DATE, weak], seen).cut(CUT, End::Reset)
                }
                _ => serve(&world.new, &[("last-modified", "Sun, 06 Nov 1994 08:49:39 GMT")], seen),
            }
        }),
    ]
}

fn parts() -> Vec<Case> {
    let part = |world: &World, first: usize, last: usize, range: String| {
        Answer::new(206, world.old.slice(first..=last))
            .with(TAG.0, TAG.1)
            .with("content-range", range)
    };
    let whole = format!("{CUT}-{}/{LENGTH}", LENGTH - 1);
    let all = move |world: &World, range: String| {
        Answer::new(206, world.old.slice(CUT..)).with(TAG.0, TAG.1).with("content-range", range)
    };
    let with_range = move |name, file, stream, range: String| {
        second(name, file, stream, move |world, _| all(world, range.clone()))
    };
    vec![
        second("a part that begins later", Old, INVALID, move |world, _| {
            let range = format!("bytes {}-{}/{LENGTH}", CUT + 1, LENGTH - 1);
            part(world, CUT + 1, LENGTH - 1, range)
        }),
        second("a part that begins earlier", Old, Old, move |world, _| {
            part(world, 10, LENGTH - 1, format!("bytes 10-{}/{LENGTH}", LENGTH - 1))
        }),
        second("the whole as a part", Old, Old, move |world, _| {
            part(world, 0, LENGTH - 1, format!("bytes 0-{}/{LENGTH}", LENGTH - 1))
        }),
        second("a part that ends before the break", Old, INVALID, move |world, _| {
            part(world, 0, 9, format!("bytes 0-9/{LENGTH}"))
        }),
        second("a part of a part", Old, Old, move |world, _| {
            part(world, CUT, CUT + 49_999, format!("bytes {CUT}-{}/{LENGTH}", CUT + 49_999))
        }),
        with_range(
            "another total",
            Old,
            Fails(Kind::Changed),
            format!("bytes {CUT}-299999/300001"),
        ),
        with_range("an unknown total", Old, Old, format!("bytes {CUT}-299999/*")),
        with_range("a part beyond the end", Old, INVALID, format!("bytes {CUT}-300000/*")),
        with_range(
            "a number that overflows",
            Old,
            INVALID,
            format!("bytes {CUT}-18446744073709551616/*"),
        ),
        with_range("another unit", Old, INVALID, format!("items {whole}")),
        with_range("no numbers", Old, INVALID, "bytes a-b/c".into()),
        second("no content-range", Old, INVALID, |world, seen| {
            serve(&world.old, &[TAG], seen).without("content-range")
        }),
        second("several parts", Old, INVALID, |world, seen| {
            serve(&world.old, &[TAG], seen)
                .without("content-range")
                .with("content-type", "multipart/byteranges; boundary=x")
        }),
        second("an encoded part", Old, INVALID, |world, seen| {
            serve(&world.old, &[TAG], seen).with("content-encoding", "gzip")
        }),
        second("a part without the tag", Old, INVALID, |world, seen| {
            serve(&world.old, &[TAG], seen).without("etag")
        }),
        second("a length that is not that of the part", Old, INVALID, |world, seen| {
            let answer = serve(&world.old, &[TAG], seen);
            Answer { body: answer.body.slice(1..), ..answer }
        }),
        second("the last byte is missing", Old, Old, |world, seen| {
            let answer = serve(&world.old, &[TAG], seen);
            let most = answer.body.len() - 1;
            answer.cut(most, End::Close)
        }),
        second("cut within the head", Old, Old, |world, seen| Answer {
            cuts_head: true,
            ..serve(&world.old, &[TAG], seen)
        }),
        case("a part of what was changed", New, Fails(Kind::Changed), |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
            // A proxy on the way strips `If-Range`.
            1 => {
                let mut seen = seen.clone();
                seen.headers.remove("if-range");
                serve(&world.new, &[OTHER], &seen)
            }
            _ => serve(&world.new, &[OTHER], seen),
        }),
        case("a changed part without a tag", New, INVALID, |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
            1 => {
                let mut seen = seen.clone();
                seen.headers.remove("if-range");
                serve(&world.new, &[], &seen)
            }
            _ => serve(&world.new, &[OTHER], seen),
        }),
    ]
}

fn statuses() -> Vec<Case> {
    let status = |name, file, stream, status| {
        second(name, file, stream, move |_, _| Answer::new(status, "x"))
    };
    let forever = |name, end, status| {
        case(name, end, end, move |world: &World, seen: &Seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
            _ => Answer::new(status, "x"),
        })
    };
    let total = |total: usize| format!("bytes */{total}");
    vec![
        case("200 of the same", Old, Old, |world, seen, n| {
            let mut seen = seen.clone();
            seen.headers.remove("range");
            let answer = serve(&world.old, &[TAG], &seen);
            if n == 0 { answer.cut(CUT, End::Reset) } else { answer }
        }),
        case("200 of another", New, Fails(Kind::Changed), |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
            _ => serve(&world.new, &[OTHER], seen),
        }),
        case("200 without a tag", New, Fails(Kind::Changed), |world, seen, n| match n {
            0 => serve(&world.old, &[TAG], seen).cut(CUT, End::Reset),
            _ => {
                let mut seen = seen.clone();
                seen.headers.remove("range");
                serve(&world.new, &[], &seen)
            }
        }),
        case(
            "the same tag on another length",
            New,
            Fails(Kind::Changed),
            |world, seen, n| match n {
                0 => serve(&world.old.slice(..LENGTH - 1), &[TAG], seen).cut(CUT, End::Reset),
                _ => serve(&world.new, &[TAG], seen).without("none"),
            },
        ),
        case("another version each time", Fails(Kind::Exhausted), Fails(Kind::Changed), {
            |world, seen, n| {
                let tag = format!("\"{n}\"");
                serve(&world.old, &[("etag", &tag)], seen).cut(CUT, End::Reset)
            }
        }),
        second("416 of another", Old, Fails(Kind::Changed), move |_, _| {
            Answer::new(416, "").with("content-range", total(10))
        }),
        second("416 without a range", Old, Fails(Kind::Changed), |_, _| Answer::new(416, "")),
        status("412", Old, Fails(Kind::Changed), 412),
        status("204", Old, INVALID, 204),
        status("304", Old, INVALID, 304),
        status("503 once", Old, Old, 503),
        status("429 once", Old, Old, 429),
        forever("503", Fails(Kind::Exhausted), 503),
        forever("404", Fails(Kind::Request), 404),
        forever("410", Fails(Kind::Request), 410),
        forever("401", Fails(Kind::NeedsNewUrl(http::StatusCode::UNAUTHORIZED)), 401),
        forever("403", Fails(Kind::NeedsNewUrl(http::StatusCode::FORBIDDEN)), 403),
        second("a redirect", Old, Old, |world, seen| match seen.path.as_str() {
            "/elsewhere" => serve(&world.old, &[TAG], seen),
            _ => Answer::new(307, "").with("location", "/elsewhere"),
        }),
        case(
            "206 that was not asked for",
            Fails(Kind::UnexpectedStatus(http::StatusCode::PARTIAL_CONTENT)),
            Fails(Kind::UnexpectedStatus(http::StatusCode::PARTIAL_CONTENT)),
            |world, _, _| {
                Answer::new(206, world.old.slice(CUT..))
                    .with(TAG.0, TAG.1)
                    .with("content-range", format!("bytes {CUT}-{}/{LENGTH}", LENGTH - 1))
            },
        ),
        case(
            "204 at once",
            Fails(Kind::UnexpectedStatus(http::StatusCode::NO_CONTENT)),
            Fails(Kind::UnexpectedStatus(http::StatusCode::NO_CONTENT)),
            |_, _, _| Answer::new(204, ""),
        ),
        case("404 at once", Fails(Kind::Request), Fails(Kind::Request), |_, _, _| {
            Answer::new(404, "no")
        }),
    ]
}

fn ranges() -> Vec<Case> {
    let cut = |name, range, end| {
        case(name, end, end, |world: &World, seen: &Seen, n| {
            let answer = serve(&world.old, &[TAG], seen);
            if n == 0 { answer.cut(50_000, End::Reset) } else { answer }
        })
        .range(range)
    };
    vec![
        cut("a range", "bytes=1000-200999", End_::Part(1_000, 201_000)),
        cut("an open range", "bytes=1000-", End_::Part(1_000, LENGTH)),
        cut("a suffix", "bytes=-200000", End_::Part(100_000, LENGTH)),
        case("a range that is ignored", Old, Old, |world, seen, n| {
            let mut seen = seen.clone();
            seen.headers.remove("range");
            let answer = serve(&world.old, &[TAG], &seen);
            if n == 0 { answer.cut(CUT, End::Reset) } else { answer }
        })
        .range("bytes=1000-200999"),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Into_ {
    File,
    Memory,
    Stream,
    Writer,
}

async fn run(case: &Case, world: &World, is_h2: bool, into: Into_) -> Result<Bytes, Kind> {
    let (answers, its) = (Arc::clone(&case.answers), world.clone());
    let server = server(is_h2, move |seen, n| answers(&its, seen, n));
    let client = client(is_h2, config());
    let mut request: RequestBuilder = client.get(server.url("/resource"));
    if let Some(range) = case.range {
        request = request.header("range", range);
    }
    let download = request.download().stall_timeout(Duration::from_millis(300));
    let download = (case.settings)(download);
    let result = match into {
        Into_::Memory => download.bytes().await,
        Into_::Stream => match download.send().await {
            Ok(download) => download.bytes().await,
            Err(error) => Err(error),
        },
        Into_::Writer => {
            let mut all = Vec::new();
            download.to_writer(&mut all).await.map(|_| all.into())
        }
        Into_::File => {
            let folder = Folder::new();
            let result = download.to_file(folder.file("it")).await;
            match result {
                Ok(downloaded) => {
                    assert_eq!(folder.names(), ["it"], "{}", case.name);
                    let bytes = std::fs::read(folder.file("it")).unwrap();
                    assert_eq!(downloaded.bytes(), bytes.len() as u64);
                    Ok(bytes.into())
                }
                Err(error) => {
                    assert!(!folder.names().contains(&"it".to_owned()), "{}", case.name);
                    Err(error)
                }
            }
        }
    };
    result.map_err(|it| {
        assert!(!it.to_string().is_empty());
        it.kind()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_makes_a_mixed_file() {
    let world = World { old: bytes(1, LENGTH), new: bytes(2, LENGTH) };
    let cases: Vec<_> =
        [breaks(), validators(), parts(), statuses(), ranges()].into_iter().flatten().collect();
    assert!(cases.len() >= 70, "{}", cases.len());
    let mut wrong = vec![];
    for case in &cases {
        for is_h2 in [false, true] {
            if is_h2 && case.h1_only {
                continue;
            }
            for into in [Into_::File, Into_::Memory, Into_::Stream, Into_::Writer] {
                let result = run(case, &world, is_h2, into).await;
                let restarts = matches!(into, Into_::File | Into_::Memory);
                let expected = if restarts { case.file } else { case.stream };
                let found = match &result {
                    Ok(it) if *it == world.old => Old,
                    Ok(it) if *it == world.new => New,
                    Ok(it) if it.is_empty() => End_::Empty,
                    Ok(it) => match expected {
                        End_::Part(first, end) if *it == world.old.slice(first..end) => expected,
                        _ => panic!("{}, h2 {is_h2}, {into:?}: a mixture", case.name),
                    },
                    Err(kind) => Fails(*kind),
                };
                if found != expected {
                    let name = case.name;
                    wrong
                        .push(format!("{name}, h2 {is_h2}, {into:?}: {found:?}, not {expected:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
