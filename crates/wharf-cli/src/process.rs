//! What this process itself costs, as Linux tells it. Elsewhere nothing is known.

use std::fs;

use serde::Serialize;

/// Processor time used so far, in seconds.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct CpuTime {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

/// The processor time of all threads so far.
pub(crate) fn cpu_time() -> Option<CpuTime> {
    /// What /proc counts in: USER_HZ, 100 on every Linux that a program can meet.
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses, which may hold blanks itself.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(CpuTime { user_s: ticks()? / TICKS_PER_S, system_s: ticks()? / TICKS_PER_S })
}

/// The memory that is resident now.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Asks the kernel to wake the main thread when it is told to, not up to 50 µs later. It may
/// refuse: then sleeps end late, and the report's figure for lateness says so.
pub(crate) fn wake_punctually() {
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_what_the_process_costs() {
        assert!(resident_bytes().unwrap() > 100 * 1024);
        assert!(cpu_time().unwrap().user_s >= 0.0);
    }
}
