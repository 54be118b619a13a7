//! What is known of a round while it runs: its sessions, as seen by callbacks and closing threads.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf::{Close, CloseReason, SessionId};

use crate::deeds::Deeds;
use crate::facts::{Asked, Facts};
use crate::rules::{Rule, Violation};

/// What a connect is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A listener of the soak, which accepts.
    Listener,
    /// One whose queue is full: it never answers.
    Mute,
    /// Nobody listens.
    Refused,
}

/// What is known of a connect.
#[derive(Debug, Default, Clone)]
pub(crate) struct Connect {
    pub(crate) target: Option<Target>,
    pub(crate) failed: u32,
    pub(crate) error: Option<io::ErrorKind>,
    pub(crate) failed_at: u64,
}

/// More violations of one rule are not kept.
const VIOLATIONS_MAX: usize = 5;
const SHARDS: usize = 16;
/// Ids that calls choose from: so many of the last sessions.
const RECENT_MAX: usize = 96;

#[derive(Debug, Default)]
pub(crate) struct Truth {
    ticks: AtomicU64,
    sessions: [Mutex<HashMap<u64, Facts>>; SHARDS],
    pub(crate) connects: Mutex<BTreeMap<u64, Connect>>,
    recent: Mutex<Vec<SessionId>>,
    /// Of those who act no more.
    pub(crate) deeds: Mutex<Vec<Deeds>>,
    violations: Mutex<Vec<Violation>>,
    pub(crate) states_made: AtomicU64,
    pub(crate) states_dropped: AtomicU64,
    /// Callbacks that have panicked.
    pub(crate) panics: AtomicU64,
    /// Notes that were accepted, and that sessions were told; timers that have fired.
    pub(crate) notes_accepted: AtomicU64,
    pub(crate) notes_told: AtomicU64,
    pub(crate) timers_fired: AtomicU64,
    once: AtomicU32,
    codes: AtomicU32,
    /// Sessions that have paused themselves, for others to resume.
    pub(crate) to_resume: Mutex<Vec<SessionId>>,
    /// By the sessions of peers that always read.
    pub(crate) asked: Mutex<HashMap<u64, Asked>>,
    /// Nobody asks for more at present.
    quiet: AtomicBool,
    /// The end of the server was asked for, or is about to be.
    ending: AtomicBool,
    pub(crate) end_began: AtomicU64,
    /// Frames that peers and the handler have got.
    pub(crate) frames: AtomicU64,
}

pub(crate) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Truth {
    /// A place in time: greater than all before it.
    pub(crate) fn now(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A number for a frame of which nobody will know whether it was accepted.
    pub(crate) fn next_once(&self) -> u32 {
        self.once.fetch_add(1, Ordering::Relaxed)
    }

    /// A farewell's code, which no other has.
    pub(crate) fn next_code(&self) -> u32 {
        self.codes.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    pub(crate) fn broken(&self, rule: Rule, what: String) {
        let mut violations = lock(&self.violations);
        let before = violations.iter().filter(|violation| violation.rule == rule).count();
        if before < VIOLATIONS_MAX {
            violations.push(Violation { rule, what });
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        !lock(&self.violations).is_empty()
    }

    pub(crate) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut lock(&self.violations))
    }

    fn with<R>(&self, id: SessionId, look: impl FnOnce(&mut HashMap<u64, Facts>) -> R) -> R {
        let bits = id.to_bits();
        look(&mut lock(&self.sessions[(bits % SHARDS as u64) as usize]))
    }

    /// All sessions there have been.
    pub(crate) fn sessions(&self) -> BTreeMap<u64, Facts> {
        let facts = |shard: &Mutex<HashMap<u64, Facts>>| lock(shard).clone();
        self.sessions.iter().flat_map(facts).collect()
    }

    pub(crate) fn recent(&self) -> Vec<SessionId> {
        lock(&self.recent).clone()
    }

    pub(crate) fn begin_end(&self) {
        self.end_began.store(self.now(), Ordering::SeqCst);
        self.ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    // Callbacks.

    pub(crate) fn opens(&self, id: SessionId) {
        let facts = Facts { opened_began: self.now(), in_callback: true, ..Facts::default() };
        let before = self.with(id, |sessions| {
            // Who has connected it may have asked for its end already.
            let asked = sessions.get(&id.to_bits()).cloned().unwrap_or_default();
            let Facts { closes, stops, finishes, room_asked, room_asked_at, .. } = asked;
            let facts = Facts { closes, stops, finishes, room_asked, room_asked_at, ..facts };
            let facts = Facts { notes_accepted: asked.notes_accepted, ..facts };
            sessions.insert(id.to_bits(), facts);
            asked.opened_began
        });
        if before > 0 {
            self.broken(Rule::IdsAreUnique, format!("{id} was opened twice"));
        }
        let mut recent = lock(&self.recent);
        recent.push(id);
        if recent.len() > RECENT_MAX {
            recent.remove(0);
        }
    }

    pub(crate) fn has_opened(&self, id: SessionId) {
        let now = self.now();
        self.change(id, |facts| (facts.opened_ended, facts.in_callback) = (now, false));
    }

    pub(crate) fn panics(&self, id: SessionId) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.change(id, |facts| (facts.panicked, facts.in_callback) = (true, false));
    }

    pub(crate) fn leaves(&self, id: SessionId) {
        self.change(id, |facts| facts.in_callback = false);
    }

    pub(crate) fn change<R>(&self, id: SessionId, change: impl FnOnce(&mut Facts) -> R) -> R {
        self.with(id, |sessions| change(sessions.entry(id.to_bits()).or_default()))
    }

    /// A callback other than `opened` begins.
    pub(crate) fn enters(&self, id: SessionId, callback: &str) {
        let now = self.now();
        let broken = self.change(id, |facts| facts.enters(callback, now));
        if let Some((rule, why)) = broken {
            self.broken(rule, format!("{callback} of {id} runs {why}"));
        }
    }

    pub(crate) fn closes(&self, id: SessionId, reason: CloseReason) {
        let now = self.now();
        self.change(id, |facts| (facts.closed, facts.closed_at) = (Some(reason), now));
    }

    // What the program does.

    /// Before a session is asked to close.
    pub(crate) fn close_begins(&self, id: SessionId, how: Close) {
        self.change(id, |facts| {
            facts.closes += 1;
            facts.stops += u32::from(how == Close::Stop);
        });
    }

    /// Before a session is asked to finish.
    pub(crate) fn finish_begins(&self, id: SessionId) {
        self.change(id, |facts| facts.finishes += 1);
    }

    pub(crate) fn finish_returned(&self, id: SessionId, changed: bool) {
        let times = self.change(id, |facts| {
            facts.finish_returned = true;
            facts.finishes_begun += u32::from(changed);
            facts.finishes_begun
        });
        if changed && times > 1 {
            let what = format!("{id} began to finish {times} times");
            self.broken(Rule::RefusalsAreTrue, what);
        }
    }

    /// Before a session is paused, by who is to resume it. False: another has paused it.
    pub(crate) fn may_pause(&self, id: SessionId) -> bool {
        self.change(id, |facts| !std::mem::replace(&mut facts.is_paused, true))
    }

    /// The pause was asked for; one callback may be on its way.
    pub(crate) fn pause_returned(&self, id: SessionId) {
        self.change(id, |facts| (facts.pause_holds, facts.heard_in_pause) = (true, 0));
    }

    /// The same, in a callback of its own: none is on its way.
    pub(crate) fn has_paused_itself(&self, id: SessionId) {
        self.change(id, |facts| (facts.pause_holds, facts.heard_in_pause) = (true, 1));
        lock(&self.to_resume).push(id);
    }

    pub(crate) fn resume(&self, id: SessionId, resume: impl FnOnce() -> bool) {
        self.change(id, |facts| facts.pause_holds = false);
        resume();
        self.change(id, |facts| facts.is_paused = false);
    }

    /// Before a session's room is asked for.
    pub(crate) fn asks_for_room(&self, id: SessionId) {
        let now = self.now();
        self.change(id, |facts| {
            (facts.room_asked, facts.room_asked_at) = (facts.room_asked + 1, now)
        });
    }

    pub(crate) fn close_returned(&self, id: SessionId) {
        self.change(id, |facts| facts.close_returned = true);
    }

    pub(crate) fn connects(&self, id: SessionId, target: Target) {
        let mut connects = lock(&self.connects);
        let connect = connects.entry(id.to_bits()).or_default();
        if connect.target.replace(target).is_some() {
            drop(connects);
            self.broken(Rule::IdsAreUnique, format!("two connects are {id}"));
        }
    }

    pub(crate) fn connect_failed(&self, id: SessionId, kind: io::ErrorKind) {
        let now = self.now();
        let mut connects = lock(&self.connects);
        let connect = connects.entry(id.to_bits()).or_default();
        connect.failed += 1;
        (connect.error, connect.failed_at) = (Some(kind), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(truth: &Truth) -> Vec<Rule> {
        truth.take_violations().into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn callbacks_out_of_order_are_seen() {
        let (truth, id) = (Truth::default(), SessionId::from_bits(5));
        truth.enters(id, "received");
        assert_eq!(rules(&truth), [Rule::CallbacksInOrder]);
        let id = SessionId::from_bits(6);
        truth.opens(id);
        truth.enters(id, "received");
        assert_eq!(rules(&truth), [Rule::CallbacksExcludeEachOther]);
        truth.has_opened(id);
        truth.enters(id, "received");
        truth.leaves(id);
        truth.close_begins(id, Close::Drain);
        truth.close_returned(id);
        truth.enters(id, "received");
        truth.leaves(id);
        assert_eq!(rules(&truth), [], "it was on its way");
        truth.enters(id, "received");
        truth.leaves(id);
        assert_eq!(rules(&truth), [Rule::CallbacksInOrder]);
        truth.enters(id, "closed");
        truth.closes(id, CloseReason::Local);
        truth.leaves(id);
        assert_eq!(rules(&truth), []);
        truth.enters(id, "closed");
        truth.opens(id);
        assert_eq!(rules(&truth), [Rule::CallbacksInOrder, Rule::IdsAreUnique]);
    }

    /// A session that has opened, and what a callback of it breaks.
    fn opened(bits: u64) -> (Truth, SessionId) {
        let (truth, id) = (Truth::default(), SessionId::from_bits(bits));
        truth.opens(id);
        truth.has_opened(id);
        (truth, id)
    }

    fn runs(truth: &Truth, id: SessionId, callback: &str) -> Vec<Rule> {
        truth.enters(id, callback);
        truth.leaves(id);
        rules(truth)
    }

    #[test]
    fn callbacks_in_a_pause_are_seen_but_for_one_that_was_on_its_way() {
        let (truth, id) = opened(5);
        assert!(truth.may_pause(id) && !truth.may_pause(id));
        assert_eq!(runs(&truth, id, "received"), [], "it is not paused yet");
        truth.pause_returned(id);
        assert_eq!(runs(&truth, id, "received"), []);
        assert_eq!(runs(&truth, id, "received"), [Rule::PausesHold]);
        assert_eq!(runs(&truth, id, "peer_finished"), [Rule::PausesHold]);
        let (truth, id) = opened(6);
        truth.has_paused_itself(id);
        assert_eq!(runs(&truth, id, "received"), [Rule::PausesHold], "none is on its way");
        truth.resume(id, || true);
        assert_eq!(runs(&truth, id, "received"), []);
    }

    #[test]
    fn room_that_nobody_asked_for_and_an_end_that_is_told_twice_are_seen() {
        let (truth, id) = opened(5);
        truth.asks_for_room(id);
        truth.asks_for_room(id);
        assert_eq!(runs(&truth, id, "writable"), []);
        assert_eq!(runs(&truth, id, "writable"), [], "perhaps for the other");
        assert_eq!(runs(&truth, id, "writable"), [Rule::RoomIsTold]);
        assert_eq!(runs(&truth, id, "peer_finished"), []);
        assert_eq!(runs(&truth, id, "peer_finished"), [Rule::EndsAreTold]);
        assert_eq!(runs(&truth, id, "received"), [Rule::EndsAreTold], "after the end");
    }

    #[test]
    fn room_that_is_told_after_a_finish_and_a_second_finish_are_seen() {
        let (truth, id) = opened(5);
        (0..4).for_each(|_| truth.asks_for_room(id));
        truth.finish_begins(id);
        truth.finish_returned(id, true);
        assert_eq!(runs(&truth, id, "writable"), [], "it was on its way");
        assert_eq!(runs(&truth, id, "writable"), [Rule::RoomIsTold]);
        truth.finish_returned(id, false);
        assert_eq!(rules(&truth), []);
        truth.finish_returned(id, true);
        assert_eq!(rules(&truth), [Rule::RefusalsAreTrue]);
    }
}
