//! A loop of the program's own, which takes what happens as events.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Duration;

use futures_core::Stream;
use support::*;
use wharf::{
    Backend, Builder, CloseReason, Connector, Event, EventHandler, Events, Handler, Server,
    Session, SessionId,
};

const PEERS: usize = 41;
const FRAME_BYTES: usize = 100;
/// Of frames of this size so many wait at most, and one more of each session.
const WAITING_MAX: usize = 500;

fn builder() -> Builder {
    Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).framing(length_framing()).workers(3)
}

/// A frame that says whose it is, and which.
fn frame(peer: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![0; FRAME_BYTES];
    frame[..8].copy_from_slice(&(peer as u64).to_be_bytes());
    frame[8..12].copy_from_slice(&number.to_be_bytes());
    frame
}

/// What is known of the sessions, and that it comes in their order.
#[derive(Default)]
struct World {
    sessions: HashMap<SessionId, Seen>,
    closed: usize,
}

#[derive(Default)]
struct Seen {
    peer: Option<[u8; 8]>,
    frames: u32,
    is_closed: bool,
}

impl World {
    fn takes(&mut self, event: Event) {
        match event {
            Event::Opened { id, peer } => {
                assert!(peer.is_some());
                assert!(self.sessions.insert(id, Seen::default()).is_none(), "it opened twice");
            }
            Event::Frame { id, bytes } => {
                let seen = self.sessions.get_mut(&id).expect("it has opened");
                assert!(!seen.is_closed, "a frame after its end");
                assert_eq!(bytes[8..12], seen.frames.to_be_bytes());
                let peer = bytes[..8].try_into().unwrap();
                assert_eq!(*seen.peer.get_or_insert(peer), peer);
                seen.frames += 1;
            }
            Event::Closed { id, reason } => {
                let seen = self.sessions.get_mut(&id).expect("it has opened");
                assert!(!std::mem::replace(&mut seen.is_closed, true), "it closed twice");
                assert_eq!(reason, CloseReason::PeerClosed);
                self.closed += 1;
            }
            event => panic!("{event:?}"),
        }
    }
}

/// Waits for events as a task does.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn next_of_stream(events: &mut Events) -> Option<Event> {
    let waker = Arc::new(Parked(std::thread::current())).into();
    loop {
        match Pin::new(&mut *events).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(event) => return event,
            Poll::Pending => std::thread::park_timeout(BOUND),
        }
    }
}

/// The loop hears of who has said the password, and from then on.
struct Gate {
    world: EventHandler,
    /// It is said, and not told when.
    tells_opened: bool,
}

impl Handler for Gate {
    type State = bool;

    fn opened(&self, _: &Session) -> bool {
        false
    }

    fn received(&self, session: &Session, is_known: &mut bool, frame: &[u8]) {
        if *is_known {
            self.world.received(session, &mut (), frame);
        } else if frame == b"password" {
            *is_known = true;
            if self.tells_opened {
                self.world.opened(session);
            }
        }
    }

    fn closed(&self, session: &Session, is_known: bool, reason: CloseReason) {
        if is_known {
            self.world.closed(session, (), reason);
        }
    }
}

on_every_backend! {
    fn a_loop_that_stands_still_holds_the_peers_back_and_then_gets_everything_in_order(backend) {
        const FRAMES: u32 = 20_000;
        let (handler, mut events) = wharf::events(WAITING_MAX * (FRAME_BYTES + 32));
        let server = builder().backend(backend).start(handler).unwrap();
        let handle = server.handle();
        let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
        let mut world = World::default();
        std::thread::scope(|scope| {
            for (number, peer) in peers.into_iter().enumerate() {
                scope.spawn(move || {
                    for start in (0..FRAMES).step_by(1_000) {
                        let frames = (start..start + 1_000).flat_map(|n| wire_default(&frame(number, n)));
                        write(&peer, &frames.collect::<Vec<_>>());
                    }
                });
            }
            // Nobody takes anything: what is received stands still, far from all.
            let received = || handle.stats().received_frames;
            eventually("it is full", || received() >= WAITING_MAX as u64);
            let (mut before, mut stands) = (0, 0);
            eventually("it stands still", || {
                stands = if received() == before { stands + 1 } else { 0 };
                before = received();
                stands > 100
            });
            assert!(before <= (WAITING_MAX + PEERS) as u64, "{before} wait");
            while world.closed < PEERS {
                // In each of the three ways.
                match world.closed % 3 {
                    // What is left of a drain comes with the next.
                    0 => events.drain().take(100).for_each(|event| world.takes(event)),
                    1 => world.takes(events.next_timeout(BOUND).expect("there is more")),
                    _ => world.takes(next_of_stream(&mut events).expect("there is more")),
                }
            }
        });
        assert!(world.sessions.values().all(|seen| seen.frames == FRAMES));
        assert_eq!(world.sessions.len(), PEERS);
        handle.stop();
        server.wait().unwrap();
        assert!(events.next_timeout(BOUND).is_none() && events.is_over());
    }

    fn a_pause_of_the_programs_and_one_for_want_of_room_each_have_their_own_end(backend) {
        let (handler, mut events) = wharf::events(10 * (FRAME_BYTES + 32));
        let server = builder().backend(backend).start(handler).unwrap();
        let handle = server.handle();
        let peer = connect(server.addresses()[0]);
        let frames: Vec<u8> = (0..100).flat_map(|number| wire_default(&frame(0, number))).collect();
        let next = |events: &mut Events| events.next_timeout(BOUND).expect("there is more");
        let Event::Opened { id, .. } = next(&mut events) else { panic!("it opens first") };
        write(&peer, &frames);
        eventually("it is full", || handle.stats().received_frames >= 10);
        // Both hold now. What waits is taken, so only the program's is left.
        assert!(handle.pause_receiving(id));
        let mut came = 0;
        while let Some(Event::Frame { .. }) = events.next_timeout(Duration::from_millis(50)) {
            came += 1;
        }
        assert!((10..=12).contains(&came), "{came} came though it is paused");
        assert!(handle.resume_receiving(id));
        for _ in came..100 {
            assert!(matches!(next(&mut events), Event::Frame { .. }));
        }
        handle.stop();
        server.wait().unwrap();
    }

    fn a_handler_around_it_passes_on_what_the_loop_is_to_hear(backend) {
        const FRAMES: u32 = 200;
        for tells_opened in [true, false] {
            let (world, mut events) = wharf::events(10 * (FRAME_BYTES + 32));
            let gate = Gate { world, tells_opened };
            let server = builder().backend(backend).start(gate).unwrap();
            let handle = server.handle();
            for peer in 0..PEERS {
                let stream = connect(server.addresses()[0]);
                if peer % 2 == 0 {
                    write(&stream, &wire_default(b"password"));
                }
                let frames = (0..FRAMES).flat_map(|number| wire_default(&frame(peer, number)));
                write(&stream, &frames.collect::<Vec<_>>());
            }
            let (mut opened, mut closed, mut came) = (0, 0, HashMap::<SessionId, u32>::new());
            while closed < PEERS.div_ceil(2) {
                match events.next_timeout(BOUND).expect("there is more") {
                    Event::Opened { .. } => opened += 1,
                    Event::Frame { id, bytes } => {
                        let next = came.entry(id).or_default();
                        assert_eq!(bytes[8..12], next.to_be_bytes());
                        *next += 1;
                    }
                    Event::Closed { .. } => closed += 1,
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(opened, if tells_opened { PEERS.div_ceil(2) } else { 0 });
            assert_eq!(came.into_values().collect::<Vec<_>>(), [FRAMES; PEERS.div_ceil(2)]);
            eventually("all have ended", || handle.stats().closed == PEERS as u64);
            handle.stop();
            server.wait().unwrap();
            assert!(events.next_timeout(BOUND).is_none(), "of the others it hears nothing");
        }
    }

    fn the_loop_is_told_of_the_servers_end_however_it_waits(backend) {
        for waits_as_task in [false, true] {
            let (handler, mut events) = wharf::events(1 << 16);
            let server = builder().backend(backend).start(handler).unwrap();
            assert!(events.next_timeout(Duration::from_millis(1)).is_none() && !events.is_over());
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| match waits_as_task {
                    true => next_of_stream(&mut events),
                    false => events.next_timeout(BOUND),
                });
                server.handle().stop();
                server.wait().unwrap();
                assert!(waits.join().unwrap().is_none());
            });
            assert!(events.is_over());
        }
    }

    fn sessions_end_whose_events_nobody_takes(backend) {
        let (handler, events) = wharf::events(10 * FRAME_BYTES);
        let server = builder().backend(backend).start(handler).unwrap();
        let handle = server.handle();
        let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
        let frames: Vec<u8> = (0..100).flat_map(|number| wire_default(&frame(0, number))).collect();
        peers.iter().for_each(|peer| write(peer, &frames));
        eventually("all have opened", || handle.stats().opened == PEERS as u64);
        drop(events); // most are paused
        for peer in &peers {
            wait_ended(peer);
        }
        drop(peers);
        eventually("all have ended", || handle.stats().live == 0);
        handle.stop();
        server.wait().unwrap();
    }

    fn a_connect_that_fails_is_an_event(backend) {
        let nobody = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap()
        };
        let (handler, mut events) = wharf::events(1 << 16);
        let connector = Connector::builder().backend(backend).start(handler).unwrap();
        let id = connector.handle().connect(nobody).unwrap();
        match events.next_timeout(BOUND) {
            Some(Event::ConnectFailed { id: failed, error }) => {
                assert_eq!(failed, id);
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            }
            event => panic!("{event:?}"),
        }
    }
}
