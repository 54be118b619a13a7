//! What the program does with groups, each call noted before it and after.

use wharf::{Close, CloseReason, Group, Handle, JoinError, PublishError, Session, SessionId};

use crate::frames::Message;
use crate::publications::{PUBLISHERS, To};
use crate::rules::Rule;
use crate::truth::SharedTruth;

/// Publishes, and notes what became of it.
pub(crate) fn publish(truth: &SharedTruth, handle: &Handle, publisher: u32, to: To, bytes: usize) {
    let number = truth.lock().publications.begins(publisher, to);
    let name = SessionId::from_bits(to.group());
    let frame = Message { to: name, sender: publisher, number }.write(bytes);
    let result = match to {
        To::Members(group) => handle.publish(Group(group), &frame),
        To::MembersBut(group, except) => handle.publish_except(Group(group), except, &frame),
        To::All => handle.broadcast(&frame),
    };
    let mut truth = truth.lock();
    truth.publications.returns(publisher, number, result.is_ok());
    let Err(error) = result else { return };
    let is_explained = match error {
        PublishError::Full { waiting, max, .. } => waiting <= max,
        PublishError::Ending(_) => truth.ending || truth.excuses.port_may_fail,
        _ => false,
    };
    if !is_explained {
        let what = format!("a publication was refused: {error}");
        truth.broken(Rule::GoneIsGone, Vec::new(), what);
    }
    if error.into_inner() != &frame {
        let what = "another frame than was published came back".to_owned();
        truth.broken(Rule::FramesArriveWhole, Vec::new(), what);
    }
}

/// In a callback of the session: it joins.
pub(crate) fn join(truth: &SharedTruth, session: &Session, group: u64) {
    let id = session.id();
    let was_member = truth.lock().publications.joins(id, group);
    let result = session.handle().join(id, Group(group));
    let mut truth = truth.lock();
    let count = truth.publications.joined(id, group, was_member, result.is_ok());
    match result {
        Ok(is_new) if is_new != was_member => {}
        Err(JoinError::TooManyGroups { max }) if !was_member && count > max as usize => {}
        Err(JoinError::Full { .. }) => {}
        Err(JoinError::Gone) => truth.found_gone(id),
        answer => {
            let what =
                format!("{id}, a member: {was_member}, of {count} groups, joins: {answer:?}");
            truth.broken(Rule::MembershipsAreTrue, vec![id.to_bits()], what);
        }
    }
}

/// In a callback of the session: it leaves.
pub(crate) fn leave(truth: &SharedTruth, session: &Session, group: u64) {
    let id = session.id();
    let was_member = truth.lock().publications.leaves(id, group);
    let left = session.handle().leave(id, Group(group));
    let mut truth = truth.lock();
    truth.publications.left(id, group);
    if left != was_member {
        let what = format!("{id} left a group, it was a member: {was_member}, and it said: {left}");
        truth.broken(Rule::MembershipsAreTrue, vec![id.to_bits()], what);
    }
}

/// In `closed`: tells the others of a group that it has gone, as a chat would.
pub(crate) fn say_goodbye(truth: &SharedTruth, session: &Session, reason: CloseReason) {
    let id = session.id();
    let (group, peer) = {
        let truth = truth.lock();
        let peer = truth.sessions.get(&id).and_then(|session| session.peer);
        (truth.publications.groups_of(id).next(), peer)
    };
    if let (Some(group), Some(peer)) = (group, peer)
        && reason != CloseReason::Stopped
    {
        publish(truth, session.handle(), PUBLISHERS + peer, To::Members(group), 0);
        session.handle().close(id, Close::Stop); // which changes nothing any more
    }
}
