//! The resources of this process, as far as safe code can read them: everything on Linux, memory on Windows,
//! nothing elsewhere.

use serde::Serialize;

/// Processor time used so far, in seconds.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct CpuTime {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

/// The processor time of all threads so far.
pub(crate) fn cpu_time() -> Option<CpuTime> {
    #[cfg(target_os = "linux")]
    return linux::cpu_time();
    #[cfg(not(target_os = "linux"))]
    None
}

/// The memory that is resident now; on Windows the working set.
pub(crate) fn resident_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::resident_bytes();
    #[cfg(windows)]
    return memory_stats::memory_stats().map(|memory| memory.physical_mem as u64);
    #[cfg(not(any(target_os = "linux", windows)))]
    None
}

/// How many descriptors this process may have, and how many it has now.
pub(crate) fn descriptors() -> Option<Descriptors> {
    #[cfg(target_os = "linux")]
    return linux::descriptors();
    #[cfg(not(target_os = "linux"))]
    None
}

#[derive(Clone, Copy)]
pub(crate) struct Descriptors {
    /// The soft limit, `ulimit -n`.
    pub(crate) max: u64,
    pub(crate) open: u64,
}

/// Asks the kernel to wake the main thread when it is told to, not up to 50 µs later. It may
/// refuse, and other kernels are not asked: then sleeps end late, and the report's figure for
/// lateness says so.
pub(crate) fn wake_punctually() {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use super::{CpuTime, Descriptors};

    pub(super) fn cpu_time() -> Option<CpuTime> {
        /// What /proc counts in: USER_HZ, 100 on every Linux that a program can meet.
        const TICKS_PER_S: f64 = 100.0;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the command in parentheses, which may hold blanks itself.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some(CpuTime { user_s: ticks()? / TICKS_PER_S, system_s: ticks()? / TICKS_PER_S })
    }

    pub(super) fn resident_bytes() -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    pub(super) fn descriptors() -> Option<Descriptors> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let max = line.split_ascii_whitespace().next()?.parse().ok()?;
        // One of them is the folder itself, while it is read.
        let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64;
        Some(Descriptors { max, open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_the_process_costs() {
        if cfg!(any(target_os = "linux", windows)) {
            assert!(resident_bytes().unwrap() > 100 * 1024);
        }
        if cfg!(target_os = "linux") {
            assert!(cpu_time().unwrap().user_s >= 0.0);
            let Descriptors { max, open } = descriptors().unwrap();
            assert!((3..max).contains(&open), "{open} of {max}");
        }
    }
}
