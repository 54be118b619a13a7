//! For a moment nobody asks for more. Then everything that was asked must happen soon, because nothing holds
//! it back: whatever is left waiting was lost.

use std::time::{Duration, Instant};

use wharf::{Handle, SessionId};

use crate::facts::{Asked, Facts};
use crate::plan::Plan;
use crate::rules::Rule;
use crate::truth::{Truth, lock};

/// What has not happened after this time will not. Less than a first frame may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Waits until nothing is left, and notes what stays.
pub(crate) fn settle(plan: &Plan, truth: &Truth, handle: &Handle) {
    let until = Instant::now() + PATIENCE;
    truth.set_quiet(true);
    loop {
        // As it is now: of a peer that has gone meanwhile nothing is known.
        let sessions = truth.sessions();
        let asked = lock(&truth.asked).clone();
        let waiting: Vec<_> = asked
            .iter()
            .filter_map(|(id, asked)| {
                let facts = sessions.get(id)?;
                let queued = handle.queued_bytes(SessionId::from_bits(*id)).unwrap_or(0);
                let (rule, what) = waits_for(facts, *asked, plan.tells_ends(), queued)?;
                Some((*id, rule, what, facts.clone()))
            })
            .collect();
        let is_over = until <= Instant::now();
        if is_over {
            for (id, rule, what, facts) in &waiting {
                let id = SessionId::from_bits(*id);
                truth.broken(*rule, format!("{id} waits for {what}: {facts:?}"));
            }
        }
        if is_over || waiting.is_empty() || truth.is_broken() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    truth.set_quiet(false);
}

/// What a session waits for whose peer reads all the time and has asked for this.
fn waits_for(
    facts: &Facts,
    asked: Asked,
    tells_ends: bool,
    queued_bytes: usize,
) -> Option<(Rule, &'static str)> {
    let goes_on =
        facts.opened_ended > 0 && facts.closed.is_none() && facts.closes == 0 && !facts.panicked;
    if !goes_on {
        return None;
    }
    let has_ended = if tells_ends { facts.peer_finished } else { false };
    if facts.received < asked.sent {
        Some((Rule::NothingStaysWaiting, "a request"))
    } else if asked.ended && !has_ended {
        Some((Rule::EndsAreTold, "its peer's end"))
    } else if has_ended && facts.finish_returned {
        Some((Rule::NothingStaysWaiting, "its own end: both directions have ended"))
    } else if facts.room_asked_at > facts.room_told_at && facts.finishes == 0 {
        Some((Rule::RoomIsTold, "room"))
    } else if facts.notes_told < facts.notes_accepted {
        Some((Rule::NothingStaysWaiting, "a note"))
    } else if facts.timers > 0 {
        Some((Rule::NothingStaysWaiting, "a timer"))
    } else if queued_bytes > 0 {
        Some((Rule::NothingStaysWaiting, "what is queued to leave"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use wharf::CloseReason;

    use super::*;

    #[test]
    fn whatever_is_left_waiting_is_seen_unless_the_session_ends() {
        let opened = Facts { opened_began: 1, opened_ended: 2, received: 3, ..Facts::default() };
        let asked = Asked { sent: 3, ended: false };
        let ended = Asked { ended: true, ..asked };
        let rule = |facts: &Facts, asked, tells_ends, queued_bytes| {
            waits_for(facts, asked, tells_ends, queued_bytes).map(|(rule, _)| rule)
        };
        assert_eq!(rule(&opened, asked, true, 0), None);
        assert_eq!(rule(&opened, asked, true, 1), Some(Rule::NothingStaysWaiting));
        let more = Asked { sent: 4, ..asked };
        assert_eq!(rule(&opened, more, true, 0), Some(Rule::NothingStaysWaiting));
        assert_eq!(rule(&opened, ended, true, 0), Some(Rule::EndsAreTold));
        assert_eq!(rule(&opened, ended, false, 0), Some(Rule::EndsAreTold));
        let told = Facts { peer_finished: true, ..opened.clone() };
        assert_eq!(rule(&told, ended, true, 0), None);
        let both = Facts { finishes: 1, finish_returned: true, ..told };
        assert_eq!(rule(&both, ended, true, 0), Some(Rule::NothingStaysWaiting));
        let has_note = Facts { notes_accepted: 4, notes_told: 3, ..opened.clone() };
        let has_timer = Facts { timers: 1, ..opened.clone() };
        for facts in [has_note, has_timer] {
            assert_eq!(rule(&facts, asked, true, 0), Some(Rule::NothingStaysWaiting));
        }
        let wants_room = Facts { room_asked: 1, room_asked_at: 9, ..opened.clone() };
        assert_eq!(rule(&wants_room, asked, true, 0), Some(Rule::RoomIsTold));
        let told = Facts { room_told_at: 10, ..wants_room };
        assert_eq!(rule(&told, asked, true, 0), None);
        let closes = Facts { closes: 1, ..opened.clone() };
        let closed = Facts { closed: Some(CloseReason::IdleTimeout), ..opened };
        for facts in [closes, closed] {
            assert_eq!(rule(&facts, more, true, 1), None);
        }
    }
}
