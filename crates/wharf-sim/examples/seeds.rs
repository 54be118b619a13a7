//! For trying things out.
use std::time::Duration;
use wharf_sim::campaign::Campaign;
use wharf_sim::{Scenario, shrink};
fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().unwrap().parse().unwrap();
    let seeds: u64 = args.next().unwrap().parse().unwrap();
    let names: Vec<String> = args.collect();
    let scenarios: Vec<Scenario> = if names.is_empty() {
        Scenario::ALL.to_vec()
    } else {
        names.iter().map(|n| n.parse().unwrap()).collect()
    };
    let campaign = Campaign {
        scenarios,
        from,
        seeds,
        time: None,
        lanes: 1,
        adapt: |case, _| {
            if let Ok(steps) = std::env::var("STEPS") {
                case.size.steps = steps.parse().unwrap();
            }
        },
        like: Some(wharf_sim::Case::new(Scenario::Mixed, 0)),
    };
    if std::env::var("TRACE").is_ok() {
        let o = wharf_sim::run(&campaign.case(from), true);
        for l in o.trace.iter().rev().take(300000).rev() {
            println!("{l}");
        }
        return;
    }
    let (totals, failure) = campaign.run(|_| {});
    println!(
        "{:?}\n operations {} sim:real {:.0}",
        totals,
        totals.operations(),
        totals.virtual_time.as_secs_f64() / totals.lane_time.as_secs_f64()
    );
    if let Some(failure) = failure {
        println!("{}\n{}", failure.violation, failure.case.command());
        let shrunk = shrink::shrink(&failure.case, failure.violation.rule, Duration::from_secs(30));
        println!(
            "shrunk in {} runs: {}\n{}",
            shrunk.runs,
            shrunk.case.command(),
            shrunk.outcome.violation.unwrap()
        );
        let trace = &shrunk.outcome.trace;
        for line in &trace[trace.len().saturating_sub(70)..] {
            println!("{line}");
        }
    }
}
