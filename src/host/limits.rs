//! The limits of one request, and what its attempt holds of them.

use std::sync::Arc;

use crate::host::limit::{ConcurrencyLimit, LimitPermit, Limiter};
use crate::host::rate::{Pacer, RateLimit, Slot, Ticket};

/// The limits that one request keeps to, and what its attempt holds of them.
#[derive(Debug)]
pub(crate) struct Limits<'p> {
    pub(super) concurrency: Option<(&'p ConcurrencyLimit, Arc<Limiter>)>,
    pub(super) rate: Option<(&'p RateLimit, Arc<Pacer>)>,
    /// The slot of the rate limit.
    pub(super) slot: Option<Slot>,
    /// The turn by the learned quotas.
    pub(super) ticket: Option<Ticket>,
    /// The permit of the concurrency limit.
    pub(super) permit: Option<LimitPermit>,
}

impl<'p> Limits<'p> {
    pub(super) fn new(
        concurrency: Option<(&'p ConcurrencyLimit, Arc<Limiter>)>,
        rate: Option<(&'p RateLimit, Arc<Pacer>)>,
    ) -> Self {
        Self { concurrency, rate, slot: None, ticket: None, permit: None }
    }

    /// Uses the slot: the attempt is sent now.
    pub(super) fn spend(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.spend();
        }
        if let Some(ticket) = &mut self.ticket {
            ticket.spend();
        }
    }
}
