//! What must hold after a round, judged by what callbacks, callers and peers have seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;

use wharf::{CloseReason, FirstFrameTimeout, Policy, SessionId};

use crate::deeds::{Deeds, Publication, Said, TOWN, To};
use crate::facts::Facts;
use crate::peers::{End, PeerFacts};
use crate::plan::Plan;
use crate::rules::{Rule, Violation};
use crate::truth::{Connect, Target};

/// All that was seen.
pub(crate) struct Seen {
    pub(crate) plan: Plan,
    pub(crate) sessions: BTreeMap<u64, Facts>,
    pub(crate) connects: BTreeMap<u64, Connect>,
    /// By the name that their frames have.
    pub(crate) actors: BTreeMap<u64, Deeds>,
    pub(crate) peers: Vec<PeerFacts>,
    /// When the end of the server was asked for.
    pub(crate) end_began: u64,
    /// Everything may have been cut from this moment on; `u64::MAX`: a drain was over in time.
    pub(crate) cut_at: u64,
}

/// Peers whose publications are compared for their order.
const COMPARED_MAX: usize = 24;
/// Violations of one kind that are told.
const TOLD_MAX: usize = 5;

impl Seen {
    pub(crate) fn judge(&self) -> Vec<Violation> {
        let mut broken = Vec::new();
        let mut add = |rule, found: Vec<String>| {
            let told = found.into_iter().take(TOLD_MAX);
            broken.extend(told.map(|what| Violation { rule, what }));
        };
        add(Rule::CallbacksInOrder, self.not_closed());
        add(Rule::ReasonsAreTrue, self.untrue_reasons());
        add(Rule::ConnectsAreAnswered, self.unanswered_connects());
        add(Rule::PeersSeeAnEnd, self.endless_peers());
        let (strange, lost, disordered) = self.frames();
        add(Rule::FramesReachTheirSession, strange);
        add(Rule::FramesArrive, lost);
        add(Rule::FramesArriveInOrder, disordered);
        add(Rule::FramesArrive, self.lost_connects());
        add(Rule::FarewellsComeLast, self.farewells());
        add(Rule::EndsAreTold, self.untold_ends());
        broken
    }

    fn not_closed(&self) -> Vec<String> {
        let is_amiss = |facts: &Facts| {
            let has_opened = facts.opened_ended > 0;
            has_opened != facts.closed.is_some()
        };
        let opened = self.sessions.iter().filter(|(_, facts)| facts.opened_began > 0);
        let amiss = opened.filter(|(_, facts)| is_amiss(facts));
        amiss.map(|(id, facts)| format!("{}: {facts:?}", name(*id))).collect()
    }

    fn untrue_reasons(&self) -> Vec<String> {
        let peers: HashMap<_, _> =
            self.peers.iter().map(|peer| (self.session_of(peer), peer)).collect();
        let mut found = Vec::new();
        for (id, facts) in &self.sessions {
            let Some(reason) = facts.closed else { continue };
            if let Some(why) = self.why_untrue(*id, facts, reason, peers.get(&Some(*id)).copied()) {
                found.push(format!("{} closed as {reason}, but {why}: {facts:?}", name(*id)));
            }
        }
        found
    }

    fn why_untrue(
        &self,
        id: u64,
        facts: &Facts,
        reason: CloseReason,
        peer: Option<&PeerFacts>,
    ) -> Option<&'static str> {
        let options = &self.plan.options;
        let has_first_frame =
            matches!(options.time.first_frame_timeout, FirstFrameTimeout::After(_));
        let of_peer = |is: fn(&PeerFacts) -> bool| peer.is_none_or(is);
        let (holds, why) = match reason {
            CloseReason::PeerClosed if self.plan.tells_ends() && !facts.has_finished_both() => {
                (false, "not both directions have ended and said so")
            }
            CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. } => {
                (self.has_ended(facts, peer), "its peer has not ended its stream")
            }
            CloseReason::Kicked { code } => {
                (self.said_to(id).any(|said| said.code == code && said.accepted), "nobody said so")
            }
            CloseReason::Reset => (of_peer(|peer| peer.ended_first), "its peer has not reset"),
            CloseReason::FrameTooLarge { .. } => {
                (of_peer(|peer| peer.is_rude), "its peer has announced nothing too large")
            }
            CloseReason::SlowConsumer { .. } => (true, ""),
            CloseReason::IdleTimeout => match options.time.idle_timeout {
                None => (false, "there is no such limit"),
                Some(limit) => (
                    // What a gateway passes on, it may pass on late.
                    peer.is_none_or(|peer| peer.via_gateway || peer.silence_max >= limit),
                    "its peer was never silent for so long",
                ),
            },
            CloseReason::FirstFrameTimeout => (has_first_frame, "there is no such limit"),
            CloseReason::SendStallTimeout => {
                (self.plan.has_short_stall, "the limit has not passed")
            }
            CloseReason::DrainTimeout => {
                let is_asked = facts.closes > 0 || facts.closed_at > self.end_began;
                (self.plan.has_short_drain() && is_asked, "the limit has not passed")
            }
            CloseReason::Local => (facts.closes > 0, "nobody has asked for it"),
            CloseReason::Drained | CloseReason::Stopped => {
                (facts.closed_at > self.end_began, "the server did not end")
            }
            CloseReason::HandlerPanicked => (facts.panicked, "no callback of it has panicked"),
            CloseReason::FrameTooLargeToSend { bytes, max } => {
                let queue_max = options.sending.queue_bytes_max;
                (
                    (bytes > max || self.plan.is_mixed) && bytes + 8 > queue_max,
                    "the frame could have been sent",
                )
            }
            _ => (false, "nothing explains it"),
        };
        if !holds {
            return Some(why);
        }
        // Its end came after all that it had sent.
        let lost = reason == CloseReason::PeerClosed
            && peer.is_some_and(|peer| !peer.is_rude && peer.sent != facts.received);
        lost.then_some("not all requests were received before that")
    }

    /// A peer has ended its stream: by itself, or when it saw that the server had ended its own.
    fn has_ended(&self, facts: &Facts, peer: Option<&PeerFacts>) -> bool {
        let follows = |peer: &PeerFacts| facts.finishes > 0 && peer.end == End::Stream;
        peer.is_none_or(|peer| peer.ended_first || follows(peer))
    }

    fn said_to(&self, id: u64) -> impl Iterator<Item = &Said> {
        self.actors.values().flat_map(|actor| &actor.farewells).filter(move |said| said.id == id)
    }

    /// What became of farewells: which session ended with another reason, and whose peer got another last
    /// frame, or none.
    fn farewells(&self) -> Vec<String> {
        let peers = self.peers_by_session();
        let said: Vec<_> = self.actors.values().flat_map(|actor| &actor.farewells).collect();
        let mut accepted = HashMap::new();
        let mut found = Vec::new();
        for said in said.into_iter().filter(|said| said.accepted) {
            if let Some(other) = accepted.insert(said.id, said) {
                found.push(format!("{} was closed with {other:?} and {said:?}", name(said.id)));
            }
            let Some(facts) = self.sessions.get(&said.id) else { continue };
            let Some(reason) = facts.closed else { continue };
            let peer = peers.get(&said.id);
            if reason != (CloseReason::Kicked { code: said.code }) {
                if !self.may_cut_farewell(facts, reason) {
                    found.push(format!("{} closed as {reason}, after {said:?}", name(said.id)));
                }
                continue;
            }
            // Behind our own end nothing can come.
            let must_come = said.has_frame
                && facts.finishes == 0
                && facts.stops == 0
                && !facts.panicked
                && facts.closed_at < self.cut_at;
            let came = peer.is_none_or(|peer| peer.reader.farewell == Some(said.code));
            if must_come && !came && peer.is_some_and(|peer| peer.end == End::Stream) {
                let got = peer.map(|peer| peer.reader.farewell);
                found.push(format!(
                    "{} ended with {said:?}, and its peer got {got:?}",
                    name(said.id)
                ));
            }
        }
        for (id, peer) in peers {
            let Some(code) = peer.reader.farewell else { continue };
            if accepted.get(&id).is_none_or(|said| said.code != code || !said.has_frame) {
                let said = accepted.get(&id);
                found.push(format!(
                    "{} got farewell {code}, and was closed with {said:?}",
                    name(id)
                ));
            }
        }
        found
    }

    /// Whether a session that was closed with a farewell may end for this reason.
    fn may_cut_farewell(&self, facts: &Facts, reason: CloseReason) -> bool {
        match reason {
            CloseReason::Local => facts.stops > 0,
            CloseReason::Stopped => facts.closed_at > self.end_began,
            CloseReason::DrainTimeout => self.plan.has_short_drain(),
            CloseReason::SendStallTimeout => self.plan.has_short_stall,
            CloseReason::HandlerPanicked => facts.panicked,
            // A publication from before may still find no room.
            CloseReason::Reset | CloseReason::SlowConsumer { .. } => true,
            _ => false,
        }
    }

    /// Ends of peers that were told wrongly.
    fn untold_ends(&self) -> Vec<String> {
        let peers = self.peers_by_session();
        let mut found = Vec::new();
        for (id, facts) in self.sessions.iter().filter(|(_, facts)| facts.peer_finished) {
            let peer = peers.get(id).copied();
            if !self.plan.tells_ends() {
                found.push(format!("{} was told of an end that closes", name(*id)));
            } else if !self.has_ended(facts, peer) {
                found.push(format!("{} was told of an end that there was not", name(*id)));
            }
            if let Some(peer) = peer.filter(|peer| !peer.is_rude && peer.sent != facts.received) {
                let (sent, received) = (peer.sent, facts.received);
                let what = format!("was told of the end after {received} of {sent} requests");
                found.push(format!("{} {what}", name(*id)));
            }
        }
        found
    }

    fn peers_by_session(&self) -> HashMap<u64, &PeerFacts> {
        self.peers.iter().filter_map(|peer| Some((self.session_of(peer)?, peer))).collect()
    }

    fn unanswered_connects(&self) -> Vec<String> {
        let answers = |id: &u64, connect: &Connect| {
            let opened = self.sessions.get(id).is_some_and(|facts| facts.opened_began > 0);
            connect.failed + u32::from(opened)
        };
        let amiss = |(id, connect): &(&u64, &Connect)| {
            answers(id, connect) != 1 || connect.target.is_none()
        };
        let amiss = self.connects.iter().filter(amiss);
        amiss.map(|(id, connect)| format!("{} has {connect:?}", name(*id))).collect()
    }

    /// A connect that was asked to drain stands first, if something was to be sent.
    fn lost_connects(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, connect) in &self.connects {
            let facts = self.sessions.get(id).cloned().unwrap_or_default();
            let accepted: u32 = self.accepted_by(*id).map(|(_, count)| count).sum();
            let is_lost = connect.target == Some(Target::Listener)
                && connect.error == Some(ErrorKind::ConnectionAborted)
                && accepted > 0
                && facts.stops == 0
                && connect.failed_at < self.end_began;
            if is_lost {
                let what = "was sent frames and asked to drain, and its connect was given up";
                found.push(format!("{} {what}", name(*id)));
            }
        }
        found
    }

    fn endless_peers(&self) -> Vec<String> {
        // Whose handshake ends while a listener is closed may be left without an answer by the system.
        let is_left = |peer: &PeerFacts| {
            peer.end == End::None && (peer.reader.bytes > 0 || peer.was_connected_to)
        };
        let left = self.peers.iter().filter(|peer| is_left(peer));
        left.map(|peer| {
            format!("peer {} of {:?} saw no end", peer.number, self.session_of(peer).map(name))
        })
        .collect()
    }

    fn session_of(&self, peer: &PeerFacts) -> Option<u64> {
        peer.reader.session.or_else(|| {
            let mut sessions = self.sessions.iter();
            sessions.find(|(_, facts)| facts.peer == Some(peer.number)).map(|(id, _)| *id)
        })
    }

    fn accepted_by(&self, id: u64) -> impl Iterator<Item = (u64, u32)> {
        self.actors.values().filter_map(move |actor| Some((actor.from, *actor.accepted.get(&id)?)))
    }

    /// What reached whom it was not for, what did not arrive, and what came out of order.
    fn frames(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let (mut strange, mut lost, mut disordered) = (Vec::new(), Vec::new(), Vec::new());
        let mut owners = HashMap::new();
        for peer in &self.peers {
            let Some(id) = self.session_of(peer) else { continue };
            if let Some(other) = owners.insert(id, peer.number) {
                let who = (peer.number, other);
                strange.push(format!("frames of {} came to the peers {who:?}", name(id)));
            }
            let Some(facts) = self.sessions.get(&id).filter(|facts| facts.opened_began > 0) else {
                strange.push(format!("frames of {} came, which was not opened", name(id)));
                continue;
            };
            if facts.peer.is_some_and(|number| number != peer.number) {
                let who = (peer.number, facts.peer);
                strange.push(format!("frames of {} came to peer {who:?}", name(id)));
            }
            strange.extend(self.strange(id, facts, peer));
            lost.extend(self.lost(id, facts, peer));
            disordered.extend(self.left_out(id, facts, peer));
        }
        disordered.extend(self.out_of_order());
        (strange, lost, disordered)
    }

    /// What a peer got, but must not.
    fn strange(&self, id: u64, facts: &Facts, peer: &PeerFacts) -> Vec<String> {
        let accepted: HashMap<_, _> = self.accepted_by(id).collect();
        let mut found = Vec::new();
        for (from, got) in &peer.reader.got {
            let accepted = accepted.get(from).copied().unwrap_or(0);
            if *got > accepted {
                found.push(format!("{} got {got} of {accepted} frames of {from:#x}", name(id)));
            }
        }
        for (from, number) in &peer.reader.published {
            let actor = self.actors.get(from);
            let publication = actor.and_then(|actor| actor.publications.get(*number as usize));
            let (Some(actor), Some(publication)) = (actor, publication) else {
                found
                    .push(format!("{} got publication {number} of {from:#x}, of nobody", name(id)));
                continue;
            };
            let group = peer.reader.groups.get(&(*from, *number));
            let is_right = group == Some(&publication.to.group()) && publication.accepted;
            if !is_right || !may_get(id, facts, actor, publication) {
                let what = format!("publication {number} of {from:#x}, {publication:?}");
                found.push(format!("{} got {what}, and {facts:?}", name(id)));
            }
        }
        found
    }

    /// What a peer must have got of that, when its session ended in order.
    fn lost(&self, id: u64, facts: &Facts, peer: &PeerFacts) -> Vec<String> {
        let ended_in_order = facts.closed_at < self.cut_at
            && !facts.panicked
            && facts.stops == 0
            && !self.plan.has_short_stall
            && peer.always_read
            && !peer.is_rude;
        let Some(reason) = facts.closed.filter(|_| ended_in_order) else { return Vec::new() };
        match reason {
            CloseReason::Local | CloseReason::Drained | CloseReason::Kicked { .. } => {}
            // This reason stays when its drain takes too long.
            CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. }
                if !self.plan.has_short_drain() => {}
            _ => return Vec::new(),
        }
        let mut found = Vec::new();
        if peer.end != End::Stream || peer.reader.unfinished_bytes() > 0 {
            let how = (peer.end, peer.reader.unfinished_bytes());
            found.push(format!("{} closed as {reason}, and its peer saw {how:?}", name(id)));
        }
        for (from, accepted) in self.accepted_by(id) {
            let got = peer.reader.got.get(&from).copied().unwrap_or(0);
            if got < accepted {
                let what = format!("{got} of {accepted} frames of {from:#x} came");
                let seen = (peer.was_connected_to, &peer.reader.got);
                found.push(format!("{} closed as {reason}, {what}: {facts:?}, {seen:?}", name(id)));
            }
        }
        let got: HashSet<_> = peer.reader.published.iter().copied().collect();
        for actor in self.actors.values() {
            // Of a session that somebody closed, only what this one had published before is certain.
            let is_of_program = match reason {
                CloseReason::PeerClosed => self.plan.tells_ends(),
                CloseReason::PeerClosedInFrame { .. } => false,
                _ => true,
            };
            let until = match (reason, actor.drains.get(&id)) {
                (CloseReason::Drained, _) if facts.finishes == 0 => self.end_began,
                (_, Some(asked_at)) if is_of_program && facts.closes + facts.finishes == 1 => {
                    *asked_at
                }
                _ => continue,
            };
            let lost = (0..).zip(&actor.publications).find(|(number, publication)| {
                publication.returned < until
                    && must_get(id, facts, actor, publication)
                    && !got.contains(&(actor.from, *number))
            });
            if let Some((number, publication)) = lost {
                let what = format!("publication {number} of {:#x}, {publication:?}", actor.from);
                found.push(format!("{} closed as {reason} without {what}", name(id)));
            }
        }
        found
    }

    /// A publication came, and one before it, by the same publisher, did not.
    fn left_out(&self, id: u64, facts: &Facts, peer: &PeerFacts) -> Vec<String> {
        let mut next: HashMap<u64, u32> = HashMap::new();
        let mut found = Vec::new();
        for (from, number) in &peer.reader.published {
            let Some(actor) = self.actors.get(from) else { continue };
            let first = next.insert(*from, number + 1).unwrap_or(0);
            let between = (first..*number).zip(actor.publications.iter().skip(first as usize));
            let left_out = between
                .into_iter()
                .find(|(_, publication)| must_get(id, facts, actor, publication));
            if let Some((left_out, publication)) = left_out {
                let what = format!("{number} of {from:#x}, and not {left_out}, {publication:?}");
                found.push(format!("{} got publication {what}, and {facts:?}", name(id)));
            }
        }
        found
    }

    /// Two peers that got the same publications in different orders.
    fn out_of_order(&self) -> Vec<String> {
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.reader.published.len()));
        peers.truncate(COMPARED_MAX);
        let differ = |pair: &&[&PeerFacts]| {
            let places: HashMap<_, u32> = pair[0].reader.published.iter().zip(0..).collect();
            let places = pair[1].reader.published.iter().filter_map(|got| places.get(got));
            !places.is_sorted()
        };
        let pairs = peers.windows(2).filter(differ);
        pairs
            .map(|pair| {
                let [one, other] = [pair[0].number, pair[1].number];
                format!("peers {one} and {other} got publications in different orders")
            })
            .collect()
    }
}

fn name(id: u64) -> SessionId {
    SessionId::from_bits(id)
}

fn excepts(publication: &Publication, id: u64) -> bool {
    matches!(publication.to, To::MembersBut(_, except) if except.to_bits() == id)
}

/// Whether a session that stays must get a publication.
fn must_get(id: u64, facts: &Facts, actor: &Deeds, publication: &Publication) -> bool {
    if !publication.accepted || excepts(publication, id) {
        return false;
    }
    let stood_before = facts.opened_ended > 0 && facts.opened_ended < publication.began;
    match publication.to {
        To::All => stood_before,
        To::Members(TOWN) | To::MembersBut(TOWN, _) => stood_before && facts.in_town,
        To::Members(_) | To::MembersBut(..) => {
            let is_kept = |policy| policy != Policy::Skip; // nothing that is published here has a key
            is_member(id, actor, publication).is_some_and(is_kept)
        }
    }
}

/// Whether anything speaks for it that a session gets a publication.
fn may_get(id: u64, facts: &Facts, actor: &Deeds, publication: &Publication) -> bool {
    if excepts(publication, id) {
        return false;
    }
    let began_before = facts.opened_began < publication.returned;
    match publication.to {
        // It is handed over some time after the call, to all that have opened by then.
        To::All => true,
        To::Members(TOWN) | To::MembersBut(TOWN, _) => began_before && facts.in_town,
        To::Members(_) | To::MembersBut(..) => is_member(id, actor, publication).is_some(),
    }
}

/// In a group of the publisher's own, whose members nobody else changes: with which policy.
fn is_member(id: u64, actor: &Deeds, publication: &Publication) -> Option<Policy> {
    let of = actor.memberships.get(&id).map_or(&[][..], Vec::as_slice);
    let membership = of.iter().find(|membership| {
        membership.group == publication.to.group()
            && (membership.joins..membership.leaves).contains(&publication.began)
    });
    membership.map(|membership| membership.policy)
}

#[cfg(test)]
mod tests;
