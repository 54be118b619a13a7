//! Joins, leaves and publications against the release of their session.
//!
//! One thread joins a session to a group and publishes to it. Another leaves it and closes the session, whose
//! worker releases it and reuses the slot at once. Shown: in every order the group is gone when all requests
//! are processed, and the next session in the slot is no member and gets nothing.

use loom::thread;

use super::worker::OwnWorker;
use super::{engine, explore, join_all};
use crate::close::Close;
use crate::engine::{Group, Share};
use crate::face::Handle;
use crate::session::SessionId;

const ROOM: Group = Group(1);

type Act = fn(&Handle, SessionId);

fn a_member_is_released(acts: [Act; 2]) {
    let (engine, port) = engine(false, 1);
    let mut worker = OwnWorker::new(&engine, &port, 0);
    let id = worker.open();
    let threads = acts.map(|act| {
        let handle = Handle::new(engine.clone());
        thread::spawn(move || act(&handle, id))
    });
    worker.serve();
    let next = worker.open();
    assert_eq!(next.index(), id.index());
    join_all(threads);
    worker.work_off(Share::everything());
    let slot = engine.table.held(next).unwrap();
    assert!(!slot.is_in_groups());
    assert_eq!(slot.send_queue.lock().queued_bytes(), 0, "it gets what was meant for another");
    assert!(engine.ports[0].groups.has_no_members(), "a member has outlived its session");
    assert!(Handle::new(engine.clone()).join(next, ROOM).unwrap(), "it is a member already");
}

fn join_and_publish(handle: &Handle, id: SessionId) {
    let _ = handle.join(id, ROOM); // unless it is closing
    handle.publish(ROOM, [1]).unwrap();
}

#[test]
fn whoever_joins_while_the_session_is_closed_leaves_no_member_behind() {
    explore("members: join, publish; a close", || {
        a_member_is_released([join_and_publish, |handle, id| {
            assert!(handle.close(id, Close::Stop));
        }]);
    });
}

#[test]
fn whoever_leaves_meanwhile_takes_nothing_from_anyone_else() {
    explore("members: join, publish; leave, close", || {
        a_member_is_released([join_and_publish, |handle, id| {
            handle.leave(id, ROOM);
            assert!(handle.close(id, Close::Stop));
        }]);
    });
}
