//! The bytes of a download, over all its responses.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body as _;
use reqwest::{Body, Response};

use crate::client::download::broken::Broken;
use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind};
use crate::client::download::progress::{Meter, Progress};
use crate::client::download::session::{Recovered, Session};
use crate::common::clock::Instant;
use crate::error::BoxError;
use crate::execution::body::BoxFuture;
use crate::execution::body::stall::{StallLimits, StallTimer};
use crate::outcome::{classify, transport_error};

/// Checks the bytes of a download: a hash, as a rule. It sees each byte once and in order.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::Verifier;
///
/// /// A checksum of eight bits.
/// struct Checksum {
///     sum: u8,
///     expected: u8,
/// }
///
/// impl Verifier for Checksum {
///     fn restart(&mut self) {
///         self.sum = 0;
///     }
///
///     fn update(&mut self, bytes: &[u8]) {
///         self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
///     }
///
///     fn finish(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         if self.sum == self.expected { Ok(()) } else { Err("the checksum is wrong".into()) }
///     }
/// }
/// ```
pub trait Verifier: Send + 'static {
    /// Forgets all bytes: the download starts over.
    fn restart(&mut self);

    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// Returns whether the bytes are the expected ones.
    ///
    /// # Errors
    ///
    /// They are not: the download fails with
    /// [`Verification`](crate::DownloadErrorKind::Verification), and this error as its source.
    fn finish(&mut self) -> Result<(), BoxError>;
}

/// A verifier that is chosen at run time.
impl<V: Verifier + ?Sized> Verifier for Box<V> {
    fn restart(&mut self) {
        (**self).restart();
    }

    fn update(&mut self, bytes: &[u8]) {
        (**self).update(bytes);
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        (**self).finish()
    }
}

/// A function that is shown the progress.
pub(crate) type OnProgress = Box<dyn FnMut(&Progress) + Send>;

/// The limits and listeners of a transfer.
#[derive(Default)]
pub(crate) struct Watchers {
    pub(crate) limits: OwnLimits,
    pub(crate) max_length: Option<u64>,
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) verifier: Option<Box<dyn Verifier>>,
}

/// The limits that the download itself sets, in place of those of the client.
#[derive(Clone, Copy, Default)]
pub(crate) struct OwnLimits {
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) min_speed: Option<(u64, Duration)>,
}

impl OwnLimits {
    fn over(self, client: StallLimits) -> StallLimits {
        let timeout = self.timeout.unwrap_or(client.timeout);
        StallLimits { timeout, min_speed: self.min_speed.or(client.min_speed) }
    }
}

/// The next part of a download.
#[derive(Debug)]
pub(crate) enum Item {
    Bytes(Bytes),
    /// Those so far do not count: the download starts over.
    Restarted,
}

/// The bytes of a download.
pub(crate) struct Transfer {
    state: State,
    /// `None` while it recovers.
    session: Option<Box<Session>>,
    /// The bytes of this response to skip, and those to take after them.
    skip: u64,
    take: Option<u64>,
    stall: StallTimer,
    meter: Meter,
    watchers: Watchers,
}

enum State {
    Reading(Body),
    Recovering(BoxFuture<'static, (Box<Session>, Result<Recovered, DownloadError>)>),
    /// All bytes came; they are yet to be checked.
    Complete,
    Ended,
}

impl Transfer {
    /// Reads the response to the first request.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(crate) fn new(
        session: Box<Session>,
        response: Response,
        watchers: Watchers,
    ) -> Result<Self, DownloadError> {
        let take = session.representation.length;
        let mut this = Self::with(session, State::Reading(response.into()), watchers);
        this.take = take;
        this.check_length()?;
        Ok(this)
    }

    /// Goes on with a download that an earlier process began.
    pub(crate) fn take_up(session: Box<Session>, watchers: Watchers) -> Self {
        let mut this = Self::with(session, State::Ended, watchers);
        this.recover(Broken::Continued);
        this
    }

    fn with(session: Box<Session>, state: State, watchers: Watchers) -> Self {
        Self {
            state,
            skip: 0,
            take: None,
            stall: StallTimer::new(watchers.limits.over(session.stall_limits())),
            meter: Meter::new(session.received, Instant::now()),
            watchers,
            session: Some(session),
        }
    }

    /// Returns the session; `None` while it recovers.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// Waits for the next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Item, DownloadError>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Polls for the next part; `None` at the end.
    pub(crate) fn poll_item(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Item, DownloadError>>> {
        loop {
            let step = match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Complete => {
                    self.state = State::Ended;
                    match self.finish() {
                        Ok(()) => return Poll::Ready(None),
                        Err(error) => self.go_elsewhere(error),
                    }
                }
                State::Recovering(future) => {
                    let (session, result) = ready!(future.as_mut().poll(cx));
                    self.session = Some(session);
                    result.and_then(|it| self.begin(it))
                }
                State::Reading(body) => match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        let Ok(data) = frame.into_data() else { continue };
                        self.receive(data)
                    }
                    Poll::Ready(Some(Err(error))) => self.fail(error),
                    Poll::Ready(None) => {
                        self.end_of_body();
                        Ok(None)
                    }
                    Poll::Pending => {
                        let stall = ready!(self.stall.poll(cx));
                        self.recover(Broken::Stall(stall));
                        Ok(None)
                    }
                },
            };
            match step {
                Ok(None) => {}
                Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Err(error) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Begins to read another response.
    fn begin(&mut self, recovered: Recovered) -> Result<Option<Item>, DownloadError> {
        let Recovered { response, skip, take, restarted } = recovered;
        (self.skip, self.take) = (skip, take);
        if let Some(session) = &self.session {
            self.stall = StallTimer::new(self.watchers.limits.over(session.stall_limits()));
        }
        self.state = match response {
            Some(response) => State::Reading(response.into()),
            None => State::Complete,
        };
        if restarted {
            self.meter = Meter::new(0, Instant::now());
            self.watchers.verifier.iter_mut().for_each(|it| it.restart());
        }
        self.check_length()?;
        Ok(restarted.then_some(Item::Restarted))
    }

    /// Takes what is new of a chunk.
    fn receive(&mut self, mut data: Bytes) -> Result<Option<Item>, DownloadError> {
        let length = data.len() as u64;
        self.stall.received(data.len());
        let Some(session) = &mut self.session else { return Ok(None) };
        let skipped = self.skip.min(length);
        // Not more than the chunk has, which is a `usize`.
        data.advance(skipped as usize);
        self.skip -= skipped;
        session.counts.repeated = session.counts.repeated.saturating_add(skipped);
        let new = data.len() as u64;
        if let Some(take) = &mut self.take {
            if new > *take && session.representation.complete.is_none() {
                let expected = session.representation.length.unwrap_or_default();
                let received = session.received.saturating_add(new);
                return Err(self.error(DownloadErrorKind::Length { expected, received }));
            }
            data.truncate(usize::try_from(*take).unwrap_or(usize::MAX));
            *take -= data.len() as u64;
        }
        session.gain(data.len() as u64);
        if let Some(most) = self.watchers.max_length.filter(|it| session.received > *it) {
            return Err(self.error(DownloadErrorKind::TooLong { most }));
        }
        self.end_if_complete(false);
        if data.is_empty() {
            return Ok(None);
        }
        if let Some(verifier) = &mut self.watchers.verifier {
            verifier.update(&data);
        }
        self.report(false);
        Ok(Some(Item::Bytes(data)))
    }

    /// Ends the response whose last byte came: the download, or the part that the server sent. `is_over`
    /// is set at the end of its body.
    fn end_if_complete(&mut self, is_over: bool) {
        if self.take != Some(0) || self.skip > 0 {
            return;
        }
        let Some(session) = &self.session else { return };
        let length = session.representation.length;
        let is_unproved =
            session.asked.length.is_some() && session.representation.complete.is_none();
        // A part of a whole whose length is unknown may not be the last one.
        let is_whole = length.is_some_and(|it| session.received >= it);
        match (is_whole, &mut self.state) {
            (false, _) => self.recover(Broken::Segment),
            // Only the end of the body proves a length that the server has not named.
            (true, State::Reading(_)) if is_unproved && !is_over => {}
            (true, State::Reading(body)) => {
                // Lets the transport see the end, which frees the connection.
                let mut context = Context::from_waker(std::task::Waker::noop());
                let _ = Pin::new(body).poll_frame(&mut context);
                self.state = State::Complete;
            }
            _ => {}
        }
    }

    /// Ends a body that has no more frames: as it should, or early.
    fn end_of_body(&mut self) {
        match self.take {
            _ if self.skip > 0 => self.recover(Broken::Short),
            None => self.state = State::Complete,
            Some(0) => self.end_if_complete(true),
            Some(_) => self.recover(Broken::Short),
        }
    }

    /// Goes on after an error of the body, if that is a break of the connection.
    fn fail(&mut self, error: reqwest::Error) -> Result<Option<Item>, DownloadError> {
        if !is_break(&error) {
            return Err(self.error_by(DownloadErrorKind::Body, Cause::Other(error.into())));
        }
        self.recover(Broken::Error(error.into()));
        Ok(None)
    }

    fn recover(&mut self, broken: Broken) {
        self.state = match self.session.take() {
            Some(session) => State::Recovering(Box::pin(session.recover(broken))),
            None => State::Ended,
        };
    }

    /// Checks all bytes at the end.
    fn finish(&mut self) -> Result<(), BoxError> {
        self.report(true);
        self.watchers.verifier.as_mut().map_or(Ok(()), |it| it.finish())
    }

    /// Starts over at another endpoint if there is one, after bytes that are wrong.
    fn go_elsewhere(&mut self, error: BoxError) -> Result<Option<Item>, DownloadError> {
        match self.session.take() {
            Some(session) if session.can_go_elsewhere() => {
                self.state = State::Recovering(Box::pin(session.go_elsewhere(error)));
                Ok(None)
            }
            session => {
                self.session = session;
                Err(self.error_by(DownloadErrorKind::Verification, Cause::Other(error)))
            }
        }
    }

    fn check_length(&self) -> Result<(), DownloadError> {
        let length = self.session().and_then(|it| it.representation.length);
        match self.watchers.max_length {
            Some(most) if length > Some(most) => {
                Err(self.error(DownloadErrorKind::TooLong { most }))
            }
            _ => Ok(()),
        }
    }

    fn report(&mut self, is_end: bool) {
        let (Some(session), Some(on_progress)) = (&self.session, &mut self.watchers.on_progress)
        else {
            return;
        };
        let received = session.received;
        if let Some(speed) = self.meter.report(received, is_end, Instant::now()) {
            let total = session.representation.length;
            let (resumes, restarts) = (session.counts.resumes, session.counts.restarts);
            on_progress(&Progress { received, total, resumes, restarts, speed });
        }
    }

    fn error(&self, kind: DownloadErrorKind) -> DownloadError {
        self.error_by(kind, Cause::None)
    }

    /// Builds an error of this download.
    pub(crate) fn error_by(&self, kind: DownloadErrorKind, cause: Cause) -> DownloadError {
        match &self.session {
            Some(session) => session.error(kind, cause),
            None => DownloadError::unplaced(kind, cause),
        }
    }
}

/// Returns whether an error of a body says that the connection broke, rather than that the bytes
/// cannot be decoded.
fn is_break(error: &reqwest::Error) -> bool {
    classify::is_transient(transport_error::kind_of(error))
        || transport_error::sources(error).any(|it| it.is::<hyper::Error>())
}
