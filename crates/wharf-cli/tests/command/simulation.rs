//! `wharf sim`.

use crate::running::{run, stdout_json};

#[test]
fn seeds_are_run_and_counted_and_the_same_seeds_give_the_same_totals() {
    let simulate = || run(&["sim", "--seeds", "9", "--from", "3", "--steps", "60", "--json"]);
    let (one, other) = (simulate(), simulate());
    assert_eq!(one.code, Some(0), "{one:?}");
    let (one, other) = (stdout_json(&one), stdout_json(&other));
    assert_eq!(one["seeds"], 9);
    assert!(one["operations"].as_u64() > Some(1_000), "{one}");
    assert!(one["virtual_seconds"].as_f64() > Some(1.0), "{one}");
    assert_eq!(one["violation"], serde_json::Value::Null);
    for figure in ["operations", "frames", "sessions", "switches", "virtual_seconds", "faults"] {
        assert_eq!(one[figure], other[figure], "{figure}");
    }
}

#[test]
fn the_table_names_every_fault_and_what_is_left_out_did_not_happen() {
    let without = ["--without", "receive-in-part,send-in-part", "--workers", "2"];
    let seeds = ["sim", "--scenario", "mixed", "--seeds", "4", "--steps", "300"];
    let output = run(&[&seeds[..], &without].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let times = |fault: &str| {
        let line = output.stdout.lines().find(|line| line.split(' ').next() == Some(fault));
        let times = line.and_then(|line| line.split_whitespace().nth(1)).expect("a line for it");
        times.replace(',', "").parse::<u64>().unwrap()
    };
    assert_eq!((times("receive-in-part"), times("send-in-part")), (0, 0));
    assert!(times("completion-delayed") + times("batch-of-one") + times("wait-interrupted") > 0);
}

#[test]
fn a_ledger_adds_up_its_runs() {
    let folder = std::env::temp_dir().join(format!("wharf-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("ledger.json");
    let path = path.to_str().unwrap();
    for seeds in ["2", "3"] {
        let output = run(&["sim", "--seeds", seeds, "--steps", "40", "--ledger", path]);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let ledger: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let runs = ledger["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    let sum = |of: &str| runs.iter().map(|run| run[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!(ledger["all"]["seeds"], 5);
    assert_eq!(ledger["all"]["operations"], sum("operations"));
    assert_eq!(runs[1]["violations"], 0);
    assert!(runs[0]["command"].as_str().unwrap().starts_with("wharf sim --seeds 2"));
    std::fs::write(path, "no ledger").unwrap();
    let output = run(&["sim", "--seeds", "1", "--steps", "1", "--ledger", path]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert_eq!(std::fs::read(path).unwrap(), b"no ledger", "what was there is not lost");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    for (arguments, says) in [
        (&["sim", "--scenario", "nothing"][..], "no scenario is named nothing"),
        (&["sim", "--without", "gravity"], "no fault is named gravity"),
        (&["sim", "--mute", "3-5"], "not of the form 3..5"),
        (&["sim", "--minutes", "soon"], "not a number of minutes"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(says) && output.stderr.lines().count() == 1, "{output:?}");
    }
}
