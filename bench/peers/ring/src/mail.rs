//! Frames from other threads to the ring's: a list under a lock, and a wake only if it sleeps.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use protocol::{FRAME_BYTES, Sent};

/// The most frames that are on their way: in the mail and in all send queues.
const FRAMES_MAX: usize = 64 * 1024;

pub(crate) type Letter = (u32, [u8; FRAME_BYTES]);

pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    frames: AtomicUsize,
    asleep: AtomicBool,
    wake: RawFd,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Mailbox> {
        // SAFETY: no memory is passed.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Mailbox {
            letters: Mutex::default(),
            frames: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            wake,
        })
    }

    pub(crate) fn wake_descriptor(&self) -> RawFd {
        self.wake
    }

    /// Any thread's.
    pub(crate) fn send(&self, slot: usize, frame: &[u8; FRAME_BYTES]) -> Sent {
        if self.frames.load(Ordering::Relaxed) >= FRAMES_MAX {
            return Sent::Full;
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push((slot as u32, *frame));
        drop(letters);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let one = 1_u64;
            // SAFETY: 8 bytes that are there.
            unsafe { libc::write(self.wake, (&raw const one).cast(), 8) };
        }
        Sent::Queued
    }

    /// Whether the ring may sleep; from then on a letter wakes it.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = letters.is_empty();
        if !empty {
            self.asleep.store(false, Ordering::SeqCst);
        }
        empty
    }

    /// Takes all letters; `letters` is empty, and lends its room.
    pub(crate) fn take(&self, letters: &mut Vec<Letter>) {
        self.asleep.store(false, Ordering::SeqCst);
        std::mem::swap(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner), letters);
    }

    /// So many frames have left.
    pub(crate) fn left(&self, frames: usize) {
        self.frames.fetch_sub(frames, Ordering::Relaxed);
    }
}
