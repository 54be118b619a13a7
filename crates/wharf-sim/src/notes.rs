//! What the program has for sessions: notes that any thread tells them, and timers that they set.
//!
//! Each teller tells a session one note at a time, so the notes of one that were taken come in their order. A session
//! sets its timers in its own callbacks, which exclude each other, so what is set is known exactly.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use wharf::simulation::{Fault, fires};
use wharf::{Mailer, Session, SessionId, TellError, TimerError};

use crate::misbehaviour::ON_PURPOSE;
use crate::rules::Rule;
use crate::truth::{SharedTruth, Truth};

/// Sessions have timers with keys below this.
pub(crate) const KEYS: u64 = 6;
/// A timer is set for less than this, mostly.
const AFTER_MAX: Duration = Duration::from_secs(2);
/// What a worker that serves at all is late.
const LATE_MAX: Duration = Duration::from_secs(60);

/// A note, which must come to an end: told, given back, or dropped.
pub(crate) struct Note {
    to: SessionId,
    pub(crate) teller: u32,
    pub(crate) number: u32,
    truth: Arc<SharedTruth>,
}

impl Note {
    /// The next one of who tells it.
    pub(crate) fn new(truth: &Arc<SharedTruth>, to: SessionId, teller: u32) -> Self {
        let number = {
            let mut truth = truth.lock();
            truth.notes.made += 1;
            let given = truth.notes.of.entry(to).or_default().given.entry(teller).or_default();
            *given += 1;
            *given - 1
        };
        Note { to, teller, number, truth: truth.clone() }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.truth.lock().notes.dropped += 1;
        if !std::thread::panicking() && fires(Fault::DestructorPanics) {
            panic!("{ON_PURPOSE}");
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Notes {
    of: HashMap<SessionId, OfSession>,
    pub(crate) made: u64,
    pub(crate) dropped: u64,
    /// Those that a mailer has taken, and those that sessions were told.
    pub(crate) taken: u64,
    pub(crate) told: u64,
    /// The most timers of a session.
    pub(crate) timers_max: usize,
}

/// What is known of a session's.
#[derive(Debug, Default)]
struct OfSession {
    /// Notes that were handed over and not refused, by teller; and those that came.
    given: BTreeMap<u32, u32>,
    told: BTreeMap<u32, u32>,
    timers: BTreeMap<u64, Timer>,
}

/// When a timer is due: not before the one, and at the other.
#[derive(Debug, Clone, Copy)]
struct Timer {
    earliest: Duration,
    latest: Duration,
}

fn now() -> Duration {
    wharf::simulation::now().unwrap_or_default()
}

impl Truth {
    /// A note comes to its session.
    pub(crate) fn is_told(&mut self, id: SessionId, note: &Note) {
        self.notes.told += 1;
        let Note { to, teller, number, .. } = *note;
        let told = self.notes.of.entry(id).or_default().told.entry(teller).or_default();
        let before = std::mem::replace(told, number + 1);
        if to != id || before != number {
            let what = format!("{id} was told note {number} of {teller} to {to}, after {before}");
            self.broken(Rule::NotesAreTold, vec![id.to_bits(), to.to_bits()], what);
        }
    }

    /// A note, or the job that would give it, was refused.
    pub(crate) fn comes_back(&mut self, to: SessionId, teller: u32) {
        let of_session = self.notes.of.get_mut(&to);
        if let Some(given) = of_session.and_then(|of_session| of_session.given.get_mut(&teller)) {
            *given -= 1;
        }
    }

    /// A timer of the session's fires.
    pub(crate) fn timer_fires(&mut self, id: SessionId, key: u64) {
        let timers = &mut self.notes.of.entry(id).or_default().timers;
        let why = match timers.remove(&key) {
            None => "which is not set".to_owned(),
            Some(Timer { earliest, .. }) if now() < earliest => {
                format!("at {:?}, before {earliest:?}", now())
            }
            Some(timer) => match timers.iter().find(|(_, other)| other.latest < timer.earliest) {
                Some((before, _)) => format!("before timer {before}, which is due earlier"),
                None => return,
            },
        };
        let what = format!("timer {key} of {id} fires, {why}");
        self.broken(Rule::TimersFire, vec![id.to_bits()], what);
    }

    /// What an open session was not told, and must be once all is quiet.
    pub(crate) fn not_told(&self, id: SessionId) -> Option<(Rule, String)> {
        let of_session = self.notes.of.get(&id)?;
        for (teller, given) in &of_session.given {
            let told = of_session.told.get(teller).copied().unwrap_or_default();
            if told < *given {
                let what = format!("{id} was told {told} of {given} notes of {teller}");
                return Some((Rule::NotesAreTold, what));
            }
        }
        let (key, _) =
            of_session.timers.iter().find(|(_, timer)| timer.latest + LATE_MAX < now())?;
        Some((Rule::TimersFire, format!("timer {key} of {id} does not fire")))
    }

    /// Nothing is due to a session that is over.
    fn timers_end(&mut self, id: SessionId) {
        if let Some(of_session) = self.notes.of.get_mut(&id) {
            of_session.timers.clear();
        }
    }
}

/// In `told`: the note's destructor may panic, and that ends its session.
pub(crate) fn end(truth: &SharedTruth, id: SessionId, note: Note) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(note))) {
        truth.lock().panics(id, false);
        resume_unwind(panic);
    }
}

/// Tells a session a note.
pub(crate) fn tell(truth: &Arc<SharedTruth>, mailer: &Mailer<Note>, to: SessionId, teller: u32) {
    let was_over = truth.lock().is_over(to);
    let note = Note::new(truth, to, teller);
    let number = note.number;
    let result = mailer.tell(to, note);
    let (note, is_gone) = match result {
        Ok(()) => {
            let mut truth = truth.lock();
            truth.notes.taken += 1;
            if was_over {
                let what = format!("a note was taken for {to}, which was over");
                truth.broken(Rule::GoneIsGone, vec![to.to_bits()], what);
            }
            return;
        }
        Err(TellError::Full { note, waiting, max }) => {
            if waiting < max {
                let what = format!("{waiting} notes wait, of {max}, and one more was refused");
                truth.lock().broken(Rule::BoundsAreKept, vec![to.to_bits()], what);
            }
            (note, false)
        }
        Err(error) => (error.into_note(), true),
    };
    {
        let mut truth = truth.lock();
        if is_gone {
            truth.is_gone(to);
        }
        truth.comes_back(to, teller);
        if (note.to, note.teller, note.number) != (to, teller, number) {
            let what = format!("another note than was told to {to} came back");
            truth.broken(Rule::NotesAreTold, vec![to.to_bits()], what);
        }
    }
    // Its destructor may panic, on this thread: then the caller has no session to end for it.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(note)));
    let _ = dropped.map_err(std::mem::forget);
}

/// A session sets a timer in a callback of its own.
pub(crate) fn set_timer(truth: &SharedTruth, session: &Session, argument: u64) {
    let (id, key) = (session.id(), argument % KEYS);
    let after = match argument / KEYS % 8 {
        0 => Duration::ZERO,
        1 => Duration::from_secs(argument),
        _ => AFTER_MAX.mul_f64((argument % 97) as f64 / 97.0),
    };
    let earliest = now() + after;
    let result = session.set_timer(key, after);
    let latest = now() + after;
    let mut truth = truth.lock();
    let timers_max = truth.notes.timers_max;
    let timers = &mut truth.notes.of.entry(id).or_default().timers;
    let is_new = !timers.contains_key(&key);
    let (is_full, count) = (is_new && timers.len() >= timers_max, timers.len());
    match result {
        Ok(()) if !is_full => {
            timers.insert(key, Timer { earliest, latest });
        }
        Err(TimerError::TooMany { max }) if is_full && max as usize == timers_max => {}
        Err(TimerError::Closing) => truth.is_gone(id),
        result => {
            let what = format!("{id} has {count} timers; one more: {result:?}");
            truth.broken(Rule::BoundsAreKept, vec![id.to_bits()], what);
        }
    }
}

/// A session cancels a timer in a callback of its own.
pub(crate) fn cancel_timer(truth: &SharedTruth, session: &Session, argument: u64) {
    let (id, key) = (session.id(), argument % KEYS);
    let was_set = session.cancel_timer(key);
    let mut truth = truth.lock();
    let known = truth.notes.of.entry(id).or_default().timers.remove(&key).is_some();
    if was_set != known {
        let what = format!("timer {key} of {id} was set: {known}; the cancel said {was_set}");
        truth.broken(Rule::TimersFire, vec![id.to_bits()], what);
    }
}

/// In `closed`: no timer can be set any more, and none is.
pub(crate) fn closes(truth: &SharedTruth, session: &Session) {
    let id = session.id();
    truth.lock().timers_end(id);
    let set = session.set_timer(0, Duration::ZERO);
    let left = (0..KEYS).find(|key| session.cancel_timer(*key));
    if set != Err(TimerError::Closing) || left.is_some() {
        let what = format!("in closed of {id} a timer is set: {set:?}, {left:?}");
        truth.lock().broken(Rule::TimersFire, vec![id.to_bits()], what);
    }
}
