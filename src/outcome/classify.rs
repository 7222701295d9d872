//! The verdict on an outcome, and the requests that may be sent twice.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};

use crate::breaker::Health;
use crate::common::fault::BoxError;
use crate::outcome::hint::{Advice, Hint, RetryDirective};
use crate::outcome::idempotency;
use crate::outcome::statuses::Statuses;
use crate::outcome::verdict::RetryVerdict;
use crate::outcome::{Delivery, FailureKind, Outcome, OutcomeResult};

pub(crate) type Predicate = Arc<dyn Fn(&Outcome<'_>) -> RetryVerdict + Send + Sync>;

/// An outcome, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// Another attempt may end better.
    Transient,
    /// No other attempt would end better.
    Final,
}

/// Classifies an outcome by the rules. A server that asks for a retry of its error gets it.
pub(crate) fn verdict(outcome: &Outcome<'_>, advice: &Advice, statuses: &Statuses) -> Verdict {
    let transient = match outcome.status() {
        // 409: another copy is still at work; 422: the key belongs to another request.
        Some(StatusCode::CONFLICT) if outcome.keyed && (outcome.attempt > 1 || outcome.hedged) => {
            true
        }
        Some(StatusCode::UNPROCESSABLE_ENTITY) if outcome.keyed => false,
        Some(status) => {
            statuses.contains(status)
                || status.as_u16() >= 400 && advice.directive == RetryDirective::Retry
                || statuses.is_hinted() && passes(status, advice)
        }
        None => outcome.failure().is_some_and(is_transient),
    };
    if transient { Verdict::Transient } else { without_retry(outcome) }
}

/// Returns the verdict on an outcome that is not retried.
fn without_retry(outcome: &Outcome<'_>) -> Verdict {
    match outcome.status() {
        Some(status) if status.as_u16() < 400 => Verdict::Success,
        _ => Verdict::Final,
    }
}

/// Classifies an outcome by the caller's own verdict, which replaces all rules: a wait and a proof
/// go into `advice`, an error into `error`.
pub(crate) fn own_verdict(
    own: RetryVerdict,
    outcome: &Outcome<'_>,
    advice: &mut Advice,
    error: &mut Option<BoxError>,
) -> Verdict {
    match own {
        RetryVerdict::Retry => {}
        RetryVerdict::RetryAfter(after) => {
            advice.hint = Some(Hint { after, header: None, asks: true });
        }
        RetryVerdict::NotProcessed => advice.not_processed = true,
        RetryVerdict::Stop => return without_retry(outcome),
        RetryVerdict::Fail(own) => {
            *error = Some(own);
            return Verdict::Final;
        }
    }
    Verdict::Transient
}

/// Returns whether the rest of the response makes a final status transient: a 403 with a rate
/// limit, and 413 (RFC 9110 §15.5.14), 529 and 530 with a retry hint.
fn passes(status: StatusCode, advice: &Advice) -> bool {
    match status.as_u16() {
        403 => advice.rate_limited,
        413 | 529 | 530 => advice.hint.as_ref().is_some_and(|it| it.asks),
        _ => false,
    }
}

/// Returns whether re-sending can help. An allow-list: any other kind is final.
pub(crate) fn is_transient(kind: FailureKind) -> bool {
    match kind {
        FailureKind::CircuitOpen
        | FailureKind::Connect
        | FailureKind::Deadline
        | FailureKind::Disconnect
        | FailureKind::Protocol
        | FailureKind::Refused
        | FailureKind::Throttled
        | FailureKind::Timeout
        | FailureKind::Unsent => true,
        FailureKind::Builder
        | FailureKind::Certificate
        | FailureKind::Decode
        | FailureKind::Limited
        | FailureKind::ProxyAuth
        | FailureKind::RateLimited
        | FailureKind::Redirect
        | FailureKind::Status
        | FailureKind::Superseded
        | FailureKind::Tls
        | FailureKind::Other => false,
    }
}

/// A function of the caller's that reads a retry hint from an outcome.
pub(crate) type HintFrom = Arc<dyn Fn(&Outcome<'_>) -> Option<Duration> + Send + Sync>;

/// A function of the caller's that finds the backoff after an outcome.
pub(crate) type BackoffFrom = Arc<dyn Fn(&Outcome<'_>, u32) -> Option<Duration> + Send + Sync>;

pub(crate) type Judge = Arc<dyn Fn(&Outcome<'_>) -> Option<Health> + Send + Sync>;

/// Returns the evidence of an outcome about the health of the service; `None` if it has none.
///
/// `verdict` is that of the statuses, without the caller's own predicate: a 404 that the caller
/// awaits is a sign of life. Health and verdict may differ: a retry of a 501 is useless, yet a 501
/// is no sign of health.
pub(crate) fn health(outcome: &Outcome<'_>, verdict: Verdict, advice: &Advice) -> Option<Health> {
    if throttling(outcome, advice) == Some(Throttling::RateLimit) {
        return Some(Health::Throttled);
    }
    let failure = match (outcome.result, outcome.status()) {
        (_, Some(status)) => {
            // A 421 is retried because of its connection.
            let failed = verdict == Verdict::Transient && status != StatusCode::MISDIRECTED_REQUEST
                || status.is_server_error()
                || status == StatusCode::REQUEST_TIMEOUT;
            return Some(if failed { Health::Failure } else { Health::Success });
        }
        (OutcomeResult::Failure(failure, _), None) => failure,
        (OutcomeResult::Response { .. }, None) => return None,
    };
    match failure.kind {
        _ if !failure.concerns_host => None,
        // The caller's own limit: a healthy host may take longer.
        FailureKind::CircuitOpen | FailureKind::Deadline => None,
        FailureKind::Throttled => Some(Health::Throttled),
        FailureKind::Certificate | FailureKind::Tls => Some(Health::Failure),
        kind => is_transient(kind).then_some(Health::Failure),
    }
}

/// 408, 425, 429, 500, 502, 503, 504: the statuses that tell of a passing state. Not 501 and 505,
/// which no retry changes.
pub(crate) const TRANSIENT: [StatusCode; 7] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// A host's request for fewer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttling {
    /// 429, or a 403 that is a rate limit, with or without a time.
    RateLimit,
    /// 503 or 529 with a retry hint.
    Unavailable,
}

/// Returns how a response asks all requests to its host to wait; `None` if it does not.
///
/// Serves breaker, budget and gate; [`hint::read`](crate::outcome::hint::read) decides what a rate
/// limit is. Both read the response alone, regardless of the user's settings for its status.
pub(crate) fn throttling(outcome: &Outcome<'_>, advice: &Advice) -> Option<Throttling> {
    match outcome.status()?.as_u16() {
        _ if advice.rate_limited => Some(Throttling::RateLimit),
        503 | 529 => Some(Throttling::Unavailable),
        _ => None,
    }
}

/// The methods that may be sent again after they may have been processed.
///
/// [`Idempotent`](Self::Idempotent) concerns only these: a request that was provably not processed
/// (never sent, refused by the protocol, or refused by one of the
/// [`refused_statuses`](crate::ResilientConfigBuilder::refused_statuses)) may be re-sent with any
/// method. A request with an `Idempotency-Key` may be re-sent under all rules.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ResilientConfig, RetryMethods};
///
/// let config = ResilientConfig::builder()
///     .retry_methods(RetryMethods::Only(vec![http::Method::GET, http::Method::POST]))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryMethods {
    /// The idempotent methods of [RFC 9110
    /// §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2): GET, HEAD, OPTIONS, TRACE,
    /// PUT, DELETE, and QUERY. The default.
    #[default]
    Idempotent,
    /// These methods and no others: a request of another method is sent once, even if it was not
    /// processed.
    Only(Vec<Method>),
    /// All methods: switches the guard off. A POST may then take effect twice.
    All,
}

impl RetryMethods {
    #[inline]
    pub(crate) fn contains(&self, method: &Method) -> bool {
        match self {
            Self::Idempotent => idempotency::is_idempotent(method),
            Self::Only(methods) => methods.contains(method),
            Self::All => true,
        }
    }

    /// Returns whether a request of this method is sent again if it was certainly not processed.
    pub(crate) fn allows_unprocessed(&self, method: &Method) -> bool {
        match self {
            Self::Only(methods) => methods.contains(method),
            Self::Idempotent | Self::All => true,
        }
    }
}

/// Returns whether this outcome proves that the server did not act on the request. After a redirect
/// there is no such proof: the redirecting server may have acted.
pub(crate) fn not_processed(outcome: &Outcome<'_>, refused: &Statuses, advice: &Advice) -> bool {
    match outcome.delivery() {
        _ if advice.not_processed => true,
        _ if outcome.is_redirected() => false,
        Delivery::NotSent | Delivery::NotProcessed => true,
        Delivery::MaybeProcessed => false,
        Delivery::Responded => {
            outcome.status().is_some_and(|it| {
                // RFC 9110 §15.5.20: whether or not the method is idempotent.
                it == StatusCode::MISDIRECTED_REQUEST
                    || refused.contains(it)
                    || refused.is_hinted() && it == StatusCode::FORBIDDEN && advice.rate_limited
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use http::HeaderMap;
    use reqwest::Url;

    use super::*;
    use crate::outcome::Failure;

    const PASSING: [FailureKind; 9] = [
        FailureKind::CircuitOpen,
        FailureKind::Connect,
        FailureKind::Deadline,
        FailureKind::Disconnect,
        FailureKind::Protocol,
        FailureKind::Refused,
        FailureKind::Throttled,
        FailureKind::Timeout,
        FailureKind::Unsent,
    ];

    const FINAL: [FailureKind; 9] = [
        FailureKind::Builder,
        FailureKind::Certificate,
        FailureKind::Decode,
        FailureKind::ProxyAuth,
        FailureKind::RateLimited,
        FailureKind::Redirect,
        FailureKind::Status,
        FailureKind::Tls,
        FailureKind::Other,
    ];

    /// The relevant parts of an outcome, for tests to change.
    #[derive(Clone, Copy)]
    struct Case {
        result: Result<u16, FailureKind>,
        delivery: Delivery,
        keyed: bool,
        hedged: bool,
        attempt: u32,
        redirected: bool,
    }

    impl Case {
        fn failed(kind: FailureKind) -> Self {
            Self { result: Err(kind), ..answered(0) }
        }

        fn judge<T>(self, judge: impl FnOnce(&Outcome<'_>) -> T) -> T {
            let url = &Url::parse("http://a.example/").unwrap();
            let headers = HeaderMap::new();
            let result = match self.result {
                Ok(status) => OutcomeResult::Response {
                    status: StatusCode::from_u16(status).unwrap(),
                    headers: &headers,
                    url,
                    body: None,
                    redirected: self.redirected,
                },
                Err(kind) => OutcomeResult::Failure(Failure::new(kind, self.delivery), &fmt::Error),
            };
            let Self { keyed, hedged, attempt, .. } = self;
            let elapsed = Duration::ZERO;
            let new = Outcome::new(&Method::GET, url, result);
            judge(&Outcome { attempt, elapsed, keyed, hedged, ..new })
        }

        fn verdict(self, advice: &Advice) -> Verdict {
            let statuses: Statuses =
                [422, 503].map(|it| StatusCode::from_u16(it).unwrap()).into_iter().collect();
            self.judge(|it| verdict(it, advice, &statuses))
        }
    }

    fn answered(status: u16) -> Case {
        Case {
            result: Ok(status),
            delivery: Delivery::MaybeProcessed,
            keyed: false,
            hedged: false,
            attempt: 1,
            redirected: false,
        }
    }

    #[test]
    fn a_verdict_goes_by_status_key_and_wish() {
        use Verdict::{Final, Success, Transient};
        let silent = Advice::default();
        let retry = Advice { directive: RetryDirective::Retry, ..Advice::default() };
        let keyed = |status| Case { keyed: true, ..answered(status) };
        let again = |case| Case { attempt: 2, ..case };
        let hedged = |case| Case { hedged: true, ..case };
        for (case, advice, expected) in [
            (answered(200), &silent, Success),
            (answered(399), &silent, Success),
            (answered(400), &silent, Final),
            (answered(503), &silent, Transient),
            (answered(399), &retry, Success),
            (answered(400), &retry, Transient),
            (answered(401), &retry, Transient),
            (again(keyed(409)), &silent, Transient),
            (hedged(keyed(409)), &silent, Transient),
            (keyed(409), &silent, Final),
            (hedged(answered(409)), &silent, Final),
            (again(answered(409)), &silent, Final),
            (answered(422), &silent, Transient),
            (keyed(422), &silent, Final),
            (answered(403), &silent, Final),
        ] {
            assert_eq!(case.verdict(advice), expected, "{:?}", case.result);
        }
        for kind in PASSING {
            assert_eq!(Case::failed(kind).verdict(&silent), Transient);
        }
        for kind in FINAL {
            assert_eq!(Case::failed(kind).verdict(&silent), Final);
        }
    }

    #[test]
    fn some_statuses_are_transient_by_what_comes_with_them() {
        let hinted = Statuses::default().with_hinted();
        let verdict = |case: Case, advice: &Advice| {
            case.judge(|it| verdict(it, advice, &hinted)) == Verdict::Transient
        };
        let limited = Advice { rate_limited: true, ..Advice::default() };
        let hint = |asks| Some(Hint { after: Duration::ZERO, header: None, asks });
        let asks = Advice { hint: hint(true), ..Advice::default() };
        let tells = Advice { hint: hint(false), ..Advice::default() };
        for (status, by_limit, by_hint) in [
            (403, true, false),
            (413, false, true),
            (529, false, true),
            (530, false, true),
            (404, false, false),
            (501, false, false),
        ] {
            assert!(!verdict(answered(status), &Advice::default()), "{status}");
            assert!(!verdict(answered(status), &tells), "{status}");
            assert_eq!(verdict(answered(status), &limited), by_limit, "{status}");
            assert_eq!(verdict(answered(status), &asks), by_hint, "{status}");
        }
    }

    #[test]
    fn an_own_verdict_replaces_all_rules() {
        let own = |case: Case, own: RetryVerdict| {
            let (mut advice, mut error) = (Advice::default(), None);
            let verdict = case.judge(|it| own_verdict(own, it, &mut advice, &mut error));
            (verdict, advice, error.map(|it| it.to_string()))
        };
        let silent = Advice::default;
        let failed = || Case::failed(FailureKind::Connect);
        for (case, retries, expected) in [
            (answered(200), true, Verdict::Transient),
            (answered(200), false, Verdict::Success),
            (answered(503), false, Verdict::Final),
            (failed(), false, Verdict::Final),
        ] {
            assert_eq!(own(case, retries.into()), (expected, silent(), None));
        }
        let after = Duration::from_secs(7);
        let hint = Some(Hint { after, header: None, asks: true });
        let (verdict, advice, _) = own(answered(404), RetryVerdict::RetryAfter(after));
        assert_eq!((verdict, advice), (Verdict::Transient, Advice { hint, ..silent() }));
        let (verdict, advice, _) = own(answered(403), RetryVerdict::NotProcessed);
        assert_eq!(verdict, Verdict::Transient);
        assert!(answered(403).judge(|it| not_processed(it, &Statuses::default(), &advice)));
        let ended = own(answered(200), RetryVerdict::Fail("expired".into()));
        assert_eq!(ended, (Verdict::Final, silent(), Some("expired".into())));
    }

    #[test]
    fn health_is_whether_the_service_did_its_work() {
        let of = |case: Case, verdict, rate_limited| {
            let advice = Advice { rate_limited, ..Advice::default() };
            case.judge(|it| health(it, verdict, &advice))
        };
        let health = |case, verdict| of(case, verdict, false);
        for (status, verdict, expected) in [
            (200, Verdict::Success, Health::Success),
            (200, Verdict::Transient, Health::Failure),
            (403, Verdict::Final, Health::Success),
            (403, Verdict::Transient, Health::Failure),
            (404, Verdict::Final, Health::Success),
            (408, Verdict::Final, Health::Failure),
            (501, Verdict::Final, Health::Failure),
        ] {
            assert_eq!(health(answered(status), verdict), Some(expected), "{status}");
            assert_eq!(of(answered(status), verdict, true), Some(Health::Throttled), "{status}");
        }
        for kind in PASSING.into_iter().chain(FINAL) {
            let expected = match kind {
                FailureKind::Throttled => Some(Health::Throttled),
                FailureKind::CircuitOpen | FailureKind::Deadline => None,
                FailureKind::Certificate | FailureKind::Tls => Some(Health::Failure),
                _ => PASSING.contains(&kind).then_some(Health::Failure),
            };
            assert_eq!(health(Case::failed(kind), Verdict::Final), expected, "{kind}");
        }
    }

    #[test]
    fn few_responses_ask_all_requests_to_wait() {
        let of = |case: Case, rate_limited| {
            let advice = Advice { rate_limited, ..Advice::default() };
            case.judge(|it| throttling(it, &advice))
        };
        for (status, expected) in [
            (429, None),
            (403, None),
            (500, None),
            (503, Some(Throttling::Unavailable)),
            (529, Some(Throttling::Unavailable)),
        ] {
            assert_eq!(of(answered(status), false), expected, "{status}");
            assert_eq!(of(answered(status), true), Some(Throttling::RateLimit), "{status}");
        }
        assert_eq!(of(Case::failed(FailureKind::Throttled), false), None);
        let limited = Advice { rate_limited: true, ..Advice::default() };
        for verdict in [Verdict::Transient, Verdict::Final] {
            let health = answered(403).judge(|it| health(it, verdict, &limited));
            assert_eq!(health, Some(Health::Throttled));
        }
    }

    #[test]
    fn few_outcomes_prove_that_nothing_was_processed() {
        let refused = [429].map(|it| StatusCode::from_u16(it).unwrap());
        let refused = refused.into_iter().collect::<Statuses>().with_hinted();
        let told = |case: Case, rate_limited| {
            // A hint that asks for a retry is no proof that the request was not processed.
            let header = Some(http::header::RETRY_AFTER);
            let hint = Some(Hint { after: Duration::ZERO, header, asks: true });
            let advice = Advice { hint, rate_limited, ..Advice::default() };
            case.judge(|it| not_processed(it, &refused, &advice))
        };
        let proof = |case| told(case, false);
        for (status, rate_limited, expected) in [
            (429, false, true),
            (429, true, true),
            (403, false, false),
            (403, true, true),
            (503, true, false),
            (500, true, false),
        ] {
            let case = answered(status);
            assert_eq!(told(case, rate_limited), expected, "{status}");
            assert!(!told(Case { redirected: true, ..case }, rate_limited));
        }
        let failed = |delivery| Case { delivery, ..Case::failed(FailureKind::Disconnect) };
        assert!(proof(failed(Delivery::NotSent)));
        assert!(proof(failed(Delivery::NotProcessed)));
        assert!(!proof(failed(Delivery::MaybeProcessed)));
    }

    #[test]
    fn an_error_made_of_a_status_is_read_by_it() {
        let of = |status: u16, delivery| {
            let status = StatusCode::from_u16(status).ok();
            Failure { status, ..Failure::new(FailureKind::Status, delivery) }
        };
        let statuses: Statuses =
            [429, 503].map(|it| StatusCode::from_u16(it).unwrap()).into_iter().collect();
        for (status, transient, health_of, refused) in [
            (404, false, Health::Success, false),
            (429, true, Health::Throttled, true),
            (503, true, Health::Failure, true),
        ] {
            for delivery in [Delivery::Responded, Delivery::MaybeProcessed] {
                let (url, elapsed) =
                    (&Url::parse("http://a.example/").unwrap(), Default::default());
                let result = OutcomeResult::Failure(of(status, delivery), &fmt::Error);
                let (method, attempt, keyed) = (&Method::POST, 1, false);
                let outcome =
                    Outcome { attempt, elapsed, keyed, ..Outcome::new(method, url, result) };
                let advice = Advice { rate_limited: status == 429, ..Advice::default() };
                let verdict = verdict(&outcome, &advice, &statuses);
                assert_eq!(verdict == Verdict::Transient, transient, "{status}");
                assert_eq!(health(&outcome, verdict, &advice), Some(health_of), "{status}");
                let is_proof = refused && delivery == Delivery::Responded;
                assert_eq!(not_processed(&outcome, &statuses, &advice), is_proof, "{status}");
            }
        }
    }

    #[test]
    fn what_does_not_concern_the_host_says_nothing_of_it() {
        for kind in PASSING.into_iter().chain(FINAL) {
            let url = &Url::parse("http://a.example/").unwrap();
            let failure = Failure::local(kind, Delivery::NotSent);
            let result = OutcomeResult::Failure(failure, &fmt::Error);
            let (method, attempt, elapsed) = (&Method::GET, 1, Default::default());
            let outcome = Outcome { attempt, elapsed, ..Outcome::new(method, url, result) };
            assert_eq!(health(&outcome, Verdict::Transient, &Advice::default()), None, "{kind}");
        }
    }

    #[test]
    fn idempotent_methods_are_those_of_the_rfc_and_query() {
        let yes = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"];
        let no = ["POST", "PATCH", "CONNECT", "PURGE"];
        let method = |it: &str| Method::from_bytes(it.as_bytes()).unwrap();
        assert!(yes.iter().all(|it| RetryMethods::Idempotent.contains(&method(it))));
        assert!(no.iter().all(|it| !RetryMethods::Idempotent.contains(&method(it))));
        assert!(no.iter().all(|it| RetryMethods::All.contains(&method(it))));
        let only = RetryMethods::Only(vec![Method::POST]);
        assert!(only.contains(&Method::POST) && !only.contains(&Method::GET));
    }
}
