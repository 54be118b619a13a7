//! Faults of WebSocket in the engine that were found under simulation, each as a test of its own.
#![cfg(all(feature = "simulation", feature = "websocket"))]
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wharf::simulation::{Fault, Faults, Ports, Simulation};
use wharf::{Handler, Listener, Options, Server, Session, SessionId, Target, WebSocket};

/// Counts what it is told.
#[derive(Default)]
struct Counts {
    opened: AtomicU32,
    received: AtomicU32,
    connects_failed: AtomicU32,
}

impl Handler for Counts {
    type State = ();

    fn opened(&self, _: &Session) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    fn connect_failed(&self, _: SessionId, _: &Target, _: &io::Error) {
        self.connects_failed.fetch_add(1, Ordering::Relaxed);
    }
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The head of a binary message of 60,000 bytes, with a key.
const HEAD: [u8; 8] = [0x82, 0x80 | 126, 0xEA, 0x60, 1, 2, 3, 4];

fn on_each_port(faults: &Faults, play: impl Fn(&Simulation, &Server, &Counts)) {
    for ports in [Ports::OneEach, Ports::OneShared] {
        let simulation = Simulation::new(1).faults(faults.clone()).ports(ports).roomy_ports();
        let counts = Arc::new(Counts::default());
        let web_socket = WebSocket::new().ping_after(Some(Duration::from_secs(1)));
        let listener = Listener::new("10.0.0.1:1").transport(web_socket);
        let options = Options::default().workers(1);
        let options = options.with(|options| options.receiving.queues_bytes_max = Some(70_000));
        let builder = Server::builder().listen(listener).options(options);
        let server = simulation.start(builder, counts.clone()).unwrap();
        play(&simulation, &server, &counts);
    }
}

/// The time-out of an accepted session's head counted as that of a connect: the handler was told that a connect had
/// failed which nobody had begun. (`wharf sim --scenario web-socket --from 21`.)
#[test]
fn a_peer_that_asks_for_nothing_is_no_connect_that_fails() {
    on_each_port(&Faults::none(), |simulation, server, counts| {
        let peers = [(); 41].map(|()| simulation.connect(server.addresses()[0]).unwrap());
        peers.iter().skip(1).for_each(|peer| peer.send(b"GET / HTTP/1.1\r\nHost: "));
        let are_ended = || {
            peers
                .iter()
                .all(|peer| !peer.received().is_empty() || peer.is_ended() || peer.is_reset())
        };
        assert!(simulation.run_until(Duration::from_secs(30), are_ended));
        let stats = server.handle().stats();
        assert_eq!((stats.connect_failures, stats.establish_failures), (0, 41));
        assert_eq!(counts.connects_failed.load(Ordering::Relaxed), 0);
    });
}

/// A socket that the port did not take was counted as one whose WebSocket is to stand, for ever: when there were as many as
/// may be, no other came. (`wharf sim --scenario web-socket --from 14`.)
#[test]
fn a_socket_that_no_port_takes_establishes_nothing_for_ever() {
    on_each_port(&Faults::none().with(Fault::RegisterRefused, 2), |simulation, server, _| {
        let peers = [(); 41].map(|()| simulation.connect(server.addresses()[0]).unwrap());
        peers.iter().for_each(|peer| peer.send(b"no request\r\n\r\n"));
        let are_ended = || peers.iter().all(|peer| peer.is_ended() || peer.is_reset());
        assert!(simulation.run_until(Duration::from_secs(30), are_ended));
        let stats = server.handle().stats();
        assert!((1..41).contains(&stats.refused_upgrades), "{stats:?}");
        assert_eq!(stats.establishing, 0);
    });
}

/// The receive queues had no room for what came of a message, and it was dropped: what came next was taken for the rest of
/// that message, which was not there. (`wharf sim --scenario web-socket --from 74`.)
#[test]
fn what_comes_behind_bytes_that_had_no_room_is_not_looked_at() {
    let faults = Faults::none().with(Fault::ReceiveInPart, 2);
    on_each_port(&faults, |simulation, server, counts| {
        let peers = [(); 41].map(|()| simulation.connect(server.addresses()[0]).unwrap());
        peers.iter().for_each(|peer| peer.send(&[REQUEST, &HEAD].concat()));
        let all_are_open = || counts.opened.load(Ordering::Relaxed) == 41;
        assert!(simulation.run_until(Duration::from_secs(30), all_are_open));
        for _ in 0..100 {
            peers.iter().for_each(|peer| peer.send(&[b'x'; 300]));
            simulation.sleep(Duration::from_micros(simulation.random(50)));
        }
        let have_ended = || server.handle().stats().closed > 0;
        assert!(simulation.run_until(Duration::from_secs(30), have_ended));
        let stats = server.handle().stats();
        assert!(stats.live > 0 && stats.closed < 41, "{stats:?}");
    });
}
