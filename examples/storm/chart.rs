//! Goodput and attempts over time, as a picture.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::policy::Policy;
use crate::server::CAPACITY;
use crate::tally::Tally;
use crate::trigger::WARM_UP;
use crate::world::Cell;

/// How much of the time is shown.
const SECONDS: usize = 70;

const SIZE: (u32, u32) = (960, 640);

/// Those that are shown. The others look like one of them.
const SHOWN: [(Policy, RGBColor); 5] = [
    (Policy::Plain, RGBColor(214, 39, 40)),
    (Policy::Reqwest, RGBColor(255, 127, 14)),
    (Policy::Finagle, RGBColor(148, 103, 189)),
    (Policy::NoRetries, RGBColor(127, 127, 127)),
    (Policy::Default, RGBColor(31, 119, 180)),
];

pub(crate) fn write(file: &str, lived: &[(Cell, Tally)]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let (cell, _) = lived.first().context("nothing to show")?;
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let lasts = cell.trigger.lasts;
    let title = format!(
        "{} clients, load {:.0} %: for {lasts} s the server stalls",
        cell.clients,
        100.0 * cell.load
    );
    let root = root.titled(&title, ("sans-serif", 20))?;
    let (above, below) = root.split_vertically(SIZE.1 / 2 - 20);
    panel(&above, "successful responses per second", CAPACITY, lived, |it| it.0)?;
    panel(&below, "attempts per second", 4.5 * cell.rate(), lived, |it| it.1)?;
    root.present()?;
    println!("\nwrote {file}");
    Ok(())
}

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    name: &str,
    highest: f64,
    lived: &[(Cell, Tally)],
    of: fn((u32, u32)) -> u32,
) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..SECONDS as f64, 0.0..highest)?;
    let ends = lived.first().map_or(0.0, |it| it.0.trigger.ends());
    let trigger = [(WARM_UP, 0.0), (ends, highest)];
    chart.draw_series([Rectangle::new(trigger, RGBColor(240, 240, 240).filled())])?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("seconds").y_desc(name).draw()?;
    for (policy, color) in SHOWN {
        let Some((_, tally)) = lived.iter().find(|it| it.0.policy == policy) else { continue };
        let seconds = tally.per_second().into_iter().take(SECONDS).enumerate();
        let points = seconds.map(|(second, counts)| (second as f64 + 0.5, f64::from(of(counts))));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(policy.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    let anchor = Pos::new(HPos::Left, VPos::Center);
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 13).into_font().into_text_style(area).pos(anchor))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
