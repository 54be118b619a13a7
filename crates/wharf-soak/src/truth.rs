//! What is known of a round while it runs: sessions, as their callbacks and those who close them see them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf::{Close, CloseReason, SessionId};

use crate::deeds::Deeds;

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// An id names one session for ever.
    IdsAreUnique,
    /// `opened`, `received`, `closed`, in this order, `closed` once, and only `closed` after a close.
    CallbacksInOrder,
    /// No two callbacks of a session at once.
    CallbacksExcludeEachOther,
    /// A frame reaches those whom it was meant for, and nobody else.
    FramesReachTheirSession,
    /// Frames arrive whole.
    FramesArriveWhole,
    /// Frames of one sender arrive in order, each once, none left out; publications in one order.
    FramesArriveInOrder,
    /// What was accepted arrives, if nothing explains that it does not.
    FramesArrive,
    /// A session ends for a reason that there is.
    ReasonsAreTrue,
    /// What a call is refused with is so.
    RefusalsAreTrue,
    /// Every connect is answered, once.
    ConnectsAreAnswered,
    /// Everything adds up, and nothing is left at the end.
    CountsAreBalanced,
    /// Every peer sees an end.
    PeersSeeAnEnd,
    /// No worker ends by a fault of the library.
    WorkersDoNotFail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What is known of a session.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub(crate) opened_began: u64,
    /// When `opened` had returned; 0: it has panicked.
    pub(crate) opened_ended: u64,
    pub(crate) in_callback: bool,
    pub(crate) panicked: bool,
    /// Who its peer is, as that peer says.
    pub(crate) peer: Option<u32>,
    /// Whole requests that it has got.
    pub(crate) received: u32,
    /// It is a member of the town, which nobody leaves.
    pub(crate) in_town: bool,
    /// Times that the program has asked for its end, of either kind, and of `Close::Stop`.
    pub(crate) closes: u32,
    pub(crate) stops: u32,
    /// Such a call has returned, and how often `received` ran after that.
    pub(crate) close_returned: bool,
    pub(crate) received_after_close: u32,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) closed_at: u64,
}

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
    once: AtomicU32,
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
            let (closes, stops) = (asked.closes, asked.stops);
            sessions.insert(id.to_bits(), Facts { closes, stops, ..facts });
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

    /// `received` or `closed` begins.
    pub(crate) fn enters(&self, id: SessionId, callback: &str) {
        let broken = self.change(id, |facts| {
            let was_in = std::mem::replace(&mut facts.in_callback, true);
            if facts.opened_ended == 0 && !was_in {
                return Some((Rule::CallbacksInOrder, "but opened has not returned".to_owned()));
            }
            if was_in {
                let what = "while another callback of it runs".to_owned();
                return Some((Rule::CallbacksExcludeEachOther, what));
            }
            if facts.closed.is_some() {
                return Some((Rule::CallbacksInOrder, "after closed".to_owned()));
            }
            if callback == "received" && facts.close_returned {
                facts.received_after_close += 1;
                // One may have been on its way when the close returned.
                if facts.received_after_close > 1 {
                    let what = "again after a close of it had returned".to_owned();
                    return Some((Rule::CallbacksInOrder, what));
                }
            }
            None
        });
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
}
