//! The handler: does what requests ask for, and records what it sees.

mod forms;
mod web_socket;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wharf::simulation::for_wharf_sim::note_queued;
use wharf::simulation::{Fault, fires, may_switch};
use wharf::{
    AcceptError, Close, CloseReason, Group, Handle, Handler, Mailer, SendError, Session, SessionId,
    Target, Told, Upgrade, UpgradeRequest,
};

use crate::behind::Behind;
use crate::forms::Form;
use crate::frames::{FRAME_BYTES_MAX, GROUPS, Message};
use crate::framings::Framings;
use crate::jobs::{OFFLOADERS, offload};
use crate::misbehaviour::{ON_PURPOSE, may_block, panic_on_purpose};
use crate::notes::{KEYS, Note, cancel_timer, closes, end, set_timer, tell};
use crate::partings::{FAREWELL_BYTES, finish, kick};
use crate::publications::{DRAINING, PUBLISHERS, To};
use crate::publishing::{join, leave, publish, say_goodbye};
use crate::room::{ask_for_room, pause};
use crate::rules::Rule;
use crate::sending::{error_of, judge, send};
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
    /// Those up to here are for every scenario.
    pub(crate) const COUNT: u64 = 11;
    /// The end of our direction, its own or another session's.
    pub(crate) const FINISH: u8 = 11;
    pub(crate) const FINISH_OTHER: u8 = 12;
    /// A farewell.
    pub(crate) const KICK: u8 = 13;
    pub(crate) const KICK_OTHER: u8 = 14;
    /// To be told of so much room.
    pub(crate) const ASK_FOR_ROOM: u8 = 15;
    pub(crate) const ASK_FOR_ROOM_OF_OTHER: u8 = 16;
    /// To be given nothing before somebody resumes it.
    pub(crate) const PAUSE: u8 = 17;
    pub(crate) const PAUSE_OTHER: u8 = 18;
    pub(crate) const RESUME_OTHER: u8 = 19;
    /// Another framing for the session, now or in a later callback; which, the argument says.
    pub(crate) const CHANGE: u8 = 20;
    pub(crate) const CHANGE_LATER: u8 = 21;
    /// A note to another session; a timer; that it is cancelled.
    pub(crate) const TELL_OTHER: u8 = 22;
    pub(crate) const SET_TIMER: u8 = 23;
    pub(crate) const CANCEL_TIMER: u8 = 24;
    /// A job.
    pub(crate) const OFFLOAD: u8 = 25;
}

/// The sender of what a session's own callbacks send to it.
pub(crate) const ITSELF: u32 = 0;
/// The senders of relays: this, and the relaying session's slot and generation.
pub(crate) const RELAYS: u32 = 1 << 30;

pub(crate) struct Town {
    pub(crate) truth: Arc<SharedTruth>,
    /// Of its server, as soon as there is one.
    pub(crate) handle: Arc<OnceLock<Handle>>,
    /// What is played of members that are behind.
    pub(crate) behind: Option<Behind>,
    /// What is played of framings.
    pub(crate) framings: Option<Framings>,
    /// It tells sessions notes, if any are played.
    pub(crate) mailer: Option<Mailer<Note>>,
}

/// What the program knows of a session that it begins.
pub(crate) struct Known {
    pub(crate) number: u64,
    /// The form that it is to have, if it is not the first.
    pub(crate) form: Option<Form>,
    truth: Arc<SharedTruth>,
}

impl Known {
    pub(crate) fn new(truth: &Arc<SharedTruth>, form: Option<Form>) -> Self {
        let number = {
            let mut truth = truth.lock();
            truth.contexts_made += 1;
            truth.contexts_made
        };
        Known { number, form, truth: truth.clone() }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.truth.lock().contexts_dropped += 1;
    }
}

/// The state of a session: it belongs to it, and must come to an end.
pub(crate) struct Resident {
    id: SessionId,
    pub(crate) truth: Arc<SharedTruth>,
    /// Of bytes that come without a framing: those that are no whole request yet.
    pub(crate) rest: Vec<u8>,
    /// The framing that it is to change to, as soon as it can.
    pub(crate) wants: Option<usize>,
}

impl Resident {
    fn new(id: SessionId, truth: &Arc<SharedTruth>) -> Self {
        truth.lock().states_made += 1;
        Resident { id, truth: truth.clone(), rest: Vec::new(), wants: None }
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

    fn check_context(&self, session: &Session) {
        let number = session.context::<Known>().map(|known| known.number);
        let is_connected = session.listener().is_none();
        let mut truth = self.truth.lock();
        truth.has_context(session.id(), number);
        if is_connected != number.is_some() {
            let what = format!("{} has context {number:?}: {is_connected}", session.id());
            truth.broken(Rule::ContextsAreKept, vec![session.id().to_bits()], what);
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
            action::JOIN => {
                let policy =
                    self.behind.as_ref().map(|behind| behind.policy(u64::from(argument) / 64));
                join(&self.truth, session, group, policy.unwrap_or_default());
            }
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

    /// What has to do with the ends of sessions, with room and with pauses.
    fn part(&self, session: &Session, other: SessionId, action: u8, argument: usize) {
        let (truth, handle, id) = (&*self.truth, session.handle(), session.id());
        let farewell_bytes = argument % FAREWELL_BYTES as usize;
        match action {
            action::FINISH => finish(truth, handle, id, Some(session)),
            action::FINISH_OTHER => finish(truth, handle, other, None),
            action::KICK => kick(truth, handle, id, farewell_bytes, Some(session)),
            action::KICK_OTHER => kick(truth, handle, other, farewell_bytes, None),
            action::ASK_FOR_ROOM => {
                truth.lock().asks_for_room(id, 8 * argument, true);
                session.notify_writable(8 * argument);
            }
            action::ASK_FOR_ROOM_OF_OTHER => ask_for_room(truth, handle, other, 8 * argument),
            action::PAUSE => pause(truth, handle, id, true, Some(session)),
            action::PAUSE_OTHER => pause(truth, handle, other, true, None),
            _ => pause(truth, handle, other, false, None),
        }
    }

    /// Does what a request asks for, if it is one.
    fn acts_on(&self, session: &Session, state: &mut Resident, frame: &[u8]) {
        let id = session.id();
        let request = self.truth.lock().receives(id, frame);
        self.may_panic(id, false);
        let Some(request) = request else { return };
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
            action::ANSWER_BLINDLY if request.argument % 32 == 31 && self.has_bound(id) => {
                self.truth.lock().is_given_too_much(id);
                session.send([0; FRAME_BYTES_MAX + 1]);
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
                self.truth.lock().may_be_placed(request.argument.into());
                let message = Message { to: id, sender: ITSELF, number };
                session.send(self.truth.write(message, request.argument.into()));
                self.truth.lock().has_returned(id);
            }
            action::CLOSE => {
                let how =
                    if request.argument.is_multiple_of(2) { Close::Stop } else { Close::Drain };
                self.truth.lock().asks_to_close(id, how);
                session.close(how);
                self.truth.lock().closes_itself(id);
            }
            action::CLOSE_OTHER => {
                let other = other(request.argument);
                let how =
                    if request.argument.is_multiple_of(3) { Close::Drain } else { Close::Stop };
                self.truth.lock().asks_to_close(other, how);
                session.handle().close(other, how);
            }
            action::FINISH..=action::RESUME_OTHER => {
                let other = other(request.argument);
                self.part(session, other, request.action, request.argument.into());
            }
            action::CHANGE => self.change(session, state, request.argument.into()),
            action::CHANGE_LATER => self.change_later(session, state, request.argument.into()),
            action::TELL_OTHER => {
                let other = other(request.argument);
                self.tells(other, request.peer);
            }
            action::OFFLOAD => self.offloads(id, request.argument),
            action::SET_TIMER => set_timer(&self.truth, session, request.argument.into()),
            action::CANCEL_TIMER => cancel_timer(&self.truth, session, request.argument.into()),
            action => self.act_in_groups(session, request.peer, action, request.argument),
        }
        if request.number % 61 == 17 && state.wants.is_none() {
            pause(&self.truth, session.handle(), id, true, Some(session));
        }
    }

    /// A session of this peer tells another one, or itself.
    fn tells(&self, other: SessionId, peer: u32) {
        let Some(mailer) = &self.mailer else { return };
        tell(&self.truth, mailer, other, RELAYS + (peer & (RELAYS - 1)));
    }

    /// A session offloads, some requests much.
    fn offloads(&self, id: SessionId, argument: u16) {
        let Some(mailer) = &self.mailer else { return };
        let count = if argument.is_multiple_of(16) { 20 } else { 1 };
        for more in 0..count {
            offload(&self.truth, mailer, (id, true), ITSELF, u64::from(argument) * (1 + more));
        }
    }

    fn join_at_once(&self, session: &Session) {
        let Some(behind) = &self.behind else { return };
        let number = u64::from(session.id().to_bits() as u32 >> 4) ^ session.id().to_bits() >> 36;
        for group in behind.joins(number) {
            join(&self.truth, session, group, behind.policy(number + group));
        }
    }

    fn answer(&self, session: &Session, bytes: usize) {
        self.answer_with(session, bytes);
    }

    /// The number of the message, if it was taken.
    fn answer_with(&self, session: &Session, bytes: usize) -> Option<u32> {
        let id = session.id();
        let number = self.truth.lock().begins_to_send(id, ITSELF);
        let frame = self.truth.write(Message { to: id, sender: ITSELF, number }, bytes);
        let result = session.try_send(&frame);
        // It did not leave at once. What another thread has queued before it, that thread sees to.
        let waits = result.is_ok() && session.queued_bytes() > 0;
        if waits && self.truth.lock().sends_alone(id) {
            note_queued();
        }
        if let Err(SendError::Full { .. }) = result {
            let mut truth = self.truth.lock();
            let bytes = truth.envelope_bytes(id, frame.len()) + frame.len();
            truth.asks_for_room(id, bytes, true);
        }
        let result = result.map_err(|error| error_of(error, Vec::clone));
        let is_taken = result.is_ok();
        judge(&self.truth, id, (ITSELF, number), &frame, result, false);
        is_taken.then_some(number)
    }
}

impl Handler for Town {
    type State = Resident;

    fn upgrade(&self, request: &UpgradeRequest) -> Upgrade {
        self.answers_request(request)
    }

    fn opened(&self, session: &Session) -> Resident {
        let id = session.id();
        self.truth.lock().opens(id, session.peer_address().and_then(|address| address.as_tcp()));
        self.check_context(session);
        self.notes_form(session);
        may_switch();
        self.may_panic(id, true);
        self.answer(session, 0);
        self.join_at_once(session);
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
        self.check_context(session);
        self.truth.lock().check_not_paused(id, "received");
        self.truth.lock().check_not_paused_by_jobs(id);
        self.check_listener(session);
        self.check_is_text(session, frame);
        if self.truth.lock().form_of(id) == Some(Form::Raw) {
            self.receives_raw(session, state, frame);
        } else {
            self.acts_on(session, state, frame);
        }
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn writable(&self, session: &Session, state: &mut Resident) {
        let id = session.id();
        let room = session.room();
        {
            let mut truth = self.truth.lock();
            truth.enters(id, "writable");
            truth.is_told_of_room(id, room);
        }
        may_switch();
        may_block();
        self.check_state(id, state);
        self.goes_on_to_change(session, state);
        self.answer(session, 0);
        self.may_panic(id, false);
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn timer(&self, session: &Session, state: &mut Resident, key: u64) {
        let id = session.id();
        let senders_end = {
            let mut truth = self.truth.lock();
            truth.enters(id, "timer");
            truth.timer_fires(id, key);
            truth.senders_end
        };
        may_switch();
        may_block();
        self.check_state(id, state);
        if !senders_end && key < KEYS / 2 {
            set_timer(&self.truth, session, key + KEYS * (2 + key));
        }
        self.answer(session, 0);
        self.may_panic(id, false);
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn lagged(&self, session: &Session, state: &mut Resident, group: Group, frames: u64) {
        let id = session.id();
        self.truth.lock().enters(id, "lagged");
        may_switch();
        may_block();
        self.check_state(id, state);
        // Noted before it is sent: it may be there before the call returns.
        self.truth.lock().is_told_of_lag(id, group.0, frames);
        if self.answer_with(session, 0).is_none() {
            self.truth.lock().publications.lags(id, group.0, frames, None);
        }
        self.may_panic(id, false);
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn peer_finished(&self, session: &Session, state: &mut Resident) {
        let id = session.id();
        let heard = {
            let mut truth = self.truth.lock();
            truth.enters(id, "peer_finished");
            truth.check_not_paused(id, "peer_finished");
            truth.is_told_end(id);
            truth.sessions.get(&id).map_or(0, |session| session.received)
        };
        may_switch();
        may_block();
        self.check_state(id, state);
        // The others go on, until another thread finishes them.
        match heard % 6 {
            0 => finish(&self.truth, session.handle(), id, Some(session)),
            1 => {
                for _ in 0..1 + heard % 32 {
                    self.answer(session, heard as usize % FRAME_BYTES_MAX);
                }
                finish(&self.truth, session.handle(), id, Some(session));
            }
            2 => self.answer(session, 100 * (heard as usize % 64)),
            _ => {}
        }
        self.may_panic(id, false);
        may_switch();
        self.truth.lock().leaves(id);
    }

    fn closed(&self, session: &Session, state: Resident, reason: CloseReason) {
        let id = session.id();
        self.truth.lock().enters(id, "closed");
        may_switch();
        may_block();
        self.check_state(id, &state);
        self.check_context(session);
        if session.handle().drain(Duration::ZERO).is_ok() {
            let what = format!("the server was drained in closed of {id}");
            self.truth.lock().broken(Rule::CallbacksDoNotWait, vec![id.to_bits()], what);
        }
        say_goodbye(&self.truth, session, reason);
        closes(&self.truth, session);
        {
            let mut truth = self.truth.lock();
            truth.closes(id, reason);
            truth.leaves(id);
        }
        if fires(Fault::HandlerPanics) {
            panic_on_purpose();
        }
    }

    fn draining(&self) {
        self.truth.lock().is_told_of_drain();
        may_switch();
        if let Some(handle) = self.handle.get() {
            publish(&self.truth, handle, DRAINING, To::All, 0);
        }
        may_block();
        self.truth.lock().drain_may_begin = true;
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

    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        let known = target.context.as_ref().and_then(|known| known.downcast_ref::<Known>());
        let number = known.map(|known| known.number);
        {
            let mut truth = self.truth.lock();
            truth.fails_to_connect(id, error.kind());
            truth.has_context(id, number);
        }
        if fires(Fault::HandlerPanics) {
            panic_on_purpose();
        }
    }
}

impl Told<Note> for Town {
    fn told(&self, session: &Session, state: &mut Resident, note: Note) {
        let id = session.id();
        let told = {
            let mut truth = self.truth.lock();
            truth.enters(id, "told");
            truth.is_told(id, &note);
            if note.teller & !(OFFLOADERS - 1) == OFFLOADERS {
                truth.job_is_told(id);
            }
            truth.notes.told
        };
        may_switch();
        may_block();
        self.check_state(id, state);
        match told % 16 {
            0 => self.answer(session, 0),
            1 => set_timer(&self.truth, session, told),
            2 => self.goes_on_to_change(session, state),
            3 if told % 128 == 3 => {
                self.truth.lock().asks_to_close(id, Close::Drain);
                session.close(Close::Drain);
                self.truth.lock().closes_itself(id);
            }
            _ => {}
        }
        end(&self.truth, id, note);
        self.may_panic(id, false);
        may_switch();
        self.truth.lock().leaves(id);
    }
}
