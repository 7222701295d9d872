//! The script's arguments and its reply, and the messages that it publishes.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, RedisResult, Value, cmd, from_redis_value};
use reqwest_resilient::fleet::{
    BreakerAdvice, FleetGate, FleetNews, FleetState, HostAdvice, HostReport, NodeId,
};

/// The script; the reports of a node and the advice of the fleet are in it.
pub(crate) const SCRIPT: &str = include_str!("report.lua");

/// The keys of one host, in the order of the script. The host in braces is the hash tag.
const KEYS: [&str; 5] = ["st", "ct", "ob", "bd", "g"];

/// The count window of the store, in seconds.
const WINDOW: f64 = 10.0;

/// The facts that the script cannot read from the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) node: NodeId,
    /// The server's time in ms after which the report is refused; 0 for none.
    pub(crate) deadline: u64,
    /// The run of a host that the store does not have yet.
    pub(crate) fresh_run: u64,
}

/// The call of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call<'a> {
    /// By its hash: the server has it.
    Hash(&'a str),
    /// By its text: the server keeps it from then on.
    Text(&'a str),
}

/// Returns the namespace without braces, which would move the hash tag.
pub(crate) fn escaped(namespace: &str) -> String {
    namespace.replace('{', "%7B").replace('}', "%7D")
}

/// Returns the channel of a namespace.
pub(crate) fn channel(namespace: &str) -> String {
    format!("rr:{namespace}")
}

/// Returns the first key of a host.
pub(crate) fn state_key(namespace: &str, report: &HostReport) -> String {
    key(namespace, report, KEYS[0])
}

fn key(namespace: &str, report: &HostReport, kind: &str) -> String {
    format!("{{rr:{namespace}:{}}}:{kind}", report.host)
}

/// Builds the command of one report.
pub(crate) fn command(
    call: Call<'_>,
    namespace: &str,
    report: &HostReport,
    context: Context,
) -> Cmd {
    let mut it = match call {
        Call::Hash(hash) => cmd("EVALSHA").arg(hash).to_owned(),
        Call::Text(text) => cmd("EVAL").arg(text).to_owned(),
    };
    it.arg(KEYS.len());
    for kind in KEYS {
        it.arg(key(namespace, report, kind));
    }
    it.arg(context.node.to_string()).arg(report.run).arg(report.epoch);
    it.arg(report.ok).arg(report.failed).arg(u8::from(report.votes_failing));
    it.arg(report.probes_ok).arg(report.probes_failed).arg(report.offered);
    it.arg(context.fresh_run).arg(context.deadline);
    it.arg(channel(namespace)).arg(&*report.host);
    for gate in &report.gates {
        it.arg(gate.key).arg(millis(gate.remaining));
    }
    it
}

/// Returns the duration in ms, rounded up: a gate is never shorter for it.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Reads the reply to one report: the server's time in ms, and the advice.
pub(crate) fn read_reply(host: &Arc<str>, reply: Value) -> RedisResult<(u64, HostAdvice)> {
    type Reply = (u64, String, u64, String, i64, u64, u32, u64, Vec<String>);
    let (now, run, epoch, state, remaining, load, nodes, offered, gates): Reply =
        from_redis_value(reply)?;
    let breaker = breaker(run.parse().unwrap_or_default(), epoch, &state, remaining, load);
    let mut advice = HostAdvice::new(Arc::clone(host), breaker);
    advice.nodes = nodes;
    #[expect(clippy::cast_precision_loss, reason = "counts of a second are far below 2^52")]
    let quarters = offered as f64;
    advice.offered_per_second = Some(quarters / 4.0);
    let (pairs, _) = gates.as_chunks::<2>();
    advice.gates = pairs.iter().filter_map(|[key, left]| gate(key, left)).collect();
    Ok((now, advice))
}

fn breaker(run: u64, epoch: u64, state: &str, remaining: i64, load: u64) -> BreakerAdvice {
    let time = Duration::from_millis(remaining.unsigned_abs());
    let state = match state {
        "O" if remaining > 0 => FleetState::Open { remaining: time },
        "O" => FleetState::HalfOpen { elapsed: time },
        _ => FleetState::Closed,
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds are far below 2^52")]
    let load = load as f64;
    let mut advice = BreakerAdvice::new(run, epoch, state);
    advice.attempts_per_second = load / WINDOW;
    advice
}

fn gate(key: &str, remaining: &str) -> Option<FleetGate> {
    Some(FleetGate::new(key.parse().ok()?, Duration::from_millis(remaining.parse().ok()?)))
}

/// Reads a message of the channel; `None` if it is of no known form.
pub(crate) fn read_message(text: &str) -> Option<FleetNews> {
    let mut words = text.split(' ');
    let news = match words.next()? {
        "B" => {
            let (run, epoch) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let (state, remaining) = (words.next()?, words.next()?.parse().ok()?);
            let breaker = breaker(run, epoch, state, remaining, words.next()?.parse().ok()?);
            FleetNews::Breaker { host: words.next()?.into(), breaker }
        }
        "G" => {
            let gate = gate(words.next()?, words.next()?)?;
            FleetNews::GateClosed { host: words.next()?.into(), gate }
        }
        _ => return None,
    };
    words.next().is_none().then_some(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_of_a_namespace_do_not_move_the_hash_tag() {
        let report = HostReport::new("http://[::1]:80");
        let context = Context { node: NodeId::new(1), deadline: 0, fresh_run: 7 };
        let packed =
            command(Call::Text(SCRIPT), &escaped("a}b{c"), &report, context).get_packed_command();
        let text = String::from_utf8(packed).unwrap();
        assert!(text.contains("{rr:a%7Db%7Bc:http://[::1]:80}:st"), "{text}");
    }

    #[test]
    fn messages_are_read() {
        let state = FleetState::Open { remaining: Duration::from_secs(5) };
        let mut breaker = BreakerAdvice::new(9, 2, state);
        breaker.attempts_per_second = 25.0;
        assert_eq!(
            read_message("B 9 2 O 5000 250 http://api:80"),
            Some(FleetNews::Breaker { host: "http://api:80".into(), breaker })
        );
        let gate = FleetGate::new(u64::MAX, Duration::from_millis(1_500));
        assert_eq!(
            read_message(&format!("G {} 1500 http://api:80", u64::MAX)),
            Some(FleetNews::GateClosed { host: "http://api:80".into(), gate })
        );
    }

    #[test]
    fn foreign_messages_are_ignored() {
        for text in
            ["", "B", "G 1", "G x 1 h", "G 1 -5 h", "B 9 2 O 5000 250", "G 1 2 h more", "X 1"]
        {
            assert_eq!(read_message(text), None, "{text}");
        }
    }

    #[test]
    fn a_gate_is_rounded_up() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
