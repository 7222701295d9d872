//! What a host replies to a request, without sockets.

use std::{collections::HashMap, time::Duration};

use crate::scenario::{Ask, Hint, Route, Rule};

/// How long a response takes where no rule says otherwise.
const LATENCY: Duration = Duration::from_millis(2);

/// What happens to one request.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Respond {
        status: u16,
        hint: Hint,
        quota: Option<QuotaLeft>,
        after: Duration,
    },
    /// The connection ends without a response, after the request was processed or before.
    Cut {
        processed: bool,
    },
    Hang,
}

/// What a response says of its host's quota.
#[derive(Clone, Copy)]
pub(crate) struct QuotaLeft {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// In seconds, rounded up.
    pub(crate) reset: u64,
}

/// A host and what it has seen.
pub(crate) struct HostState {
    rule: Rule,
    seed: u64,
    sends: HashMap<usize, u64>,
    arrived: usize,
    tokens: f64,
    refilled: Duration,
    /// The end of the quota's window, and the requests in it.
    window: (Duration, u64),
    /// Requests under way.
    present: usize,
}

impl HostState {
    pub(crate) fn new(rule: Rule, seed: u64) -> Self {
        let tokens = if let Rule::Limit { rate, .. } = rule { rate } else { 0.0 };
        let (sends, refilled) = (HashMap::new(), Duration::ZERO);
        let window = (Duration::ZERO, 0);
        Self { rule, seed, sends, arrived: 0, tokens, refilled, window, present: 0 }
    }

    /// Decides what a request that arrives `now` after the start meets.
    pub(crate) fn reply(&mut self, ask: Ask, now: Duration) -> Reply {
        self.arrived += 1;
        let sends = self.sends.entry(ask.id).or_default();
        *sends += 1;
        let (sends, luck) = (*sends, luck(self.seed, ask.id as u64, *sends));
        let rule = self.rule;
        match rule {
            Rule::FailsOnce { status, every } if sends == 1 && ask.id % every == 0 => {
                respond(status)
            }
            Rule::Fails { status, share } if luck < share => respond(status),
            Rule::Limit { rate, status, hint } if !self.take_token(rate, now) => {
                Reply::Respond { status, hint, quota: None, after: LATENCY }
            }
            Rule::Quota { count, window } => self.take_of_quota(count, window, now),
            Rule::AtATime { most, latency } => match self.present < most {
                true => {
                    self.present += 1;
                    Reply::Respond { status: 200, hint: Hint::None, quota: None, after: latency }
                }
                false => respond(429),
            },
            Rule::Cuts { share, processed } if luck < share => Reply::Cut { processed },
            Rule::Hangs { share } if luck < share => Reply::Hang,
            Rule::SlowTail { share, latency } if luck < share => {
                Reply::Respond { status: 200, hint: Hint::None, quota: None, after: latency }
            }
            Rule::RouteBFails if ask.route == Route::B => respond(503),
            Rule::BackEnds { count } if self.arrived % count == 0 => respond(502),
            _ => respond(200),
        }
    }

    /// Records that a response with this status was sent.
    pub(crate) fn responded(&mut self, status: u16) {
        if status == 200 {
            self.present = self.present.saturating_sub(1);
        }
    }

    fn take_of_quota(&mut self, count: u64, window: Duration, now: Duration) -> Reply {
        if now >= self.window.0 {
            self.window = (now + window, 0);
        }
        let (end, taken) = self.window;
        let status = if taken < count { 200 } else { 429 };
        self.window.1 += u64::from(taken < count);
        let quota = QuotaLeft {
            limit: count,
            remaining: count - self.window.1,
            reset: end.saturating_sub(now).as_secs_f64().ceil() as u64,
        };
        Reply::Respond { status, hint: Hint::None, quota: Some(quota), after: LATENCY }
    }

    fn take_token(&mut self, rate: f64, now: Duration) -> bool {
        let refill = now.saturating_sub(self.refilled).as_secs_f64() * rate;
        self.tokens = (self.tokens + refill).min(rate);
        self.refilled = self.refilled.max(now);
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

const fn respond(status: u16) -> Reply {
    Reply::Respond { status, hint: Hint::None, quota: None, after: LATENCY }
}

/// Returns an even number from 0 to 1 that depends on nothing else (SplitMix64).
fn luck(seed: u64, id: u64, sends: u64) -> f64 {
    let mix = |value: u64| {
        let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    };
    (mix(mix(mix(seed) ^ id) ^ sends) >> 11) as f64 / (1u64 << 53) as f64
}
