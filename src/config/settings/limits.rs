//! Setters: limits in time, and what a request carries or has read for it.

use std::time::Duration;

use http::HeaderName;

use crate::config::ResilientConfigBuilder;
use crate::config::headers::DeadlineHeader;
use crate::config::overrides::RetryOverride;
use crate::config::policy::Setting;
use crate::outcome::idempotency::IdempotencyKey;

setters! {
    /// Sets the longest that an attempt may take, up to the response head (up to the end of the
    /// body where [`read_body`](Self::read_body) is set). The time of an upload counts: a large one
    /// needs a longer limit. The client's own timeouts apply as well; this never loosens them.
    /// Default: none, and 10 s in a [`ResilientClient`](crate::ResilientClient).
    fn attempt_timeout(timeout: Duration) => set(Setting::AttemptTimeout(Some(Some(timeout))));

    /// Removes the limit of attempts.
    fn without_attempt_timeout() => set(Setting::AttemptTimeout(Some(None)));

    /// Sets the longest that everything may take: attempts, waits and the response's body. An
    /// attempt under way is cut, and no wait begins that would not end in time. Default:
    /// none.
    fn max_total_time(limit: Duration) => set(Setting::MaxTotalTime(Some(limit)));

    /// Removes the limit of everything.
    fn without_max_total_time() => set(Setting::MaxTotalTime(None));

    /// Sets the longest single wait. A backoff is cut to it; a server that asks for more ends
    /// the request at once, with its response in hand, unless
    /// [`RetryAfter::Capped`](crate::RetryAfter::Capped) is set. The spread of a hint comes on
    /// top, so that clients with the same hint do not return together: up to a quarter of
    /// it, at least 250 ms and at most 5 s. At a [gate](Self::gate) it bounds all waiting of a
    /// request. Default: 60 s, because callers have given up by then.
    fn max_wait_time(limit: Duration) => set(Setting::MaxWaitTime(limit));

    /// Sets the longest wait at an open circuit breaker, and for a token of the retry budget, each
    /// time a request has to wait there. Zero rejects at once. Default: 2 s, or half the
    /// attempt timeout if that is less.
    ///
    /// A request that the breaker would reject for longer is rejected at once. If the probe
    /// that it waits for fails, that costs it a retry; a request without a retry left is rejected. A breaker that is forced open makes no
    /// request wait.
    ///
    /// Without a wait a host that is down for a second costs every request that comes in
    /// that time; with a long one the requests of a whole outage return at once.
    fn max_open_wait(limit: Duration) => set(Setting::MaxOpenWait(Some(limit)));

    /// Reads response bodies of up to `limit` bytes within the attempt: a body that
    /// breaks off is then retried like any failure, and
    /// [`Outcome::body`](crate::Outcome::body) shows it to [`retry_if`](Self::retry_if).
    /// Longer bodies are passed on unread. Default: off; bodies are streamed.
    fn read_body(limit: usize) => set(Setting::ReadBody(Some(limit)));

    /// Streams response bodies.
    fn without_read_body() => set(Setting::ReadBody(None));

    /// Sets the longest wait for a byte of a body, for downloads and for the responses of a
    /// [`ResilientClient`](crate::ResilientClient). Only time counts in which the body is read and no
    /// byte is there: a reader may pause as long as it likes. Then a download resumes by another
    /// request. A body that is read within its attempt (by [`read_body`](Self::read_body), or up to the
    /// first byte for a hedge) fails the attempt. Any other body ends with a timeout error.
    /// `text/event-stream` has no such limit. Default: 30 s.
    fn stall_timeout(timeout: Duration) => set(Setting::StallTimeout(Some(timeout)));

    /// Lets a body be silent for as long as its connection lives.
    fn without_stall_timeout() => set(Setting::StallTimeout(None));

    /// Sets the least speed of a download, in bytes per second: a body that is slower on average
    /// over `period` of waiting counts as broken, and the download goes on by another request.
    /// Default: none.
    fn min_speed(bytes_per_second: u64, period: Duration)
        => set(Setting::MinSpeed(Some((bytes_per_second, period))));

    /// Lets a download be as slow as it is.
    fn without_min_speed() => set(Setting::MinSpeed(None));

    /// Adds a key to requests whose method is not idempotent, by which their server
    /// recognises a repeat: see [`IdempotencyKey`]. Default: none is added.
    fn idempotency_key(key: IdempotencyKey) => set(Setting::IdempotencyKey(Some(key)));

    /// Adds no key.
    fn without_idempotency_key() => set(Setting::IdempotencyKey(None));

    /// Tells the server how long the client waits for its response: see [`DeadlineHeader`].
    /// Default: no header.
    fn deadline_header(header: DeadlineHeader) => set(Setting::DeadlineHeader(Some(header)));

    /// Removes the deadline header.
    fn without_deadline_header() => set(Setting::DeadlineHeader(None));

    /// Tells the server in this header the number of the attempt, from 1. Default: no
    /// header.
    fn attempt_header(name: HeaderName) => set(Setting::AttemptHeader(Some(name)));

    /// Removes the attempt header.
    fn without_attempt_header() => set(Setting::AttemptHeader(None));
}
