//! The gate before what many use and one ends (a port's sockets, for threads that send to them at once).
//!
//! Shown: nobody is inside when it has been shut, and who shuts it sees all that was done inside.

use std::sync::Arc;

use loom::thread;

use super::watched::Watched;
use super::{explore, join_all};
use crate::sync::{Gate, Mutex};

struct Model {
    gate: Gate,
    /// Those inside are one at a time, as a session's sends are.
    sends: Mutex<()>,
    socket: Watched,
}

const CLOSED: u64 = u64::MAX;

impl Model {
    fn send(&self) {
        let _one_at_a_time = self.sends.lock();
        if let Some(_inside) = self.gate.enter() {
            assert_ne!(self.socket.read(), CLOSED, "sent to a socket that had been closed");
            self.socket.write(self.socket.read() + 1);
        }
    }
}

#[test]
fn nobody_is_inside_when_it_has_been_shut() {
    explore("gate: two that send, one that ends", || {
        let model = Arc::new(Model {
            gate: Gate::default(),
            sends: Mutex::new(()),
            socket: Watched::new(0),
        });
        let senders = [(); 2].map(|()| {
            let model = model.clone();
            thread::spawn(move || model.send())
        });
        model.gate.shut(); // takes no lock that those who send hold
        assert!(model.socket.read() <= 2);
        model.socket.write(CLOSED);
        join_all(senders);
        assert_eq!(model.socket.read(), CLOSED);
    });
}
