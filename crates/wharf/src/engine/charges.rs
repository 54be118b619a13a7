//! Tests: what sessions are charged for of the budget.

use super::engine::Engine;
use super::frame::Content;
use crate::close::{Close, CloseReason};
use crate::framing::Framing;
use crate::options::Options;
use crate::port::Sockets;
use crate::session::SessionId;

/// Linear congruential, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % u64::from(end)) as u32
    }
}

/// Whoever sends to them, whatever leaves, and when they end.
#[test]
fn a_port_is_charged_for_the_pages_of_its_sessions() {
    const SESSIONS: usize = 6;
    let options = Options::default().workers(2).with(|options| {
        options.sending.queue_bytes_max = 64 * 1024;
        options.sending.queued_bytes_max = Some(128 * 1024);
    });
    let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
    let admit = |_| engine.admit(None, 0).unwrap();
    let ids: [SessionId; SESSIONS] = std::array::from_fn(admit);
    let steps = if cfg!(miri) { 50 } else { 5_000 };
    let refused = std::thread::scope(|scope| {
        let senders = [1, 2].map(|seed| {
            let (engine, ids) = (&engine, &ids);
            scope.spawn(move || {
                let (mut random, mut refused) = (Random(seed), 0);
                for _ in 0..steps {
                    let id = ids[random.below(SESSIONS as u32) as usize];
                    let bytes = vec![7; random.below(40_000) as usize];
                    let sent = engine.try_send(id, Content::Plain(&bytes));
                    refused += usize::from(sent.is_err());
                }
                refused
            })
        });
        // Each worker sends what its sessions have, in parts.
        for port in 0..2 {
            let (engine, ids) = (&engine, &ids);
            scope.spawn(move || {
                let mut random = Random(port as u64 + 10);
                for _ in 0..steps {
                    let slot =
                        engine.table.held(ids[random.below(SESSIONS as u32) as usize]).unwrap();
                    if slot.port() != port {
                        continue;
                    }
                    let Some(mut batch) = slot.begin_send(|| 0) else { continue };
                    let count = random.below(batch.bytes() as u32 + 1) as usize;
                    batch.advance(count);
                    let sent = slot.send_queue.lock().sent(batch, count, 0, 64 * 1024);
                    engine.ports[port].budget.discharge(sent.freed_pages);
                    assert!(!slot.count.lower());
                }
            });
        }
        senders.map(|sender| sender.join().unwrap())
    });
    assert!(cfg!(miri) || refused.iter().all(|refused| *refused > 0), "{refused:?}");
    let charged = || [0, 1].map(|port: usize| engine.ports[port].budget.charged_pages());
    let waits = |port| {
        let queued = ids.map(|id| {
            let slot = engine.table.held(id).filter(|slot| slot.port() == port);
            slot.map_or(0, |slot| slot.send_queue.lock().pages())
        });
        queued.iter().sum::<u32>()
    };
    assert_eq!(charged(), [0, 1].map(waits));
    for id in ids {
        let slot = engine.table.held(id).unwrap();
        engine.ask_to_close(id, slot, CloseReason::Local, Close::Stop);
        engine.abandon(id);
    }
    assert_eq!(charged(), [0, 0]);
}
