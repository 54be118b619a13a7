//! A worker's eye on its callbacks: leaves word before each, and measures them once a turn has taken long.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Call, Callback, Word};
use super::engine::Engine;
use super::long_turns::{LongTurn, RunningTurn, TurnCallbacks};
use crate::clock::Moment;
use crate::session::SessionId;

/// For so long after a long turn a worker measures each callback: two looks at the clock, some 250 instructions.
const MEASURES_FOR: Duration = Duration::from_secs(60);

/// A worker's eye on its callbacks.
#[derive(Debug)]
pub(crate) struct Watch {
    word: Arc<Word>,
    limit_nanos: u64,
    /// It reads the clock before and after each callback, until then.
    measures: Cell<bool>,
    measures_until: Cell<Moment>,
    entered: Cell<Moment>,
    /// Of this turn, if it is measured: the call that took longest, and how many nanoseconds.
    longest: Cell<Option<(Call, u64)>>,
    /// Calls that had begun before this turn.
    calls_before: Cell<u64>,
}

impl Watch {
    pub(crate) fn new(engine: &Engine, worker: usize) -> Self {
        let limit = engine.options.long_turn.map_or(u64::MAX, |limit| Moment::at(limit).nanos());
        Watch {
            word: engine.published[worker].word.clone(),
            limit_nanos: limit,
            measures: Cell::new(false),
            measures_until: Cell::default(),
            entered: Cell::default(),
            longest: Cell::new(None),
            calls_before: Cell::new(0),
        }
    }

    /// A callback begins.
    #[inline]
    pub(crate) fn enter(&self, engine: &Engine, callback: Callback, session: SessionId) {
        self.word.enter(callback, session);
        if self.measures.get() {
            self.begin(engine);
        }
    }

    /// The callback has returned.
    #[inline]
    pub(crate) fn leave(&self, engine: &Engine) {
        self.word.leave();
        if self.measures.get() {
            self.measure(engine);
        }
    }

    #[cold]
    #[inline(never)] // the clock's code stays out of the loop over frames
    fn begin(&self, engine: &Engine) {
        self.entered.set(engine.now());
    }

    #[cold]
    #[inline(never)]
    fn measure(&self, engine: &Engine) {
        let nanos = self.entered.get().nanos_until(engine.now());
        if self.longest.get().is_none_or(|(_, longest)| nanos > longest) {
            self.longest.set(self.word.last().map(|call| (call, nanos)));
        }
    }

    /// A turn ends. Returns what is known of its callbacks, if it was long.
    #[inline]
    pub(crate) fn end_turn(&self, began: Moment, ended: Moment) -> Option<TurnCallbacks> {
        let calls = self.word.calls();
        let count = calls.wrapping_sub(self.calls_before.replace(calls));
        if began.nanos_until(ended) > self.limit_nanos {
            return Some(self.judge(count, ended));
        }
        if self.measures.get() {
            self.longest.set(None);
            self.measures.set(ended <= self.measures_until.get());
        }
        None
    }

    #[cold]
    fn judge(&self, count: u64, ended: Moment) -> TurnCallbacks {
        let longest = self.longest.take();
        self.measures.set(true);
        self.measures_until.set(ended.after(MEASURES_FOR));
        match (longest, self.word.last()) {
            (Some((longest, nanos)), _) => {
                TurnCallbacks::Measured { longest, took: Duration::from_nanos(nanos) }
            }
            (None, Some(last)) if count > 1 => TurnCallbacks::Several { count, last },
            (None, Some(last)) if count == 1 => TurnCallbacks::Only(last),
            (None, _) => TurnCallbacks::None,
        }
    }
}

impl Engine {
    /// The latest long turns of all workers, by their beginnings.
    pub(crate) fn long_turns(&self) -> Vec<LongTurn> {
        let mut turns: Vec<LongTurn> = Vec::new();
        for part in &self.published {
            turns.extend(part.said.lock().long_turns.kept.iter().flatten());
        }
        turns.sort_by_key(|turn| (turn.began, turn.worker));
        turns
    }

    /// The turns in which workers are.
    pub(crate) fn running_turns(&self) -> Vec<RunningTurn> {
        let began = self.ports.iter().flat_map(|port| port.turns.began());
        let now = self.now();
        let workers = self.published.iter().zip(began).enumerate();
        let running = workers.filter_map(|(worker, (part, began))| {
            let (lasted, (calls, call)) = (began?.until(now), part.word.running());
            Some(RunningTurn { worker, lasted, call, calls })
        });
        running.collect()
    }
}
