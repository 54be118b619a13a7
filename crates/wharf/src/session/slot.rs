//! The shared part of one session: what any thread may reach after a look-up.

use crate::Close;
use crate::error::CloseReason;
use crate::sync::{AtomicU32, Mutex, Ordering};

use super::count::IoCount;
use super::send_queue::{Closing, SendQueue};

/// One slot of the table. Never moved or freed while the server lives (invariant 6).
#[derive(Debug, Default)]
#[repr(align(64))] // neighbours may belong to different workers
pub(crate) struct Slot {
    pub(crate) count: IoCount,
    pub(crate) send_queue: Mutex<SendQueue>,
    worker: AtomicU32,
}

impl Slot {
    /// Which worker the session stays with.
    pub(crate) fn worker(&self) -> usize {
        self.worker.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_worker(&self, worker: usize) {
        self.worker.store(worker as u32, Ordering::Relaxed);
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.send_queue.lock().closing()
    }

    /// Asks the session to close, which is all that anybody but its worker ever does about it.
    /// For who holds a count. True if this changed anything: its worker must then attend to it.
    pub(crate) fn ask_to_close(&self, reason: CloseReason, how: Close) -> bool {
        let changed = self.send_queue.lock().close(Closing { reason, how });
        if changed {
            self.count.ask_to_close();
        }
        changed
    }
}
