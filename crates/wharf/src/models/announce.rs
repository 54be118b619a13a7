//! A drain is announced, then it begins.
//!
//! Threads ask for a drain, and perhaps for a stop. Each worker that gets the announcement asks whether to tell
//! the handler; the one that is to tells it, and begins the drain. Shown: however many ask, the handler is told
//! once; every worker learns of the drain, of the stop, or of both (one that does not is a deadlock); no drain
//! begins before the handler was told; and after a stop was seen it is not told.

use std::sync::Arc;

use loom::thread;

use super::port::ModelPort;
use super::{engine, explore, join_all, ports};
use crate::CloseReason;
use crate::close::Close;
use crate::engine::{Engine, Mail};
use crate::sync::{AtomicUsize, Ordering};

/// A worker's mail until the end begins, as `Worker::mail`. How it began.
fn serve(engine: &Engine, port: &ModelPort, index: usize, told: &AtomicUsize) -> Mail {
    let (mailbox, mut mails) = (&engine.ports[index].mailbox, Vec::new());
    loop {
        if mailbox.may_sleep() {
            port.wait();
            mailbox.woke();
        }
        mailbox.take(&mut mails);
        for mail in mails.drain(..) {
            match mail {
                Mail::Announce => {
                    if engine.is_drain_to_be_told() {
                        assert_ne!(
                            engine.ending(),
                            Some((CloseReason::Drained, Close::Drain)),
                            "it has begun, and nobody was told"
                        );
                        told.fetch_add(1, Ordering::Relaxed);
                        engine.drain();
                    }
                }
                Mail::Drain => {
                    assert_eq!(told.load(Ordering::Relaxed), 1, "it begins untold");
                    return mail;
                }
                Mail::Stop => return mail,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn ask(engine: &Arc<Engine>, asks: fn(&Engine)) -> thread::JoinHandle<()> {
    let engine = engine.clone();
    thread::spawn(move || asks(&engine))
}

#[test]
fn whoever_asks_for_a_drain_at_once_has_the_handler_told_once() {
    explore("announce: two ask for a drain, one worker", || {
        let (engine, port) = engine(false, 1);
        let told = AtomicUsize::new(0);
        let asks = [(); 2].map(|()| ask(&engine, Engine::announce_drain));
        assert!(matches!(serve(&engine, &port, 0, &told), Mail::Drain));
        join_all(asks);
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(engine.ending(), Some((CloseReason::Drained, Close::Drain)));
    });
}

#[test]
fn of_two_workers_one_tells_and_both_drain() {
    explore("announce: one asks for a drain, two workers", || {
        let (engine, [first, second]) = ports(1);
        let told = Arc::new(AtomicUsize::new(0));
        let asks = ask(&engine, Engine::announce_drain);
        let of_second = thread::spawn({
            let (engine, told) = (engine.clone(), told.clone());
            move || assert!(matches!(serve(&engine, &second, 1, &told), Mail::Drain))
        });
        assert!(matches!(serve(&engine, &first, 0, &told), Mail::Drain));
        asks.join().unwrap();
        of_second.join().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_stop_meanwhile_ends_the_worker_whoever_is_first() {
    explore("announce: a drain, a stop, one worker", || {
        let (engine, port) = engine(false, 1);
        let told = AtomicUsize::new(0);
        let asks = [Engine::announce_drain, Engine::stop].map(|asks| ask(&engine, asks));
        serve(&engine, &port, 0, &told);
        join_all(asks);
        assert!(told.load(Ordering::Relaxed) <= 1);
        assert_eq!(engine.ending(), Some((CloseReason::Stopped, Close::Stop)));
        assert!(!engine.is_drain_to_be_told(), "it is told after the end");
    });
}
