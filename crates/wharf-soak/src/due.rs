//! Notes that threads tell sessions, and timers that sessions set and cancel.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf::{Mailer, Session, SessionId, TellError, TimerError};

use crate::random::Random;
use crate::rules::Rule;
use crate::truth::Truth;

const KEYS: u64 = 4;
const TIMER_MILLIS_MAX: u64 = 80;

/// Who tells it, and how many it has told this session before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    from: u64,
    number: u32,
}

/// A thread that tells sessions.
#[derive(Debug)]
pub(crate) struct Teller {
    from: u64,
    mailer: Mailer<Note>,
    /// How many of its notes were accepted, by session.
    told: HashMap<u64, u32>,
}

impl Teller {
    pub(crate) fn new(from: u64, mailer: &Mailer<Note>) -> Teller {
        Teller { from, mailer: mailer.clone(), told: HashMap::new() }
    }

    pub(crate) fn tell(&mut self, truth: &Truth, id: SessionId, notes: u64) {
        let number = self.told.entry(id.to_bits()).or_default();
        for _ in 0..notes {
            let note = Note { from: self.from, number: *number };
            match self.mailer.tell(id, note) {
                Ok(()) => {
                    *number += 1;
                    truth.notes_accepted.fetch_add(1, Ordering::Relaxed);
                    truth.change(id, |facts| facts.notes_accepted += 1);
                }
                Err(error) => {
                    let is_true = !matches!(error, TellError::NotStarted(_));
                    if !is_true || error.into_note() != note {
                        let what = format!("another note than {id} was told came back, or early");
                        truth.broken(Rule::RefusalsAreTrue, what);
                    }
                    return;
                }
            }
        }
    }
}

/// What a session knows of its notes and timers.
#[derive(Debug)]
pub(crate) struct Due {
    /// What it does about them: a sequence of its own.
    pub(crate) random: Random,
    /// Notes that have come, by who told them.
    told: HashMap<u64, u32>,
    /// Its timers that are set, and when each is due.
    timers: HashMap<u64, Instant>,
}

impl Due {
    pub(crate) fn new(seed: u64, id: SessionId) -> Due {
        let random = Random::new(seed ^ 0x0064_7565, id.to_bits());
        Due { random, told: HashMap::new(), timers: HashMap::new() }
    }

    pub(crate) fn is_told(&mut self, truth: &Truth, id: SessionId, note: Note) {
        truth.notes_told.fetch_add(1, Ordering::Relaxed);
        truth.change(id, |facts| facts.notes_told += 1);
        let told = self.told.entry(note.from).or_default();
        if note.number != *told {
            let what = format!("{id} is told {note:?} after {told} others");
            truth.broken(Rule::NotesComeInOrder, what);
        }
        *told = note.number + 1;
    }

    /// Sets a timer, or cancels one, or does neither.
    pub(crate) fn act(&mut self, truth: &Truth, session: &Session) {
        let (key, id) = (self.random.below(KEYS), session.id());
        match self.random.below(6) {
            0 | 1 => {
                let after = Duration::from_millis(self.random.below(TIMER_MILLIS_MAX));
                let due = Instant::now() + after;
                match session.set_timer(key, after) {
                    Ok(()) => drop(self.timers.insert(key, due)),
                    Err(TimerError::Closing) => {} // another thread may have asked for it
                    Err(error) => {
                        let what = format!("a timer of {id} was refused: {error}");
                        truth.broken(Rule::RefusalsAreTrue, what);
                    }
                }
            }
            2 => {
                let (was_set, cancelled) =
                    (self.timers.remove(&key).is_some(), session.cancel_timer(key));
                if was_set != cancelled {
                    let what =
                        format!("timer {key} of {id}, set: {was_set}, cancelled: {cancelled}");
                    truth.broken(Rule::TimersFire, what);
                }
            }
            _ => {}
        }
        truth.change(id, |facts| facts.timers = self.timers.len());
    }

    pub(crate) fn fires(&mut self, truth: &Truth, id: SessionId, key: u64) {
        truth.timers_fired.fetch_add(1, Ordering::Relaxed);
        let due = self.timers.remove(&key);
        truth.change(id, |facts| facts.timers = self.timers.len());
        if due.is_none_or(|due| Instant::now() < due) {
            let what = format!("timer {key} of {id} fires, and was to at {due:?}");
            truth.broken(Rule::TimersFire, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(truth: &Truth) -> Vec<Rule> {
        truth.take_violations().into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn notes_out_of_order_and_timers_that_fire_early_or_twice_are_seen() {
        let (truth, id) = (Truth::default(), SessionId::from_bits(5));
        let mut due = Due::new(1, id);
        for (from, number) in [(1, 0), (2, 0), (1, 1)] {
            due.is_told(&truth, id, Note { from, number });
        }
        assert_eq!(rules(&truth), []);
        due.is_told(&truth, id, Note { from: 2, number: 0 });
        due.is_told(&truth, id, Note { from: 2, number: 2 });
        assert_eq!(rules(&truth), [Rule::NotesComeInOrder; 2], "one twice, and one left out");
        due.timers.insert(1, Instant::now());
        due.timers.insert(2, Instant::now() + Duration::from_secs(60));
        due.fires(&truth, id, 1);
        assert_eq!(rules(&truth), []);
        due.fires(&truth, id, 1);
        due.fires(&truth, id, 2);
        assert_eq!(rules(&truth), [Rule::TimersFire; 2]);
    }
}
