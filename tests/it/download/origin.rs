//! Resources, and a server that sends them as the RFC demands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{Constant, Jitter, Resilient, ResilientConfig, ResilientConfigBuilder};

pub(crate) use crate::support::folder::Folder;
use crate::support::h2::Stream;
use crate::support::log::Seen;
use crate::support::reply::{End, Reply, Step};
use crate::support::server::Server;

pub(crate) const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
pub(crate) const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

/// Bytes that differ at every offset between seeds, so that a mixed file shows.
pub(crate) fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(length);
    all.into()
}

/// A response, for either protocol.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) framing: Framing,
    pub(crate) cut: Option<(usize, End)>,
    pub(crate) cuts_head: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let (headers, body) = (vec![], body.into());
        Self { status, headers, body, framing: Framing::Length, cut: None, cuts_head: false }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|it| it.0 != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|it| it.0 != name);
        self
    }

    pub(crate) fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Ends the connection after so many bytes of the body.
    pub(crate) fn cut(mut self, at: usize, end: End) -> Self {
        self.cut = (at < self.body.len()).then_some((at, end));
        self
    }

    pub(crate) fn reply(self, is_h2: bool) -> Reply {
        let (reply, length) = (Reply::status(self.status), self.body.len());
        let mut reply = match self.framing {
            Framing::Chunked => reply.chunked(self.body),
            Framing::UntilClose => reply.until_close(self.body),
            Framing::Length => reply.body(self.body),
        };
        for (name, value) in self.headers {
            reply = reply.header(&name, value);
        }
        if is_h2 && self.framing == Framing::Length {
            reply = reply.header("content-length", length.to_string());
        }
        match self.cut {
            Some((at, end)) => reply.cut_body(at, end),
            None if self.cuts_head && !is_h2 => reply.cut_head(End::Reset),
            None => reply,
        }
    }
}

/// Sends `body` as the RFC demands, with these validators.
pub(crate) fn serve(body: &Bytes, validators: &[(&str, &str)], seen: &Seen) -> Answer {
    let with_validators = |answer: Answer| {
        validators
            .iter()
            .fold(answer.with("date", LATER), |it, (name, value)| it.with(name, *value))
    };
    let known = |name: &str| validators.iter().find(|it| it.0 == name).map(|it| it.1);
    if let Some(date) = seen.header("if-unmodified-since") {
        if Some(date) != known("last-modified") {
            return with_validators(Answer::new(412, ""));
        }
    }
    let same = seen.header("if-range").is_none_or(|it| {
        !it.starts_with("W/") && [known("etag"), known("last-modified")].contains(&Some(it))
    });
    let range = seen.header("range").filter(|_| same).and_then(|it| it.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|it| it.split_once('-')) else {
        return with_validators(Answer::new(200, body.clone()));
    };
    let total = body.len();
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), last) => (first, last.unwrap_or(total - 1).min(total - 1)),
        (Err(_), last) => (total - last.unwrap().min(total), total - 1),
    };
    if first >= total {
        let range = format!("bytes */{total}");
        return with_validators(Answer::new(416, "")).with("content-range", range);
    }
    let part = Answer::new(206, body.slice(first..=last));
    with_validators(part).with("content-range", format!("bytes {first}-{last}/{total}"))
}

/// A server that answers its n-th request as `answer` says.
pub(crate) fn server(
    is_h2: bool,
    answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
) -> Server {
    let count = AtomicUsize::new(0);
    let answer = move |seen: &Seen| answer(seen, count.fetch_add(1, SeqCst)).reply(is_h2);
    match is_h2 {
        true => Server::h2([Stream::Ask(Arc::new(answer))]),
        false => Server::h1([Step::ask(answer)]),
    }
}

/// Two retries at once, without breaker and budget.
pub(crate) fn config() -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .max_retries(2)
        .backoff(Constant::new(Duration::from_millis(1)))
        .jitter(Jitter::None)
        .without_circuit_breaker()
        .without_retry_budget()
        .without_gate()
}

pub(crate) fn client(is_h2: bool, config: ResilientConfigBuilder) -> ClientWithMiddleware {
    let inner = Resilient::reqwest_builder().no_proxy();
    let inner = if is_h2 { inner.http2_prior_knowledge() } else { inner };
    let config = config.build().unwrap();
    ClientBuilder::new(inner.build().unwrap()).with(Resilient::new(config)).build()
}
