//! Turns that took long, and what is known of their callbacks.

use std::fmt;
use std::time::Duration;

use super::calls::Call;

/// Long turns of one worker that are kept.
const KEPT_MAX: usize = 16;

/// A turn of a worker's that took longer than [`Options::long_turn`](field@crate::Options::long_turn).
///
/// It prints as `` worker 1: a turn took 243 ms, 241 ms of it in `received` of session 5.17 ``.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongTurn {
    /// Which worker, from 0.
    pub worker: usize,
    /// When it began, since the server's start.
    pub began: Duration,
    /// How long it took. Nobody else of this worker's was served meanwhile.
    pub took: Duration,
    /// What is known of the callbacks that ran in it.
    pub callbacks: TurnCallbacks,
}

/// What is known of the callbacks that ran in a turn.
///
/// In a turn a worker may call many callbacks, and it reads no clock for each. So of a long turn with several
/// callbacks it is not known which of them took the time. But for a minute after each long turn the worker measures
/// every callback: whoever does it again within that time is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TurnCallbacks {
    /// There was none. The time is wharf's own, or the system's, which did not run the thread, or that of destructors of
    /// the program's.
    None,
    /// There was only this one. What it did not take is wharf's or the system's.
    Only(Call),
    /// There were several, and it is not known which of them took the time.
    Several {
        /// How many.
        count: u64,
        /// The last one, which need not be the one that took the time.
        last: Call,
    },
    /// Each was measured.
    Measured {
        /// The one that took longest.
        longest: Call,
        /// How long it took. What is missing to the turn's length went to the others, to wharf or to the system.
        took: Duration,
    },
}

impl LongTurn {
    /// The callback that took longest, if that is known for certain: it was measured, or the only one.
    pub fn longest(&self) -> Option<Call> {
        match self.callbacks {
            TurnCallbacks::Only(call) | TurnCallbacks::Measured { longest: call, .. } => Some(call),
            TurnCallbacks::None | TurnCallbacks::Several { .. } => None,
        }
    }
}

impl fmt::Display for LongTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}: a turn took {} ms, ", self.worker, self.took.as_millis())?;
        match self.callbacks {
            TurnCallbacks::None => f.write_str("without a callback"),
            TurnCallbacks::Only(call) => write!(f, "in which only {call} ran"),
            TurnCallbacks::Several { count, last } => {
                write!(f, "in which {count} callbacks ran, the last of them {last}")
            }
            TurnCallbacks::Measured { longest, took } => {
                write!(f, "{} ms of it in {longest}", took.as_millis())
            }
        }
    }
}

/// A turn that a worker is in.
///
/// It prints as `` worker 1: in a turn for 243 ms, now in `received` of session 5.17 ``.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningTurn {
    /// Which worker, from 0.
    pub worker: usize,
    /// How long it has been in this turn.
    pub lasted: Duration,
    /// The callback in which the worker is. `None`: it is in none at this moment.
    pub call: Option<Call>,
    /// Calls that this worker has begun since its start. If two readings have the same number, and a `call`, it is the
    /// same call that still runs.
    pub calls: u64,
}

impl fmt::Display for RunningTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}: in a turn for {} ms, now in ", self.worker, self.lasted.as_millis())?;
        match self.call {
            Some(call) => write!(f, "{call}"),
            None => f.write_str("no callback"),
        }
    }
}

/// The latest long turns of one worker. Adding one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct LongTurns {
    pub(super) kept: [Option<LongTurn>; KEPT_MAX],
    /// How many there have been.
    count: usize,
}

impl LongTurns {
    pub(crate) fn add(&mut self, turn: LongTurn) {
        self.kept[self.count % KEPT_MAX] = Some(turn);
        self.count = self.count.wrapping_add(1);
    }
}
