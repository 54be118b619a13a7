//! Two threads wait for room in a send queue, while what is queued leaves, or the session closes.
//!
//! Shown: each is told, without any further event (one that is not told is a deadlock), and nobody is told that
//! there is no room while the session takes frames.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Wake;

use loom::thread;

use super::{engine, explore};
use crate::close::{Close, CloseReason};
use crate::engine::{Engine, Follows, Mail};
use crate::error::RoomError;
use crate::face::Handle;
use crate::session::{SessionId, Wakes};
use crate::sync::{Condvar, Mutex};

/// A task's thread sleeps until it is woken.
#[derive(Default)]
struct Sleeper {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock() = true;
        self.woken.notify_one();
    }
}

/// Waits until the whole queue is free, as a task does.
fn wait_for_room(engine: &Engine, id: SessionId) -> Result<(), RoomError> {
    let (sleeper, mut key) = (Arc::new(Sleeper::default()), None);
    loop {
        let wakes = Wakes::Task(sleeper.clone().into());
        key = match engine.look_for_room(id, usize::MAX, key, wakes)? {
            None => return Ok(()),
            waits => waits,
        };
        let mut is_woken = sleeper.is_woken.lock();
        while !*is_woken {
            is_woken = sleeper.woken.wait(is_woken).expect("no thread has failed");
        }
        *is_woken = false;
    }
}

/// The session's worker: one send completes, and so many requests to attend come.
fn serve(engine: &Engine, port: &super::port::ModelPort, id: SessionId, requests: usize) {
    let (share, slot) = (&engine.ports[0], engine.table.held(id).unwrap());
    let max = engine.options.sending.queue_bytes_max;
    let tell = || {
        let told = slot.send_queue.lock().take_told(max);
        told.calls().for_each(|call| call());
    };
    let (mut mails, mut attended, mut has_left) = (Vec::new(), 0, false);
    while attended < requests || !has_left {
        let completed = if share.mailbox.may_sleep() { port.wait() } else { None };
        if let Some(mut batch) = completed {
            let mut slices = [IoSlice::new(&[])];
            assert_eq!(batch.gather(&mut slices), 1);
            let count = batch.bytes();
            batch.advance(count);
            let sent = slot.send_queue.lock().sent(batch, count, 0, max);
            assert!(!slot.count.lower(), "the session's own count is there");
            has_left = true;
            if sent.has_wanted_room {
                tell();
            }
        }
        share.mailbox.take(&mut mails);
        for mail in mails.drain(..) {
            assert!(matches!(mail, Mail::Attend(_)), "{mail:?}");
            attended += 1;
            tell();
        }
    }
}

/// An engine with one session, of which a byte is being sent.
fn with_a_send() -> (Arc<Engine>, Arc<super::port::ModelPort>, SessionId) {
    let (engine, port) = engine(false, 1);
    let id = engine.admit(None, 0).unwrap();
    Handle::new(engine.clone()).send(id, b"a").expect("there is room");
    engine.ports[0].mailbox.take(&mut Vec::new()); // the request to send it
    port.post(engine.table.held(id).unwrap().begin_send(|| 0).unwrap());
    (engine, port, id)
}

#[test]
fn both_are_told_of_the_room_that_a_completion_makes() {
    explore("room: two that wait, a completion", || {
        let (engine, port, id) = with_a_send();
        let waiters = [(); 2].map(|()| {
            let engine = engine.clone();
            thread::spawn(move || wait_for_room(&engine, id))
        });
        serve(&engine, &port, id, 0);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
    });
}

#[test]
fn one_that_waits_is_told_of_room_or_of_a_close() {
    explore("room: one that waits, a completion, a close", || {
        let (engine, port, id) = with_a_send();
        let waiter = {
            let engine = engine.clone();
            thread::spawn(move || wait_for_room(&engine, id))
        };
        let closer = {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.with_session(id, |slot| {
                    let changed = engine.ask_to_close(id, slot, CloseReason::Local, Close::Drain);
                    ((), Follows { changed, ..Follows::default() })
                });
            })
        };
        serve(&engine, &port, id, 1);
        closer.join().unwrap();
        // Which of the two it sees first is open.
        let _either = waiter.join().unwrap();
        assert_eq!(wait_for_room(&engine, id), Err(RoomError::Gone));
    });
}
