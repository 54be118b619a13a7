//! A program that pauses the receiving of its sessions, and resumes it.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, Backpressure, Close, CloseReason, FirstFrameTimeout, Options};

const PEERS: u32 = 41;

/// Writes so many frames, each with its number.
fn write_numbers(peer: &TcpStream, count: u32) {
    let wire: Vec<u8> = (0..count).flat_map(|number| wire_default(&number.to_be_bytes())).collect();
    write(peer, &wire);
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| u32::from_be_bytes(frame[..].try_into().unwrap())).collect()
}

fn three_workers() -> Options {
    Options::default().workers(3)
}

on_every_backend! {
    fn a_session_that_pauses_itself_gets_no_further_frame_until_it_is_resumed_and_loses_none(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            if frame == 4_u32.to_be_bytes() {
                session.pause_receiving();
                session.pause_receiving(); // calls are not counted
            }
        });
        let harness = start(backend, length_framing(), three_workers(), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, _) in &peers {
            write_numbers(peer, 100);
        }
        for (_, id) in &peers {
            harness.log.wait("it pauses", |ledger| {
                let has_paused = |record: &&Record| record.frame_count >= 5 && !record.inside;
                ledger.records.get(id).filter(has_paused).map(|_| ())
            });
            assert_eq!(harness.log.record(*id).frame_count, 5, "what came with it must wait");
        }
        for (_, id) in &peers {
            assert_eq!(harness.log.record(*id).frame_count, 5);
            assert!(harness.handle.resume_receiving(*id));
        }
        for (_, id) in &peers {
            harness.log.wait("all has come", |ledger| {
                ledger.records.get(id).filter(|record| record.frame_count == 100).map(|_| ())
            });
            let frames = numbers(&harness.log.record(*id).frames);
            assert!(frames.iter().copied().eq(0..frames.len() as u32), "{frames:?}");
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_thread_pauses_a_peer_that_floods_and_tcp_holds_it_back(backend) {
        let harness = start(backend, length_framing(), three_workers(), Behaviour::silent());
        let (flooding, id) = harness.connect_known();
        let (other, _) = harness.connect_known();
        assert!(harness.handle.pause_receiving(id));
        let frame_count = |id| harness.log.record(id).frame_count;
        // What was on its way when it was asked is all that may still come: it takes no more.
        let mut wire = Vec::new();
        (0..200_000_u32).for_each(|number| wire.extend(wire_default(&number.to_be_bytes())));
        let mut written = 0;
        flooding.set_nonblocking(true).unwrap();
        let mut stuck_since = Instant::now();
        while written < wire.len() && stuck_since.elapsed() < Duration::from_millis(500) {
            match std::io::Write::write(&mut &flooding, &wire[written..]) {
                Ok(count) => (written, stuck_since) = (written + count, Instant::now()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(frame_count(id), 0, "it was paused before the first");
        write_numbers(&other, 1);
        eventually("the other is served", || harness.handle.stats().received_frames == 1);
        assert_eq!(frame_count(id), 0);
        flooding.set_nonblocking(false).unwrap();
        let handle = harness.handle.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| write(&flooding, &wire[written..]));
            assert!(handle.resume_receiving(id));
            harness.log.wait("all has come", |ledger| {
                ledger.records.get(&id).filter(|record| record.frame_count == 200_000).map(|_| ())
            });
        });
        drop((flooding, other));
        harness.settle();
        harness.finish();
    }

    fn a_pause_of_the_programs_and_one_of_the_queues_each_have_their_own_end(backend) {
        let options = three_workers().with(|options| {
            options.receiving.backpressure = Backpressure::PauseReceive;
            options.sending.queue_bytes_max = 256 * 1024;
        });
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let (peer, id) = harness.connect_known();
        harness.handle.pause_receiving(id);
        // Beyond the mark at which receiving pauses for the queue, whatever the kernel takes.
        while harness.handle.try_send(id, vec![7; 60_000]).is_ok() {}
        write_numbers(&peer, 3);
        // The queue empties: the program's pause stays.
        let mut rest = peer.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || std::io::copy(&mut rest, &mut std::io::sink()).unwrap());
            eventually("it has left", || harness.handle.queued_bytes(id) == Some(0));
            assert_eq!(harness.log.record(id).frame_count, 0);
            harness.handle.resume_receiving(id);
            harness.log.wait("they come", |ledger| {
                ledger.records.get(&id).filter(|record| record.frame_count == 3).map(|_| ())
            });
            peer.shutdown(Shutdown::Write).unwrap(); // what the kernel still holds may come
        });
        harness.settle();
        harness.finish();
    }

    fn no_time_out_counts_the_silence_of_a_pause(backend) {
        let limit = Duration::from_millis(150);
        let options = three_workers().with(|options| {
            options.time.idle_timeout = Some(limit);
            options.time.first_frame_timeout = FirstFrameTimeout::After(limit);
        });
        let behaviour = Behaviour::silent().on_opened(wharf::Session::pause_receiving);
        let harness = start(backend, length_framing(), options, behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, _) in &peers {
            write_numbers(peer, 1);
        }
        std::thread::sleep(4 * limit); // what must not happen in this time can only be waited out
        for (_, id) in &peers {
            assert!(harness.handle.is_open(*id), "{:?}", harness.log.record(*id).closed);
            harness.handle.resume_receiving(*id);
        }
        for (_, id) in &peers {
            harness.log.wait("it comes", |ledger| {
                ledger.records.get(id).filter(|record| record.frame_count == 1).map(|_| ())
            });
            // From then on it counts again.
            assert_eq!(harness.log.closed(*id), CloseReason::IdleTimeout);
        }
        harness.finish();
    }

    fn a_paused_session_ends_when_it_is_asked_to_and_its_peers_end_waits_for_what_came_before(backend) {
        let harness = start(backend, length_framing(), three_workers(), Behaviour::silent());
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, id) in &peers {
            harness.handle.pause_receiving(*id);
            write_numbers(peer, 9);
            peer.shutdown(Shutdown::Write).unwrap();
        }
        for (nth, (peer, id)) in peers.iter().enumerate() {
            assert!(harness.handle.is_open(*id));
            match nth % 3 {
                0 => {
                    harness.handle.resume_receiving(*id);
                    assert_eq!(harness.log.closed(*id), CloseReason::PeerClosed);
                    assert_eq!(harness.log.record(*id).frame_count, 9);
                }
                1 => {
                    harness.handle.send(*id, b"bye").unwrap();
                    harness.handle.close(*id, Close::Drain);
                    assert_eq!(read_to_end(peer), wire_default(b"bye"));
                    assert_eq!(harness.log.closed(*id), CloseReason::Local);
                }
                _ => {
                    harness.handle.close(*id, Close::Stop);
                    assert_eq!(harness.log.closed(*id), CloseReason::Local);
                }
            }
            assert!(!harness.handle.pause_receiving(*id) && !harness.handle.resume_receiving(*id));
        }
        harness.settle();
        harness.finish();
    }
}
