//! A prepared server: its handle works before it runs, and no callback does.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use wharf::{
    Backend, Close, CloseReason, ConnectError, Group, Handler, JoinError, Options, Prepared,
    PublishError, SendError, Server, Session, SessionId, Target,
};

const CROWD: usize = 41;
const WORKERS: usize = 3;
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// How often each callback was called, and how connects have failed.
#[derive(Default)]
struct Calls {
    opened: AtomicUsize,
    closed: AtomicUsize,
    draining: AtomicUsize,
    connects_failed: Mutex<Vec<(SessionId, io::ErrorKind)>>,
    handlers_dropped: AtomicUsize,
}

struct Counting(Arc<Calls>);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.handlers_dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Counting {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        session.send(b"hello");
    }

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        session.send(frame);
    }

    fn closed(&self, _: &Session, (): (), _: CloseReason) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn draining(&self) {
        self.0.draining.fetch_add(1, Ordering::SeqCst);
    }

    fn connect_failed(&self, id: SessionId, _: &Target, error: &io::Error) {
        self.0.connects_failed.lock().unwrap().push((id, error.kind()));
    }
}

impl Calls {
    fn count(count: &AtomicUsize) -> usize {
        count.load(Ordering::SeqCst)
    }

    /// Of any kind.
    fn any(&self) -> usize {
        let counts = [&self.opened, &self.closed, &self.draining].map(Calls::count);
        counts.iter().sum::<usize>() + self.connects_failed.lock().unwrap().len()
    }
}

fn prepare(backend: Backend) -> (Prepared, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    let options = Options::default().workers(WORKERS);
    let builder = Server::builder().listen(HERE).options(options).backend(backend);
    let prepared = builder.prepare(Counting(calls.clone())).unwrap();
    assert_eq!(prepared.backend().backend(), backend);
    assert!(prepared.listen_errors().is_empty());
    (prepared, calls)
}

fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    (0..CROWD).map(|_| connect(address)).collect()
}

on_every_backend! {
    fn whoever_connects_waits_and_what_was_asked_comes_about_when_it_starts(backend) {
        const ROOM: Group = Group(1);
        let (prepared, calls) = prepare(backend);
        let (handle, address) = (prepared.handle(), prepared.addresses()[0]);
        let peers = crowd(address);
        peers.iter().for_each(|peer| write(peer, b"!"));
        let listener = TcpListener::bind(HERE).unwrap();
        let to = listener.local_addr().unwrap();
        let ids: Vec<_> = (0..CROWD).map(|_| handle.connect(to).unwrap()).collect();
        let elsewhere = TcpListener::bind(HERE).unwrap();
        let closed = handle.connect(elsewhere.local_addr().unwrap()).unwrap();
        for id in &ids {
            assert!(handle.is_open(*id));
            handle.send(*id, b"early ").unwrap();
            assert_eq!(handle.queued_bytes(*id), Some(6));
            assert_eq!(handle.join(*id, ROOM), Ok(true));
        }
        assert!(handle.close(closed, Close::Stop));
        assert_eq!(handle.try_send(closed, b"late"), Err(SendError::Gone(b"late")));
        handle.publish(ROOM, b"published ").unwrap();
        if backend != Backend::Iocp {
            // Of workers that share a port one may open a session before another comes to this.
            handle.broadcast(b"nobody is open").unwrap();
        }
        assert_eq!(handle.member_count(ROOM), CROWD);
        assert_eq!(handle.members(ROOM).len(), CROWD);
        assert_eq!(handle.leave(ids[1], ROOM), Some(CROWD - 1));
        let stats = handle.stats();
        assert_eq!((stats.live, stats.accepted), (0, 0));
        let _ = handle.histograms();
        let _ = format!("{prepared:?} {handle:?}");
        assert_eq!(calls.any(), 0, "no callback runs");

        let server = prepared.start();
        assert_eq!(server.addresses(), [address]);
        for peer in &peers {
            assert_eq!(read(peer, 6), b"hello!");
        }
        let connected: Vec<_> = ids.iter().map(|_| listener.accept().unwrap().0).collect();
        for peer in &connected {
            peer.set_read_timeout(Some(BOUND)).unwrap();
            assert_eq!(read(peer, 6), b"early ", "it was first");
            match &*read(peer, 5) {
                b"publi" => assert_eq!(read(peer, 10), b"shed hello"),
                said => assert_eq!(said, b"hello", "the one that has left"),
            }
        }
        eventually("the one that was closed has its end", || {
            calls.connects_failed.lock().unwrap().len() == 1
        });
        assert_eq!(calls.connects_failed.lock().unwrap()[0].0, closed);
        assert_eq!(handle.member_count(ROOM), CROWD - 1);
        handle.stop();
        server.wait().unwrap();
        assert_eq!(Calls::count(&calls.opened), 2 * CROWD);
        assert_eq!(Calls::count(&calls.closed), 2 * CROWD);
        assert_eq!(Calls::count(&calls.handlers_dropped), 1);
    }

    fn one_that_is_stopped_before_it_starts_opens_nothing(backend) {
        for by_drain in [false, true] {
            let (prepared, calls) = prepare(backend);
            let handle = prepared.handle();
            let peers = crowd(prepared.addresses()[0]);
            if by_drain {
                let report = handle.drain(Duration::from_millis(50)).unwrap();
                assert_eq!((report.live, report.served), (0, 0));
                assert_eq!(report.workers_blocked, WORKERS as u64);
            } else {
                handle.stop();
            }
            assert_eq!(handle.publish(Group(1), b"late"), Err(PublishError::Ending(b"late")));
            assert!(matches!(handle.connect(prepared.addresses()[0]), Err(ConnectError::Ending)));
            assert_eq!(calls.any(), 0);
            let server = prepared.start();
            server.wait().unwrap();
            peers.iter().for_each(wait_ended);
            assert_eq!(calls.any(), 0, "nobody was opened, and nobody told of a drain");
            assert_eq!(Calls::count(&calls.handlers_dropped), 1);
        }
    }

    fn one_that_drains_when_it_starts_tells_its_handler_and_answers_what_was_begun(backend) {
        let (prepared, calls) = prepare(backend);
        let handle = prepared.handle();
        let listener = TcpListener::bind(HERE).unwrap();
        let to = listener.local_addr().unwrap();
        let ids: Vec<_> = (0..CROWD).map(|_| handle.connect(to).unwrap()).collect();
        ids.iter().for_each(|id| handle.send(*id, b"early ").unwrap());
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(BOUND).unwrap());
            let server = prepared.start();
            for _ in &ids {
                let (peer, _) = listener.accept().unwrap();
                peer.set_read_timeout(Some(BOUND)).unwrap();
                let said = read_to_end(&peer);
                assert!(said.starts_with(b"early "), "what was sent before leaves: {said:?}");
            }
            let report = drain.join().unwrap();
            assert_eq!(report.flushed, CROWD as u64, "{report:?}");
            server.wait().unwrap();
        });
        assert_eq!(Calls::count(&calls.draining), 1);
        assert_eq!(Calls::count(&calls.closed), CROWD);
    }

    fn one_that_is_dropped_ends_and_each_connect_fails_once(backend) {
        let (prepared, calls) = prepare(backend);
        let (handle, address) = (prepared.handle(), prepared.addresses()[0]);
        let peers = crowd(address);
        let listener = TcpListener::bind(HERE).unwrap();
        let to = listener.local_addr().unwrap();
        let mut ids: Vec<_> = (0..CROWD).map(|_| handle.connect(to).unwrap()).collect();
        ids.iter().for_each(|id| handle.send(*id, b"early").unwrap());
        drop(prepared);
        let mut failed: Vec<_> =
            calls.connects_failed.lock().unwrap().iter().map(|(id, _)| *id).collect();
        failed.sort_unstable();
        ids.sort_unstable();
        let (opened, closed) = (Calls::count(&calls.opened), Calls::count(&calls.closed));
        if backend == Backend::Iocp {
            // Of workers that share a port one may see a connect succeed before another ends it.
            assert_eq!((failed.len() + opened, opened), (CROWD, closed));
        } else {
            assert_eq!(failed, ids);
            assert_eq!((opened, closed), (0, 0));
        }
        assert_eq!(Calls::count(&calls.draining), 0);
        assert_eq!(Calls::count(&calls.handlers_dropped), 1);
        peers.iter().for_each(wait_ended);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
        for id in ids {
            assert!(!handle.is_open(id));
            assert_eq!(handle.join(id, Group(1)), Err(JoinError::Gone));
        }
        assert_eq!(handle.stats().live, 0);
    }
}
