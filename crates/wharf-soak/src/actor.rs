//! An actor sends, publishes and closes, on its own thread or in a session's callbacks, and notes what it
//! does.

use std::collections::HashSet;

use wharf::{
    Close, EncodeError, Farewell, Group, Handle, JoinError, Policy, PublishError, SendError,
    SessionId,
};

use crate::deeds::{Deeds, Membership, Publication, Said, TOWN, To};
use crate::frames::{Frame, Kind, LENGTH_BYTES};
use crate::plan::Plan;
use crate::rules::Rule;
use crate::truth::Truth;

/// Actors from here on are threads; those below are sessions, by their ids.
pub(crate) const THREADS: u64 = 1 << 63;
/// Groups that one thread has to itself.
pub(crate) const GROUPS_OF_A_THREAD: u64 = 4;

/// With which policy a session joins an actor's own group.
pub(crate) fn policy_of(id: SessionId, group: u64) -> Policy {
    match (id.to_bits() ^ group) % 6 {
        _ if group == TOWN => Policy::Close,
        0 => Policy::Skip,
        1 => Policy::KeepLatest,
        _ => Policy::Close,
    }
}

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) is_raw: bool,
    /// Bytes that the program's own framing may add beyond what an error says.
    unknown_bytes: usize,
    pub(crate) deeds: Deeds,
    closed: HashSet<u64>,
}

impl Actor {
    pub(crate) fn new(from: u64, is_raw: bool) -> Actor {
        let deeds = Deeds { from, ..Deeds::default() };
        Actor { is_raw, unknown_bytes: 0, deeds, closed: HashSet::new() }
    }

    /// One that acts in this round.
    pub(crate) fn of_round(from: u64, plan: &Plan) -> Actor {
        let unknown_bytes = if plan.is_mixed { LENGTH_BYTES } else { 0 };
        Actor { unknown_bytes, ..Actor::new(from, plan.is_raw) }
    }

    /// A group that only this actor joins sessions to.
    pub(crate) fn own_group(&self, number: u64) -> u64 {
        let is_thread = u64::from(self.deeds.from >= THREADS);
        1 + ((self.deeds.from << 3) | (is_thread << 2) | (number % GROUPS_OF_A_THREAD))
    }

    /// Sends to a session by `push`. True: it was accepted.
    pub(crate) fn send(
        &mut self,
        truth: &Truth,
        id: SessionId,
        bytes: usize,
        push: impl FnOnce(Vec<u8>) -> Result<(), SendError<Vec<u8>>>,
    ) -> bool {
        let accepted = self.deeds.accepted.entry(id.to_bits()).or_default();
        let frame = Frame {
            kind: Kind::Direct,
            to: id.to_bits(),
            from: self.deeds.from,
            number: *accepted,
        };
        let written = frame.write(bytes, self.is_raw);
        let (len, is_closed) = (written.len(), self.closed.contains(&id.to_bits()));
        match push(written) {
            Ok(()) => {
                *accepted += 1;
                if is_closed {
                    let what = format!("a frame to {id} was accepted after this thread closed it");
                    truth.broken(Rule::RefusalsAreTrue, what);
                }
                true
            }
            Err(SendError::TooLarge { max, .. }) if len + self.unknown_bytes <= max => {
                let what = format!("a frame of {len} bytes was too large, {max} may be");
                truth.broken(Rule::RefusalsAreTrue, what);
                false
            }
            Err(error) => {
                if error.into_inner() != frame.write(bytes, self.is_raw) {
                    let what = format!("another frame than was sent to {id} came back");
                    truth.broken(Rule::FramesArriveWhole, what);
                }
                false
            }
        }
    }

    pub(crate) fn close(&mut self, truth: &Truth, handle: &Handle, id: SessionId, how: Close) {
        self.close_by(truth, id, how, || {
            handle.close(id, how);
        });
    }

    pub(crate) fn close_by(
        &mut self,
        truth: &Truth,
        id: SessionId,
        how: Close,
        close: impl FnOnce(),
    ) {
        truth.close_begins(id, how);
        if how == Close::Drain {
            let now = truth.now();
            self.deeds.drains.entry(id.to_bits()).or_insert(now);
        }
        close();
        self.closed.insert(id.to_bits());
        truth.close_returned(id);
    }

    /// Asks for the end of our direction, by `finish`, which says whether that changed something.
    pub(crate) fn finish_by(
        &mut self,
        truth: &Truth,
        id: SessionId,
        finish: impl FnOnce() -> bool,
    ) {
        truth.finish_begins(id);
        let now = truth.now();
        self.deeds.drains.entry(id.to_bits()).or_insert(now);
        let changed = finish();
        self.closed.insert(id.to_bits());
        truth.finish_returned(id, changed);
    }

    /// Closes a session by `close` with a farewell, whose frame has at least so many bytes; 0: it has none.
    /// False: it was too large, and closes nothing.
    pub(crate) fn kick_by(
        &mut self,
        truth: &Truth,
        id: SessionId,
        bytes: usize,
        close: impl FnOnce(Farewell) -> Result<bool, EncodeError<Farewell>>,
    ) -> bool {
        let code = truth.next_code();
        let frame =
            Frame { kind: Kind::Farewell, to: id.to_bits(), from: self.deeds.from, number: code };
        let (mut farewell, mut wire_bytes) = (Farewell::new(code), 0);
        if bytes > 0 {
            let frame = frame.write(bytes, self.is_raw);
            wire_bytes = frame.len() + if self.is_raw { 0 } else { LENGTH_BYTES };
            farewell = farewell.frame(frame);
        }
        let is_too_large = wire_bytes > Farewell::WIRE_BYTES_MAX;
        let mut answer = None;
        let say = || answer = Some(close(farewell.clone()));
        if is_too_large {
            say()
        } else {
            self.close_by(truth, id, Close::Drain, say)
        }
        let is_true = match answer {
            Some(Ok(accepted)) => {
                let said = Said { id: id.to_bits(), code, has_frame: bytes > 0, accepted };
                self.deeds.farewells.push(said);
                !(accepted && is_too_large)
            }
            Some(Err(error)) => is_too_large && error.into_inner() == farewell,
            None => false,
        };
        if !is_true {
            let what = format!("a farewell of {wire_bytes} bytes to {id} was answered otherwise");
            truth.broken(Rule::RefusalsAreTrue, what);
        }
        !is_too_large
    }

    fn is_member(&self, id: SessionId, group: u64) -> bool {
        let of = self.deeds.memberships.get(&id.to_bits()).map_or(&[][..], Vec::as_slice);
        of.iter().any(|membership| membership.group == group && membership.leaves == u64::MAX)
    }

    /// Makes a session a member of a group of its own.
    pub(crate) fn join(&mut self, truth: &Truth, handle: &Handle, id: SessionId, group: u64) {
        let (was_member, joins) = (self.is_member(id, group), truth.now());
        match handle.join_with(id, Group(group), policy_of(id, group)) {
            Ok(is_new) if is_new == was_member => {
                let what = format!("{id}, a member: {was_member}, joins, and is new: {is_new}");
                truth.broken(Rule::RefusalsAreTrue, what);
            }
            Ok(true) => {
                let policy = policy_of(id, group);
                let joined = Membership { group, policy, joins, leaves: u64::MAX };
                self.deeds.memberships.entry(id.to_bits()).or_default().push(joined);
            }
            Err(JoinError::TooManyGroups { .. }) if was_member => {
                let what = format!("{id}, a member, joins, and is in too many groups");
                truth.broken(Rule::RefusalsAreTrue, what);
            }
            Ok(false) | Err(_) => {}
        }
    }

    pub(crate) fn leave(&mut self, truth: &Truth, handle: &Handle, id: SessionId, group: u64) {
        let (was_member, leaves) = (self.is_member(id, group), truth.now());
        let left = handle.leave(id, Group(group)).is_some();
        if left && !was_member {
            truth.broken(Rule::RefusalsAreTrue, format!("{id} left a group that it was not in"));
        }
        let of = self.deeds.memberships.get_mut(&id.to_bits()).into_iter().flatten();
        for membership in of.filter(|membership| membership.group == group) {
            membership.leaves = membership.leaves.min(leaves);
        }
    }

    /// True: it was accepted.
    pub(crate) fn publish(&mut self, truth: &Truth, handle: &Handle, to: To, bytes: usize) -> bool {
        let number = self.deeds.publications.len() as u32;
        let frame = Frame { kind: Kind::Published, to: to.group(), from: self.deeds.from, number };
        let written = frame.write(bytes, self.is_raw);
        let began = truth.now();
        let result = match to {
            To::Members(group) => handle.publish(Group(group), &written),
            To::MembersBut(group, except) => handle.publish_except(Group(group), except, &written),
            To::All => handle.broadcast(&written),
        };
        let (returned, accepted) = (truth.now(), result.is_ok());
        self.deeds.publications.push(Publication { to, began, returned, accepted });
        let Err(error) = result else { return true };
        let is_true = match error {
            PublishError::Full { .. } => true,
            PublishError::TooLarge { max, .. } => written.len() > max,
            PublishError::Ending(_) => truth.is_ending(),
            _ => false,
        };
        if !is_true {
            truth.broken(Rule::RefusalsAreTrue, format!("a publication was refused: {error}"));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deeds::ALL;

    #[test]
    fn the_groups_of_actors_are_their_own() {
        let mut groups = HashSet::from([TOWN, ALL]);
        for from in [0, 1, 2, 1 << 24, THREADS, THREADS + 1] {
            for number in 0..GROUPS_OF_A_THREAD {
                assert!(groups.insert(Actor::new(from, false).own_group(number)), "{from}");
            }
        }
    }

    #[test]
    fn a_farewell_that_is_answered_otherwise_is_seen() {
        let (truth, id) = (Truth::default(), SessionId::from_bits(9));
        let mut actor = Actor::new(THREADS, false);
        let too_large = |bytes| Err(EncodeError::TooLarge { bytes, max: 1_020 });
        assert!(actor.kick_by(&truth, id, 1_020, |_| Ok(true)));
        assert!(!actor.kick_by(&truth, id, 1_021, too_large));
        actor.kick_by(&truth, id, 0, |_| Ok(false));
        assert!(!truth.is_broken());
        let said: Vec<_> = actor.deeds.farewells.iter().map(|said| said.accepted).collect();
        assert_eq!(said, [true, false]);
        actor.kick_by(&truth, id, 1_020, too_large);
        actor.kick_by(&truth, id, 1_021, |_| Ok(true));
        actor.kick_by(&truth, id, 1_021, |_| too_large(Farewell::new(0)));
        let rules: Vec<_> = truth.take_violations().iter().map(|broken| broken.rule).collect();
        assert_eq!(rules, [Rule::RefusalsAreTrue; 3]);
        actor.finish_by(&truth, SessionId::from_bits(10), || true);
        actor.send(&truth, SessionId::from_bits(10), 0, |_| Ok(()));
        assert!(truth.is_broken(), "accepted after this thread finished it");
    }

    #[test]
    fn a_frame_that_is_accepted_after_the_senders_own_close_is_seen() {
        let (truth, id) = (Truth::default(), SessionId::from_bits(9));
        let mut actor = Actor::new(THREADS, false);
        assert!(actor.send(&truth, id, 0, |_| Ok(())));
        actor.close_by(&truth, id, Close::Drain, || {});
        assert!(!actor.send(&truth, id, 0, |bytes| Err(SendError::Gone(bytes))));
        assert!(!truth.is_broken());
        actor.send(&truth, id, 0, |_| Ok(()));
        assert!(!actor.send(&truth, id, 0, |_| Err(SendError::Gone(vec![1]))));
        let rules: Vec<_> = truth.take_violations().iter().map(|broken| broken.rule).collect();
        assert_eq!(rules, [Rule::RefusalsAreTrue, Rule::FramesArriveWhole]);
        assert_eq!(actor.deeds.accepted[&9], 2);
    }
}
