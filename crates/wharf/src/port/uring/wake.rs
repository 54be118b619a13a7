//! The wake event: an eventfd that the ring polls. It is never read: each write is one completion of a poll
//! that continues, so the woken worker needs no operation for a wake.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use crate::port::Wake;

#[derive(Debug)]
pub(super) struct WakeEvent(File);

impl WakeEvent {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers, and its result is checked.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and has no other owner.
        Ok(WakeEvent(unsafe { File::from_raw_fd(descriptor) }))
    }
}

impl AsRawFd for WakeEvent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Wake for WakeEvent {
    fn wake(&self) {
        // Fails only because of a signal before anything was written, or after 2^64 - 2 wakes.
        while let Err(error) = (&self.0).write(&1u64.to_ne_bytes()) {
            if error.kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
    }
}
