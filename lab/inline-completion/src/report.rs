//! The ways taken in turns, their table, and the verdict.

use std::time::Duration;

use instruments::{Table, is_quick, median_and_spread, quantile, verdict};

use crate::load::Seen;
use crate::{by_epoll, by_wharf, recursion};

/// A server and how it is called.
struct Way {
    name: &'static str,
    run: fn(Duration) -> Seen,
    seen: Vec<Seen>,
}

fn ways() -> Vec<Way> {
    let way = |name, run| Way { name, run, seen: Vec::new() };
    vec![
        way("epoll, through the port", by_epoll::through_the_port as fn(Duration) -> Seen),
        way("epoll, inline, 16 in a row", by_epoll::inline_16),
        way("epoll, inline, no bound", by_epoll::inline_without_bound),
        way("wharf, readiness", by_wharf::readiness),
        way("wharf, io_uring", by_wharf::uring),
    ]
}

pub fn run() {
    let (rounds, streams_for) =
        if is_quick() { (1, Duration::from_millis(500)) } else { (7, Duration::from_secs(1)) };
    let mut ways = ways();
    for _ in 0..rounds {
        for way in &mut ways {
            way.seen.push((way.run)(streams_for));
        }
    }
    println!("{} rounds; in each the busy session streams for {streams_for:?}\n", rounds);
    print_table(&ways);

    // How far the quiet ones fall behind, in KiB of the busy one.
    let behind = |at: usize| quantile(&all(&ways[at], |seen| &seen.kib_ahead), 0.99);
    let depth = recursion::depth();
    println!("By recursion: {depth}\n");
    verdict(
        behind(2) > 20.0 * behind(0) && depth.overflowed,
        "inline without a bound the quiet sessions wait until the busy one is done, and recursion \
         ends the process",
    );
}

fn all(way: &Way, part: fn(&Seen) -> &Vec<f64>) -> Vec<f64> {
    way.seen.iter().flat_map(part).copied().collect()
}

fn print_table(ways: &[Way]) {
    let mut table = Table::new([
        "server",
        "quiet frames",
        "KiB ahead: median",
        "99 %",
        "most",
        "µs: median",
        "99 %",
        "busy MiB/s",
        "CPU µs/KiB",
        "waits/KiB",
    ]);
    for way in ways {
        let (ahead, us) = (all(way, |seen| &seen.kib_ahead), all(way, |seen| &seen.latency_us));
        let at = |values: &[f64], part: f64| format!("{:.0}", quantile(values, part));
        let of_each = |figure: fn(&Seen) -> f64| way.seen.iter().map(figure).collect::<Vec<_>>();
        let known = |figure: fn(&Seen) -> Option<f64>| {
            let figures: Vec<f64> = way.seen.iter().filter_map(figure).collect();
            if figures.is_empty() { "-".to_owned() } else { median_and_spread(&figures, 2) }
        };
        table.row([
            way.name.to_owned(),
            ahead.len().to_string(),
            at(&ahead, 0.5),
            at(&ahead, 0.99),
            at(&ahead, 1.0),
            at(&us, 0.5),
            at(&us, 0.99),
            at(&of_each(|seen| seen.busy_mib_per_second), 0.5),
            known(|seen| seen.cpu_us_per_kib),
            known(|seen| seen.waits_per_kib),
        ]);
    }
    println!("{table}");
}
