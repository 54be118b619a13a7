//! Whoever has spoken is not ended for silence, and whoever reads is not ended for not reading, however
//! late the server sees it: a callback blocks, a crowd waits, the kernel tells of room late.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, Backpressure, Close, CloseReason, FirstFrameTimeout, Framing, LengthPrefix};

/// More than one `wait` returns on any port.
const CROWD: usize = 1_500;

const LIMIT: Duration = Duration::from_secs(1);
const BLOCKED: Duration = Duration::from_millis(1_500);

/// What makes a callback block for [`BLOCKED`].
const BLOCK: u8 = b'B';

/// Answers what it gets; a frame that begins with [`BLOCK`] is a callback that blocks, and says so before.
fn blocking_echo() -> (Behaviour, mpsc::Receiver<()>) {
    let (blocks, is_blocking) = mpsc::channel();
    let behaviour = Behaviour::silent().on_received(move |session, frame| {
        if frame[0] == BLOCK {
            let _ = blocks.send(());
            std::thread::sleep(BLOCKED);
        }
        session.send(frame);
    });
    (behaviour, is_blocking)
}

/// Waits until the server has answered all that a peer has sent it.
fn answered(peer: &TcpStream, word: &[u8]) {
    write(peer, b"!");
    let mut read = peer;
    let mut byte = [0; 4_096];
    loop {
        let count = read.read(&mut byte).unwrap();
        assert!(count > 0, "the server has ended it");
        if byte[..count].contains(&b'!') {
            return;
        }
        assert!(byte[..count].iter().all(|byte| word.contains(byte)));
    }
}

on_every_backend! {
    fn of_a_crowd_that_speaks_while_a_callback_blocks_nobody_is_idle(backend) {
        let options = one_worker().with(|options| {
options.time.idle_timeout = Some(LIMIT);
});
        let (behaviour, is_blocking) = blocking_echo();
        let harness = start(backend, Framing::raw(), options, behaviour);
        let crowd = if under_wine() { 41 } else { CROWD };
        // The first speaks from the start: else it would be idle before the last has come.
        let mut peers = vec![harness.connect()];
        while peers.len() < crowd {
            let connect = || (0..250).map(|_| harness.connect()).collect::<Vec<_>>();
            peers.extend(while_all_speak(&peers, b"x", LIMIT / 5, connect));
        }
        while_all_speak(&peers, b"x", LIMIT / 5, || {
            write(&peers[0], &[BLOCK]);
            is_blocking.recv_timeout(BOUND).unwrap();
            answered(&peers[0], b"xB");
            // In turns of its own, with time-outs between them, the worker hears all others.
            peers[1..].iter().for_each(|peer| answered(peer, b"x"));
        });
        assert_eq!(harness.handle.stats().closed, 0);
        harness.finish();
    }

    fn of_a_crowd_whose_first_frames_came_while_a_callback_blocked_nobody_is_late(backend) {
        let options =
            one_worker().with(|options| {
options.time.first_frame_timeout = FirstFrameTimeout::After(LIMIT);
});
        let (behaviour, is_blocking) = blocking_echo();
        let harness = start(backend, Framing::length_prefixed(LengthPrefix::default()), options, behaviour);
        let (blocker, _) = harness.connect_known();
        round_trip(&blocker, b"\0\0\0\x01x");
        let crowd = if under_wine() { 41 } else { CROWD };
        let mut peers = Vec::new();
        // So many as open well within the time, for it runs.
        let began = Instant::now();
        while peers.len() < crowd && began.elapsed() < LIMIT / 3 {
            peers.push(harness.connect());
        }
        let connected = peers.len();
        harness.log.wait("all open", |ledger| (ledger.ids.len() > connected).then_some(()));
        write(&blocker, &[0, 0, 0, 1, BLOCK]);
        is_blocking.recv_timeout(BOUND).unwrap();
        peers.iter().for_each(|peer| write(peer, b"\0\0\0\x01y"));
        peers.iter().for_each(|peer| assert_eq!(read(peer, 5), b"\0\0\0\x01y"));
        assert_eq!(harness.handle.stats().closed, 0);
        harness.finish();
    }

    fn a_first_frame_that_comes_in_pieces_without_a_pause_is_late_all_the_same(backend) {
        let options =
            one_worker().with(|options| {
options.time.first_frame_timeout = FirstFrameTimeout::After(LIMIT / 4);
});
        let prefix = LengthPrefix::default().frame_bytes_max(1 << 24);
        let framing = Framing::length_prefixed(prefix);
        let harness = start(backend, framing, options, Behaviour::echo());
        let (mut loris, id) = harness.connect_known();
        // A frame of 16 MiB, a few bytes at a time: something waits whenever it is looked.
        write(&loris, &[0, 255, 255, 255]);
        while harness.log.look(|ledger| ledger.closed_by(id)).is_none() {
            let _ = loris.write(&[1; 8]);
        }
        assert_eq!(harness.log.closed(id), CloseReason::FirstFrameTimeout);
        harness.finish();
    }

    fn the_silent_end_while_others_keep_the_worker_busy(backend) {
        let options = one_worker().with(|options| {
options.time.idle_timeout = Some(LIMIT / 4);
});
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let busy: Vec<_> = (0..41).map(|_| harness.connect()).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = SetOnDrop(&is_over);
            for peers in busy.chunks(11) {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        peers.iter().for_each(|peer| write(peer, &[1; 100]));
                        peers.iter().for_each(|peer| drop(read(peer, 100)));
                    }
                });
            }
            let silent: Vec<_> = (0..41).map(|_| harness.connect_known()).collect();
            for (peer, id) in &silent {
                assert_eq!(harness.log.closed(*id), CloseReason::IdleTimeout);
                wait_ended(peer);
            }
            drop(over);
        });
        assert_eq!(harness.handle.stats().closed, 41);
        harness.finish();
    }

    fn a_peer_that_reads_slowly_and_without_a_pause_has_not_stalled(backend) {
        if cfg!(not(target_os = "linux")) {
            return; // the system does not say what a peer has taken
        }
        let stall = Duration::from_secs(3);
        let options = one_worker().with(|options| {
options.time.send_stall_timeout = Some(stall);
options.sending.queue_bytes_max = 64 << 20;
options.receiving.backpressure = Backpressure::None;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (reader, reader_id) = harness.connect_known();
        let (_stalled, stalled_id) = harness.connect_known();
        let frame = vec![7; 32 << 20];
        let began = Instant::now();
        harness.handle.send(reader_id, &frame).unwrap();
        harness.handle.send(stalled_id, &frame).unwrap();
        // 80 KiB/s: too slowly for the kernel to find a third of its buffer free within the time.
        while began.elapsed() < 4 * stall {
            drop(read(&reader, 8 << 10));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(harness.log.record(reader_id).closed, None);
        assert_eq!(harness.log.closed(stalled_id), CloseReason::SendStallTimeout);
        harness.finish();
    }

    fn a_drain_that_the_peer_does_not_read_ends_in_its_time(backend) {
        let options = one_worker().with(|options| {
options.time.drain_timeout = Some(LIMIT / 2);
options.time.send_stall_timeout = None;
options.time.close_linger = Duration::from_secs(3_600);
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let began = Instant::now();
        let (_dead, id) = harness.connect_known();
        harness.handle.send(id, vec![7; 32 << 20]).unwrap();
        assert!(harness.handle.close(id, Close::Drain));
        assert_eq!(harness.log.closed(id), CloseReason::DrainTimeout);
        assert!(began.elapsed() >= LIMIT / 2);
        harness.finish();
    }

    fn the_linger_begins_when_all_has_left(backend) {
        let options = one_worker().with(|options| {
options.time.drain_timeout = Some(BOUND);
options.time.close_linger = LIMIT / 4;
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (peer, id) = harness.connect_known();
        harness.handle.send(id, vec![7; 16 << 20]).unwrap();
        assert!(harness.handle.close(id, Close::Drain));
        std::thread::sleep(LIMIT); // longer than it would linger, and the bytes have not left
        assert_eq!(read_to_end(&peer).len(), 16 << 20);
        assert_eq!(harness.log.closed(id), CloseReason::Local);
        drop(peer);
        harness.finish();
    }

    fn one_that_floods_has_no_more_than_its_share_of_a_turn(backend) {
        const FLOOD: usize = 20_000;
        let (blocks, is_blocking) = mpsc::channel();
        let (goes_on, may_go_on) = mpsc::channel();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let noted = order.clone();
        let behaviour = Behaviour::silent().on_received(move |session, frame| {
            match frame {
                b"block" => {
                    blocks.send(()).unwrap();
                    lock(&may_go_on).recv_timeout(BOUND).unwrap();
                }
                _ => lock(&noted).push((session.id(), frame.len())),
            }
        });
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let harness = start(backend, framing, one_worker(), behaviour);
        let (blocker, _) = harness.connect_known();
        let (flooder, flooder_id) = harness.connect_known();
        let others: Vec<_> = (0..41).map(|_| harness.connect()).collect();
        harness.log.opened(42);
        write(&blocker, b"\0\0\0\x05block");
        is_blocking.recv_timeout(BOUND).unwrap();
        // Ten thousand lie there before the others come.
        let flood: Vec<u8> = b"\0\0\0\x01f".repeat(FLOOD / 2);
        write(&flooder, &flood);
        let flooding = std::thread::spawn(move || {
            write(&flooder, &flood);
            flooder
        });
        others.iter().for_each(|peer| write(peer, b"\0\0\0\x02hi"));
        goes_on.send(()).unwrap();
        eventually("all frames come", || lock(&order).len() == FLOOD + 41);
        let order = std::mem::take(&mut *lock(&order));
        assert_eq!(order.iter().filter(|(id, _)| *id == flooder_id).count(), FLOOD);
        let is_other = |(id, length): &(wharf::SessionId, usize)| *id != flooder_id && *length == 2;
        let last_of_others = order.iter().rposition(is_other).unwrap();
        // They come within a few turns of the flooder's first frame.
        assert!(last_of_others < 41 + 1_000, "{last_of_others} frames came before the last of the others'");
        drop(flooding.join().unwrap());
        harness.finish();
    }

    fn one_that_floods_and_then_falls_silent_is_idle(backend) {
        let options =
            one_worker().with(|options| {
options.time.idle_timeout = Some(LIMIT / 2);
options.time.send_stall_timeout = None;
});
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let harness = start(backend, framing, options, Behaviour::silent());
        let (flooder, id) = harness.connect_known();
        // Its timer fires while it has had its share of a turn and more waits.
        let flood = b"\0\0\0\x01f".repeat(50_000);
        let began = Instant::now();
        while began.elapsed() < 2 * LIMIT {
            write(&flooder, &flood);
        }
        assert_eq!(harness.log.closed(id), CloseReason::IdleTimeout);
        harness.finish();
    }
}
