//! Outcome and request in, verdict out; and which requests may be sent twice.

use std::{fmt, sync::Arc};

use http::{Method, StatusCode};

use crate::breaker::Health;
use crate::hint::{self, Advice, Wish};
use crate::idempotency;
use crate::outcome::{Delivery, FailureKind, Gave, Outcome};

pub(crate) type Predicate = Arc<dyn Fn(&Outcome<'_>) -> bool + Send + Sync>;

/// An outcome, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// Another attempt may end better.
    Transient,
    /// No other attempt would end better.
    Final,
}

/// Classifies an outcome. The predicate, where there is one, replaces all other rules; without
/// one, a server that asks for a retry of its error gets it.
pub(crate) fn verdict(
    outcome: &Outcome<'_>,
    advice: &Advice,
    retry_if: Option<&Predicate>,
    statuses: &StatusSet,
) -> Verdict {
    let transient = match (retry_if, outcome.gave) {
        (Some(retry_if), _) => retry_if(outcome),
        // 409: the first copy is still at work; 422: the key belongs to another request.
        (None, Gave::Answer { status: StatusCode::CONFLICT, .. })
            if outcome.keyed && outcome.attempt > 1 =>
        {
            true
        }
        (None, Gave::Answer { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) if outcome.keyed => {
            false
        }
        (None, Gave::Answer { status, headers, .. }) => {
            statuses.contains(status)
                || status.as_u16() >= 400 && advice.wish == Wish::Retry
                || statuses.limited_403 && hint::is_rate_limit_403(status, headers)
        }
        (None, Gave::Failure(failure, _)) => is_transient(failure.kind),
    };
    match outcome.status() {
        _ if transient => Verdict::Transient,
        Some(status) if status.as_u16() < 400 => Verdict::Success,
        _ => Verdict::Final,
    }
}

/// Whether re-sending can help at all. An allow-list: what is not known to pass is final.
pub(crate) fn is_transient(kind: FailureKind) -> bool {
    match kind {
        FailureKind::CircuitOpen
        | FailureKind::Connect
        | FailureKind::Deadline
        | FailureKind::Disconnect
        | FailureKind::Protocol
        | FailureKind::Refused
        | FailureKind::Throttled
        | FailureKind::Timeout => true,
        FailureKind::Builder
        | FailureKind::Certificate
        | FailureKind::Decode
        | FailureKind::RateLimited
        | FailureKind::Redirect
        | FailureKind::Other => false,
    }
}

pub(crate) type Judge = Arc<dyn Fn(&Outcome<'_>) -> Option<Health> + Send + Sync>;

/// What an outcome says about the health of the service; `None` if nothing.
///
/// Apart from the verdict in part: whether a retry would help is one thing, whether the service
/// did its work another. A 404 is a sign of life, a 501 none of health.
pub(crate) fn health(outcome: &Outcome<'_>, verdict: Verdict) -> Option<Health> {
    match outcome.gave {
        Gave::Answer { status: StatusCode::TOO_MANY_REQUESTS, .. } => Some(Health::Throttled),
        Gave::Answer { status: StatusCode::FORBIDDEN, .. } if verdict == Verdict::Transient => {
            Some(Health::Throttled)
        }
        Gave::Answer { status, .. } => {
            let failed = verdict == Verdict::Transient
                || status.is_server_error()
                || status == StatusCode::REQUEST_TIMEOUT;
            Some(if failed { Health::Failure } else { Health::Success })
        }
        Gave::Failure(failure, _) => match failure.kind {
            FailureKind::Throttled => Some(Health::Throttled),
            FailureKind::Certificate => Some(Health::Failure),
            FailureKind::CircuitOpen => None,
            kind if is_transient(kind) => Some(Health::Failure),
            _ => None,
        },
    }
}

/// Whether what an answer says about coming back is for every request to its host: those that say
/// that there were too many. Asked of the answer itself, whatever the user makes of its health.
pub(crate) fn holds_back(outcome: &Outcome<'_>, verdict: Verdict) -> bool {
    match outcome.status() {
        Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => true,
        // GitHub's way to say the same.
        Some(StatusCode::FORBIDDEN) => verdict == Verdict::Transient,
        _ => false,
    }
}

/// Which methods may be sent again after they may have been processed.
///
/// The guard concerns only that: a request that was provably not processed (never sent, refused
/// by the protocol, answered with 425, 429, or 503 and a Retry-After) may always be re-sent, and
/// so may one that carries an `Idempotency-Key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryMethods {
    /// The idempotent methods of [RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2):
    /// GET, HEAD, OPTIONS, TRACE, PUT, DELETE, and QUERY. The default.
    #[default]
    Idempotent,
    /// These methods and no others.
    Only(Vec<Method>),
    /// Every method: switches the guard off. A POST may then take effect twice.
    All,
}

impl RetryMethods {
    pub(crate) fn contains(&self, method: &Method) -> bool {
        match self {
            Self::Idempotent => idempotency::is_idempotent(method),
            Self::Only(methods) => methods.contains(method),
            Self::All => true,
        }
    }
}

/// Whether this outcome proves that the server did not act on the request. After a redirect there
/// is no such proof: whoever redirected may have acted.
pub(crate) fn not_processed(outcome: &Outcome<'_>, hinted: bool) -> bool {
    match outcome.delivery() {
        _ if outcome.is_redirected() => false,
        Delivery::NotSent | Delivery::NotProcessed => true,
        Delivery::MaybeProcessed => false,
        Delivery::Answered => match outcome.status() {
            Some(StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => true,
            Some(StatusCode::SERVICE_UNAVAILABLE) => hinted,
            _ => false,
        },
    }
}

/// A set of status codes, as bits.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct StatusSet {
    bits: [u64; 15],
    /// Whether a 403 that tells of an exhausted rate limit belongs to it.
    limited_403: bool,
}

impl StatusSet {
    pub(crate) fn contains(&self, status: StatusCode) -> bool {
        let (word, bit) = Self::place(status);
        self.bits.get(word).is_some_and(|it| it & bit != 0)
    }

    pub(crate) fn with_limited_403(mut self) -> Self {
        self.limited_403 = true;
        self
    }

    fn place(status: StatusCode) -> (usize, u64) {
        let index = usize::from(status.as_u16()).saturating_sub(100);
        (index / 64, 1 << (index % 64))
    }
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (100..=999).filter_map(|it| StatusCode::from_u16(it).ok());
        f.debug_set().entries(all.filter(|it| self.contains(*it)).map(|it| it.as_u16())).finish()
    }
}

impl FromIterator<StatusCode> for StatusSet {
    fn from_iter<I: IntoIterator<Item = StatusCode>>(statuses: I) -> Self {
        let mut set = Self::default();
        for status in statuses {
            let (word, bit) = Self::place(status);
            if let Some(it) = set.bits.get_mut(word) {
                *it |= bit;
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_set_holds_what_was_put_in() {
        let all = || (100..=999).filter_map(|it| StatusCode::from_u16(it).ok());
        let even: StatusSet = all().filter(|it| it.as_u16() % 2 == 0).collect();
        assert!(all().all(|it| even.contains(it) == (it.as_u16() % 2 == 0)));
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
