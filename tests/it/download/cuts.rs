//! Many cuts: fifty in a row, and ten thousand random plans of what goes wrong.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{env, io};

use bytes::Bytes;
use http::{Extensions, HeaderValue};
use http_body::{Frame, SizeHint};
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
use reqwest_resilient::testing::io_error;
use reqwest_resilient::{DownloadErrorKind, DownloadExt, Resilient};

use super::origin::{Folder, bytes, client, config, serve, server};
use crate::support::reply::End;
use crate::support::{idle_client, in_virtual_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_cuts_are_survived() {
    const LENGTH: usize = 5_000_000;
    let body = bytes(3, LENGTH);
    let its = body.clone();
    let server = server(false, move |seen, n| {
        let answer = serve(&its, &[("etag", "\"a\"")], seen);
        if n < 50 { answer.cut(90_000, End::Close) } else { answer }
    });
    let folder = Folder::new();
    let download = client(false, config()).get(server.url("/")).download();
    let downloaded = download.to_file(folder.file("it")).await.unwrap();
    assert_eq!(downloaded.resumes(), 50);
    assert_eq!((downloaded.restarts(), downloaded.repeated()), (0, 0));
    assert_eq!(downloaded.bytes(), LENGTH as u64);
    assert!(std::fs::read(folder.file("it")).unwrap() == body);
    assert_eq!(server.requests(), 51);
}

/// A generator of numbers, the same for each seed.
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: usize) -> usize {
        let mut it = self.0.load(SeqCst);
        it ^= it << 13;
        it ^= it >> 7;
        it ^= it << 17;
        self.0.store(it, SeqCst);
        (it >> 33) as usize % sides
    }
}

/// The end of a chain that keeps to nothing.
#[derive(Clone)]
struct Unruly(Arc<Plan>);

struct Plan {
    dice: Dice,
    versions: Vec<Bytes>,
    version: AtomicUsize,
    /// The number of requests that may go wrong.
    trouble: AtomicUsize,
    has_tag: bool,
}

impl Plan {
    fn respond(&self, request: &Request) -> Result<Response, Error> {
        let roll = |sides| self.dice.roll(sides);
        let is_wrong = self.trouble.fetch_update(SeqCst, SeqCst, |it| it.checked_sub(1)).is_ok();
        let wrong = if is_wrong { roll(16) } else { 16 };
        match wrong {
            0 => return Err(io_error(io::ErrorKind::ConnectionReset)),
            1 => return self.reply(503, Body::from(""), &[]),
            2 if roll(4) == 0 => {
                self.version.store(roll(self.versions.len()), SeqCst);
            }
            3 if roll(4) == 0 => {
                let statuses = [204, 304, 401, 403, 404, 410, 412, 416, 500];
                return self.reply(statuses[roll(statuses.len())], Body::from(""), &[]);
            }
            _ => {}
        }
        let version = self.version.load(SeqCst);
        let whole = &self.versions[version];
        let tag = format!("\"{version}\"");
        let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap());
        let same = header("if-range").is_none_or(|it| it == tag) || wrong == 4;
        let range = header("range").filter(|_| same && wrong != 5);
        let mut headers = vec![];
        if self.has_tag && wrong != 6 {
            headers.push(("etag", tag));
        }
        let (status, mut body) = match range {
            None => (200, whole.clone()),
            Some(range) => {
                let first = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
                let mut first: usize = first.parse().unwrap();
                let mut last = whole.len() - 1;
                match wrong {
                    7 => first = first.saturating_sub(roll(5_000)),
                    8 => first = (first + 1).min(last),
                    9 => last = first.max(last.saturating_sub(roll(20_000))).min(last),
                    _ => {}
                }
                if first > last {
                    headers.push(("content-range", format!("bytes */{}", whole.len())));
                    return self.reply(416, Body::from(""), &headers);
                }
                let total = match wrong {
                    10 => "*".to_owned(),
                    11 => (whole.len() + 1).to_string(),
                    _ => whole.len().to_string(),
                };
                if wrong != 12 {
                    headers.push(("content-range", format!("bytes {first}-{last}/{total}")));
                }
                (206, whole.slice(first..=last))
            }
        };
        let length = body.len();
        let fault = match wrong {
            13 | 14 | 0..=9 => Some(Fault::Reset),
            15 => Some(Fault::Stall),
            _ => None,
        };
        if fault.is_some() {
            body.truncate(roll(length + 1));
        }
        // Some bodies end early without an error.
        let fault = fault.filter(|_| wrong != 14).or_else(|| (wrong == 14).then_some(Fault::End));
        let body = Chunks { rest: body, length: length as u64, fault, chunk: 1 + roll(9_000) };
        headers.push(("content-length", length.to_string()));
        self.reply(status, Body::wrap(body), &headers)
    }

    fn reply(
        &self,
        status: u16,
        body: Body,
        headers: &[(&str, String)],
    ) -> Result<Response, Error> {
        let url = reqwest::Url::parse("https://example.com/it").unwrap();
        let response = http::Response::builder().status(status).url(url).body(body);
        let mut response = response.map_err(Error::middleware)?;
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        Ok(response.into())
    }
}

#[derive(Clone, Copy)]
enum Fault {
    Reset,
    Stall,
    End,
}

struct Chunks {
    rest: Bytes,
    length: u64,
    fault: Option<Fault>,
    chunk: usize,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.rest.is_empty() {
            let chunk = self.chunk.min(self.rest.len());
            return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(chunk)))));
        }
        match self.fault {
            None | Some(Fault::End) => Poll::Ready(None),
            Some(Fault::Stall) => Poll::Pending,
            Some(Fault::Reset) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[async_trait::async_trait]
impl Middleware for Unruly {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> Result<Response, Error> {
        self.0.respond(&request)
    }
}

/// `DOWNLOAD_PLANS` sets how many.
#[test]
fn ten_thousand_plans_give_the_whole_or_an_error() {
    let plans = env::var("DOWNLOAD_PLANS").map_or(10_000, |it| it.parse().unwrap());
    let versions: Vec<_> = (0..3).map(|it| bytes(it, 60_000)).collect();
    let (mut whole, mut failed, mut resumed) = (0, 0, 0);
    in_virtual_time(async {
        for seed in 1..=plans {
            let dice = Dice(AtomicU64::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)));
            let (trouble, has_tag) = (AtomicUsize::new(dice.roll(12)), dice.roll(8) > 0);
            let versions = versions.clone();
            let plan = Plan { dice, versions, version: AtomicUsize::new(0), trouble, has_tag };
            let plan = Arc::new(plan);
            let client = ClientBuilder::new(idle_client())
                .with(Resilient::new(config().max_retries(3).build().unwrap()))
                .with(Unruly(Arc::clone(&plan)))
                .build();
            let download = client.get("https://example.com/it").download();
            let result = tokio::time::timeout(Duration::from_secs(3_600), async {
                if seed % 2 == 0 {
                    return download.bytes().await;
                }
                let mut download = download.send().await?;
                let mut all = Vec::new();
                let copied = download.copy_to(&mut all).await;
                // Bytes that a stream has handed out are those of one version, too.
                assert!(plan.versions.iter().any(|it| it.starts_with(&all)), "plan {seed}");
                resumed += u64::from(download.summary().resumes());
                copied.map(|_| all.into())
            });
            match result.await.expect("it ends") {
                Ok(all) => {
                    assert!(plan.versions.contains(&all), "plan {seed}: a mixture");
                    whole += 1;
                }
                Err(error) => {
                    let kind = error.kind();
                    assert!(!matches!(kind, DownloadErrorKind::Body | DownloadErrorKind::Write));
                    failed += 1;
                }
            }
        }
    });
    println!("{whole} whole, {failed} failed, streams resumed {resumed} times");
    assert!(whole > plans / 2 && resumed > plans / 4, "{whole} whole, {resumed} resumes");
}
