//! The threads of a simulated world, and what each waits for.

use std::thread::Thread;
use std::time::Duration;

/// The thread that made the simulation.
pub(super) const DRIVER: usize = 0;

#[derive(Debug, Default)]
pub(super) struct Threads {
    /// The thread that runs.
    pub(super) running: usize,
    pub(super) list: Vec<Governed>,
    /// No thread can continue, and nothing will ever happen.
    pub(super) is_stuck: bool,
    /// Switch threads also where a user's thread calls in, which may hold its own locks.
    pub(super) switches_in_calls: bool,
    /// How often the next thread was chosen.
    pub(super) hand_ons: u64,
    /// The time that passed while threads were preempted.
    pub(super) out_ns: u64,
    /// Kept for its memory.
    pub(super) able: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Governed {
    pub(super) waits: Waits,
    /// It is a server's, not a user's thread.
    pub(super) serves: bool,
    /// For unparking it, once it exists.
    pub(super) thread: Option<Thread>,
    /// The port and registration whose completion it is delivering.
    pub(super) telling: Option<(u32, u32)>,
}

impl Threads {
    pub(super) fn set_telling(&mut self, telling: Option<(u32, u32)>) {
        if let Some(thread) = self.list.get_mut(self.running) {
            thread.telling = telling;
        }
    }

    pub(super) fn telling(&self) -> Option<(u32, u32)> {
        self.list.get(self.running)?.telling
    }

    /// Lets the threads that wait for this lock try again.
    #[cfg(debug_assertions)]
    pub(super) fn unlocked(&mut self, lock: usize) {
        for thread in self.list.iter_mut().filter(|one| one.waits == Waits::Unlock { lock }) {
            thread.waits = Waits::Turn;
        }
    }

    /// The preempted thread that continues first.
    pub(super) fn first_preempted(&self) -> Option<usize> {
        let preempted = self.list.iter().enumerate().filter_map(|(index, thread)| {
            let Waits::HandOn { hand_on, until: None } = thread.waits else { return None };
            Some((hand_on, index))
        });
        preempted.min().map(|(_, index)| index)
    }
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its turn.
    Turn,
    /// Something at a port.
    Port { port: u32, until: Option<u64> },
    /// A time.
    Time { until: u64 },
    /// News of a peer.
    News { until: Option<u64> },
    /// It was preempted, and waits until others have run for a while. It continues before time passes, unless
    /// `until` is set.
    HandOn { hand_on: u64, until: Option<u64> },
    /// A lock of the engine, by its address.
    Unlock { lock: usize },
    /// Another thread's signal, with this number.
    Signal { number: usize },
    /// It has not begun, or has ended.
    Absent,
}

pub(super) fn ns_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
