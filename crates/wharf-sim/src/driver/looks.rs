//! Looks at the server from outside: at any time, when all should have come about, and when it has ended.

use wharf::simulation::Fault;
use wharf::{Close, CloseReason, Error};

use super::state::Driver;
use crate::panics;
use crate::rules::{Rule, Violation};
use crate::truth::Truth;

/// What a batch queues leaves before the next.
const SEND_BATCHES_MAX: u64 = 0;

impl Driver<'_> {
    pub(super) fn look_at_stats(&self) {
        let stats = self.handle.stats();
        let mut truth = self.truth.lock();
        let balance = stats.opened.wrapping_sub(stats.closed);
        if balance != stats.live {
            let what =
                format!("{} - {} sessions, but {} live", stats.opened, stats.closed, stats.live);
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        let queued_max = u64::from(self.plan.options.sessions_max)
            * self.plan.options.send_queue_bytes_max as u64;
        if stats.queued_bytes > queued_max {
            let what = format!("{} bytes are queued, of {queued_max}", stats.queued_bytes);
            truth.broken(Rule::BoundsAreKept, Vec::new(), what);
        }
        let (told, told_max) =
            (truth.accept_failures_told, 1 + self.simulation.now().as_secs() / 10);
        if told > told_max {
            let what = format!("it was told {told} times that accepting fails, of {told_max}");
            truth.broken(Rule::AcceptFailuresAreTold, Vec::new(), what);
        }
        if stats.stale_completions > 0 {
            let what =
                format!("{} completions met a session that was gone", stats.stale_completions);
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
    }

    /// What has not come about yet, and must.
    pub(super) fn unsettled(&self) -> Option<Violation> {
        if self.has_failed() {
            return None;
        }
        let truth = self.truth.lock();
        let not_yet = |rule, about: Vec<u64>, what: String| Some(Violation { rule, about, what });
        if truth.senders > 0 {
            return not_yet(Rule::NobodyStarves, Vec::new(), "a call does not return".to_owned());
        }
        let accept_failures = [Fault::AcceptWithoutDescriptors, Fault::AcceptWithoutMemory];
        let has_failed = accept_failures.into_iter().any(|fault| self.has_fired(fault));
        if has_failed && truth.accept_failures_told == 0 {
            let what = "accepting has failed, and nobody was told".to_owned();
            return not_yet(Rule::AcceptFailuresAreTold, Vec::new(), what);
        }
        if let Some(id) = truth.connecting.first() {
            let what = format!("the connect of {id} is not answered");
            return not_yet(Rule::ConnectsAreAnswered, vec![id.to_bits()], what);
        }
        for (id, session) in &truth.sessions {
            if session.closed.is_some() {
                continue;
            }
            let about = vec![id.to_bits()];
            if session.asked == Some(Close::Stop) {
                let what = format!("{id} was asked to close, and is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            let Some(peer) = session.peer else { continue };
            let facts = &truth.peers[peer as usize];
            let is_quiet = session.asked.is_none() && !facts.ended && !facts.cut;
            if facts.vanished && is_quiet && self.plan.ends_the_idle() {
                let what = format!("the peer of {id} has vanished, and no time-out came");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if facts.vanished || facts.corrupt {
                continue; // whose end may never come, or whose bytes nobody knows
            }
            if session.asked.is_some() {
                let what = format!("{id} was asked to drain, and is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.gone {
                let what = format!("{id} was said to be gone, and is not closed");
                return not_yet(Rule::GoneIsGone, about, what);
            }
            if facts.ended || facts.cut {
                let what = format!("the peer of {id} has gone, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.received < facts.sent {
                let what = format!("{id} got {} of {} requests", session.received, facts.sent);
                return not_yet(Rule::FramesArrive, about, what);
            }
            if let Some((publisher, number)) = truth.publications.missing(*id, peer) {
                let what = format!("publication {number} of {publisher} did not come to {id}");
                return not_yet(Rule::FramesArrive, about, what);
            }
            if let Some((sender, got, accepted)) = truth.missing(*id) {
                let what = format!("{got} of {accepted} messages of sender {sender} to {id} came");
                return not_yet(Rule::FramesArrive, about, what);
            }
        }
        // Whoever has connected is a session by now, or was refused.
        for played in &self.peers {
            let facts = &truth.peers[played.number as usize];
            if facts.session.is_none() && !facts.saw_end && !facts.vanished {
                let what = format!("peer {} is neither served nor refused", played.number);
                return not_yet(Rule::NobodyStarves, vec![played.peer.key()], what);
            }
        }
        None
    }

    pub(super) fn judge_error(&self, error: &Error) {
        let expected = match error {
            Error::Port { .. } => self.has_fired(Fault::PortFails),
            Error::WorkerFault { .. } => {
                panics::take_last().is_none_or(|said| said.contains("on purpose"))
                    && self.has_faulted()
            }
            _ => false,
        };
        if !expected {
            let said = panics::take_last().unwrap_or_default();
            let what = format!("{error:?}: {said}");
            self.truth.lock().broken(Rule::WorkersDoNotFail, Vec::new(), what);
        }
    }

    pub(super) fn look_at_what_is_left(&self) {
        let (stats, figures) = (self.handle.stats(), self.simulation.figures());
        let last = self.truth.lock().ids.last().copied();
        let accepted = last.filter(|id| self.handle.send(*id, b"late").is_ok());
        let mut truth = self.truth.lock();
        let left = (truth.open, truth.senders, truth.connecting.len(), truth.answered_early.len());
        if left != (0, 0, 0, 0) && !(self.has_faulted() && truth.senders == 0) {
            let first = truth.sessions.iter().find(|(_, session)| session.closed.is_none());
            let about: Vec<_> = first.iter().map(|(id, _)| id.to_bits()).collect();
            let what = format!("sessions, calls, connects without an end: {left:?}");
            truth.broken(Rule::NothingIsLeft, about, what);
        }
        if truth.states_made != truth.states_dropped {
            let what = format!("{} states, {} dropped", truth.states_made, truth.states_dropped);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        let counts = (stats.opened, stats.live, stats.queued_bytes);
        if counts != (stats.closed, 0, 0) && !self.has_faulted() {
            let what = format!(
                "{} opened, {} closed, {} live, {} bytes queued",
                stats.opened, stats.closed, stats.live, stats.queued_bytes
            );
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        if figures.send_batches_max > SEND_BATCHES_MAX {
            let what = format!("an answer waited for {} batches", figures.send_batches_max);
            truth.broken(Rule::NobodyStarves, Vec::new(), what);
        }
        if figures.left_registered > 0 && !self.has_failed() {
            let what = format!("{} sockets were left to the port's end", figures.left_registered);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        if let Some(id) = accepted {
            let what = "a frame was accepted by a server that had ended".to_owned();
            truth.broken(Rule::GoneIsGone, vec![id.to_bits()], what);
        }
        if let Some((one, other)) = truth.publications.out_of_order() {
            let what = format!("peers {one} and {other} got publications in different orders");
            truth.broken(Rule::FramesArriveInOrder, Vec::new(), what);
        }
        self.look_at_drained(&mut truth);
    }

    /// `Drained`, and `Local` of what was asked to drain, say that all that was accepted before has left: it
    /// is at the peer, if nothing lost it there.
    fn look_at_drained(&self, truth: &mut Truth) {
        let ids: Vec<_> = truth.sessions.keys().copied().collect();
        for id in ids {
            let session = &truth.sessions[&id];
            let Some(number) = session.peer else { continue };
            let peer = &truth.peers[number as usize];
            let is_well = !(peer.cut || peer.vanished || peer.corrupt || session.is_uncertain);
            let from = match session.closed {
                Some(CloseReason::Drained) => truth.publications.ends(),
                Some(CloseReason::Local) => session.drains_from,
                _ => None,
            };
            let Some(from) = from.filter(|_| is_well && peer.saw_end) else { continue };
            if let Some((publisher, number)) = truth.publications.missing_before(id, number, from) {
                let what = format!("{id} was drained, without publication {number} of {publisher}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            } else if let Some(missing) = truth.missing(id) {
                let what = format!("{id} was drained, but (sender, got, accepted) {missing:?}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            }
        }
    }
}
