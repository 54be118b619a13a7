//! The receive half: taken, asked for, lent to a receive, and cancelled to have it back (invariant 2).
//!
//! Two threads each want something of a session whose peer is quiet, while a third serves its port. The
//! receive completes only if it is cancelled, so a request that nobody sees would wait for ever, which
//! is a deadlock. Shown: the half is in one hand at a time, whoever has it sees what its last holder
//! did, and every request is answered: by the asker, by the holder that finds the mark when it gives
//! the half back or would lend it, or by the completion of the receive that was cancelled.

use std::sync::Arc;

use loom::thread;

use super::{explore, join_all};
use crate::session::{Asked, HalfInHand, HalfTable};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};

const REQUESTS: usize = 2;

/// What only the holder touches.
#[derive(Debug, Default)]
struct Half {
    answered: usize,
}

/// The receive, as its port knows it.
#[derive(Debug, Default)]
struct Receive {
    outstanding: bool,
    cancelled: bool,
    /// All requests are answered.
    over: bool,
}

struct Model {
    halves: HalfTable<Half>,
    requests: [AtomicBool; REQUESTS],
    receive: Mutex<Receive>,
    changed: Condvar,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Model {
            halves: HalfTable::new(1),
            requests: [AtomicBool::new(false), AtomicBool::new(false)],
            receive: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn request(&self, which: usize) {
        self.requests[which].store(true, Ordering::Release);
        self.attend();
    }

    /// As `Floor::attend_to` of a shared port.
    fn attend(&self) {
        match self.halves.take_or_ask(0) {
            Ok(half) => self.attend_with(half),
            Err(Asked::InAHand) => {}
            Err(Asked::WithAnOperation) => self.cancel(),
        }
    }

    /// As `Floor::attend_with` of a shared port.
    fn attend_with(&self, mut half: HalfInHand<'_, Half>) {
        while self.look_after(&mut half) {
            if let Err(in_hand) = half.lend() {
                half = in_hand;
                continue;
            }
            self.post();
            if self.halves.is_asked_for(0) {
                self.cancel();
            }
            return;
        }
        if half.give_back() {
            self.attend();
        }
    }

    /// Answers what was requested. True: a receive is to be posted.
    fn look_after(&self, half: &mut Half) -> bool {
        for request in &self.requests {
            if request.load(Ordering::Relaxed) && request.swap(false, Ordering::Acquire) {
                half.answered += 1;
            }
        }
        if half.answered == REQUESTS {
            self.receive.lock().over = true;
            self.changed.notify_one();
        }
        half.answered < REQUESTS
    }

    fn post(&self) {
        let mut receive = self.receive.lock();
        assert!(!receive.outstanding, "invariant 1: a second receive while one is outstanding");
        *receive = Receive { outstanding: true, ..*receive };
    }

    fn cancel(&self) {
        let mut receive = self.receive.lock();
        if receive.outstanding {
            receive.cancelled = true;
            self.changed.notify_one();
        }
    }

    /// A worker's turns until nothing is wanted any more.
    fn serve(&self) {
        loop {
            let mut receive = self.receive.lock();
            while !receive.cancelled && !receive.over {
                receive = self.changed.wait(receive).expect("no thread has failed");
            }
            if !receive.cancelled {
                return;
            }
            *receive = Receive { over: receive.over, ..Receive::default() };
            drop(receive);
            // As `Floor::complete`.
            let half = self.halves.take_back(0);
            assert!(half.answered < REQUESTS, "it was received for who wanted nothing more");
            let _ = half.give_back();
            self.attend();
        }
    }
}

#[test]
fn every_request_is_answered_while_a_receive_is_posted_and_cancelled() {
    explore("half: two requests, a worker that receives", || {
        let model = Model::new();
        let askers = [0, 1].map(|which| {
            let model = model.clone();
            thread::spawn(move || model.request(which))
        });
        model.attend(); // posts the first receive
        model.serve();
        join_all(askers);
        let half = model.halves.take(0).expect("nobody has it");
        assert_eq!(half.answered, REQUESTS);
        assert!(!half.give_back(), "a request was left unanswered");
    });
}

#[test]
fn a_half_that_is_merely_taken_is_in_one_hand_and_no_mark_is_lost() {
    explore("half: three takers", || {
        let table = Arc::new(HalfTable::<u64>::new(1));
        let take = |table: &HalfTable<u64>| {
            while let Ok(mut half) = table.take_or_ask(0) {
                *half += 1;
                if !half.give_back() {
                    break;
                }
            }
        };
        let takers = [(); 2].map(|()| {
            let table = table.clone();
            thread::spawn(move || take(&table))
        });
        take(&table);
        join_all(takers);
        let half = table.take(0).expect("nobody has it");
        assert!((1..=3).contains(&*half), "{} times", *half);
        assert!(!half.give_back(), "a request was left unanswered");
    });
}
