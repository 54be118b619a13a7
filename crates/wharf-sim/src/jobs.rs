//! Work of sessions that blocks: what threads and the sessions themselves offload.
//!
//! Each offloads one job at a time, so the jobs of one that were taken run in their order, and what they give comes in
//! it. A session's own callbacks exclude each other, so it is known when its receiving must be paused.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use wharf::simulation::{Fault, fires, may_switch, sleep};
use wharf::{Mailer, OffloadError, SessionId};

use crate::misbehaviour::panic_on_purpose;
use crate::notes::Note;
use crate::rules::Rule;
use crate::truth::{SharedTruth, Truth};

/// Who offloads has a number from here among those who tell.
pub(crate) const OFFLOADERS: u32 = 1 << 28;

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    of: HashMap<SessionId, OfSession>,
    /// Those that the pool has taken.
    pub(crate) taken: u64,
    /// With so many a session is not received from.
    pub(crate) of_session_max: u32,
}

#[derive(Debug, Default)]
struct OfSession {
    /// Who offloaded the one that runs.
    runs: Option<u32>,
    /// How many have begun to run, by who offloaded them.
    ran: HashMap<u32, u32>,
    /// Those that were taken, less those whose notes were told, as far as it is known.
    held: i64,
    /// It offloaded the last of its share itself, and is told nothing of its peer's before it has half as many.
    pauses: bool,
}

impl Truth {
    fn job_begins(&mut self, id: SessionId, from: u32, number: u32) {
        let of_session = self.jobs.of.entry(id).or_default();
        let before = of_session.runs.replace(from);
        let ran = of_session.ran.entry(from).or_default();
        let expected = std::mem::replace(ran, number + 1);
        if before.is_some() || expected != number {
            let what =
                format!("job {number} of {from} for {id} runs after {expected}, beside {before:?}");
            self.broken(Rule::JobsRunInOrder, vec![id.to_bits()], what);
        }
    }

    fn job_ends(&mut self, id: SessionId) {
        self.jobs.of.entry(id).or_default().runs = None;
    }

    fn job_is_taken(&mut self, id: SessionId, is_own: bool) {
        self.jobs.taken += 1;
        let share = i64::from(self.jobs.of_session_max);
        let of_session = self.jobs.of.entry(id).or_default();
        of_session.held += 1;
        of_session.pauses |= is_own && of_session.held >= share;
    }

    /// A session is told what a job gave.
    pub(crate) fn job_is_told(&mut self, id: SessionId) {
        let share = i64::from(self.jobs.of_session_max);
        let of_session = self.jobs.of.entry(id).or_default();
        of_session.held -= 1;
        of_session.pauses &= of_session.held > share / 2;
    }

    /// In `received`.
    pub(crate) fn check_not_paused_by_jobs(&mut self, id: SessionId) {
        if let Some(OfSession { pauses: true, held, .. }) = self.jobs.of.get(&id) {
            let what = format!("{id} got a frame though it has {held} jobs");
            self.broken(Rule::PausesHold, vec![id.to_bits()], what);
        }
    }
}

/// How long a job blocks, mostly for less than 10 ms.
fn blocks_for(argument: u64) -> Duration {
    match argument % 64 {
        0 => Duration::from_secs(argument / 64 % 4),
        1..16 => Duration::ZERO,
        _ => Duration::from_micros(argument / 64 * 7 % 10_000),
    }
}

/// Offloads a job for a session. `is_own`: in a callback of that session.
pub(crate) fn offload(
    truth: &Arc<SharedTruth>,
    mailer: &Mailer<Note>,
    (to, is_own): (SessionId, bool),
    from: u32,
    argument: u64,
) {
    let from = OFFLOADERS | from;
    let was_over = truth.lock().is_over(to);
    let note = Note::new(truth, to, from);
    let number = note.number;
    let job = {
        let truth = truth.clone();
        move || {
            truth.lock().job_begins(to, from, number);
            may_switch();
            sleep(blocks_for(argument));
            let mut known = truth.lock();
            known.job_ends(to);
            if fires(Fault::HandlerPanics) {
                known.job_panics(to);
                drop(known);
                panic_on_purpose();
            }
            drop(known);
            note
        }
    };
    let (job, is_gone) = match mailer.offload(to, job) {
        Ok(()) => {
            let mut truth = truth.lock();
            truth.job_is_taken(to, is_own);
            if was_over {
                let what = format!("a job was taken for {to}, which was over");
                truth.broken(Rule::GoneIsGone, vec![to.to_bits()], what);
            }
            return;
        }
        Err(OffloadError::Full { work, held, max }) => {
            if held != max {
                let what = format!("{held} jobs of {max}, and one more was refused");
                truth.lock().broken(Rule::BoundsAreKept, vec![to.to_bits()], what);
            }
            (work, false)
        }
        Err(error) => (error.into_work(), true),
    };
    {
        let mut truth = truth.lock();
        if is_gone {
            truth.is_gone(to);
        }
        truth.comes_back(to, from);
    }
    // The destructor of its note may panic.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(job)));
    let _ = dropped.map_err(std::mem::forget);
}
