//! Checks of the server from outside: at any time, when everything should be settled, and after its end.

use std::collections::HashSet;

use wharf::simulation::Fault;
use wharf::simulation::for_wharf_sim::{left_registered, send_batches_max};
use wharf::{Close, CloseReason, Error, Farewell, Group, SessionId};

use super::state::Driver;
use crate::frames::GROUPS;
use crate::panics;
use crate::rules::{Rule, Violation};
use crate::truth::{Truth, WebPeerFacts};

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
        // Of a session whose `closed` runs too, beside the one in its place.
        let farewell_bytes_max = if self.plan.farewells { Farewell::WIRE_BYTES_MAX } else { 0 };
        let of_each = self.plan.options.sending.queue_bytes_max + farewell_bytes_max;
        let of_each = of_each + truth.control_bytes_max();
        let queued_max = truth.open_max as u64 * of_each as u64;
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
        // Not under the lock of the truth, which callbacks take.
        let wanting = self.truth.lock().untold();
        let has_room = |id: &SessionId| self.handle.queued_bytes(*id) == Some(0);
        let untold: HashSet<_> = wanting.into_iter().filter(has_room).collect();
        let truth = self.truth.lock();
        let not_yet = |rule, about: Vec<u64>, what: String| Some(Violation { rule, about, what });
        if truth.senders > 0 {
            return not_yet(Rule::NobodyStarves, Vec::new(), "a call does not return".to_owned());
        }
        if truth.publish_waits.contains(&None) {
            let what = "one that waits to publish is not told".to_owned();
            return not_yet(Rule::RoomIsTold, Vec::new(), what);
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
            let is_asked = session.asked.is_some() || session.parting.kicked.is_some();
            let is_quiet = !is_asked && !facts.ended && !facts.cut;
            // What is refused, or has closed, drains: that has a limit of its own, or none.
            let drains = facts.refused.is_some()
                || facts.web.as_ref().is_some_and(|web| web.closed_with.is_some());
            let is_quiet = is_quiet && !session.waits_to_change && !drains;
            let is_to_be_closed = |web: &WebPeerFacts| web.stands && web.closed_with.is_some();
            if facts.web.as_ref().is_some_and(is_to_be_closed) && !facts.corrupt && !facts.vanished
            {
                let what = format!("the peer of {id} has sent a Close frame, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            let lacks_pong = facts.web.as_ref().is_some_and(WebPeerFacts::lacks_pong);
            if lacks_pong && facts.refused.is_none() && !facts.corrupt && !facts.vanished {
                let what = format!("the last ping of the peer of {id} is not answered");
                return not_yet(Rule::FramesArrive, about, what);
            }
            if truth.must_end_by_ping(facts) && is_quiet && self.plan.pauses_nobody() {
                let what = format!("the peer of {id} answers no ping, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
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
            if let Some(code) = session.parting.kicked {
                let what = format!("{id} was closed with farewell {code}, and is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.gone {
                let what = format!("{id} was said to be gone, and is not closed");
                return not_yet(Rule::GoneIsGone, about, what);
            }
            let is_finished = session.parting.finishes_from.is_some();
            if let Some((rule, what)) = truth.not_told(*id) {
                return not_yet(rule, about, what);
            }
            if untold.contains(id) && !is_finished {
                let what = format!("{id} waits for room, has it, and is not told");
                return not_yet(Rule::RoomIsTold, about, what);
            }
            if facts.ended && !facts.cut && self.plan.halves {
                let is_told = session.parting.end_is_told;
                let what =
                    format!("the peer of {id} has finished, and it is not closed; told: {is_told}");
                return not_yet(Rule::HalvesEndApart, about, what);
            }
            if facts.ended || facts.cut {
                let what = format!("the peer of {id} has gone, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if is_finished != facts.got_end {
                let what =
                    format!("{id}: finished: {is_finished}, its peer was told: {}", facts.got_end);
                return not_yet(Rule::HalvesEndApart, about, what);
            }
            if facts.refused.is_some() {
                let what =
                    format!("what the peer of {id} has sent is refused, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.received < facts.sent {
                let what = format!("{id} got {} of {} requests", session.received, facts.sent);
                return not_yet(Rule::FramesArrive, about, what);
            }
            // What was published later may come after our end of the stream, which nothing follows.
            let before = session.parting.finishes_from.unwrap_or(u64::MAX);
            let missing = truth.publications.missing_before(*id, peer, before);
            if let Some((publisher, number)) = missing {
                let what = format!("publication {number} of {publisher} did not come to {id}");
                return not_yet(Rule::FramesArrive, about, what);
            }
            let lost = truth.publications.not_superseded(*id, peer, before);
            if let Some((publisher, number)) = lost {
                let what = format!(
                    "publication {number} of {publisher} did not come to {id}, nor a newer one"
                );
                return not_yet(Rule::MissedIsTold, about, what);
            }
            if !is_finished && let Some(what) = truth.publications.missed_untold(*id, peer) {
                return not_yet(Rule::MissedIsTold, about, what);
            }
            if let Some((sender, got, accepted)) = truth.missing(*id)
                && !(is_finished && session.is_uncertain)
            {
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

    /// Nothing happens any more: each group has exactly the members that joined it and are there.
    pub(super) fn look_at_members(&self) {
        if self.has_failed() {
            return;
        }
        for group in 0..GROUPS {
            let members = self.handle.members(Group(group)).into_iter().collect::<HashSet<_>>();
            let count = self.handle.member_count(Group(group));
            let mut truth = self.truth.lock();
            let has_ended = |id| truth.sessions.get(&id).is_none_or(|of| of.closed.is_some());
            let expected = truth.publications.members(group, has_ended);
            // The sessions of peers that have gone may be about to end: some come late.
            let may_end = |id: &SessionId| {
                let peer = truth.sessions.get(id).and_then(|session| session.peer);
                let facts = peer.map(|peer| &truth.peers[peer as usize]);
                facts.is_none_or(|of| of.vanished || of.corrupt || of.ended || of.cut)
            };
            let certain = expected.iter().filter(|id| !may_end(id)).count();
            let is_right = members.is_subset(&expected)
                && expected.difference(&members).all(may_end)
                && (certain..=expected.len()).contains(&count);
            if !is_right {
                let what = format!("{count} are in group {group}, {members:?} of {expected:?}");
                truth.broken(Rule::MembershipsAreTrue, Vec::new(), what);
            }
        }
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
        let stats = self.handle.stats();
        let batches = send_batches_max(self.simulation);
        let left_registered = left_registered(self.simulation);
        let last = self.truth.lock().ids.last().copied();
        let accepted = last.filter(|id| self.handle.send(*id, b"late").is_ok());
        (0..self.peers.len()).for_each(|index| self.note_reads(index));
        let mut truth = self.truth.lock();
        let left = (truth.open, truth.senders, truth.connecting.len(), truth.answered_early.len());
        if left != (0, 0, 0, 0) && !(self.has_faulted() && truth.senders == 0) {
            let first = truth.sessions.iter().find(|(_, session)| session.closed.is_none());
            let about: Vec<_> = first.iter().map(|(id, _)| id.to_bits()).collect();
            let what = format!("sessions, calls, connects without an end: {left:?}");
            truth.broken(Rule::NothingIsLeft, about, what);
        }
        if truth.notes.made != truth.notes.dropped && !self.has_failed() {
            let what = format!("{} notes, {} dropped", truth.notes.made, truth.notes.dropped);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        let taken = (truth.notes.taken, truth.jobs.taken);
        let (told, untold) = (stats.told_notes, (stats.untold_notes, stats.untold_jobs));
        if taken.0 + taken.1 != told + untold.0 + untold.1 && !self.has_failed() {
            let what = format!("{taken:?} notes and jobs, {told} told, {untold:?} not");
            truth.broken(Rule::NotesAreTold, Vec::new(), what);
        }
        if stats.held_jobs != 0 && !self.has_failed() {
            let what = format!("{} jobs have places", stats.held_jobs);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        if truth.states_made != truth.states_dropped {
            let what = format!("{} states, {} dropped", truth.states_made, truth.states_dropped);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        if truth.contexts_made != truth.contexts_dropped && !self.has_failed() {
            let what =
                format!("{} contexts, {} dropped", truth.contexts_made, truth.contexts_dropped);
            truth.broken(Rule::ContextsAreKept, Vec::new(), what);
        }
        if let Some(what) = truth.publications.left_out() {
            truth.broken(Rule::MembershipsAreTrue, Vec::new(), what);
        }
        let counts = (stats.opened, stats.live, stats.queued_bytes);
        if counts != (stats.closed, 0, 0) && !self.has_faulted() {
            let what = format!(
                "{} opened, {} closed, {} live, {} bytes queued",
                stats.opened, stats.closed, stats.live, stats.queued_bytes
            );
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        if batches > SEND_BATCHES_MAX {
            let what = format!("an answer waited for {batches} batches");
            truth.broken(Rule::NobodyStarves, Vec::new(), what);
        }
        if left_registered > 0 && !self.has_failed() {
            let what = format!("{left_registered} sockets were left to the port's end");
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        if let Some(id) = accepted {
            let what = "a frame was accepted by a server that had ended".to_owned();
            truth.broken(Rule::GoneIsGone, vec![id.to_bits()], what);
        }
        truth.judge_cuts();
        truth.judge_closes();
        let (established, establishing) = (stats.established, stats.establishing);
        let opened = truth.web.opened;
        if (established, establishing) != (opened, 0) && !self.has_failed() {
            let what = format!(
                "{opened} sessions with a WebSocket were opened, {established} established; {establishing} are at it"
            );
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        if let Some((one, other)) = truth.publications.out_of_order() {
            let what = format!("peers {one} and {other} got publications in different orders");
            truth.broken(Rule::FramesArriveInOrder, Vec::new(), what);
        }
        self.look_at_drained(&mut truth);
    }

    /// `Drained` and `Kicked`, `Local` of what was asked to drain, and `PeerClosed` of what had finished say that
    /// all that was accepted before has left: it is at the peer, if nothing lost it there.
    fn look_at_drained(&self, truth: &mut Truth) {
        let ids: Vec<_> = truth.sessions.keys().copied().collect();
        for id in ids {
            let session = &truth.sessions[&id];
            let Some(number) = session.peer else { continue };
            let peer = &truth.peers[number as usize];
            let is_well = peer.got_end && !peer.corrupt && !session.is_uncertain;
            let farewell = match session.closed {
                Some(CloseReason::Kicked { code }) => session.parting.farewell(code),
                _ => None,
            };
            let from = match session.closed {
                Some(CloseReason::Drained) => truth.publications.ends(),
                Some(CloseReason::Local) => session.drains_from,
                Some(CloseReason::PeerClosed) => session.parting.finishes_from,
                _ => farewell.map(|(from, _)| from),
            };
            let Some(from) = from.filter(|_| is_well) else { continue };
            // Nothing that is published later follows our end of stream.
            let finishes_from = session.parting.finishes_from;
            let from = finishes_from.map_or(from, |finishes| finishes.min(from));
            if farewell.is_some_and(|(_, must_arrive)| must_arrive) && peer.farewell.is_none() {
                let what = format!("{id} was closed with a farewell, which did not arrive");
                truth.broken(Rule::FarewellsAreLast, vec![id.to_bits()], what);
                continue;
            }
            if session.closed == Some(CloseReason::Drained)
                && finishes_from.is_none()
                && truth.publications.misses_goodbye(id, number)
            {
                let what = format!("{id} was drained, without the goodbye to all");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            } else if let Some((publisher, number)) =
                truth.publications.missing_before(id, number, from)
            {
                let what = format!("{id} has ended, without publication {number} of {publisher}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            } else if let Some((publisher, number)) =
                truth.publications.not_superseded(id, number, from)
            {
                let what = format!("{id} has ended, without publication {number} of {publisher}");
                truth.broken(Rule::MissedIsTold, vec![id.to_bits()], what);
            } else if let Some(missing) = truth.missing(id) {
                let what = format!("{id} has ended, but (sender, got, accepted) {missing:?}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            }
        }
    }
}
