//! What threads that do not serve a session's port do to it: they send, and see to what follows.
//!
//! On a shared port they post the send that they have armed. On a worker's own they tell the worker, or send
//! at once while it sleeps ([`DirectSends`](super::direct::DirectSends)).

use super::engine::Engine;
use super::mailbox::Mail;
use super::push::AtOnce;
use super::share::Follows;
use crate::clock::{AnyClock, Moment};
use crate::close::CloseReason;
use crate::error::SendError;
use crate::port::{Anywhere, PostAnywhere, Registration};
use crate::session::{SessionId, Slot};

impl Engine {
    /// Queues a frame for a session, from a thread that holds nothing of it.
    pub(crate) fn send(&self, id: SessionId, frame: &[u8]) -> Result<(), SendError<()>> {
        let sent = self.with_session(id, |slot| self.push_from_outside(slot, frame));
        sent.unwrap_or(Err(SendError::Gone(())))
    }

    /// Runs `act`, which is none of the user's code, with a hold on the session, from a thread that is not
    /// its worker's, and sees to what follows. `None`: the session is gone.
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
            && let Some(Anywhere::Posts(poster)) = port.anywhere.get()
        {
            self.post_send(&**poster, slot, &mut follows);
        }
        if follows != Follows::default() {
            // A worker that has ended has nothing left to attend to.
            let _ = port.mailbox.post(Mail::Attend(id));
        }
        // The release runs on the session's worker (invariant 4).
        if reference.end() && port.mailbox.post(Mail::Release(id)).is_err() {
            self.release(id, slot.port());
        }
        Some(result)
    }

    /// Queues a frame. If the session's worker sleeps, it may leave at once.
    fn push_from_outside(&self, slot: &Slot, frame: &[u8]) -> (Result<(), SendError<()>>, Follows) {
        let port = self.port_of(slot);
        let at_once = if port.mailbox.owner_sleeps() { AtOnce::WhileItSleeps } else { AtOnce::No };
        let (result, follows) = self.push(slot, frame, at_once);
        if let Ok(left @ 1..) = result {
            port.direct_sends.note(left, !follows.armed);
        }
        (result.map(|_| ()), follows)
    }

    /// Posts the send that this thread has armed. What cannot be posted ends the session.
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

    /// The workers' time; it stands still where their clock is not known.
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
        fn send(&self, registration: u32, parts: [&[u8]; 2]) -> Result<usize, CloseReason> {
            assert_eq!(registration, 7);
            let bytes = parts.concat();
            let count = bytes.len().min(self.0);
            self.1.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_frame_leaves_at_once_if_the_worker_sleeps_and_nothing_is_before_it() {
        let options = Options { workers: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let slot = engine.table.held(engine.admit(None).unwrap()).unwrap();
        let mailbox = &engine.ports[0].mailbox;
        let taken = Arc::new(Takes(3, Mutex::default()));
        let push = |bytes: &[u8]| {
            let (result, follows) = engine.push_from_outside(slot, bytes);
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
        slot.send_queue.lock().sent(batch, 2, 0);
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        assert!(!slot.send_queue.lock().sent(batch, 1, 0).goes_on);
        mailbox.take(&mut Vec::new());
        assert!(push(b"d").armed, "the worker is awake");
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        slot.send_queue.lock().sent(batch, 1, 0);
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
    fn what_would_not_leave_at_once_anyway_takes_nothing_from_others() {
        let options = Options { workers: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let [stalled, other] =
            [(); 2].map(|()| engine.table.held(engine.admit(None).unwrap()).unwrap());
        let taken = Arc::new(Takes(1, Mutex::default()));
        engine.ports[0].set_anywhere(Anywhere::Sends(taken.clone()));
        assert!(engine.ports[0].mailbox.may_sleep());
        assert!(engine.push_from_outside(stalled, b"a").1.armed, "it is not registered yet");
        stalled.set_registration(Some(7));
        for _ in 0..2 * SENDS_MAX {
            assert_eq!(engine.push_from_outside(stalled, b"b").1, Follows::default());
        }
        other.set_registration(Some(7));
        assert_eq!(engine.push_from_outside(other, b"c").1, Follows::default());
        assert_eq!(*taken.1.lock(), b"c");
    }
}
