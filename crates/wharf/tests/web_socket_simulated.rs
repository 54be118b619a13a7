//! Faults of WebSocket in the engine that were found under simulation, each as a test of its own.
#![cfg(all(feature = "simulation", feature = "websocket"))]
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wharf::simulation::{Fault, Faults, Ports, Simulation, sleep};
use wharf::{
    EndOfStream, Handler, Listener, Options, Server, Session, SessionId, Target, WebSocket,
};

/// Counts what it is told. A message `b` blocks it.
#[derive(Default)]
struct Counts {
    opened: AtomicU32,
    connects_failed: AtomicU32,
}

impl Handler for Counts {
    type State = ();

    fn opened(&self, _: &Session) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&self, _: &Session, _: &mut (), frame: &[u8]) {
        if frame == b"b" {
            sleep(Duration::from_millis(100));
        }
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
        let options = options.with(|options| {
            options.receiving.queues_bytes_max = Some(70_000);
            options.sending.queue_bytes_max = 16 << 10;
            options.receiving.end_of_stream = EndOfStream::Told;
        });
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
    on_each_port(&Faults::none(), |simulation, server, counts| {
        let peers = [(); 42].map(|()| simulation.connect(server.addresses()[0]).unwrap());
        let (blocks, peers) = peers.split_last().unwrap();
        blocks.send(REQUEST);
        peers.iter().for_each(|peer| peer.send(&[REQUEST, &HEAD].concat()));
        let all_are_open = || counts.opened.load(Ordering::Relaxed) == 42;
        assert!(simulation.run_until(Duration::from_millis(500), all_are_open));
        peers[..20].iter().for_each(|peer| peer.send(&[b'x'; 3_450]));
        simulation.sleep(Duration::from_millis(10));
        blocks.send(&[0x82, 0x81, 0, 0, 0, 0, b'b']);
        simulation.sleep(Duration::from_millis(10));
        // While a callback blocks, each gets something twice.
        for bytes in [3_000, 10] {
            peers[20..].iter().for_each(|peer| peer.send(&vec![b'x'; bytes]));
            simulation.sleep(Duration::from_millis(10));
        }
        // As ends that there was no room, or was none for so long that pings were not answered.
        let have_ended = || server.handle().stats().closed >= 20;
        assert!(simulation.run_until(Duration::from_secs(1), have_ended));
        assert!(server.handle().stats().live > 0);
    });
}

/// A peer that does not read has no claim to the memory of its pongs, but to the newest one.
#[test]
fn the_newest_ping_is_answered_though_there_was_no_room_to_answer_it() {
    on_each_port(&Faults::none(), |simulation, server, counts| {
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(REQUEST);
        let is_open = || counts.opened.load(Ordering::Relaxed) == 1 && !peer.received().is_empty();
        assert!(simulation.run_until(Duration::from_millis(500), is_open));
        peer.stall(true);
        let payload = |number: u32| [&number.to_be_bytes()[..], &[b'p'; 96]].concat();
        for number in 0..1_000 {
            // With a key of zeros.
            peer.send(&[&[0x89, 0x80 | 100, 0, 0, 0, 0], &payload(number)[..]].concat());
        }
        simulation.sleep(Duration::from_millis(100));
        peer.stall(false);
        let (mut came, last) = (Vec::new(), [&[0x8A, 100], &payload(999)[..]].concat());
        let is_answered = || {
            came.extend(peer.received());
            came.ends_with(&last)
        };
        assert!(simulation.run_until(Duration::from_millis(500), is_answered));
        let pongs = came.len() / last.len();
        assert!(pongs < 1_000, "{pongs}: there was room for all");
    });
}

/// Who only listens, and answers every ping, has sent 1,024 control frames without data between them some day: it was
/// ended for that, after 8 hours of the default `ping_after`.
#[test]
fn who_answers_pings_and_says_nothing_else_stays() {
    on_each_port(&Faults::none(), |simulation, server, counts| {
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(REQUEST);
        let is_open = || counts.opened.load(Ordering::Relaxed) == 1 && !peer.received().is_empty();
        assert!(simulation.run_until(Duration::from_millis(500), is_open));
        for _ in 0..1_100 {
            assert!(simulation.run_until(Duration::from_secs(3), || peer.received() == [0x89, 0]));
            peer.send(&[0x8A, 0x80, 1, 2, 3, 4]);
        }
        assert_eq!(server.handle().stats().live, 1);
    });
}

/// A peer that had finished its direction was expected to answer pings, and ended as idle though there was no such limit.
#[test]
fn nobody_pings_a_peer_that_has_finished_and_it_is_not_idle_for_that() {
    on_each_port(&Faults::none(), |simulation, server, counts| {
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(REQUEST);
        peer.shutdown();
        let is_open = || counts.opened.load(Ordering::Relaxed) == 1;
        assert!(simulation.run_until(Duration::from_millis(500), is_open));
        simulation.sleep(Duration::from_secs(60));
        let stats = server.handle().stats();
        assert_eq!((stats.live, stats.pings), (1, 0));
    });
}
