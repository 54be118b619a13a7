//! What belongs to one port, for its workers and for threads that ask something of them.

use std::sync::Arc;

use super::acceptor::Acceptor;
use super::budget::{Budget, PortBudget};
use super::calls::Word;
use super::direct::DirectSends;
use super::drain_report::DrainReport;
use super::groups::Groups;
use super::long_turns::LongTurns;
use super::mailbox::Mailbox;
use super::timers::Timers;
use super::turns::Turns;
use crate::buffer::{BATCH_BYTES, BatchPool};
use crate::clock::Moment;
use crate::port::Anywhere;
use crate::session::Room;
use crate::stats::{Recorders, Stats};
use crate::sync::{AtomicU32, AtomicUsize, Mutex, OnceLock, Ordering};

/// The most of one worker's receive queues, if the server does not look at the machine.
pub(crate) const RECEIVE_QUEUES_BYTES: usize = 256 * 1024 * 1024;
/// So much is little for one session, however little the others have.
const LITTLE_PAGES: u32 = 4;
/// The most empty send batches that one port keeps.
const BATCHES_AT_REST_MAX: usize = 1024;
/// Their memory.
pub(crate) const BATCHES_AT_REST_BYTES: usize = BATCHES_AT_REST_MAX * BATCH_BYTES;

/// What belongs to one port.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PortShare {
    pub(crate) mailbox: Mailbox,
    pub(crate) pool: BatchPool,
    /// What waits to be sent at this port is charged to it.
    pub(crate) budget: Arc<PortBudget>,
    pub(crate) timers: Mutex<Timers>,
    pub(crate) acceptor: Mutex<Acceptor>,
    pub(crate) turns: Turns,
    pub(crate) groups: Groups,
    /// Workers that serve it and have not ended.
    pub(super) workers: AtomicU32,
    /// Sessions assigned to it. The least-loaded port is the one with the fewest.
    pub(super) assigned: AtomicU32,
    /// Bytes in the receive queues of its sessions.
    pub(super) receive_queues_bytes: AtomicUsize,
    /// A way to send without the port in hand, if it has one.
    pub(super) anywhere: OnceLock<Anywhere>,
    pub(super) direct_sends: DirectSends,
}

/// What a worker last published.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Published {
    pub(crate) said: Mutex<Said>,
    pub(crate) recorders: Recorders,
    /// What it leaves before each callback.
    pub(super) word: Arc<Word>,
}

#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) stats: Stats,
    /// What became of its sessions since it learned of the end.
    pub(crate) drain: Option<DrainReport>,
    pub(crate) long_turns: LongTurns,
}

/// What follows after a change to a session: its worker must attend to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Follows {
    /// The send queue was armed, so a send must be posted.
    pub(crate) armed: bool,
    /// Something else has changed.
    pub(crate) changed: bool,
}

impl PortShare {
    pub(super) fn new(workers: usize, is_shared: bool, budget: Arc<Budget>) -> Self {
        let budget = PortBudget::new(budget);
        PortShare {
            mailbox: Mailbox::new(is_shared),
            pool: BatchPool::new(BATCHES_AT_REST_MAX),
            timers: Mutex::new(Timers::new()),
            acceptor: Mutex::default(),
            turns: Turns::new(workers),
            groups: Groups::new(budget.clone()),
            budget,
            workers: AtomicU32::new(workers as u32),
            assigned: AtomicU32::new(0),
            receive_queues_bytes: AtomicUsize::new(0),
            anywhere: OnceLock::new(),
            direct_sends: DirectSends::default(),
        }
    }

    /// Whether a session with so many pages has at most half of what one has on average, or 16 KiB.
    pub(super) fn is_little(&self, pages: u32) -> bool {
        let average = self.budget.charged_pages() / self.assigned_sessions().max(1);
        pages <= (average / 2).max(LITTLE_PAGES)
    }

    pub(crate) fn assigned_sessions(&self) -> u32 {
        self.assigned.load(Ordering::SeqCst)
    }

    /// Notes that one of its workers has ended. True: none is left. (A worker that faults at its very end is
    /// noted twice.)
    pub(crate) fn worker_left(&self) -> bool {
        let less = |workers: u32| workers.checked_sub(1);
        let before = self.workers.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        before.unwrap_or_else(|none| none) <= 1
    }

    /// Wakes every other worker that shares the port. Ends as many waits as there are workers, because the
    /// caller may already have left.
    pub(crate) fn wake_all_others(&self) {
        for _ in 0..self.workers.load(Ordering::Acquire) {
            self.mailbox.wake_others();
        }
    }

    /// A timer was set with this deadline, when this was the next: others that share the port may sleep past it.
    pub(crate) fn timer_was_set(&self, next_before: Option<Moment>, deadline: Moment) {
        if next_before.is_none_or(|next| deadline < next) {
            self.wake_all_others();
        }
    }

    pub(crate) fn set_anywhere(&self, anywhere: Anywhere) {
        // All workers of a shared port pass the same.
        let _ = self.anywhere.set(anywhere);
    }
}

/// The memory that the receive queues of a port may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveRoom<'e> {
    pub(crate) share: &'e PortShare,
    pub(crate) bytes_max: usize,
}

impl ReceiveRoom<'_> {
    /// A half of it: for what could be delivered instead. So the rest is left to what must be kept.
    pub(crate) fn half(self) -> Self {
        ReceiveRoom { bytes_max: self.bytes_max / 2, ..self }
    }
}

impl Room for ReceiveRoom<'_> {
    fn take(&self, bytes: usize) -> bool {
        let taken = &self.share.receive_queues_bytes;
        let with = |waiting: usize| waiting.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        bytes == 0 || taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    fn give(&self, bytes: usize) {
        if bytes > 0 {
            let before = self.share.receive_queues_bytes.fetch_sub(bytes, Ordering::Relaxed);
            debug_assert!(before >= bytes, "more room was given back than was taken");
        }
    }
}
