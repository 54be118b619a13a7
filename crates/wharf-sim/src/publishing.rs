//! What the program does with groups. Each call is noted before and after.

use std::sync::Arc;
use std::time::Duration;

use wharf::{
    AsFrame, Close, CloseReason, Group, Handle, JoinError, Policy, PublishError, RoomError,
    Session, SessionId,
};

use crate::frames::Message;
use crate::publications::{PUBLISHERS, To};
use crate::rules::Rule;
use crate::truth::SharedTruth;

/// Publishes, and notes what became of it.
pub(crate) fn publish(truth: &SharedTruth, handle: &Handle, publisher: u32, to: To, bytes: usize) {
    publish_keyed(truth, handle, publisher, (to, None), bytes);
}

/// The same with a key, if it is for a group. False: it was refused.
pub(crate) fn publish_keyed(
    truth: &SharedTruth,
    handle: &Handle,
    publisher: u32,
    (to, key): (To, Option<u64>),
    bytes: usize,
) -> bool {
    let key = key.filter(|_| matches!(to, To::Members(_)));
    let number = truth.lock().publications.begins(publisher, to, key, bytes);
    let name = SessionId::from_bits(to.group());
    let frame = truth.write(Message { to: name, sender: publisher, number }, bytes);
    // Every third one is encoded before.
    let result = match (number % 3).checked_sub(2).map(|_| handle.encode(&frame)) {
        None => give(handle, to, key, &frame),
        Some(Ok(encoded)) => give(handle, to, key, encoded).map_err(|error| match error {
            PublishError::Full { waiting, max, .. } => {
                PublishError::Full { bytes: &frame, waiting, max }
            }
            PublishError::TooLarge { max, .. } => PublishError::TooLarge { bytes: &frame, max },
            _ => PublishError::Ending(&frame),
        }),
        Some(Err(error)) => Err(error.into()),
    };
    let mut truth = truth.lock();
    truth.publications.returns(publisher, number, result.is_ok());
    let Err(error) = result else { return true };
    let is_explained = match error {
        PublishError::Full { waiting, max, .. } => waiting <= max,
        // Larger than all that may wait.
        PublishError::TooLarge { max, .. } => frame.len() > max,
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
    false
}

fn give<F: AsFrame>(
    handle: &Handle,
    to: To,
    key: Option<u64>,
    frame: F,
) -> Result<(), PublishError<F>> {
    match (to, key) {
        (To::Members(group), Some(key)) => handle.publish_keyed(Group(group), key, frame),
        (To::Members(group), None) => handle.publish(Group(group), frame),
        (To::MembersBut(group, except), _) => handle.publish_except(Group(group), except, frame),
        (To::All, _) => handle.broadcast(frame),
    }
}

/// Waits until there is room to publish, or the senders are to stop. False: they are, or too many wait.
pub(crate) fn wait_to_publish(truth: &Arc<SharedTruth>, handle: &Handle) -> bool {
    const LOOK: Duration = Duration::from_millis(3);
    let wait = {
        let waits = &mut truth.lock().publish_waits;
        waits.push(None);
        waits.len() - 1
    };
    let shared = truth.clone();
    let told = move |room: Result<(), RoomError>| {
        let mut truth = shared.lock();
        let is_true = match room {
            Ok(()) => true,
            Err(RoomError::Ending) => truth.ending || truth.excuses.port_may_fail,
            Err(_) => false,
        };
        if truth.publish_waits[wait].replace(room.is_ok()).is_some() || !is_true {
            let what = format!("one that waits to publish was told {room:?}, perhaps again");
            truth.broken(Rule::RoomIsTold, Vec::new(), what);
        }
    };
    if handle.call_when_room_to_publish(told).is_err() {
        truth.lock().publish_waits[wait] = Some(false);
        return false;
    }
    loop {
        wharf::simulation::sleep(LOOK);
        let truth = truth.lock();
        if let Some(has_room) = truth.publish_waits[wait] {
            return has_room;
        }
        if truth.senders_end {
            return false;
        }
    }
}

/// Asks how many members a group has, and every other time who they are.
pub(crate) fn look(truth: &SharedTruth, handle: &Handle, group: u64) {
    let began = truth.lock().publications.now();
    let wrong = if began.is_multiple_of(2) {
        let count = handle.member_count(Group(group));
        truth.lock().publications.counted(group, began, count, None)
    } else {
        let ids = handle.members(Group(group));
        truth.lock().publications.named(group, began, &ids)
    };
    if let Some(what) = wrong {
        truth.lock().broken(Rule::MembershipsAreTrue, Vec::new(), what);
    }
}

/// In a callback of the session: it joins.
pub(crate) fn join(truth: &SharedTruth, session: &Session, group: u64, policy: Policy) {
    let id = session.id();
    let was_member = truth.lock().publications.joins(id, group, policy);
    let result = if policy == Policy::Close {
        session.handle().join(id, Group(group))
    } else {
        session.join_with(Group(group), policy)
    };
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
    let (was_member, began) = {
        let publications = &mut truth.lock().publications;
        (publications.leaves(id, group), publications.now())
    };
    let left = session.leave(Group(group));
    let mut truth = truth.lock();
    truth.publications.left(id, group);
    if left.is_some() != was_member {
        let what =
            format!("{id} left a group, it was a member: {was_member}, and it said: {left:?}");
        truth.broken(Rule::MembershipsAreTrue, vec![id.to_bits()], what);
    }
    let wrong = left.and_then(|left| truth.publications.counted(group, began, left, Some(id)));
    if let Some(what) = wrong {
        truth.broken(Rule::MembershipsAreTrue, vec![id.to_bits()], what);
    }
}

/// In `closed`: tells the others of a group that it has gone, as a chat would. It is in no group any more.
pub(crate) fn say_goodbye(truth: &SharedTruth, session: &Session, reason: CloseReason) {
    let id = session.id();
    let (group, peer) = {
        let truth = truth.lock();
        let peer = truth.sessions.get(&id).and_then(|session| session.peer);
        (truth.publications.groups_of(id).next(), peer)
    };
    if let Some(group) = group {
        look(truth, session.handle(), group);
        let left = session.leave(Group(group));
        if left.is_some() {
            let what = format!("{id} is in group {group} though it is closed: {left:?} are left");
            truth.lock().broken(Rule::MembershipsAreTrue, vec![id.to_bits()], what);
        }
    }
    if let (Some(group), Some(peer)) = (group, peer)
        && reason != CloseReason::Stopped
    {
        publish(truth, session.handle(), PUBLISHERS + peer, To::Members(group), 0);
        session.handle().close(id, Close::Stop); // which changes nothing any more
    }
}
