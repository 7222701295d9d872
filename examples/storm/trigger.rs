//! What goes wrong, and for how long.

/// When it begins, in seconds.
pub(crate) const WARM_UP: f64 = 20.0;

/// A disturbance of the first pool of the server, or of the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) fault: Fault,
    /// In seconds.
    pub(crate) lasts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All workers stop. What was sent waits, and is worked off afterwards.
    Stalled,
    /// Nothing responds. What was sent is lost.
    Silent,
    /// Connections are refused, at once.
    Refused,
    /// This percentage of the workers is left.
    Brownout(u32),
}

impl Trigger {
    pub(crate) const fn new(fault: Fault, lasts: u32) -> Self {
        Self { fault, lasts }
    }

    pub(crate) fn name(self) -> String {
        let lasts = self.lasts;
        match self.fault {
            Fault::Stalled => format!("stalled {lasts} s"),
            Fault::Silent => format!("silent {lasts} s"),
            Fault::Refused => format!("refused {lasts} s"),
            Fault::Brownout(left) => format!("{left} % for {lasts} s"),
        }
    }

    pub(crate) fn ends(self) -> f64 {
        WARM_UP + f64::from(self.lasts)
    }

    /// Returns how many of a pool's workers go on.
    pub(crate) fn workers_left(self, workers: usize) -> usize {
        match self.fault {
            Fault::Stalled => 0,
            Fault::Silent | Fault::Refused => workers,
            Fault::Brownout(left) => workers * left as usize / 100,
        }
    }

    pub(crate) fn is_brownout(self) -> bool {
        matches!(self.fault, Fault::Brownout(_))
    }
}
