//! Sends the requests of one download, and keeps count of them.

use std::time::Duration;

use http::{Extensions, HeaderName, HeaderValue, Method, header};
use reqwest::{Request, Response, Url};
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};

use crate::client::download::link::{Context, Link};
use crate::client::request::RequestBuilderExt;
use crate::common::clock::Instant;
use crate::config::overrides::RetryOverride;
use crate::error::HttpRequestError;
use crate::execution::body::stall::WatchesItself;
use crate::execution::route::{Avoids, ResumesFrom};
use crate::observe::attempt_log::AttemptLog;
use crate::observe::history::{History, ResponseExt};
use crate::observe::resend_count::ResendCount;

/// The number of histories that are kept.
const MOST_HISTORIES: usize = 64;

/// The client and the request of a download.
pub(crate) struct Sender {
    client: ClientWithMiddleware,
    /// `None` once a request that cannot be copied was sent.
    request: Option<Request>,
    method: Method,
    url: Url,
    extensions: Extensions,
    link: Link,
    started: Instant,
    /// The limit of `max_total_time`, as of the first request: later ones have what is left of it.
    limit: Option<Duration>,
    pub(crate) attempts: u32,
    pub(crate) histories: Vec<History>,
}

/// The headers that ask for the rest.
pub(crate) struct Rest {
    pub(crate) range: String,
    pub(crate) condition: Option<(HeaderName, HeaderValue)>,
    pub(crate) from: ResumesFrom,
}

impl Sender {
    /// Creates a sender that has sent nothing.
    pub(crate) fn new(
        client: ClientWithMiddleware,
        request: Request,
        mut extensions: Extensions,
    ) -> Self {
        let link = Link::default();
        extensions.insert(link.clone());
        extensions.insert(WatchesItself);
        let mut this = Self {
            client,
            method: request.method().clone(),
            url: request.url().clone(),
            request: None,
            extensions,
            link,
            started: Instant::now(),
            limit: None,
            attempts: 0,
            histories: vec![],
        };
        this.replace(request);
        this
    }

    /// Sends this request from now on.
    pub(crate) fn replace(&mut self, mut request: Request) {
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(identity);
        (self.method, self.url) = (request.method().clone(), request.url().clone());
        self.request = Some(request);
    }

    /// Sends no request to these endpoints any more, while there are others.
    pub(crate) fn avoid(&mut self, endpoints: Vec<Url>) {
        self.extensions.insert(Avoids(endpoints));
    }

    /// Sends the request, with a range if the rest is asked for.
    pub(crate) async fn send(&mut self, rest: Option<&Rest>) -> Result<Response, HttpRequestError> {
        let (request, extensions) = self.prepare(rest);
        let mut builder = RequestBuilder::from_parts(self.client.clone(), request);
        *builder.extensions() = extensions;
        let result = builder.send_resilient().await;
        let history = match &result {
            Ok(response) => response.history().cloned(),
            Err(error) => Some(error.history().clone()),
        };
        if self.attempts == 0 {
            self.limit = self.context().max_total_time();
        }
        let attempts = history.as_ref().map_or(1, History::total).max(1);
        self.attempts = self.attempts.saturating_add(attempts);
        if let Some(history) = history {
            if self.histories.len() == MOST_HISTORIES {
                self.histories.remove(0);
            }
            self.histories.push(history);
        }
        result
    }

    fn prepare(&mut self, rest: Option<&Rest>) -> (Request, Extensions) {
        let copy = self.request.as_ref().and_then(Request::try_clone);
        let mut request = copy
            .or_else(|| self.request.take())
            .unwrap_or_else(|| Request::new(Method::GET, self.url.clone()));
        let mut extensions = self.extensions.clone();
        if let Some(Rest { range, condition, from }) = rest {
            extensions.insert(from.clone());
            let headers = request.headers_mut();
            for name in [header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                headers.remove(name);
            }
            if let Ok(range) = HeaderValue::from_str(range) {
                headers.insert(header::RANGE, range);
            }
            headers.extend(condition.clone());
        }
        if self.attempts > 0 {
            // A log of the caller's own would lose the first request.
            extensions.insert(AttemptLog::new());
            extensions.insert(ResendCount::of(self.attempts));
        }
        // A body that is read within its attempt is lost when it breaks off.
        let rules = extensions.get_or_insert_default::<RetryOverride>().clone().without_read_body();
        extensions.insert(match self.left(Instant::now()) {
            Some(left) => rules.limited_to(left.max(Duration::from_nanos(1))),
            None => rules,
        });
        (request, extensions)
    }

    /// Returns the time left of `max_total_time`; `None` without a limit.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.limit?.saturating_sub(now.saturating_duration_since(self.started)))
    }

    /// Returns whether the request was sent and cannot be sent again.
    pub(crate) fn is_spent(&self) -> bool {
        self.request.is_none()
    }

    /// Returns whether the request may be sent again, though it was processed.
    pub(crate) fn may_repeat(&self) -> bool {
        self.request.as_ref().is_some_and(|it| self.context().may_repeat(it))
    }

    /// Returns what the middleware knows of the last request.
    pub(crate) fn context(&self) -> Context {
        self.link.context()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the method and the URL of its requests.
    pub(crate) fn asked(&self) -> (&Method, &Url) {
        (&self.method, &self.url)
    }
}
