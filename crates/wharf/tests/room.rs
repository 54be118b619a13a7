//! A handler that is told of room in its send queue.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use support::*;
use wharf::options::FirstFrameTimeout;
use wharf::{Backend, Backpressure, CloseReason, Handler, Options, SendError, Server, Session};

const PEERS: usize = 41;
const QUEUE_MAX: usize = 256 * 1024;

/// Sends each peer what it asks for: so many frames of so many bytes, as there is room for them.
#[derive(Default)]
struct Store {
    /// Calls of `writable`.
    told: AtomicU64,
    closed: Mutex<Vec<CloseReason>>,
}

#[derive(Default)]
struct Owed {
    frames: u32,
    bytes: u32,
}

impl Store {
    fn go_on(&self, session: &Session, owed: &mut Owed) {
        let frame = vec![owed.bytes as u8; owed.bytes as usize];
        while owed.frames > 0 {
            match session.try_send(&frame) {
                Ok(()) => owed.frames -= 1,
                Err(SendError::Full { .. } | SendError::Gone(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Handler for Store {
    type State = Owed;

    fn opened(&self, _: &Session) -> Owed {
        Owed::default()
    }

    fn received(&self, session: &Session, owed: &mut Owed, frame: &[u8]) {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        owed.frames += word(0);
        owed.bytes = word(4);
        self.go_on(session, owed);
    }

    fn writable(&self, session: &Session, owed: &mut Owed) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.go_on(session, owed);
    }

    fn closed(&self, _: &Session, _: Owed, reason: CloseReason) {
        lock(&self.closed).push(reason);
    }
}

fn start_store(backend: Backend, options: Options) -> (Server, Arc<Store>) {
    let store = Arc::new(Store::default());
    // On a busy machine a peer may be late with its first frame.
    let options =
        options.with(|options| options.time.first_frame_timeout = FirstFrameTimeout::Never);
    let builder = Server::builder().listen("127.0.0.1:0").framing(length_framing());
    let server = builder.options(options).backend(backend).start(store.clone()).unwrap();
    (server, store)
}

fn asks(frames: u32, bytes: u32) -> Vec<u8> {
    wire_default(&[frames.to_be_bytes(), bytes.to_be_bytes()].concat())
}

on_every_backend! {
    fn what_does_not_fit_at_once_leaves_as_there_is_room_and_nobody_is_told_in_vain(backend) {
        for policy in [Backpressure::None, Backpressure::PauseReceive] {
            let options = Options::default().workers(3).with(|options| {
                options.receiving.backpressure = policy;
                options.sending.queue_bytes_max = QUEUE_MAX;
            });
            let (server, store) = start_store(backend, options);
            let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
            // 5,000 small frames, 100 of 10 kB, 20 of a quarter of the queue each.
            let wanted = [(5_000, 100), (100, 10_000), (20, 60_000)];
            std::thread::scope(|scope| {
                for peer in &peers {
                    scope.spawn(move || {
                        for (frames, bytes) in wanted {
                            write(peer, &asks(frames, bytes));
                            for _ in 0..frames {
                                let frame = read_frame(peer);
                                assert_eq!(frame.len(), bytes as usize);
                                assert!(frame.iter().all(|byte| *byte == bytes as u8));
                            }
                        }
                    });
                }
            });
            let told = store.told.load(Ordering::Relaxed);
            assert!(told > 0, "the queue is smaller than what was asked for");
            // Each call found room for a frame at least: there are no more calls than frames.
            assert!(told <= PEERS as u64 * (5_000 + 100 + 20), "{told}");
            drop(peers);
            eventually("they end", || lock(&store.closed).len() == PEERS);
            assert!(lock(&store.closed).iter().all(|reason| *reason == CloseReason::PeerClosed));
        }
    }

    fn a_peer_that_reads_nothing_makes_no_worker_busy(backend) {
        let (server, store) = start_store(backend, Options::default().workers(1));
        let (stuck, other) = (connect(server.addresses()[0]), connect(server.addresses()[0]));
        write(&stuck, &asks(1_000, 60_000));
        write(&other, &asks(10, 10));
        (0..10).for_each(|_| drop(read_frame(&other)));
        let handle = server.handle();
        let mut told = store.told.load(Ordering::Relaxed);
        eventually("the kernel takes no more", || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            std::mem::replace(&mut told, store.told.load(Ordering::Relaxed)) == told
        });
        // With nothing to do the worker takes no turns: a busy loop would take thousands in this time.
        let turns = || handle.histograms().turn_ns.count();
        let before = turns();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let taken = turns() - before;
        assert!(taken < 50, "{taken} turns of an idle worker");
        assert_eq!(store.told.load(Ordering::Relaxed), told, "nothing has left");
        write(&other, &asks(1, 10));
        read_frame(&other);
    }

    fn a_small_buffer_of_the_kernels_leaves_the_waiting_to_the_send_queue(backend) {
        let taken = |kernel_bytes: Option<usize>| {
            let options = Options::default().workers(1).with(|options| {
                options.sending.kernel_bytes = kernel_bytes;
                options.sending.kernel_unsent_bytes = kernel_bytes.filter(|_| cfg!(target_os = "linux"));
            });
            let harness = start(backend, wharf::Framing::raw(), options, Behaviour::silent());
            let (deaf, id) = harness.connect_known();
            let (mut bytes, mut moved) = (0, std::time::Instant::now());
            while moved.elapsed() < std::time::Duration::from_millis(200) {
                match harness.handle.try_send(id, vec![1; 16 * 1024]) {
                    Ok(()) => (bytes, moved) = (bytes + 16 * 1024, std::time::Instant::now()),
                    Err(SendError::Full { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            drop(deaf);
            harness.settle();
            harness.finish();
            bytes
        };
        let (small, usual) = (taken(Some(16 * 1024)), taken(None));
        assert!(small + (1 << 20) < usual, "{small} bytes were taken, {usual} without the option");
    }

    fn who_asks_for_room_again_and_again_has_a_share_of_the_turn_and_no_more(backend) {
        struct Greedy(AtomicU64);
        impl Handler for Greedy {
            type State = ();
            fn opened(&self, _: &Session) {}
            fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
                if frame == b"greedy" {
                    session.notify_writable(1);
                } else {
                    session.send(frame);
                }
            }
            fn writable(&self, session: &Session, (): &mut ()) {
                assert!(session.room() > 0);
                self.0.fetch_add(1, Ordering::Relaxed);
                session.notify_writable(usize::MAX); // as much as there can be: there is
            }
        }
        let builder = Server::builder().listen("127.0.0.1:0").framing(length_framing());
        let greedy = Arc::new(Greedy(AtomicU64::new(0)));
        let server = builder.workers(1).backend(backend).start(greedy.clone()).unwrap();
        let (peer, other) = (connect(server.addresses()[0]), connect(server.addresses()[0]));
        write(&peer, &wire_default(b"greedy"));
        for _ in 0..100 {
            let before = greedy.0.load(Ordering::Relaxed);
            write(&other, &wire_default(b"served all the same"));
            assert_eq!(read_frame(&other), b"served all the same");
            eventually("it goes on", || greedy.0.load(Ordering::Relaxed) > before);
        }
        server.handle().stop();
        server.wait().unwrap();
    }

    fn nobody_is_told_of_room_after_a_close(backend) {
        let (server, store) = start_store(backend, Options::default().workers(2));
        let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
        peers.iter().for_each(|peer| write(peer, &asks(1_000, 60_000)));
        // A drain resets connections that no worker has accepted yet.
        eventually("all are open, and their queues full", || {
            let stats = server.handle().stats();
            let full = PEERS as u64 * (QUEUE_MAX as u64 / 2);
            stats.live == PEERS as u64 && stats.queued_bytes > full
        });
        let handle = server.handle();
        let report = std::thread::scope(|scope| {
            for peer in &peers {
                scope.spawn(move || read_to_end(peer)); // so that there is room
            }
            handle.drain(BOUND).unwrap()
        });
        assert_eq!(report.live, PEERS as u64);
        let told = store.told.load(Ordering::Relaxed);
        drop(server);
        assert_eq!(store.told.load(Ordering::Relaxed), told);
    }
}
