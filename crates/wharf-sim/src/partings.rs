//! How sessions part: each direction of a stream by itself, or with a farewell. The calls, and what must follow.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use wharf::{CloseReason, EncodeError, Farewell, Handle, Session, SessionId};

use crate::forms::Form;
use crate::frames::{HEADER_BYTES, Message};
use crate::rules::Rule;
use crate::truth::{SharedTruth, Truth};

/// The sender of farewells. Their number is the code.
pub(crate) const FAREWELLS: u32 = 1 << 28;
/// What a farewell's frame may have.
const FRAME_BYTES_MAX: usize = Farewell::WIRE_BYTES_MAX - HEADER_BYTES;
/// The same of forms that have fewer bytes around a frame, or more.
const FRAME_BYTES_MAXIMA: RangeInclusive<usize> =
    Farewell::WIRE_BYTES_MAX - Form::ENVELOPE_BYTES_MAX..=Farewell::WIRE_BYTES_MAX;
/// Frames of farewells are smaller than this, and some are too large.
pub(crate) const FAREWELL_BYTES: u64 = FRAME_BYTES_MAX as u64 + 64;

/// What is known of a session's ends.
#[derive(Debug, Default)]
pub(crate) struct Parting {
    /// The tick at which our direction was first asked to end.
    pub(crate) finishes_from: Option<u64>,
    /// It takes no more frames: a call has returned that says so.
    takes_no_more: bool,
    /// The handler was told that the peer has finished.
    pub(crate) end_is_told: bool,
    /// Farewells that it was closed with, as far as is known, by their codes.
    farewells: BTreeMap<u32, Said>,
    /// The code of the one that was accepted.
    pub(crate) kicked: Option<u32>,
    /// One of its own callbacks has closed it: nothing follows but `closed`.
    closes_itself: bool,
    /// One of its own callbacks has finished our direction.
    finishes_itself: bool,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    from: u64,
    has_frame: bool,
}

impl Parting {
    /// Whether what is sent to it now must be refused.
    pub(crate) fn takes_no_more(&self) -> bool {
        self.takes_no_more
    }

    /// The tick at which a farewell was begun, and whether its frame must arrive.
    pub(crate) fn farewell(&self, code: u32) -> Option<(u64, bool)> {
        let Said { from, has_frame } = *self.farewells.get(&code)?;
        // After our end of stream nothing can follow.
        Some((from, has_frame && self.finishes_from.is_none()))
    }
}

impl Truth {
    fn finishes(&mut self, id: SessionId, by_itself: bool) {
        let now = self.publications.now();
        self.half_open.remove(&id);
        if let Some(parting) = self.parting(id) {
            parting.finishes_from.get_or_insert(now);
            parting.finishes_itself |= by_itself;
        }
    }

    /// A farewell is about to be said: its code.
    fn begins_farewell(&mut self, id: SessionId, has_frame: bool) -> u32 {
        self.farewells += 1;
        let (code, from) = (self.farewells, self.publications.now());
        if let Some(parting) = self.parting(id) {
            parting.farewells.insert(code, Said { from, has_frame });
        }
        code
    }

    /// What came of a farewell.
    fn said_farewell(&mut self, id: SessionId, code: u32, is_accepted: bool, by_itself: bool) {
        let closed = self.sessions.get(&id).and_then(|session| session.closed);
        let Some(parting) = self.parting(id) else { return };
        parting.closes_itself |= by_itself;
        if !is_accepted {
            self.takes_back_farewell(id, code);
            return self.is_gone(id);
        }
        parting.takes_no_more = true;
        if let Some(before) = parting.kicked.replace(code) {
            let what = format!("{id} was closed with farewell {code}, and with {before} before");
            self.broken(Rule::FarewellsAreLast, vec![id.to_bits()], what);
        }
        if let Some(reason) = closed {
            self.check_end_of_kicked(id, reason);
        }
    }

    fn takes_back_farewell(&mut self, id: SessionId, code: u32) {
        if let Some(parting) = self.parting(id) {
            parting.farewells.remove(&code);
        }
    }

    /// A session that a farewell was accepted for ends with it, unless something cut it.
    pub(crate) fn check_end_of_kicked(&mut self, id: SessionId, reason: CloseReason) {
        let is_stopped = self.sessions.get(&id).is_some_and(|session| session.is_stopped);
        let Some(kicked) = self.parting(id).and_then(|parting| parting.kicked) else { return };
        let is_right = match reason {
            CloseReason::Kicked { code } => code == kicked,
            CloseReason::Local => is_stopped,
            CloseReason::Reset
            | CloseReason::SlowConsumer { .. }
            | CloseReason::SendStallTimeout
            | CloseReason::DrainTimeout
            | CloseReason::Stopped
            | CloseReason::HandlerPanicked
            | CloseReason::FrameTooLargeToSend { .. }
            | CloseReason::Io { .. } => true,
            _ => false,
        };
        if !is_right {
            let what = format!("{id} was closed with farewell {kicked}, and ended as {reason}");
            self.broken(Rule::FarewellsAreLast, vec![id.to_bits()], what);
        }
    }

    /// A farewell came to the peer of the session that it is for.
    pub(crate) fn peer_gets_farewell(&mut self, peer: u32, message: Message) {
        let Message { to: id, number: code, .. } = message;
        self.peers[peer as usize].farewell = Some(code);
        if self.parting(id).is_none_or(|parting| !parting.farewells.contains_key(&code)) {
            let what = format!("peer {peer} got farewell {code}, with which nobody has closed it");
            self.broken(Rule::FarewellsAreLast, vec![id.to_bits()], what);
        }
    }

    /// A callback of the session, other than `closed`, begins: may it?
    pub(crate) fn check_not_parted(&mut self, id: SessionId, callback: &str) {
        let Some(parting) = self.parting(id) else { return };
        let why = if parting.closes_itself {
            "it was closed in a callback of its own"
        } else if parting.finishes_itself && callback == "writable" {
            "our direction was finished in a callback of its own"
        } else if parting.end_is_told && matches!(callback, "received" | "peer_finished") {
            "its peer has finished"
        } else {
            return;
        };
        let what = format!("{callback} of {id}, though {why}");
        self.broken(Rule::CallbacksInOrder, vec![id.to_bits()], what);
    }

    /// The handler is told that the peer has finished its direction.
    pub(crate) fn is_told_end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.parting.end_is_told = true;
        let (received, peer) = (session.received, session.peer);
        if session.parting.finishes_from.is_none() {
            self.half_open.insert(id);
        }
        let wrong = if !self.excuses.tells_end {
            Some("though it should end then".to_owned())
        } else if let Some(peer) = peer.map(|peer| &self.peers[peer as usize]) {
            let is_whole = received == peer.sent || peer.corrupt || peer.cut;
            match (peer.ended || peer.cut, is_whole) {
                (false, _) => Some("though it has not".to_owned()),
                (true, false) => Some(format!("after {received} of {} requests", peer.sent)),
                (true, true) => None,
            }
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let what = format!("{id} was told that its peer has finished, {wrong}");
            self.broken(Rule::HalvesEndApart, vec![id.to_bits()], what);
        }
    }

    /// A session ends as `PeerClosed`: both directions have ended, if the handler is told of ends.
    pub(crate) fn check_both_ended(&mut self, id: SessionId) {
        let is_told = self.excuses.tells_end;
        let Some(parting) = self.parting(id).filter(|_| is_told) else { return };
        let ends = (parting.end_is_told, parting.finishes_from.is_some());
        if ends != (true, true) {
            let what = format!("{id} closed; told of the end, and finished: {ends:?}");
            self.broken(Rule::HalvesEndApart, vec![id.to_bits()], what);
        }
    }

    /// Whether one of its own callbacks has closed it.
    pub(crate) fn has_closed_itself(&mut self, id: SessionId) -> bool {
        self.parting(id).is_some_and(|parting| parting.closes_itself)
    }

    /// One of its own callbacks closes the session.
    pub(crate) fn closes_itself(&mut self, id: SessionId) {
        if let Some(parting) = self.parting(id) {
            parting.closes_itself = true;
        }
    }
}

/// Ends our direction of a session's stream; `own`: in a callback of this session.
pub(crate) fn finish(truth: &SharedTruth, handle: &Handle, id: SessionId, own: Option<&Session>) {
    let was_over = {
        let mut truth = truth.lock();
        truth.finishes(id, own.is_some());
        truth.is_over(id)
    };
    match own {
        Some(session) => session.finish(),
        None => {
            let changed = handle.finish(id);
            if changed && was_over {
                let what = format!("our direction of {id} was finished, which was over");
                truth.lock().broken(Rule::GoneIsGone, vec![id.to_bits()], what);
            }
        }
    }
    if let Some(parting) = truth.lock().parting(id) {
        parting.takes_no_more = true;
    }
}

/// Closes a session with a farewell of so many bytes, or without a frame; `own`: in a callback of this session.
pub(crate) fn kick(
    truth: &SharedTruth,
    handle: &Handle,
    id: SessionId,
    bytes: usize,
    own: Option<&Session>,
) {
    let has_frame = !bytes.is_multiple_of(8);
    let (code, was_over) = {
        let mut truth = truth.lock();
        (truth.begins_farewell(id, has_frame), truth.is_over(id))
    };
    let mut farewell = Farewell::new(code);
    if has_frame {
        let message = Message { to: id, sender: FAREWELLS, number: code };
        farewell = farewell.frame(truth.write(message, bytes));
    }
    let frame_bytes = farewell.frame.as_ref().map_or(0, Vec::len);
    let said = match own {
        Some(session) => session.close_with(farewell.clone()),
        None => handle.close_with(id, farewell.clone()),
    };
    let mut truth = truth.lock();
    let maxima = match truth.shape.is_text() {
        true => FRAME_BYTES_MAXIMA,
        false => FRAME_BYTES_MAX..=FRAME_BYTES_MAX,
    };
    let is_right = match said {
        Ok(is_accepted) => {
            truth.said_farewell(id, code, is_accepted, own.is_some());
            !is_accepted || !was_over && frame_bytes <= *maxima.end()
        }
        Err(EncodeError::TooLarge { bytes: ref given_back, max }) => {
            truth.takes_back_farewell(id, code);
            // Of the program's own framing it is not known beforehand how much it adds.
            let is_over = frame_bytes > max || truth.shape.is_text();
            *given_back == farewell
                && maxima.contains(&max)
                && is_over
                && frame_bytes > *maxima.start()
        }
        Err(_) => false,
    };
    if !is_right {
        let what = format!("{id} (over: {was_over}), and {frame_bytes} bytes: {said:?}");
        truth.broken(Rule::FarewellsAreLast, vec![id.to_bits()], what);
    }
}
