//! A session with a WebSocket: from its bytes to its messages, and what the protocol itself has to say.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::floor::Floor;
use super::held::{AtPort, Held};
use super::receive::{FRAMES_BETWEEN_LOOKS, Lent};
use crate::buffer::{Envelope, Frame, SharedFrame};
use crate::clock::{Clock, Moment};
use crate::close::{Close, CloseReason};
use crate::engine::Callback;
use crate::error::EstablishError;
use crate::face::{Establishment, Handler, Upgrade};
#[cfg(feature = "deflate")]
use crate::guarded::caught;
use crate::guarded::guarded;
use crate::options::WebSocket;
use crate::port::CompletionPort;
use crate::session::{Closing, IfFull, Pauses, Phase, SessionId, Slot};
#[cfg(feature = "deflate")]
use crate::transport::web_socket::{Agreed, InflateError, Inflater};
use crate::transport::web_socket::{
    Answer, Asked, ControlFrame, Found, Layer, Opcode, Refusal, Request, Role, UPGRADE_BYTES_MAX,
    UpgradeRequest, Violation, code_of, read,
};

/// What has become of the head at the front of what a peer has sent.
enum Head {
    /// It is not whole.
    More,
    /// It had so many bytes, and the session is open.
    Taken(usize),
    /// The session ends.
    Refused,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Whether the session has a WebSocket.
    pub(super) fn has_web_socket(&self, slot: &Slot) -> bool {
        self.engine.framing_of(slot).web_socket_form().is_some()
    }

    /// The connection stands; its WebSocket is to.
    pub(super) fn begin_establishing(&mut self, held: &mut Held<'e, H::State>) {
        let target = self.engine.contexts.target_of(held.id, held.slot);
        let is_client = target.is_some();
        let may = is_client || self.engine.begin_establishing();
        let role = if is_client { Role::Client } else { Role::Server };
        let now = self.now();
        let Held { id, slot, half } = held;
        half.life.enter(Phase::Establishing);
        if !may {
            self.stats.refused += 1;
            slot.ask_to_stop(CloseReason::Local);
            return self.session.desk.attend_later(*id);
        }
        (half.phase_since, half.received_at) = (now, now);
        let bytes_max = self.engine.with_web_socket(*id, slot, |it| it.message_bytes_max);
        // At most 1 GiB: it was checked.
        half.layer = Some(Layer::new(role, bytes_max.unwrap_or(0) as u32));
        let mut queue = slot.send_queue.lock();
        queue.hold_back(true);
        if let Some(target) = target {
            let request = self.engine.with_asked(*id, &target, |asked: Asked<'_>| asked.request());
            let body = request.as_bytes();
            let request = Frame::One { envelope: &Envelope::default(), body };
            queue.push_ahead(request, self.engine.store_of(slot));
        }
        drop(queue);
        self.stats.establishing = self.stats.establishing.wrapping_add(1);
        self.arm_timer(held);
        self.session.desk.attend_later(held.id);
    }

    /// It is established, or never will be.
    fn ends_establishing(&mut self, role: Role) {
        self.stats.establishing = self.stats.establishing.wrapping_sub(1);
        if role == Role::Server {
            self.engine.ends_establishing();
        }
    }

    /// Bytes have come before the WebSocket stands.
    pub(super) fn establish(&mut self, held: &mut Held<'e, H::State>, lent: Lent<'_>) {
        let Lent { bytes, direct } = lent;
        if held.slot.closing().is_some_and(Closing::is_stop) {
            return; // it ends, and something may be missing of what has come
        }
        if held.half.queue.is_empty() {
            return match self.take_head(held, bytes) {
                Head::Taken(count) => {
                    self.deliver_to_layer(held, Lent { bytes: &mut bytes[count..], direct });
                }
                Head::More => self.keep_head(held, bytes),
                Head::Refused => {}
            };
        }
        // A head ends with the end of a line, so before that there is nothing to be seen.
        let may_end =
            bytes.contains(&b'\n') || held.half.queue.len() + bytes.len() >= UPGRADE_BYTES_MAX;
        self.keep_head(held, bytes);
        if may_end || bytes.is_empty() {
            self.establish_from_queue(held);
        }
    }

    fn establish_from_queue(&mut self, held: &mut Held<'e, H::State>) {
        let mut queue = std::mem::take(&mut held.half.queue);
        let head = self.take_head(held, queue.contents());
        if let Head::Taken(count) = head {
            queue.consume(count, &self.receive_room);
        }
        held.half.queue = queue;
        match head {
            Head::Taken(_) => self.deliver_waiting(held, false),
            Head::More => {}
            Head::Refused => held.half.queue.clear(&self.receive_room),
        }
    }

    fn keep_head(&mut self, held: &mut Held<'e, H::State>, bytes: &[u8]) {
        if !held.half.queue.append(bytes, &self.receive_room) {
            held.slot.ask_to_stop(CloseReason::Local);
            self.session.desk.attend_later(held.id);
        }
    }

    fn take_head(&mut self, held: &mut Held<'e, H::State>, bytes: &[u8]) -> Head {
        if held.half.layer.as_ref().is_some_and(|layer| layer.role() == Role::Client) {
            return self.take_answer(held, bytes);
        }
        let read = self.engine.with_web_socket(held.id, held.slot, |it| read(bytes, &it.origins));
        match read {
            Some(Ok(Request::More)) => Head::More,
            Some(Ok(Request::Upgrade { request, head_bytes })) => {
                self.take_request(held, request, head_bytes)
            }
            Some(Ok(Request::Get { target })) => {
                let path = target.split('?').next().unwrap_or("");
                let answer =
                    self.engine.with_web_socket(held.id, held.slot, |it| fixed_answer(it, path));
                match answer.flatten() {
                    Some(answer) => self.answer_and_end(held, Frame::Shared(&answer)),
                    None => self.refuse(held, Refusal::UpgradeRequired),
                }
            }
            Some(Err(refusal)) => self.refuse(held, refusal),
            None => Head::Refused, // it has one
        }
    }

    fn take_request(
        &mut self,
        held: &mut Held<'e, H::State>,
        request: UpgradeRequest,
        head_bytes: usize,
    ) -> Head {
        let Held { id, slot, half } = held;
        let session = self.session.be(*id, half.peer);
        session.enter(Callback::Upgrade);
        let upgrade = guarded(|| self.handler.upgrade(&request));
        session.desk.leave();
        self.stats.handler_panics += u64::from(upgrade.is_none());
        let subprotocol = match upgrade.unwrap_or(Upgrade::refuse(500)) {
            Upgrade::Refuse { status } => {
                return self.refuse(held, Refusal::Program(status));
            }
            Upgrade::Accept { subprotocol: Some(chosen) } => {
                if !request.subprotocols().any(|one| one == chosen) {
                    return self.refuse(held, Refusal::Program(500));
                }
                Some(chosen)
            }
            Upgrade::Accept { subprotocol: None } => {
                let ours = |it: &WebSocket| {
                    let mut asked = request.subprotocols();
                    let known = asked.find(|one| it.subprotocols.iter().any(|ours| ours == one));
                    known.map(str::to_owned)
                };
                self.engine.with_web_socket(*id, slot, ours).flatten()
            }
        };
        #[cfg(feature = "deflate")]
        let extension = self.agree_on_deflate(held, &request);
        #[cfg(not(feature = "deflate"))]
        let extension: Option<String> = None;
        let answer = request.answer(subprotocol.as_deref(), extension.as_deref());
        let slot = held.slot;
        let answer = Frame::One { envelope: &Envelope::default(), body: answer.as_bytes() };
        slot.send_queue.lock().push_first(answer, self.engine.store_of(slot));
        self.stands(held, Establishment::new(Some(request), subprotocol));
        Head::Taken(head_bytes)
    }

    /// Whether messages are compressed. Returns what is answered to that.
    #[cfg(feature = "deflate")]
    fn agree_on_deflate(
        &mut self,
        held: &mut Held<'e, H::State>,
        request: &UpgradeRequest,
    ) -> Option<String> {
        let Held { id, slot, half } = held;
        let is_offered = self.engine.with_web_socket(*id, slot, |it| it.deflate.is_some());
        let agreed = request.deflate().filter(|_| is_offered == Some(true));
        if !agreed.is_some_and(Agreed::takes_largest_window) {
            self.engine.leave_deflate(*id, slot);
        }
        if let (Some(_), Some(layer)) = (agreed, &mut half.layer) {
            layer.cutter.allow_deflated();
        }
        agreed.map(Agreed::answer)
    }

    /// Runs `opened`.
    fn stands(&mut self, held: &mut Held<'e, H::State>, establishment: Establishment) {
        if let Some(role) = held.half.layer.as_ref().map(|layer| layer.role()) {
            self.ends_establishing(role);
        }
        self.stats.established += 1;
        self.session.desk.establishment.replace(Some(Arc::new(establishment)));
        self.open(held);
        self.session.desk.establishment.replace(None);
    }

    fn take_answer(&mut self, held: &mut Held<'e, H::State>, bytes: &[u8]) -> Head {
        let Held { id, slot, half } = held;
        let Some(target) = self.engine.contexts.target_of(*id, slot) else { return Head::Refused };
        let answer = self.engine.with_asked(*id, &target, |asked| asked.answer(bytes));
        let error = match answer {
            Answer::More => return Head::More,
            Answer::Taken {
                subprotocol,
                #[cfg(feature = "deflate")]
                deflate,
                head_bytes,
            } => {
                #[cfg(feature = "deflate")]
                if let (Some(_), Some(layer)) = (deflate, &mut half.layer) {
                    layer.cutter.allow_deflated();
                }
                self.stands(held, Establishment::new(None, subprotocol));
                return Head::Taken(head_bytes);
            }
            Answer::Refused { status } => EstablishError::Refused { status },
            Answer::Wrong { reason } => EstablishError::Wrong { reason },
        };
        half.connect_error = Some(error.into());
        slot.ask_to_stop(CloseReason::Local);
        self.session.desk.attend_later(*id);
        Head::Refused
    }

    fn refuse(&mut self, held: &mut Held<'e, H::State>, refusal: Refusal) -> Head {
        let answer = refusal.answer();
        let answer = Frame::One { envelope: &Envelope::default(), body: answer.as_bytes() };
        self.answer_and_end(held, answer)
    }

    /// Answers what is no upgrade, and ends the session when the answer has left. It was never open.
    fn answer_and_end(&mut self, held: &mut Held<'e, H::State>, answer: Frame<'_>) -> Head {
        self.ends_establishing(Role::Server);
        self.stats.refused_upgrades += 1;
        let now = self.now();
        let Held { id, slot, half } = held;
        {
            let mut queue = slot.send_queue.lock();
            queue.push_first(answer, self.engine.store_of(slot));
            queue.hold_back(false);
        }
        self.engine.ask_to_close(*id, slot, CloseReason::Local, Close::Drain);
        half.life.enter(Phase::Draining);
        half.phase_since = now;
        self.arm_timer(held);
        self.session.desk.attend_later(held.id);
        Head::Refused
    }

    /// The session ends before its WebSocket stands.
    pub(super) fn give_up_establishing(&mut self, held: &mut Held<'e, H::State>) {
        // If too many were at it, there is none.
        let Some(role) = held.half.layer.as_ref().map(|layer| layer.role()) else { return };
        self.ends_establishing(role);
        self.stats.establish_failures += 1;
        let Held { slot, half, .. } = held;
        if role == Role::Client {
            let has_ended = half.stream_end.is_some();
            let kind = if has_ended {
                io::ErrorKind::UnexpectedEof
            } else {
                io::ErrorKind::ConnectionAborted
            };
            half.connect_error.get_or_insert_with(|| kind.into());
        }
        slot.ask_to_stop(CloseReason::Local);
        half.queue.clear(&self.receive_room);
    }

    /// It took too long.
    pub(super) fn establishing_took_too_long(&mut self, held: &mut Held<'e, H::State>) {
        if held.half.layer.as_ref().is_some_and(|layer| layer.role() == Role::Client) {
            held.half.connect_error.get_or_insert_with(|| io::ErrorKind::TimedOut.into());
        }
        held.slot.ask_to_stop(CloseReason::Local);
    }

    /// Delivers messages, and keeps what cannot be delivered yet.
    pub(super) fn deliver_to_layer(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { mut bytes, direct }: Lent<'_>,
    ) {
        loop {
            let left = self.deliver_messages(held, Lent { bytes, direct });
            bytes = &mut bytes[left];
            if bytes.is_empty() || self.keeps(held, bytes, 0) {
                return;
            }
        }
    }

    /// Delivers messages: first with what waits, then straight from the lent bytes. Returns what of those must be kept.
    fn deliver_messages(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
    ) -> Range<usize> {
        let mut done = 0;
        while !held.half.queue.is_empty() {
            let before = held.half.queue.len();
            let Some(taken) = self.complete_waiting_message(held, &bytes[done..], direct) else {
                return bytes.len()..bytes.len(); // it ends
            };
            done += taken;
            if taken == 0 && held.half.queue.len() == before {
                return done..bytes.len();
            }
        }
        if !self.may_deliver(held) {
            return done..bytes.len(); // what waited for it may be gone
        }
        let lent = Lent { bytes: &mut bytes[done..], direct };
        let left = self.deliver_messages_from(held, lent);
        done + left.start..done + left.end
    }

    /// Takes to what waits as many bytes as it needs to go on, and delivers what it has become. Returns how many.
    /// `None`: there was no room for them.
    fn complete_waiting_message(
        &mut self,
        held: &mut Held<'e, H::State>,
        bytes: &[u8],
        direct: bool,
    ) -> Option<usize> {
        if !self.may_deliver(held) {
            return Some(0);
        }
        let half = &mut *held.half;
        let Some(layer) = &half.layer else { return Some(0) };
        let taken = layer.cutter.wants(half.queue.contents()).min(bytes.len());
        if !half.queue.append(&bytes[..taken], &self.receive_room) {
            self.receive_queues_are_full(held, taken);
            return None;
        }
        self.deliver_waiting_messages(held, direct && taken == bytes.len());
        Some(taken)
    }

    /// Delivers the whole messages in the receive queue.
    pub(super) fn deliver_waiting_messages(&mut self, held: &mut Held<'e, H::State>, direct: bool) {
        let mut queue = std::mem::take(&mut held.half.queue);
        let len = queue.len();
        let left = self.deliver_messages_from(held, Lent { bytes: queue.contents(), direct });
        queue.truncate(len - left.end, &self.receive_room);
        queue.consume(left.start, &self.receive_room);
        held.half.queue = queue;
    }

    /// Delivers whole messages from the front of `bytes`, while the session may receive. Returns what must be kept.
    fn deliver_messages_from(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
    ) -> Range<usize> {
        let Some(mut layer) = held.half.layer.take() else { return 0..bytes.len() };
        layer.forget_ping();
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let Held { id, slot, half } = held;
        let half = &mut **half;
        let engine = self.engine;
        #[cfg(feature = "deflate")]
        let inflater = &mut self.inflater;
        let Self { stats, handler, clock, session, .. } = self;
        let session = session.be(*id, half.peer);
        session.enter(Callback::Received);
        let (mut pass, mut began) = (layer.cutter.pass(bytes), None);
        while !pass.is_done() && half.life.hears() && !slot.count.is_closing() {
            if slot.is_asked_to_pause() {
                half.pause_as_asked(slot, stats);
                session.desk.attend_later(*id);
                break;
            }
            if half.frames_of_turn >= FRAMES_BETWEEN_LOOKS
                && half.has_had_its_share(clock, &mut began)
            {
                half.uses_share_up(slot, stats);
                session.desk.share_used.borrow_mut().push(*id);
                break;
            }
            match layer.cutter.next(&mut pass) {
                Ok(Found::Message { is_text, is_deflated, bytes }) => {
                    let message = &pass.bytes[bytes];
                    #[cfg(feature = "deflate")]
                    let message = match inflated(inflater, &layer, is_text, is_deflated, message) {
                        Ok(message) => message,
                        Err(violation) => {
                            session.ask_to_close(reason_of(violation), Close::Drain);
                            break;
                        }
                    };
                    #[cfg(not(feature = "deflate"))]
                    let _ = is_deflated;
                    let Some(state) = half.state.as_mut() else { break };
                    stats.received_frames += 1;
                    half.frame_came = true;
                    // What came before it is answered first, and together.
                    session.set_direct(direct && pass.is_done());
                    session.set_is_text(is_text);
                    Self::guarded(session, stats, || handler.received(session, state, message));
                }
                Ok(Found::Ping(payload)) => {
                    let key = (layer.role() == Role::Client).then(|| engine.keys.draw());
                    let pong = ControlFrame::new(Opcode::Pong, &pass.bytes[payload], key);
                    stats.pongs += 1;
                    if engine.push_control(slot, pong.bytes(), IfFull::KeepNewest) {
                        session.desk.attend_later(*id);
                    }
                }
                Ok(Found::Pong(_)) => {}
                Ok(Found::Close { code, .. }) => {
                    session.ask_to_close(CloseReason::PeerClosedWith { code }, Close::Drain);
                }
                Ok(Found::Nothing) => break,
                Err(violation) => session.ask_to_close(reason_of(violation), Close::Drain),
            }
            half.frames_of_turn += 1;
            if pause_mark < usize::MAX && slot.send_queue.lock().is_paused(pause_mark, resume_mark)
            {
                half.pause(half.life.pauses().with(Pauses::FULL), stats);
                session.desk.attend_later(*id);
            }
        }
        session.set_is_text(false);
        session.desk.leave();
        let left = layer.cutter.end(pass);
        half.layer = Some(layer);
        left
    }

    /// Queues the Close frame that belongs to the session's end, if it was not queued yet. True: it must leave first.
    pub(super) fn says_close(&mut self, held: &Held<'e, H::State>) -> bool {
        let Some(layer) = held.half.layer.as_ref().filter(|_| held.half.opened) else {
            return false;
        };
        let mut queue = held.slot.send_queue.lock();
        let reason = queue.closing().map_or(CloseReason::Local, |closing| closing.reason);
        let Some(code) = code_of(reason).filter(|_| !queue.has_said_close()) else { return false };
        let key = (layer.role() == Role::Client).then(|| self.engine.keys.draw());
        let store = self.engine.store_of(held.slot);
        queue.say_close(ControlFrame::close(code, "", key).bytes(), store);
        true
    }

    /// After how much silence the session is sent a ping; and whether it was.
    pub(super) fn ping_after(
        &self,
        held: &Held<'e, H::State>,
    ) -> Option<(Duration, Option<Moment>)> {
        let layer = held.half.layer.as_ref().filter(|_| held.half.opened)?;
        let after = self.engine.with_web_socket(held.id, held.slot, |it| it.ping_after)??;
        Some((after, layer.pinged_at()))
    }

    pub(super) fn ping(&mut self, held: &mut Held<'e, H::State>) {
        let now = self.now();
        let Some(layer) = &mut held.half.layer else { return };
        layer.note_ping(now);
        self.stats.pings += 1;
        let key = (layer.role() == Role::Client).then(|| self.engine.keys.draw());
        let ping = ControlFrame::new(Opcode::Ping, b"", key);
        if self.engine.push_control(held.slot, ping.bytes(), IfFull::Drop) {
            self.session.desk.attend_later(held.id);
        }
    }

    /// Checks a session that has answered no ping, as [`silence`](Self::silence) does. A peer that takes what waits for it
    /// may not have come to the ping.
    pub(super) fn no_pong<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        held: &mut Held<'e, H::State>,
    ) -> Option<CloseReason> {
        let now = self.now();
        let (after, _) = self.ping_after(held)?;
        let is_behind = held.slot.send_queue.lock().queued_bytes() > 0
            || at.port.unacknowledged_bytes(at.registration).is_some_and(|bytes| bytes > 0);
        let takes = || at.port.stalled_for(at.registration).is_some_and(|stalled| stalled < after);
        if at.port.has_unread(at.registration) || is_behind && takes() {
            held.half.layer.as_mut()?.note_ping(now);
            return None;
        }
        Some(CloseReason::PingTimeout)
    }

    /// A time-out ends the session. One with a WebSocket is told why, if it takes what it is sent.
    pub(super) fn end_for_silence(&mut self, id: SessionId, slot: &Slot, reason: CloseReason) {
        let takes = self.has_web_socket(slot) && slot.send_queue.lock().queued_bytes() == 0;
        let how = if takes { Close::Drain } else { Close::Stop };
        self.engine.ask_to_close(id, slot, reason, how);
    }
}

/// A message as it was before it was deflated.
#[cfg(feature = "deflate")]
fn inflated<'m>(
    inflater: &'m mut Option<Box<Inflater>>,
    layer: &Layer,
    is_text: bool,
    is_deflated: bool,
    message: &'m [u8],
) -> Result<&'m [u8], Violation> {
    if !is_deflated {
        return Ok(message);
    }
    let max = layer.cutter.message_bytes_max();
    let inflater = inflater.get_or_insert_with(|| Box::new(Inflater::new()));
    inflater.rest();
    // What is not ours may panic.
    let message = match caught(|| inflater.inflate(message, max)) {
        Some(Ok(message)) => message,
        Some(Err(InflateError::TooLong)) => {
            return Err(Violation::TooLong { bytes: max as u64 + 1, max: max as u32 });
        }
        Some(Err(InflateError::Broken)) | None => return Err(Violation::Deflate),
    };
    if is_text && simdutf8::basic::from_utf8(message).is_err() {
        return Err(Violation::NotUtf8);
    }
    Ok(message)
}

fn reason_of(violation: Violation) -> CloseReason {
    match violation {
        Violation::TooLong { bytes, max } => CloseReason::FrameTooLarge { bytes, max: max.into() },
        _ => CloseReason::ProtocolError { code: violation.code(), reason: violation.words() },
    }
}

fn fixed_answer(web_socket: &WebSocket, path: &str) -> Option<SharedFrame> {
    let found = web_socket.answers.iter().find(|answer| answer.path() == path)?;
    Some(found.answer().clone())
}
