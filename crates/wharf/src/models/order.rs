//! A draining close, behind what the same thread has published.
//!
//! One thread publishes, closes the session with a drain, and publishes once more. Another publishes, joins,
//! leaves or closes too. The session's worker processes its port's groups in the smallest shares, sends what
//! is queued, and releases the session when it has drained. Shown: what was published before the close has
//! left by then; what was published after it never leaves; the close always takes effect (a session that
//! waited forever for its place is a deadlock); and each publication leaves once, in its publisher's order.

use std::sync::Arc;

use loom::thread;

use super::worker::OwnWorker;
use super::{engine, explore, join_all};
use crate::close::Close;
use crate::engine::Engine;
use crate::engine::{Group, Share};
use crate::face::Handle;
use crate::session::SessionId;

const ROOM: Group = Group(1);
const ANOTHER: Group = Group(2);

const BEFORE: u8 = 1;
const AFTER: u8 = 2;
const OTHERS: u8 = 3;

type Act = fn(&Handle, SessionId);

fn spawn(engine: &Arc<Engine>, id: SessionId, act: Act) -> thread::JoinHandle<()> {
    let handle = Handle::new(engine.clone());
    thread::spawn(move || act(&handle, id))
}

/// What left of a member of the room until it was released.
fn a_member_is_closed<const N: usize>(acts: [Act; N]) -> Vec<u8> {
    let (engine, port) = engine(false, 1);
    let mut worker = OwnWorker::new(&engine, &port, 0);
    let id = worker.open();
    Handle::new(engine.clone()).join(id, ROOM).unwrap();
    worker.work_off(Share::everything());

    let threads = acts.map(|act| spawn(&engine, id, act));
    worker.serve();
    join_all(threads);
    let wire = worker.wire;
    let of = |frame| wire.iter().filter(|left| **left == frame).count();
    assert_eq!(of(BEFORE), 1, "published before the close, and lost: {wire:?}");
    assert_eq!(of(AFTER), 0, "published after the close: {wire:?}");
    assert!(of(OTHERS) <= 1, "{wire:?}");
    assert_eq!(engine.ports[0].assigned_sessions(), 0);
    wire
}

fn publish_close_publish(handle: &Handle, id: SessionId) {
    handle.publish(ROOM, [BEFORE]).unwrap();
    assert!(handle.close(id, Close::Drain));
    handle.publish(ROOM, [AFTER]).unwrap();
}

fn broadcast_close_broadcast(handle: &Handle, id: SessionId) {
    handle.broadcast([BEFORE]).unwrap();
    assert!(handle.close(id, Close::Drain));
    handle.broadcast([AFTER]).unwrap();
}

#[test]
fn what_was_published_before_a_close_leaves_and_nothing_after_it() {
    explore("order: publish, close, publish", || {
        a_member_is_closed([publish_close_publish]);
    });
}

#[test]
fn what_was_broadcast_before_a_close_leaves_and_nothing_after_it() {
    explore("order: broadcast, close, broadcast", || {
        a_member_is_closed([broadcast_close_broadcast]);
    });
}

#[test]
fn another_publisher_moves_no_close_from_its_place() {
    explore("order: publish, close; another publishes", || {
        a_member_is_closed([
            |handle, id| {
                handle.publish(ROOM, [BEFORE]).unwrap();
                assert!(handle.close(id, Close::Drain));
            },
            |handle, _| handle.publish(ROOM, [OTHERS]).unwrap(),
        ]);
    });
}

#[test]
fn another_that_joins_and_publishes_moves_no_close_from_its_place() {
    explore("order: publish, close; another joins elsewhere", || {
        a_member_is_closed([
            |handle, id| {
                handle.publish(ROOM, [BEFORE]).unwrap();
                assert!(handle.close(id, Close::Drain));
            },
            |handle, id| {
                let _ = handle.join(id, ANOTHER);
            },
        ]);
    });
}
