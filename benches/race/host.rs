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
        after: Duration,
    },
    /// The connection ends without a response, after the request was processed or before.
    Cut {
        processed: bool,
    },
    Hang,
}

/// A host and what it has seen.
pub(crate) struct HostState {
    rule: Rule,
    seed: u64,
    sends: HashMap<usize, u64>,
    arrived: usize,
    tokens: f64,
    refilled: Duration,
}

impl HostState {
    pub(crate) fn new(rule: Rule, seed: u64) -> Self {
        let tokens = if let Rule::Limit { rate, .. } = rule { rate } else { 0.0 };
        let (sends, refilled) = (HashMap::new(), Duration::ZERO);
        Self { rule, seed, sends, arrived: 0, tokens, refilled }
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
                Reply::Respond { status, hint, after: LATENCY }
            }
            Rule::Cuts { share, processed } if luck < share => Reply::Cut { processed },
            Rule::Hangs { share } if luck < share => Reply::Hang,
            Rule::SlowTail { share, latency } if luck < share => {
                Reply::Respond { status: 200, hint: Hint::None, after: latency }
            }
            Rule::RouteBFails if ask.route == Route::B => respond(503),
            Rule::BackEnds { count } if self.arrived % count == 0 => respond(502),
            _ => respond(200),
        }
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
    Reply::Respond { status, hint: Hint::None, after: LATENCY }
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
