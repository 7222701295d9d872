//! The ends of a request: rejected, refused, given up, finished.

use http::Extensions;
use reqwest::{Request, Response};

use crate::common::fault::ConfigError;
use crate::error::{Cause, HttpRequestError, Inner};
use crate::execution::attempt::{AttemptResult, Chain, Rejection};
use crate::execution::body;
use crate::execution::original::Original;
use crate::execution::recorder::Standing;
use crate::execution::run::Execution;
use crate::observe::history::History;
use crate::outcome::{Delivery, Failure, FailureKind, Outcome};
use crate::retry::decision::StopReason;

impl Execution<'_> {
    /// Ends a request whose next attempt is not sent, with the result of the one before if there
    /// was one.
    pub(super) fn reject<C: Chain>(
        &mut self,
        original: &mut Original<'_>,
        last: Option<Box<AttemptResult<C::Error>>>,
        rejection: Rejection,
    ) -> Result<Response, C::Error> {
        let (stop, by_fleet) = (rejection.stop(), rejection.is_of_fleet());
        let unsent = AttemptResult::unsent(rejection.kind, rejection.error);
        let outcome = self.outcome(original, unsent.view::<C>());
        let now = self.standing();
        self.recorder.rejected(&outcome, (stop, by_fleet), now);
        self.give_up::<C>(original, last.map_or(unsent, |it| *it), stop)
    }

    /// Ends a request whose settings are invalid: nothing is sent.
    pub(crate) fn refuse<C: Chain>(
        &mut self,
        original: &mut Original<'_>,
        faults: ConfigError,
    ) -> Result<Response, C::Error> {
        let unsent = AttemptResult::unsent(FailureKind::Builder, faults.into());
        self.give_up::<C>(original, unsent, StopReason::Final)
    }

    /// Ends a request with the result of its last attempt, though a retry had been decided.
    pub(super) fn give_up<C: Chain>(
        &mut self,
        original: &mut Original<'_>,
        last: AttemptResult<C::Error>,
        stop: StopReason,
    ) -> Result<Response, C::Error> {
        let now = self.standing();
        self.recorder.give_up(stop, now);
        let outcome = self.outcome(original, last.view::<C>());
        self.notify_end(original.request, &outcome, stop, now);
        self.finish::<C>(original, last, stop)
    }

    /// Notifies that the request ended. If a budget refused the retry, notifies of that first, with the
    /// URL the retry would have gone to.
    pub(super) fn notify_end(
        &self,
        request: &Request,
        outcome: &Outcome<'_>,
        stop: StopReason,
        now: Standing,
    ) {
        if stop == StopReason::Budget && self.recorder.is_observed() {
            let other = self.planned_elsewhere(request);
            let (url, tokens) = match &other {
                Some((url, parts)) => (url, parts.budget().map(|it| it.balance(self.now))),
                None => (outcome.url, now.tokens),
            };
            if let Some(tokens) = tokens {
                self.recorder.budget_refused(outcome.method, url, now.attempts, tokens);
            }
        }
        self.recorder.ended(outcome, stop, now);
    }

    /// Returns what the caller gets.
    pub(super) fn finish<C: Chain>(
        &mut self,
        original: &mut Original<'_>,
        result: AttemptResult<C::Error>,
        stop: StopReason,
    ) -> Result<Response, C::Error> {
        original.end(stop, self.retry.attempts());
        let result = match self.own_error.take() {
            Some(error) => {
                let failure = Failure::local(FailureKind::Other, Delivery::Responded);
                AttemptResult::local(failure, error)
            }
            None => result,
        };
        match result {
            AttemptResult::Response { response, body, .. } => {
                Ok(self.attach(response, body.is_some(), original.extensions()))
            }
            AttemptResult::Failed { error, .. } => Err(error),
            AttemptResult::Local { failure: Failure { kind, .. }, error: source, .. } => {
                let Standing { attempts, elapsed, .. } = self.standing();
                // The caller knows the URL it asked for, and not that of an endpoint.
                let asked = self.route.as_ref().map(|it| &it.of.url);
                Err(C::local(HttpRequestError::new(Inner {
                    method: Some(original.request.method().clone()),
                    url: Some(asked.unwrap_or_else(|| original.request.url()).clone()),
                    stop,
                    attempts,
                    elapsed,
                    history: self.recorder.take_history().map_or_else(History::default, |it| *it),
                    log: self.recorder.log.clone(),
                    redact_path: self.policy.redact_path.clone(),
                    cause: Cause::Failure(kind, source),
                })))
            }
        }
    }

    /// Attaches limits, history and redaction to a response.
    fn attach(
        &mut self,
        mut response: Response,
        is_read: bool,
        extensions: &Extensions,
    ) -> Response {
        if !is_read {
            response = self.client.guarded(self.policy, response, extensions);
        }
        let limit = self.policy.max_total_time.filter(|_| !is_read);
        if let (Some(at), Some(limit)) = (self.retry.deadline(), limit) {
            response = body::until(response, at, limit);
        }
        if let Some(permit) = self.admission.permit_of_body().filter(|_| !is_read) {
            response = body::holding(response, permit);
        }
        if let Some(history) = self.recorder.take_history().filter(|it| it.total() > 0) {
            response.extensions_mut().insert(*history);
        }
        self.name_endpoint(&mut response);
        if let Some(redact_path) = &self.policy.redact_path {
            response.extensions_mut().insert(redact_path.clone());
        }
        response
    }
}
