//! Publishing: from the caller into the queues of the ports, and from there, by their workers, into the send
//! queues of sessions.

use std::collections::HashMap;

use super::engine::Engine;
use super::lag::Lag;
use super::mailbox::Mail;
use super::publication::Publication;
use super::share::{Follows, PortShare};
use crate::buffer::{Frame, SharedFrame};
use crate::session::{Policy, Refusal, Slot};

/// What has become of a frame that was handed over to a session.
#[must_use]
pub(crate) struct HandedOver {
    /// If not, the session is behind, or misses the frame.
    pub(crate) has_room: bool,
    /// Its worker must attend to it.
    pub(crate) is_to_attend: bool,
}

impl HandedOver {
    #[inline]
    fn of(pushed: Result<(), Refusal>, follows: Follows) -> Self {
        HandedOver {
            has_room: !matches!(pushed, Err(Refusal::Behind { .. })),
            is_to_attend: follows.armed || follows.changed,
        }
    }
}

impl Engine {
    /// Puts a publication into the queues of all ports that it concerns, or of none.
    ///
    /// # Errors
    /// The bytes that wait at a port which has no room.
    pub(crate) fn publish(&self, publication: &Publication) -> Result<(), usize> {
        let one_order = self.publishing.lock();
        for (index, port) in self.ports.iter().enumerate() {
            let kept =
                port.groups.keep_room(publication, self.options.sending.publications_bytes_max);
            // Those that do not read at all make room first.
            let kept = kept.or_else(|waiting| {
                if self.end_stuck_members(port) {
                    port.groups.keep_room(publication, self.options.sending.publications_bytes_max)
                } else {
                    Err(waiting)
                }
            });
            if let Err(waiting) = kept {
                self.tell_if_out(port);
                self.ports[..index].iter().for_each(|port| port.groups.give_up_room());
                Lag::count(&port.groups.lag.publications_refused, 1);
                return Err(waiting);
            }
        }
        let to_tell = |(_, port): &(usize, &PortShare)| port.groups.put(publication);
        let to_tell: Vec<_> = self.ports.iter().enumerate().filter(to_tell).collect();
        drop(one_order);
        for (index, _) in to_tell {
            self.post_or_keep(index, Mail::Groups);
        }
        Ok(())
    }

    /// Tells a worker of a port whose budget is used up, if none knows.
    #[inline]
    pub(super) fn tell_if_out(&self, port: &PortShare) {
        if port.budget.is_to_be_told() {
            let _ = port.mailbox.post(Mail::Budget); // has it ended, so have its sessions
        }
    }

    /// Ends the members of a port that lack publications and for which nothing leaves. True: there were some.
    #[cold]
    pub(super) fn end_stuck_members(&self, port: &PortShare) -> bool {
        // Looked up outside the lock of the groups, because a look-up may end in a release.
        let left: HashMap<_, _> = port
            .groups
            .stuck()
            .into_iter()
            .filter_map(|id| {
                let left = self.with_session(id, |slot| {
                    (slot.send_queue.lock().left_while_behind(), Follows::default())
                });
                Some((id, left??))
            })
            .collect();
        if left.is_empty() {
            return false;
        }
        let left = |id| left.get(&id).copied();
        let stuck = port.groups.forget_stuck(left);
        for id in &stuck {
            // At once: a member that lacks nothing any more would get later frames, and not those before.
            let asked =
                self.with_session(*id, |slot| (slot.ask_to_stop_as_slow(), Follows::default()));
            if asked == Some(true) {
                port.groups.note_slow_end();
                let _ = port.mailbox.post(Mail::End(*id)); // has it ended, so has the session
            }
        }
        !stuck.is_empty()
    }

    /// Queues a published frame for a session on which the caller holds a count. Its frames are not masked.
    #[inline]
    pub(crate) fn push_published<'f>(
        &self,
        slot: &Slot,
        form: impl Fn(u8) -> &'f SharedFrame,
        policy: Policy,
    ) -> HandedOver {
        let (store, queue_max) = (self.store_of(slot), self.options.sending.queue_bytes_max);
        let (frame, pushed) = {
            let mut queue = slot.send_queue.lock();
            let frame = form(slot.framing());
            (frame, queue.push_published(frame, policy, queue_max, store))
        };
        let (pushed, follows) = self.follow(slot, Frame::Shared(frame), pushed);
        HandedOver::of(pushed, follows)
    }

    /// The same for a session whose frames are masked. (All of them are, or none.)
    pub(crate) fn push_published_masked(
        &self,
        slot: &Slot,
        form: &SharedFrame,
        policy: Policy,
    ) -> HandedOver {
        let frame = self.formed(slot.framing(), form);
        let (store, queue_max) = (self.store_of(slot), self.queue_bytes_max_with(&frame));
        let pushed = slot.send_queue.lock().push_published(&frame, policy, queue_max, store);
        let (pushed, follows) = self.follow(slot, Frame::Shared(&frame), pushed);
        HandedOver::of(pushed, follows)
    }

    /// Queues a send that has waited among the publications, as [`push_published`](Self::push_published). It is in the
    /// queue, or kept, when a later send of the same thread looks whether it must wait. A frame with a key makes room
    /// when a newer one comes, which nobody could count.
    pub(crate) fn push_placed(
        &self,
        slot: &Slot,
        frame: &super::frame::Frame,
        policy: Policy,
        has_key: bool,
    ) -> HandedOver {
        let store = self.store_of(slot);
        let mut queue = slot.send_queue.lock();
        let form = self.formed(slot.framing(), self.form_for(slot.framing(), frame));
        let queue_max = self.queue_bytes_max_with(&form);
        let pushed = queue.push_published(&form, policy, queue_max, store);
        let has_room = !matches!(pushed, Err(Refusal::Behind { .. }));
        if has_key || has_room {
            queue.placed_send_came(frame.form_bytes_max());
        }
        drop(queue);
        let (pushed, follows) = self.follow(slot, Frame::Shared(&form), pushed);
        HandedOver::of(pushed, follows)
    }

    /// Queues a frame that a session lacks; `is_placed`: a send that has waited. `false`: there is no room yet.
    pub(crate) fn push_lacked(
        &self,
        slot: &Slot,
        frame: &super::frame::Frame,
        policy: Policy,
        is_placed: bool,
    ) -> (bool, Follows) {
        let store = self.store_of(slot);
        let mut queue = slot.send_queue.lock();
        let form = self.formed(slot.framing(), self.form_for(slot.framing(), frame));
        let queue_max = self.queue_bytes_max_with(&form);
        let pushed = queue.push_lacked(&form, policy, queue_max, store);
        if is_placed && pushed.is_ok() {
            queue.placed_send_came(frame.form_bytes_max());
        }
        drop(queue);
        let (pushed, follows) = self.follow(slot, Frame::Shared(&form), pushed);
        (pushed.is_ok(), follows)
    }
}
