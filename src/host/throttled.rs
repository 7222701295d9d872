//! Closing of gates by the response to an attempt.

use std::time::Duration;

use reqwest::{Request, Url};

use crate::common::clock::Instant;
use crate::host::admission::Admission;
use crate::host::gate::{Closing, GateKey, Throttle};

impl Admission<'_> {
    /// Closes the gate of requests like this one; `None` if such a response closes none. The fleet hears
    /// of a hint, cut to `longest`.
    pub(crate) fn close_gate(
        &self,
        request: &Request,
        throttle: Throttle,
        hint: Option<Duration>,
        longest: Duration,
        now: Instant,
        unit: impl FnOnce() -> f64,
    ) -> Option<Closing> {
        let gates = self.parts.gates()?;
        let key = self.gate_key.unwrap_or_else(|| self.parts.gate_key(request));
        let closing = gates.close(key, now, throttle, hint, unit());
        if let (Some(_), Some(hint)) = (closing.filter(|it| it.is_longer), hint) {
            self.hand_gate_on(key, hint, longest, now);
        }
        closing
    }

    /// Closes the gate of another host, which a redirect led to; by default for requests without
    /// `Authorization`, which the client does not send on to it.
    pub(crate) fn close_gate_of(
        &self,
        url: &Url,
        request: &Request,
        throttle: Throttle,
        hint: Option<Duration>,
        now: Instant,
        unit: impl FnOnce() -> f64,
    ) {
        if let Some(rule) = self.parts.gate {
            let host = self.parts.host_of(url, now);
            let key = match rule {
                GateKey::Authorization => 0,
                GateKey::Own(_) => host.gates.key_of(rule, request),
            };
            host.gates.close(key, now, throttle, hint, unit());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Extensions, Method};

    use super::*;
    use crate::config::policy::Policy;
    use crate::host::map::HostMap;
    use crate::host::parts::Parts;

    #[test]
    fn the_gate_of_a_host_that_a_redirect_led_to_is_closed() {
        let (hosts, now) = (HostMap::default(), Instant::now());
        let [open, shut] =
            [None, Some(GateKey::default())].map(|gate| Policy { gate, ..Policy::default() });
        let [own, other]: [Url; 2] =
            ["https://a.example/", "https://b.example/"].map(|it| it.parse().unwrap());
        let request = Request::new(Method::GET, own);
        let hint = Some(Duration::from_secs(30));
        for (policy, closes) in [(&open, false), (&shut, true)] {
            let parts = Parts::find(&hosts, policy.host_rules(), &request, now);
            let admission = Admission::new(parts, &Extensions::new());
            admission.close_gate_of(&other, &request, Throttle::RateLimit, hint, now, || 0.0);
            let there = Parts::find_at(&hosts, shut.host_rules(), &other, &request, now);
            assert_eq!((there.may_be_held_back(), admission.may_be_held_back()), (closes, false));
        }
    }
}
