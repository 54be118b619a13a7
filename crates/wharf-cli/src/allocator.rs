//! Memory that the allocator keeps after a peak goes back to the system.
//!
//! glibc gives back only what lies at the end of its heap. After a peak small blocks lie there, so hundreds of
//! megabytes stay. malloc_trim(3) gives back what is free between them too.

/// Less is not worth the look.
const GROWTH_BYTES_MIN: u64 = 16 << 20;

/// Decides when to give memory back: it has grown, and not by what waits in queues.
#[derive(Default)]
pub(crate) struct GivesBack {
    /// After the last time, or the least since then.
    resident_bytes: u64,
}

impl GivesBack {
    /// Looks at the memory that is resident, and at the bytes that wait in queues. True: it has grown by a quarter, and
    /// at least 16 MiB, since the last time, and less than half of that is in queues.
    fn is_due(&mut self, resident_bytes: u64, queued_bytes: u64) -> bool {
        self.resident_bytes = self.resident_bytes.min(resident_bytes);
        let growth = resident_bytes - self.resident_bytes;
        growth >= GROWTH_BYTES_MIN.max(self.resident_bytes / 4) && queued_bytes < growth / 2
    }

    /// Gives memory back if it is due. `resident` looks at what is resident.
    pub(crate) fn check(&mut self, resident: impl Fn() -> Option<u64>, queued_bytes: u64) {
        let Some(before) = resident() else { return };
        if self.resident_bytes == 0 {
            self.resident_bytes = before;
        }
        if self.is_due(before, queued_bytes) {
            trim();
            self.resident_bytes = resident().unwrap_or(before);
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the only function that does it; it has no safe form")]
fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators see to it themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_is_given_back_after_a_peak_and_not_for_what_is_in_use() {
        let mut gives_back = GivesBack { resident_bytes: 10 * MIB };
        assert!(!gives_back.is_due(25 * MIB, 0), "it is not worth it");
        assert!(!gives_back.is_due(400 * MIB, 300 * MIB), "it waits in queues");
        assert!(gives_back.is_due(400 * MIB, 0));
        let mut gives_back = GivesBack { resident_bytes: 400 * MIB };
        assert!(
            !gives_back.is_due(480 * MIB, 0) && gives_back.is_due(500 * MIB, 0),
            "by a quarter"
        );
        assert!(!gives_back.is_due(10 * MIB, 0) && gives_back.is_due(26 * MIB, 0), "it has fallen");
    }
}
