//! The walk over a port's sessions, against a slot that passes between ports meanwhile.
//!
//! A slot rests, marked with port 0. A thread takes it for a session of port 1, whose worker opens that,
//! releases it, and takes the slot for a session of port 0. Meanwhile port 0's worker hands over a broadcast.
//! Shown: its walk never yields the session of port 1, which gets nothing; each id that it yields is a
//! session of port 0, and either finds the slot or is gone; and a session that exists throughout is yielded
//! once.

use std::sync::Arc;

use loom::thread;

use super::port::ModelPort;
use super::worker::OwnWorker;
use super::{explore, ports};
use crate::engine::{Content, Engine, Mail};
use crate::session::SessionId;

/// Another thread's part: it accepts for port 1.
fn admit_for_port_1(engine: &Engine) {
    let id = engine.admit(Some(1), 0).expect("the slot is free");
    engine.ports[1].mailbox.post(Mail::Attend(id)).expect("its worker has not ended");
}

/// Port 1's worker: opens the session, ends it, and accepts one for port 0.
fn serve_port_1(engine: &Arc<Engine>, port: &Arc<ModelPort>) -> SessionId {
    let [Mail::Attend(id)] = OwnWorker::new(engine, port, 1).mail()[..] else { unreachable!() };
    let slot = engine.table.held(id).unwrap();
    assert_eq!(slot.port(), 1);
    slot.set_opened();
    assert_eq!(slot.send_queue.lock().queued_bytes(), 0, "port 0 has touched it");
    assert!(slot.count.lower());
    engine.release(id, 1);
    let next = engine.admit(Some(0), 0).expect("the slot is free");
    assert_eq!(engine.table.held(next).unwrap().port(), 0);
    next
}

fn a_slot_passes_from_port_to_port(sessions_beside: u32) {
    let (engine, [port_0, port_1]) = ports(1 + sessions_beside);
    let mut worker = OwnWorker::new(&engine, &port_0, 0);
    let beside: Vec<_> = (0..sessions_beside).map(|_| worker.open()).collect();
    let first = worker.open();
    assert!(engine.table.held(first).unwrap().count.lower());
    engine.release(first, 0);

    let acceptor = thread::spawn({
        let engine = engine.clone();
        move || admit_for_port_1(&engine)
    });
    let owner = thread::spawn({
        let engine = engine.clone();
        move || serve_port_1(&engine, &port_1)
    });
    let frame = engine.encode(Content::Plain(b"x")).unwrap();
    let mut named = Vec::new();
    for id in engine.table.sessions_of(0) {
        named.push(id);
        worker.hand_over_to(id, &frame, true);
    }
    acceptor.join().unwrap();
    let next = owner.join().unwrap();
    assert_eq!(next, SessionId::new(first.index(), first.generation() + 2));
    named.retain(|id| *id != next); // it may have come in time
    assert_eq!(named, beside);
    for id in beside {
        let queue = engine.table.held(id).unwrap().send_queue.lock();
        assert_eq!(queue.queued_bytes(), 1);
    }
    let queue = engine.table.held(next).unwrap().send_queue.lock();
    assert_eq!(queue.queued_bytes(), 0, "it is not open");
}

#[test]
fn a_walk_names_no_session_of_another_port() {
    explore("walk: a broadcast, a slot that passes between ports", || {
        a_slot_passes_from_port_to_port(0);
    });
}

#[test]
fn a_walk_names_a_session_that_stands_beside_it_once() {
    explore("walk: the same beside a session that stands", || {
        a_slot_passes_from_port_to_port(1);
    });
}
