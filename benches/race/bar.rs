//! What our clients are held to.

use crate::figures::Figures;

/// A bar of a scenario. Figures are medians.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// Succeeds as often as reqwest-retry, within the tolerance.
    NotFewer,
    /// So many succeed at least.
    Succeeds(usize),
    /// All is over in time.
    Seconds(f64),
    Sends(usize),
    /// At most so many responses are 429.
    Refused(usize),
    /// Loses no more than reqwest-retry and half a second of this traffic.
    Lost {
        rate: f64,
    },
    /// Sends at most this share of what reqwest-retry sends while the host is down.
    SendsWhileDown(f64),
    /// Loses at most this share.
    LostShare(f64),
    /// No POST is processed twice.
    NeverTwice,
    /// The p99 is at most so many times that of reqwest-retry.
    P99(f64),
    /// Succeeds with this share at least.
    Share(f64),
    /// Takes at most three times as long as reqwest-retry, or as the shortest time, in seconds.
    Time {
        least: f64,
    },
    /// After the outage, sends at most so many times what reqwest-retry sends in its busiest second.
    PeakAfter(f64),
}

/// Figures beside each other that differ by luck: 1 % or two requests, whichever is more.
fn tolerance(asked: f64) -> f64 {
    (asked / 100.0).max(2.0)
}

impl Bar {
    /// Prints a line that says whether `ours` meets it, beside `peer`, which is reqwest-retry.
    pub(crate) fn print(self, name: &str, ours: &Figures, peer: &Figures) {
        let tolerance = tolerance(ours.asked);
        let (what, value, reach, at_most) = match self {
            Self::NotFewer => ("succeeded", ours.succeeded, peer.succeeded - tolerance, false),
            Self::Succeeds(count) => ("succeeded", ours.succeeded, count as f64, false),
            Self::Seconds(most) => ("seconds", ours.seconds, most, true),
            Self::Refused(most) => ("responses of 429", ours.refused, most as f64, true),
            Self::Sends(most) => ("sends", ours.sends, most as f64, true),
            Self::Lost { rate } => {
                let reach = peer.lost() + (rate / 2.0).max(tolerance);
                ("lost", ours.lost(), reach, true)
            }
            Self::SendsWhileDown(share) => {
                ("sends while down", ours.sends_while_down, share * peer.sends_while_down, true)
            }
            Self::LostShare(share) => ("lost", ours.lost(), share * ours.asked, true),
            Self::NeverTwice => ("processed twice", ours.twice, 0.0, true),
            Self::P99(times) => ("p99 ms", ours.p99, times * peer.p99, true),
            Self::Share(share) => ("succeeded", ours.succeeded, share * ours.asked, false),
            Self::Time { least } => ("seconds", ours.seconds, 3.0 * peer.seconds.max(least), true),
            Self::PeakAfter(times) => {
                ("sends in a second after", ours.peak_after, times * peer.peak_after, true)
            }
        };
        let met = if at_most { value <= reach } else { value >= reach };
        let (bound, verdict) =
            (if at_most { "at most" } else { "at least" }, if met { "met" } else { "missed" });
        println!("bar {name}: {what} {} of {bound} {}: {verdict}", short(value), short(reach));
    }
}

/// Prints counts whole and other figures with one decimal.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
