//! Where figures come from.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::Failure;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Provenance {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) commit: String,
}

impl Provenance {
    pub(crate) fn of_this_run() -> Result<Provenance, Failure> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cd bench && cargo run --release -- {}", words.join(" "));
        Ok(Provenance {
            date: said_by("date", &["--utc", "+%Y-%m-%dT%H:%MZ"])?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            machine: machine()?,
            command: command.trim_end_matches([' ', '-']).to_owned(),
            commit: commit(),
        })
    }
}

fn machine() -> Result<String, Failure> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let values = info.lines().filter(|line| line.starts_with("model name"));
    let values: Vec<&str> = values.filter_map(|line| line.split(": ").nth(1)).collect();
    let model = values.first().copied().unwrap_or("unknown processor");
    Ok(format!("{} cores, {model}", std::thread::available_parallelism()?))
}

/// With `+` if what was measured is not what was committed.
fn commit() -> String {
    let home = env!("CARGO_MANIFEST_DIR");
    let head = said_by("git", &["-C", home, "rev-parse", "--short", "HEAD"]);
    let changed = [
        "-C",
        home,
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":!/bench/results",
    ];
    match (head, said_by("git", &changed)) {
        (Ok(head), Ok(changed)) if changed.is_empty() => head,
        (Ok(head), _) => format!("{head}+"),
        (Err(_), _) => "unknown".to_owned(),
    }
}

fn said_by(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
