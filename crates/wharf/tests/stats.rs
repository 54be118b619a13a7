//! What the statistics say of a real server.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use support::*;
use wharf::{Backend, Framing};

/// How long a callback takes that takes long.
const LONG: Duration = Duration::from_millis(20);
/// Of 61 receives one is measured: the first is, and this one.
const MEASURED: usize = 62;

on_every_backend! {
    fn turns_batches_and_the_wait_for_a_callback_are_measured(backend) {
        let (entered, is_entered) = channel();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let behaviour = Behaviour::silent().on_received(move |session, frame| match frame {
            b"block" => {
                entered.send(()).unwrap();
                lock(&released).recv_timeout(BOUND).unwrap();
            }
            b"long" => std::thread::sleep(LONG),
            _ => session.send(frame),
        });
        let harness = start(backend, Framing::raw(), one_worker(), behaviour);
        let peers = [(); 3].map(|()| harness.connect_known().0);
        for _ in 0..MEASURED - 3 {
            round_trip(&peers[0], b"x");
        }
        let before = harness.handle.histograms();
        let waits = &before.completion_to_callback_ns;
        assert_eq!(waits.count(), 1, "{before:?}");

        // While a callback blocks, two sessions are spoken to: then both come in one turn, the measured one
        // behind the other.
        write(&peers[0], b"block");
        is_entered.recv_timeout(BOUND).unwrap();
        peers[1..].iter().for_each(|peer| write(peer, b"long"));
        release.send(()).unwrap();
        let handle = harness.handle.clone();
        eventually("both have been heard", || handle.stats().receives == MEASURED as u64);
        let stats = harness.finish();
        assert_eq!(stats.receives, MEASURED as u64);

        let all = handle.histograms();
        let since = all.since(&before);
        let long = LONG.as_nanos() as u64;
        let waited = since.completion_to_callback_ns;
        assert_eq!(waited.count(), 1, "{waited:?}");
        assert!(waited.sum() >= long, "{waited:?}");
        assert!(since.turn_ns.quantile(1.0) >= Some(2 * long), "{:?}", since.turn_ns);
        assert!(since.batch_completions.quantile(1.0) >= Some(2), "{:?}", since.batch_completions);
        // The worker begins with a turn that has waited for nothing.
        assert_eq!(all.turn_ns.count(), all.batch_completions.count() + 1);
        assert_eq!(all.batch_completions.sum(), stats.receives + stats.sends, "{all:?}");
    }
}
