//! Publications to the sessions of two ports, against each other and against the server's end.
//!
//! Shown: both ports have all publications in the same order, which includes each publisher's order; what was
//! published before the server's drain was requested is handed over at both ports before their sessions are
//! asked to end; and a stop cuts the order off at some place of each port, and leaves no gap in it.

use std::sync::Arc;

use loom::thread;

use super::port::ModelPort;
use super::worker::OwnWorker;
use super::{explore, join_all, ports};
use crate::CloseReason;
use crate::close::Close;
use crate::engine::{Engine, Mail};
use crate::engine::{Group, Share};
use crate::face::Handle;
use crate::session::SessionId;

const ROOM: Group = Group(1);

/// A port's worker and its only session, which is in the room.
struct Port {
    engine: Arc<Engine>,
    index: usize,
    worker: OwnWorker,
    id: SessionId,
}

impl Port {
    fn new(engine: &Arc<Engine>, port: &Arc<ModelPort>, index: usize) -> Self {
        let mut worker = OwnWorker::new(engine, port, index);
        let id = worker.open();
        Handle::new(engine.clone()).join(id, ROOM).unwrap();
        worker.work_off(Share::everything());
        worker.mail(); // the join's mail
        Port { engine: engine.clone(), index, worker, id }
    }

    /// Hands over publications until the server ends.
    fn serve_until_the_end(&mut self) {
        loop {
            for mail in self.worker.mail() {
                match mail {
                    Mail::Groups => self.worker.work_off(Share::of_a_turn(4, 1)),
                    Mail::Drain => {
                        self.worker.work_off(Share::everything());
                        return self.end(CloseReason::Drained, Close::Drain);
                    }
                    Mail::Stop => return self.end(CloseReason::Stopped, Close::Stop),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn end(&self, reason: CloseReason, how: Close) {
        let mut asked = Vec::new();
        self.engine.ask_all_to_close(self.index, reason, how, |id, was_last| {
            assert!(!was_last, "every session has its own count");
            asked.push(id);
        });
        assert_eq!(asked, [self.id]);
    }

    /// What was handed over.
    fn handed(mut self) -> Vec<u8> {
        self.worker.send(self.engine.table.held(self.id).unwrap());
        self.worker.wire
    }
}

fn two_ports() -> (Arc<Engine>, [Port; 2]) {
    let (engine, [first, second]) = ports(2);
    let ports = [Port::new(&engine, &first, 0), Port::new(&engine, &second, 1)];
    (engine, ports)
}

#[test]
fn two_publishers_have_one_order_at_both_ports() {
    explore("two ports: two publishers", || {
        let (engine, [mut first, mut second]) = two_ports();
        let publishers: [fn(&Handle); 2] = [
            |handle| {
                handle.publish(ROOM, [1]).unwrap();
                handle.broadcast([2]).unwrap();
            },
            |handle| handle.publish(ROOM, [3]).unwrap(),
        ];
        let publishers = publishers.map(|publish| {
            let handle = Handle::new(engine.clone());
            thread::spawn(move || publish(&handle))
        });
        // This port's worker takes what comes in small shares, the other's only all of it.
        first.worker.work_off(Share::of_a_turn(4, 1));
        join_all(publishers);
        for port in [&mut first, &mut second] {
            port.worker.work_off(Share::everything());
        }
        let (first, second) = (first.handed(), second.handed());
        assert_eq!(first, second, "the ports have not the same order");
        assert!([[1, 2, 3], [1, 3, 2], [3, 1, 2]].contains(&first[..].try_into().unwrap()));
    });
}

fn the_end_of_both_ports(act: fn(&Handle)) -> [Vec<u8>; 2] {
    let (engine, [mut first, mut second]) = two_ports();
    let publisher = thread::spawn({
        let handle = Handle::new(engine);
        move || act(&handle)
    });
    let of_second = thread::spawn(move || {
        second.serve_until_the_end();
        second.handed()
    });
    first.serve_until_the_end();
    publisher.join().unwrap();
    [first.handed(), of_second.join().unwrap()]
}

#[test]
fn what_was_published_before_a_drain_is_handed_over_at_both_ports() {
    explore("two ports: publish, broadcast, drain", || {
        let handed = the_end_of_both_ports(|handle| {
            handle.publish(ROOM, [1]).unwrap();
            handle.broadcast([2]).unwrap();
            handle.engine().drain();
            assert!(handle.publish(ROOM, [3]).is_err());
        });
        assert_eq!(handed, [[1, 2], [1, 2]]);
    });
}

#[test]
fn a_stop_leaves_no_hole_in_the_order_of_either_port() {
    explore("two ports: publish, broadcast, stop", || {
        let handed = the_end_of_both_ports(|handle| {
            handle.publish(ROOM, [1]).unwrap();
            handle.broadcast([2]).unwrap();
            handle.stop();
        });
        assert!(handed.iter().all(|handed| [1, 2].starts_with(handed)), "{handed:?}");
    });
}
