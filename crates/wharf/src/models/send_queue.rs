//! Arming of the send queue: two threads push, a worker sends.
//!
//! Shown, for a port of one worker (a push that arms posts mail) and for a shared one (it posts the send
//! itself): everything that was pushed leaves without any further event (a frame left behind is a deadlock);
//! two sends are never outstanding (invariant 1); and one thread's frames leave in its order, also after
//! partial sends.

use std::io::IoSlice;
use std::sync::Arc;

use loom::thread;

use super::port::{ModelPort, REGISTRATION};
use super::{engine, explore, join_all};
use crate::buffer::SendBatch;
use crate::engine::{Engine, Mail};
use crate::face::Handle;
use crate::port::Anywhere;
use crate::session::{SessionId, Slot};

/// What the two threads push, one byte per frame.
const PUSHED: [&[u8]; 2] = [b"ab", b"x"];

struct Worker {
    engine: Arc<Engine>,
    port: Arc<ModelPort>,
    id: SessionId,
    /// What has left.
    wire: Vec<u8>,
    sends: usize,
}

impl Worker {
    fn new(is_shared: bool) -> Self {
        let (engine, port) = engine(is_shared, 1);
        let id = engine.admit(None, 0).unwrap();
        if is_shared {
            engine.ports[0].set_anywhere(Anywhere::Posts(port.clone()));
        }
        Worker { engine, port, id, wire: Vec::new(), sends: 0 }
    }

    fn spawn_pushers(&self) -> [thread::JoinHandle<()>; 2] {
        PUSHED.map(|frames| {
            let (handle, id) = (Handle::new(self.engine.clone()), self.id);
            thread::spawn(move || {
                for frame in frames.chunks(1) {
                    handle.send(id, frame).expect("there is room");
                }
            })
        })
    }

    fn serve(&mut self) {
        let engine = self.engine.clone();
        let (share, slot) = (&engine.ports[0], engine.table.held(self.id).unwrap());
        // As an arrival: from here on any thread may post its sends.
        slot.set_registration(Some(REGISTRATION.0));
        self.attend(slot);
        let mut mails = Vec::new();
        while self.wire.len() < PUSHED.concat().len() {
            let completed = if share.mailbox.may_sleep() { self.port.wait() } else { None };
            if let Some(batch) = completed {
                self.complete(slot, batch);
            }
            share.mailbox.take(&mut mails);
            for mail in mails.drain(..) {
                assert!(matches!(mail, Mail::Attend(id) if id == self.id), "{mail:?}");
                self.attend(slot);
            }
        }
    }

    /// As the worker posts a send.
    fn attend(&mut self, slot: &Slot) {
        if let Some(batch) = slot.begin_send(|| 0) {
            self.port.post(batch);
        }
    }

    /// As `Floor::sent`. One byte of the first send leaves, and all of the others.
    fn complete(&mut self, slot: &Slot, mut batch: Box<SendBatch>) {
        let mut slices = [IoSlice::new(&[])];
        assert_eq!(batch.gather(&mut slices), 1);
        let count = if self.sends == 0 { 1 } else { batch.bytes() };
        self.wire.extend(&slices[0][..count]);
        self.sends += 1;
        batch.advance(count);
        let sent = slot.send_queue.lock().sent(batch, count, 0, 0);
        assert!(!slot.count.lower(), "the session's own count is there");
        if sent.goes_on {
            self.attend(slot);
        }
    }
}

fn all_that_is_pushed_leaves_in_order(is_shared: bool) {
    let mut worker = Worker::new(is_shared);
    let pushers = worker.spawn_pushers();
    worker.serve();
    join_all(pushers);
    let wire = worker.wire;
    let position = |byte| wire.iter().position(|left| *left == byte).expect("it has left");
    assert!(wire.len() == 3 && position(b'a') < position(b'b'), "{wire:?}");
    position(b'x');
    let mut queue = worker.engine.table.held(worker.id).unwrap().send_queue.lock();
    assert!(!queue.is_sending() && queue.queued_bytes() == 0 && queue.take(|| 0).is_none());
}

#[test]
fn two_threads_push_and_their_worker_sends() {
    explore("send queue: two pushers, the port's own worker", || {
        all_that_is_pushed_leaves_in_order(false);
    });
}

#[test]
fn two_threads_push_and_post_to_a_shared_port() {
    explore("send queue: two pushers that post, a shared port", || {
        all_that_is_pushed_leaves_in_order(true);
    });
}
