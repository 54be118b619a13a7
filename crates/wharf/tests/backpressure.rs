//! Peers that do not read: what is queued for them is bounded, they end or are held back, and
//! nobody else notices.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::*;
use wharf::{Backend, CloseReason, Framing, Gone, LengthPrefix, SendError};

const QUEUE_MAX: usize = 256 * 1024;

/// The byte at a position of a stream; no two stretches of it look alike for long.
fn byte_at(position: usize) -> u8 {
    ((position >> 3).wrapping_mul(0x9E37_79B9) >> 16) as u8 ^ position as u8
}

fn stretch(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(byte_at).collect()
}

/// Writes the stream until nothing has moved for a while: how many bytes it took.
fn write_until_held_back(peer: &TcpStream, most: usize) -> usize {
    const CHUNK_BYTES: usize = 64 * 1024;
    let mut written = 0;
    while written < most {
        let chunk = stretch(written, CHUNK_BYTES);
        let count = write_while_it_is_taken(peer, &chunk, Duration::from_millis(500));
        written += count;
        if count < CHUNK_BYTES {
            break;
        }
    }
    written
}

on_every_backend! {
    fn a_peer_that_never_reads_ends_as_a_slow_consumer(backend) {
        let harness = start(backend, Framing::raw(), one_worker(), Behaviour::echo());
        let (_stuck, id) = harness.connect_known();
        let (other, _) = harness.connect_known();
        let frame = vec![7; 10_000];
        let mut accepted = 0;
        let refusal = loop {
            match harness.handle.try_send(id, &frame[..]) {
                Ok(()) => accepted += 1,
                Err(refusal) => break refusal,
            }
            let queued = harness.handle.stats().queued_bytes;
            assert!(queued <= QUEUE_MAX as u64, "{queued}");
            if accepted % 64 == 0 {
                round_trip(&other, b"still served");
            }
        };
        let SendError::Full { bytes, queued, max } = refusal else { panic!("{refusal}") };
        assert_eq!((bytes, max), (&frame[..], QUEUE_MAX));
        assert!(queued <= max && queued + bytes.len() > max, "{queued}");
        // What only tries does not end it, and says what it finds.
        assert!(harness.handle.is_open(id) && harness.handle.queued_bytes(id).is_some());
        assert_eq!(harness.log.record(id).closed, None);
        // What must arrive does, and is given back all the same.
        let gone = loop {
            if let Err(gone) = harness.handle.send(id, &frame[..]) {
                break gone; // the kernel may have taken some more
            }
        };
        assert_eq!(gone, Gone(&frame[..]));
        assert!(!harness.handle.is_open(id));
        let reason = harness.log.closed(id);
        assert!(matches!(reason, CloseReason::SlowConsumer { queued } if queued + bytes.len() > max));
        assert_eq!(harness.handle.try_send(id, "late"), Err(SendError::Gone("late")));
        assert_eq!(harness.handle.send(id, "late"), Err(Gone("late")));
        round_trip(&other, b"still served");
        drop(other);
        harness.settle();
        harness.finish();
    }

    fn a_handler_that_pushes_to_a_peer_that_never_reads_ends_it(backend) {
        let behaviour = Behaviour::silent().on_received(|session, _| {
            for _ in 0..10_000 {
                session.send([3; 1000]);
            }
        });
        let harness = start(backend, Framing::raw(), one_worker(), behaviour);
        let (stuck, id) = harness.connect_known();
        write(&stuck, b"go");
        let reason = harness.log.closed(id);
        assert!(matches!(reason, CloseReason::SlowConsumer { queued } if queued <= QUEUE_MAX));
        harness.finish();
    }

    fn an_echo_holds_back_who_does_not_read_and_loses_nothing(backend) {
        let harness = start(backend, Framing::raw(), pausing(), Behaviour::echo());
        let (quiet, _) = harness.connect_known();
        let peers: Vec<_> = (0..3).map(|_| harness.connect()).collect();
        let over = AtomicBool::new(false);
        let rounds = AtomicUsize::new(0);
        thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            // On the same worker, all the while.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    round_trip(&quiet, b"how are you");
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
            let most = 64 << 20;
            let written: Vec<usize> =
                peers.iter().map(|peer| write_until_held_back(peer, most)).collect();
            assert!(written.iter().all(|written| *written < most), "not held back: {written:?}");
            let stats = harness.handle.stats();
            assert!(stats.receive_pauses >= 3, "{stats:?}");
            assert!(stats.queued_bytes <= 3 * QUEUE_MAX as u64, "{stats:?}");
            let before = rounds.load(Ordering::Relaxed);
            eventually("the others go on", || rounds.load(Ordering::Relaxed) > before + 10);
            for (peer, written) in peers.iter().zip(written) {
                assert_same(&read(peer, written), &stretch(0, written));
                // And it goes on as if nothing had been.
                round_trip(peer, b"and on");
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(harness.handle.stats().live, 4);
        drop((quiet, peers));
        harness.settle();
        harness.finish();
    }

    fn an_end_of_stream_waits_for_what_was_held_back(backend) {
        let harness = start(backend, Framing::raw(), pausing(), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        let written = write_until_held_back(&peer, 64 << 20);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_same(&read_to_end(&peer), &stretch(0, written));
        assert_eq!(harness.log.closed(id), CloseReason::PeerClosed);
        harness.finish();
    }

    fn frames_that_wait_while_receiving_is_paused_come_whole_and_in_order(backend) {
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let harness = start(backend, framing, pausing(), Behaviour::echo());
        let peer = harness.connect();
        let mut wire = Vec::new();
        let mut length = 1usize;
        while wire.len() < 24 << 20 {
            wire.extend((length as u32).to_be_bytes());
            wire.extend(stretch(wire.len(), length));
            length = length * 7 % 65_521;
        }
        thread::scope(|scope| {
            scope.spawn(|| write(&peer, &wire));
            eventually("it is held back", || harness.handle.stats().receive_pauses > 0);
            assert_same(&read(&peer, wire.len()), &wire);
        });
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_full_queue_gives_the_frame_back_and_the_session_goes_on_when_it_pauses(backend) {
        let harness = start(backend, Framing::raw(), pausing(), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        let frame = vec![9; 50_000];
        let mut accepted = 0;
        loop {
            match harness.handle.try_send(id, &frame[..]) {
                Ok(()) => accepted += frame.len(),
                Err(SendError::Full { bytes, .. }) => {
                    assert_eq!(bytes, &frame[..]);
                    break;
                }
                Err(refusal) => panic!("{refusal}"),
            }
        }
        assert_same(&read(&peer, accepted), &vec![9; accepted]);
        round_trip(&peer, b"still here");
        drop(peer);
        assert_eq!(harness.log.closed(id), CloseReason::PeerClosed);
        harness.finish();
    }

    fn a_frame_that_could_never_be_sent_is_told_apart_from_one_that_cannot_now(backend) {
        let harness = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        let (_peer, id) = harness.connect_known();
        let huge = vec![0; QUEUE_MAX + 1];
        let refusal = harness.handle.try_send(id, &huge).unwrap_err();
        assert_eq!(refusal, SendError::TooLarge { bytes: &huge, max: QUEUE_MAX });
        harness.handle.try_send(id, &huge[1..]).unwrap();
        assert_eq!(harness.log.record(id).closed, None);
        harness.finish();
    }

    fn what_waits_in_receive_queues_has_a_bound_for_all(backend) {
        let prefix = LengthPrefix::default().frame_bytes_max(1 << 20);
        let options = one_worker().with(|options| {
options.receiving.queues_bytes_max = Some((1 << 20) + 4);
});
        let harness =
            start(backend, Framing::length_prefixed(prefix), options, Behaviour::silent());
        let mut unfinished = vec![0; 900_000];
        unfinished[..4].copy_from_slice(&1_000_000u32.to_be_bytes());
        let (first, first_id) = harness.connect_known();
        write(&first, &unfinished);
        eventually("it waits", || harness.handle.stats().received_bytes == 900_000);
        let (second, second_id) = harness.connect_known();
        let _ = (&second).write_all(&unfinished);
        let reason = harness.log.closed(second_id);
        assert!(matches!(reason, CloseReason::ReceiveQueueFull { .. }), "{reason}");
        write(&first, &[0; 100_004]);
        harness.log.wait("the frame is whole", |ledger| {
            (ledger.records[&first_id].received_bytes == 1_000_000).then_some(())
        });
        drop(first);
        harness.settle();
        harness.finish();
    }

    fn who_has_no_room_for_the_rest_of_its_share_takes_no_others_turn_and_no_others_room(backend) {
        let (peer_count, count) = (41, 30_000);
        let prefix = LengthPrefix::default().frame_bytes_max(100);
        let options = one_worker().with(|options| {
            // Less than comes in a turn; on Windows each session receives into memory of its own.
            let bytes_max = if cfg!(windows) { 1 << 20 } else { 60_000 };
            options.receiving.queues_bytes_max = Some(bytes_max);
        });
        let harness =
            start(backend, Framing::length_prefixed(prefix), options, Behaviour::silent());
        let peers: Vec<_> = (0..peer_count).map(|_| harness.connect_known()).collect();
        let frames = [0, 0, 0, 4, 1, 2, 3, 4].repeat(count as usize);
        thread::scope(|scope| {
            for (peer, _) in &peers {
                scope.spawn(|| write(peer, &frames));
            }
        });
        for (_, id) in &peers {
            harness.log.wait("all has come", |ledger| {
                let record = &ledger.records[id];
                assert_eq!(record.closed, None);
                (record.frame_count == count).then_some(())
            });
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }
}
