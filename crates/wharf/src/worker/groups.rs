//! Hands over what was published: each worker to the sessions of its own port.
//!
//! A publication is queued for a session as what is sent to it alone is, and leaves with it. Where
//! there is no room for it the session ends as a slow consumer, whatever the policy: there is nobody to
//! give the frame back to, and its peer must not miss one and go on as if it had not.

use super::Floor;
use super::mailbox::Mail;
use crate::buffer::SharedFrame;
use crate::clock::Clock;
use crate::engine::Follows;
use crate::group::{Publication, Share};
use crate::handler::Handler;
use crate::session::{SessionId, Slot};

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// Works off a turn's share of what was asked of this port's groups.
    pub(super) fn work_off_groups(&mut self) {
        if self.work_off(Share::of_a_turn(self.engine.options.send_queue_bytes_max)) {
            // For the next turn, or the worker that shares the port and comes first. That has not ended.
            let _ = self.share().mailbox.post(Mail::Groups);
        }
    }

    /// Works off all of it: what was published before a drain began is queued before sessions are
    /// asked to end.
    pub(super) fn work_off_all_groups(&mut self) {
        self.work_off(Share::everything());
    }

    fn work_off(&mut self, share: Share) -> bool {
        let groups = &self.share().groups;
        groups.work_off(share, |publication, members| self.hand_over(publication, members))
    }

    fn hand_over(&mut self, publication: &Publication, members: Option<&[SessionId]>) -> usize {
        let Publication { except, frame, .. } = publication;
        let Some(members) = members else { return self.hand_over_to_all(*except, frame) };
        for id in members.iter().filter(|id| Some(**id) != *except) {
            self.hand_over_to(*id, frame, false);
        }
        members.len()
    }

    /// To every session of the port whose `opened` has begun.
    fn hand_over_to_all(&mut self, except: Option<SessionId>, frame: &SharedFrame) -> usize {
        let mut count = 0;
        for (index, slot) in self.engine.table.touched_slots() {
            let id = SessionId::new(index, slot.count.generation());
            if slot.port() == self.port_index && Some(id) != except {
                self.hand_over_to(id, frame, true);
            }
            count += 1; // having looked at a free slot is work too
        }
        count
    }

    fn hand_over_to(&mut self, id: SessionId, frame: &SharedFrame, if_opened: bool) {
        if self.is_shared {
            let Some(reference) = self.engine.table.look_up(id) else { return };
            self.queue_for(id, reference.slot(), frame, if_opened);
            self.let_go(id, Some(reference));
        } else if let Some(slot) = self.engine.table.held(id) {
            // Nobody else releases it; one whose count has come to zero is closing, and takes nothing.
            self.queue_for(id, slot, frame, if_opened);
        }
    }

    fn queue_for(&self, id: SessionId, slot: &Slot, frame: &SharedFrame, if_opened: bool) {
        if !if_opened || slot.is_opened() {
            let follows = self.engine.push_published(slot, frame);
            if follows != Follows::default() {
                self.desk.attend_later(id);
            }
        }
    }
}
