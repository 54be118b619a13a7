//! What follows when an operation that succeeds at once is dealt with inline, on the spot, rather than
//! through the port like all others?
//!
//! One busy session streams, ten quiet ones send a frame now and then and measure how long the answer
//! takes, and how much of the busy session's stream was handled in between. A small server on
//! epoll receives one time for each turn of the port, up to 16 times in a row, or for as long as the
//! receives succeed; and once more, calling itself from its own completion. wharf is put beside it; on
//! Windows with several values of `Options::synchronous_completions_max`.

#[cfg(target_os = "linux")]
mod by_epoll;
mod by_wharf;
mod load;
#[cfg(target_os = "linux")]
mod recursion;

use std::time::Duration;

use instruments::{Table, is_quick, median_and_spread, quantile, verdict};
use load::Seen;

/// A server and how it is called.
struct Way {
    name: &'static str,
    run: fn(Duration) -> Seen,
    seen: Vec<Seen>,
}

fn ways() -> Vec<Way> {
    let way = |name, run| Way { name, run, seen: Vec::new() };
    #[cfg(target_os = "linux")]
    return vec![
        way("epoll, through the port", by_epoll::through_the_port as fn(Duration) -> Seen),
        way("epoll, inline, 16 in a row", by_epoll::inline_16),
        way("epoll, inline, no bound", by_epoll::inline_without_bound),
        way("wharf, readiness", by_wharf::readiness),
        way("wharf, io_uring", by_wharf::uring),
    ];
    #[cfg(not(target_os = "linux"))]
    return vec![
        way("wharf, synchronous_completions_max 0", by_wharf::none_inline as fn(Duration) -> Seen),
        way("wharf, synchronous_completions_max 16", by_wharf::inline_16),
        way("wharf, synchronous_completions_max 1 << 20", by_wharf::inline_without_bound),
    ];
}

fn main() {
    #[cfg(target_os = "linux")]
    if instruments::option("recurse").is_some() {
        recursion::recurse();
    }
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
    #[cfg(target_os = "linux")]
    {
        let depth = recursion::depth();
        println!("By recursion: {depth}\n");
        verdict(
            behind(2) > 20.0 * behind(0) && depth.overflowed,
            "inline without a bound the quiet sessions wait until the busy one is done, and recursion \
             ends the process",
        );
    }
    #[cfg(not(target_os = "linux"))]
    verdict(
        behind(2) < 20.0 * behind(0).max(load::CHUNK_KIB),
        "in wharf the quiet sessions have their turn whatever the option allows",
    );
}

fn all(way: &Way, part: fn(&Seen) -> &Vec<f64>) -> Vec<f64> {
    way.seen.iter().flat_map(part).copied().collect()
}

fn print_table(ways: &[Way]) {
    // Nothing is measured under Wine, so on Windows only what happened is told.
    let is_measured = cfg!(target_os = "linux");
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
        let measured = |values: &[f64], part: f64, decimals: usize| match is_measured {
            true => format!("{:.decimals$}", quantile(values, part)),
            false => "-".to_owned(),
        };
        let of_each = |figure: fn(&Seen) -> f64| way.seen.iter().map(figure).collect::<Vec<_>>();
        let known = |figure: fn(&Seen) -> Option<f64>| {
            let figures: Vec<f64> = way.seen.iter().filter_map(figure).collect();
            if figures.is_empty() { "-".to_owned() } else { median_and_spread(&figures, 2) }
        };
        table.row([
            way.name.to_owned(),
            ahead.len().to_string(),
            format!("{:.0}", quantile(&ahead, 0.5)),
            format!("{:.0}", quantile(&ahead, 0.99)),
            format!("{:.0}", quantile(&ahead, 1.0)),
            measured(&us, 0.5, 0),
            measured(&us, 0.99, 0),
            measured(&of_each(|seen| seen.busy_mib_per_second), 0.5, 0),
            known(|seen| seen.cpu_us_per_kib),
            known(|seen| seen.waits_per_kib),
        ]);
    }
    println!("{table}");
}
