//! What one thread asks for comes about in its order, and a close that drains loses nothing that was
//! accepted before it: neither what was published, nor what was sent before the connection stood.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use support::*;
use wharf::{
    Backend, Close, CloseReason, Connector, FirstFrameTimeout, Gone, Group, JoinError, Options,
    SessionId,
};

const ROOM: Group = Group(3);
/// Few are served in time by chance; of a hundred some are not.
const CROWD: usize = 100;

fn start_listening(backend: Backend, behaviour: Behaviour) -> Harness {
    // Peers here only listen.
    let first_frame_timeout = FirstFrameTimeout::Never;
    let options = Options::default().workers(2).with(|options| {
        options.time.first_frame_timeout = first_frame_timeout;
    });
    start(backend, length_framing(), options, behaviour)
}

fn crowd(harness: &Harness) -> Vec<(TcpStream, SessionId)> {
    (0..CROWD).map(|_| harness.connect_known()).collect()
}

/// All that comes until the end of the stream, which must be these frames.
#[track_caller]
fn assert_got(peer: &TcpStream, frames: &[&[u8]]) {
    let expected: Vec<u8> = frames.iter().flat_map(|frame| wire_default(frame)).collect();
    assert_eq!(read_to_end(peer), expected);
}

/// A connector, and who it connects to.
fn start_connecting(backend: Backend, options: Options) -> (Harness, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let builder = Connector::builder().framing(length_framing()).options(options);
    (start_connector(backend, builder, Behaviour::silent()), listener)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    peer
}

on_every_backend! {
    fn what_was_published_before_a_close_that_drains_reaches_every_member(backend) {
        let harness = start_listening(backend, Behaviour::silent());
        let members = crowd(&harness);
        let handle = &harness.handle;
        for (_, id) in &members {
            handle.send(*id, b"first").unwrap();
            handle.join(*id, ROOM).unwrap();
        }
        handle.publish(ROOM, b"to the room").unwrap();
        handle.broadcast(b"to all").unwrap();
        for (_, id) in &members {
            assert!(handle.close(*id, Close::Drain));
            assert!(matches!(handle.send(*id, b"late"), Err(Gone(_))));
            assert_eq!(handle.join(*id, ROOM), Err(JoinError::Gone));
        }
        let _ = handle.publish(ROOM, b"too late");
        for (peer, id) in &members {
            assert_got(peer, &[b"first", b"to the room", b"to all"]);
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(harness.log.closed(*id), CloseReason::Local);
        }
        harness.settle();
        harness.finish();
    }

    fn what_a_callback_published_before_it_closes_reaches_its_own_peer(backend) {
        let behaviour = Behaviour::silent()
            .on_opened(|session| {
                session.handle().join(session.id(), ROOM).unwrap();
            })
            .on_received(|session, _| {
                session.handle().publish(ROOM, b"farewell").unwrap();
                session.close(Close::Drain);
                session.send(b"late");
            });
        let harness = start_listening(backend, behaviour);
        for _ in 0..CROWD {
            // The next is refused by nobody and hears nothing of those before it.
            let (peer, id) = harness.connect_known();
            write(&peer, &[wire_default(b"a"), wire_default(b"b")].concat());
            assert_got(&peer, &[b"farewell"]);
            drop(peer);
            assert_eq!(harness.log.closed(id), CloseReason::Local);
            assert_eq!(harness.log.record(id).frame_count, 1, "received ran after the close");
        }
        harness.settle();
        harness.finish();
    }

    fn a_connect_that_is_asked_to_drain_connects_and_what_was_sent_to_it_leaves(backend) {
        let options = Options::default().workers(2);
        let (harness, listener) = start_connecting(backend, options);
        let address = listener.local_addr().unwrap();
        for number in 0..CROWD as u8 {
            let id = harness.handle.connect(address).unwrap();
            harness.handle.send(id, [number]).unwrap();
            assert!(harness.handle.close(id, Close::Drain));
            let peer = accept(&listener);
            assert_got(&peer, &[&[number]]);
            drop(peer);
            assert_eq!(harness.log.closed(id), CloseReason::Local);
        }
        harness.settle();
        assert_eq!(harness.finish().opened, CROWD as u64);
    }

    fn a_drain_of_the_server_waits_for_connects_for_which_something_was_accepted(backend) {
        let options = Options::default().workers(2);
        let (harness, listener) = start_connecting(backend, options);
        let address = listener.local_addr().unwrap();
        let ids: Vec<_> = (0..41).map(|_| harness.handle.connect(address).unwrap()).collect();
        for id in &ids {
            harness.handle.send(*id, b"hello").unwrap();
        }
        let reader = std::thread::spawn(move || {
            for _ in 0..41 {
                assert_got(&accept(&listener), &[b"hello"]);
            }
        });
        let report = harness.handle.drain(BOUND).unwrap();
        assert_eq!((report.live, report.flushed), (41, 41), "{report:?}");
        reader.join().unwrap();
        assert!(ids.iter().all(|id| harness.log.closed(*id) == CloseReason::Drained));
        harness.finish();
    }
}

/// With a listener that answers nobody, as only Linux lets one be made.
#[cfg(target_os = "linux")]
mod unanswered {
    use std::io::ErrorKind;
    use std::net::SocketAddr;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A connect to it stays as it is. Whoever fills its queue is kept with it.
    fn deaf_listener() -> (Vec<Socket>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address); // it is begun
            sockets.push(socket);
        }
        (sockets, address.as_socket().unwrap())
    }

    on_every_backend! {
            fn a_connect_that_nobody_answers_fails_in_its_time(backend) {
                let connect_timeout = Some(Duration::from_millis(100));
                let options = one_worker().with(|options| {
    options.time.connect_timeout = connect_timeout;
    });
                let (harness, _listener) = start_connecting(backend, options);
                let (_sockets, address) = deaf_listener();
                // One that is waited for, one that is to drain, and one that need not connect any more.
                let ids = [(); 3].map(|()| harness.handle.connect(address).unwrap());
                harness.handle.send(ids[1], b"lost").unwrap();
                harness.handle.close(ids[1], Close::Drain);
                harness.handle.close(ids[2], Close::Drain);
                let failed = |id| {
                    harness.log.wait("the connect fails", |ledger| {
                        let mut failed = ledger.connects_failed.iter();
                        failed.find(|(of, ..)| *of == id).map(|(.., kind)| *kind)
                    })
                };
                use ErrorKind::{ConnectionAborted, TimedOut};
                assert_eq!(ids.map(failed), [TimedOut, TimedOut, ConnectionAborted]);
                harness.finish();
            }
        }
}
