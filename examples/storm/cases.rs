//! Which worlds are looked at.

use crate::policy::Policy;
use crate::server::{Behavior, Layout};
use crate::trigger::{Fault, Trigger};
use crate::world::Cell;

const LOADS: [f64; 3] = [0.5, 0.7, 0.9];
const FLEETS: [usize; 3] = [5, 50, 500];

const STALLED: Trigger = Trigger::new(Fault::Stalled, 10);
const SILENT: Trigger = Trigger::new(Fault::Silent, 10);
const REFUSED: Trigger = Trigger::new(Fault::Refused, 10);
const BACK_END_STALLED: Trigger = Trigger::new(Fault::Stalled, 30);
const BACK_END_REFUSED: Trigger = Trigger::new(Fault::Refused, 30);
const BROWNOUT: Trigger = Trigger::new(Fault::Brownout(20), 30);

/// What all cells have in common before they differ; what is zero here is filled in later.
const BASE: Cell = Cell {
    policy: Policy::Default,
    layout: Layout::Single,
    behavior: Behavior::WorksOn,
    trigger: STALLED,
    clients: 0,
    load: 0.0,
    timeout: 1,
    seed: 0,
};

/// Worlds that are shown in one table.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Names what differs between the rows.
    pub(crate) row: fn(&Cell) -> String,
    pub(crate) cells: Vec<Cell>,
}

/// Returns everything, in the order in which it is shown.
pub(crate) fn all() -> Vec<Section> {
    vec![
        Section {
            title: "Ten seconds of nothing",
            row: |it| it.trigger.name(),
            cells: grid([STALLED, SILENT, REFUSED].map(|trigger| Cell { trigger, ..BASE })),
        },
        Section {
            title: "Capacity drops",
            row: |it| it.trigger.name(),
            cells: grid(drops()).into_iter().filter(is_overloaded).collect(),
        },
        Section {
            title: "Attempt timeouts",
            row: |it| format!("{}, {} s", it.trigger.name(), it.timeout),
            cells: grid([3, 10].into_iter().flat_map(|timeout| {
                [STALLED, BROWNOUT].map(|trigger| Cell { timeout, trigger, ..BASE })
            })),
        },
        Section {
            title: "Servers",
            row: |it| format!("{}, {}", it.trigger.name(), it.behavior.name()),
            cells: grid(
                [Behavior::Cancels, Behavior::Sheds, Behavior::ShedsWithHint].into_iter().flat_map(
                    |behavior| {
                        [STALLED, BROWNOUT].map(|trigger| Cell { behavior, trigger, ..BASE })
                    },
                ),
            ),
        },
        Section {
            title: "Two routes, one of them hit; lost: of the other",
            row: |it| format!("{}, {}", it.layout.name(), it.trigger.name()),
            cells: grid([50, 20].into_iter().flat_map(|hit| {
                let layout = Layout::Routes(hit);
                [STALLED, BROWNOUT].map(|trigger| Cell { layout, trigger, ..BASE })
            })),
        },
        Section {
            title: "Three back ends, one of them hit",
            row: |it| it.trigger.name(),
            cells: grid([BACK_END_STALLED, BACK_END_REFUSED].map(|trigger| Cell {
                layout: Layout::Balancer,
                trigger,
                ..BASE
            })),
        },
        Section {
            title: "Other policies",
            row: |it| format!("{}, {}, {}", it.policy.name(), it.layout.name(), it.trigger.name()),
            cells: policies().collect(),
        },
        Section {
            title: "5,000 clients",
            row: |it| it.trigger.name(),
            cells: of_fleets(
                [STALLED, SILENT, BROWNOUT].map(|trigger| Cell { trigger, ..BASE }),
                &[5_000],
            )
            .collect(),
        },
    ]
}

/// Returns large numbers of clients, each by itself and as one fleet.
pub(crate) fn fleets() -> Section {
    let triggers = [STALLED, SILENT, BROWNOUT];
    let rows = triggers.into_iter().flat_map(|trigger| {
        [Policy::Default, Policy::Fleet].map(|policy| Cell { policy, trigger, ..BASE })
    });
    Section {
        title: "5,000 clients, by themselves and as one fleet whose store takes 50 ms",
        row: |it| format!("{}, {}", it.trigger.name(), it.policy.name()),
        cells: of_fleets(rows, &[5_000]).collect(),
    }
}

/// Returns a small part of it.
pub(crate) fn quick() -> Section {
    let base = Cell { clients: 5, load: 0.5, ..BASE };
    let policies = [Policy::NoRetries, Policy::Plain, Policy::Default, Policy::Fleet];
    let mut cells = policies.map(|policy| Cell { policy, ..base }).to_vec();
    let layouts = [Layout::Routes(50), Layout::Balancer];
    cells.extend(layouts.map(|layout| Cell { layout, behavior: Behavior::Sheds, ..base }));
    Section {
        title: "Stalled 10 s, load .5",
        row: |it| format!("{}, {}, {}", it.policy.name(), it.layout.name(), it.behavior.name()),
        cells,
    }
}

/// Returns what the chart shows: every policy in the same outage.
pub(crate) fn charted() -> Vec<Cell> {
    let cell = Cell { clients: 50, load: 0.7, seed: 1, ..BASE };
    Policy::ALL.map(|policy| Cell { policy, ..cell }).to_vec()
}

fn drops() -> impl Iterator<Item = Cell> {
    [20, 60, 75, 85].into_iter().flat_map(|left| {
        [30, 60].map(|lasts| Cell { trigger: Trigger::new(Fault::Brownout(left), lasts), ..BASE })
    })
}

fn is_overloaded(cell: &Cell) -> bool {
    match cell.trigger.fault {
        Fault::Brownout(left) => cell.load * 100.0 > f64::from(left),
        Fault::Stalled | Fault::Silent | Fault::Refused => true,
    }
}

fn policies() -> impl Iterator<Item = Cell> {
    let in_outage = Policy::ALL.map(|policy| Cell { policy, ..BASE });
    // What the layout alone costs.
    let layouts = [(Layout::Routes(20), STALLED), (Layout::Balancer, BACK_END_STALLED)];
    let without = layouts.map(|(layout, trigger)| {
        let policy = Policy::NoRetries;
        Cell { policy, layout, trigger, ..BASE }
    });
    of_fleets(in_outage.into_iter().chain(without), &FLEETS[..2])
}

fn grid(rows: impl IntoIterator<Item = Cell>) -> Vec<Cell> {
    of_fleets(rows, &FLEETS).collect()
}

fn of_fleets(rows: impl IntoIterator<Item = Cell>, fleets: &[usize]) -> impl Iterator<Item = Cell> {
    rows.into_iter().flat_map(move |row| {
        fleets.iter().flat_map(move |&clients| LOADS.map(|load| Cell { clients, load, ..row }))
    })
}
