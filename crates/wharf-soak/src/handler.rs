//! What the sessions of a round do: what their peers request, and what their seed decides.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf::{
    Close, CloseReason, Farewell, Group, Handler, Policy, SendError, Session, SessionId, Told,
};

use crate::actor::{Actor, policy_of};
use crate::deeds::{TOWN, To};
use crate::due::{Due, Note};
use crate::frames::{Frame, Kind, LENGTH_BYTES, Request, cut_frames};
use crate::odd_frames::{OddFrame, Way};
use crate::panics;
use crate::plan::Plan;
use crate::random::Random;
use crate::rules::Rule;
use crate::senders::Targets;
use crate::truth::{Target, Truth, lock};
use crate::wires::Wire;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Action {
    Nothing,
    Reply,
    ReplyOften,
    ReplyMuch,
    /// More than a socket takes, asked for some times by one who reads none of it.
    Flood,
    TellTown,
    TellOthers,
    TellAll,
    /// A group of the session's own: joins, is told, leaves, is not told.
    ComeAndGo,
    SendToAnother,
    SendOdd,
    Connect,
    /// More frames than there may be room for: what is refused follows when there is room.
    Owe,
    AskForRoom,
    /// Until a thread resumes it.
    Pause,
    Finish,
    /// Publishes to itself and others, then drains.
    PublishAndDrain,
    /// Closes with a farewell, behind a full queue or not.
    Kick,
    Drain,
    Stop,
}

impl Action {
    pub(crate) fn number(self) -> u8 {
        ACTIONS.iter().position(|action| *action == self).unwrap_or(0) as u8
    }
}

/// Mostly what goes on.
pub(crate) const ACTIONS: [Action; 33] = [
    Action::Nothing,
    Action::Nothing,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::ReplyOften,
    Action::ReplyOften,
    Action::ReplyMuch,
    Action::TellTown,
    Action::TellOthers,
    Action::TellAll,
    Action::ComeAndGo,
    Action::ComeAndGo,
    Action::SendToAnother,
    Action::SendOdd,
    Action::Flood,
    Action::Connect,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::Reply,
    Action::Owe,
    Action::Owe,
    Action::AskForRoom,
    Action::Pause,
    Action::Finish,
    Action::PublishAndDrain,
    Action::Kick,
    Action::Drain,
    Action::Stop,
];

pub(crate) struct Town {
    pub(crate) plan: Arc<Plan>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) targets: Targets,
}

pub(crate) struct State {
    actor: Actor,
    truth: Arc<Truth>,
    random: Random,
    /// With `Framing::raw`: what has come of frames.
    stream: Vec<u8>,
    /// Frames that are still to be sent, and whether our direction ends after them.
    owed: u64,
    finishes: bool,
    is_bomb: bool,
    due: Due,
}

impl Drop for State {
    fn drop(&mut self) {
        self.truth.states_dropped.fetch_add(1, Ordering::Relaxed);
        lock(&self.truth.deeds).push(std::mem::take(&mut self.actor.deeds));
        if self.is_bomb && !std::thread::panicking() {
            self.truth.panics.fetch_add(1, Ordering::Relaxed);
            panics::on_purpose();
        }
    }
}

/// Notes that a callback of the session runs, and whether it ends by a panic.
struct InCallback<'a> {
    truth: &'a Truth,
    id: SessionId,
}

impl Drop for InCallback<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.truth.panics(self.id);
        } else {
            self.truth.leaves(self.id);
        }
    }
}

impl Town {
    /// Blocks or panics, if the seed says so.
    fn hazard(&self, random: &mut Random) {
        let hazards = &self.plan.hazards;
        if random.one_in(hazards.long_blocks) {
            std::thread::sleep(random.millis(200..700));
        }
        if random.one_in(hazards.blocks) {
            std::thread::sleep(random.millis(1..12));
        }
        if random.one_in(hazards.panics) {
            if hazards.payload_bombs && random.one_in(4) {
                panics::on_purpose_with_bomb();
            }
            panics::on_purpose();
        }
    }

    fn random(&self, id: SessionId) -> Random {
        Random::new(self.plan.seed, id.to_bits())
    }

    /// A request came, if it is one. False: nothing more is to be received.
    fn request(&self, session: &Session, state: &mut State, frame: &[u8]) -> bool {
        let (truth, id) = (&*self.truth, session.id());
        truth.frames.fetch_add(1, Ordering::Relaxed);
        let Some(request) = Request::read(frame) else {
            let what = format!("a request came torn to {id}, {} bytes", frame.len());
            truth.broken(Rule::FramesArriveWhole, what);
            return true;
        };
        let (expected, peer) = truth.change(id, |facts| {
            facts.received += 1;
            (facts.received - 1, *facts.peer.get_or_insert(request.peer))
        });
        if peer != request.peer {
            let what = format!("{id} of peer {peer} got a request of peer {}", request.peer);
            truth.broken(Rule::FramesReachTheirSession, what);
        } else if request.number != expected {
            let what = format!("{id} got request {} after {expected} others", request.number);
            truth.broken(Rule::FramesArriveInOrder, what);
        }
        self.act(session, state, ACTIONS[usize::from(request.action) % ACTIONS.len()])
    }

    fn act(&self, session: &Session, state: &mut State, action: Action) -> bool {
        let (truth, handle, id) = (&*self.truth, session.handle(), session.id());
        let State { actor, random, .. } = state;
        let bytes = random.frame_bytes();
        let mut reply = |bytes| {
            try_send(actor, truth, session, bytes);
        };
        match action {
            Action::Nothing => {}
            Action::Reply => reply(bytes),
            Action::ReplyOften => (0..random.within(2..20)).for_each(|_| reply(40)),
            Action::ReplyMuch => reply(4_096 + bytes),
            Action::Flood => (0..8).for_each(|_| reply(50_000)),
            Action::TellTown => drop(actor.publish(truth, handle, To::Members(TOWN), bytes)),
            Action::TellOthers => drop(actor.publish(truth, handle, To::MembersBut(TOWN, id), 50)),
            Action::TellAll => drop(actor.publish(truth, handle, To::All, 50)),
            Action::ComeAndGo => {
                let group = actor.own_group(random.below(4));
                actor.join(truth, handle, id, group);
                actor.publish(truth, handle, To::Members(group), bytes);
                if random.one_in(2) {
                    actor.leave(truth, handle, id, group);
                    actor.publish(truth, handle, To::Members(group), 50);
                }
            }
            Action::SendToAnother => {
                let other = random.pick(&truth.recent());
                actor.send(truth, other, bytes, |frame| handle.try_send(other, frame));
            }
            Action::SendOdd => {
                let (hazards, way) = (&self.plan.hazards, Way::Session);
                let odd = OddFrame::draw(truth, hazards, actor.is_raw, handle, id, way, random);
                if let Some(odd) = odd {
                    let result = session.try_send(odd); // a panic ends the session
                    if matches!(result, Err(SendError::Full { .. })) {
                        truth.asks_for_room(id);
                    }
                } else {
                    let number = truth.next_once();
                    let frame = Frame { kind: Kind::OnceDirect, to: id.to_bits(), from: 0, number };
                    session.send(frame.write(bytes, actor.is_raw));
                }
            }
            Action::Connect => {
                if let Ok(id) = handle.connect(self.targets.listener) {
                    truth.connects(id, Target::Listener);
                    actor.send(truth, id, bytes, |frame| handle.try_send(id, frame));
                }
            }
            Action::Owe => {
                state.owed += random.within(1..30);
                self.send_owed(session, state);
            }
            Action::AskForRoom => {
                let wanted = random.pick(&[1, bytes, usize::MAX]);
                truth.asks_for_room(id);
                if random.one_in(2) {
                    session.notify_writable(wanted);
                } else {
                    handle.notify_writable(id, wanted);
                }
            }
            Action::Pause if self.plan.hazards.pauses => {
                if truth.may_pause(id) {
                    session.pause_receiving();
                    truth.has_paused_itself(id);
                }
            }
            Action::Finish if self.plan.hazards.half_closes => {
                finish(actor, truth, session, random);
            }
            Action::Pause | Action::Finish => {}
            Action::Kick if self.plan.hazards.farewells => {
                if random.one_in(3) {
                    // Until the queue is full, or almost.
                    while try_send(actor, truth, session, 5_000) == Sent::Yes {}
                }
                return !self.kick(session, state);
            }
            Action::PublishAndDrain if self.plan.hazards.last_publications => {
                let group = actor.own_group(0);
                actor.join(truth, handle, id, group);
                actor.send(truth, id, 40, |frame| session.try_send(frame));
                actor.publish(truth, handle, To::Members(group), 40);
                actor.publish(truth, handle, To::All, 40);
                actor.close_by(truth, id, Close::Drain, || session.close(Close::Drain));
                return false;
            }
            Action::Kick | Action::PublishAndDrain | Action::Drain | Action::Stop => {
                let how = if action == Action::Stop { Close::Stop } else { Close::Drain };
                if random.one_in(3) {
                    actor.close(truth, handle, id, how);
                } else {
                    actor.close_by(truth, id, how, || session.close(how));
                }
                return false;
            }
        }
        true
    }

    /// True: it is over.
    fn kick(&self, session: &Session, state: &mut State) -> bool {
        let (truth, id, State { actor, random, .. }) = (&*self.truth, session.id(), state);
        let bytes = farewell_bytes(random);
        if random.one_in(3) {
            actor.kick_by(truth, id, bytes, |farewell| session.handle().close_with(id, farewell))
        } else {
            actor.kick_by(truth, id, bytes, |farewell| session.close_with(farewell))
        }
    }

    /// Sends what is owed, as far as there is room.
    fn send_owed(&self, session: &Session, state: &mut State) {
        let State { actor, random, owed, finishes, .. } = state;
        while *owed > 0 {
            match try_send(actor, &self.truth, session, 4_000) {
                Sent::Yes => *owed -= 1,
                Sent::Later => return,
                Sent::Never => *owed = 0,
            }
        }
        if std::mem::take(finishes) {
            finish(actor, &self.truth, session, random);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// The queue is full: `writable` follows.
    Later,
    Never,
}

/// Sends to the session in its callback, whose refusal asks for room.
fn try_send(actor: &mut Actor, truth: &Truth, session: &Session, bytes: usize) -> Sent {
    let mut sent = Sent::Never;
    let id = session.id();
    actor.send(truth, id, bytes, |frame| {
        let result = session.try_send(frame);
        if result.is_ok() {
            sent = Sent::Yes;
        } else if let Err(SendError::Full { .. }) = result {
            truth.asks_for_room(id);
            sent = Sent::Later;
        }
        result
    });
    sent
}

fn finish(actor: &mut Actor, truth: &Truth, session: &Session, random: &mut Random) {
    let id = session.id();
    if random.one_in(3) {
        actor.finish_by(truth, id, || session.handle().finish(id));
    } else {
        actor.finish_by(truth, id, || {
            session.finish();
            false // it does not say
        });
    }
}

/// The bytes of a farewell: none, some, or more than there may be.
pub(crate) fn farewell_bytes(random: &mut Random) -> usize {
    match random.below(12) {
        0 => 0,
        1 => 2_000,
        2..4 => Farewell::WIRE_BYTES_MAX - LENGTH_BYTES,
        _ => random.within(1..900) as usize,
    }
}

impl Handler for Town {
    type State = State;

    fn opened(&self, session: &Session) -> State {
        let (truth, id) = (&*self.truth, session.id());
        truth.opens(id);
        let guard = InCallback { truth, id };
        let mut random = self.random(id);
        let is_bomb = random.one_in(self.plan.hazards.state_bombs);
        let actor = Actor::of_round(id.to_bits(), &self.plan);
        truth.states_made.fetch_add(1, Ordering::Relaxed);
        let truth = self.truth.clone();
        let stream = Vec::new();
        let due = Due::new(self.plan.seed, id);
        let (owed, finishes) = (0, false);
        let mut state = State { actor, truth, random, stream, owed, finishes, is_bomb, due };
        self.hazard(&mut state.random);
        let joined = session.handle().join(id, Group(TOWN));
        self.truth.change(id, |facts| facts.in_town = joined.is_ok());
        try_send(&mut state.actor, &self.truth, session, 0);
        self.hazard(&mut state.random);
        drop(guard);
        self.truth.has_opened(id);
        state
    }

    fn received(&self, session: &Session, state: &mut State, frame: &[u8]) {
        let id = session.id();
        self.truth.enters(id, "received");
        let _guard = InCallback { truth: &self.truth, id };
        self.hazard(&mut state.random);
        if self.plan.hazards.due {
            state.due.act(&self.truth, session);
        }
        if !self.plan.is_raw {
            self.request(session, state, frame);
            return;
        }
        let mut stream = std::mem::take(&mut state.stream);
        stream.extend_from_slice(frame);
        // A peer that writes what makes no sense gets no further.
        let _ = cut_frames(&mut stream, Wire::Length, |frame| self.request(session, state, frame));
        state.stream = stream;
    }

    fn writable(&self, session: &Session, state: &mut State) {
        let id = session.id();
        self.truth.enters(id, "writable");
        let _guard = InCallback { truth: &self.truth, id };
        self.hazard(&mut state.random);
        self.send_owed(session, state);
    }

    fn timer(&self, session: &Session, state: &mut State, key: u64) {
        let id = session.id();
        self.truth.enters(id, "timer");
        let _guard = InCallback { truth: &self.truth, id };
        state.due.fires(&self.truth, id, key);
        self.hazard(&mut state.due.random);
        try_send(&mut state.actor, &self.truth, session, 30);
    }

    fn lagged(&self, session: &Session, state: &mut State, group: Group, frames: u64) {
        let id = session.id();
        self.truth.enters(id, "lagged");
        let _guard = InCallback { truth: &self.truth, id };
        self.hazard(&mut state.due.random);
        if frames == 0 || policy_of(id, group.0) != Policy::Skip {
            let what = format!("{id} is told that it lacks {frames} frames of {group:?}");
            self.truth.broken(Rule::RefusalsAreTrue, what);
        }
    }

    fn peer_finished(&self, session: &Session, state: &mut State) {
        let id = session.id();
        self.truth.enters(id, "peer_finished");
        let _guard = InCallback { truth: &self.truth, id };
        self.hazard(&mut state.random);
        match state.random.below(8) {
            0..4 => {
                state.owed += state.random.within(0..60);
                state.finishes = true;
                self.send_owed(session, state);
            }
            4 => finish(&mut state.actor, &self.truth, session, &mut state.random),
            5 => {
                let State { actor, .. } = state;
                actor.close_by(&self.truth, id, Close::Drain, || session.close(Close::Drain));
            }
            6 if self.plan.hazards.farewells => {
                self.kick(session, state);
            }
            // Others may go on with it, or the end of the server.
            _ => {
                self.act(session, state, Action::Reply);
            }
        }
    }

    fn closed(&self, session: &Session, mut state: State, reason: CloseReason) {
        let (truth, id) = (&*self.truth, session.id());
        truth.enters(id, "closed");
        let _guard = InCallback { truth, id };
        truth.closes(id, reason);
        self.hazard(&mut state.random);
        if state.actor.send(truth, id, 0, |frame| session.try_send(frame)) {
            let what = format!("a frame to {id} was accepted in its closed");
            truth.broken(Rule::RefusalsAreTrue, what);
        }
        if state.random.one_in(4) && !truth.is_ending() {
            // As a chat says that one has gone.
            state.actor.publish(truth, session.handle(), To::Members(TOWN), 30);
        }
    }

    fn connect_failed(&self, id: SessionId, _: &wharf::Target, error: &io::Error) {
        self.truth.connect_failed(id, error.kind());
        if self.random(id).one_in(self.plan.hazards.panics) {
            self.truth.panics.fetch_add(1, Ordering::Relaxed);
            panics::on_purpose();
        }
    }
}

impl Told<Note> for Town {
    fn told(&self, session: &Session, state: &mut State, note: Note) {
        let id = session.id();
        self.truth.enters(id, "told");
        let _guard = InCallback { truth: &self.truth, id };
        state.due.is_told(&self.truth, id, note);
        self.hazard(&mut state.due.random);
        state.due.act(&self.truth, session);
    }
}
