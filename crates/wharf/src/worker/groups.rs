//! Hands over publications: each worker serves the sessions of its own port.
//!
//! A published frame enters a session's send queue like any other, and leaves with it. If it does not fit, the
//! session is behind: the frame waits at the port, and a completion of a send refills the queue.

use super::floor::Floor;
use crate::buffer::SharedFrame;
use crate::clock::{Clock, Moment};
use crate::engine::{
    Audience, Due, HandedOver, Mail, Offered, Publication, Recipients, Seen, Share,
};
use crate::face::Handler;
use crate::framing::Framings;
use crate::port::{CompletionPort, Registration};
use crate::session::{Policy, SessionId, Slot};

/// Those that had no room for a publication.
type WithoutRoom = Vec<(SessionId, Policy)>;

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// Processes one turn's share of the requests to this port's groups.
    pub(super) fn work_off_groups(&mut self) {
        let options = &self.engine.options;
        let share = Share::of_a_turn(options.sending.queue_bytes_max, options.sessions.max);
        if self.work_off(share) {
            // The rest is for the next turn, or for another worker of the port. The mailbox is open: the port
            // has not ended.
            let _ = self.share().mailbox.post(Mail::Groups);
        }
    }

    /// Processes all requests, so that what was published before a drain is queued before sessions are asked
    /// to end.
    pub(super) fn work_off_all_groups(&mut self) {
        self.work_off(Share::everything());
    }

    fn work_off(&mut self, share: Share) -> bool {
        let groups = &self.share().groups;
        let (now, slow_after) = (self.now(), self.engine.options.sending.slow_after);
        groups.work_off(share, now, slow_after, |due| match due {
            Due::Publication(publication, to, without_room) => {
                self.hand_over(publication, to, without_room)
            }
            Due::Close(id) => self.publications_end(id),
        })
    }

    fn hand_over(
        &mut self,
        publication: &Publication,
        recipients: Recipients<'_>,
        without_room: &mut WithoutRoom,
    ) -> usize {
        let Publication { except, frame, to, .. } = publication;
        let engine = self.engine;
        if let Audience::One(id) = to {
            return self.hand_over_send(*id, publication, recipients.policy, without_room);
        }
        match frame.only_form() {
            // Then it need not be looked for at each member.
            Some(form) => self.hand_over_as(recipients, *except, without_room, |_| form),
            None => self.hand_over_as(recipients, *except, without_room, |framing| {
                engine.form_for(framing, frame)
            }),
        }
    }

    /// To the one session that it was sent to.
    fn hand_over_send(
        &mut self,
        id: SessionId,
        publication: &Publication,
        policy: Policy,
        without_room: &mut WithoutRoom,
    ) -> usize {
        self.with_hold(id, |floor, slot| {
            let has_key = publication.key.is_some();
            let frame = &publication.frame;
            let handed_over = floor.engine.push_placed(slot, frame, policy, has_key);
            floor.note_handed_over(id, policy, handed_over, without_room);
        });
        1
    }

    fn hand_over_as<'f>(
        &mut self,
        recipients: Recipients<'_>,
        except: Option<SessionId>,
        without_room: &mut WithoutRoom,
        form: impl Fn(u8) -> &'f SharedFrame,
    ) -> usize {
        let Recipients { ids, policy } = recipients;
        let Some(ids) = ids else {
            return self.hand_over_to_all(policy, except, without_room, form);
        };
        for id in ids.iter().filter(|id| Some(**id) != except) {
            self.hand_over_to(*id, policy, without_room, &form, false);
        }
        ids.len()
    }

    /// To every session of the port whose `opened` has begun.
    fn hand_over_to_all<'f>(
        &mut self,
        policy: Policy,
        except: Option<SessionId>,
        without_room: &mut WithoutRoom,
        form: impl Fn(u8) -> &'f SharedFrame,
    ) -> usize {
        let table = &self.engine.table;
        for id in table.sessions_of(self.place.port).filter(|id| Some(*id) != except) {
            self.hand_over_to(id, policy, without_room, &form, true);
        }
        table.touched() as usize // looking at a free slot is work too
    }

    fn hand_over_to<'f>(
        &mut self,
        id: SessionId,
        policy: Policy,
        without_room: &mut WithoutRoom,
        form: impl Fn(u8) -> &'f SharedFrame,
        if_opened: bool,
    ) {
        self.with_hold(id, |floor, slot| {
            if if_opened && !slot.is_opened() {
                return;
            }
            if Framings::masks(slot.framing()) {
                let form = form(slot.framing());
                return floor.hand_over_masked(id, slot, form, policy, without_room);
            }
            let handed_over = floor.engine.push_published(slot, &form, policy);
            floor.note_handed_over(id, policy, handed_over, without_room);
        });
    }

    #[cold]
    #[inline(never)] // kept out of the loop over members
    fn hand_over_masked(
        &mut self,
        id: SessionId,
        slot: &Slot,
        form: &SharedFrame,
        policy: Policy,
        without_room: &mut WithoutRoom,
    ) {
        let handed_over = self.engine.push_published_masked(slot, form, policy);
        self.note_handed_over(id, policy, handed_over, without_room);
    }

    #[inline]
    fn note_handed_over(
        &mut self,
        id: SessionId,
        policy: Policy,
        HandedOver { has_room, is_to_attend }: HandedOver,
        without_room: &mut WithoutRoom,
    ) {
        if !has_room {
            without_room.push((id, policy));
        }
        if is_to_attend {
            self.session.desk.attend_later(id);
        }
    }

    /// Ends the members that are slow, and, if publishers wait for the room of what members lack, those for which
    /// nothing leaves.
    pub(super) fn look_for_slow<P: CompletionPort>(&mut self, port: &P, now: Moment) {
        let share = self.share();
        if share.groups.next_look().is_none_or(|at| at > now) {
            return;
        }
        let (hands, to_release) = (&self.hands, &mut self.to_release);
        let see = |id| {
            let slot = hands.hold(id)?;
            let held_by_os = slot
                .registration()
                .and_then(|registration| port.unacknowledged_bytes(Registration(registration)));
            let unacknowledged_bytes = held_by_os.unwrap_or(0) as u64;
            let seen = {
                let mut queue = slot.send_queue.lock();
                let is_sending = queue.is_sending();
                let left = queue.look(unacknowledged_bytes, now.nanos());
                left.map(|left_bytes| Seen { left_bytes, unacknowledged_bytes, is_sending })
            };
            if hands.let_go(slot) {
                to_release.push(id);
            }
            seen
        };
        let have_lasted = |limit, since| share.turns.have_lasted(limit, since, now);
        for id in share.groups.slow(now, &self.engine.options.sending, have_lasted, see) {
            self.with_hold(id, |floor, slot| {
                if slot.ask_to_stop_as_slow() {
                    floor.share().groups.note_slow_end();
                    floor.session.desk.end_later(id);
                }
            });
        }
        self.engine.make_room_for_publishers(share);
    }

    /// Fills the send queue of a session that is behind with a part of what it lacks. The slot is held.
    pub(super) fn refill(&mut self, id: SessionId, slot: &Slot) {
        let (engine, now) = (self.engine, self.now().nanos());
        let offer = |publication: &Publication, policy| {
            let is_placed = matches!(publication.to, Audience::One(_)) && publication.key.is_none();
            match engine.push_lacked(slot, &publication.frame, policy, is_placed).0 {
                true => Offered::Taken,
                false => Offered::NoRoom,
            }
        };
        self.share().groups.refill(id, offer, |closes| {
            let mut queue = slot.send_queue.lock();
            queue.caught_up(now);
            if closes {
                queue.publications_end();
            }
        });
        self.session.desk.attend_later(id);
    }

    fn publications_end(&mut self, id: SessionId) -> usize {
        self.with_hold(id, |floor, slot| {
            if slot.send_queue.lock().publications_end() {
                floor.session.desk.attend_later(id);
            }
        });
        1
    }
}
