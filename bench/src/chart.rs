//! One chart for each workload: a bar for each peer, its quartiles on it.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failure;
use crate::peers::{RING, WS_EPOLL};
use crate::report::Report;

const WIDTH: i32 = 900;
const ROW: i32 = 30;
const TOP: i32 = 74;
const BOTTOM: i32 = 44;
const LEFT: i32 = 190;
const RIGHT: i32 = 190;

const INK: RGBColor = RGBColor(38, 38, 38);
const FAINT: RGBColor = RGBColor(110, 110, 110);
const OURS: RGBColor = RGBColor(24, 103, 171);
const LIMIT: RGBColor = RGBColor(120, 120, 120);
const OTHERS: RGBColor = RGBColor(176, 190, 203);

pub(crate) fn draw(report: &Report, path: &Path) -> Result<(), Failure> {
    let height = TOP + ROW * report.peers.len() as i32 + BOTTOM;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |words: &str, place: (i32, i32), size: i32, color: RGBColor, anchor: HPos| {
        let style = ("sans-serif", size).into_font().color(&color);
        area.draw(&Text::new(words.to_owned(), place, style.pos(Pos::new(anchor, VPos::Center))))
    };
    text(&format!("{}: {}", report.workload, report.what), (16, 22), 18, INK, HPos::Left)?;
    let subtitle = format!("{}; less is better; whiskers: quartiles", report.figure);
    text(&subtitle, (16, 46), 14, FAINT, HPos::Left)?;

    let most = report.peers.iter().filter_map(|row| row.outcome.good());
    let most = most.map(|it| it.figure.quartile_3).fold(f64::MIN_POSITIVE, f64::max);
    let across = |value: f64| LEFT + (value / most * f64::from(WIDTH - LEFT - RIGHT)) as i32;
    for (index, row) in report.peers.iter().enumerate() {
        let middle = TOP + ROW * index as i32 + ROW / 2;
        let color = match row.peer {
            peer if peer.starts_with("wharf") => OURS,
            RING | WS_EPOLL => LIMIT,
            _ => OTHERS,
        };
        text(row.peer, (LEFT - 10, middle), 15, INK, HPos::Right)?;
        let Some(it) = row.outcome.good() else {
            text("failed", (LEFT + 6, middle), 15, RED, HPos::Left)?;
            continue;
        };
        let bar = [(LEFT, middle - 9), (across(it.figure.median), middle + 9)];
        area.draw(&Rectangle::new(bar, color.filled()))?;
        let (low, high) = (across(it.figure.quartile_1), across(it.figure.quartile_3));
        area.draw(&PathElement::new([(low, middle), (high, middle)], INK))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(end, middle - 4), (end, middle + 4)], INK))?;
        }
        let ratio =
            it.ratio_to_wharf.map_or(String::new(), |it| format!(" ({:.2} x wharf)", it.median));
        let figure = format!("{}{ratio}", rounded(it.figure.median));
        let place = across(it.figure.median.max(it.figure.quartile_3)) + 8;
        text(&figure, (place, middle), 14, INK, HPos::Left)?;
    }
    let from = report.provenance;
    let source =
        format!("{}; Linux {}; {}; commit {}", from.date, from.kernel, from.machine, from.commit);
    text(&source, (16, height - 18), 12, FAINT, HPos::Left)?;
    area.present()?;
    Ok(())
}

/// To three digits.
fn rounded(value: f64) -> String {
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
