//! Timers of the program's sessions, and idle time-outs of a session's own.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::*;
use wharf::options::Time;
use wharf::{
    Backend, Close, CloseReason, Error, Framing, Heartbeat, LengthPrefix, Listener, Options,
    Server, TimerError,
};

const PEERS: usize = 41;
/// A few ticks of 10 ms.
const SOON: Duration = Duration::from_millis(60);

fn three_workers() -> Options {
    Options::default().workers(3)
}

/// The timers of a session that have fired, once there are so many.
fn fired(harness: &Harness, id: wharf::SessionId, count: usize) -> Vec<(u64, Instant)> {
    harness.log.wait("its timers fire", |ledger| {
        let timers = &ledger.records.get(&id)?.timers;
        (timers.len() >= count).then(|| timers.clone())
    })
}

on_every_backend! {
    fn each_session_is_told_of_its_own_timers_in_their_order_once_and_never_early(backend) {
        let behaviour = Behaviour::silent().on_opened(|session| {
            // Set in another order than they are due; one is cancelled, one set anew.
            session.set_timer(3, 3 * SOON).unwrap();
            session.set_timer(7, SOON).unwrap();
            session.set_timer(1, SOON).unwrap();
            session.set_timer(9, SOON / 2).unwrap();
            session.set_timer(2, SOON / 2).unwrap();
            session.set_timer(2, 2 * SOON).unwrap();
            assert!(session.cancel_timer(9) && !session.cancel_timer(9) && !session.cancel_timer(8));
        });
        let harness = start(backend, wharf::Framing::raw(), three_workers(), behaviour);
        let before = Instant::now();
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (_, id) in &peers {
            let fired = fired(&harness, *id, 4);
            let keys: Vec<_> = fired.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, [7, 1, 2, 3]);
            for ((_, at), least) in fired.iter().zip([SOON, SOON, 2 * SOON, 3 * SOON]) {
                assert!(*at >= before + least, "it fired early");
            }
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_timer_that_sets_itself_goes_on_also_while_receiving_is_paused_and_ends_with_the_session(backend) {
        let behaviour = Behaviour::silent()
            .on_opened(|session| {
                session.pause_receiving();
                session.set_timer(0, Duration::ZERO).unwrap();
            })
            .on_timer(|session, key| {
                session.set_timer(key + 1, Duration::ZERO).unwrap();
                if key == 5 {
                    session.close(Close::Drain);
                    assert_eq!(session.set_timer(99, SOON), Err(TimerError::Closing));
                }
            })
            .on_closed(|session, _| {
                assert_eq!(session.set_timer(99, SOON), Err(TimerError::Closing));
                session.set_idle_timeout(Some(SOON));
                assert!(!session.cancel_timer(6), "it went with the session");
            });
        let harness = start(backend, wharf::Framing::raw(), three_workers(), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, id) in peers {
            drop(peer);
            assert_eq!(harness.log.closed(id), CloseReason::Local);
            let keys: Vec<_> = harness.log.record(id).timers.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, [0, 1, 2, 3, 4, 5]);
        }
        harness.settle();
        harness.finish();
    }

    fn a_session_has_as_many_timers_as_it_may_and_each_that_has_fired_makes_room(backend) {
        let options = three_workers().with(|options| options.sessions.timers_max = 3);
        let refused = Arc::new(Mutex::new(Vec::new()));
        let behaviour = {
            let refused = refused.clone();
            Behaviour::silent().on_opened(move |session| {
                (0..3).for_each(|key| session.set_timer(key, SOON).unwrap());
                session.set_timer(2, SOON).unwrap();
                lock(&refused).push(session.set_timer(3, SOON));
                assert!(session.cancel_timer(1));
                session.set_timer(3, SOON).unwrap();
            })
            .on_timer(|session, key| {
                let free = session.set_timer(key + 10, SOON);
                assert!(key >= 10 || free.is_ok(), "{free:?}");
            })
        };
        let harness = start(backend, wharf::Framing::raw(), options, behaviour);
        let (peer, id) = harness.connect_known();
        let keys = fired(&harness, id, 6).iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert_eq!(keys[..6], [0, 2, 3, 10, 12, 13]);
        assert_eq!(*lock(&refused), [Err(TimerError::TooMany { max: 3 })]);
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_session_to_which_nothing_else_is_sent_gets_heartbeats_in_its_own_form(backend) {
        let options = three_workers().with(|options| {
            options.time.heartbeat = Some(Heartbeat::new(SOON, "still here"));
        });
        let without = Listener::new("127.0.0.1:0").time(Time::default());
        let builder = Server::builder().framing(length_framing()).listen("127.0.0.1:0").listen(without);
        let harness = start_builder(backend, builder.options(options), Behaviour::echo());
        let silent: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        let busy: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        let other = connect(harness.server.addresses()[1]);
        let (began, mut asked) = (Instant::now(), None);
        // One that is sent something all the time gets nothing else.
        while began.elapsed() < 4 * SOON {
            let asked_before = asked.replace(Instant::now()).unwrap_or(began);
            for peer in &busy {
                write(peer, &wire_default(b"hello"));
            }
            for peer in &busy {
                let mut frame = read_frame(peer);
                // On a machine that is slow nothing was sent to it for so long, perhaps.
                while frame == b"still here" && asked_before.elapsed() >= SOON {
                    frame = read_frame(peer);
                }
                assert_eq!(frame, b"hello");
            }
        }
        // The time between two is never shorter; the first of them counts from the beginning.
        for peer in &silent {
            for _ in 0..3 {
                assert_eq!(read_frame(peer), b"still here");
            }
        }
        assert!(began.elapsed() >= 3 * SOON);
        for peer in &busy {
            assert_eq!(read_frame(peer), b"still here");
        }
        // Where the listener has none, what is sent comes alone.
        write(&other, &wire_default(b"alone"));
        assert_eq!(read_frame(&other), b"alone");
        other.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&other), b"");
        drop((silent, busy));
        harness.settle();
        harness.finish();
    }

    fn a_heartbeat_that_a_framing_cannot_send_is_refused_at_the_start(backend) {
        let framing = || Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(8));
        let start = |heartbeat| {
            let options = Options::default().with(|options| options.time.heartbeat = Some(heartbeat));
            let builder = Server::builder().listen("127.0.0.1:0").framing(framing()).options(options);
            builder.backend(backend).start(Nobody)
        };
        for (heartbeat, value) in [("much too long", 13), ("", 0)] {
            match start(Heartbeat::new(SOON, heartbeat)) {
                Err(Error::Option { name: "time.heartbeat", value: found, .. }) => {
                    assert_eq!(found, value);
                }
                other => panic!("{other:?}"),
            }
        }
        let often = start(Heartbeat::new(Duration::from_millis(9), "x"));
        assert!(matches!(often, Err(Error::OptionDuration { name: "time.heartbeat", .. })));
    }

    fn a_session_has_an_idle_time_out_of_its_own(backend) {
        let options = three_workers().with(|options| options.time.idle_timeout = Some(2 * SOON));
        let behaviour = Behaviour::silent().on_received(|session, frame| match frame {
            b"never" => session.set_idle_timeout(None),
            b"soon" => session.set_idle_timeout(Some(SOON)),
            _ => session.set_idle_timeout(Some(Duration::from_secs(3600))),
        });
        let harness = start(backend, wharf::Framing::raw(), options, behaviour);
        let of = |said: &'static [u8]| {
            let peers: Vec<_> = (0..PEERS / 3).map(|_| harness.connect_known()).collect();
            peers.iter().for_each(|(peer, _)| write(peer, said));
            peers
        };
        let (never, late) = (of(b"never"), of(b"late"));
        let (soon, silent) = (of(b"soon"), of(b""));
        for (_, id) in soon.iter().chain(&silent) {
            assert_eq!(harness.log.closed(*id), CloseReason::IdleTimeout);
        }
        for (_, id) in never.iter().chain(&late) {
            assert!(harness.handle.is_open(*id));
        }
        // From none to one of its own.
        for (peer, id) in &never {
            write(peer, b"soon");
            assert_eq!(harness.log.closed(*id), CloseReason::IdleTimeout);
        }
        drop((never, late, soon, silent));
        harness.settle();
        harness.finish();
    }
}
