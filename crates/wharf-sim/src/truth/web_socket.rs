//! What is seen of WebSockets: how they begin, what their peers hear, and how they close.

use std::collections::HashSet;
use std::time::Duration;

use wharf::{CloseReason, SessionId};

use super::{PeerFacts, Truth, now};
use crate::forms::Form;
use crate::rules::Rule;
use crate::web_socket::Heard;

/// Of a Close frame that has none.
const NO_CODE: u16 = 1005;

/// What is known of a peer that speaks WebSocket.
#[derive(Debug, Default)]
pub(crate) struct WebPeerFacts {
    pub(crate) stands: bool,
    /// Its request is to be answered with this status; 0: perhaps with none.
    pub(crate) is_refused: Option<u16>,
    /// It has sent a Close frame with this code.
    pub(crate) closed_with: Option<u16>,
    /// The code of the Close frame that it has got.
    got_close: Option<u16>,
    /// It says nothing any more, and answers no ping.
    pub(crate) is_mute: bool,
    /// The number of its last ping, and of the last that was answered. (Of those that cannot be answered at once, only the
    /// newest is.)
    pub(crate) pings: u32,
    pongs: u32,
}

impl WebPeerFacts {
    /// Its last ping has no answer.
    pub(crate) fn lacks_pong(&self) -> bool {
        self.stands && self.pongs < self.pings
    }
}

/// What is known of all WebSockets.
#[derive(Debug, Default)]
pub(crate) struct WebFacts {
    /// Sessions of theirs that were opened.
    pub(crate) opened: u64,
    /// Connects with one.
    pub(crate) connects: HashSet<SessionId>,
    /// Requests in whose answer the handler has panicked, and answers that say so.
    pub(crate) upgrade_panics: u64,
    failures_told: u64,
    /// There are any.
    pub(crate) is_played: bool,
    pub(crate) ping_after: Option<Duration>,
    /// Nothing makes a worker or a message late for so long that an answered ping counts as unanswered.
    pub(crate) pings_are_in_time: bool,
}

impl PeerFacts {
    pub(super) fn has_closed_with(&self, code: u16) -> bool {
        self.web.as_ref().is_some_and(|web| web.closed_with == Some(code))
    }

    /// Whether it did not read after this moment.
    fn has_stalled_after(&self, from: Duration) -> bool {
        self.stalls.iter().any(|(_, until)| *until >= from)
    }
}

/// What the protocol itself may queue beyond the bound: pongs and pings, and a Close frame.
const CONTROL_BYTES_MAX: usize = 4 * 1024 + 139;

impl Truth {
    /// How much may be queued beyond a queue's bound.
    pub(crate) fn control_bytes_max(&self) -> usize {
        if self.web.is_played { CONTROL_BYTES_MAX } else { 0 }
    }

    pub(crate) fn connects_with_web_socket(&mut self, id: SessionId) {
        self.web.connects.insert(id);
    }

    /// A peer sends a Close frame with this code, if it has sent none.
    pub(crate) fn peer_closes_with(&mut self, peer: u32, code: Option<u16>) {
        if let Some(web) = &mut self.peers[peer as usize].web {
            web.closed_with.get_or_insert(code.unwrap_or(NO_CODE));
        }
    }

    /// Something came to a peer that speaks WebSocket.
    pub(crate) fn peer_hears(&mut self, peer: u32, heard: Heard) {
        let facts = &mut self.peers[peer as usize];
        let (form, is_corrupt, has_ended) = (facts.form, facts.corrupt, facts.ended);
        let Some(web) = &mut facts.web else { return };
        let wrong = match heard {
            Heard::Stands => {
                web.stands = true;
                let refused = web.is_refused;
                refused.map(|status| format!("stands, and should be refused with {status}"))
            }
            Heard::Refused(500) => {
                self.web.failures_told += 1;
                (self.web.failures_told > self.web.upgrade_panics)
                    .then(|| "was refused with 500, and no callback has panicked".to_owned())
            }
            Heard::Refused(status) => {
                let expected = web.is_refused;
                (expected != Some(status))
                    .then(|| format!("was refused with {status}, not {expected:?}"))
            }
            Heard::Ping => None,
            Heard::Pong(number) => {
                let (before, asked) = (web.pongs, web.pings);
                web.pongs = number;
                (number <= before || number > asked)
                    .then(|| format!("got pong {number} after {before}, of {asked}"))
            }
            Heard::Message { bytes, is_text } => {
                let is_over = web.got_close.is_some();
                if is_over {
                    Some("got a message behind a Close frame".to_owned())
                } else if is_text != (form == Some(Form::WebText)) {
                    Some(format!("got a message, text: {is_text}, of {form:?}"))
                } else {
                    return self.peer_gets(peer, &bytes, 0);
                }
            }
            Heard::Close(code) => {
                let before = web.got_close.replace(code);
                if !web.is_mute && !has_ended {
                    web.closed_with.get_or_insert(code); // its answer
                }
                before.map(|before| format!("got a Close frame with {code}, and one with {before}"))
            }
            Heard::Wrong(what) => Some(format!("was sent what is wrong: {what}")),
        };
        if let Some(wrong) = wrong.filter(|_| !is_corrupt) {
            let about = self.peers[peer as usize].session.map(SessionId::to_bits);
            let what = format!("peer {peer} {wrong}");
            self.broken(Rule::WebSocketsKeepTheirRules, about.into_iter().collect(), what);
        }
    }

    /// A session ends for something that its peer has sent behind its requests: those have come.
    pub(super) fn why_not_whole(&self, id: SessionId, reason: CloseReason) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let peer = &self.peers[session.peer? as usize];
        let web = peer.web.as_ref()?;
        let is_behind_all = match reason {
            CloseReason::PeerClosedWith { .. } | CloseReason::ProtocolError { .. } => true,
            CloseReason::FrameTooLarge { .. } => true,
            CloseReason::PeerClosed if web.closed_with.is_some() && !peer.cut => {
                let what = format!("{id} closed as {reason}, and its peer has said {web:?}");
                return Some(what).filter(|_| !peer.corrupt);
            }
            _ => false,
        };
        let is_whole = session.received == peer.sent || peer.corrupt;
        (is_behind_all && !is_whole).then(|| {
            format!("{id} closed as {reason} with {} of {} requests", session.received, peer.sent)
        })
    }

    /// What speaks against the end of a session whose peer has answered no ping.
    pub(super) fn why_no_ping_timeout(&self, id: SessionId) -> Option<String> {
        let Some(after) = self.web.ping_after else { return Some("there are no pings".to_owned()) };
        let session = self.sessions.get(&id)?;
        let peer = &self.peers[session.peer? as usize];
        let limit = 2 * after;
        let silence = peer.speech.longest_silence(session.opened_at);
        if silence < limit - limit / 1_000 {
            return Some(format!("its peer was never silent for longer than {silence:?}"));
        }
        let is_mute = peer.web.as_ref().is_none_or(|web| web.is_mute);
        let is_gone = peer.vanished || peer.corrupt || peer.cut || peer.ended;
        let is_deaf = peer.has_stalled_after(now().saturating_sub(limit));
        let answers = !(is_mute || is_gone || is_deaf);
        (answers && self.web.pings_are_in_time).then(|| "its peer answers pings".to_owned())
    }

    /// A session whose peer answers no ping must end for it, or has.
    pub(crate) fn must_end_by_ping(&self, peer: &PeerFacts) -> bool {
        let Some(web) = peer.web.as_ref().filter(|_| self.web.ping_after.is_some()) else {
            return false;
        };
        web.stands && (web.is_mute || peer.vanished)
    }

    /// Everything is over: each Close frame fits its session's reason.
    pub(crate) fn judge_closes(&mut self) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(what) = self.why_wrong_close(id) {
                self.broken(Rule::WebSocketsKeepTheirRules, vec![id.to_bits()], what);
            }
        }
    }

    fn why_wrong_close(&self, id: SessionId) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let peer = &self.peers[session.peer? as usize];
        let (web, reason) = (peer.web.as_ref()?, session.closed?);
        if session.parting.finishes_from.is_some() {
            return None; // the end of our direction has said it, before there was a reason
        }
        // Of the others something may have been said before.
        let (code, must_come) = match reason {
            CloseReason::PeerClosedWith { code } | CloseReason::ProtocolError { code, .. } => {
                (code, true)
            }
            CloseReason::FrameTooLarge { .. } => (1009, true),
            CloseReason::Drained => (1001, true),
            CloseReason::IdleTimeout
            | CloseReason::FirstFrameTimeout
            | CloseReason::PingTimeout => (1001, false),
            CloseReason::Kicked { code: 1014 } => return None, // which peers' codec does not know
            CloseReason::Kicked { code } => match u16::try_from(code) {
                Ok(code @ (1000..=1003 | 1007..=1013 | 3000..=4999)) => (code, true),
                _ => (1008, true), // it may not be sent
            },
            // What was said before a stop was said for another reason.
            CloseReason::Local if session.is_stopped => return None,
            CloseReason::Local => (1000, session.drains_from.is_some()),
            _ => return None,
        };
        let excuses = &self.excuses;
        let may_be_cut = excuses.receives_or_sends_fail
            || excuses.posts_are_refused
            || excuses.port_may_fail
            || excuses.drain_timeout.is_some()
            || excuses.send_stall_timeout.is_some();
        // Who is slow may be ended while it drains. Of these reasons none gives way to that.
        let keeps_reason = !matches!(
            reason,
            CloseReason::Local | CloseReason::Drained | CloseReason::Kicked { .. }
        );
        let is_slow = keeps_reason && (excuses.budget_is_small || self.lacked(id, session.peer?));
        let is_cut = session.is_stopped || session.panicked || may_be_cut || is_slow;
        let must_come = must_come && peer.got_end && !peer.corrupt && !is_cut;
        match web.got_close {
            Some(got) if got != code => {
                Some(format!("{id} closed as {reason}, and its peer was told {got}, not {code}"))
            }
            None if must_come => {
                Some(format!("{id} closed as {reason}, and its peer got no Close frame"))
            }
            _ => None,
        }
    }
}
