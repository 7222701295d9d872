//! The store of a fleet, as a trait.

use std::{error::Error, future::pending, pin::Pin, sync::Arc};

use crate::host::fleet::advice::{FleetNews, HostAdvice};
use crate::host::fleet::report::{HostReport, NodeId};

/// An error of a store, of any type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A future of a store.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the nodes of a fleet meet.
///
/// The store counts, and decides: when the breaker of a host opens and closes, by its own clock.
/// [`InProcessFleet`](crate::fleet::InProcessFleet) is one for the clients of one process; the crate `reqwest-resilient-redis` has
/// one for many processes.
///
/// No request waits for a store. One background task calls it: [`exchange`](Self::exchange) about
/// once a second, never two at a time, each within a timeout (200 ms by default); after three failures
/// it pauses from 1 to 30 s. Both methods are called within a tokio runtime.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::fleet::{
///     BoxError, BoxFuture, BreakerAdvice, FleetState, FleetStore, HostAdvice, HostReport, NodeId,
/// };
///
/// /// A store that knows of no outage.
/// struct Calm;
///
/// impl FleetStore for Calm {
///     fn exchange<'a>(
///         &'a self,
///         _node: NodeId,
///         reports: &'a [HostReport],
///     ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
///         let closed = BreakerAdvice::new(1, 0, FleetState::Closed);
///         let advice = move |it: &HostReport| HostAdvice::new(it.host.clone(), closed);
///         Box::pin(async move { Ok(reports.iter().map(advice).collect()) })
///     }
/// }
/// ```
pub trait FleetStore: Send + Sync + 'static {
    /// Hands over what a node counted since its last exchange, and returns what the fleet says of the
    /// same hosts, in any order. Should take one round trip, whatever the number of hosts.
    ///
    /// Dropping the future gives the exchange up; the reports may have arrived or not.
    ///
    /// # Errors
    ///
    /// Any error of the store. The reports are then merged with the next ones.
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>>;

    /// Waits for the next message of another node; for ever where a store has none, as by default.
    ///
    /// Called again and again, and dropped while it waits; that must lose no message. Messages are a
    /// shortcut: what is lost is made good by the next exchange. A store that loses its connection
    /// connects anew by itself, and returns only then.
    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        Box::pin(pending())
    }
}

/// The store that several nodes share.
impl<S: FleetStore + ?Sized> FleetStore for Arc<S> {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        (**self).exchange(node, reports)
    }

    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        (**self).next_news()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trait_is_object_safe() {
        fn _is(_: &dyn FleetStore) {}
    }
}
