//! Tables, lines for machines, and the bars.

use crate::cases::Section;
use crate::policy::Policy;
use crate::server::{Behavior, Layout};
use crate::tally::Summary;
use crate::trigger::Fault;
use crate::world::Cell;

/// A cell, and what became of it with each seed.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) cell: Cell,
    pub(crate) seeds: Vec<Summary>,
}

impl Case {
    fn median(&self, of: impl Fn(&Summary) -> f64) -> f64 {
        let mut all: Vec<f64> = self.seeds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn recovery(&self) -> f64 {
        self.median(|it| it.recovery)
    }

    fn amplification(&self) -> f64 {
        self.median(|it| it.worst)
    }

    /// Returns the percentage lost during the trigger; of two routes, by the one it does not hit.
    fn lost(&self) -> f64 {
        100.0 * self.median(|it| it.lost_beside.unwrap_or(it.lost))
    }

    fn name(&self) -> String {
        let Cell { layout, behavior, trigger, clients, load, timeout, .. } = self.cell;
        let (layout, behavior, trigger) = (layout.name(), behavior.name(), trigger.name());
        format!(
            "{trigger}, {layout}, N = {clients}, load {load}, {timeout} s per attempt, {behavior}"
        )
    }
}

/// Prints a table in Markdown: a line for each row of the section, for each number of clients
/// recoveries, amplification and losses, by load.
pub(crate) fn print_table(section: &Section, cases: &[Case]) {
    println!("\n{}:\n", section.title);
    let rows = cases.chunk_by(|one, other| (section.row)(&one.cell) == (section.row)(&other.cell));
    let (mut heading, mut lines) = (String::new(), vec![]);
    for row in rows {
        let (mut head, mut line) =
            ("| |".to_owned(), format!("| {} |", (section.row)(&row[0].cell)));
        for fleet in row.chunk_by(|one, other| one.cell.clients == other.cell.clients) {
            let joined =
                |of: &dyn Fn(&Case) -> String| fleet.iter().map(of).collect::<Vec<_>>().join("/");
            let recovery = joined(&|it| seconds(it.recovery()));
            let amplification = fleet.iter().map(Case::amplification).fold(0.0, f64::max);
            let lost = joined(&|it| format!("{:.0}", it.lost()));
            head += &format!(" N = {}: s | × | lost % |", fleet[0].cell.clients);
            line += &format!(" {recovery} | {amplification:.1} | {lost} |");
        }
        if head != heading {
            lines.push(format!("{head}\n|{}", "---|".repeat(head.matches('|').count() - 1)));
            heading = head;
        }
        lines.push(line);
    }
    println!("{}", lines.join("\n"));
}

fn seconds(recovery: f64) -> String {
    if recovery.is_finite() { format!("{recovery:.0}") } else { "never".to_owned() }
}

pub(crate) fn print_csv(cases: &[Case]) {
    println!(
        "policy,layout,server,trigger,clients,load,timeout_s,seed,recovery_s,\
         amplification_worst_5s,amplification,lost_share,lost_share_after,\
         lost_share_other_route,rejected"
    );
    for Case { cell, seeds } in cases {
        let Cell { policy, layout, behavior, trigger, clients, load, timeout, .. } = cell;
        let (policy, layout, behavior) = (policy.name(), layout.name(), behavior.name());
        for (seed, it) in (1..).zip(seeds) {
            let Summary { recovery, worst, overall, lost, lost_after, rejected, .. } = it;
            let beside = it.lost_beside.map_or_else(String::new, |it| format!("{it:.4}"));
            println!(
                "{policy},{layout},{behavior},{},{clients},{load},{timeout},{seed},{recovery:.1},\
                 {worst:.3},{overall:.3},{lost:.4},{lost_after:.4},{beside},{rejected}",
                trigger.name(),
            );
        }
    }
}

/// Prints what the defaults have to reach, each judged by the worst of the cases it is about.
pub(crate) fn print_bars(cases: &[Case]) {
    let defaults: Vec<&Case> =
        cases.iter().filter(|it| it.cell.policy == Policy::Default).collect();
    let bar = |name: &str, unit, most, of: fn(&Case) -> f64, about: &dyn Fn(&Cell) -> bool| {
        let about: Vec<_> = defaults.iter().filter(|it| about(&it.cell)).collect();
        let within = about.iter().filter(|it| of(it) <= most).count();
        let Some(worst) = about.iter().max_by(|one, other| of(one).total_cmp(&of(other))) else {
            return;
        };
        let verdict = if of(worst) <= most { "met" } else { "missed" };
        let reached = of(worst);
        let reached =
            if reached.is_finite() { format!("{reached:.1}") } else { "never".to_owned() };
        println!(
            "bar {name} {reached} to reach {most:.1}{unit}, {within} of {} cases, worst in \
             ({}): {verdict}",
            about.len(),
            worst.name(),
        );
    };
    println!();
    for clients in [5, 50, 500] {
        let single = |it: &Cell| it.clients == clients && it.layout == Layout::Single;
        bar(&format!("recovery-{clients}"), " s", 25.0, Case::recovery, &single);
        let brownout = |it: &Cell| single(it) && it.trigger.is_brownout();
        bar(&format!("brownout-{clients}"), " s", 20.0, Case::recovery, &brownout);
        let routes =
            |it: &Cell| it.clients == clients && it.layout == Layout::Routes(50) && it.load <= 0.7;
        bar(&format!("two-routes-{clients}"), " s", 60.0, Case::recovery, &routes);
        let most = if clients > 50 { 2.6 } else { 2.0 };
        let fleet = |it: &Cell| it.clients == clients;
        bar(&format!("amplification-{clients}"), " ×", most, Case::amplification, &fleet);
    }
    let large = |it: &Cell| {
        it.clients == 5_000
            && it.trigger.fault == Fault::Stalled
            && it.behavior == Behavior::WorksOn
    };
    bar("recovery-5000", " s", 150.0, Case::recovery, &large);
}
