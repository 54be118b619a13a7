//! A gate in front of what some threads use and one ends (a port's socket, for threads that send directly).
//!
//! Shown: when it has been shut, no thread is inside; the thread that shut it sees everything done inside;
//! and at most one thread is inside at a time.

use std::sync::Arc;

use loom::thread;

use super::watched::Watched;
use super::{explore, join_all};
use crate::sync::Gate;

struct Model {
    gate: Gate,
    socket: Watched,
}

const CLOSED: u64 = u64::MAX;

impl Model {
    /// True: it was inside.
    fn send(&self) -> bool {
        let Some(_inside) = self.gate.enter() else { return false };
        assert_ne!(self.socket.read(), CLOSED, "sent to a socket that had been closed");
        self.socket.write(self.socket.read() + 1);
        true
    }
}

#[test]
fn nobody_is_inside_when_it_has_been_shut() {
    explore("gate: two that send, one that ends", || {
        let model = Arc::new(Model { gate: Gate::default(), socket: Watched::new(0) });
        model.gate.open(7);
        let senders = [(); 2].map(|()| {
            let model = model.clone();
            thread::spawn(move || model.send())
        });
        model.gate.shut();
        let sent = model.socket.read();
        model.socket.write(CLOSED);
        let entered = join_all(senders).into_iter().filter(|sent| *sent).count() as u64;
        assert_eq!(entered, sent, "each that was inside was seen");
        assert_eq!(model.socket.read(), CLOSED);
    });
}
