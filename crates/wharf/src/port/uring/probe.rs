//! Checks that the kernel has every feature that the port needs, by using each once.

use std::io;

use io_uring::{Probe, opcode};

use super::port::{UringPort, UringSizes, build_ring};
use crate::error::{BackendRefusal, NoMemory};

/// Makes a port of these sizes and drops it. Returns what prevents it, if anything.
pub(crate) fn probe(sizes: UringSizes) -> Result<(), BackendRefusal> {
    let ring = build_ring(sizes.submission_entries, sizes.completion_entries)
        .map_err(|error| refusal("io_uring_setup", &error))?;
    let missing = |feature, kernel| Err(BackendRefusal::FeatureMissing { feature, kernel });
    let params = ring.params();
    if !params.is_feature_nodrop() {
        return missing("completions that are never dropped", "5.5");
    }
    if !params.is_feature_submit_stable() {
        return missing("stable submissions", "5.5");
    }
    if !params.is_feature_fast_poll() {
        return missing("internal polling", "5.7");
    }
    if !params.is_feature_ext_arg() {
        return missing("waiting with a time-out", "5.11");
    }
    let mut operations = Probe::new();
    ring.submitter()
        .register_probe(&mut operations)
        .map_err(|error| refusal("io_uring_register", &error))?;
    for (code, feature) in [
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::Connect::CODE, "connect"),
        (opcode::RecvMulti::CODE, "receive"),
        (opcode::Readv::CODE, "vectored receive"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "gathered send"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ] {
        if !operations.is_supported(code) {
            return missing(feature, "6.1");
        }
    }
    drop(ring);
    try_for_real(sizes)
}

/// Buffers, a wake, one enter: a sandbox may refuse these although it allowed the set-up.
fn try_for_real(sizes: UringSizes) -> Result<(), BackendRefusal> {
    use crate::port::CompletionPort;
    let mut port = UringPort::new(sizes).map_err(|error| refusal("a ring's set-up", &error))?;
    port.waker().wake();
    port.wait(None, &mut |_: crate::port::Completion<'_>| {})
        .map_err(|error| refusal("io_uring_enter", &error))
}

pub(crate) fn refusal(step: &'static str, error: &io::Error) -> BackendRefusal {
    if let Some(NoMemory { option, bytes }) = NoMemory::of(error) {
        return BackendRefusal::Memory { option, bytes };
    }
    match error.raw_os_error() {
        Some(libc::ENOSYS) => BackendRefusal::NotThere,
        Some(libc::EPERM | libc::EACCES) => {
            BackendRefusal::Forbidden { io_uring_disabled: io_uring_disabled() }
        }
        Some(libc::ENOMEM) => BackendRefusal::LockedMemory { limit_bytes: locked_memory_limit() },
        // Kernels that do not know the flags of `build_ring` refuse them as invalid.
        Some(libc::EINVAL) => BackendRefusal::FeatureMissing {
            feature: "deferred task running or provided buffer rings",
            kernel: "6.1",
        },
        code => BackendRefusal::Os { step, code: code.unwrap_or(0) },
    }
}

fn io_uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn locked_memory_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max locked memory"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
