//! What a listener has of its own: time-outs, a backlog, a socket that the program has made.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use support::*;
use wharf::options::Time;
use wharf::{
    Backend, Close, CloseReason, Error, FirstFrameTimeout, Framing, Listener, Options, Server,
    SessionId,
};

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const PEERS: usize = 41;

/// Long enough for a peer of another listener to speak, short enough to wait for.
const SOON: Duration = Duration::from_millis(100);

fn listener() -> TcpListener {
    TcpListener::bind(HERE).unwrap()
}

/// A peer of the listener at this place. One comes after the other, so its session is the next to open. (Two listeners'
/// peers may have one address.)
fn known_peer(harness: &Harness, place: usize) -> (TcpStream, SessionId) {
    let before = harness.log.look(|ledger| ledger.ids.len());
    let peer = connect(harness.server.addresses()[place]);
    (peer, harness.log.opened(before))
}

on_every_backend! {
    fn the_sessions_of_each_listener_have_its_time_outs(backend) {
        let idle = Time::default().idle_timeout(Some(SOON));
        let first = Time::default().first_frame_timeout(FirstFrameTimeout::After(SOON));
        let builder = Server::builder()
            .listen(Listener::new(HERE).time(idle))
            .listen(Listener::new(HERE).time(first).framing(length_framing()))
            .listen(HERE)
            .framing(Framing::raw())
            .framings([length_framing()])
            .options(Options::default().workers(2));
        let behaviour = Behaviour::echo().on_received(|session, frame| {
            // It has the listener's time-outs whatever framing it has.
            if frame == b"change" {
                assert!(session.set_framing(0));
            } else {
                session.send(frame);
            }
        });
        let harness = start_builder(backend, builder, behaviour);
        let come = |place| -> Vec<_> { (0..PEERS).map(|_| known_peer(&harness, place)).collect() };
        let patient = come(2);
        let (idle, late) = (come(0), come(1));
        for (peer, _) in idle.iter().step_by(2) {
            write(peer, b"change");
        }
        for (all, reason) in
            [(&idle, CloseReason::IdleTimeout), (&late, CloseReason::FirstFrameTimeout)]
        {
            for (_, id) in all {
                assert_eq!(harness.log.closed(*id), reason);
            }
        }
        for (peer, id) in &patient {
            assert_eq!(harness.log.look(|ledger| ledger.closed_by(*id)), None);
            round_trip(peer, b"still here");
        }
        drop((patient, idle, late));
        harness.settle();
        harness.finish();
    }

    /// As after a drain of one's own: the time that a session lingers is its listener's too.
    fn what_has_left_is_waited_for_as_long_as_the_listener_says(backend) {
        let at_once = Time::default().close_linger(Duration::ZERO);
        let never = Time::default().close_linger(2 * BOUND);
        let builder = Server::builder()
            .listen(Listener::new(HERE).time(at_once))
            .listen(Listener::new(HERE).time(never));
        let harness = start_builder(backend, builder, Behaviour::echo());
        let (first, second) = (known_peer(&harness, 0), known_peer(&harness, 1));
        harness.handle.close(second.1, Close::Drain);
        harness.handle.close(first.1, Close::Drain);
        assert_eq!(harness.log.closed(first.1), CloseReason::Local);
        assert_eq!(harness.log.look(|ledger| ledger.closed_by(second.1)), None);
        drop((first, second));
        harness.settle();
        harness.finish();
    }

    fn a_time_out_of_a_listeners_that_cannot_be_is_an_error(backend) {
        let nonsense = Time::default().idle_timeout(Some(Duration::ZERO));
        let builder = Server::builder().listen(Listener::new(HERE).time(nonsense));
        let error = builder.backend(backend).start(Nobody).unwrap_err();
        assert_eq!(error.to_string(), "option time.idle_timeout is 0ns, but it must be longer than that, or none");
    }

    /// What is in the backlog belongs to whoever accepts first, and the end of one refuses nobody.
    #[cfg(not(windows))]
    fn two_servers_share_a_socket_and_one_takes_over(backend) {
        for blocks in [true, false] {
            let socket = listener();
            socket.set_nonblocking(!blocks).unwrap();
            let address = socket.local_addr().unwrap();
            let start = || {
                let listener = Listener::from_tcp(socket.try_clone().unwrap());
                let builder = Server::builder().listen(listener).workers(2);
                start_builder(backend, builder, Behaviour::echo())
            };
            let old = start();
            assert_eq!(old.server.addresses(), [address]);
            let peers: Vec<_> = (0..PEERS).map(|_| connect(address)).collect();
            peers.iter().for_each(|peer| round_trip(peer, b"served"));
            let new = start();
            let goes_on = std::sync::atomic::AtomicBool::new(true);
            std::thread::scope(|scope| {
                let comers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut count = 0;
                            while goes_on.load(std::sync::atomic::Ordering::SeqCst) || count == 0 {
                                // Whoever has it answers, or ends it in order before it has been answered.
                                let peer = connect(address);
                                std::io::Write::write_all(&mut &peer, b"x").unwrap();
                                let mut answer = [0];
                                let read = std::io::Read::read(&mut &peer, &mut answer);
                                let is_left_waiting = read.as_ref().is_err_and(is_time_out);
                                assert!(!is_left_waiting, "nobody has accepted it");
                                count += usize::from(read.is_ok_and(|read| read == 1));
                            }
                            count
                        })
                    })
                    .collect();
                drop(peers);
                old.handle.drain(BOUND).unwrap();
                goes_on.store(false, std::sync::atomic::Ordering::SeqCst);
                let served: usize = comers.into_iter().map(|comer| comer.join().unwrap()).sum();
                assert!(served >= 4);
            });
            old.finish();
            let peer = connect(address);
            round_trip(&peer, b"by the new one");
            drop(peer);
            new.settle();
            new.finish();
        }
    }

    fn a_socket_that_cannot_listen_is_refused_with_its_name(backend) {
        let start = |listener: Listener| {
            let started = Server::builder().listen(listener.name("given")).backend(backend).start(Nobody);
            let error = started.unwrap_err();
            let said = error.to_string();
            assert!(said.contains("given"), "{said}");
            let Error::Socket { source, .. } = error else { panic!("{error}") };
            source.kind()
        };
        let server = listener();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let datagrams = UdpSocket::bind(HERE).unwrap();
        #[cfg(unix)]
        {
            let connected = start(Listener::from_descriptor(client));
            let of_datagrams = start(Listener::from_descriptor(datagrams));
            assert_eq!([connected, of_datagrams], [ErrorKind::InvalidInput; 2]);
            let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
            start(Listener::from_descriptor(file));
        }
        #[cfg(windows)]
        {
            drop((client, datagrams));
            assert_eq!(start(Listener::from_tcp(listener())), ErrorKind::Unsupported);
        }
        drop(server);
    }
}
