//! A session's context: there in each of its callbacks, and dropped once, whatever becomes of the session.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use support::*;
use wharf::{
    Backend, Close, CloseReason, ConnectError, Connector, Handle, Handler, Options, Server,
    Session, SessionId, Target,
};

const CROWD: usize = 41;
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// How many there were, and how many were dropped.
#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Counts {
    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    fn all_are_dropped(&self) -> bool {
        self.dropped() == self.made.load(Ordering::SeqCst)
    }
}

struct Context {
    number: usize,
    counts: Arc<Counts>,
    panics: bool,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        if self.panics && !thread::panicking() {
            panic_dreadfully();
        }
    }
}

fn context(counts: &Arc<Counts>, number: usize, panics: bool) -> Context {
    counts.made.fetch_add(1, Ordering::SeqCst);
    Context { number, counts: counts.clone(), panics }
}

/// The callbacks that a session has had, and the number of the context that it had there.
type Seen = Arc<Mutex<Vec<(SessionId, &'static str, Option<usize>)>>>;

#[derive(Default)]
struct Notes {
    seen: Seen,
    /// Where to try again what has failed, and by whom.
    retry: OnceLock<(Handle, SocketAddr)>,
    retried: Mutex<Vec<SessionId>>,
    panics: bool,
}

impl Notes {
    fn note(&self, callback: &'static str, session: &Session) {
        assert!(session.context::<String>().is_none(), "it is of another type");
        let number = session.context::<Context>().map(|context| context.number);
        self.seen.lock().unwrap().push((session.id(), callback, number));
        if self.panics {
            panic_on_purpose();
        }
    }

    /// Of one session.
    fn of(&self, id: SessionId) -> Vec<(&'static str, Option<usize>)> {
        let seen = self.seen.lock().unwrap();
        let of = seen.iter().filter(|(of, ..)| *of == id);
        of.map(|(_, callback, number)| (*callback, *number)).collect()
    }

    fn has(&self, id: SessionId, callback: &str) -> bool {
        self.of(id).iter().any(|(of, _)| *of == callback)
    }
}

impl Handler for Notes {
    type State = ();

    fn opened(&self, session: &Session) {
        self.note("opened", session);
    }

    fn received(&self, session: &Session, (): &mut (), _: &[u8]) {
        self.note("received", session);
    }

    fn closed(&self, session: &Session, (): (), _: CloseReason) {
        self.note("closed", session);
    }

    fn connect_failed(&self, id: SessionId, target: &Target, _: &io::Error) {
        let context = target.context.clone();
        let number = context.map(|any| any.downcast::<Context>().ok().unwrap().number);
        self.seen.lock().unwrap().push((id, "connect_failed", number));
        if let Some((handle, address)) = self.retry.get() {
            let mut again = target.clone();
            again.address = (*address).into();
            self.retried.lock().unwrap().push(handle.connect(again).unwrap());
        }
        if self.panics {
            panic_on_purpose();
        }
    }
}

/// Where nobody listens.
fn refusing() -> SocketAddr {
    TcpListener::bind(HERE).unwrap().local_addr().unwrap()
}

fn options(workers: usize) -> Options {
    Options::default().workers(workers)
}

fn connector(backend: Backend, notes: &Arc<Notes>) -> Connector {
    Connector::builder().options(options(3)).backend(backend).start(notes.clone()).unwrap()
}

/// So many sessions with contexts, every fourth without, and their peers.
fn begin(
    handle: &Handle,
    listener: &TcpListener,
    counts: &Arc<Counts>,
    panics: bool,
) -> Vec<(SessionId, TcpStream, Option<usize>)> {
    let address = listener.local_addr().unwrap();
    let sessions = (0..CROWD).map(|number| {
        let target = Target::new(address);
        let has_one = number % 4 != 3;
        let target = if has_one { target.context(context(counts, number, panics)) } else { target };
        let id = handle.connect(target).unwrap();
        (id, listener.accept().unwrap().0, has_one.then_some(number))
    });
    sessions.collect()
}

on_every_backend! {
    fn every_callback_of_a_session_has_its_context_and_no_other_has_one(backend) {
        let (notes, counts) = (Arc::new(Notes::default()), Arc::new(Counts::default()));
        let builder = Server::builder().listen(HERE).options(options(3)).backend(backend);
        let server = builder.start(notes.clone()).unwrap();
        let handle = server.handle();
        let listener = TcpListener::bind(HERE).unwrap();
        let sessions = begin(&handle, &listener, &counts, false);
        let accepted: Vec<_> = (0..5).map(|_| connect(server.addresses()[0])).collect();
        accepted.iter().for_each(|peer| write(peer, b"!"));
        for (id, peer, _) in &sessions {
            write(peer, b"!");
            eventually("it is received", || notes.has(*id, "received"));
            assert!(handle.close(*id, Close::Stop));
            eventually("it is closed", || notes.has(*id, "closed"));
        }
        for (id, _, number) in &sessions {
            let callbacks = ["opened", "received", "closed"].map(|callback| (callback, *number));
            assert_eq!(notes.of(*id), callbacks);
        }
        eventually("all contexts are dropped", || counts.all_are_dropped());
        assert!(counts.dropped() > CROWD / 2);
        drop(accepted);
        eventually("nobody is left", || handle.stats().live == 0);
        let connected: Vec<_> = sessions.iter().map(|(id, ..)| *id).collect();
        for (id, callback, number) in &*notes.seen.lock().unwrap() {
            assert!(connected.contains(id) || number.is_none(), "{id} in {callback}: {number:?}");
        }
        handle.stop();
        server.wait().unwrap();
        assert!(counts.all_are_dropped(), "once each");
    }

    fn connect_failed_has_the_context_and_a_retry_with_the_same_target_keeps_it(backend) {
        let (notes, counts) = (Arc::new(Notes::default()), Arc::new(Counts::default()));
        let connector = connector(backend, &notes);
        let handle = connector.handle();
        let listener = TcpListener::bind(HERE).unwrap();
        let _ = notes.retry.set((handle.clone(), listener.local_addr().unwrap()));
        for number in 0..CROWD {
            let target = Target::new(refusing()).context(context(&counts, number, false));
            let first = handle.connect(target).unwrap();
            let (peer, _) = listener.accept().unwrap();
            eventually("it was begun again", || notes.retried.lock().unwrap().len() > number);
            let second = notes.retried.lock().unwrap()[number];
            eventually("it is opened", || notes.has(second, "opened"));
            drop(peer);
            eventually("it is closed", || notes.has(second, "closed"));
            assert_eq!(notes.of(first), [("connect_failed", Some(number))]);
            assert_eq!(notes.of(second), [("opened", Some(number)), ("closed", Some(number))]);
            eventually("its context is dropped", || counts.all_are_dropped());
        }
        assert_eq!(counts.dropped(), CROWD, "one for both sessions");
        handle.stop();
        connector.wait().unwrap();
    }

    fn a_context_whose_destructor_panics_is_dropped_once_and_costs_nobody_else(backend) {
        for callbacks_panic in [false, true] {
            let notes = Arc::new(Notes { panics: callbacks_panic, ..Notes::default() });
            let counts = Arc::new(Counts::default());
            let connector = connector(backend, &notes);
            let handle = connector.handle();
            let listener = TcpListener::bind(HERE).unwrap();
            for (id, peer, _) in begin(&handle, &listener, &counts, true) {
                eventually("it is opened", || notes.has(id, "opened"));
                drop(peer);
            }
            for number in 0..5 {
                let target = Target::new(refusing()).context(context(&counts, number, true));
                let id = handle.connect(target).unwrap();
                eventually("it fails", || notes.has(id, "connect_failed"));
            }
            eventually("all contexts are dropped", || counts.all_are_dropped());
            eventually("nobody is left", || handle.stats().live == 0);
            handle.stop();
            connector.wait().unwrap();
            assert!(counts.all_are_dropped(), "once each");
        }
    }

    fn a_server_that_is_dropped_with_sessions_drops_their_contexts(backend) {
        for panics in [false, true] {
            let (notes, counts) = (Arc::new(Notes::default()), Arc::new(Counts::default()));
            let connector = connector(backend, &notes);
            let handle = connector.handle();
            let listener = TcpListener::bind(HERE).unwrap();
            let sessions = begin(&handle, &listener, &counts, panics);
            drop(connector);
            eventually("all contexts are dropped", || counts.all_are_dropped());
            let target = Target::new(refusing()).context(context(&counts, 0, false));
            assert!(matches!(handle.connect(target), Err(ConnectError::Ending)));
            assert!(counts.all_are_dropped(), "of who cannot be begun too");
            drop((sessions, handle));
            assert!(counts.all_are_dropped(), "once each");
        }
    }

    fn a_connect_that_meets_the_end_of_the_server_loses_no_context(backend) {
        for round in 0..20 {
            let (notes, counts) = (Arc::new(Notes::default()), Arc::new(Counts::default()));
            let connector = connector(backend, &notes);
            let handle = connector.handle();
            let refusing = refusing();
            let begun = thread::scope(|scope| {
                let begins = scope.spawn(|| {
                    let mut begun = Vec::new();
                    loop {
                        let made = counts.made.load(Ordering::SeqCst);
                        let context = context(&counts, made, made.is_multiple_of(2));
                        let target = Target::new(refusing).context(context);
                        let connected = catch_unwind(AssertUnwindSafe(|| handle.connect(target)));
                        match connected {
                            Ok(Ok(id)) => begun.push(id),
                            Ok(Err(ConnectError::Ending)) => break begun,
                            Ok(Err(ConnectError::Full { .. } | ConnectError::Socket { .. })) => {}
                            Ok(Err(error)) => panic!("{error}"),
                            // It was refused, and so dropped here.
                            Err(panic) => std::mem::forget(panic),
                        }
                    }
                });
                eventually("it connects", || handle.stats().connect_failures > round);
                drop(connector);
                begins.join().unwrap()
            });
            for id in &begun {
                assert_eq!(notes.of(*id).len(), 1, "it has its end, once");
            }
            assert!(counts.all_are_dropped(), "round {round}");
        }
    }
}
