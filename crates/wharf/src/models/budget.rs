//! The budget: two ports that draw from it and give back, and a send that is refused while there is room again.
//!
//! Shown: whatever the order, nothing of the budget is lost or used twice; and whoever was refused is told, or the
//! port is still out, so that its worker looks again.

use std::sync::Arc;

use loom::thread;

use super::{explore, join_all};
use crate::buffer::PAGE_BYTES;
use crate::engine::{Budget, LEASE_BYTES, PortBudget};
use crate::sync::Mutex;

const LEASE: u32 = (LEASE_BYTES / PAGE_BYTES) as u32;

fn ports(pages: u32) -> [Arc<PortBudget>; 2] {
    let server = Budget::of_bytes(pages as usize * PAGE_BYTES);
    [(); 2].map(|()| PortBudget::new(server.clone()))
}

#[test]
fn two_ports_never_use_more_than_there_is_and_lose_nothing() {
    explore("budget: two ports that charge and discharge", || {
        let all = ports(LEASE + 1);
        let threads = all.clone().map(|port| {
            thread::spawn(move || {
                let is_charged = port.charge(LEASE, |_| false);
                if is_charged {
                    port.discharge(LEASE);
                }
                is_charged
            })
        });
        let charged = join_all(threads);
        assert!(charged.contains(&true), "the first finds room");
        assert!(PortBudget::adds_up(all.iter().map(|port| &**port)));
        assert_eq!(all.each_ref().map(|port| port.charged_pages()), [0, 0]);
        all[0].ask();
        all[1].ask();
        assert!(all.iter().all(|port| port.take_asked()), "all is given back");
        assert!(all[1].charge(LEASE + 1, |_| false), "and all of it can be had by one");
    });
}

#[test]
fn who_is_refused_while_there_is_room_again_is_told_or_will_be() {
    explore("budget: a refused send, and the worker that finds room", || {
        let [port, _] = ports(2);
        assert!(port.charge(2, |_| false));
        let is_short = Arc::new(Mutex::new(false));
        // As a send queue does it, under its lock.
        let sender = {
            let (port, is_short) = (port.clone(), is_short.clone());
            thread::spawn(move || {
                let mut is_short = is_short.lock();
                if !port.charge(1, |_| false) {
                    *is_short = true;
                    port.send_was_refused();
                }
            })
        };
        let worker = {
            let (port, is_short) = (port.clone(), is_short.clone());
            thread::spawn(move || {
                port.discharge(2);
                if port.is_out() && port.recovers() == Some(true) {
                    *is_short.lock() = false;
                }
            })
        };
        join_all([sender, worker]);
        let waits = *is_short.lock();
        assert!(!waits || port.is_out(), "nobody would look again");
    });
}
