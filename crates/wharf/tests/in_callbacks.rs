//! What a callback asks of its own server: its end, and sessions in the place of the one that ends. Nothing
//! waits for the worker that asks.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::*;
use wharf::{
    Backend, Close, CloseReason, ConnectError, Connector, Error, Framing, Handle, Handler, Options,
    Server, Session, SessionId,
};

/// How a callback asks for the end of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Drain,
    Wait,
    Drop,
    /// By a destructor, while the callback unwinds.
    DropUnwinding,
    /// By the destructor of the session's state.
    DropInState,
}

/// Holds its own server, and asks for its end when something comes.
struct EndsItself {
    asks: Asks,
    server: Arc<Mutex<Option<Server>>>,
    answers: Mutex<Sender<wharf::Result<()>>>,
}

/// Ends the server when it is dropped.
struct Ends(Option<Server>);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Handler for EndsItself {
    type State = Ends;

    fn opened(&self, _: &Session) -> Ends {
        Ends(None)
    }

    fn received(&self, session: &Session, state: &mut Ends, _: &[u8]) {
        let answer = |answer| lock(&self.answers).send(answer).unwrap();
        if self.asks == Asks::Drain {
            return answer(session.handle().drain(BOUND).map(drop));
        }
        let Some(server) = lock(&self.server).take() else { return };
        match self.asks {
            Asks::Drain => {}
            Asks::Wait => answer(server.wait()),
            Asks::Drop => {
                drop(server);
                answer(Ok(()));
            }
            Asks::DropUnwinding => {
                let _ends = Ends(Some(server));
                answer(Ok(()));
                panic_on_purpose()
            }
            Asks::DropInState => {
                state.0 = Some(server);
                session.close(Close::Stop);
                answer(Ok(()));
            }
        }
    }
}

/// A server that is asked so, with a peer whose callback does it and another; and the answer.
fn asked(backend: Backend, asks: Asks) -> (Handle, Receiver<wharf::Result<()>>) {
    let server = Arc::new(Mutex::new(None));
    let (sender, answers) = channel();
    let handler = EndsItself { asks, server: server.clone(), answers: Mutex::new(sender) };
    let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).backend(backend).workers(2);
    let started = builder.start(handler).unwrap();
    let (address, handle) = (started.addresses()[0], started.handle());
    *lock(&server) = Some(started);
    let peers: Vec<_> = (0..8).map(|_| connect(address)).collect();
    eventually("all are open", || handle.stats().live == 8);
    write(&peers[0], b"go");
    if asks == Asks::Drain {
        let answer = answers.recv_timeout(BOUND).expect("the call returns");
        assert!(matches!(answer, Err(Error::InCallback { .. })), "{answer:?}");
        assert_eq!(handle.stats().live, 8, "nothing was drained");
        drop(lock(&server).take());
    }
    peers.iter().for_each(wait_ended);
    eventually("all have ended", || handle.stats().live == 0);
    (handle, answers)
}

/// Is told when it is dropped.
struct Told(Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Blocks in `received`, or in `closed`, until it is let go.
struct Blocks {
    in_closed: bool,
    is_blocked: Arc<AtomicBool>,
    let_go: Arc<Mutex<Receiver<()>>>,
    /// Dropped with the handler: with the last worker.
    _told: Told,
}

impl Blocks {
    fn block(&self) {
        self.is_blocked.store(true, Ordering::SeqCst);
        // Until the other end is dropped.
        let _ = lock(&self.let_go).recv();
    }
}

impl Handler for Blocks {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        match frame {
            b"block" if self.in_closed => session.close(Close::Stop),
            b"block" => self.block(),
            _ => session.send(frame),
        }
    }

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        if reason == CloseReason::Local {
            self.block();
        }
    }
}

/// Begins another connection whenever one has ended or failed, as often as it is told.
struct Reconnects {
    to: SocketAddr,
    handle: Arc<Mutex<Option<Handle>>>,
    left: AtomicUsize,
    ended: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<ConnectError>>>,
}

impl Reconnects {
    fn again(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
            return;
        }
        let handle = lock(&self.handle).clone().expect("it was there before it connected");
        if let Err(error) = handle.connect(self.to) {
            lock(&self.refused).push(error);
        }
    }
}

impl Handler for Reconnects {
    type State = ();

    fn opened(&self, session: &Session) {
        session.close(Close::Stop);
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}

    fn closed(&self, _: &Session, (): (), _: CloseReason) {
        self.again();
    }

    fn connect_failed(&self, _: SessionId, _target: &wharf::Target, _: &io::Error) {
        self.again();
    }
}

/// A connector with as many sessions as it may have, each of which begins the next: none is refused.
fn reconnect(backend: Backend, to: SocketAddr, sessions: u32, workers: usize) {
    const AGAIN: usize = 500;
    let (handle, ended) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let refused = Arc::new(Mutex::new(Vec::new()));
    let handler = Reconnects {
        to,
        handle: handle.clone(),
        left: AtomicUsize::new(AGAIN),
        ended: ended.clone(),
        refused: refused.clone(),
    };
    let options = Options::default().workers(workers).with(|options| {
        options.sessions.max = sessions;
    });
    let connector = Connector::builder().options(options).backend(backend).start(handler).unwrap();
    *lock(&handle) = Some(connector.handle());
    for _ in 0..sessions {
        connector.handle().connect(to).unwrap();
    }
    let all = AGAIN + sessions as usize;
    eventually("all have ended, or one was refused", || {
        ended.load(Ordering::SeqCst) == all || !lock(&refused).is_empty()
    });
    assert!(lock(&refused).is_empty(), "{:?}", lock(&refused));
    lock(&handle).take();
    connector.handle().stop();
    connector.wait().unwrap();
}

on_every_backend! {
    fn a_drain_or_wait_in_a_callback_is_refused(backend) {
        let (handle, _) = asked(backend, Asks::Drain);
        let report = handle.drain(BOUND).unwrap();
        assert_eq!((report.served, report.workers_blocked), (8, 0));
        let (_, answers) = asked(backend, Asks::Wait);
        let answer = answers.recv_timeout(BOUND).expect("the call returns");
        assert!(matches!(answer, Err(Error::InCallback { .. })), "{answer:?}");
    }

    fn a_server_that_is_dropped_in_a_callback_stops_also_while_that_unwinds(backend) {
        for asks in [Asks::Drop, Asks::DropUnwinding, Asks::DropInState] {
            let (handle, answers) = asked(backend, asks);
            answers.recv_timeout(BOUND).expect("the callback returns").unwrap();
            let stats = handle.stats();
            assert_eq!(stats.opened, stats.closed);
            assert_eq!(stats.handler_panics, u64::from(asks == Asks::DropUnwinding));
            assert!(handle.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).is_err());
        }
    }

    /// Nobody waits for the callback, which never returns before the drain has.
    fn the_deadline_bounds_a_drain_while_a_callback_blocks(backend) {
        for in_closed in [false, true] {
            let (told, has_ended) = channel();
            let (holds, let_go) = channel();
            let is_blocked = Arc::new(AtomicBool::new(false));
            let handler = Blocks {
                in_closed,
                is_blocked: is_blocked.clone(),
                let_go: Arc::new(Mutex::new(let_go)),
                _told: Told(told),
            };
            let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).backend(backend);
            let server = builder.workers(2).start(handler).unwrap();
            let (address, handle) = (server.addresses()[0], server.handle());
            let peers: Vec<_> = (0..41).map(|_| connect(address)).collect();
            peers.iter().for_each(|peer| round_trip(peer, b"hello"));
            write(&peers[0], b"block");
            eventually("it blocks", || is_blocked.load(Ordering::SeqCst));

            let (deadline, began) = (Duration::from_millis(200), Instant::now());
            let report = handle.drain(deadline).unwrap();
            assert!(began.elapsed() >= deadline && began.elapsed() < BOUND);
            let parts = report.flushed + report.cut_off + report.ended + report.unfinished;
            assert_eq!(report.live, parts, "{report:?}");
            assert_eq!(report.served, 41, "{report:?}");
            // Of workers that share a port none ends before its last session.
            assert!((1..=2).contains(&report.workers_blocked), "{report:?}");
            // Those of the other worker have ended; whose callback it is has not.
            assert!(report.unfinished >= u64::from(!in_closed), "{report:?}");
            assert!(report.flushed + report.cut_off > 0, "{report:?}");
            assert!(has_ended.try_recv().is_err(), "the callback has not returned");

            drop(holds);
            server.wait().unwrap();
            has_ended.recv_timeout(BOUND).expect("the handler is dropped");
            let report = handle.drain(deadline).unwrap();
            assert_eq!((report.unfinished, report.workers_blocked), (0, 0), "{report:?}");
            let parts = report.flushed + report.cut_off + report.ended;
            assert_eq!((report.served, report.live), (41, parts), "{report:?}");
            peers.iter().for_each(wait_ended);
        }
    }

    fn a_reconnect_in_closed_finds_the_place_of_the_session_that_ends(backend) {
        let server = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        for (sessions, workers) in [(1, 1), (1, 2), (41, 2)] {
            reconnect(backend, server.address(), sessions, workers);
        }
        server.settle();
        server.finish();
    }

    fn a_reconnect_in_connect_failed_finds_the_place_of_the_connect_that_failed(backend) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refusing = listener.local_addr().unwrap();
        drop(listener);
        for (sessions, workers) in [(1, 1), (1, 2), (1_100, 2)] {
            reconnect(backend, refusing, sessions, workers);
        }
    }
}
