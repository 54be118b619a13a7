//! Every scenario, for a few seeds; and the same case is the same run.

use wharf_sim::{Case, Scenario, run};

#[test]
fn no_rule_is_broken_in_a_few_seeds_of_every_scenario() {
    let mut direct_sends = 0;
    for scenario in Scenario::ALL {
        for seed in 0..4 {
            let case = Case::new(scenario, seed);
            let outcome = run(&case, false).unwrap();
            if let Some(violation) = outcome.violation {
                let trace = run(&case, true).unwrap().trace;
                let last = &trace[trace.len().saturating_sub(60)..];
                panic!("{violation}\n{}\n{}", case.command(), last.join("\n"));
            }
            direct_sends += outcome.figures.direct_sends;
        }
    }
    assert!(direct_sends > 40, "large answers leave at once: {direct_sends} did");
}

#[test]
fn the_same_case_is_the_same_run() {
    // In the last, several members are stuck at the same time.
    let last = Case::new(Scenario::Framings, 300);
    let cases = Scenario::ALL.map(|scenario| Case::new(scenario, 11));
    for case in cases.into_iter().chain([last]) {
        let scenario = case.scenario;
        let (one, other) = (run(&case, false).unwrap(), run(&case, true).unwrap());
        assert_eq!(one.hash, other.hash, "{scenario}: a trace changes nothing");
        assert_eq!((one.figures, one.fired), (other.figures, other.fired), "{scenario}");
        assert!(other.trace.len() > 100);
        assert_ne!(one.hash, run(&Case::new(scenario, 12), false).unwrap().hash);
    }
}

#[test]
fn faults_that_are_left_out_do_not_happen() {
    let mut case = Case::new(Scenario::Mixed, 2);
    let with = run(&case, false).unwrap();
    let most = with.fired.iter().max_by_key(|(_, times)| *times).expect("there are faults").0;
    case.left_out.without.push(most);
    let without = run(&case, false).unwrap();
    let times = |fired: &[(wharf::simulation::Fault, u64)]| {
        fired.iter().find(|(fault, _)| *fault == most).map_or(0, |(_, times)| *times)
    };
    assert!(times(&with.fired) > 0 && times(&without.fired) == 0);
    case.left_out.muted.push(0..u64::MAX);
    assert!(run(&case, false).unwrap().fired.iter().all(|(_, times)| *times == 0));
}
