//! The budget for what waits to be sent in a whole server: peers that do not read use it up, and end; peers that
//! read get everything.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use support::*;
use wharf::{
    Backend, CloseReason, FirstFrameTimeout, Framing, Group, Options, PublishError, SendError,
    SessionId,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const ROOM: Group = Group(7);
const BUDGET: usize = 4 * MIB;
const READERS: usize = 5;
const STUCK: usize = 60;

fn options(workers: usize) -> Options {
    Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 256 * KIB;
        options.sending.queued_bytes_max = Some(BUDGET);
        // So that it is soon known who makes no progress, and not by the kernel's buffers. A tenth of it is longer
        // than TCP takes to send again what was lost (200 ms and more).
        options.sending.slow_after = Duration::from_secs(3);
        options.sending.kernel_bytes = Some(32 * KIB);
    })
}

/// Connects so many peers.
fn connect_known(harness: &Harness, count: usize) -> (Vec<TcpStream>, Vec<SessionId>) {
    (0..count).map(|_| harness.connect_known()).unzip()
}

/// What may wait beyond the budget: a reserve at each port, and a part of a page in each session.
fn beyond(workers: usize) -> usize {
    workers * MIB + (READERS + STUCK) * 4 * KIB
}

fn is_slow(harness: &Harness, id: SessionId) -> bool {
    matches!(harness.log.closed(id), CloseReason::SlowConsumer { .. })
}

on_every_backend! {
    fn who_reads_gets_every_publication_while_others_use_up_the_budget(backend) {
        const FRAMES: u32 = 4_000;
        const FRAME_BYTES: usize = 8 * KIB;
        for workers in [1, 3] {
            let harness = start(backend, length_framing(), options(workers), Behaviour::silent());
            let handle = &harness.handle;
            let (readers, reading) = connect_known(&harness, READERS);
            let (_unread, stuck) = connect_known(&harness, STUCK);
            for id in reading.iter().chain(&stuck) {
                assert!(handle.join(*id, ROOM).unwrap());
            }
            thread::scope(|scope| {
                for peer in &readers {
                    scope.spawn(move || {
                        for number in 0..FRAMES {
                            let frame = read_frame(peer);
                            assert_eq!(frame.len(), FRAME_BYTES);
                            assert_eq!(frame[..4], number.to_be_bytes());
                        }
                    });
                }
                for number in 0..FRAMES {
                    let mut frame = vec![1; FRAME_BYTES];
                    frame[..4].copy_from_slice(&number.to_be_bytes());
                    while let Err(error) = handle.publish(ROOM, &frame) {
                        assert!(matches!(error, PublishError::Full { .. }), "{error}");
                        wait_for_room_to_publish(handle).unwrap();
                    }
                    let queued = handle.stats().queued_bytes as usize;
                    assert!(queued <= BUDGET + beyond(workers), "{queued}");
                }
            });
            for id in stuck {
                assert!(is_slow(&harness, id));
            }
            drop(readers);
            harness.settle();
            harness.finish();
        }
    }

    // Not on Windows: under Wine, with two cores, those that do not read look for long as if they made progress, and use
    // what is kept beyond the budget; then a reader is refused.
    #[cfg(unix)]
    fn who_reads_is_sent_to_while_others_use_up_the_budget(backend) {
        let harness = start(backend, Framing::raw(), options(1), Behaviour::echo());
        let handle = &harness.handle;
        let (readers, _) = connect_known(&harness, READERS);
        let (_unread, stuck) = connect_known(&harness, STUCK);
        let over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            for peer in &readers {
                scope.spawn(|| {
                    let frame = vec![3; 24 * KIB];
                    while !over.load(Ordering::Relaxed) {
                        round_trip(peer, &frame);
                    }
                });
            }
            let frame = vec![7; 16 * KIB];
            let mut refused = 0;
            while stuck.iter().any(|id| handle.is_open(*id)) {
                for id in &stuck {
                    refused += usize::from(handle.try_send(*id, &frame[..]).is_err());
                    let queued = handle.stats().queued_bytes as usize;
                    assert!(queued <= BUDGET + beyond(1), "{queued}");
                }
                if stuck.iter().filter(|id| handle.is_open(**id)).count() <= BUDGET / (256 * KIB) {
                    break; // those that are left have room
                }
            }
            assert!(refused > 0);
        });
        let ended = stuck.iter().filter(|id| !handle.is_open(**id)).count();
        assert!(ended >= STUCK - BUDGET / (256 * KIB), "{ended}");
        drop(readers);
        drop(_unread);
        harness.settle();
        harness.finish();
    }

    fn who_was_refused_for_the_budget_is_told_when_there_is_room(backend) {
        const PEERS: usize = 100;
        const BYTES: usize = 64 * KIB;
        let options = options(1).with(|options| {
            options.sending.queue_bytes_max = BYTES;
            options.sending.queued_bytes_max = Some(BYTES);
        });
        let (said, ids) = mpsc::channel::<Vec<SessionId>>();
        let ids = std::sync::Mutex::new(ids);
        let (refused, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let behaviour = {
            let (refused, told) = (refused.clone(), told.clone());
            // In one callback, so nothing leaves meanwhile.
            Behaviour::silent().on_received(move |session, _| {
                let handle = session.handle().clone();
                for id in ids.lock().unwrap().recv().unwrap() {
                    send_when_room(&handle, id, &refused, &told);
                }
            })
        };
        let harness = start(backend, Framing::raw(), options, behaviour);
        let (peers, all) = connect_known(&harness, PEERS);
        let (starter, _) = harness.connect_known();
        said.send(all).unwrap();
        write(&starter, b"go");
        for peer in &peers {
            assert!(read(peer, BYTES) == [5; BYTES]);
        }
        assert!(refused.load(Ordering::Relaxed) >= PEERS - (MIB / BYTES + 1));
        assert!(told.load(Ordering::Relaxed) >= PEERS - (MIB / BYTES + 1));
        drop((peers, starter));
        harness.settle();
        harness.finish();

        fn send_when_room(
            handle: &wharf::Handle,
            id: SessionId,
            refused: &Arc<AtomicUsize>,
            told: &Arc<AtomicUsize>,
        ) {
            match handle.try_send(id, vec![5; BYTES]) {
                Ok(()) => {}
                Err(SendError::Full { .. }) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    let (again, refused, told) = (handle.clone(), refused.clone(), told.clone());
                    let call = move |room: Result<(), _>| {
                        room.unwrap();
                        told.fetch_add(1, Ordering::Relaxed);
                        send_when_room(&again, id, &refused, &told);
                    };
                    handle.call_when_room(id, BYTES, call).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
