//! Which reasons a session may end for.

use std::time::Duration;

use wharf::{CloseReason, SessionId};

use super::{PeerFacts, Truth, now};
use crate::frames::FRAME_BYTES_MAX;

impl Truth {
    /// What speaks against a reason.
    pub(super) fn why_untrue(&self, id: SessionId, reason: CloseReason) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let peer = session.peer.map(|peer| &self.peers[peer as usize]);
        let lived = now().saturating_sub(session.opened_at);
        let of_peer = |is: fn(&PeerFacts) -> bool| peer.is_none_or(is);
        let excuses = &self.excuses;
        let too_soon = |limit: Option<Duration>| match limit {
            None => Some("there is no such limit".to_owned()),
            // Of more long turns than an engine remembers, the shortest make a time-out come early.
            Some(limit) if lived < limit - limit / 1_000 => {
                Some(format!("it lived for {lived:?} of {limit:?}"))
            }
            Some(_) => None,
        };
        let unless = |holds: bool, why: &str| (!holds).then(|| why.to_owned());
        match reason {
            CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. } => {
                // A reset is told once. If it is a send that hears of it, and its completion is the one that is
                // delayed, all that the worker sees at first is a receive that ends.
                unless(of_peer(|peer| peer.ended || peer.cut), "its peer has not ended its stream")
            }
            CloseReason::Reset => unless(
                of_peer(|peer| peer.cut || peer.ended) || excuses.receives_or_sends_fail,
                "its peer has not reset",
            ),
            CloseReason::FrameTooLarge { .. }
            | CloseReason::LengthTooSmall { .. }
            | CloseReason::ProtocolError { .. }
            | CloseReason::FrameRefused { .. } => unless(
                peer.is_none_or(|peer| {
                    peer.corrupt || peer.refused.is_some_and(|of| of.is(reason))
                }),
                "its peer has sent nothing that is refused so",
            ),
            // Which of them go first is held by tests of the library.
            CloseReason::SlowConsumer { .. } if excuses.budget_is_small => None,
            // Judged later, when it is known what its peer has read.
            CloseReason::SlowConsumer { .. } if self.may_be_behind(id) => None,
            CloseReason::SlowConsumer { queued } => {
                let largest = FRAME_BYTES_MAX + 4;
                let has_room = queued + largest <= excuses.send_queue_bytes_max;
                let found_full = session.full || session.under_way > 0;
                unless(found_full && !has_room, "no frame found its queue full")
            }
            CloseReason::IdleTimeout | CloseReason::FirstFrameTimeout
                if self.has_paused_itself(id) =>
            {
                Some("it was paused".to_owned())
            }
            CloseReason::IdleTimeout => too_soon(excuses.idle_timeout).or_else(|| {
                // What it has said lay in the server's socket at once, or behind what lay there.
                let silence = peer?.speech.longest_silence(session.opened_at);
                let limit = excuses.idle_timeout?;
                (silence < limit - limit / 1_000)
                    .then(|| format!("its peer was never silent for longer than {silence:?}"))
            }),
            CloseReason::FirstFrameTimeout if session.received > 0 => {
                Some("it had received a frame".to_owned())
            }
            CloseReason::FirstFrameTimeout => too_soon(excuses.first_frame_timeout),
            CloseReason::PeerClosedWith { code } => unless(
                peer.is_none_or(|peer| peer.corrupt || peer.has_closed_with(code)),
                "its peer has not sent this Close frame",
            ),
            CloseReason::PingTimeout => self.why_no_ping_timeout(id),
            CloseReason::Kicked { code } => unless(
                session.parting.farewell(code).is_some(),
                "nobody has closed it with this farewell",
            ),
            CloseReason::SendStallTimeout => too_soon(excuses.send_stall_timeout),
            CloseReason::DrainTimeout => too_soon(excuses.drain_timeout),
            CloseReason::Local => unless(session.asked.is_some(), "nobody asked for it"),
            CloseReason::Drained | CloseReason::Stopped => {
                unless(self.ending || excuses.port_may_fail, "the server was not asked to end")
            }
            CloseReason::HandlerPanicked => unless(session.panicked, "no callback has panicked"),
            CloseReason::FrameTooLargeToSend { .. } | CloseReason::FrameRefusedToSend { .. } => {
                unless(session.unsendable, "every frame could be sent")
            }
            CloseReason::Io { .. } => unless(
                excuses.receives_or_sends_fail
                    || excuses.posts_are_refused
                    || excuses.port_may_fail,
                "nothing has failed",
            ),
            _ => None,
        }
    }
}
