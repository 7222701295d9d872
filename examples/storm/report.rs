//! Tables, lines for machines, and the bars.

use crate::cases::Section;
use crate::policy::Policy;
use crate::server::Layout;
use crate::tally::{Look, Summary, Tally};
use crate::trigger::WARM_UP;
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

    fn peak(&self) -> f64 {
        self.median(|it| it.peak)
    }

    /// Returns the percentage lost during the trigger; of two routes, by the one it does not hit.
    fn lost(&self) -> f64 {
        100.0 * self.median(|it| it.lost_beside.unwrap_or(it.lost))
    }

    /// Formats a figure; `> 90` if no recovery was seen in 90 s.
    fn shown(&self, figure: f64, decimals: usize) -> String {
        if figure.is_finite() {
            format!("{figure:.decimals$}")
        } else {
            format!("> {:.0}", self.cell.patience())
        }
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
/// recovery by load, the worst amplification, and losses by load.
pub(crate) fn print_table(section: &Section, cases: &[Case]) {
    println!("\n{}:\n", section.title);
    let rows = cases.chunk_by(|one, other| (section.row)(&one.cell) == (section.row)(&other.cell));
    let mut loads: Vec<f64> = section.cells.iter().map(|it| it.load).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    let (mut heading, mut lines) = (String::new(), vec![]);
    for row in rows {
        let (mut head, mut line) =
            ("| |".to_owned(), format!("| {} |", (section.row)(&row[0].cell)));
        for fleet in row.chunk_by(|one, other| one.cell.clients == other.cell.clients) {
            let joined = |of: &dyn Fn(&Case) -> String| {
                let at = |load| fleet.iter().find(|it| it.cell.load == load);
                let shown = |&load: &f64| at(load).map_or_else(|| "–".to_owned(), of);
                loads.iter().map(shown).collect::<Vec<_>>().join("/")
            };
            let recovery = joined(&|it| it.shown(it.recovery(), 0));
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

/// Prints one run of a fleet second by second, from the trigger on.
pub(crate) fn print_trace(cell: &Cell, summary: &Summary, tally: &Tally) {
    println!(
        "\n{}, load {}: recovery {:.1} s, peak {:.2} ×",
        cell.trigger.name(),
        cell.load,
        summary.recovery,
        summary.peak
    );
    println!("  s  asked  succeed  sent  responses  backlog   nodes: open  half-open  closed");
    let seconds = tally.requests_per_second().into_iter().zip(tally.per_second());
    let all = (0..).zip(seconds.zip(&tally.looks));
    for (at, (((asked, succeed), (responses, sent)), look)) in all.skip(WARM_UP as usize) {
        let Look { backlog, open, half_open, closed } = look;
        println!(
            "{at:3} {asked:6} {succeed:8} {sent:5} {responses:10} {backlog:8} {open:13} \
             {half_open:10} {closed:7}"
        );
    }
}

/// What the worst of some cases has to reach.
struct Bar {
    name: &'static str,
    unit: &'static str,
    most: f64,
    of: fn(&Case) -> f64,
    about: fn(&Cell) -> bool,
}

const BARS: [Bar; 4] = [
    Bar {
        name: "recovery",
        unit: " s",
        most: 25.0,
        of: Case::recovery,
        about: |it| it.layout == Layout::Single,
    },
    Bar {
        name: "brownout",
        unit: " s",
        most: 20.0,
        of: Case::recovery,
        about: |it| it.layout == Layout::Single && it.trigger.is_brownout(),
    },
    Bar {
        name: "two-routes",
        unit: " s",
        most: 60.0,
        of: Case::recovery,
        about: |it| it.layout == Layout::Routes(50) && it.load <= 0.7,
    },
    Bar { name: "amplification", unit: " ×", most: 2.0, of: Case::amplification, about: |_| true },
];

/// Prints what the defaults have to reach, for each number of clients.
pub(crate) fn print_bars(cases: &[Case]) {
    println!();
    for clients in [5, 50, 500] {
        for bar in BARS {
            let large = clients == 500 && bar.name == "amplification";
            print_bar(&Bar { most: if large { 2.6 } else { bar.most }, ..bar }, clients, cases);
        }
    }
    let about = |it: &Cell| !it.trigger.is_brownout();
    let outage = Bar { name: "recovery", unit: " s", most: 150.0, of: Case::recovery, about };
    print_bar(&outage, 5_000, cases);
}

/// Prints what a fleet has to reach.
pub(crate) fn print_fleet_bars(cases: &[Case]) {
    println!();
    let recovery =
        Bar { name: "fleet-recovery", unit: " s", most: 20.0, of: Case::recovery, about: |_| true };
    let peak = Bar { name: "fleet-peak", unit: " ×", most: 1.3, of: Case::peak, about: |_| true };
    for bar in [recovery, peak] {
        print_bar_of(Policy::Fleet, &bar, 5_000, cases);
    }
}

fn print_bar(bar: &Bar, clients: usize, cases: &[Case]) {
    print_bar_of(Policy::Default, bar, clients, cases);
}

fn print_bar_of(policy: Policy, bar: &Bar, clients: usize, cases: &[Case]) {
    let is_judged = |it: &Cell| it.policy == policy && it.clients == clients && (bar.about)(it);
    let judged: Vec<_> = cases.iter().filter(|it| is_judged(&it.cell)).collect();
    let within = judged.iter().filter(|it| (bar.of)(it) <= bar.most).count();
    let worst = judged.iter().max_by(|one, other| (bar.of)(one).total_cmp(&(bar.of)(other)));
    let Some(worst) = worst else { return };
    let verdict = if within == judged.len() { "met" } else { "missed" };
    let Bar { name, unit, most, of, .. } = bar;
    println!(
        "bar {name}-{clients} {} to reach {most:.1}{unit}, {within} of {} cases, the worst: {}: \
         {verdict}",
        worst.shown(of(worst), 1),
        judged.len(),
        worst.name(),
    );
}
