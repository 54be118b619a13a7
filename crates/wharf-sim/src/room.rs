//! Who waits for room, and who is paused: by a session's own callbacks, and by any other thread.
//!
//! A session's own callbacks exclude each other, so what they ask for is known exactly. What another thread asks
//! for may come between the worker's decision and the callback that follows from it. So one such call to a
//! session may be told once more than it seems to need, and one frame may come though a pause has returned.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wharf::{Handle, Session, SessionId};

use crate::rules::Rule;
use crate::truth::{SharedTruth, Truth};

#[derive(Debug, Default)]
pub(crate) struct Room {
    asks: HashMap<SessionId, Asks>,
    /// Sessions that the program has paused, and not resumed.
    paused: BTreeMap<SessionId, Paused>,
    /// Sessions of which a pause or a resume is under way: no other begins.
    changing: BTreeSet<SessionId>,
}

/// What a session waits for.
#[derive(Debug, Default)]
struct Asks {
    /// The most that its own callbacks have asked for since they were last told.
    own: Option<Ask>,
    others: Vec<Ask>,
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    bytes: usize,
    /// How many frames of other senders there were. `None`: one was under way.
    sent_before: Option<u32>,
    /// The handler was told since it began: perhaps of this, perhaps of one before.
    is_told: bool,
}

#[derive(Debug, Clone, Copy)]
struct Paused {
    by_itself: bool,
    /// A callback that was about to be called when the pause returned may still come.
    one_may_come: bool,
}

impl Truth {
    /// Room is asked for, in a callback of the session's own or by another thread.
    pub(crate) fn asks_for_room(&mut self, id: SessionId, bytes: usize, is_own: bool) {
        let bytes = bytes.clamp(1, self.excuses.send_queue_bytes_max);
        let ask = Ask { bytes, sent_before: self.sent_by_others(id), is_told: false };
        if self.is_over(id) {
            return;
        }
        let asks = self.room.asks.entry(id).or_default();
        if !is_own {
            asks.others.push(ask);
        } else if asks.own.is_none_or(|own| own.bytes <= bytes) {
            asks.own = Some(ask);
        }
    }

    /// `writable` of the session begins, and the queue has this much room.
    pub(crate) fn is_told_of_room(&mut self, id: SessionId, room: usize) {
        let sent = self.sent_by_others(id);
        let is_quiet = !self.publications.may_have_filled(id);
        let asks = self.room.asks.entry(id).or_default();
        let least = asks.others.iter().min_by_key(|ask| ask.bytes).copied();
        // Of several asks the largest counts, and of its own all were there when it was decided.
        let due = asks.own.take().or(least);
        asks.others.retain_mut(|ask| !std::mem::replace(&mut ask.is_told, true));
        let wrong = match due {
            None => "that nobody waits for".to_owned(),
            // Nobody has filled it since.
            Some(ask)
                if is_quiet && sent.is_some() && ask.sent_before == sent && room < ask.bytes =>
            {
                format!("of which there is {room}, and {} was asked for", ask.bytes)
            }
            Some(_) => return,
        };
        let what = format!("{id} was told of room {wrong}");
        self.broken(Rule::RoomIsTold, vec![id.to_bits()], what);
    }

    /// The sessions that wait for room, and were not told since they began to.
    pub(crate) fn untold(&self) -> Vec<SessionId> {
        let waits = |asks: &Asks| asks.own.is_some() || asks.others.iter().any(|ask| !ask.is_told);
        let untold = self.room.asks.iter().filter(|(_, asks)| waits(asks));
        untold.map(|(id, _)| *id).collect()
    }

    /// Frames that others have sent to it, unless one is under way.
    fn sent_by_others(&self, id: SessionId) -> Option<u32> {
        let session = self.sessions.get(&id)?;
        (session.under_way == 0).then_some(session.sent_by_others)
    }

    /// A callback that must not run while the session is paused begins.
    pub(crate) fn check_not_paused(&mut self, id: SessionId, callback: &str) {
        let Some(paused) = self.room.paused.get_mut(&id) else { return };
        if !std::mem::replace(&mut paused.one_may_come, false) {
            let what = format!("{callback} of {id}, though it was paused");
            self.broken(Rule::PausesHold, vec![id.to_bits()], what);
        }
    }

    /// A pause or a resume of the session may begin: no other is under way.
    fn begins_to_change(&mut self, id: SessionId, pauses: bool) -> bool {
        let is_paused = self.room.paused.contains_key(&id);
        let begins = pauses != is_paused && self.room.changing.insert(id);
        if begins && !pauses {
            self.room.paused.remove(&id);
        }
        begins
    }

    fn has_changed(&mut self, id: SessionId, pauses: bool, by_itself: bool) {
        self.room.changing.remove(&id);
        let is_closed = self.sessions.get(&id).is_some_and(|session| session.closed.is_some());
        if pauses && !is_closed {
            self.room.paused.insert(id, Paused { by_itself, one_may_come: !by_itself });
        }
    }

    pub(crate) fn some_paused(&self) -> Option<SessionId> {
        let mut paused = self.room.paused.keys();
        paused.find(|id| !self.room.changing.contains(id)).copied()
    }

    /// Whether one of its own callbacks has paused it, and nobody has resumed it.
    pub(crate) fn has_paused_itself(&self, id: SessionId) -> bool {
        self.room.paused.get(&id).is_some_and(|paused| paused.by_itself)
    }

    /// Nothing is due to a session that is over.
    pub(crate) fn forget_room(&mut self, id: SessionId) {
        self.room.asks.remove(&id);
        self.room.paused.remove(&id);
    }
}

/// Asks for room, from another thread or in a callback of another session.
pub(crate) fn ask_for_room(truth: &SharedTruth, handle: &Handle, id: SessionId, bytes: usize) {
    truth.lock().asks_for_room(id, bytes, false);
    handle.notify_writable(id, bytes);
    let room = handle.room(id);
    let mut truth = truth.lock();
    let max = truth.excuses.send_queue_bytes_max;
    if room.is_some_and(|room| room > max) {
        let what = format!("{id} is said to have room for {room:?} bytes, of {max}");
        truth.broken(Rule::BoundsAreKept, vec![id.to_bits()], what);
    }
}

/// Pauses or resumes a session, unless another thread is about to, or it is so already; `own`: in a callback of
/// this session.
pub(crate) fn pause(
    truth: &SharedTruth,
    handle: &Handle,
    id: SessionId,
    pauses: bool,
    own: Option<&Session>,
) {
    if !truth.lock().begins_to_change(id, pauses) {
        return;
    }
    match (own, pauses) {
        (Some(session), true) => session.pause_receiving(),
        (Some(session), false) => session.resume_receiving(),
        (None, true) => drop(handle.pause_receiving(id)),
        (None, false) => drop(handle.resume_receiving(id)),
    }
    truth.lock().has_changed(id, pauses, own.is_some());
}
