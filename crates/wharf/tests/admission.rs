//! Who is let in, and to which worker.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

#[cfg(unix)]
use std::collections::HashMap;

use support::*;
use wharf::{Backend, Framing, Options};

on_every_backend! {
    fn no_more_than_sessions_max_are_let_in_and_the_others_are_closed_at_once(backend) {
        let options = Options { sessions_max: 10, ..one_worker() };
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
        let options = Options { workers: 4, ..Options::default() };
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
}
