//! What a thread sends in one go.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::*;
use wharf::{Backend, Group, Options};

const PEERS: usize = 41;
const FRAMES: u32 = 20;
const ROOM: Group = Group(7);

on_every_backend! {
    fn all_frames_of_a_session_leave_in_one_send_in_their_order(backend) {
        let options = Options::default().workers(3);
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        let handle = &harness.handle;
        for (_, id) in &peers {
            assert!(handle.join(*id, ROOM).unwrap());
        }
        // What the joins have asked of the workers is done.
        handle.publish(ROOM, b"ready").unwrap();
        peers.iter().for_each(|(peer, _)| assert_eq!(read_frame(peer), b"ready"));
        eventually("it has been counted", || handle.stats().sends == PEERS as u64);
        let before = handle.stats().sends;
        handle.gather(|| {
            for number in 0..FRAMES {
                for (_, id) in &peers {
                    handle.send(*id, number.to_be_bytes()).unwrap();
                }
            }
            handle.publish(ROOM, b"to all").unwrap();
            handle.gather(|| handle.send(peers[0].1, b"and within").unwrap());
        });
        for (nth, (peer, _)) in peers.iter().enumerate() {
            for number in 0..FRAMES {
                assert_eq!(read_frame(peer), number.to_be_bytes());
            }
            if nth == 0 {
                assert_eq!(read_frame(peer), b"and within");
            }
            assert_eq!(read_frame(peer), b"to all");
        }
        let sent_frames = PEERS as u64 * u64::from(FRAMES + 2) + 1;
        eventually("it has been counted", || handle.stats().sent_frames == sent_frames);
        assert_eq!(handle.stats().sends - before, PEERS as u64);
        // Afterwards each leaves by itself again.
        handle.send(peers[0].1, b"alone").unwrap();
        assert_eq!(read_frame(&peers[0].0), b"alone");
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn what_was_sent_before_a_panic_leaves(backend) {
        let harness = start(backend, length_framing(), one_worker(), Behaviour::silent());
        let (peer, id) = harness.connect_known();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            harness.handle.gather(|| {
                harness.handle.send(id, b"before").unwrap();
                panic_on_purpose();
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(read_frame(&peer), b"before");
        // Another server's mail is no business of the one that gathers.
        let other = start(backend, length_framing(), one_worker(), Behaviour::silent());
        let (others_peer, others_id) = other.connect_known();
        harness.handle.gather(|| {
            other.handle.send(others_id, b"at once").unwrap();
            assert_eq!(read_frame(&others_peer), b"at once");
        });
        drop((peer, others_peer));
        other.settle();
        other.finish();
        harness.settle();
        harness.finish();
    }
}
