//! Waking: a packet with its own key.
//!
//! A wake is for one `wait`. The port may hold as many wakes as it has handles, so that one wake per worker
//! reaches all workers. More would only repeat wakes that were not taken yet, so the queue is bounded.

use std::sync::Arc;

use super::port::OsPort;
use crate::port::Wake;
use crate::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct PortWaker {
    /// Kept open as long as a waker lives; it may outlive the port.
    port: Arc<OsPort>,
    handles: AtomicU32,
    /// Wakes queued at the port.
    queued: AtomicU32,
    /// Wakes that the OS had no memory for, and that no handle has taken yet.
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

    /// One handle took so many wakes at once. It keeps one and returns the others, or returns all if it also
    /// took completions.
    pub(super) fn taken(&self, wakes: u32, is_busy: bool) {
        let kept = if is_busy { 0 } else { wakes.min(1) };
        let lost = (kept..wakes).filter(|_| self.port.post_wake().is_err()).count() as u32;
        // Sequentially consistent with `wake`: a waker that finds its wake already queued comes before this,
        // and this handle then sees what it did before.
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

    /// Whether there is a lost wake. If so, the caller takes it.
    pub(super) fn take_lost(&self) -> bool {
        let less = |lost: u32| lost.checked_sub(1);
        self.lost.load(Ordering::SeqCst) > 0
            && self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    /// A wake for which the OS has no memory.
    #[cfg(test)]
    pub(super) fn wake_without_memory(&self) {
        self.lose(1);
    }
}

impl Wake for PortWaker {
    fn wake(&self) {
        let bound = self.handles.load(Ordering::SeqCst).max(1);
        let more = |queued| (queued < bound).then_some(queued + 1);
        // A read-modify-write even if nothing is queued, for the order that `taken` needs.
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
