//! Every scenario, for a few seeds; and the same case is the same run.

use wharf_sim::{Case, Scenario, run};

#[test]
fn no_rule_is_broken_in_a_few_seeds_of_every_scenario() {
    for scenario in Scenario::ALL {
        for seed in 0..10 {
            let case = Case::new(scenario, seed);
            let outcome = run(&case, false);
            if let Some(violation) = outcome.violation {
                let trace = run(&case, true).trace;
                let last = &trace[trace.len().saturating_sub(60)..];
                panic!("{violation}\n{}\n{}", case.command(), last.join("\n"));
            }
        }
    }
}
