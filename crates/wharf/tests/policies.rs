//! Members that cannot take what is published: they miss frames and are told, or get the newest of each key.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use socket2::SockRef;
use support::*;
use wharf::{
    Backend, CloseReason, FirstFrameTimeout, Group, Handle, Handler, Options, Policy, PublishError,
    RoomError, SendError, Server, Session, SessionId,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);
/// What a frame begins with that says how many were missed.
const MISSED: u32 = u32::MAX;

/// Tells each peer in its stream what it has missed.
struct Room {
    opened: Mutex<Sender<SessionId>>,
    closed: Mutex<Vec<CloseReason>>,
}

impl Handler for Room {
    type State = ();

    fn opened(&self, session: &Session) {
        lock(&self.opened).send(session.id()).unwrap();
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}

    fn lagged(&self, session: &Session, (): &mut (), group: Group, frames: u64) {
        assert_eq!(group, ROOM);
        session.send([MISSED.to_be_bytes(), (frames as u32).to_be_bytes()].concat());
    }

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        lock(&self.closed).push(reason);
    }
}

struct Served {
    server: Server,
    room: Arc<Room>,
    has_opened: Receiver<SessionId>,
    peers: Vec<(TcpStream, SessionId)>,
}

fn serve(backend: Backend, workers: usize, change: impl FnOnce(&mut Options)) -> Served {
    let (opened, has_opened) = channel();
    let room = Arc::new(Room { opened: Mutex::new(opened), closed: Mutex::default() });
    let options = Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 64 * 1024;
        options.sending.kernel_bytes = Some(16 * 1024);
        options.sending.slow_after = 20 * BOUND; // a tenth of it is longer than any wait here
        change(options);
    });
    let builder = Server::builder().listen("127.0.0.1:0").framing(length_framing());
    let server = builder.options(options).backend(backend).start(room.clone()).unwrap();
    let mut served = Served { server, room, has_opened, peers: Vec::new() };
    served.peers = (0..PEERS).map(|_| served.connect()).collect();
    served
}

impl Served {
    fn connect(&self) -> (TcpStream, SessionId) {
        let peer = connect(self.server.addresses()[0]);
        SockRef::from(&peer).set_recv_buffer_size(16 * 1024).unwrap();
        (peer, self.has_opened.recv_timeout(BOUND).unwrap())
    }

    fn join(&self, policy: Policy) -> Handle {
        let handle = self.server.handle();
        for (_, id) in &self.peers {
            assert_eq!(handle.join_with(*id, ROOM, policy), Ok(true));
            assert_eq!(handle.join(*id, ROOM), Ok(false), "it is one already");
        }
        handle
    }

    /// Nobody was closed before the server ends.
    fn finish(self) {
        assert_eq!(*lock(&self.room.closed), []);
        self.server.handle().stop();
        self.server.wait().unwrap();
    }
}

fn frame(words: [u32; 2], bytes: usize) -> Vec<u8> {
    let mut frame = vec![3; bytes];
    frame[..4].copy_from_slice(&words[0].to_be_bytes());
    frame[4..8].copy_from_slice(&words[1].to_be_bytes());
    frame
}

fn words(frame: &[u8]) -> [u32; 2] {
    [0, 4].map(|at| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()))
}

fn publish(handle: &Handle, publish: impl Fn() -> Result<(), PublishError<Vec<u8>>>) {
    while let Err(error) = publish() {
        assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
        wait_for_room_to_publish(handle).unwrap();
    }
}

on_every_backend! {
    fn who_skips_gets_whole_frames_in_order_and_is_told_where_and_how_many_are_missing(backend) {
        const FRAMES: u32 = 3_000;
        for workers in [1, 3] {
            let served = serve(backend, workers, |_| {});
            let handle = served.join(Policy::Skip);
            for number in 0..FRAMES {
                publish(&handle, || handle.publish(ROOM, frame([number, 0], 1024)));
            }
            let missed: u32 = std::thread::scope(|scope| {
                let read = |peer: &TcpStream| {
                    let (mut next, mut missed) = (0, 0);
                    while next < FRAMES {
                        let frame = read_frame(peer);
                        match words(&frame) {
                            [MISSED, frames] => (next, missed) = (next + frames, missed + frames),
                            [number, _] => {
                                assert_eq!((number, frame.len()), (next, 1024));
                                next += 1;
                            }
                        }
                    }
                    missed
                };
                let reading = served.peers.iter().map(|(peer, _)| scope.spawn(move || read(peer)));
                let reading: Vec<_> = reading.collect();
                reading.into_iter().map(|reading| reading.join().unwrap()).sum()
            });
            assert!(missed > 1_000 * PEERS as u32, "{missed}");
            // From now on they miss nothing.
            publish(&handle, || handle.publish(ROOM, frame([FRAMES, 0], 1024)));
            for (peer, _) in &served.peers {
                assert_eq!(words(&read_frame(peer)), [FRAMES, 0]);
            }
            eventually("the worker has said what was missed", || {
                handle.stats().skipped_frames == u64::from(missed)
            });
            served.finish();
        }
    }

    fn who_keeps_the_latest_gets_the_newest_of_each_key_and_no_older_one_after_it(backend) {
        const KEYS: u32 = 20;
        const ROUNDS: u32 = 400;
        for workers in [1, 3] {
            let served = serve(backend, workers, |_| {});
            let handle = served.join(Policy::KeepLatest);
            for round in 0..ROUNDS {
                for key in 0..KEYS {
                    let keyed = || handle.publish_keyed(ROOM, key.into(), frame([key, round], 1024));
                    publish(&handle, keyed);
                }
            }
            publish(&handle, || handle.publish(ROOM, frame([MISSED, 0], 1024)));
            let got: usize = std::thread::scope(|scope| {
                let read = |peer: &TcpStream| {
                    let (mut latest, mut got) = (HashMap::new(), 0);
                    loop {
                        let frame = read_frame(peer);
                        let [key, round] = words(&frame);
                        if key == MISSED {
                            break; // the one without a key stands behind all others
                        }
                        assert_eq!(frame.len(), 1024);
                        let before = latest.insert(key, round);
                        assert!(before.is_none_or(|before| before < round), "{key}, {before:?}");
                        got += 1;
                    }
                    assert_eq!(latest.len(), KEYS as usize);
                    assert!(latest.values().all(|round| *round == ROUNDS - 1), "{latest:?}");
                    got
                };
                let reading = served.peers.iter().map(|(peer, _)| scope.spawn(move || read(peer)));
                let reading: Vec<_> = reading.collect();
                reading.into_iter().map(|reading| reading.join().unwrap()).sum()
            });
            assert!(got < PEERS * (ROUNDS * KEYS / 2) as usize, "{got}");
            assert!(handle.stats().superseded_frames > 0);
            served.finish();
        }
    }

    fn the_latest_that_is_sent_to_one_session_takes_the_place_of_what_waits_for_it(backend) {
        const ROUNDS: u32 = 4_000;
        let served = serve(backend, 1, |_| {});
        let handle = served.server.handle();
        for round in 0..ROUNDS {
            for (_, id) in &served.peers {
                let mut sent = handle.send_latest(*id, 5, frame([5, round], 1024));
                while let Err(SendError::Full { bytes, .. }) = sent {
                    std::thread::yield_now(); // its worker has not come to it
                    sent = handle.send_latest(*id, 5, bytes);
                }
                sent.unwrap();
            }
        }
        for (_, id) in &served.peers {
            handle.send(*id, frame([6, 0], 8)).unwrap();
        }
        let read = |peer: &TcpStream| {
            let (mut latest, mut got) = (None, 0);
            loop {
                let [key, round] = words(&read_frame(peer));
                if key == 6 {
                    break; // what is sent later stays behind it
                }
                assert!(latest < Some(round));
                (latest, got) = (Some(round), got + 1);
            }
            assert_eq!(latest, Some(ROUNDS - 1));
            assert!(got < ROUNDS / 2, "{got}");
        };
        std::thread::scope(|scope| {
            for (peer, _) in &served.peers {
                scope.spawn(move || read(peer));
            }
        });
        served.finish();
    }

    fn who_waits_to_publish_is_told_when_there_is_room_and_when_there_never_will_be(backend) {
        const MAX: usize = 64 * 1024;
        let served = serve(backend, 3, |options| options.sending.publications_bytes_max = MAX);
        let handle = served.join(Policy::Close);
        assert_eq!(wait_for_room_to_publish(&handle), Ok(()));
        let (tells, told) = channel();
        let tell = move |room| tells.send(room).unwrap();
        handle.call_when_room_to_publish(tell.clone()).unwrap();
        assert_eq!(told.recv_timeout(BOUND).unwrap(), Ok(()), "there is room now");
        // Nobody reads: no room.
        let mut published = 0;
        let fill = || {
            let mut published = 0;
            while handle.publish(ROOM, frame([published, 0], 8 * 1024)).is_ok() {
                published += 1;
            }
            published
        };
        // What the OS takes late makes room: then who waits is told, and waits again.
        let mut waits = false;
        eventually("some are behind, and who waits is not told", || {
            published += fill();
            if !waits {
                handle.call_when_room_to_publish(tell.clone()).unwrap();
            }
            served.connect(); // workers have turns
            waits = told.try_recv().is_err();
            waits && handle.stats().members_behind > 0
        });
        assert!(handle.stats().publications_refused > 0);
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| wait_for_room_to_publish(&handle));
            for (peer, _) in &served.peers {
                scope.spawn(move || (0..published).for_each(|_| drop(read_frame(peer))));
            }
            waits.join().unwrap()
        });
        assert_eq!(waits, Ok(()));
        assert_eq!(told.recv_timeout(BOUND).unwrap(), Ok(()));
        assert!(told.try_recv().is_err(), "each is told once");
        eventually("nobody is behind", || handle.stats().members_behind == 0);
        // What waits when the server ends is told of the end.
        while handle.publish(ROOM, frame([0, 0], 8 * 1024)).is_ok() {}
        let waits = std::thread::scope(|scope| {
            handle.call_when_room_to_publish(tell).unwrap();
            let waits = scope.spawn(|| {
                let mut told = Ok(());
                while told.is_ok() {
                    told = wait_for_room_to_publish(&handle);
                    while handle.publish(ROOM, frame([0, 0], 8 * 1024)).is_ok() {}
                }
                told
            });
            handle.stop();
            waits.join().unwrap()
        });
        assert_eq!(waits, Err(RoomError::Ending));
        told.recv_timeout(BOUND).unwrap().ok(); // of room or of the end: the stop may have been faster
        served.server.wait().unwrap();
        // Before, a worker's last turn may take the callback and tell it of the end.
        assert_eq!(handle.call_when_room_to_publish(|_| {}), Err(RoomError::Ending));
    }
}
