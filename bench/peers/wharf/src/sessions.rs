//! The session layer: broadcast, and threads that send to sessions by their ids.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use protocol::{Arguments, HEADER_BYTES, Hello, Sent, run_sender};
use wharf::{Close, Group, Handle, Handler, SendError, Session, SessionId};

/// All members' group.
const MEMBERS: Group = Group(1);

/// Whoever has said hello hears every frame that is said after it. A member that is over, or that does not
/// read, misses it: the load tells.
pub(crate) struct Broadcast;

impl Handler for Broadcast {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        let handle = session.handle();
        let done = if Hello::read(frame).is_some() {
            session.send(frame);
            handle.join(session.id(), MEMBERS).is_ok()
        } else {
            handle.publish(MEMBERS, frame).is_ok()
        };
        if !done {
            session.close(Close::Stop);
        }
    }
}

/// Threads send to the sessions once all have said hello.
pub(crate) struct SendById {
    arguments: Arguments,
    sessions: Arc<[OnceLock<SessionId>]>,
    greeted: Mutex<usize>,
}

impl SendById {
    pub(crate) fn new(arguments: Arguments) -> SendById {
        let sessions = (0..arguments.sessions).map(|_| OnceLock::new()).collect();
        SendById { arguments, sessions, greeted: Mutex::new(0) }
    }

    fn start_senders(&self, handle: &Handle) {
        let ids: Arc<[SessionId]> =
            self.sessions.iter().filter_map(|id| id.get().copied()).collect();
        for sender in 0..self.arguments.senders {
            let (arguments, ids, handle) =
                (self.arguments.clone(), Arc::clone(&ids), handle.clone());
            thread::spawn(move || {
                run_sender(&arguments, sender as u32, |index, frame| {
                    match handle.try_send(ids[index], &frame[HEADER_BYTES..]) {
                        Ok(()) => Sent::Queued,
                        Err(SendError::Full { .. }) => Sent::Full,
                        Err(_) => Sent::Gone,
                    }
                });
            });
        }
    }
}

impl Handler for SendById {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        let Some(index) = Hello::read(frame) else { return };
        let Some(place) = self.sessions.get(index as usize) else { return };
        session.send(frame);
        if place.set(session.id()).is_ok() {
            let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
            *greeted += 1;
            if *greeted == self.sessions.len() {
                self.start_senders(session.handle());
            }
        }
    }
}
