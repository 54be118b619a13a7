//! The speed floor: what wharf promises against tokio.

use crate::peers::{self, Peer, TOKIO, WHARF};
use crate::report::Report;
use crate::workloads::{self, Workload};

const WORKLOAD: &str = "echo-64x1000";
/// CPU time for each message, in tokio's.
const FLOORS: [(&str, f64); 2] = [(WHARF, 1.0), ("wharf-readiness", 1.15)];

pub(crate) fn peers() -> Vec<&'static Peer> {
    let judged = |peer: &&Peer| peer.name == TOKIO || FLOORS.iter().any(|it| it.0 == peer.name);
    peers::ALL.iter().filter(judged).collect()
}

pub(crate) fn workload() -> &'static Workload {
    let place = workloads::ALL.iter().position(|workload| workload.name == WORKLOAD);
    &workloads::ALL[place.unwrap_or_default()]
}

/// Says whether each floor is met, and whether all are.
pub(crate) fn judge(report: &Report) -> bool {
    let mut all_met = true;
    for (name, floor) in FLOORS {
        let ratio = report.ratio_to_tokio(name);
        let met = ratio.is_some_and(|ratio| ratio.median <= floor);
        all_met &= met;
        let verdict = if met { "ok    " } else { "FAILED" };
        match ratio {
            Some(ratio) => println!(
                "{verdict}  {name}: {:.2} x tokio's CPU for each message (half of the rounds between \
                 {:.2} and {:.2}; at most {floor:.2})",
                ratio.median, ratio.quartile_1, ratio.quartile_3,
            ),
            None => println!("{verdict}  {name}: there is no figure"),
        }
    }
    all_met
}
