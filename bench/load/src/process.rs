//! CPU time and memory of a process.

use std::fs;
use std::io;

use crate::Failure;

/// CPU time of a process in seconds, to the nanosecond: all its threads, those that ended too.
pub(crate) fn cpu_secs(pid: u32) -> io::Result<f64> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for writes.
    match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
        0 => clock_secs(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

pub(crate) fn own_cpu_secs() -> io::Result<f64> {
    clock_secs(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_secs(clock: libc::clockid_t) -> io::Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The memory that the process itself has written to: no files, and nothing of the kernel's.
pub(crate) fn memory_bytes(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no RssAnon")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// CPU time of the whole machine since it started, in seconds: everything but idling, and but what
/// the host took from us.
pub(crate) fn machine_cpu_secs() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or("no cpu line")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        return Err("a cpu line that is too short".into());
    };
    // SAFETY: no memory is passed.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok((user + nice + system + irq + softirq) as f64 / ticks_per_s as f64)
}
