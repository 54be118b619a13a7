//! What threads that do not serve a session's port do to it: send, and start what follows.
//!
//! On a shared port the thread that arms the queue posts the send. On a worker's own port it tells the
//! worker, or sends directly while the worker sleeps ([`DirectSends`](super::direct::DirectSends)).

use super::engine::Engine;
use super::frame::Content;
use super::mailbox::Mail;
use super::push::AtOnce;
use super::share::Follows;
use crate::buffer::Frame as Queued;
use crate::clock::{AnyClock, Moment};
use crate::close::CloseReason;
use crate::error::SendError;
use crate::port::{Anywhere, PostAnywhere, Registration};
use crate::session::{PausedBy, Refusal, SessionId, Slot};

impl Engine {
    /// Queues a frame for a session. The caller holds no count.
    pub(crate) fn try_send(
        &self,
        id: SessionId,
        content: Content<'_>,
    ) -> Result<(), SendError<()>> {
        let sent = self.with_session(id, |slot| self.push_from_outside(slot, content));
        sent.unwrap_or(Err(SendError::Gone(())))
    }

    /// The same, and a session that does not take the frame ends. False: the frame is not queued.
    pub(crate) fn send(&self, id: SessionId, content: Content<'_>) -> bool {
        let sent = self.with_session(id, |slot| {
            let (pushed, follows) = self.push_from_outside(slot, content);
            let Err(error) = pushed else { return (true, follows) };
            let push = || self.push_from_outside(slot, content);
            self.place_or_end(id, slot, content, (error, follows), push)
        });
        sent.unwrap_or(false)
    }

    /// What becomes of a frame that was refused: it waits behind what the session lacks; or it is queued by `push`
    /// after all; or it ends the session. The caller holds a count. False: the frame is not queued.
    #[cold]
    pub(crate) fn place_or_end(
        &self,
        id: SessionId,
        slot: &Slot,
        content: Content<'_>,
        (mut error, mut follows): (SendError<()>, Follows),
        mut push: impl FnMut() -> (Result<(), SendError<()>>, Follows),
    ) -> (bool, Follows) {
        if matches!(error, SendError::Full { .. }) {
            if self.place_send(id, slot, content) {
                return (true, Follows::default());
            }
            // It may have caught up meanwhile.
            let pushed;
            (pushed, follows) = push();
            match pushed {
                Ok(()) => return (true, follows),
                Err(again) => error = again,
            }
        }
        let reason = error.reason(content.bytes());
        follows.changed |= reason.is_some_and(|reason| slot.ask_to_stop(reason));
        (false, follows)
    }

    /// Queues a frame of which only the newest with this key is sent if there is no room yet. The caller holds a
    /// count.
    pub(crate) fn push_latest(
        &self,
        id: SessionId,
        slot: &Slot,
        key: u64,
        content: Content<'_>,
    ) -> (Result<(), SendError<()>>, Follows) {
        let (port, sending) = (self.port_of(slot), &self.options.sending);
        let (frame, mut queue) = loop {
            let framing = slot.framing();
            let frame = match self.encode_for_one(framing, content) {
                Ok(frame) => frame,
                Err(error) => return (Err(error.into()), Follows::default()),
            };
            if let Some(queue) = slot.lock_for(framing) {
                break (frame, queue);
            }
        };
        let (queue_max, bytes) = (sending.queue_bytes_max, frame.form_bytes_max());
        let form = self.formed(slot.framing(), self.form_for(slot.framing(), &frame));
        if queue.takes_latest(form.bytes(), queue_max) {
            let pushed = queue.push(Queued::Shared(&form), queue_max, self.store_of(slot));
            // Without room in the budget it waits.
            if !matches!(pushed, Err(Refusal::Full { .. })) {
                drop(queue);
                let (pushed, follows) = self.follow(slot, Queued::Shared(&form), pushed);
                return (pushed.map_err(|refusal| self.send_error(refusal)), follows);
            }
        }
        if queue.is_ending() {
            return (Err(SendError::Gone(())), Follows::default());
        }
        let max = sending.publications_bytes_max;
        // The other half is for sends, which must not find that the queue is full.
        let has_room = bytes <= (queue_max / 2).saturating_sub(queue.placed_bytes());
        let placed = has_room.then(|| port.groups.place_send(id, Some(key), &frame, max).ok());
        let Some(Some(placed)) = placed else {
            let queued = queue.queued_bytes() + queue.placed_bytes();
            let full = SendError::Full { bytes: (), queued, max: queue_max };
            return (Err(full), Follows::default());
        };
        queue.send_is_placed(bytes);
        drop(queue);
        if placed.tell {
            self.post_or_keep(slot.port(), Mail::Groups);
        }
        (Ok(()), Follows::default())
    }

    /// The same, for a caller who holds no count.
    pub(crate) fn send_latest(
        &self,
        id: SessionId,
        key: u64,
        content: Content<'_>,
    ) -> Result<(), SendError<()>> {
        let sent = self.with_session(id, |slot| self.push_latest(id, slot, key, content));
        sent.unwrap_or(Err(SendError::Gone(())))
    }

    /// Puts a send behind what the session lacks. False: it lacks nothing, or too much waits at the port.
    fn place_send(&self, id: SessionId, slot: &Slot, content: Content<'_>) -> bool {
        let (port, sending) = (self.port_of(slot), &self.options.sending);
        if !slot.send_queue.lock().has_sends_placed() {
            return false;
        }
        let placed = {
            let (frame, mut queue) = loop {
                let framing = slot.framing();
                let Ok(frame) = self.encode_for_one(framing, content) else { return false };
                if let Some(queue) = slot.lock_for(framing) {
                    break (frame, queue);
                }
            };
            let bytes = frame.form_bytes_max();
            if bytes == 0 {
                return true; // an empty raw frame has no bytes to send
            }
            if !queue.may_place_send(bytes, sending.queue_bytes_max) {
                return false;
            }
            let placed = port.groups.place_send(id, None, &frame, sending.publications_bytes_max);
            if placed.is_ok() {
                queue.send_is_placed(bytes);
            }
            placed
        };
        if placed.is_ok_and(|placed| placed.tell) {
            self.post_or_keep(slot.port(), Mail::Groups);
        }
        placed.is_ok()
    }

    /// Calls `act` with a hold on the session, from a thread that is not its worker, and starts what follows.
    /// `act` runs no user code, except that a framing of the program's may say what stands around a frame. `None`: the
    /// session is gone.
    pub(crate) fn with_session<R>(
        &self,
        id: SessionId,
        act: impl FnOnce(&Slot) -> (R, Follows),
    ) -> Option<R> {
        let reference = self.table.look_up(id)?;
        let slot = reference.slot();
        let port = self.port_of(slot);
        let (result, mut follows) = act(slot);
        if follows.armed
            && !self.is_gathering()
            && let Some(Anywhere::Posts(poster)) = port.anywhere.get()
        {
            self.post_send(&**poster, slot, &mut follows);
        }
        self.tell_if_out(port);
        if follows != Follows::default() {
            self.post_or_keep(slot.port(), Mail::Attend(id));
        }
        // A release runs on a worker of the session's port (invariant 4).
        if reference.end() && port.mailbox.post(Mail::Release(id)).is_err() {
            self.release(id, slot.port());
        }
        Some(result)
    }

    /// Says whether somebody wants a session's receiving paused. False: it is gone.
    pub(crate) fn ask_to_pause(&self, id: SessionId, by: PausedBy, pause: bool) -> bool {
        let asked = self.with_session(id, |slot| {
            ((), Follows { changed: slot.ask_to_pause(by, pause), ..Follows::default() })
        });
        asked.is_some()
    }

    /// Queues a frame. If the session's worker sleeps, it may leave directly.
    pub(super) fn push_from_outside(
        &self,
        slot: &Slot,
        content: Content<'_>,
    ) -> (Result<(), SendError<()>>, Follows) {
        let port = self.port_of(slot);
        let leaves = port.mailbox.owner_sleeps() && !self.is_gathering();
        let at_once = if leaves { AtOnce::WhileItSleeps } else { AtOnce::No };
        let (result, follows) = self.push(slot, content, at_once);
        if let Ok(left @ 1..) = result {
            port.direct_sends.note(left, !follows.armed);
        }
        (result.map(|_| ()), follows)
    }

    /// Posts the send that this thread has armed. If the post is refused, the session ends.
    fn post_send(&self, poster: &dyn PostAnywhere, slot: &Slot, follows: &mut Follows) {
        let Some(registration) = slot.registration() else { return };
        follows.armed = false;
        let begun = slot.begin_send(|| self.now().nanos());
        let Some(batch) = begun else { return }; // its worker was faster
        if let Err(refused) = poster.post_send(Registration(registration), batch) {
            slot.send_refused(refused.given_back, CloseReason::of_io(&refused.error));
            follows.changed = true;
        }
    }

    /// The workers' time. If their clock was not set, it stands still.
    pub(super) fn now(&self) -> Moment {
        self.clock.as_ref().map_or_else(Moment::default, AnyClock::now)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::super::direct::SENDS_MAX;
    use super::*;
    use crate::buffer::Direct;
    use crate::framing::Framing;
    use crate::options::Options;
    use crate::port::Sockets;
    use crate::sync::Mutex;

    /// A socket that takes so many bytes at a time.
    #[derive(Debug)]
    struct Takes(usize, Mutex<Vec<u8>>);

    impl Direct for Takes {
        fn send(
            &self,
            registration: u32,
            parts: &[std::io::IoSlice<'_>],
        ) -> Result<usize, CloseReason> {
            assert_eq!(registration, 7);
            let bytes = crate::framing::Parts(parts).iter().collect::<Vec<_>>();
            let count = bytes.len().min(self.0);
            self.1.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_frame_leaves_at_once_if_the_worker_sleeps_and_nothing_is_before_it() {
        let options = Options::default().workers(1);
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let slot = engine.table.held(engine.admit(None, 0).unwrap()).unwrap();
        let mailbox = &engine.ports[0].mailbox;
        let taken = Arc::new(Takes(3, Mutex::default()));
        let push = |bytes: &[u8]| {
            let (result, follows) = engine.push_from_outside(slot, Content::Plain(bytes));
            result.unwrap();
            follows
        };
        let queued = |bytes: usize| assert_eq!(slot.send_queue.lock().queued_bytes(), bytes);
        let counted = |sends, bytes, frames| {
            let stats = engine.stats();
            let said = (stats.sends, stats.sent_bytes, stats.sent_frames);
            assert_eq!(said, (sends, bytes, frames));
        };

        assert!(mailbox.may_sleep());
        engine.ports[0].set_anywhere(Anywhere::Sends(taken.clone()));
        assert!(push(b"a").armed, "its socket is not registered yet");
        slot.set_registration(Some(7));
        assert!(!push(b"b").armed, "something is before it");
        let mut batch = slot.begin_send(|| 0).unwrap();
        assert!(!push(b"c").armed, "a send is outstanding");
        batch.advance(2);
        slot.send_queue.lock().sent(batch, 2, 0, 0);
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        assert!(!slot.send_queue.lock().sent(batch, 1, 0, 0).goes_on);
        mailbox.take(&mut Vec::new());
        assert!(push(b"d").armed, "the worker is awake");
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        slot.send_queue.lock().sent(batch, 1, 0, 0);
        assert!(taken.1.lock().is_empty());

        assert!(mailbox.may_sleep());
        assert_eq!(push(b"efg"), Follows::default(), "nobody need be told");
        queued(0);
        counted(1, 3, 1);
        assert!(push(b"hijkl").armed, "the rest is the worker's");
        queued(2);
        assert!(!push(b"m").armed);
        queued(3);
        assert_eq!(*taken.1.lock(), b"efghij");
        counted(2, 6, 1);
    }

    #[test]
    fn the_push_that_passes_the_pause_mark_is_told_and_none_before_or_after_it() {
        let options = Options::default().workers(1).with(|options| {
            options.sending.queue_bytes_max = 64 * 1024;
            options.receiving.backpressure = crate::Backpressure::PauseReceive;
        });
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let slot = engine.table.held(engine.admit(None, 0).unwrap()).unwrap();
        let push =
            |bytes| engine.push_from_outside(slot, Content::Plain(&vec![1; bytes])).1.changed;
        // The mark is half of what may be queued.
        assert_eq!([16_000, 16_768, 1, 9_000].map(push), [false, false, true, false]);
    }

    /// Else its front would leave twice, or its rest never.
    #[test]
    fn the_rest_of_a_frame_that_has_begun_to_leave_is_queued_whatever_the_budget_says() {
        let options = Options::default().workers(1).with(|options| {
            options.sending.queue_bytes_max = 64 * 1024;
            options.sending.queued_bytes_max = Some(64 * 1024);
        });
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let slot = engine.table.held(engine.admit(None, 0).unwrap()).unwrap();
        slot.set_registration(Some(7));
        let port = &engine.ports[0];
        let used_up =
            std::iter::repeat(()).take_while(|()| port.budget.charge(1, |_| true)).count();
        let push = |bytes: &[u8]| engine.push_from_outside(slot, Content::Plain(bytes));
        assert!(push(&[1; 20_000]).0.is_err(), "the budget is used up");
        assert!(port.mailbox.may_sleep());
        port.set_anywhere(Anywhere::Sends(Arc::new(Takes(3, Mutex::default()))));
        assert!(push(&[1; 20_000]).0.is_ok());
        let queue = slot.send_queue.lock();
        assert_eq!((queue.queued_bytes(), queue.pages()), (20_000 - 3, 6));
        port.budget.discharge(used_up as u32);
    }

    /// Else peers that have only just stopped reading, and look as if they read, take all of it.
    #[test]
    fn half_of_a_ports_reserve_is_for_sessions_that_hold_little() {
        let options = Options::default().workers(1).with(|options| {
            options.sending.queue_bytes_max = 512 * 1024;
            options.sending.queued_bytes_max = Some(1 << 20);
        });
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let [much, little] =
            [(); 2].map(|()| engine.table.held(engine.admit(None, 0).unwrap()).unwrap());
        let has_room = |slot, kib: usize| {
            engine.push_from_outside(slot, Content::Plain(&vec![1; kib * 1024])).0.is_ok()
        };
        assert!(has_room(much, 400));
        let (budget, half) = (&engine.ports[0].budget, super::super::budget::RESERVE_PAGES / 2);
        let mut taken = 0;
        let mut take = |beyond_max: u32| {
            while budget.charge(1, |beyond| beyond <= beyond_max) {
                taken += 1;
            }
        };
        take(half - 20);
        assert!(has_room(much, 40), "the first half is for everybody");
        take(half);
        assert!(!has_room(much, 20) && has_room(little, 12));
        take(2 * half);
        assert!(!has_room(little, 12), "it is used up");
        budget.discharge(taken);
    }

    #[test]
    fn what_would_not_leave_at_once_anyway_takes_nothing_from_others() {
        let options = Options::default().workers(1);
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let [stalled, other] =
            [(); 2].map(|()| engine.table.held(engine.admit(None, 0).unwrap()).unwrap());
        let taken = Arc::new(Takes(1, Mutex::default()));
        engine.ports[0].set_anywhere(Anywhere::Sends(taken.clone()));
        assert!(engine.ports[0].mailbox.may_sleep());
        assert!(
            engine.push_from_outside(stalled, Content::Plain(b"a")).1.armed,
            "it is not registered yet"
        );
        stalled.set_registration(Some(7));
        for _ in 0..2 * SENDS_MAX {
            assert_eq!(
                engine.push_from_outside(stalled, Content::Plain(b"b")).1,
                Follows::default()
            );
        }
        other.set_registration(Some(7));
        assert_eq!(engine.push_from_outside(other, Content::Plain(b"c")).1, Follows::default());
        assert_eq!(*taken.1.lock(), b"c");
    }
    /// A socket that has failed.
    #[derive(Debug)]
    struct Fails;

    impl Direct for Fails {
        fn send(&self, _: u32, _: &[std::io::IoSlice<'_>]) -> Result<usize, CloseReason> {
            Err(CloseReason::Reset)
        }
    }

    #[test]
    fn a_socket_that_fails_a_send_at_once_is_told_to_the_worker() {
        let options = Options::default().workers(1);
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let id = engine.admit(None, 0).unwrap();
        let slot = engine.table.held(id).unwrap();
        slot.set_registration(Some(7));
        engine.ports[0].set_anywhere(Anywhere::Sends(Arc::new(Fails)));
        assert!(engine.ports[0].mailbox.may_sleep());
        assert!(!engine.send(id, Content::Plain(b"a")));
        let mut mails = Vec::new();
        engine.ports[0].mailbox.take(&mut mails);
        assert!(matches!(mails[..], [Mail::Attend(noted)] if noted == id), "{mails:?}");
        assert_eq!(slot.closing().map(|closing| closing.reason), Some(CloseReason::Reset));
    }
}
