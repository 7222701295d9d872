//! The nodes, and the table of what they know.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// What a node said.
#[derive(Clone, Default)]
struct Known {
    /// The states of the fleet's breaker that it saw, and when.
    states: Vec<(Instant, String)>,
    /// Requests that succeeded, failed, were rejected by the fleet, and by the node's own breaker.
    counts: [u64; 4],
}

pub(crate) struct Table {
    nodes: Vec<(Child, Arc<Mutex<Known>>)>,
    began: Instant,
    is_live: bool,
    /// What happened, and when.
    said: Vec<String>,
}

impl Table {
    pub(crate) fn start(count: usize, redis: &str, url: &str, check: bool) -> Result<Self> {
        let mut nodes = vec![];
        for _ in 0..count {
            let mut child = Command::new(std::env::current_exe()?)
                .args(["--node", redis, url])
                .stdout(Stdio::piped())
                .spawn()?;
            let output = child.stdout.take().ok_or("no output")?;
            let known = Arc::new(Mutex::new(Known::default()));
            let shared = Arc::clone(&known);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                    hear(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), &line);
                }
            });
            nodes.push((child, known));
        }
        let is_live = !check && std::io::stdout().is_terminal();
        Ok(Self { nodes, began: Instant::now(), is_live, said: vec![] })
    }

    fn known(&self) -> Vec<Known> {
        let known = |it: &(Child, Arc<Mutex<Known>>)| {
            it.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.nodes.iter().map(known).collect()
    }

    /// Adds a line about what happens.
    pub(crate) fn say(&mut self, line: &str) {
        let line = format!("{:5.1} s  {line}", self.began.elapsed().as_secs_f64());
        if !self.is_live {
            println!("{line}");
        }
        self.said.push(line);
    }

    /// Shows what the nodes know, for so long.
    pub(crate) fn show(&self, time: Duration) -> Result<()> {
        self.show_until(time, || false)
    }

    /// Shows what the nodes know until all saw `state` after `since`, and two seconds more; returns
    /// when the first and the last one did.
    pub(crate) fn wait(
        &self,
        since: Instant,
        state: &str,
        most: Duration,
    ) -> Result<(Instant, Instant)> {
        self.show_until(most, || self.heard(since, state).is_some())?;
        let heard = self.heard(since, state);
        let heard = heard.ok_or_else(|| format!("not all say {state} within {most:?}"))?;
        self.show(Duration::from_secs(2))?;
        Ok(heard)
    }

    fn show_until(&self, most: Duration, done: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + most;
        while Instant::now() < end && !done() {
            thread::sleep(Duration::from_millis(200));
            self.draw()?;
        }
        Ok(())
    }

    /// Draws the table anew, where it is live.
    pub(crate) fn draw(&self) -> Result<()> {
        if self.is_live {
            println!("\x1b[H\x1b[2J{}\n{}", self.rows(), self.said.join("\n"));
            std::io::stdout().flush()?;
        }
        Ok(())
    }

    /// Prints what the nodes know, where the table is not live.
    pub(crate) fn print(&self) {
        if !self.is_live {
            print!("{}", self.rows());
        }
    }

    fn heard(&self, since: Instant, state: &str) -> Option<(Instant, Instant)> {
        let first = |it: Known| {
            let is_it = |it: &&(Instant, String)| it.0 >= since && it.1 == state;
            it.states.iter().find(is_it).map(|it| it.0)
        };
        let times: Option<Vec<_>> = self.known().into_iter().map(first).collect();
        let times = times?;
        Some((*times.iter().min()?, *times.iter().max()?))
    }

    /// Returns how many requests failed or were rejected.
    pub(crate) fn failures(&self) -> u64 {
        self.known().iter().map(|it| it.counts[1..].iter().sum::<u64>()).sum()
    }

    fn rows(&self) -> String {
        let mut text = format!(
            "  {:4} {:>24} {:>6} {:>7} {:>9} {:>7}\n",
            "node", "fleet says", "ok", "failed", "by fleet", "by own"
        );
        for (nth, known) in self.known().iter().enumerate() {
            let state = known.states.last().map_or_else(String::new, |(at, state)| {
                format!("{state} since {:.2} s", (*at - self.began).as_secs_f64())
            });
            let [ok, failed, by_fleet, by_own] = known.counts;
            text += &format!("  {nth:4} {state:>24} {ok:6} {failed:7} {by_fleet:9} {by_own:7}\n");
        }
        text
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn hear(known: &mut Known, line: &str) {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["fleet", state] => known.states.push((Instant::now(), state.to_owned())),
        ["counts", ref counts @ ..] => {
            for (to, count) in known.counts.iter_mut().zip(counts) {
                *to = count.parse().unwrap_or_default();
            }
        }
        _ => {}
    }
}
