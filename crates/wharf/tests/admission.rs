//! Who is let in, and to which worker.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

#[cfg(unix)]
use std::collections::HashMap;
#[cfg(any(target_os = "linux", windows))]
use std::io::Write;
#[cfg(any(target_os = "linux", windows))]
use std::net::TcpStream;
#[cfg(any(target_os = "linux", windows))]
use std::sync::{Mutex, mpsc};
#[cfg(target_os = "linux")]
use std::time::Duration;

use support::*;
use wharf::{Backend, Error, Framing, Options, Server};

on_every_backend! {
    fn no_more_than_sessions_max_are_let_in_and_the_others_are_closed_at_once(backend) {
        let options = one_worker().with(|options| {
options.sessions.max = 10;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let mut peers: Vec<_> = (0..10).map(|_| harness.connect()).collect();
        for peer in &peers {
            round_trip(peer, b"in");
        }
        for refused in 1..=5 {
            wait_ended(&harness.connect());
            eventually("it is counted", || harness.handle.stats().refused == refused);
        }
        let stats = harness.handle.stats();
        assert_eq!((stats.opened, stats.live, stats.accepted), (10, 10, 15));

        drop(peers.pop());
        eventually("one has left", || harness.handle.stats().live == 9);
        round_trip(&harness.connect(), b"in again");
        for peer in &peers {
            round_trip(peer, b"still in");
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    /// Not where all workers share a port: there any of them takes the next completion.
    #[cfg(unix)]
    fn a_thousand_sessions_are_spread_over_the_workers_evenly(backend) {
        let _alone = alone();
        let options = Options::default().workers(4);
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let spread = |log: &Log| -> Vec<usize> {
            let mut by_worker = HashMap::new();
            log.look(|ledger| {
                for record in ledger.records.values().filter(|r| r.opened && r.closed.is_none()) {
                    *by_worker.entry(record.worker.clone()).or_insert(0) += 1;
                }
            });
            by_worker.into_values().collect()
        };
        let mut peers: Vec<_> = (0..1000).map(|_| harness.connect()).collect();
        for peer in &peers {
            round_trip(peer, b"in");
        }
        let loads = spread(&harness.log);
        println!("{loads:?}");
        assert_eq!(loads.len(), 4);
        assert!(loads.iter().all(|load| (225..=275).contains(load)), "{loads:?}");

        // All of one worker's leave, and as many come: they go where there is room.
        let ids = harness.log.look(|ledger| ledger.ids.clone());
        let mut nth = 0;
        peers.retain(|_| {
            nth += 1;
            harness.log.record(ids[nth - 1]).worker != "wharf-2"
        });
        let left = peers.len() as u64;
        eventually("they have left", || harness.handle.stats().live == left);
        peers.extend((left..1000).map(|_| harness.connect()));
        for peer in &peers {
            round_trip(peer, b"in");
        }
        let loads = spread(&harness.log);
        assert_eq!(loads.len(), 4);
        assert!(loads.iter().all(|load| (225..=275).contains(load)), "{loads:?}");
        drop(peers);
        harness.settle();
        harness.finish();
    }

    /// Each worker has a listener of its own where the system shares out what connects among them, and
    /// where all share a port any of them takes what was accepted.
    #[cfg(any(target_os = "linux", windows))]
    fn a_handler_that_blocks_keeps_no_other_worker_from_accepting(backend) {
        let (blocked, is_blocked) = mpsc::channel();
        let (let_go, waits) = mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let behaviour = Behaviour::echo().on_received(move |session, frame| {
            if frame == b"block" {
                blocked.send(()).unwrap();
                let _ = lock(&waits).recv();
            }
            session.send(frame);
        });
        let options = Options::default().workers(2);
        let harness = start(backend, Framing::raw(), options, behaviour);
        let first = |peer: &TcpStream| {
            let address = peer.local_addr().ok();
            harness.log.look(|ledger| {
                let mut records = ledger.records.values();
                records.any(|r| r.peer_address == address && r.worker == "wharf-0")
            })
        };
        let candidates: Vec<_> = (0..32).map(|_| harness.connect()).collect();
        for candidate in &candidates {
            round_trip(candidate, b"in");
        }
        let mut blocking = candidates.iter().find(|peer| first(peer)).unwrap();
        blocking.write_all(b"block").unwrap();
        is_blocked.recv_timeout(BOUND).unwrap();

        // Of these about half come to the other worker: none of them once in 2^64 times.
        let peers: Vec<_> = (0..64).map(|_| harness.connect()).collect();
        for mut peer in &peers {
            peer.write_all(b"in").unwrap();
        }
        let served = |ledger: &Ledger| ledger.records.values().filter(|r| r.frame_count > 0).count();
        eventually("one is served", || harness.log.look(served) > candidates.len());
        let_go.send(()).unwrap();
        for peer in &peers {
            assert_same(&read(peer, 2), b"in");
        }
        assert_same(&read(blocking, 5), b"block");
        drop((candidates, peers));
        harness.settle();
        harness.finish();
    }

    /// It had the fewest sessions, since it accepts none, and so was given what the other had accepted. What
    /// the system itself gives to its listener waits in any case.
    #[cfg(target_os = "linux")]
    fn no_newcomer_that_another_worker_has_accepted_waits_for_one_that_is_blocked(backend) {
        let _alone = alone();
        let (blocked, is_blocked) = mpsc::channel();
        let (let_go, waits) = mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let behaviour = Behaviour::echo().on_received(move |session, frame| {
            if frame == b"block" {
                blocked.send(()).unwrap();
                let _ = lock(&waits).recv();
            }
            session.send(frame);
        });
        let options = Options::default().workers(2);
        let harness = start(backend, Framing::raw(), options, behaviour);
        let worker_of = |peer: &TcpStream| {
            let address = peer.local_addr().ok();
            harness.log.look(|ledger| {
                let mut records = ledger.records.values();
                let record = records.find(|record| record.peer_address == address);
                record.map(|record| record.worker.clone()).unwrap()
            })
        };
        let candidates: Vec<_> = (0..32).map(|_| harness.connect()).collect();
        for candidate in &candidates {
            round_trip(candidate, b"in");
        }
        let of = |worker| candidates.iter().find(|peer| worker_of(peer) == worker).unwrap();
        let (mut blocking, witness) = (of("wharf-0"), of("wharf-1"));
        blocking.write_all(b"block").unwrap();
        is_blocked.recv_timeout(BOUND).unwrap();
        std::thread::sleep(Duration::from_millis(200)); // so long that it counts as blocked

        let peers: Vec<_> = (0..400).map(|_| harness.connect()).collect();
        for mut peer in &peers {
            peer.write_all(b"in").unwrap();
        }
        // The other has accepted all that it will, once it accepts none in two turns.
        let accepted = || harness.handle.stats().accepted;
        let mut before = (u64::MAX, u64::MAX);
        while before != (accepted(), accepted()) {
            before = (before.1, accepted());
            round_trip(witness, b"a turn");
        }
        let accepted = accepted() as usize - candidates.len();
        let served = |ledger: &Ledger| {
            ledger.records.values().filter(|record| record.opened).count() - candidates.len()
        };
        let served = harness.log.look(served);
        println!("{backend}: of 400 newcomers {accepted} were accepted, {served} are served");
        assert!(accepted > 100, "{accepted}");
        assert_eq!(served, accepted, "the others wait for the blocked worker");

        let_go.send(()).unwrap();
        for peer in &peers {
            assert_same(&read(peer, 2), b"in");
        }
        assert_same(&read(blocking, 5), b"block");
        drop((candidates, peers));
        harness.settle();
        harness.finish();
    }

    /// Although its own listeners share theirs.
    fn an_address_is_listened_on_by_one_server_only(backend) {
        let options = Options::default().workers(2).backend(backend);
        let harness = start(backend, Framing::raw(), options.clone(), Behaviour::echo());
        let address = harness.server.addresses()[0];
        let second = Server::builder().listen(address).options(options);
        let refused = second.start(Nobody);
        assert!(matches!(refused, Err(Error::Listen { .. })), "{refused:?}");
        round_trip(&harness.connect(), b"still here");
        harness.settle();
        harness.finish();
    }
}
