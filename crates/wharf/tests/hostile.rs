//! Peers that do not play by the rules: each ends for a stated reason, and nobody else notices.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use socket2::SockRef;
use support::*;
use wharf::{
    Backend, CloseReason, Endianness, FirstFrameTimeout, Framing, LengthPrefix, LengthWidth,
};

fn prefix(width: LengthWidth) -> LengthPrefix {
    LengthPrefix::default().width(width)
}

fn length() -> Framing {
    Framing::length_prefixed(prefix(LengthWidth::Four))
}

/// A peer attacks; its session must end for the reason given, and the server must be well.
fn attack(
    backend: Backend,
    framing: Framing,
    attack: impl Fn(&TcpStream),
    is_expected: impl Fn(CloseReason) -> bool,
) {
    let harness = start(backend, framing.clone(), pausing(), Behaviour::echo());
    let wire: &[u8] = if framing == Framing::raw() { b"hello" } else { b"\0\0\0\x05hello" };
    let can_talk = framing == Framing::raw() || framing == length();
    let innocent = harness.connect();
    for _ in 0..5 {
        let (peer, id) = harness.connect_known();
        attack(&peer);
        let reason = harness.log.closed(id);
        assert!(is_expected(reason), "{reason}");
        drop(peer);
        if can_talk {
            round_trip(&innocent, wire);
        }
    }
    drop(innocent);
    harness.settle();
    harness.finish();
}

on_every_backend! {
    fn garbage_ends_the_session_that_sent_it(backend) {
        let harness = start(backend, length(), pausing(), Behaviour::echo());
        let mut random = Random::new(1);
        for _ in 0..200 {
            let (peer, id) = harness.connect_known();
            let garbage: Vec<u8> = (0..1 + random.next() % 2000).map(|_| random.next() as u8).collect();
            let _ = (&peer).write_all(&garbage);
            let _ = peer.shutdown(Shutdown::Write);
            wait_ended(&peer);
            let reason = harness.log.closed(id);
            let expected = match reason {
                CloseReason::FrameTooLarge { bytes, max } => bytes > max && max == 65_536,
                CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. } => true,
                // Our end met bytes that nobody takes any more.
                CloseReason::Reset => true,
                _ => false,
            };
            assert!(expected, "{reason}");
        }
        round_trip(&harness.connect(), b"\0\0\0\x05hello");
        harness.settle();
        harness.finish();
    }

    fn the_largest_length_there_is_is_refused_before_anything_is_allocated(backend) {
        let framing = Framing::length_prefixed(prefix(LengthWidth::Eight));
        let attack_with = |peer: &TcpStream| write(peer, &[0xff; 8]);
        attack(backend, framing, attack_with, |reason| {
            reason == CloseReason::FrameTooLarge { bytes: u64::MAX, max: 65_536 }
        });
    }

    fn a_length_that_does_not_count_itself_though_it_should_is_refused(backend) {
        let prefix = LengthPrefix::default().width(LengthWidth::Two).endianness(Endianness::Little).counts_itself(true);
        let attack_with = |peer: &TcpStream| write(peer, &[1, 0]);
        attack(backend, Framing::length_prefixed(prefix), attack_with, |reason| {
            reason == CloseReason::LengthTooSmall { length: 1, min: 2 }
        });
    }

    fn frames_of_no_bytes_are_frames(backend) {
        let harness = start(backend, length(), pausing(), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        let wire = vec![0; 4 * 10_000];
        std::thread::scope(|scope| {
            scope.spawn(|| write(&peer, &wire));
            assert_same(&read(&peer, wire.len()), &wire);
        });
        drop(peer);
        assert_eq!(harness.log.closed(id), CloseReason::PeerClosed);
        let record = harness.log.record(id);
        assert_eq!((record.frame_count, record.received_bytes), (10_000, 0));
        harness.finish();
    }

    fn a_byte_at_a_time_is_as_good_as_all_at_once(backend) {
        let harness = start(backend, length(), pausing(), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        for byte in b"\0\0\0\x05hello\0\0\0\x00\0\0\0\x02hi" {
            write(&peer, &[*byte]);
        }
        assert_eq!(read(&peer, 19), b"\0\0\0\x05hello\0\0\0\x00\0\0\0\x02hi");
        let frames = harness.log.record(id).frames;
        assert_eq!(frames, [&b"hello"[..], b"", b"hi"]);
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn half_closing_before_the_reply_does_not_lose_it(backend) {
        attack(backend, Framing::raw(), |peer| {
            write(peer, &[6; 100_000]);
            peer.shutdown(Shutdown::Write).unwrap();
            assert_same(&read_to_end(peer), &[6; 100_000]);
        }, |reason| reason == CloseReason::PeerClosed);
    }

    fn half_closing_after_the_reply_ends_the_session(backend) {
        attack(backend, Framing::raw(), |peer| {
            round_trip(peer, b"one");
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(peer), b"");
        }, |reason| reason == CloseReason::PeerClosed);
    }

    fn an_end_inside_a_frame_says_how_much_of_it_had_come(backend) {
        attack(backend, length(), |peer| {
            write(peer, b"\0\0\0\x05hello\0\0\0\x09fourbyt");
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(peer), b"\0\0\0\x05hello");
        }, |reason| reason == CloseReason::PeerClosedInFrame { bytes: 11 });
    }

    fn a_reset_inside_a_frame_is_a_reset(backend) {
        let harness = start(backend, length(), pausing(), Behaviour::echo());
        for round in 1..=20 {
            let (peer, id) = harness.connect_known();
            write(&peer, b"\0\0\0\x09fourbyt");
            eventually("it has come", || harness.handle.stats().received_bytes == 11 * round);
            reset(peer);
            let reason = harness.log.closed(id);
            assert!(is_end_by_reset(reason), "{reason}");
        }
        round_trip(&harness.connect(), b"\0\0\0\x05hello");
        harness.settle();
        harness.finish();
    }

    fn whoever_never_finishes_the_first_frame_is_let_go(backend) {
        let first_frame_timeout = FirstFrameTimeout::After(Duration::from_millis(200));
        let options = pausing().with(|options| {
options.time.first_frame_timeout = first_frame_timeout;
});
        let harness = start(backend, length(), options, Behaviour::echo());
        let peers: Vec<_> = (0..50).map(|_| harness.connect_known()).collect();
        for (peer, _) in &peers {
            write(peer, b"\0\0");
        }
        for (peer, id) in &peers {
            assert_eq!(harness.log.closed(*id), CloseReason::FirstFrameTimeout);
            wait_ended(peer);
        }
        round_trip(&harness.connect(), b"\0\0\0\x05hello");
        harness.settle();
        harness.finish();
    }

    /// The urgent byte itself is in no frame: nobody has asked for it.
    fn urgent_data_holds_back_nothing_of_what_lies_around_it(backend) {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let behaviour = Behaviour::silent().on_received(move |session, frame| {
            if frame == b"block" {
                lock(&released).recv_timeout(BOUND).unwrap();
            }
            session.send(frame);
        });
        let harness = start(backend, length(), one_worker(), behaviour);
        let blocker = harness.connect();
        let peers: Vec<_> = (0..41).map(|_| harness.connect_known()).collect();
        for round in 0..3 {
            // While the worker looks at nobody, all of it arrives.
            write(&blocker, b"\0\0\0\x05block");
            eventually("it blocks", || {
                harness.log.look(|ledger| ledger.count(|record| record.frame_count > round)) > 0
            });
            for (at, (peer, _)) in peers.iter().enumerate() {
                let (before, behind) = b"\0\0\0\x05hello".split_at(at % 10);
                write(peer, before);
                SockRef::from(peer).send_out_of_band(b"!").unwrap();
                write(peer, behind);
            }
            release.send(()).unwrap();
            assert_same(&read(&blocker, 9), b"\0\0\0\x05block");
            for (peer, _) in &peers {
                assert_same(&read(peer, 9), b"\0\0\0\x05hello");
            }
        }
        drop((blocker, peers));
        harness.settle();
        harness.finish();
    }

    fn floods_of_short_lives_leave_nothing_open(backend) {
        let _alone = alone();
        let harness = start(backend, length(), pausing(), Behaviour::echo());
        round_trip(&harness.connect(), b"\0\0\0\x05hello");
        harness.settle();
        let before = open_descriptors();
        let mut random = Random::new(7);
        for _ in 0..500 {
            let peer = harness.connect();
            let _ = (&peer).write_all(&[0, 0, 0, 3, b'a', b'b'][..(random.next() % 7) as usize]);
            if random.next().is_multiple_of(2) {
                reset(peer);
            }
        }
        // Whoever came before the one that is served has been accepted. On Windows those that had
        // reset by then are not counted.
        round_trip(&harness.connect(), b"\0\0\0\x05hello");
        assert!(harness.handle.stats().accepted == 502 || cfg!(windows));
        harness.settle();
        // Other tests of this process open and close some too.
        eventually("nothing is left open", || open_descriptors() <= before);
        harness.finish();
    }
}
