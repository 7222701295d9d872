//! The requests of one download: the first, and those for the rest after each break.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Body, Request, Response, Url};
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};

use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind, Inner};
use crate::client::download::link::{Context, GoingOn, Link};
use crate::client::download::patience::{Next, Patience};
use crate::client::download::representation::{
    Asked, Head, NotResumable, Representation, Unexpected,
};
use crate::client::download::resumed::Reply;
use crate::client::download::stall::Stall;
use crate::client::middleware::ResendCount;
use crate::client::request::RequestBuilderExt;
use crate::common::clock::Instant;
use crate::config::overrides::RetryOverride;
use crate::error::{BoxError, HttpRequestError};
use crate::execution::body::BoxFuture;
use crate::observe::history::{AttemptLog, History, ResponseExt};
use crate::outcome::{FailureKind, transport_error};
use crate::retry::decision::StopReason;

/// The number of histories that are kept.
const MOST_HISTORIES: usize = 64;

/// A hook that builds another request for the same resource.
pub(crate) type Refresh =
    Arc<dyn Fn(ResumePoint) -> BoxFuture<'static, Result<Request, BoxError>> + Send + Sync>;

/// The place where a download needs another URL; see
/// [`refresh`](crate::DownloadBuilder::refresh).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResumePoint {
    /// The number of bytes received.
    pub offset: u64,
    /// The status by which the server refused the old URL.
    pub status: StatusCode,
    /// The `ETag` or the `Last-Modified` of what was received.
    pub validator: Option<HeaderValue>,
}

/// The requests of a download, and what is known of its resource.
pub(crate) struct Session {
    client: ClientWithMiddleware,
    /// `None` once a request that cannot be copied was sent.
    request: Option<Request>,
    url: Url,
    extensions: Extensions,
    link: Link,
    asked: Asked,
    refresh: Option<Refresh>,
    max_retries: Option<u32>,
    /// `true` if the receiver can start over.
    restartable: bool,
    started: Instant,
    /// The limit of `max_total_time`, as of the first request: later ones have what is left of it.
    limit: Option<Duration>,
    patience: Patience,
    pub(crate) representation: Representation,
    pub(crate) received: u64,
    pub(crate) counts: Counts,
    histories: Vec<History>,
}

/// The counts of a download.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) resumes: u32,
    pub(crate) restarts: u32,
    pub(crate) attempts: u32,
    pub(crate) repeated: u64,
}

/// The parts of a new session.
pub(crate) struct Parts {
    pub(crate) client: ClientWithMiddleware,
    pub(crate) request: Request,
    pub(crate) extensions: Extensions,
    pub(crate) asked: Asked,
    pub(crate) refresh: Option<Refresh>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) restartable: bool,
}

/// The reason why a body ended before its time.
pub(crate) enum Broken {
    /// The connection failed.
    Error(BoxError),
    /// The limits of waiting were exceeded.
    Stall(Stall),
    /// The body ended early, without an error.
    Short,
    /// The server sent less than was asked for, as it had announced.
    Segment,
    /// An earlier process had begun the download.
    Continued,
    /// A request for the rest failed.
    Request(HttpRequestError),
    /// A request for the rest brought nothing that can be used.
    Unusable,
}

/// The response to go on with.
pub(crate) struct Recovered {
    pub(crate) response: Option<Response>,
    pub(crate) skip: u64,
    pub(crate) take: Option<u64>,
    /// `true` if it begins at zero again.
    pub(crate) restarted: bool,
}

impl Session {
    /// Creates a session that has sent nothing.
    pub(crate) fn new(parts: Parts) -> Box<Self> {
        let Parts { client, mut request, mut extensions, asked, refresh, max_retries, restartable } =
            parts;
        let link = Link::default();
        extensions.insert(link.clone());
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(identity);
        Box::new(Self {
            client,
            url: request.url().clone(),
            request: Some(request),
            extensions,
            link,
            asked,
            refresh,
            max_retries,
            restartable,
            started: Instant::now(),
            limit: None,
            patience: Patience::new(0),
            representation: Representation::unknown(),
            received: 0,
            counts: Counts::default(),
            histories: vec![],
        })
    }

    /// Sends the first request.
    pub(crate) async fn start(&mut self) -> Result<Response, DownloadError> {
        let response = match self.send(None).await {
            Ok(response) => response,
            Err(error) => return Err(self.request_failed(error)),
        };
        self.read_first(&response)?;
        Ok(response)
    }

    /// Goes on with `received` bytes of an earlier process.
    pub(crate) fn take_up(&mut self, representation: Representation, received: u64) {
        (self.representation, self.received) = (representation, received);
    }

    /// Records bytes that were not received before.
    pub(crate) fn gain(&mut self, bytes: u64) {
        self.received += bytes;
        self.patience.gain(bytes);
    }

    /// Goes on after a break, and gives the session back.
    pub(crate) async fn recover(
        mut self: Box<Self>,
        broken: Broken,
    ) -> (Box<Self>, Result<Recovered, DownloadError>) {
        let result = self.go_on(broken).await;
        (self, result)
    }

    async fn go_on(&mut self, mut broken: Broken) -> Result<Recovered, DownloadError> {
        if broken.concerns_host() {
            self.context().report_break(Instant::now());
        }
        let mut restarts = false;
        loop {
            restarts |= self.representation.validator.is_err();
            if let (true, Err(why)) =
                (restarts && !self.restartable, &self.representation.validator)
            {
                return Err(self.cannot_resume(*why, broken));
            }
            if let Err(kind) = self.wait(&broken, restarts).await {
                return Err(self.error(kind, broken.cause()));
            }
            let step = if restarts { self.start_over().await } else { self.resume().await? };
            match step {
                Step::Done(recovered) => return Ok(recovered),
                Step::Failed(kind, cause) => return Err(self.error(kind, cause)),
                Step::Again(why) => broken = why,
                Step::Restart(kind) => {
                    if !self.restartable {
                        return Err(self.error(kind, broken.cause()));
                    }
                    (restarts, broken) = (true, Broken::Unusable);
                }
            }
        }
    }

    /// Asks for the rest.
    async fn resume(&mut self) -> Result<Step, DownloadError> {
        let (result, status) = self.ask_for_rest().await;
        let reply = match &result {
            Ok(response) => self.reply(response),
            Err(error) => error.response().map_or(Reply::Other, |it| self.reply(it)),
        };
        Ok(match (reply, result) {
            (Reply::Rest { skip, take, complete }, Ok(response)) => {
                self.learn(complete);
                self.counts.resumes += 1;
                Step::Done(Recovered { response: Some(response), skip, take, restarted: false })
            }
            (Reply::Complete, _) => {
                Step::Done(Recovered { response: None, skip: 0, take: Some(0), restarted: false })
            }
            (Reply::Whole, Ok(response)) if self.restartable => self.accept(response),
            (Reply::Whole | Reply::Changed, _) => Step::Restart(DownloadErrorKind::Changed),
            (Reply::NeedsNewUrl, Err(error)) if !error.is_rate_limited() => {
                self.refresh(error, status).await?
            }
            (Reply::Other | Reply::NeedsNewUrl, Err(error)) => self.again(error),
            _ => Step::Restart(DownloadErrorKind::NotResumable(NotResumable::InvalidRange)),
        })
    }

    async fn ask_for_rest(&mut self) -> (Result<Response, HttpRequestError>, StatusCode) {
        let range = self.representation.range_from(self.received);
        let result = self.send(Some(range)).await;
        let status = match &result {
            Ok(response) => Some(response.status()),
            Err(error) => error.status(),
        };
        (result, status.unwrap_or_default())
    }

    /// Sends the first request again, to start over.
    async fn start_over(&mut self) -> Step {
        match self.send(None).await {
            Ok(response) => self.accept(response),
            Err(error) => self.again(error),
        }
    }

    /// Starts over with this response, if a restart is left.
    fn accept(&mut self, response: Response) -> Step {
        if !self.patience.restart() || !self.context().withdraw(Instant::now()) {
            return Step::Failed(DownloadErrorKind::Exhausted, Cause::None);
        }
        match Representation::read(&self.asked, &head_of(&response)) {
            Ok(representation) => self.representation = representation,
            Err(unexpected) => return Step::Failed(kind_of(unexpected), Cause::None),
        }
        self.counts.restarts += 1;
        self.counts.repeated = self.counts.repeated.saturating_add(self.received);
        self.received = 0;
        let take = self.representation.length;
        Step::Done(Recovered { response: Some(response), skip: 0, take, restarted: true })
    }

    /// Returns the step after a request that failed.
    fn again(&self, error: HttpRequestError) -> Step {
        let is_final = match error.stop_reason() {
            StopReason::Deadline => return failed(DownloadErrorKind::Deadline, error),
            // Without `Resilient` nothing has judged it yet.
            StopReason::Final if self.context().is_empty() => !is_transient(&error),
            StopReason::Final => !error.is_rate_limited(),
            _ => false,
        };
        if is_final {
            failed(DownloadErrorKind::Request, error)
        } else {
            Step::Again(Broken::Request(error))
        }
    }

    /// Has the caller's hook build another request.
    async fn refresh(
        &mut self,
        error: HttpRequestError,
        status: StatusCode,
    ) -> Result<Step, DownloadError> {
        let kind = DownloadErrorKind::NeedsNewUrl(status);
        let Some(refresh) = self.refresh.clone() else { return Ok(failed(kind, error)) };
        let point = ResumePoint { offset: self.received, status, validator: self.validator() };
        let mut request = match refresh(point).await {
            Ok(request) => request,
            Err(error) => return Err(self.error(kind, Cause::Other(error))),
        };
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(identity);
        self.url = request.url().clone();
        self.request = Some(request);
        Ok(Step::Again(Broken::Request(error)))
    }

    /// Waits as long as patience says after a break.
    async fn wait(&mut self, broken: &Broken, restarts: bool) -> Result<(), DownloadErrorKind> {
        let context = self.context();
        self.patience.set_max(self.max_retries.unwrap_or_else(|| context.max_retries()));
        let now = Instant::now();
        let left = self.left(now);
        if left.is_some_and(|it| it.is_zero()) {
            return Err(DownloadErrorKind::Deadline);
        }
        if matches!(broken, Broken::Continued | Broken::Unusable) {
            return Ok(());
        }
        let wait = match self.patience.after_break(self.representation.length) {
            Next::AtOnce => Duration::ZERO,
            Next::After { retry } => context.backoff(retry, self.patience.previous),
            Next::GiveUp if matches!(broken, Broken::Stall(_)) => {
                return Err(DownloadErrorKind::Stalled);
            }
            Next::GiveUp => return Err(DownloadErrorKind::Exhausted),
        };
        self.patience.previous = wait;
        let wait = match broken.hint() {
            Some(hint) if hint > context.max_wait_time() => {
                return Err(DownloadErrorKind::Exhausted);
            }
            hint => wait.max(hint.unwrap_or_default()),
        };
        if left.is_some_and(|it| wait >= it) {
            return Err(DownloadErrorKind::Deadline);
        }
        let (received, total) = (self.received, self.representation.length);
        context.notify_resuming(&self.url, GoingOn { received, total, restarts, wait });
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Returns the time left of `max_total_time`; `None` without a limit.
    fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.limit?.saturating_sub(now.saturating_duration_since(self.started)))
    }

    /// Sends the request, with a range if the rest is asked for.
    async fn send(&mut self, range: Option<String>) -> Result<Response, HttpRequestError> {
        let (request, extensions) = self.prepare(range);
        let mut builder = RequestBuilder::from_parts(self.client.clone(), request);
        *builder.extensions() = extensions;
        let result = builder.send_resilient().await;
        let history = match &result {
            Ok(response) => response.history().cloned(),
            Err(error) => Some(error.history().clone()),
        };
        if self.counts.attempts == 0 {
            self.limit = self.context().max_total_time();
        }
        let attempts = history.as_ref().map_or(1, History::total).max(1);
        self.counts.attempts = self.counts.attempts.saturating_add(attempts);
        if let Some(history) = history {
            if self.histories.len() == MOST_HISTORIES {
                self.histories.remove(0);
            }
            self.histories.push(history);
        }
        result
    }

    fn prepare(&mut self, range: Option<String>) -> (Request, Extensions) {
        let copy = self.request.as_ref().and_then(Request::try_clone);
        let mut request = copy
            .or_else(|| self.request.take())
            .unwrap_or_else(|| Request::new(http::Method::GET, self.url.clone()));
        let mut extensions = self.extensions.clone();
        if let Some(range) = range {
            let headers = request.headers_mut();
            for name in [header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                headers.remove(name);
            }
            if let Ok(range) = HeaderValue::from_str(&range) {
                headers.insert(header::RANGE, range);
            }
            let validator = self.representation.validator.as_ref().ok();
            headers.extend(validator.and_then(|it| it.condition()));
        }
        if self.counts.attempts > 0 {
            // A log of the caller's own would lose the first request.
            extensions.insert(AttemptLog::new());
            extensions.insert(ResendCount::of(self.counts.attempts));
        }
        // A body that is read within its attempt is lost when it breaks off.
        let rules = extensions.get_or_insert_default::<RetryOverride>().clone().without_read_body();
        extensions.insert(match self.left(Instant::now()) {
            Some(left) => rules.max_total_time(left.max(Duration::from_nanos(1))),
            None => rules,
        });
        (request, extensions)
    }

    fn reply(&self, response: &Response) -> Reply {
        Reply::read(&self.representation, self.received, &head_of(response))
    }

    fn read_first(&mut self, response: &Response) -> Result<(), DownloadError> {
        match Representation::read(&self.asked, &head_of(response)) {
            Ok(representation) => self.representation = representation,
            Err(unexpected) => return Err(self.error(kind_of(unexpected), Cause::None)),
        }
        if self.request.is_none() && self.representation.validator.is_ok() {
            self.representation.validator = Err(NotResumable::Body);
        }
        Ok(())
    }

    /// Takes over the length of the whole, if it was not known before.
    fn learn(&mut self, complete: Option<u64>) {
        let known = &mut self.representation;
        known.complete = known.complete.or(complete);
        if !known.is_bounded && known.length.is_none() {
            known.length = known.complete.map(|it| it.saturating_sub(known.start));
        }
    }

    fn context(&self) -> Context {
        self.link.context()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the value of the resource's validator.
    pub(crate) fn validator(&self) -> Option<HeaderValue> {
        self.representation.validator.as_ref().ok()?.value().cloned()
    }

    /// Returns the histories of the requests.
    pub(crate) fn histories(&self) -> &[History] {
        &self.histories
    }

    /// Builds the error of this download at its present offset.
    pub(crate) fn error(&self, kind: DownloadErrorKind, cause: Cause) -> DownloadError {
        DownloadError::new(Inner {
            kind,
            url: Some(self.url.clone()),
            redact_path: self.context().redact_path(),
            offset: self.received,
            validator: self.validator(),
            is_resumable: self.representation.validator.is_ok(),
            resumes: self.counts.resumes,
            histories: self.histories.clone(),
            cause,
        })
    }

    fn request_failed(&self, error: HttpRequestError) -> DownloadError {
        let kind = match error.stop_reason() {
            StopReason::Deadline => DownloadErrorKind::Deadline,
            _ => DownloadErrorKind::Request,
        };
        self.error(kind, Cause::Request(error))
    }

    fn cannot_resume(&self, why: NotResumable, broken: Broken) -> DownloadError {
        let kind = match broken {
            Broken::Stall(_) => DownloadErrorKind::Stalled,
            _ => DownloadErrorKind::NotResumable(why),
        };
        self.error(kind, broken.cause())
    }
}

/// The next step after a response to a request for the rest.
enum Step {
    Done(Recovered),
    Again(Broken),
    /// Starts over, or fails like this where that is not possible.
    Restart(DownloadErrorKind),
    Failed(DownloadErrorKind, Cause),
}

fn failed(kind: DownloadErrorKind, error: HttpRequestError) -> Step {
    Step::Failed(kind, Cause::Request(error))
}

impl Broken {
    /// Returns the cause in an error.
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Error(error) => Cause::Other(error),
            Self::Stall(stall) => {
                Cause::Other(io::Error::new(io::ErrorKind::TimedOut, stall.to_string()).into())
            }
            Self::Short => Cause::Other(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Self::Request(error) => Cause::Request(error),
            Self::Segment | Self::Continued | Self::Unusable => Cause::None,
        }
    }

    /// Returns whether it is a failure of the host. A limit of the caller's own, such as the timeout
    /// of the request, says nothing of it.
    fn concerns_host(&self) -> bool {
        match self {
            Self::Error(error) => transport_error::kind_of(error.as_ref()) != FailureKind::Timeout,
            Self::Stall(_) | Self::Short => true,
            Self::Segment | Self::Continued | Self::Request(_) | Self::Unusable => false,
        }
    }

    /// Returns the time until another request makes sense.
    fn hint(&self) -> Option<Duration> {
        match self {
            Self::Request(error) => error.retry_in(),
            _ => None,
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "no byte came for {time:?} (stall_timeout)"),
            Self::Slow(speed, period) => {
                write!(f, "fewer than {speed} bytes a second came for {period:?} (min_speed)")
            }
        }
    }
}

/// Returns whether a failure passes, where only its kind is known.
fn is_transient(error: &HttpRequestError) -> bool {
    match error.kind() {
        crate::error::ErrorKind::Status(status) => {
            status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
        }
        crate::error::ErrorKind::Failure(kind) => matches!(
            kind,
            FailureKind::Connect
                | FailureKind::Disconnect
                | FailureKind::Protocol
                | FailureKind::Refused
                | FailureKind::Throttled
                | FailureKind::Timeout
        ),
    }
}

fn kind_of(unexpected: Unexpected) -> DownloadErrorKind {
    match unexpected {
        Unexpected::Status(status) => DownloadErrorKind::UnexpectedStatus(status),
        Unexpected::Length { expected, announced } => {
            DownloadErrorKind::Length { expected, received: announced }
        }
    }
}

/// Returns the head of a response. The length that it announces counts: that of the body, where
/// both are known, may be the shorter one of a body that was cut.
fn head_of(response: &Response) -> Head<'_> {
    let headers: &HeaderMap = response.headers();
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let length = announced.or_else(|| response.content_length());
    Head { status: response.status(), version: response.version(), headers, length }
}

/// Returns the body of a response.
pub(crate) fn body_of(response: Response) -> Body {
    response.into()
}
