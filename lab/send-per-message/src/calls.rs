//! How many system calls a command makes, by `perf` or, more slowly, by `strace`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Who counts.
#[derive(Debug, Clone, Copy)]
pub enum Counter {
    Perf,
    Strace,
}

impl Counter {
    /// The better of those that work here.
    pub fn find() -> Option<Counter> {
        [Counter::Perf, Counter::Strace].into_iter().find(|counter| {
            let file = counter.file();
            let works = counter.command(&file).arg("true").stderr(Stdio::null()).status();
            works.is_ok_and(|status| status.success()) && counter.read(&file).is_some()
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Counter::Perf => "perf stat -e raw_syscalls:sys_enter",
            Counter::Strace => "strace -f -c",
        }
    }

    /// Where a count is left.
    pub fn file(self) -> PathBuf {
        std::env::temp_dir().join(format!("system-calls-{}", std::process::id()))
    }

    /// What a command is put behind to be counted.
    pub fn command(self, file: &PathBuf) -> Command {
        let mut command;
        match self {
            Counter::Perf => {
                command = Command::new("perf");
                command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"]).arg(file);
            }
            Counter::Strace => {
                command = Command::new("strace");
                command.args(["-f", "-c", "-o"]).arg(file);
            }
        }
        command
    }

    /// The count that was left there.
    pub fn read(self, file: &PathBuf) -> Option<u64> {
        let text = fs::read_to_string(file).ok()?;
        let _ = fs::remove_file(file);
        match self {
            Counter::Perf => {
                let line = text.lines().find(|line| line.contains("sys_enter"))?;
                line.split(',').next()?.parse().ok()
            }
            Counter::Strace => {
                let line = text.lines().find(|line| line.ends_with("total"))?;
                line.split_whitespace().nth(3)?.parse().ok()
            }
        }
    }
}
