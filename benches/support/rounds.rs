//! Cases that take turns, so that a machine that is busy is busy for all of them.

use std::{
    env, process,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use rand::seq::SliceRandom;

use super::median;

/// How long a case has its turn: shorter than the slices of time by which a busy machine is shared,
/// so that most turns are not interrupted.
const TURN: Duration = Duration::from_micros(300);
/// The same for several threads, which take a while to get going.
const TURN_OF_MANY: Duration = Duration::from_millis(5);

type Run<'a> = Box<dyn Fn(u64) + Sync + 'a>;

/// Something to measure.
pub(crate) struct Case<'a> {
    name: &'static str,
    run: Run<'a>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(name: &'static str, call: impl Fn() + Sync + 'a) -> Self {
        Self::batch(name, move |calls| (0..calls).for_each(|_| call()))
    }

    /// A case that makes as many calls as it is told.
    pub(crate) fn batch(name: &'static str, run: impl Fn(u64) + Sync + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// The time from the start of the first thread to the end of the last.
    fn turn(&self, threads: usize, calls: u64) -> Duration {
        if threads == 1 {
            // What the case before has left in the caches is none of this one's doing.
            (self.run)(calls / 4);
            let start = Instant::now();
            (self.run)(calls);
            return start.elapsed();
        }
        let barrier = Barrier::new(threads);
        let times: Vec<_> = thread::scope(|scope| {
            let run = || {
                barrier.wait();
                let start = Instant::now();
                (self.run)(calls);
                (start, Instant::now())
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running.into_iter().filter_map(|it| it.join().ok()).collect()
        });
        let start = times.iter().map(|it| it.0).min();
        let end = times.iter().map(|it| it.1).max();
        start.zip(end).map(|(start, end)| end - start).unwrap_or_default()
    }
}

/// For a profiler: with `--only CASE CALLS` on the command line, makes so many calls of one case and
/// ends the program, once it comes to that case. Returns whether it is yet to come.
fn only(cases: &[Case<'_>]) -> bool {
    let arguments: Vec<String> = env::args().skip_while(|it| it != "--only").collect();
    let [_, name, calls, ..] = &arguments[..] else { return false };
    if let Some(case) = cases.iter().find(|it| it.name == name) {
        (case.run)(calls.parse().expect("a number"));
        process::exit(0);
    }
    true
}

/// What the cases took, round by round: nanoseconds of a core for each call.
pub(crate) struct Rounds {
    names: Vec<&'static str>,
    rounds: Vec<Vec<f64>>,
}

impl Rounds {
    /// Lets the cases take turns for `time`, each in `threads` threads at once.
    ///
    /// With more threads than cores, the threads of a core share it: what counts is what a call
    /// costs the machine, not how long its thread had to wait for a core.
    pub(crate) fn of(threads: usize, time: Duration, cases: &[Case<'_>]) -> Self {
        if only(cases) {
            return Self { names: Vec::new(), rounds: Vec::new() };
        }
        let cores = thread::available_parallelism().map_or(1, usize::from).min(threads);
        let calls: Vec<_> = cases
            .iter()
            .map(|case| {
                let turn = if threads == 1 { TURN } else { TURN_OF_MANY };
                let mut calls = 16;
                // Never by the first alone, which may be slow for a reason of its own.
                while (0..3).any(|_| case.turn(threads, calls) < turn) {
                    calls *= 2;
                }
                calls
            })
            .collect();
        let mut rounds = Vec::new();
        let mut order: Vec<_> = (0..cases.len()).collect();
        let until = Instant::now() + time;
        while Instant::now() < until {
            let mut round = vec![f64::NAN; cases.len()];
            order.shuffle(&mut rand::rng());
            for &it in &order {
                let time = cases[it].turn(threads, calls[it]).as_nanos() as f64;
                round[it] = time * cores as f64 / (calls[it] * threads as u64) as f64;
            }
            rounds.push(round);
        }
        Self { names: cases.iter().map(|it| it.name).collect(), rounds }
    }

    /// What a call of this case costs.
    pub(crate) fn of_case(&self, name: &str) -> f64 {
        self.median(|cost| cost(name))
    }

    /// What a call of one case costs more than one of another; by differences within a round, which
    /// a busy machine moves less than those between medians.
    pub(crate) fn added(&self, name: &str, to: &str) -> f64 {
        self.median(|cost| cost(name) - cost(to))
    }

    pub(crate) fn print(&self, title: &str) {
        println!("\n{title:<40} {:>8}", "ns");
        for name in &self.names {
            println!("{name:<40} {:>8.1}", self.of_case(name));
        }
    }

    fn median(&self, value: impl Fn(&dyn Fn(&str) -> f64) -> f64) -> f64 {
        let index = |name: &str| self.names.iter().position(|it| *it == name).expect("a case");
        median(self.rounds.iter().map(|round| value(&|name| round[index(name)])).collect())
    }
}
