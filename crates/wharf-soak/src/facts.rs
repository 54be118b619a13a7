//! What is known of one session, as its callbacks and the callers see it.

use wharf::CloseReason;

use crate::rules::Rule;

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
    pub(crate) called_after_close: u32,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) closed_at: u64,
    /// Times that the program has asked for the end of our direction; such a call has returned.
    pub(crate) finishes: u32,
    pub(crate) finish_returned: bool,
    /// How many of them said that they changed something.
    pub(crate) finishes_begun: u32,
    /// Somebody pauses it, and nobody else may before it has resumed it.
    pub(crate) is_paused: bool,
    /// The pause holds, and callbacks that ran for what the peer did in it.
    pub(crate) pause_holds: bool,
    pub(crate) heard_in_pause: u32,
    /// Times that room was asked for, and when last; times that it was told, and when last.
    pub(crate) room_asked: u32,
    pub(crate) room_asked_at: u64,
    pub(crate) room_told: u32,
    pub(crate) room_told_at: u64,
    pub(crate) told_after_finish: u32,
    /// `peer_finished` has begun.
    pub(crate) peer_finished: bool,
    /// Notes for it that were accepted, and that it was told.
    pub(crate) notes_accepted: u64,
    pub(crate) notes_told: u64,
    /// Timers that are set.
    pub(crate) timers: usize,
}

/// What a peer has done that always reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// Whole requests that it has written.
    pub(crate) sent: u32,
    /// It has ended its stream.
    pub(crate) ended: bool,
}

/// A rule that a callback breaks, and why.
pub(crate) type Broken = Option<(Rule, String)>;

impl Facts {
    /// A callback other than `opened` begins.
    pub(crate) fn enters(&mut self, callback: &str, now: u64) -> Broken {
        let was_in = std::mem::replace(&mut self.in_callback, true);
        if self.opened_ended == 0 && !was_in {
            return Some((Rule::CallbacksInOrder, "but opened has not returned".to_owned()));
        }
        if was_in {
            let what = "while another callback of it runs".to_owned();
            return Some((Rule::CallbacksExcludeEachOther, what));
        }
        if self.closed.is_some() {
            return Some((Rule::CallbacksInOrder, "after closed".to_owned()));
        }
        if callback != "closed" && self.close_returned {
            self.called_after_close += 1;
            // One may have been on its way when the close returned.
            if self.called_after_close > 1 {
                let what = "again after a close of it had returned".to_owned();
                return Some((Rule::CallbacksInOrder, what));
            }
        }
        match callback {
            "received" => self.hears(),
            "peer_finished" => self.hears_end(),
            "writable" => self.is_told_room(now),
            _ => None,
        }
    }

    fn hears(&mut self) -> Broken {
        if self.peer_finished {
            return Some((Rule::EndsAreTold, "after peer_finished".to_owned()));
        }
        self.hears_in_pause()
    }

    /// The peer's direction has ended and its handler knows, and ours was asked to.
    pub(crate) fn has_finished_both(&self) -> bool {
        self.peer_finished && self.finishes > 0
    }

    fn hears_in_pause(&mut self) -> Broken {
        self.heard_in_pause += u32::from(self.pause_holds);
        let is_amiss = self.pause_holds && self.heard_in_pause > 1;
        is_amiss.then(|| (Rule::PausesHold, "though it is paused".to_owned()))
    }

    fn hears_end(&mut self) -> Broken {
        if std::mem::replace(&mut self.peer_finished, true) {
            return Some((Rule::EndsAreTold, "twice".to_owned()));
        }
        self.hears_in_pause()
    }

    fn is_told_room(&mut self, now: u64) -> Broken {
        (self.room_told, self.room_told_at) = (self.room_told + 1, now);
        self.told_after_finish += u32::from(self.finish_returned);
        let why = if self.room_told > self.room_asked {
            "and nobody has asked for room"
        } else if self.told_after_finish > 1 {
            "again after it was asked to finish"
        } else {
            return None;
        };
        Some((Rule::RoomIsTold, why.to_owned()))
    }
}
