//! Tests: a port fails while it serves, and tells nothing about its outstanding operations. Every session is
//! told nevertheless.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::engine::{Content, Engine, Mail};
use crate::face::{Handle, Handler};
use crate::framing::{Framing, Framings};
use crate::options::Listener;
use crate::options::{Backpressure, Options};
use crate::port::readiness::ReadinessPort;
use crate::port::{CompletionPort, Sink};
use crate::server::{Listening, Plan, serve_on};
use crate::session::SessionId;
use crate::worker::changed_port::{ChangedPort, Changes};
use crate::{CloseReason, RoomError, SendError};

const BOUND: Duration = Duration::from_secs(30);

/// A port that fails when told to.
struct Fails<P> {
    now: Arc<AtomicBool>,
    /// How its wait fails.
    fail: fn(&mut P) -> io::Error,
    /// Ends without delivering completions: it is only dropped.
    ends_untold: bool,
}

impl<P: CompletionPort> Changes<P> for Fails<P> {
    fn wait<S: Sink>(
        &mut self,
        port: &mut P,
        timeout: Option<Duration>,
        sink: &mut S,
    ) -> io::Result<()> {
        if self.now.load(Ordering::SeqCst) {
            return Err((self.fail)(port));
        }
        port.wait(timeout, sink)
    }

    fn close<S: Sink>(&mut self, port: P, sink: &mut S) {
        if !(self.now.load(Ordering::SeqCst) && self.ends_untold) {
            port.close(sink);
        }
    }
}

/// Records what opens, and how it ends.
#[derive(Default)]
struct Noting {
    opened: Mutex<Vec<SessionId>>,
    closed: Mutex<HashMap<SessionId, Vec<CloseReason>>>,
    connects_failed: Mutex<Vec<SessionId>>,
    states_dropped: Arc<AtomicUsize>,
}

/// A session's state.
struct State(Arc<AtomicUsize>);

impl Drop for State {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Noting {
    type State = State;

    fn opened(&self, session: &crate::Session) -> State {
        self.opened.lock().unwrap().push(session.id());
        State(self.states_dropped.clone())
    }

    fn received(&self, _: &crate::Session, _: &mut State, _: &[u8]) {}

    fn closed(&self, session: &crate::Session, _: State, reason: CloseReason) {
        self.closed.lock().unwrap().entry(session.id()).or_default().push(reason);
    }

    fn connect_failed(&self, id: SessionId, _: &crate::Target, _: &io::Error) {
        self.connects_failed.lock().unwrap().push(id);
    }
}

/// Queues so much that a send stays outstanding until the peer reads: so much that nothing moves for a while in which the
/// worker has had turns, however slow the machine is.
fn fill(engine: &Engine, id: SessionId) {
    const TURNS: u64 = 10;
    let frame = vec![1; 50_000];
    let turns = || engine.histograms().turn_ns.count();
    let (mut moved_at, mut turn) = (Instant::now(), turns());
    while moved_at.elapsed() < Duration::from_millis(100) || turns() < turn + TURNS {
        match engine.try_send(id, Content::Plain(&frame)) {
            Ok(()) => (moved_at, turn) = (Instant::now(), turns()),
            Err(SendError::Full { .. }) => {
                let _ = engine.ports[0].mailbox.post(Mail::Attend(id)); // a turn
                std::thread::sleep(Duration::from_millis(1));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One listening socket, and others that fill its backlog. On Linux a connect to it gets no answer.
fn full_listener() -> (Vec<socket2::Socket>, SocketAddr) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = socket().unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut sockets = vec![listener];
    for _ in 0..8 {
        let client = socket().unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address.into());
        sockets.push(client);
    }
    (sockets, address)
}

const PEERS: usize = 82;
const FILLED: usize = 7;
const CONNECTING: usize = 6;

/// The port of the first of two workers fails.
fn each_session_hears_of_it<P: CompletionPort + 'static>(
    make: fn() -> io::Result<P>,
    fail: fn(&mut P) -> io::Error,
    ends_untold: bool,
    expected: CloseReason,
) {
    let fails = Arc::new(AtomicBool::new(false));
    let for_port = fails.clone();
    let make_port = move |index| {
        let now = if index == 0 { for_port.clone() } else { Arc::default() };
        Ok(ChangedPort { port: make()?, changes: Fails { now, fail, ends_untold } })
    };
    let backpressure = Backpressure::PauseReceive;
    let options = Options::default().workers(2).with(|options| {
        options.receiving.backpressure = backpressure;
    });
    let mut plan = Plan::new(Framings::of(&[Framing::raw(), Framing::raw()]), &options);
    let here = Listener::new((Ipv4Addr::LOCALHOST, 0));
    let Listening { sockets, places, .. } = plan.listen(vec![here], 2).unwrap();
    let handler = Arc::new(Noting::default());
    let running = serve_on(make_port, plan, sockets, &handler).unwrap();
    let engine = running.engine().clone();
    let peers: Vec<_> = (0..PEERS)
        .map(|_| TcpStream::connect_timeout(&places.addresses[0], BOUND).unwrap())
        .collect();
    while handler.opened.lock().unwrap().len() < PEERS {
        std::thread::yield_now();
    }
    let of_port_0: Vec<_> = engine.table.sessions_of(0).collect();
    let handle = Handle::new(engine.clone());
    let told = Arc::new(AtomicUsize::new(0));
    for id in &of_port_0[..FILLED] {
        fill(&engine, *id);
        let told = told.clone();
        let wait = handle.call_when_room(*id, usize::MAX, move |room| {
            assert_eq!(room, Err(RoomError::Gone));
            told.fetch_add(1, Ordering::SeqCst);
        });
        wait.unwrap();
    }
    let (_full, address) = full_listener();
    let connecting: HashSet<_> =
        (0..CONNECTING).map(|_| handle.connect(address).unwrap()).collect();

    fails.store(true, Ordering::SeqCst);
    engine.ports[0].mailbox.post(Mail::Attend(of_port_0[0])).unwrap(); // which wakes it
    assert!(engine.wait_ended(Some(BOUND)), "the server does not end");
    let error = engine.take_error();
    assert!(matches!(error, Some(crate::Error::Port { worker: 0, .. })), "{error:?}");
    drop(running);
    let closed = handler.closed.lock().unwrap();
    for id in &*handler.opened.lock().unwrap() {
        let reason = if of_port_0.contains(id) { expected } else { CloseReason::Stopped };
        assert_eq!(closed.get(id), Some(&vec![reason]), "{id}");
    }
    let connects_failed = handler.connects_failed.lock().unwrap();
    assert_eq!(connects_failed.len(), CONNECTING);
    assert_eq!(connects_failed.iter().copied().collect::<HashSet<_>>(), connecting);
    assert_eq!(handler.states_dropped.load(Ordering::SeqCst), PEERS);
    let stats = engine.stats();
    assert_eq!((stats.opened, stats.closed), (PEERS as u64, PEERS as u64));
    assert_eq!((stats.live, stats.queued_bytes), (0, 0));
    assert_eq!((told.load(Ordering::SeqCst), stats.handler_panics), (FILLED, 0));
    for mut peer in peers {
        peer.set_read_timeout(Some(BOUND)).unwrap();
        let read = peer.read_to_end(&mut Vec::new());
        let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(read.as_ref().err().is_none_or(is_reset), "its stream does not end: {read:?}");
    }
}

const NO_MEMORY: CloseReason = CloseReason::Io { kind: io::ErrorKind::OutOfMemory, code: None };

#[test]
fn what_a_failed_port_still_tells_is_the_end_of_its_sessions() {
    let fail = |_: &mut ReadinessPort| io::ErrorKind::OutOfMemory.into();
    each_session_hears_of_it(ReadinessPort::new, fail, false, NO_MEMORY);
}

#[test]
fn each_session_of_a_failed_port_is_closed_though_nothing_more_is_told() {
    let fail = |_: &mut ReadinessPort| io::ErrorKind::OutOfMemory.into();
    each_session_hears_of_it(ReadinessPort::new, fail, true, NO_MEMORY);
}

/// The kernel itself refuses `io_uring_enter`, and with it every completion.
#[cfg(target_os = "linux")]
#[test]
fn each_session_is_closed_though_io_uring_has_failed() {
    use crate::port::uring::{UringPort, UringSizes};
    let make = || UringPort::new(UringSizes::new(256, 16 * 1024));
    let fail = |port: &mut UringPort| {
        port.lose_ring();
        port.wait(None, &mut |_: crate::port::Completion<'_>| {}).expect_err("it is refused")
    };
    let refused = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    each_session_hears_of_it(make, fail, false, CloseReason::of_port(&refused));
}
