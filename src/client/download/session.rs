//! The requests of one download: the first, and those for the rest after each break.

use std::time::Duration;

use http::{Extensions, HeaderValue, StatusCode};
use reqwest::{Request, Response, Url};
use reqwest_middleware::ClientWithMiddleware;

use crate::client::download::broken::{self, Broken};
use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind};
use crate::client::download::link::{Context, GoingOn};
use crate::client::download::patience::{Next, Patience};
use crate::client::download::refresh::{Refresh, ResumePoint};
use crate::client::download::representation::{Asked, Head, NotResumable, Representation};
use crate::client::download::resumed::Reply;
use crate::client::download::sender::{Rest, Sender};
use crate::client::download::validator::Validator;
use crate::common::clock::Instant;
use crate::error::{BoxError, HttpRequestError};
use crate::execution::body::stall::StallLimits;
use crate::execution::route::ResumesFrom;
use crate::observe::history::ResponseExt;
use crate::retry::decision::StopReason;

/// The requests of a download, and what is known of its resource.
pub(crate) struct Session {
    pub(super) sender: Sender,
    pub(crate) asked: Asked,
    refresh: Option<Refresh>,
    max_retries: Option<u32>,
    /// `true` if the receiver can start over.
    restartable: bool,
    /// `true` if the bytes are verified in the end.
    is_verified: bool,
    /// The endpoint that gave the bytes so far, of those that mirrors name; `None` without them, and
    /// of bytes of an earlier process.
    endpoint: Option<Url>,
    /// The endpoints whose bytes were wrong.
    avoided: Vec<Url>,
    patience: Patience,
    pub(crate) representation: Representation,
    pub(crate) received: u64,
    pub(crate) counts: Counts,
}

/// The counts of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) resumes: u32,
    pub(crate) restarts: u32,
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
    pub(crate) is_verified: bool,
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
        let Parts { client, request, extensions, asked, refresh, .. } = parts;
        let Parts { max_retries, restartable, is_verified, .. } = parts;
        Box::new(Self {
            sender: Sender::new(client, request, extensions),
            asked,
            refresh,
            max_retries,
            restartable,
            is_verified,
            endpoint: None,
            avoided: vec![],
            patience: Patience::new(0),
            representation: Representation::unknown(),
            received: 0,
            counts: Counts::default(),
        })
    }

    /// Sends the first request.
    pub(crate) async fn start(&mut self) -> Result<Response, DownloadError> {
        let response = match self.sender.send(None).await {
            Ok(response) => response,
            Err(error) => return Err(self.request_failed(error)),
        };
        self.endpoint = response.endpoint().cloned();
        self.read_first(&response)?;
        Ok(response)
    }

    /// Goes on with `received` bytes of an earlier process.
    pub(crate) fn take_up(&mut self, representation: Representation, received: u64) {
        (self.representation, self.received) = (representation, received);
    }

    /// Returns the limits of waiting for bytes, by the settings of the client.
    pub(crate) fn stall_limits(&self) -> StallLimits {
        self.context().stall_limits()
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

    /// Returns whether the bytes, which are wrong, can be had from another endpoint.
    pub(crate) fn can_go_elsewhere(&self) -> bool {
        let endpoint = self.endpoint.as_ref();
        self.may_start_over() && endpoint.is_some_and(|it| !self.avoided.contains(it))
    }

    /// Starts over at another endpoint, as the bytes of this one are wrong, which counts as its failure;
    /// the `error` is that of the bytes. Gives the session back.
    pub(crate) async fn go_elsewhere(
        mut self: Box<Self>,
        error: BoxError,
    ) -> (Box<Self>, Result<Recovered, DownloadError>) {
        self.context().report_break(self.endpoint.as_ref(), Instant::now());
        self.avoided.extend(self.endpoint.clone());
        self.sender.avoid(self.avoided.clone());
        self.patience.set_max(self.max_retries.unwrap_or_else(|| self.context().max_retries()));
        let step = self.start_over().await;
        let result = match step {
            Step::Done(recovered) if self.can_go_elsewhere() => Ok(recovered),
            _ => Err(self.error(DownloadErrorKind::Verification, Cause::Other(error))),
        };
        (self, result)
    }

    async fn go_on(&mut self, mut broken: Broken) -> Result<Recovered, DownloadError> {
        if broken.concerns_host() {
            self.context().report_break(self.endpoint.as_ref(), Instant::now());
        }
        let mut restarts = false;
        loop {
            restarts |= self.representation.validator.is_err();
            if let (true, Err(why)) =
                (restarts && !self.may_start_over(), &self.representation.validator)
            {
                return Err(self.cannot_resume(*why, broken));
            }
            if let Err(kind) = self.wait(&mut broken, restarts).await {
                return Err(self.error(kind, broken.cause()));
            }
            let step = if restarts { self.start_over().await } else { self.resume().await? };
            match step {
                Step::Done(recovered) => return Ok(recovered),
                Step::Failed(kind, cause) => return Err(self.error(kind, cause)),
                Step::Again(why) => broken = why,
                Step::Restart(kind) => {
                    if !self.may_start_over() {
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
            // The validators of one server say nothing of the bytes of another.
            Ok(response) if self.has_moved(response) => match response.status() {
                StatusCode::OK => Reply::Whole,
                _ => Reply::Invalid,
            },
            Ok(response) => self.reply(response),
            Err(error) => error.response().map_or(Reply::Other, |it| self.reply(it)),
        };
        Ok(match (reply, result) {
            (Reply::Rest { skip, take, complete }, Ok(response)) => {
                self.learn(complete);
                self.counts.resumes += 1;
                self.endpoint = response.endpoint().cloned().or_else(|| self.endpoint.take());
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

    /// Returns whether the rest may come from another endpoint: by an equal strong tag, and if the whole
    /// is verified in the end.
    fn may_move(&self) -> bool {
        self.is_verified && matches!(self.representation.validator, Ok(Validator::ETag(_)))
    }

    /// Returns whether a response is of another endpoint, whose bytes may be others.
    fn has_moved(&self, response: &Response) -> bool {
        let endpoint = response.endpoint();
        endpoint.is_some() && endpoint != self.endpoint.as_ref() && !self.may_move()
    }

    async fn ask_for_rest(&mut self) -> (Result<Response, HttpRequestError>, StatusCode) {
        let range = self.representation.range_from(self.received);
        let validator = self.representation.validator.as_ref().ok();
        let condition = validator.and_then(|it| it.condition());
        let (endpoint, may_move) = (self.endpoint.clone(), self.may_move());
        let rest = Rest { range, condition, from: ResumesFrom { endpoint, may_move } };
        let result = self.sender.send(Some(&rest)).await;
        let status = match &result {
            Ok(response) => Some(response.status()),
            Err(error) => error.status(),
        };
        (result, status.unwrap_or_default())
    }

    /// Returns whether the first request may be sent again, to start over.
    fn may_start_over(&self) -> bool {
        self.restartable && self.sender.may_repeat()
    }

    /// Sends the first request again, to start over.
    async fn start_over(&mut self) -> Step {
        if !self.patience.may_restart() {
            return Step::Failed(DownloadErrorKind::Exhausted, Cause::None);
        }
        match self.sender.send(None).await {
            Ok(response) => self.accept(response),
            Err(error) => self.again(error),
        }
    }

    /// Starts over with this response, if a restart is left.
    fn accept(&mut self, response: Response) -> Step {
        if !self.patience.restart() || !self.context().withdraw(Instant::now()) {
            return Step::Failed(DownloadErrorKind::Exhausted, Cause::None);
        }
        match Representation::read(&self.asked, &Head::of(&response)) {
            Ok(representation) => self.representation = representation,
            Err(unexpected) => return Step::Failed(unexpected.into(), Cause::None),
        }
        self.endpoint = response.endpoint().cloned();
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
            StopReason::Final if self.context().is_empty() => !broken::is_transient(&error),
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
        mut error: HttpRequestError,
        status: StatusCode,
    ) -> Result<Step, DownloadError> {
        let kind = DownloadErrorKind::NeedsNewUrl(status);
        let Some(refresh) = self.refresh.clone() else { return Ok(failed(kind, error)) };
        error.release_body();
        let point = ResumePoint { offset: self.received, status, validator: self.validator() };
        match refresh(point).await {
            Ok(request) => self.sender.replace(request),
            Err(error) => return Err(self.error(kind, Cause::Other(error))),
        }
        Ok(Step::Again(Broken::Request(error)))
    }

    /// Waits as long as patience says after a break. The body of a response that failed is gone then.
    async fn wait(&mut self, broken: &mut Broken, restarts: bool) -> Result<(), DownloadErrorKind> {
        let context = self.context();
        self.patience.set_max(self.max_retries.unwrap_or_else(|| context.max_retries()));
        let now = Instant::now();
        let left = self.sender.left(now);
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
        let going_on = GoingOn { received, total, restarts, wait };
        context.notify_resuming(self.sender.asked(), going_on);
        broken.release();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn reply(&self, response: &Response) -> Reply {
        Reply::read(&self.representation, self.received, &Head::of(response))
    }

    fn read_first(&mut self, response: &Response) -> Result<(), DownloadError> {
        match Representation::read(&self.asked, &Head::of(response)) {
            Ok(representation) => self.representation = representation,
            Err(unexpected) => return Err(self.error(unexpected.into(), Cause::None)),
        }
        if self.sender.is_spent() && self.representation.validator.is_ok() {
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

    pub(super) fn context(&self) -> Context {
        self.sender.context()
    }

    pub(crate) fn url(&self) -> &Url {
        self.sender.url()
    }

    /// Returns the value of the resource's validator.
    pub(crate) fn validator(&self) -> Option<HeaderValue> {
        self.representation.validator.as_ref().ok()?.value().cloned()
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
