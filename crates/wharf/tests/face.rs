//! What of the face stands alone: a shared handler, thread names, small questions; and what is printed of its
//! types fits on a screen.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::fmt::Debug;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use wharf::{
    AcceptError, Backend, Close, CloseReason, ConnectError, Connector, EncodeError, Framing, Gone,
    Group, Handler, JoinError, LengthPrefix, Listener, Options, PeerAddress, PublishError,
    SendError, Server, Session, SessionId, Target,
};

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
/// 24 lines of 80.
const SCREEN_BYTES: usize = 1920;

/// Counts its callbacks, in the order of the trait, and keeps what it printed of its sessions.
#[derive(Default)]
struct Counts {
    calls: [AtomicUsize; 6],
    threads: Mutex<Vec<String>>,
    printed: Mutex<Vec<String>>,
}

impl Counts {
    fn count(&self, callback: usize) {
        self.calls[callback].fetch_add(1, Ordering::SeqCst);
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        self.threads.lock().unwrap().push(name);
    }

    fn of(&self, callback: usize) -> usize {
        self.calls[callback].load(Ordering::SeqCst)
    }
}

impl Handler for Counts {
    type State = usize;

    fn opened(&self, session: &Session) -> usize {
        self.count(0);
        self.printed.lock().unwrap().push(format!("{session:?}"));
        7
    }

    fn received(&self, session: &Session, state: &mut usize, _: &[u8]) {
        assert_eq!(*state, 7);
        *state = 8;
        self.count(1);
        session.close(Close::Stop);
    }

    fn closed(&self, session: &Session, state: usize, _: CloseReason) {
        assert_eq!(state, 8);
        self.count(2);
        self.printed.lock().unwrap().push(format!("{session:?}"));
    }

    fn draining(&self) {
        self.count(3);
    }

    fn accept_failed(&self, _: &AcceptError) {
        self.count(4);
    }

    fn connect_failed(&self, _: SessionId, _: &Target, _: &io::Error) {
        self.count(5);
    }
}

/// What is printed of it fits on a screen, in a line.
#[track_caller]
fn assert_fits(value: &dyn Debug) {
    let printed = format!("{value:?}");
    assert!(!printed.is_empty() && !printed.contains('\n'));
    assert!(printed.len() <= SCREEN_BYTES, "{} bytes: {printed}", printed.len());
}

on_every_backend! {
    fn a_shared_handler_hears_all_that_its_server_tells(backend) {
        let counts = Arc::new(Counts::default());
        let options = Options::default().thread_name("game".to_owned()).workers(2);
        // Twice shared is shared as well.
        let builder = Server::builder().listen(HERE).options(options).backend(backend);
        let server = builder.start(Arc::new(counts.clone())).unwrap();
        let handle = server.handle();
        let refusing = TcpListener::bind(HERE).unwrap().local_addr().unwrap();
        handle.connect(refusing).unwrap();
        let peers: Vec<_> = (0..5).map(|_| connect(server.addresses()[0])).collect();
        for peer in &peers {
            write(peer, b"!");
            wait_ended(peer);
        }
        eventually("its connect fails", || counts.of(5) == 1);
        handle.drain(BOUND).unwrap();
        server.wait().unwrap();
        assert_eq!([0, 1, 2, 3, 5].map(|callback| counts.of(callback)), [5, 5, 5, 1, 1]);
        for name in &*counts.threads.lock().unwrap() {
            assert!(["game-0", "game-1"].contains(&name.as_str()), "{name}");
        }
        for printed in &*counts.printed.lock().unwrap() {
            assert!(printed.starts_with("Session") && printed.len() <= SCREEN_BYTES, "{printed}");
        }
    }

    fn a_session_is_open_until_it_closes_and_says_what_waits(backend) {
        let harness = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        let handle = &harness.handle;
        let (peer, id) = harness.connect_known();
        assert!(handle.is_open(id));
        assert_eq!(handle.queued_bytes(id), Some(0));
        let mut sent = 0;
        // Until the kernel takes no more either.
        eventually("something waits", || {
            while let Ok(()) = handle.try_send(id, [1; 64 * 1024]) {
                sent += 64 * 1024;
            }
            handle.queued_bytes(id).is_some_and(|bytes| bytes > 0 && bytes <= 256 * 1024)
        });
        assert_eq!(read(&peer, sent).len(), sent);
        eventually("all has left", || handle.queued_bytes(id) == Some(0));
        assert!(handle.is_open(id));
        assert!(handle.close(id, Close::Drain));
        assert!(!handle.is_open(id), "it takes nothing more");
        drop(peer);
        harness.log.closed(id);
        eventually("it is over", || handle.queued_bytes(id).is_none());
        assert!(!handle.is_open(id) && !handle.close(id, Close::Stop));
        let never = SessionId::from_bits(u64::MAX);
        assert!(!handle.is_open(never) && handle.queued_bytes(never).is_none());
        harness.finish();
    }

    fn what_is_printed_of_each_type_fits_on_a_screen(backend) {
        let options = Options::default();
        assert_fits(&options);
        let lines = format!("{options:#?}").lines().count();
        assert!(lines <= 66, "{lines} lines");
        let prefixed = Framing::length_prefixed(LengthPrefix::default());
        let listener = || Listener::new(HERE).name("players").framing(prefixed.clone());
        let builder = || Server::builder().listen(listener()).listen(HERE).workers(2).backend(backend);
        assert_fits(&listener());
        assert_fits(&builder());
        assert_fits(&Connector::builder());
        let lines = format!("{:#?}", builder()).lines().count();
        assert!(lines <= 132, "{lines} lines");

        let prepared = builder().prepare(Nobody).unwrap();
        assert_fits(&prepared);
        let server = prepared.start();
        assert_fits(&server);
        assert_fits(&server.handle());
        assert_fits(server.backend());
        let connector = Connector::builder().backend(backend).workers(1).start(Nobody).unwrap();
        assert_fits(&connector);
        let peer = connect(server.addresses()[1]);
        eventually("it is open", || server.handle().stats().opened == 1);
        assert_fits(&server.handle().stats());
        assert_fits(&server.handle().histograms());
        drop(peer);

        let frame = server.handle().encode(vec![7; 60_000]).unwrap();
        assert_fits(&frame);
        let target = Target::new(server.addresses()[0]).context(vec![7; 60_000]);
        assert_fits(&target);
        assert_fits(&PeerAddress::from(server.addresses()[0]));
        assert_fits(&SessionId::from_bits(u64::MAX));
        assert_fits(&Group(u64::MAX));
        assert_fits(&Gone(&frame));
        assert_fits(&SendError::Full { bytes: &frame, queued: 1, max: usize::MAX });
        assert_fits(&PublishError::Full { bytes: &frame, waiting: 1, max: usize::MAX });
        assert_fits(&EncodeError::TooLarge { bytes: &frame, max: 1 });
        assert_fits(&JoinError::Full { waiting: 1, max: 2 });
        assert_fits(&ConnectError::Ending);
        assert_fits(&CloseReason::FrameTooLargeToSend { bytes: usize::MAX, max: usize::MAX });
        assert_fits(&server.handle().drain(Duration::ZERO).unwrap());
        server.wait().unwrap();
    }
}
