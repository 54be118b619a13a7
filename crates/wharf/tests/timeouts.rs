//! Time-outs: each with its own reason, none before its time.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, Close, CloseReason, FirstFrameTimeout, Framing, Gone, LengthPrefix, Options};

const SHORT: Duration = Duration::from_millis(300);

fn length() -> Framing {
    Framing::length_prefixed(LengthPrefix::default())
}

on_every_backend! {
    fn a_session_that_says_nothing_is_idle(backend) {
        let options = one_worker().with(|options| {
options.time.idle_timeout = Some(SHORT);
});
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let began = Instant::now();
        let (peer, id) = harness.connect_known();
        // Being spoken to does not count: only what is received does.
        harness.handle.send(id, b"tick").unwrap();
        assert_eq!(harness.log.closed(id), CloseReason::IdleTimeout);
        assert!(began.elapsed() >= SHORT);
        wait_ended(&peer);
        harness.settle();
        harness.finish();
    }

    fn what_is_received_postpones_the_idle_timeout(backend) {
        let options = one_worker().with(|options| {
options.time.idle_timeout = Some(SHORT);
});
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let (peer, id) = harness.connect_known();
        let began = Instant::now();
        let mut spoke = began;
        while began.elapsed() < 3 * SHORT {
            round_trip(&peer, b"x");
            spoke = Instant::now();
            std::thread::sleep(SHORT / 10);
        }
        assert_eq!(harness.log.closed(id), CloseReason::IdleTimeout);
        let closed_at = harness.log.record(id).closed_at.unwrap();
        // It was received a moment before its echo came back.
        assert!(closed_at - spoke >= SHORT - SHORT / 3, "{:?}", closed_at - spoke);
        assert!(closed_at - began >= 3 * SHORT);
        harness.finish();
    }

    fn a_first_frame_that_comes_a_byte_at_a_time_is_too_late(backend) {
        let first_frame_timeout = FirstFrameTimeout::After(SHORT);
        let options = one_worker().with(|options| {
options.time.first_frame_timeout = first_frame_timeout;
});
        let harness = start(backend, length(), options, Behaviour::echo());
        let began = Instant::now();
        let (mut slow, id) = harness.connect_known();
        let (prompt, prompt_id) = harness.connect_known();
        round_trip(&prompt, b"\0\0\0\x02hi");
        for byte in [0, 0, 1] {
            // The server may have closed it by now.
            let _ = slow.write_all(&[byte]);
            std::thread::sleep(SHORT / 10);
        }
        assert_eq!(harness.log.closed(id), CloseReason::FirstFrameTimeout);
        assert!(began.elapsed() >= SHORT);
        // Whoever has sent a frame may rest after it.
        std::thread::sleep(SHORT);
        round_trip(&prompt, b"\0\0\0\x02hi");
        assert_eq!(harness.log.record(prompt_id).closed, None);
        harness.finish();
    }

    fn raw_sessions_may_listen_without_a_word(backend) {
        let harness = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        assert_eq!(Options::default().time.first_frame_timeout, FirstFrameTimeout::ByFraming);
        let (peer, id) = harness.connect_known();
        std::thread::sleep(SHORT);
        harness.handle.send(id, b"here").unwrap();
        assert_eq!(read(&peer, 4), b"here");
        harness.finish();
    }

    fn a_peer_to_which_nothing_leaves_any_more_has_stalled(backend) {
        // Long enough for the reader to be scheduled, short enough for it to take longer over all.
        let stall = SHORT * 3;
        let options = pausing().with(|options| {
options.time.send_stall_timeout = Some(stall);
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (reader, reader_id) = harness.connect_known();
        let (stalled, id) = harness.connect_known();
        let began = Instant::now();
        // More than the kernel takes for a peer that does not read. At once: where queueing is slow,
        // many frames would take longer than the first of them may wait.
        let frame = vec![7; 32 << 20];
        harness.handle.send(id, &frame).unwrap();
        harness.handle.send(reader_id, &frame).unwrap();
        // A slow reader is no stalled one, however long it takes over all.
        let mut count = 0;
        while count < 32 << 20 {
            count += read(&reader, 1 << 20).len();
            std::thread::sleep(SHORT / 8);
        }
        assert_eq!(harness.log.closed(id), CloseReason::SendStallTimeout);
        assert!(began.elapsed() >= stall);
        assert_eq!(harness.log.record(reader_id).closed, None);
        assert_eq!(harness.handle.send(id, "late"), Err(Gone("late")));
        drop(stalled);
        harness.finish();
    }

    fn a_local_close_takes_nothing_away_from_a_peer_that_was_still_talking(backend) {
        let harness = start(backend, Framing::raw(), pausing(), Behaviour::silent()
            .on_received(|session, _| {
                session.send([5; 100_000]);
                session.close(Close::Drain);
            }));
        for _ in 0..20 {
            let (peer, id) = harness.connect_known();
            write(&peer, b"hello");
            // Bytes that nobody will take: without lingering they would turn into a reset, which
            // would destroy what is on its way to us.
            let mut more = &peer;
            let _ = more.write_all(&[1; 50_000]);
            peer.shutdown(Shutdown::Write).unwrap();
            assert_same(&read_to_end(&peer), &[5; 100_000]);
            assert_eq!(harness.log.closed(id), CloseReason::Local);
        }
        harness.finish();
    }

    fn a_peer_that_does_not_close_after_us_is_let_go(backend) {
        let options = one_worker().with(|options| {
options.time.close_linger = SHORT;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (peer, id) = harness.connect_known();
        let began = Instant::now();
        harness.handle.send(id, b"bye").unwrap();
        assert!(harness.handle.close(id, Close::Drain));
        assert_eq!(read_to_end(&peer), b"bye");
        assert_eq!(harness.log.closed(id), CloseReason::Local);
        assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
        drop(peer);
        harness.finish();
    }
}
