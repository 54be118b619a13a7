//! Callbacks that block a worker are named, afterwards and while they block.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use support::*;
use wharf::{Backend, Call, Callback, Framing, RunningTurn, SessionId, TurnCallbacks};

const PEERS: usize = 41;
/// Longer than a busy machine keeps a thread from running.
const LONG: Duration = Duration::from_millis(200);

fn is_in(turn: &RunningTurn, callback: Callback, id: SessionId) -> bool {
    turn.call.is_some_and(|call| call.callback == callback && call.session == Some(id))
}

on_every_backend! {
    fn who_blocks_is_named_among_many(backend) {
        let behaviour = Behaviour::silent().on_received(|_, frame| {
            if frame == b"block" {
                std::thread::sleep(LONG); // it is what the test is about
            }
        });
        let harness = start(backend, Framing::raw(), one_worker(), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        let (held, culprit) = (&peers[0], &peers[17]);
        // While the first blocks all speak: they come together, and each is measured, for that turn was long.
        write(&held.0, b"block");
        eventually("it blocks", || {
            let turns = harness.handle.running_turns();
            turns.iter().any(|turn| is_in(turn, Callback::Received, held.1))
        });
        for (peer, id) in &peers {
            write(peer, if *id == culprit.1 { b"block" } else { b"x" });
        }
        eventually("all are heard", || harness.handle.stats().receives > PEERS as u64);
        let is_named = |callbacks, id| match callbacks {
            TurnCallbacks::Measured { longest: Call { callback, session, .. }, took } => {
                (callback, session) == (Callback::Received, Some(id)) && took >= LONG
            }
            _ => false,
        };
        eventually("the second is named", || {
            let turns = harness.handle.long_turns();
            turns.iter().any(|turn| turn.took >= LONG && is_named(turn.callbacks, culprit.1))
        });
        let turns = harness.handle.long_turns();
        let by_sleep = turns.iter().filter(|turn| turn.took >= LONG);
        let named: Vec<_> = by_sleep.filter_map(|turn| turn.longest()?.session).collect();
        assert!(named.iter().all(|id| [held.1, culprit.1].contains(id)), "{turns:?}");
        assert!(harness.finish().long_turns >= 2);
    }

    fn a_callback_that_never_returns_is_named_while_it_runs(backend) {
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let behaviour = Behaviour::echo().on_timer(move |_, _| {
            let _ = lock(&released).recv();
        }).on_opened(|session| {
            session.join(wharf::Group(1)).unwrap();
        }).on_received(|session, frame| match frame {
            b"block" => session.set_timer(1, Duration::ZERO).unwrap(),
            _ => session.send(frame),
        });
        let harness = start(backend, Framing::raw(), one_worker().workers(3), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        let (peer, id) = &peers[23];
        write(peer, b"block");
        let found = || {
            let turns = harness.handle.running_turns();
            turns.into_iter().find(|turn| is_in(turn, Callback::Timer, *id))
        };
        eventually("it is named", || found().is_some_and(|turn| turn.lasted > LONG / 2));
        let (first, second) = (found().unwrap(), found().unwrap());
        assert_eq!((first.worker, first.calls), (second.worker, second.calls));
        assert!(second.lasted >= first.lasted && harness.handle.long_turns().iter().all(|turn| {
            turn.longest().is_none_or(|call| call.callback != Callback::Timer)
        }));
        drop(release);
        eventually("it is kept", || {
            let turns = harness.handle.long_turns();
            turns.iter().any(|turn| turn.worker == first.worker && turn.took >= LONG / 2)
        });
        eventually("all workers wait", || harness.handle.running_turns().is_empty());
        harness.finish();
    }
}
