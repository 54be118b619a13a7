//! Members that have no room for a publication: it waits for them, in order.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::TcpStream;

use socket2::SockRef;
use support::*;
use wharf::{
    Backend, Close, CloseReason, Farewell, FirstFrameTimeout, Group, Options, Policy, PublishError,
    SendError, SessionId,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);

fn options(workers: usize) -> Options {
    Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 64 * 1024;
    })
}

fn numbered(number: u32) -> Vec<u8> {
    let mut frame = vec![1; 1024];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A peer for which the kernel holds little.
fn connect_narrow(harness: &Harness) -> (TcpStream, SessionId) {
    let (peer, id) = harness.connect_known();
    SockRef::from(&peer).set_recv_buffer_size(16 * 1024).unwrap();
    (peer, id)
}

on_every_backend! {
    fn a_burst_reaches_every_member_that_reads_whole_and_in_order(backend) {
        const FRAMES: u32 = 3_000;
        for workers in [1, 3] {
            let harness = start(backend, length_framing(), options(workers), Behaviour::silent());
            let handle = &harness.handle;
            let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
            peers.iter().for_each(|(_, id)| assert!(handle.join(*id, ROOM).unwrap()));
            std::thread::scope(|scope| {
                for (peer, _) in &peers {
                    scope.spawn(move || {
                        for number in 0..FRAMES {
                            let frame = read_frame(peer);
                            assert_eq!(frame.len(), 1024);
                            assert_eq!(frame[..4], number.to_be_bytes());
                        }
                    });
                }
                for number in 0..FRAMES {
                    let mut frame = vec![1; 1024];
                    frame[..4].copy_from_slice(&number.to_be_bytes());
                    while let Err(error) = handle.publish(ROOM, &frame) {
                        assert!(matches!(error, PublishError::Full { .. }), "{error}");
                        std::thread::yield_now();
                    }
                }
            });
            drop(peers);
            harness.settle();
            harness.finish();
        }
    }

    fn who_closes_or_finishes_while_it_lacks_something_gets_it_before_the_end(backend) {
        const FRAMES: u32 = 1_000;
        for workers in [1, 3] {
            let options = options(workers).with(|options| {
                options.sending.slow_after = BOUND; // nobody reads at first
                options.sending.kernel_bytes = Some(16 * 1024);
                options.time.drain_timeout = None;
            });
            let harness = start(backend, length_framing(), options, Behaviour::silent());
            let handle = &harness.handle;
            let peers: Vec<_> = (0..PEERS).map(|_| connect_narrow(&harness)).collect();
            peers.iter().for_each(|(_, id)| assert!(handle.join(*id, ROOM).unwrap()));
            for number in 0..FRAMES {
                handle.publish(ROOM, numbered(number)).unwrap();
            }
            eventually("they lack something", || {
                handle.stats().members_behind == PEERS as u64
            });
            for (at, (_, id)) in peers.iter().enumerate() {
                match at % 3 {
                    0 => assert!(handle.close(*id, Close::Drain)),
                    1 => assert!(handle.finish(*id)),
                    _ => {
                        let farewell = Farewell::new(7).frame(b"bye");
                        assert_eq!(handle.close_with(*id, farewell), Ok(true));
                    }
                }
                assert!(handle.leave(*id, ROOM).is_none_or(|left| left < PEERS));
            }
            std::thread::scope(|scope| {
                for (at, (peer, _)) in peers.iter().enumerate() {
                    scope.spawn(move || {
                        for number in 0..FRAMES {
                            assert_eq!(read_frame(peer)[..4], number.to_be_bytes());
                        }
                        if at % 3 == 2 {
                            assert_eq!(read_frame(peer), b"bye");
                        }
                        assert!(read_to_end(peer).is_empty());
                    });
                }
            });
            drop(peers);
            harness.settle();
            harness.finish();
        }
    }

    fn a_send_to_one_that_lacks_something_keeps_its_place_and_never_ends_it(backend) {
        const FRAMES: u32 = 1_000;
        let options = options(1).with(|options| {
            options.sending.slow_after = BOUND;
            options.sending.kernel_bytes = Some(16 * 1024);
        });
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let handle = &harness.handle;
        let peers: Vec<_> = (0..PEERS).map(|_| connect_narrow(&harness)).collect();
        peers.iter().for_each(|(_, id)| assert!(handle.join(*id, ROOM).unwrap()));
        for number in 0..FRAMES {
            handle.publish(ROOM, numbered(number)).unwrap();
        }
        eventually("they lack something", || handle.stats().members_behind == PEERS as u64);
        for (_, id) in &peers {
            assert_eq!(handle.room(*id), Some(0));
            let refused = handle.try_send(*id, b"refused");
            assert!(matches!(refused, Err(SendError::Full { .. })), "{refused:?}");
            for number in 0..10 {
                handle.send(*id, [number]).unwrap();
            }
        }
        std::thread::scope(|scope| {
            for (peer, _) in &peers {
                scope.spawn(move || {
                    for number in 0..FRAMES {
                        assert_eq!(read_frame(peer)[..4], number.to_be_bytes());
                    }
                    for number in 0..10 {
                        assert_eq!(read_frame(peer), [number]);
                    }
                });
            }
        });
        eventually("they have room", || {
            peers.iter().all(|(_, id)| handle.room(*id) == Some(64 * 1024))
        });
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn who_waits_to_publish_gets_the_room_of_members_for_which_nothing_leaves(backend) {
        let options = options(1).with(|options| {
            options.sending.publications_bytes_max = 256 * 1024;
            options.sending.slow_after = std::time::Duration::from_millis(300);
        });
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let handle = &harness.handle;
        // It is never slow, and what it lacks has no keys: it would lack that for ever.
        let (_deaf, id) = harness.connect_known();
        assert!(handle.join_with(id, ROOM, Policy::KeepLatest).unwrap());
        while harness.log.look(|ledger| ledger.closed_by(id)).is_none() {
            if handle.publish(ROOM, [1; 1024]).is_ok() {
                continue;
            }
            let (tell, told) = std::sync::mpsc::channel();
            handle.call_when_room_to_publish(move |room| tell.send(room).unwrap()).unwrap();
            assert_eq!(told.recv_timeout(BOUND), Ok(Ok(())));
        }
        assert!(matches!(harness.log.closed(id), CloseReason::SlowConsumer { .. }));
        harness.settle();
        harness.finish();
    }
}
