//! The receive half: taken, asked for, lent to a receive, and got back by a cancel (invariant 2).
//!
//! Two threads each want something from a session whose peer is quiet, while a third serves its port. The
//! receive completes only if it is cancelled, so a request that is missed would wait forever, which is a
//! deadlock. Shown: the half is in one hand at a time; its holder sees what the last holder did; and every
//! request is answered: by the asking thread, by the holder that finds the mark when it gives the half back
//! or is about to lend it, or through the completion of the cancelled receive.

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

    /// As `Floor::attend_without` of a shared port.
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

    /// Answers the requests. True: a receive must be posted.
    fn look_after(&self, half: &mut Half) -> bool {
        half.answered += self.requests.iter().filter(|request| take_request(request)).count();
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

    /// A worker's turns, until nothing is wanted any more.
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
fn a_request_is_answered_by_who_makes_it_or_by_who_has_the_half() {
    explore("half: three takers, and no receive", || {
        let model =
            Arc::new((HalfTable::<usize>::new(1), [(); 3].map(|()| AtomicBool::new(false))));
        // As when attending to a session that has paused receiving: nothing is lent.
        let request = |(halves, requests): &(HalfTable<usize>, [AtomicBool; 3]), which: usize| {
            requests[which].store(true, Ordering::Release);
            while let Ok(mut half) = halves.take_or_ask(0) {
                *half += requests.iter().filter(|request| take_request(request)).count();
                if !half.give_back() {
                    break;
                }
            }
        };
        let takers = [1, 2].map(|which| {
            let model = model.clone();
            thread::spawn(move || request(&model, which))
        });
        request(&model, 0);
        join_all(takers);
        let half = model.0.take(0).expect("nobody has it");
        assert_eq!(*half, 3, "a request was left unanswered");
        assert!(!half.give_back(), "a mark was left");
    });
}

#[test]
fn what_the_lender_did_is_seen_by_who_takes_it_back_from_a_port_that_orders_nothing() {
    explore("half: lent, asked for, taken back", || {
        let model = Arc::new((HalfTable::<u64>::new(1), AtomicBool::new(false)));
        let mut half = model.0.take(0).expect("nobody has it");
        let asker = thread::spawn({
            let model = model.clone();
            move || {
                if let Ok(half) = model.0.take_or_ask(0) {
                    assert_eq!(*half, 8, "free before it was lent and came back");
                    let _ = half.give_back();
                }
            }
        });
        let completion = thread::spawn({
            let model = model.clone();
            move || {
                while !model.1.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                let mut half = model.0.take_back(0);
                assert_eq!(*half, 7);
                *half = 8;
                let _ = half.give_back();
            }
        });
        *half = 7;
        while let Err(in_hand) = half.lend() {
            half = in_hand;
        }
        model.1.store(true, Ordering::Relaxed); // the post
        asker.join().unwrap();
        completion.join().unwrap();
        assert_eq!(*model.0.take(0).expect("nobody has it"), 8);
    });
}

/// As `Slot::take_time_came`.
fn take_request(request: &AtomicBool) -> bool {
    request.load(Ordering::Relaxed) && request.swap(false, Ordering::Acquire)
}
