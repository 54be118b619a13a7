//! The last members of a group leave it at once, over two ports.
//!
//! Shown: each that leaves learns how many are left, and at least one of the last learns that none is, whether
//! it leaves or its session is released and looks in `closed`; and who asks for the members meanwhile gets those
//! that stay, and no deadlock with the worker that works off the requests.

use std::sync::Arc;

use loom::thread;

use super::worker::OwnWorker;
use super::{explore, join_all, ports};
use crate::engine::{Engine, Group, Share};
use crate::face::Handle;
use crate::session::{Policy, SessionId};

const ROOM: Group = Group(1);

/// A member at each port; what they asked for waits there.
fn members() -> (Arc<Engine>, [OwnWorker; 2], [SessionId; 2]) {
    let (engine, [first, second]) = ports(2);
    let workers = [OwnWorker::new(&engine, &first, 0), OwnWorker::new(&engine, &second, 1)];
    let ids = [workers[0].open(), workers[1].open()];
    for id in ids {
        assert_eq!(Handle::new(engine.clone()).join(id, ROOM), Ok(true));
    }
    (engine, workers, ids)
}

/// As the release of a session, whose `closed` then looks.
fn release(engine: &Engine, id: SessionId) -> usize {
    let slot = engine.table.held(id).unwrap();
    engine.end_memberships(id, slot);
    engine.member_count(ROOM)
}

fn leave(engine: &Engine, id: SessionId) -> usize {
    engine.leave(id, ROOM).expect("it was a member")
}

fn the_last_are_gone(ways: [fn(&Engine, SessionId) -> usize; 2]) {
    let (engine, _workers, ids) = members();
    let threads = [0, 1].map(|at: usize| {
        let (engine, id, way) = (engine.clone(), ids[at], ways[at]);
        thread::spawn(move || way(&engine, id))
    });
    let left = join_all(threads);
    assert!(left.contains(&0) && left.iter().all(|left| *left < 2), "{left:?} are left");
    assert_eq!(engine.member_count(ROOM), 0);
    assert_eq!(engine.members(ROOM), []);
}

#[test]
fn of_two_that_leave_at_once_one_finds_the_group_empty() {
    explore("last member: two leave", || the_last_are_gone([leave, leave]));
}

#[test]
fn of_one_that_leaves_and_one_that_ends_one_finds_the_group_empty() {
    explore("last member: one leaves, one ends", || the_last_are_gone([leave, release]));
}

#[test]
fn of_two_that_end_at_once_one_finds_the_group_empty() {
    explore("last member: two end", || the_last_are_gone([release, release]));
}

#[test]
fn whoever_asks_for_the_members_gets_those_that_stay_while_requests_are_worked_off() {
    explore("last member: one leaves, one asks, a worker", || {
        let (engine, [mut worker, _], [stays, leaves]) = members();
        // Both at one port is what its lock is for.
        let leaving = thread::spawn({
            let engine = engine.clone();
            move || {
                assert_eq!(engine.leave(stays, ROOM), Some(1));
                assert_eq!(engine.join(stays, ROOM, Policy::Close), Ok(true));
            }
        });
        let asking = thread::spawn({
            let engine = engine.clone();
            move || engine.members(ROOM)
        });
        worker.work_off(Share::of_a_turn(4, 1));
        worker.work_off(Share::everything());
        leaving.join().unwrap();
        let members = asking.join().unwrap();
        assert!(members == [leaves] || members == [stays, leaves], "{members:?}");
        worker.work_off(Share::everything());
        assert_eq!(engine.members(ROOM), [stays, leaves]);
        assert_eq!(engine.member_count(ROOM), 2);
    });
}
