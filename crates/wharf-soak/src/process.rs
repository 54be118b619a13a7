//! This process's resources: a server's threads, descriptors.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the system takes back behind an end is given so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Threads that a server has started, where the system says so in a file.
pub(crate) fn workers() -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let names =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| crate::panics::is_worker(name.trim())).count()
}

/// Descriptors that are open, but for the one that looks.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() - 1)
}

/// What is behind the descriptors.
pub(crate) fn descriptors_by_name() -> String {
    let Ok(all) = fs::read_dir("/proc/self/fd") else { return String::new() };
    let names = all.flatten().filter_map(|one| fs::read_link(one.path()).ok());
    names.map(|name| name.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Waits until a figure is at most so much, and says what it is in the end.
pub(crate) fn settles(figure: impl Fn() -> usize, max: usize) -> usize {
    let started = Instant::now();
    loop {
        let found = figure();
        if found <= max || started.elapsed() > PATIENCE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What each thread does, one a line: for a report of a hang.
pub(crate) fn threads() -> String {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return String::new() };
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let lines = tasks.flatten().map(|task| {
        let (name, place) = (read(task.path().join("comm")), read(task.path().join("wchan")));
        format!("  {} in {}\n", name.trim(), place.trim())
    });
    lines.collect()
}

/// Stops the whole process for so long, if the system can.
pub(crate) fn stop_for(time: Duration) -> std::io::Result<()> {
    let stops = "kill -STOP $0; sleep $1; kill -CONT $0";
    let (process, seconds) = (std::process::id().to_string(), time.as_secs_f64().to_string());
    Command::new("sh").args(["-c", stops, &process, &seconds]).status().map(drop)
}

/// Memory that the process itself has written to, where the system says so in a file.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of_line =
        |line: &str| line.strip_prefix("RssAnon:")?.trim().split(' ').next()?.parse().ok();
    status.lines().find_map(of_line).map_or(0, |kib: u64| kib * 1024)
}
