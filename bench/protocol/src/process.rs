//! CPU time and memory of a process, and what the kernel works off for it elsewhere.

use std::fs;
use std::io;

/// Why there is no figure.
type Failure = Box<dyn std::error::Error>;

/// CPU time of a process in seconds, to the nanosecond: all its threads, those that ended too.
pub fn cpu_secs(pid: u32) -> io::Result<f64> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for writes.
    match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
        0 => clock_secs(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

pub fn own_cpu_secs() -> io::Result<f64> {
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

/// The kernel's threads (`ksoftirqd/N`) that take over what a core's software interrupts leave after ten rounds or
/// two milliseconds (kernel/softirq.c). Over loopback that is receiving what has just been sent, else a part
/// of the send. Their time is in no process's account, though it is the sender's work.
pub struct Softirq {
    threads: Vec<u32>,
}

impl Softirq {
    /// Of the cores that a process may run on, but for those of another. None are found in a container
    /// that does not show the kernel's threads.
    pub fn of(pid: u32, but_for: Option<u32>) -> Result<Softirq, Failure> {
        let not_its = but_for.map_or(Ok(Vec::new()), cores)?;
        let names: Vec<String> = cores(pid)?
            .into_iter()
            .filter(|core| !not_its.contains(core))
            .map(|core| format!("ksoftirqd/{core}"))
            .collect();
        let mut threads = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended meanwhile.
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if names.iter().any(|name| name == command.trim_end()) {
                threads.push(pid);
            }
        }
        Ok(Softirq { threads })
    }

    pub fn cpu_secs(&self) -> io::Result<f64> {
        self.threads.iter().map(|thread| cpu_secs(*thread)).sum()
    }
}

/// The cores that a process may run on.
fn cores(pid: u32) -> Result<Vec<usize>, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores_of(list.ok_or("no Cpus_allowed_list")?)
}

/// A list as `0,2-3`.
fn cores_of(list: &str) -> Result<Vec<usize>, Failure> {
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

/// A figure of its memory, as /proc/PID/status names it. `RssAnon` is what the process itself has written to: no
/// files, and nothing of the kernel's.
pub fn memory_bytes(pid: u32, name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    let value = status.lines().find_map(value).ok_or_else(|| format!("no {name}"))?;
    Ok(value.trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// CPU time of the whole machine since it started, in seconds: everything but idling, and but what
/// the host took from us.
pub fn machine_cpu_secs() -> Result<f64, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_has_single_ones_and_ranges() {
        assert_eq!(cores_of("\t0,2-4,7\n").unwrap(), [0, 2, 3, 4, 7]);
        assert!(cores_of("").is_err());
    }

    #[test]
    fn each_core_that_a_process_may_use_has_one_thread_of_the_kernel_or_none_are_shown() {
        let own = std::process::id();
        let of_own = Softirq::of(own, None).unwrap();
        let shown = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
        assert_eq!(of_own.threads.len(), if shown { cores(own).unwrap().len() } else { 0 });
        assert!(of_own.cpu_secs().unwrap() >= 0.0);
        assert!(Softirq::of(own, Some(own)).unwrap().threads.is_empty());
    }
}
