//! What leaves last: everything that was queued, a last word, the Close frame behind it.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::*;
use wharf::{
    Backend, Close, CloseReason, Farewell, FirstFrameTimeout, Group, Options, SessionId, Text,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);
const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn frames(count: u8, bytes: usize) -> Vec<WsFrame> {
    (0..count).map(|n| WsFrame { first: FIN | BINARY, payload: vec![n; bytes] }).collect()
}

/// A peer that has a last word from a limit gets it, and then this code.
fn ends_by_a_limit(
    backend: Backend,
    options: Options,
    act: impl Fn(&TcpStream),
    is_expected: impl Fn(CloseReason) -> bool,
    code: u16,
) {
    let behaviour = Behaviour::silent()
        .on_received(|session, frame| {
            if frame == b"flood" {
                while session.try_send([7; 10_000]).is_ok() {}
                session.send([7; 10_000]);
            }
        })
        .on_ending(|session, reason| {
            session.handle().encode(Text(format!("goodbye: {reason}"))).ok()
        });
    let harness = start_web_socket(backend, no_pings(), options, behaviour);
    let peers = harness.web_sockets(PEERS);
    peers.iter().for_each(|(peer, _)| act(peer));
    for (peer, id) in &peers {
        let (frames, close) = read_to_close(peer);
        let reason = harness.log.closed(*id);
        assert!(is_expected(reason), "{reason}");
        let said = format!("goodbye: {reason}").into_bytes();
        assert_eq!(frames.last(), Some(&WsFrame { first: FIN | TEXT, payload: said }));
        assert_eq!(close, Some((code, String::new())));
    }
    drop(peers);
    harness.settle();
    harness.finish();
}

on_every_backend! {
    fn who_ends_by_a_limit_gets_the_last_word_and_then_the_code(backend) {
        let silent = one_worker().with(|options| options.time.idle_timeout = Some(MILLIS(100)));
        ends_by_a_limit(backend, silent, |_| {}, |reason| reason == CloseReason::IdleTimeout, 1001);
        let late = one_worker().with(|options| {
            options.time.first_frame_timeout = FirstFrameTimeout::After(MILLIS(100));
        });
        ends_by_a_limit(backend, late, |_| {}, |reason| reason == CloseReason::FirstFrameTimeout, 1001);
        let long = |peer: &TcpStream| write(peer, &masked(FIN | BINARY, &[7; 65_537])[..14]);
        let too_long = |reason| reason == CloseReason::FrameTooLarge { bytes: 65_537, max: 65_536 };
        ends_by_a_limit(backend, one_worker(), long, too_long, 1009);
        let flood = |peer: &TcpStream| write(peer, &masked(FIN | TEXT, b"flood"));
        let is_slow = |reason| matches!(reason, CloseReason::SlowConsumer { .. });
        ends_by_a_limit(backend, one_worker(), flood, is_slow, 1008);
    }

    fn a_servers_drain_lets_all_leave_before_the_close(backend) {
        let harness = start_web_socket(backend, no_pings(), one_worker(), Behaviour::silent());
        let (handle, queued) = (&harness.handle, frames(10, 9_000));
        let peers = harness.web_sockets(PEERS);
        for (_, id) in &peers {
            handle.join(*id, ROOM).unwrap();
            queued.iter().for_each(|frame| handle.send(*id, &frame.payload).unwrap());
        }
        handle.publish(ROOM, Text("we close")).unwrap();
        let mut expected = queued.clone();
        expected.push(WsFrame { first: FIN | TEXT, payload: b"we close".to_vec() });
        let report = std::thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(BOUND).unwrap());
            for (peer, _) in &peers {
                assert_eq!(read_to_close(peer), (expected.clone(), Some((1001, String::new()))));
            }
            drain.join().unwrap()
        });
        assert_eq!((report.live, report.flushed), (PEERS as u64, PEERS as u64));
        harness.finish();
    }

    fn a_session_that_opened_closes_gets_its_answer_first(backend) {
        for kicks in [false, true] {
            let behaviour = Behaviour::silent().on_opened(move |session| {
                session.send("hello");
                match kicks {
                    true => assert_eq!(session.close_with(Farewell::new(4000).text("full")), Ok(true)),
                    false => session.close(Close::Drain),
                }
            });
            let harness = start_web_socket(backend, no_pings(), one_worker(), behaviour);
            let mut expected = vec![WsFrame { first: FIN | BINARY, payload: b"hello".to_vec() }];
            let mut close = (1000, String::new());
            if kicks {
                expected.push(WsFrame { first: FIN | TEXT, payload: b"full".to_vec() });
                close = (4000, "full".to_owned());
            }
            for (peer, _) in harness.web_sockets(PEERS) {
                assert_eq!(read_to_close(&peer), (expected.clone(), Some(close.clone())));
            }
            harness.settle();
            harness.finish();
        }
    }

    fn what_is_published_before_a_session_stands_is_not_for_it(backend) {
        let harness = start_web_socket(backend, no_pings(), one_worker(), Behaviour::web_echo());
        let asks = request();
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        for (nth, peer) in peers.iter().enumerate() {
            write(peer, &asks.as_bytes()[..nth]);
        }
        eventually("they establish", || harness.handle.stats().establishing == PEERS as u64);
        for _ in 0..100 {
            harness.handle.broadcast("too early").unwrap();
        }
        for (nth, peer) in peers.iter().enumerate() {
            write(peer, &[&asks.as_bytes()[nth..], &masked(FIN | TEXT, b"on")].concat());
        }
        for peer in &peers {
            read_taken(peer);
            expect_ws(peer, FIN | TEXT, b"on");
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn the_answer_to_a_close_waits_behind_what_is_queued(backend) {
        let options = one_worker().with(|options| options.sending.kernel_bytes = Some(16 * 1024));
        let harness = start_web_socket(backend, no_pings(), options, Behaviour::silent());
        let queued = frames(25, 10_000);
        let peers = harness.web_sockets(PEERS);
        for (peer, id) in &peers {
            queued.iter().for_each(|frame| harness.handle.send(*id, &frame.payload).unwrap());
            write(peer, &masked(FIN | CLOSE, &closing(4000, "bye")));
        }
        for (peer, id) in &peers {
            assert_eq!(read_to_close(peer), (queued.clone(), Some((4000, String::new()))));
            assert_eq!(harness.log.closed(*id), CloseReason::PeerClosedWith { code: 4000 });
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn whatever_is_sent_behind_a_violation_does_not_cost_the_close(backend) {
        let harness = start_web_socket(backend, no_pings(), one_worker(), Behaviour::web_echo());
        let peers = harness.web_sockets(PEERS);
        let wire = [masked(FIN | TEXT, b"before"), unmasked(FIN | TEXT, b"!"), vec![7; 300_000]].concat();
        std::thread::scope(|scope| {
            for (peer, _) in &peers {
                let wire = &wire;
                scope.spawn(move || {
                    write(peer, wire);
                    peer.shutdown(Shutdown::Write).unwrap();
                });
            }
        });
        let before = WsFrame { first: FIN | TEXT, payload: b"before".to_vec() };
        for (peer, _) in &peers {
            assert_eq!(read_to_close(peer), (vec![before.clone()], Some((1002, String::new()))));
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn who_takes_nothing_any_more_ends_all_the_same(backend) {
        let options = one_worker().with(|options| {
            options.time.send_stall_timeout = Some(MILLIS(200));
            options.time.drain_timeout = Some(MILLIS(200));
            options.sending.kernel_bytes = Some(16 * 1024);
        });
        let harness = start_web_socket(backend, no_pings(), options, Behaviour::silent());
        let handle = &harness.handle;
        let peers = harness.web_sockets(PEERS);
        let full = vec![7; 60_000];
        let fill = |id: SessionId| (0..1_000).any(|_| handle.try_send(id, &full).is_err());
        for (nth, (_, id)) in peers.iter().enumerate() {
            eventually("nothing more is taken", || {
                let before = handle.queued_bytes(*id);
                fill(*id) && before == handle.queued_bytes(*id)
            });
            if nth % 2 == 0 {
                handle.close(*id, Close::Drain);
            }
        }
        for (_, id) in &peers {
            assert_in(harness.log.closed(*id), &[CloseReason::SendStallTimeout, CloseReason::DrainTimeout]);
        }
        peers.iter().for_each(|(peer, _)| wait_ended(peer));
        drop(peers);
        harness.settle();
        harness.finish();
    }

    /// `WHARF_TEST_LAST_FRAMES` says how many.
    fn the_last_frame_and_the_close_behind_it_arrive_under_load(backend) {
        const THREADS: usize = 8;
        let total = std::env::var("WHARF_TEST_LAST_FRAMES").map_or(1_000, |text| text.parse().unwrap());
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let Some((b"end", many)) = frame.split_at_checked(3) else { return session.send(frame) };
            (0..many[0]).for_each(|n| session.send(vec![n; 1 + 700 * usize::from(n)]));
            session.close(Close::Drain);
        });
        let harness = start_web_socket(backend, no_pings(), Options::default().workers(2), behaviour);
        let is_over = AtomicBool::new(false);
        let load = || {
            let (peer, _) = harness.web_socket();
            while !is_over.load(Ordering::SeqCst) {
                write(&peer, &masked(FIN | BINARY, &[7; 20_000]));
                expect_ws(&peer, FIN | BINARY, &[7; 20_000]);
            }
        };
        let one = |nth: usize| {
            let peer = harness.connect();
            let asks = masked(FIN | BINARY, &[b'e', b'n', b'd', (nth % 24) as u8]);
            write(&peer, &[request().as_bytes(), &asks].concat());
            read_taken(&peer);
            if nth.is_multiple_of(5) {
                write(&peer, &masked(FIN | TEXT, b"speaks on").repeat(20)); // it may find the session closing
            }
            let (frames, close) = read_to_close(&peer);
            assert_eq!(close, Some((1000, String::new())), "session {nth}");
            let last = frames.len().checked_sub(nth % 24).expect("none is missing");
            for (n, frame) in frames[last..].iter().enumerate() {
                assert_same(&frame.payload, &vec![n as u8; 1 + 700 * n]);
            }
            assert_eq!(last, 0, "session {nth}: frames that nobody has sent");
        };
        std::thread::scope(|scope| {
            let over = SetOnDrop(&is_over);
            scope.spawn(load);
            scope.spawn(load);
            let peers: Vec<_> = (0..THREADS).map(|first| {
                scope.spawn(move || (first..total).step_by(THREADS).for_each(one))
            }).collect();
            let ended: Vec<_> = peers.into_iter().map(|peer| peer.join()).collect();
            drop(over);
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        harness.settle();
        let stats = harness.finish();
        assert_eq!(stats.closed_like(CloseReason::Local), total as u64);
    }
}
