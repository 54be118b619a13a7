//! Sleeping, waking, and time-outs.

use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::sockets::{BOUND, fill, listener, pair, write};
use super::trial::Trial;
use crate::port::{CompletionPort, Operation, OperationKind};
use crate::sync::{AtomicU64, Ordering};

pub(super) fn a_wake_from_another_thread_ends_a_wait_without_time_out<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let waker = trial.port.waker();
    // A completion ends the wait after the bound, if the wake does not.
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    let woken = AtomicU64::new(0);
    let (asleep, is_asleep) = mpsc::channel();
    let (awake, is_awake) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            for () in is_asleep {
                woken.fetch_add(1, Ordering::Release);
                waker.wake();
            }
        });
        scope.spawn(move || {
            if is_awake.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
                write(&peer, b"!");
            }
        });
        for round in 1..=100 {
            asleep.send(()).unwrap();
            while woken.load(Ordering::Acquire) < round {
                trial.turn(None);
                assert!(trial.account(ours).received.is_empty(), "not woken in {BOUND:?}");
            }
        }
        drop((asleep, awake));
    });
    trial.finish();
}

pub(super) fn a_wake_before_the_wait_is_not_lost<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let waker = trial.port.waker();
    let (ours, _peer) = pair();
    let ours = trial.register(ours);
    for round in 0..50 {
        // Sometimes with other work, and sometimes twice.
        if round % 3 == 0 {
            trial.post(ours, Operation::Send(Default::default()));
        }
        if round % 5 == 0 {
            waker.wake();
        }
        waker.wake();
        let started = Instant::now();
        trial.drive_until_settled(ours);
        if round % 3 != 0 {
            trial.turn(Some(BOUND));
        }
        assert!(started.elapsed() < BOUND, "not woken");
    }
    trial.finish();
}

pub(super) fn a_thousand_wakes_of_one_thread_are_not_lost<P: CompletionPort>(port: P) {
    no_wake_is_lost(port, 1, 1_000);
}

pub(super) fn a_thousand_wakes_of_four_threads_are_not_lost<P: CompletionPort>(port: P) {
    no_wake_is_lost(port, 4, 250);
}

/// Each thread raises its flag, wakes, and does nothing more until the flag was seen. If the last wake is
/// lost, all wait forever.
fn no_wake_is_lost<P: CompletionPort>(port: P, threads: usize, rounds: u64) {
    let mut trial = Trial::of(port);
    let flags: Vec<_> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let mut seen: Vec<(u64, mpsc::Sender<()>)> = Vec::new();
        for flag in &flags {
            let (acknowledge, acknowledged) = mpsc::channel();
            let waker = trial.port.waker();
            seen.push((0, acknowledge));
            scope.spawn(move || {
                for round in 1..=rounds {
                    flag.store(round, Ordering::Release);
                    waker.wake();
                    if acknowledged.recv().is_err() {
                        return;
                    }
                }
            });
        }
        trial.drive(|_| {
            for (flag, (seen, acknowledge)) in flags.iter().zip(&mut seen) {
                let raised = flag.load(Ordering::Acquire);
                if raised > *seen {
                    assert_eq!(raised, *seen + 1);
                    *seen = raised;
                    // Fails only after the last round.
                    let _ = acknowledge.send(());
                }
            }
            seen.iter().all(|(seen, _)| *seen == rounds)
        });
    });
    trial.finish();
}

pub(super) fn a_waker_may_outlive_its_port<P: CompletionPort>(port: P) {
    let trial = Trial::of(port);
    let waker = trial.port.waker();
    trial.finish();
    waker.wake();
    thread::spawn(move || waker.wake()).join().unwrap();
}

pub(super) fn a_wait_in_which_nothing_happens_lasts_for_its_time_out<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    judge_time_outs(&mut trial, "nothing is registered");

    let (quiet, _quiet_peer) = pair();
    let quiet = trial.register(quiet);
    trial.idle_turns();
    judge_time_outs(&mut trial, "a socket is quiet");

    trial.post(quiet, Operation::Receive);
    judge_time_outs(&mut trial, "a receive was just posted");

    let (listening, _) = listener(8);
    let listening = trial.register(listening);
    trial.post(listening, Operation::Accept);
    let (sending, sending_peer) = pair();
    fill(&sending);
    let sending = trial.register(sending);
    trial.send(sending, b"stuck");
    trial.idle_turns();
    judge_time_outs(&mut trial, "an accept and a send are stuck");

    sending_peer.shutdown(Shutdown::Write).unwrap();
    trial.idle_turns();
    judge_time_outs(&mut trial, "a send is stuck and nobody receives what has ended");

    trial.post(sending, Operation::Receive);
    trial.drive(|trial| !trial.account(sending).is_outstanding(OperationKind::Receive));
    trial.idle_turns();
    judge_time_outs(&mut trial, "a send is stuck and the stream has ended");
    trial.finish();
}

fn judge_time_outs<P: CompletionPort>(trial: &mut Trial<P>, scene: &str) {
    for time_out_us in [1, 300, 1_500, 20_000] {
        let time_out = Duration::from_micros(time_out_us);
        let started = Instant::now();
        trial.turn(Some(time_out));
        let elapsed = started.elapsed();
        assert!(elapsed >= time_out, "{elapsed:?} of {time_out:?} while {scene}");
    }
}
