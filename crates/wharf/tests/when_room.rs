//! Tasks and callbacks of other threads that wait for room in a send queue.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use support::*;
use wharf::{Backend, Close, FirstFrameTimeout, Handle, Options, RoomError, SendError, SessionId};

const PEERS: usize = 41;
const WAITERS_MAX: usize = 64;
const FRAME_BYTES: usize = 60_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// All the runtime there is.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn options() -> Options {
    Options::default().workers(3).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 2 * (FRAME_BYTES + 4);
    })
}

/// A peer that reads nothing, whose queue has no room for a frame, and the kernel takes no more.
fn full(harness: &Harness) -> (std::net::TcpStream, SessionId) {
    let (peer, id) = harness.connect_known();
    fill(&harness.handle, id);
    (peer, id)
}

fn fill(handle: &Handle, id: SessionId) {
    // Wine moves what waits in the kernel later, if something else runs beside it.
    let still = std::time::Duration::from_millis(if cfg!(windows) { 1_000 } else { 200 });
    let mut moved = std::time::Instant::now();
    while moved.elapsed() < still {
        match handle.try_send(id, vec![9; FRAME_BYTES]) {
            Ok(()) => moved = std::time::Instant::now(),
            Err(_) => std::thread::yield_now(),
        }
    }
}

on_every_backend! {
    fn tasks_send_far_more_than_a_queue_holds_and_each_waits_for_room(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        std::thread::scope(|scope| {
            for (peer, id) in &peers {
                // Three tasks compete for the room of one queue.
                for task in 0..3u8 {
                    scope.spawn(move || block_on(async move {
                        for nth in 0..10 {
                            let mut frame = vec![task; FRAME_BYTES - nth];
                            while let Err(error) = handle.try_send(*id, frame) {
                                let SendError::Full { bytes, .. } = error else { panic!("{error}") };
                                frame = bytes;
                                handle.when_room(*id, 4 + frame.len()).await.unwrap();
                            }
                        }
                    }));
                }
                scope.spawn(move || {
                    let mut next = [FRAME_BYTES; 3];
                    for _ in 0..30 {
                        let frame = read_frame(peer);
                        let task = usize::from(frame[0]);
                        assert_eq!(frame.len(), next[task], "in the order of each");
                        next[task] -= 1;
                    }
                });
            }
        });
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_callback_is_called_once_on_a_worker_when_there_is_room(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let (peer, id) = full(&harness);
        let caller = std::thread::current().id();
        let (tell, told) = channel();
        for wanted in [FRAME_BYTES + 4, usize::MAX] {
            let (tell, handle) = (tell.clone(), handle.clone());
            handle.clone().call_when_room(id, wanted, move |room| {
                assert_ne!(std::thread::current().id(), caller);
                // It may use the handle, and ask again.
                assert_eq!(room, Ok(()));
                let wanted = wanted.min(2 * (FRAME_BYTES + 4));
                assert!(handle.room(id).is_some_and(|room| room >= wanted));
                assert!(handle.call_when_room(id, 1, |_| {}).is_ok());
                tell.send(wanted).unwrap();
            }).unwrap();
        }
        assert!(told.try_recv().is_err(), "there is no room");
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::copy(&mut &peer, &mut std::io::sink()));
            let mut rest = [(); 2].map(|()| told.recv_timeout(BOUND).unwrap());
            rest.sort_unstable();
            assert_eq!(rest, [FRAME_BYTES + 4, 2 * (FRAME_BYTES + 4)]);
            handle.close(id, Close::Drain);
        });
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn who_waits_when_a_session_ends_is_told_however_it_ends(backend) {
        type End = fn(&Harness, SessionId, &mut Option<std::net::TcpStream>);
        let ends: [End; 5] = [
            |harness, id, _| assert!(harness.handle.close(id, Close::Stop)),
            |harness, id, _| assert!(harness.handle.close(id, Close::Drain)),
            |harness, id, _| assert!(harness.handle.finish(id)),
            |harness, id, _| drop(harness.handle.send(id, vec![9; FRAME_BYTES])), // slow consumer
            |_, _, peer| reset(peer.take().unwrap()),
        ];
        for end in ends {
            let harness = start(backend, length_framing(), options(), Behaviour::silent());
            let handle = &harness.handle;
            let (peer, id) = full(&harness);
            let mut peer = Some(peer);
            let calls = Arc::new(AtomicU64::new(0));
            std::thread::scope(|scope| {
                let tasks = [(); 20]
                    .map(|()| scope.spawn(|| block_on(handle.when_room(id, usize::MAX))));
                for _ in 0..20 {
                    let calls = calls.clone();
                    handle.call_when_room(id, usize::MAX, move |room| {
                        assert_eq!(room, Err(RoomError::Gone));
                        calls.fetch_add(1, Ordering::SeqCst);
                    }).unwrap();
                }
                end(&harness, id, &mut peer);
                for task in tasks {
                    assert_eq!(task.join().unwrap(), Err(RoomError::Gone));
                }
            });
            // At once, though what is queued has not left: this peer reads nothing.
            eventually("each is called", || calls.load(Ordering::SeqCst) == 20);
            drop(peer);
            assert_eq!(block_on(handle.when_room(id, 1)), Err(RoomError::Gone));
            let never = handle.call_when_room(id, 1, |_| panic!("it is refused"));
            assert_eq!(never, Err(RoomError::Gone));
            harness.log.closed(id);
            harness.finish();
        }
    }

    fn who_waits_for_a_session_whose_connect_fails_is_told(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let nobody = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let told = Arc::new(AtomicU64::new(0));
        for _ in 0..PEERS {
            let id = handle.connect(nobody).unwrap();
            while handle.try_send(id, vec![9; FRAME_BYTES]).is_ok() {}
            let for_call = told.clone();
            let asked = handle.call_when_room(id, usize::MAX, move |room| {
                assert_eq!(room, Err(RoomError::Gone));
                for_call.fetch_add(1, Ordering::SeqCst);
            });
            if asked.is_err() {
                told.fetch_add(1, Ordering::SeqCst); // it has failed already
            }
        }
        eventually("each is told", || told.load(Ordering::SeqCst) == PEERS as u64);
        harness.finish();
    }

    fn who_waits_when_the_server_stops_is_told(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = harness.handle.clone();
        let peers: Vec<_> = (0..5).map(|_| full(&harness)).collect();
        std::thread::scope(|scope| {
            let tasks: Vec<_> = peers.iter().map(|(_, id)| {
                let handle = &handle;
                scope.spawn(move || block_on(handle.when_room(*id, usize::MAX)))
            }).collect();
            let (tell, told) = channel();
            for (_, id) in &peers {
                let tell = tell.clone();
                handle.call_when_room(*id, usize::MAX, move |room| tell.send(room).unwrap()).unwrap();
            }
            handle.stop();
            for task in tasks {
                assert_eq!(task.join().unwrap(), Err(RoomError::Gone));
                assert_eq!(told.recv_timeout(BOUND), Ok(Err(RoomError::Gone)));
            }
        });
        harness.finish();
    }

    fn the_number_of_those_who_wait_is_bounded_and_who_is_dropped_waits_no_more(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let (peer, id) = full(&harness);
        let waker = Waker::noop();
        for _ in 0..3 {
            let mut waiting: Vec<_> =
                (0..WAITERS_MAX).map(|_| Box::pin(handle.when_room(id, usize::MAX))).collect();
            for _ in 0..2 {
                for future in &mut waiting {
                    // Polled again, it waits in the same place.
                    let poll = future.as_mut().poll(&mut Context::from_waker(waker));
                    assert_eq!(poll, Poll::Pending);
                }
            }
            let too_many = RoomError::TooManyWait { max: WAITERS_MAX };
            assert_eq!(block_on(handle.when_room(id, usize::MAX)), Err(too_many));
            let refused = handle.call_when_room(id, usize::MAX, |_| panic!("it is refused"));
            assert_eq!(refused, Err(too_many));
        }
        handle.close(id, Close::Stop);
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_callback_that_asks_again_and_again_starves_nobody(backend) {
        fn again(handle: Handle, id: SessionId, calls: Arc<AtomicU64>) {
            let next = (handle.clone(), calls.clone());
            // There is room, so it is called soon; when the session is over, it is refused.
            let _ = handle.call_when_room(id, 1, move |room| {
                next.1.fetch_add(1, Ordering::SeqCst);
                if room.is_ok() {
                    again(next.0, id, next.1);
                }
            });
        }
        let harness = start(backend, length_framing(), options().workers(1), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        let (other, _) = harness.connect_known();
        let calls = Arc::new(AtomicU64::new(0));
        again(harness.handle.clone(), id, calls.clone());
        for _ in 0..100 {
            let before = calls.load(Ordering::SeqCst);
            round_trip(&other, &wire_default(b"served all the same"));
            eventually("it is called again", || calls.load(Ordering::SeqCst) > before);
        }
        harness.handle.close(id, Close::Stop);
        harness.log.closed(id);
        drop((peer, other));
        harness.settle();
        harness.finish();
    }

    fn a_callback_that_panics_harms_neither_its_session_nor_the_others_that_wait(backend) {
        let harness = start(backend, length_framing(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let (peer, id) = harness.connect_known();
        let (tell, told) = channel();
        for nth in 0..10 {
            let tell = tell.clone();
            handle.call_when_room(id, 1, move |_| {
                if nth % 2 == 0 {
                    panic_on_purpose();
                }
                tell.send(nth).unwrap();
            }).unwrap();
        }
        // On a shared port several workers call them, in any order.
        let mut called: Vec<_> = (0..5).map(|_| told.recv_timeout(BOUND).unwrap()).collect();
        called.sort_unstable();
        assert_eq!(called, [1, 3, 5, 7, 9]);
        handle.send(id, b"well").unwrap();
        assert_eq!(read_frame(&peer), b"well");
        drop(peer);
        harness.settle();
        harness.finish_after_panics(5);
    }
}
