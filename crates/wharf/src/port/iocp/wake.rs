//! Waking: a packet with a key of its own.
//!
//! A wake is for one `wait`. As many may lie in the port as there are handles, so that whoever wakes
//! every worker with one wake each reaches them all; more would only say again what those say that
//! have not been taken yet, and so the queue is bounded.

use std::sync::Arc;

use super::port::OsPort;
use crate::port::Wake;
use crate::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct PortWaker {
    /// Kept open for as long as a waker lives: it may outlive the port.
    port: Arc<OsPort>,
    handles: AtomicU32,
    /// Wakes that lie in the port.
    queued: AtomicU32,
    /// Wakes for which there was no memory, and that nobody has taken yet.
    lost: AtomicU32,
}

impl PortWaker {
    pub(super) fn new(port: Arc<OsPort>) -> Self {
        PortWaker {
            port,
            handles: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        }
    }

    pub(super) fn set_handles(&self, handles: u32) {
        self.handles.store(handles, Ordering::SeqCst);
    }

    /// Of so many wakes that one handle has taken at once, one is its own; the others go back. If it
    /// took something to do with them, all go back.
    pub(super) fn taken(&self, wakes: u32, is_busy: bool) {
        let kept = if is_busy { 0 } else { wakes.min(1) };
        let lost = (kept..wakes).filter(|_| self.port.post_wake().is_err()).count() as u32;
        // Sequentially consistent with `wake`: one that finds its wake queued already comes before
        // this, and what it did before it woke is seen after this.
        self.queued.fetch_sub(kept + lost, Ordering::SeqCst);
        if lost > 0 {
            self.lose(lost);
        }
    }

    fn lose(&self, wakes: u32) {
        let bound = self.handles.load(Ordering::SeqCst).max(1);
        let more = |lost: u32| Some(lost.saturating_add(wakes).min(bound));
        let _ = self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
    }

    /// Whether there is a wake that was lost. It is the caller's then.
    pub(super) fn take_lost(&self) -> bool {
        let less = |lost: u32| lost.checked_sub(1);
        self.lost.load(Ordering::SeqCst) > 0
            && self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    /// A wake as the system has it that has no memory.
    #[cfg(test)]
    pub(super) fn wake_without_memory(&self) {
        self.lose(1);
    }
}

impl Wake for PortWaker {
    fn wake(&self) {
        let bound = self.handles.load(Ordering::SeqCst).max(1);
        let more = |queued| (queued < bound).then_some(queued + 1);
        // A read-modify-write even when nothing is to be queued, for the order that `taken` names.
        let mut queued = self.queued.fetch_add(0, Ordering::SeqCst);
        while let Some(next) = more(queued) {
            match self.queued.compare_exchange(queued, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    if self.port.post_wake().is_err() {
                        self.queued.fetch_sub(1, Ordering::SeqCst);
                        self.lose(1);
                    }
                    return;
                }
                Err(seen) => queued = seen,
            }
        }
    }
}
