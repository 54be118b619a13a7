//! The handler: does what requests ask for, and tells the truth of what it sees.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use wharf::simulation::{Fault, fires, may_switch, note_queued};
use wharf::{AcceptError, Close, CloseReason, Handle, Handler, SendError, Session, SessionId};

use crate::frames::{FRAME_BYTES_MAX, GROUPS, Message};
use crate::misbehaviour::{Bytes, ON_PURPOSE, may_block, panic_on_purpose};
use crate::publications::{PUBLISHERS, To};
use crate::publishing::{join, leave, publish, say_goodbye};
use crate::rules::Rule;
use crate::truth::SharedTruth;

/// What a request can ask for.
pub(crate) mod action {
    /// Nothing.
    pub(crate) const LISTEN: u8 = 0;
    /// One message of so many bytes.
    pub(crate) const ANSWER: u8 = 1;
    /// So many small messages.
    pub(crate) const ANSWERS: u8 = 2;
    /// A message to another session, of those that there are and were.
    pub(crate) const RELAY: u8 = 3;
    /// A message that the handler does not look after ([`wharf::Session::send`]); some could never be sent.
    pub(crate) const ANSWER_BLINDLY: u8 = 4;
    /// The session's end; whether in order, the argument says.
    pub(crate) const CLOSE: u8 = 5;
    /// Another session's end.
    pub(crate) const CLOSE_OTHER: u8 = 6;
    /// Membership of a group.
    pub(crate) const JOIN: u8 = 7;
    pub(crate) const LEAVE: u8 = 8;
    /// A publication to a group; whether also to itself, the argument says.
    pub(crate) const PUBLISH: u8 = 9;
    /// One to everyone.
    pub(crate) const BROADCAST: u8 = 10;
    pub(crate) const COUNT: u64 = 11;
}

/// The sender of what a session's own callbacks send to it.
pub(crate) const ITSELF: u32 = 0;
/// The senders of relays: this, and the relaying session's slot and generation.
pub(crate) const RELAYS: u32 = 1 << 30;

pub(crate) struct Town {
    pub(crate) truth: Arc<SharedTruth>,
}

/// The state of a session: it belongs to it, and must come to an end.
pub(crate) struct Resident {
    id: SessionId,
    truth: Arc<SharedTruth>,
}

impl Resident {
    fn new(id: SessionId, truth: &Arc<SharedTruth>) -> Self {
        truth.lock().states_made += 1;
        Resident { id, truth: truth.clone() }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.truth.lock().states_dropped += 1;
        if !std::thread::panicking() && fires(Fault::DestructorPanics) {
            panic!("{ON_PURPOSE}");
        }
    }
}

impl Town {
    fn may_panic(&self, id: SessionId, in_opened: bool) {
        if fires(Fault::HandlerPanics) {
            self.truth.lock().panics(id, in_opened);
            panic_on_purpose();
        }
    }

    fn check_state(&self, id: SessionId, state: &Resident) {
        if state.id != id {
            let what = format!("{id} got the state of {}", state.id);
            self.truth.lock().broken(Rule::FramesReachTheirSession, vec![id.to_bits()], what);
        }
    }

    fn act_in_groups(&self, session: &Session, peer: u32, action: u8, argument: u16) {
        let (group, publisher) = (u64::from(argument) % GROUPS, PUBLISHERS + peer);
        let to = match argument / GROUPS as u16 % 3 {
            0 => To::MembersBut(group, session.id()),
            _ => To::Members(group),
        };
        match action {
            action::JOIN => join(&self.truth, session, group),
            action::LEAVE => leave(&self.truth, session, group),
            action::PUBLISH => {
                publish(&self.truth, session.handle(), publisher, to, argument.into());
            }
            action::BROADCAST => {
                publish(&self.truth, session.handle(), publisher, To::All, (argument / 8).into());
            }
            _ => {}
        }
    }

    fn answer(&self, session: &Session, bytes: usize) {
        let id = session.id();
        let number = self.truth.lock().begins_to_send(id, ITSELF);
        let frame = Message { to: id, sender: ITSELF, number }.write(bytes);
        let result = session.try_send(&frame);
        // It did not leave at once. What another thread has queued before it, that thread sees to.
        let waits = result.is_ok() && session.queued_bytes() > 0;
        if waits && self.truth.lock().sends_alone(id) {
            note_queued();
        }
        let result = result.map_err(|error| error_of(error, Vec::clone));
        judge(&self.truth, id, ITSELF, &frame, result, false);
    }
}

/// An error without the frame, and the frame.
pub(crate) enum Refused {
    Gone,
    Full(usize, usize),
    Other(String),
}

pub(crate) type Sending = Result<(), (Refused, Vec<u8>)>;

fn error_of<T>(error: SendError<T>, frame_of: impl FnOnce(T) -> Vec<u8>) -> (Refused, Vec<u8>) {
    let refused = match &error {
        SendError::Gone(_) => Refused::Gone,
        SendError::Full { queued, max, .. } => Refused::Full(*queued, *max),
        error => Refused::Other(error.to_string()),
    };
    (refused, frame_of(error.into_inner()))
}

/// Notes what became of a frame that was handed over.
pub(crate) fn judge(
    truth: &SharedTruth,
    id: SessionId,
    sender: u32,
    frame: &[u8],
    result: Sending,
    was_over: bool,
) {
    let mut truth = truth.lock();
    truth.has_returned(id);
    let about = vec![id.to_bits()];
    let Err((refused, bytes)) = result else {
        if was_over {
            let what = format!("a frame was accepted for {id}, which was over");
            truth.broken(Rule::GoneIsGone, about, what);
        }
        return;
    };
    truth.did_not_send(id, sender);
    if bytes != frame {
        let what = format!("another frame than was sent to {id} came back");
        truth.broken(Rule::FramesArriveWhole, about.clone(), what);
    }
    match refused {
        Refused::Gone => truth.found_gone(id),
        Refused::Full(queued, max) => {
            truth.found_full(id);
            if queued > max {
                let what = format!("{queued} bytes are queued for {id}, of at most {max}");
                truth.broken(Rule::BoundsAreKept, about, what);
            }
        }
        Refused::Other(error) => {
            truth.broken(Rule::GoneIsGone, about, format!("a frame to {id} was refused: {error}"));
        }
    }
}

/// Sends a frame through a handle; `own`: in a callback of this session, which a panic ends.
pub(crate) fn send(
    truth: &SharedTruth,
    handle: &Handle,
    id: SessionId,
    sender: u32,
    bytes: usize,
    own: Option<SessionId>,
) {
    let (number, was_over) = {
        let mut truth = truth.lock();
        let was_over = truth.is_over(id);
        (truth.begins_to_send(id, sender), was_over)
    };
    let frame = Message { to: id, sender, number }.write(bytes);
    let bytes = Bytes::new(&frame, handle, id);
    let is_unreadable = bytes.is_unreadable();
    let sent = catch_unwind(AssertUnwindSafe(|| {
        handle.send(id, bytes).map_err(|error| error_of(error, Bytes::into_frame))
    }));
    match sent {
        Ok(result) => judge(truth, id, sender, &frame, result, was_over),
        Err(panic) => {
            let mut truth = truth.lock();
            truth.has_returned(id);
            if is_unreadable {
                truth.did_not_send(id, sender);
            }
            let Some(own) = own else { return };
            truth.panics(own, false);
            drop(truth);
            resume_unwind(panic);
        }
    }
}

impl Handler for Town {
    type State = Resident;

    fn opened(&self, session: &Session) -> Resident {
        let id = session.id();
        self.truth.lock().opens(id, session.peer_address());
        may_switch();
        self.may_panic(id, true);
        self.answer(session, 0);
        may_switch();
        may_block();
        self.truth.lock().leaves(id);
        Resident::new(id, &self.truth)
    }

    fn received(&self, session: &Session, state: &mut Resident, frame: &[u8]) {
        let id = session.id();
        self.truth.lock().enters(id, "received");
        may_switch();
        may_block();
        self.check_state(id, state);
        let request = self.truth.lock().receives(id, frame);
        self.may_panic(id, false);
        let Some(request) = request else {
            self.truth.lock().leaves(id);
            return;
        };
        let other = |argument: u16| {
            let truth = self.truth.lock();
            let back = usize::from(argument) % truth.ids.len().clamp(1, 64);
            truth.ids[truth.ids.len() - 1 - back]
        };
        match request.action {
            action::ANSWER => self.answer(session, request.argument.into()),
            action::ANSWERS => {
                for _ in 0..request.argument % 50 {
                    self.answer(session, 0);
                }
            }
            action::RELAY => {
                let sender = RELAYS + (request.peer & (RELAYS - 1));
                let other = other(request.argument);
                send(&self.truth, session.handle(), other, sender, 100, Some(id));
            }
            action::ANSWER_BLINDLY if request.argument % 32 == 31 => {
                self.truth.lock().is_given_too_much(id);
                session.send(&[0; FRAME_BYTES_MAX + 1]);
            }
            action::ANSWER_BLINDLY => {
                let number = {
                    let mut truth = self.truth.lock();
                    truth.found_full(id); // it may, and nobody will be told
                    if let Some(session) = truth.sessions.get_mut(&id) {
                        session.is_uncertain = true;
                    }
                    truth.begins_to_send(id, ITSELF)
                };
                let message = Message { to: id, sender: ITSELF, number };
                session.send(&message.write(request.argument.into()));
                self.truth.lock().has_returned(id);
            }
            action::CLOSE => {
                let how =
                    if request.argument.is_multiple_of(2) { Close::Stop } else { Close::Drain };
                self.truth.lock().asks_to_close(id, how);
                session.close(how);
            }
            action::CLOSE_OTHER => {
                let other = other(request.argument);
                let how =
                    if request.argument.is_multiple_of(3) { Close::Drain } else { Close::Stop };
                self.truth.lock().asks_to_close(other, how);
                session.handle().close(other, how);
            }
            action => self.act_in_groups(session, request.peer, action, request.argument),
        }
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn closed(&self, session: &Session, state: Resident, reason: CloseReason) {
        let id = session.id();
        self.truth.lock().enters(id, "closed");
        may_switch();
        may_block();
        self.check_state(id, &state);
        if session.handle().drain(Duration::ZERO).is_ok() {
            let what = format!("the server was drained in closed of {id}");
            self.truth.lock().broken(Rule::CallbacksDoNotWait, vec![id.to_bits()], what);
        }
        say_goodbye(&self.truth, session, reason);
        {
            let mut truth = self.truth.lock();
            truth.closes(id, reason);
            truth.leaves(id);
        }
        if fires(Fault::HandlerPanics) {
            panic_on_purpose();
        }
    }

    fn accept_failed(&self, _: &AcceptError) {
        self.truth.lock().accept_failures_told += 1;
        may_block();
        if fires(Fault::HandlerPanics) {
            panic_on_purpose();
        }
    }

    fn connect_failed(&self, id: SessionId, _: SocketAddr, error: &io::Error) {
        self.truth.lock().fails_to_connect(id, error.kind());
        if fires(Fault::HandlerPanics) {
            panic_on_purpose();
        }
    }
}
