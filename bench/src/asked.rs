//! What is asked of wharf, and what the results show: a table in Markdown.
//!
//! Each line is a ratio within rounds, or a figure of its own, and a bound. What does not hold stands in the
//! table like what does. Beside the ratio of the servers' CPU time stands that of server and load together:
//! on one machine the kernel does some of a connection's work (acknowledgements above all) now on the
//! one side's core and now on the other's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::figures::Spread;
use crate::measure::Found;
use crate::peers::WS_EPOLL;
use crate::workloads::{self, Measure, Workload};

const URING: &str = "wharf-uring";
const READINESS: &str = "wharf-readiness";
const RING: &str = "ring";
const MIO: &str = "mio";
const TOKIO: &str = "tokio-ct";
const TOKIO_THREADS: &str = "tokio-mt";
const USUAL: &str = "tokio-sessions-usual";
const CAREFUL: &str = "tokio-sessions-careful";
const PLAIN_URING: &str = "wharf-plain-uring";
const PLAIN_READINESS: &str = "wharf-plain-readiness";
const UWS: &str = "uwebsockets";

/// What a figure is compared with.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Peer(&'static str),
    /// The same, but what is bounded is how much more the figure is.
    MoreThan(&'static str),
    /// The best of all that are not wharf, by their medians; what is written by hand is the limit, not a peer.
    BestPeer,
    /// Nothing: the figure itself is bounded.
    Nothing,
}

struct Asked {
    workloads: &'static [&'static str],
    of: &'static str,
    /// The workload's own measure, if it is not said.
    measure: Option<Measure>,
    beside: Beside,
    max: f64,
}

const fn asked(
    workloads: &'static [&'static str],
    of: &'static str,
    beside: Beside,
    max: f64,
) -> Asked {
    Asked { workloads, of, measure: None, beside, max }
}

/// The memory for each of ten that send 8 MiB and never read. Half a MiB of it are lent buffers of the worker's
/// own: such streams are the first to touch all 5 MiB of them.
const fn stalled(of: &'static str) -> Asked {
    Asked {
        measure: Some(Measure::Memory),
        ..asked(&["mixed"], of, Beside::Nothing, 1024.0 * 1024.0)
    }
}

const SMALL: &[&str] = &["echo-64x50", "echo-64x1000", "deep-64x50"];
const LARGE: &[&str] = &[
    "echo-4096x50",
    "echo-4097x50",
    "echo-16384x50",
    "echo-16385x50",
    "echo-65536x50",
    "echo-262144x50",
    "echo-1048576x10",
    "bulk-65536x50",
];
const FLOODED: &[&str] = &["broadcast-500", "broadcast-5000"];
const PACED: &[&str] = &["broadcast-paced"];
const TWO: &[&str] = &["two-echo-64x50", "two-churn"];
const WS_BROADCASTS: &[&str] = &["ws-broadcast-500", "ws-broadcast-500x1"];

static ALL: &[Asked] = &[
    asked(SMALL, URING, Beside::Peer(RING), 1.05),
    asked(SMALL, URING, Beside::BestPeer, 1.0),
    asked(&["echo-64x10000"], URING, Beside::BestPeer, 1.05),
    asked(LARGE, URING, Beside::BestPeer, 1.05),
    asked(&["churn"], URING, Beside::Peer(RING), 1.05),
    asked(&["churn"], URING, Beside::Peer(TOKIO), 0.95),
    asked(&["idle"], URING, Beside::Nothing, 400.0),
    asked(&["idle"], READINESS, Beside::Nothing, 300.0),
    asked(FLOODED, URING, Beside::Peer(USUAL), 0.2),
    asked(FLOODED, URING, Beside::Peer(RING), 1.05),
    Asked { measure: Some(Measure::Cpu), ..asked(PACED, URING, Beside::Peer(USUAL), 0.85) },
    Asked { measure: Some(Measure::Cpu), ..asked(PACED, URING, Beside::Peer(RING), 1.05) },
    asked(PACED, URING, Beside::Peer(RING), 1.0),
    asked(&["send-2"], URING, Beside::Peer(USUAL), 0.12),
    asked(&["send-2"], URING, Beside::Peer(CAREFUL), 1.0),
    asked(&["send-50k"], URING, Beside::Peer(CAREFUL), 0.85),
    asked(&["send-200k", "send-400k"], URING, Beside::Peer(CAREFUL), 0.9),
    asked(&["mixed"], URING, Beside::Nothing, 1.2),
    asked(&["mixed"], READINESS, Beside::Nothing, 1.2),
    stalled(URING),
    stalled(READINESS),
    asked(SMALL, READINESS, Beside::Peer(MIO), 1.0),
    asked(&["echo-64x10000"], READINESS, Beside::Peer(MIO), 1.0),
    asked(LARGE, READINESS, Beside::Peer(MIO), 1.0),
    asked(&["churn"], READINESS, Beside::Peer(MIO), 1.0),
    asked(&["echo-64x50", "echo-64x1000"], READINESS, Beside::Peer(TOKIO), 0.95),
    asked(FLOODED, READINESS, Beside::Peer(USUAL), 0.2),
    asked(&["send-2"], READINESS, Beside::Peer(USUAL), 0.12),
    asked(&["send-2"], READINESS, Beside::Peer(CAREFUL), 1.0),
    asked(TWO, URING, Beside::Peer(TOKIO_THREADS), 1.0 / 1.1),
    Asked {
        measure: Some(Measure::Cpu),
        ..asked(TWO, URING, Beside::Peer(TOKIO_THREADS), 1.0 / 1.1)
    },
    asked(&["ws-64x50"], URING, Beside::Peer(UWS), 1.0),
    asked(&["ws-64x50"], READINESS, Beside::Peer(UWS), 1.05),
    asked(&["ws-64x50"], URING, Beside::Peer(PLAIN_URING), 1.08),
    asked(&["ws-64x50"], READINESS, Beside::Peer(PLAIN_READINESS), 1.08),
    asked(&["ws-64x1000"], URING, Beside::Peer(UWS), 1.0),
    asked(&["ws-64x1000"], READINESS, Beside::Peer(UWS), 1.0),
    asked(&["ws-16k"], URING, Beside::Peer(UWS), 1.05),
    asked(&["ws-16k"], READINESS, Beside::Peer(UWS), 1.05),
    asked(&["ws-broadcast-500"], URING, Beside::Peer(UWS), 0.9),
    asked(&["ws-broadcast-500"], READINESS, Beside::Peer(UWS), 0.9),
    asked(&["ws-broadcast-500x1"], URING, Beside::Peer(UWS), 1.0),
    asked(&["ws-broadcast-500x1"], READINESS, Beside::Peer(UWS), 1.0),
    asked(WS_BROADCASTS, URING, Beside::Peer(PLAIN_URING), 1.05),
    asked(WS_BROADCASTS, READINESS, Beside::Peer(PLAIN_READINESS), 1.05),
    asked(&["ws-idle"], URING, Beside::MoreThan(PLAIN_URING), 48.0),
    asked(&["ws-idle"], READINESS, Beside::MoreThan(PLAIN_READINESS), 48.0),
];

/// Everything that was measured of one workload, by peer; in each round in which it was.
type Rounds = Vec<BTreeMap<String, Found>>;

/// Prints the table. Whether everything that is asked is there, and holds.
pub(crate) fn print(results: &Path) -> Result<bool, Failure> {
    println!("| workload | of | what | beside | asked | measured | | both sides |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut good = true;
    for asked in ALL {
        for name in asked.workloads {
            let workload = workloads::ALL.iter().find(|it| it.name == *name);
            let workload = workload.ok_or_else(|| format!("there is no workload {name}"))?;
            let path = results.join(format!("{name}.json"));
            let rounds = if path.exists() { read(&path)? } else { Rounds::new() };
            good &= print_line(asked, workload, &rounds);
        }
    }
    Ok(good)
}

fn print_line(asked: &Asked, workload: &Workload, rounds: &Rounds) -> bool {
    let measure = asked.measure.unwrap_or(workload.measure);
    let Judged { beside, spread, both_sides } = judged(asked, measure, rounds);
    let what = match measure {
        Measure::Cpu => format!("CPU for each {}", workload.operation),
        Measure::Memory if workload.name == "mixed" => "bytes for each that stalls".to_owned(),
        Measure::Memory if matches!(asked.beside, Beside::MoreThan(_)) => {
            "bytes more for each session".to_owned()
        }
        Measure::Memory => "bytes for each session".to_owned(),
        Measure::Time => format!("time for each {}", workload.operation),
        Measure::P99 => "p99".to_owned(),
        Measure::P99Ratio => "p99 with : without".to_owned(),
    };
    let shown = |value: f64| match measure {
        Measure::Memory => format!("{value:.0} B"),
        _ => format!("{value:.2}"),
    };
    let (found, verdict) = match spread {
        None => ("not measured".to_owned(), "?"),
        Some(it) => {
            let found = format!(
                "{} ({} to {})",
                shown(it.median),
                shown(it.quartile_1),
                shown(it.quartile_3)
            );
            (found, verdict(it, asked.max))
        }
    };
    let both_sides = both_sides.map_or(String::new(), |it| format!("{:.2}", it.median));
    println!(
        "| `{}` | {} | {what} | {beside} | {} | {found} | {verdict} | {both_sides} |",
        workload.name,
        asked.of.trim_start_matches("wharf-"),
        shown(asked.max),
    );
    verdict == "yes"
}

/// Not above the bound; or within the noise of it, when a quarter of the rounds is not.
fn verdict(spread: Spread, max: f64) -> &'static str {
    if spread.median <= max {
        "yes"
    } else if spread.quartile_1 <= max {
        "within the noise"
    } else {
        "no"
    }
}

/// With whom it was compared, and how it came out.
struct Judged {
    beside: String,
    spread: Option<Spread>,
    /// The CPU time of server and load together, where it is CPU time that is compared.
    both_sides: Option<Spread>,
}

fn judged(asked: &Asked, measure: Measure, rounds: &Rounds) -> Judged {
    let figures = |peer: &str| {
        let of_peer = rounds.iter().filter_map(|round| round.get(peer));
        Spread::of(of_peer.map(|found| found.figure(measure)))
    };
    let nobody = |spread| Judged { beside: String::new(), spread, both_sides: None };
    let peer = match asked.beside {
        Beside::Nothing => return nobody(figures(asked.of)),
        Beside::Peer(peer) | Beside::MoreThan(peer) => peer.to_owned(),
        Beside::BestPeer => {
            let names = rounds.iter().flat_map(BTreeMap::keys);
            let by_hand = |name: &str| [RING, WS_EPOLL].contains(&name);
            let peers = names.filter(|name| !name.starts_with("wharf-") && !by_hand(name));
            let median = |peer: &&String| figures(peer).map_or(f64::INFINITY, |it| it.median);
            let best = peers.min_by(|one, other| median(one).total_cmp(&median(other)));
            let Some(best) = best else { return nobody(None) };
            best.clone()
        }
    };
    let beside = |figure: &dyn Fn(&Found) -> f64| {
        let both = |round: &BTreeMap<String, Found>| {
            Some((figure(round.get(asked.of)?), figure(round.get(&peer)?)))
        };
        Spread::of(rounds.iter().filter_map(both).map(|(own, peers)| match asked.beside {
            Beside::MoreThan(_) => own - peers,
            _ => own / peers,
        }))
    };
    let spread = beside(&|found| found.figure(measure));
    let is_cpu = matches!(measure, Measure::Cpu);
    let both_sides = is_cpu.then(|| beside(&Found::both_cpu_us_per_operation)).flatten();
    Judged { beside: peer, spread, both_sides }
}

fn read(path: &Path) -> Result<Rounds, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    let report: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
    let no_rounds = Vec::new();
    let mut rounds = Rounds::new();
    for round in report["measurements"].as_array().unwrap_or(&no_rounds) {
        let mut found = BTreeMap::new();
        for (peer, outcome) in round.as_object().into_iter().flatten() {
            if outcome.get("failed").is_none() {
                let one = serde_json::from_value(outcome.clone());
                found.insert(peer.clone(), one.map_err(|error| unreadable(&error))?);
            }
        }
        rounds.push(found);
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(cpu_s: f64) -> Found {
        Found { operations: 1_000_000, secs: 1.0, server_cpu_s: cpu_s, ..Found::default() }
    }

    fn rounds(figures: &[(&str, [f64; 3])]) -> Rounds {
        let round = |nth: usize| {
            figures.iter().map(|(peer, cpu_s)| (peer.to_string(), found(cpu_s[nth]))).collect()
        };
        (0..3).map(round).collect()
    }

    #[test]
    fn a_ratio_is_taken_within_rounds_and_beside_the_best_that_is_neither_wharf_nor_the_ring() {
        let rounds = rounds(&[
            (URING, [1.0, 2.0, 3.0]),
            (READINESS, [0.1; 3]),
            (RING, [0.5, 1.0, 1.5]),
            (MIO, [2.0, 4.0, 6.0]),
            (TOKIO, [9.0; 3]),
        ]);
        let judge = |beside| {
            let asked = asked(SMALL, URING, beside, 1.0);
            let it = judged(&asked, Measure::Cpu, &rounds);
            (it.beside, it.spread.unwrap().median)
        };
        assert_eq!(judge(Beside::Peer(RING)), (RING.to_owned(), 2.0));
        assert_eq!(judge(Beside::BestPeer), (MIO.to_owned(), 0.5));
        assert_eq!(judge(Beside::Nothing), (String::new(), 2.0));
        let absent = asked(SMALL, URING, Beside::Peer(CAREFUL), 1.0);
        assert_eq!(judged(&absent, Measure::Cpu, &rounds).spread, None);
        let (peer, more) = judge(Beside::MoreThan(MIO));
        assert_eq!(peer, MIO);
        assert!((more + 2.0).abs() < 1e-9, "{more}");
    }

    #[test]
    fn what_the_kernel_does_on_the_other_side_is_in_the_ratio_of_both() {
        let both = |server_cpu_s, load_cpu_s| Found { load_cpu_s, ..found(server_cpu_s) };
        let round = [(URING, both(3.0, 3.0)), (MIO, both(2.0, 4.0))];
        let rounds = vec![round.map(|(peer, found)| (peer.to_owned(), found)).into()];
        let it = judged(&asked(SMALL, URING, Beside::BestPeer, 1.0), Measure::Cpu, &rounds);
        assert_eq!(it.spread.unwrap().median, 1.5);
        assert_eq!(it.both_sides.unwrap().median, 1.0);
        let by_time = judged(&asked(SMALL, URING, Beside::BestPeer, 1.0), Measure::Time, &rounds);
        assert!(by_time.both_sides.is_none());
    }

    #[test]
    fn what_is_above_its_bound_is_not_called_good() {
        let spread = |quartile_1, median| Spread { median, quartile_1, quartile_3: 2.0 };
        assert_eq!(verdict(spread(0.9, 1.0), 1.0), "yes");
        assert_eq!(verdict(spread(0.9, 1.1), 1.0), "within the noise");
        assert_eq!(verdict(spread(1.1, 1.2), 1.0), "no");
    }
}
