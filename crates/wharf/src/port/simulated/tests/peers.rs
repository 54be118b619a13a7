//! Peers behave as documented.

use std::time::Duration;

use super::{Bench, Told, WINDOW};
use crate::port::contract::sockets::batch;
use crate::port::simulated::{Faults, Peer};
use crate::port::{Operation, OperationKind, Registration};
use crate::simulation::{Ports, Simulation};
use crate::{CloseReason, Connector, Framing, Handler, Options, Session, SessionId};

const SHORT: Duration = Duration::from_millis(1);

fn session() -> (Bench<false>, Registration, Peer) {
    let mut bench = Bench::new(Faults::none());
    let (ours, peer) = bench.session(1);
    (bench, ours, peer)
}

/// Everything that a continuing receive brings, until nothing comes.
fn all_received(bench: &mut Bench<false>) -> (Vec<u8>, Option<Told>) {
    let mut bytes = Vec::new();
    while bench.wait(SHORT).unwrap() > 0 {}
    let mut last = None;
    for (_, kind, told, more) in bench.told.drain(..) {
        match told {
            Told::Bytes(came) if kind == OperationKind::Receive && !came.is_empty() => {
                bytes.extend(came);
            }
            told => last = Some(told),
        }
        assert!(more || last.is_some());
    }
    (bytes, last)
}

fn send(bench: &mut Bench<false>, ours: Registration, bytes: &[u8]) -> Option<Told> {
    bench.told.clear();
    bench.post(ours, Operation::Send(batch(bytes)));
    while bench.wait(SHORT).unwrap() > 0 {}
    bench.told.pop().map(|(_, _, told, _)| told)
}

#[test]
fn what_it_sends_flows_as_there_is_room_and_its_end_comes_after_it() {
    let (mut bench, ours, peer) = session();
    let content = vec![5; 3 * WINDOW];
    peer.send(&content);
    assert_eq!(peer.unsent_bytes(), 2 * WINDOW, "as much as the window takes has left");
    peer.shutdown();
    peer.send(b"after its end it sends nothing");
    bench.post(ours, Operation::Receive);
    assert!(all_received(&mut bench) == (content, Some(Told::Bytes(Vec::new()))));
    assert_eq!(peer.unsent_bytes(), 0);
    // It still reads.
    assert_eq!(send(&mut bench, ours, b"so long"), Some(Told::Sent(7, 0)));
    assert_eq!((peer.received(), peer.received()), (b"so long".to_vec(), Vec::new()));
    assert!(!peer.is_ended() && !peer.is_reset());
    drop(bench);
    assert!(peer.is_ended() && !peer.is_reset());
}

#[test]
fn dropping_it_ends_its_stream_after_what_it_has_sent() {
    let (mut bench, ours, peer) = session();
    let content = vec![6; 2 * WINDOW + 1];
    peer.send(&content);
    drop(peer);
    bench.post(ours, Operation::Receive);
    assert!(all_received(&mut bench) == (content, Some(Told::Bytes(Vec::new()))));
}

#[test]
fn a_reset_is_at_once() {
    let (mut bench, ours, peer) = session();
    bench.post(ours, Operation::Receive);
    bench.wait(SHORT).unwrap();
    peer.reset();
    assert!(peer.is_reset());
    let (bytes, last) = all_received(&mut bench);
    assert!(bytes.is_empty());
    assert!(matches!(last, Some(Told::Failed(std::io::ErrorKind::ConnectionReset, _))));
    peer.send(b"too late");
    assert_eq!((peer.received(), peer.unsent_bytes()), (Vec::new(), 0));
}

#[test]
fn closing_it_at_once_resets_if_something_has_come_unread() {
    for unread in [false, true] {
        let (mut bench, ours, peer) = session();
        if unread {
            peer.stall(true);
            send(&mut bench, ours, b"unread");
        }
        peer.close_now();
        bench.post(ours, Operation::Receive);
        let last = all_received(&mut bench).1;
        match unread {
            true => assert!(matches!(last, Some(Told::Failed(..))), "{last:?}"),
            false => assert_eq!(last, Some(Told::Bytes(Vec::new()))),
        }
    }
}

#[test]
fn while_it_stalls_the_window_fills_and_then_it_reads_on() {
    let (mut bench, ours, peer) = session();
    peer.stall(true);
    assert_eq!(send(&mut bench, ours, &vec![1; WINDOW + 9]), Some(Told::Sent(WINDOW, 9)));
    assert_eq!(send(&mut bench, ours, b"more"), None, "there is no room");
    assert!(peer.received().is_empty());
    peer.stall(false);
    while bench.wait(SHORT).unwrap() > 0 {}
    assert_eq!(bench.told.pop().map(|told| told.2), Some(Told::Sent(4, 0)));
    assert_eq!(peer.received().len(), WINDOW + 4);
}

#[test]
fn who_vanishes_says_nothing_any_more_and_reads_nothing() {
    let (mut bench, ours, peer) = session();
    peer.vanish();
    peer.send(b"unheard");
    peer.shutdown();
    bench.post(ours, Operation::Receive);
    assert_eq!(send(&mut bench, ours, &vec![1; WINDOW]), Some(Told::Sent(WINDOW, 0)));
    assert_eq!(send(&mut bench, ours, b"more"), None, "there is no room");
    assert!(peer.received().is_empty());
    drop(peer);
    assert_eq!(bench.wait(Duration::from_secs(3_600)).unwrap(), 0, "not even an end");
}

#[test]
fn nobody_connects_where_nobody_listens_or_too_many_wait() {
    let bench = Bench::<true>::new(Faults::none());
    assert!(bench.world.connect_peer(([10, 0, 0, 9], 1).into()).is_none());
    let peers: Vec<_> = (0..40).map_while(|_| bench.world.connect_peer(bench.address)).collect();
    assert_eq!(peers.len(), 17, "the backlog, and one");
    bench.world.with(|state| {
        let listener = state.ports[0].registered(bench.listening.0).socket.unwrap();
        state.shut(listener, std::net::Shutdown::Both);
    });
    assert!(peers.iter().all(Peer::is_reset), "they are accepted by nobody");
    assert!(bench.world.connect_peer(bench.address).is_none());
}

#[derive(Default)]
struct Calls {
    failed: std::sync::Mutex<Vec<SessionId>>,
    closed: std::sync::Mutex<Vec<CloseReason>>,
}

impl Handler for std::sync::Arc<Calls> {
    type State = ();

    fn opened(&self, session: &Session) {
        session.send(b"hello");
    }

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        session.send(frame);
    }

    fn closed(&self, _: &Session, _: (), reason: CloseReason) {
        self.closed.lock().unwrap().push(reason);
    }

    fn connect_failed(&self, id: SessionId, _: &crate::Target, _: &std::io::Error) {
        self.failed.lock().unwrap().push(id);
    }
}

#[test]
fn a_connector_connects_to_who_listens() {
    let minute = Duration::from_secs(60);
    for ports in [Ports::OneEach, Ports::OneShared] {
        for seed in 0..if cfg!(miri) { 1 } else { 20 } {
            let simulation = Simulation::new(seed).ports(ports);
            let calls = std::sync::Arc::new(Calls::default());
            let options = Options::default().workers(2);
            let builder = Connector::builder().framing(Framing::raw()).options(options);
            let server = simulation.start_connector(builder, calls.clone()).unwrap();
            let listener = simulation.listen("10.0.0.2:0".parse().unwrap()).unwrap();
            assert!(simulation.listen(listener.address()).is_none(), "somebody does already");

            server.handle().connect(listener.address()).unwrap();
            let mut accepted = None;
            assert!(simulation.run_until(minute, || {
                accepted = listener.accept();
                accepted.is_some()
            }));
            let peer = accepted.unwrap();
            peer.send(b" world");
            let mut came = Vec::new();
            assert!(simulation.run_until(minute, || {
                came.extend(peer.received());
                came == b"hello world"
            }));
            drop(peer);
            let is_closed = || *calls.closed.lock().unwrap() == [CloseReason::PeerClosed];
            assert!(simulation.run_until(minute, is_closed));

            let address = listener.address();
            drop(listener);
            let id = server.handle().connect(address).unwrap();
            let has_failed = || *calls.failed.lock().unwrap() == [id];
            assert!(simulation.run_until(minute, has_failed), "nobody listens any more");
        }
    }
}
