//! Admission of hedges: now, or not at all.

use reqwest::Request;

use crate::breaker::Permit;
use crate::common::clock::Instant;
use crate::host::admission::Admission;
use crate::host::hedge::lanes::HedgeTurn;
use crate::host::hedge::{Hedge, HedgeRefusal};
use crate::host::limit::LimitPermit;

/// The permits of a hedge. When dropped it releases them; nothing is reported.
#[derive(Debug)]
pub(crate) struct HedgePermit {
    breaker: Option<Permit>,
    limit: Option<LimitPermit>,
}

impl Admission<'_> {
    /// Begins an attempt that may be hedged. `is_first` is set for the first one of its request.
    pub(crate) fn begin_hedging(
        &self,
        hedge: &Hedge,
        request: &Request,
        is_first: bool,
        now: Instant,
    ) -> HedgeTurn {
        let key = hedge.key_of(request);
        self.parts.hedges(now).begin(key, hedge.rules(), is_first, now)
    }

    /// Admits a hedge, which never waits: asks gate, breaker and budget, and last the bucket of
    /// hedges, which pays.
    ///
    /// # Errors
    ///
    /// The reason why there is no hedge now. Nothing is taken then.
    pub(crate) fn admit_hedge(
        &self,
        turn: &HedgeTurn,
        now: Instant,
    ) -> Result<HedgePermit, HedgeRefusal> {
        if self.parts.may_be_held_back() {
            return Err(HedgeRefusal::Gate);
        }
        let is_settled = self.parts.is_fleet_settled();
        if self.is_outer_probe || self.probing.is_some() || !is_settled {
            return Err(HedgeRefusal::CircuitBreaker);
        }
        if self.parts.budget().is_some_and(|it| it.is_short(now)) {
            return Err(HedgeRefusal::RetryBudget);
        }
        let limit = self.try_hedge_permit().ok_or(HedgeRefusal::Limited)?;
        let breaker = match self.parts.breaker() {
            Some(breaker) => Some(breaker.pass(now).ok_or(HedgeRefusal::CircuitBreaker)?),
            None => None,
        };
        turn.withdraw(now)?;
        Ok(HedgePermit { breaker, limit })
    }

    /// Goes on with the permit of the hedge that won, in place of its attempt's.
    pub(crate) fn adopt_hedge(&mut self, permit: HedgePermit) {
        self.permit = permit.breaker;
        if let Some(permit) = permit.limit {
            self.hold_permit(permit);
        }
    }
}
