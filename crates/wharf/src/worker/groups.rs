//! Hands over what was published: each worker to the sessions of its own port.
//!
//! A publication is queued for a session as what is sent to it alone is, and leaves with it. Where
//! there is no room for it the session ends as a slow consumer, whatever the policy: there is nobody to
//! give the frame back to, and its peer must not miss one and go on as if it had not.

use super::floor::Floor;
use crate::buffer::SharedFrame;
use crate::clock::Clock;
use crate::engine::{Due, Publication, Share};
use crate::engine::{Follows, Mail};
use crate::face::Handler;
use crate::session::SessionId;

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// Works off a turn's share of what was asked of this port's groups.
    pub(super) fn work_off_groups(&mut self) {
        let options = &self.engine.options;
        let share = Share::of_a_turn(options.send_queue_bytes_max, options.sessions_max);
        if self.work_off(share) {
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
        groups.work_off(share, |due| match due {
            Due::Publication(publication, members) => self.hand_over(publication, members),
            Due::Close(id) => self.publications_end(id),
        })
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
        let table = &self.engine.table;
        for id in table.sessions_of(self.place.port).filter(|id| Some(*id) != except) {
            self.hand_over_to(id, frame, true);
        }
        table.touched() as usize // having looked at a free slot is work too
    }

    fn hand_over_to(&mut self, id: SessionId, frame: &SharedFrame, if_opened: bool) {
        self.with_hold(id, |floor, slot| {
            if !if_opened || slot.is_opened() {
                let follows = floor.engine.push_published(slot, frame);
                if follows != Follows::default() {
                    floor.desk.attend_later(id);
                }
            }
        });
    }

    fn publications_end(&mut self, id: SessionId) -> usize {
        self.with_hold(id, |floor, slot| {
            if slot.send_queue.lock().publications_end() {
                floor.desk.attend_later(id);
            }
        });
        1
    }
}
