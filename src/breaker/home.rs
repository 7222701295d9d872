//! Where a circuit lives while nobody calls.

use std::{any::Any, sync::Arc};

use crate::breaker::circuit::Circuit;
use crate::registry::Part;

/// The one holder of a circuit that is not a permit.
///
/// Handles and the registry share the home, permits the circuit: so the count that keeps the
/// circuit alive is also the number of permits out, and counting them costs nothing.
#[derive(Debug)]
pub(super) struct Home {
    circuit: Arc<Circuit>,
}

impl Home {
    pub(super) fn new(circuit: Circuit) -> Self {
        Self { circuit: Arc::new(circuit) }
    }

    pub(super) fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    pub(super) fn permits_out(&self) -> usize {
        Arc::strong_count(&self.circuit) - 1
    }
}

impl Part for Home {
    /// A breaker that is not closed knows something: that the service is down, or what someone
    /// decided by hand.
    fn pinned(&self) -> bool {
        !self.circuit.is_closed()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
