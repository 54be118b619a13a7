//! The user's code does what it should not: it panics wherever it runs, with values that panic when they
//! are dropped, and calls back in. It ends its own session, or its own call, and nothing else.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::*;
use wharf::{
    Backend, Close, CloseReason, Framing, Gone, Group, Handle, Handler, Options, Server, Session,
    SessionId,
};

/// Bytes that panic when they are looked at.
#[derive(Debug)]
struct Unreadable;

impl AsRef<[u8]> for Unreadable {
    fn as_ref(&self) -> &[u8] {
        panic_on_purpose()
    }
}

/// Bytes that panic when they are dropped.
#[derive(Debug)]
struct Undroppable(&'static [u8]);

impl AsRef<[u8]> for Undroppable {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl Drop for Undroppable {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_on_purpose()
        }
    }
}

/// Other bytes at each look, and at each a call of the server.
#[derive(Debug)]
struct Restless<'a> {
    handle: &'a Handle,
    id: SessionId,
    looks: AtomicUsize,
}

impl AsRef<[u8]> for Restless<'_> {
    fn as_ref(&self) -> &[u8] {
        let _ = self.handle.stats();
        let _ = self.handle.send(self.id, b"<");
        let _ = self.handle.publish(Group(1), b"nobody");
        [&b"one"[..], b"another"][self.looks.fetch_add(1, Ordering::SeqCst) % 2]
    }
}

fn panics<R>(code: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(_) => false,
        Err(payload) => {
            std::mem::forget(payload);
            true
        }
    }
}

/// As many sessions as there may be, of which none must be used up.
fn three() -> Options {
    one_worker().with(|options| {
        options.sessions.max = 3;
    })
}

on_every_backend! {
    fn bytes_that_panic_end_the_call_and_cost_no_session(backend) {
        let harness = start(backend, Framing::raw(), three(), Behaviour::silent());
        let peers: Vec<_> = (0..3).map(|_| harness.connect_known()).collect();
        for (peer, id) in &peers {
            for _ in 0..3 {
                assert!(panics(|| harness.handle.send(*id, Unreadable)));
                assert!(panics(|| harness.handle.send(*id, Undroppable(b"x"))));
                assert!(panics(|| harness.handle.publish(Group(1), Unreadable)));
                assert!(panics(|| harness.handle.broadcast(Undroppable(b"y"))));
            }
            assert!(harness.handle.close(*id, Close::Drain));
            read_to_end(peer);
        }
        drop(peers);
        harness.log.wait_closed_count(3);
        harness.settle();
        let again: Vec<_> = (0..3).map(|_| harness.connect_known()).collect();
        assert_eq!(again.len(), 3, "every place came back");
        harness.finish();
    }

    fn bytes_that_panic_in_a_callback_end_its_session_and_not_the_one_that_they_were_for(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let other = SessionId::from_bits(u64::from_le_bytes(frame[..8].try_into().unwrap()));
            let _ = session.handle().send(other, Unreadable);
        });
        let harness = start(backend, Framing::raw(), three(), behaviour);
        let (other_peer, other) = harness.connect_known();
        for _ in 0..5 {
            let (peer, id) = harness.connect_known();
            write(&peer, &other.to_bits().to_le_bytes());
            assert_eq!(harness.log.closed(id), CloseReason::HandlerPanicked);
        }
        harness.handle.send(other, b"well").unwrap();
        assert_eq!(read(&other_peer, 4), b"well");
        harness.handle.close(other, Close::Stop);
        harness.settle();
        harness.finish_after_panics(5);
    }

    fn bytes_are_looked_at_once_and_may_call_back_in(backend) {
        let harness = start(backend, Framing::raw(), three(), Behaviour::silent());
        let (peer, id) = harness.connect_known();
        let bytes = Restless { handle: &harness.handle, id, looks: AtomicUsize::new(0) };
        harness.handle.send(id, &bytes).unwrap();
        assert_eq!(read(&peer, 4), b"<one");
        assert_eq!(bytes.looks.load(Ordering::SeqCst), 1);
        harness.handle.broadcast(&bytes).unwrap();
        assert_eq!(read(&peer, 8), b"<another");
        harness.handle.close(id, Close::Stop);
        harness.settle();
        let Err(Gone(_)) = harness.handle.send(id, &bytes) else {
            panic!("it was sent to a session that is over")
        };
        harness.finish();
    }

    fn callbacks_that_panic_with_what_panics_when_it_is_dropped_end_their_sessions(backend) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refusing = listener.local_addr().unwrap();
        drop(listener);
        let counts = Arc::new(Counts::default());
        let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).options(three());
        let server = builder.backend(backend).start(Panics(counts.clone())).unwrap();
        let (address, handle) = (server.addresses()[0], server.handle());
        let peers: Vec<_> = b"orc".iter().map(|what| (what, connect(address))).collect();
        for (what, peer) in &peers {
            write(peer, &[**what]);
        }
        for (_, peer) in &peers {
            wait_ended(peer);
        }
        eventually("their places are free", || handle.connect(refusing).is_ok());
        eventually("every callback has panicked", || handle.stats().handler_panics == 6);
        let last = connect(address);
        round_trip(&last, b"e");
        drop(last);
        eventually("it is over", || handle.stats().live == 0);
        handle.stop();
        server.wait().unwrap();
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        assert_eq!((count(&counts.opened), count(&counts.closed)), (4, 4));
        assert_eq!(count(&counts.handlers_dropped), 1);
    }
}

#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    closed: AtomicUsize,
    handlers_dropped: AtomicUsize,
}

/// Whose every callback panics when its session's first byte says so, whose states do when they are
/// dropped, and which does itself.
struct Panics(Arc<Counts>);

impl Drop for Panics {
    fn drop(&mut self) {
        self.0.handlers_dropped.fetch_add(1, Ordering::SeqCst);
        panic_dreadfully();
    }
}

impl Handler for Panics {
    type State = (u8, Dreadful);

    fn opened(&self, _: &Session) -> (u8, Dreadful) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        (b' ', Dreadful)
    }

    fn received(&self, session: &Session, state: &mut (u8, Dreadful), frame: &[u8]) {
        state.0 = frame[0];
        match frame[0] {
            b'e' => session.send(frame),
            b'c' => session.close(Close::Stop),
            _ => panic_dreadfully(),
        }
    }

    fn closed(&self, _: &Session, state: (u8, Dreadful), _: CloseReason) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
        drop(state); // which panics
    }

    fn connect_failed(&self, _: SessionId, _target: &wharf::Target, _: &io::Error) {
        panic_dreadfully();
    }
}
