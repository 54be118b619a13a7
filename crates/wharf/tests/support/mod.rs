//! What the integration tests share: a server whose handler writes down what happens to each
//! session, and waiting for it.
//!
//! The handler of every test is a [`Recorder`]. It holds each session to the order that invariant 8
//! promises (`opened`, `received`*, `closed`, never two at once, no id twice) whatever the test is
//! about; [`Harness::finish`] then says whether anything was amiss, and whether all that was opened
//! was closed. A test adds only what is special to it, as a [`Behaviour`].
//!
//! Nothing sleeps where it can wait, and what does not happen within [`BOUND`] never will.

#![allow(dead_code, unused_macros, reason = "each test binary uses a part of it")]

mod peer;
mod room;
#[cfg(feature = "websocket")]
mod web_socket;

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use socket2::SockRef;
use wharf::{
    AcceptError, Backend, Backpressure, Builder, CloseReason, Connector, ConnectorBuilder,
    Endianness, Error, Frame, Framing, Handle, Handler, LengthPrefix, Mailer, Options, Server,
    Session, SessionId, Stats, Told,
};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use peer::*;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use room::wait_for_room_to_publish;
#[cfg(feature = "websocket")]
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use web_socket::*;

/// What has not happened after this long will not happen.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// What a panic on purpose says, so that its message is not printed.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// Frames that a record keeps, of the first there are.
const FRAMES_KEPT: usize = 100;

/// Makes each test one for every backend of this system. Where io_uring is refused its test says so
/// and is passed over, unless `WHARF_TEST_URING=required`.
macro_rules! on_every_backend {
    ($($(#[$attribute:meta])* fn $name:ident($backend:ident) $body:block)*) => {
        $(
            $(#[$attribute])*
            mod $name {
                use super::*;

                fn on($backend: Backend) $body

                #[cfg(target_os = "linux")]
                #[test]
                fn uring() {
                    if $crate::support::uring_is_there() {
                        on(Backend::Uring);
                    }
                }

                #[cfg(unix)]
                #[test]
                fn readiness() {
                    on(Backend::Readiness);
                }

                #[cfg(windows)]
                #[test]
                fn iocp() {
                    on(Backend::Iocp);
                }
            }
        )*
    };
}

/// Whether io_uring may be used here. Asked once, and not while a test is `alone`: it takes a ring
/// and a thread to find out.
pub(crate) fn uring_is_there() -> bool {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let refusal = REFUSAL.get_or_init(|| {
        let _alone = alone();
        let started = Connector::builder().workers(1).backend(Backend::Uring).start(Nobody);
        match started {
            Ok(_) => None,
            Err(error @ Error::Backend { .. }) => Some(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    });
    let Some(refusal) = refusal else { return true };
    let required = std::env::var_os("WHARF_TEST_URING").is_some_and(|v| v == "required");
    assert!(!required, "{refusal}");
    eprintln!("passed over: {refusal}");
    false
}

/// A handler that does nothing.
pub(crate) struct Nobody;

impl Handler for Nobody {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
}

/// Waits for what no condition variable tells.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOUND, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The sockets and files that this process has open, where the system says so in a file.
pub(crate) fn open_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().filter(|_| cfg!(unix)).map(Iterator::count)
}

/// Keeps the tests of one binary apart that count what belongs to the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lock(&ALONE)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Panics on purpose, without a word on the terminal.
pub(crate) fn panic_on_purpose() -> ! {
    hush();
    panic!("{ON_PURPOSE}")
}

/// What panics when it is dropped, with another of its kind.
pub(crate) struct Dreadful;

impl Drop for Dreadful {
    fn drop(&mut self) {
        panic_dreadfully()
    }
}

/// Panics on purpose, with what panics when it is dropped.
pub(crate) fn panic_dreadfully() -> ! {
    hush();
    std::panic::panic_any(Dreadful)
}

fn hush() {
    static HUSH: Once = Once::new();
    HUSH.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let on_purpose = payload.downcast_ref::<&str>().is_some_and(|text| *text == ON_PURPOSE)
                || payload.downcast_ref::<String>().is_some_and(|text| text == ON_PURPOSE);
            if !on_purpose && !payload.is::<Dreadful>() {
                loud(panic);
            }
        }));
    });
}

// ---- The handler ------------------------------------------------------------------------------

type OnOpened = Box<dyn Fn(&Session) + Send + Sync>;
type OnReceived = Box<dyn Fn(&Session, &[u8]) + Send + Sync>;
type OnTimer = Box<dyn Fn(&Session, u64) + Send + Sync>;
type OnTold = Box<dyn Fn(&Session, Note) + Send + Sync>;
type OnClosed = Box<dyn Fn(&Session, CloseReason) + Send + Sync>;
type OnEnding = Box<dyn Fn(&Session, CloseReason) -> Option<Frame> + Send + Sync>;
type OnConnectFailed = Box<dyn Fn(SessionId, &io::Error) + Send + Sync>;
#[cfg(feature = "websocket")]
type OnUpgrade = Box<dyn Fn(&wharf::UpgradeRequest) -> wharf::Upgrade + Send + Sync>;

/// What a test's handler does besides writing down.
pub(crate) struct Behaviour {
    opened: OnOpened,
    received: OnReceived,
    timer: OnTimer,
    told: OnTold,
    ending: OnEnding,
    closed: OnClosed,
    connect_failed: OnConnectFailed,
    #[cfg(feature = "websocket")]
    upgrade: OnUpgrade,
}

/// What a session is told: who tells it, and how much that one has told it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Note {
    pub(crate) from: u32,
    pub(crate) number: u32,
}

impl Behaviour {
    pub(crate) fn silent() -> Self {
        Behaviour {
            opened: Box::new(|_| {}),
            received: Box::new(|_, _| {}),
            timer: Box::new(|_, _| {}),
            told: Box::new(|_, _| {}),
            ending: Box::new(|_, _| None),
            closed: Box::new(|_, _| {}),
            connect_failed: Box::new(|_, _| {}),
            #[cfg(feature = "websocket")]
            upgrade: Box::new(|_| wharf::Upgrade::accept()),
        }
    }

    pub(crate) fn echo() -> Self {
        Self::silent().on_received(|session, frame| session.send(frame))
    }

    pub(crate) fn on_opened(mut self, act: impl Fn(&Session) + Send + Sync + 'static) -> Self {
        self.opened = Box::new(act);
        self
    }

    pub(crate) fn on_received(
        mut self,
        act: impl Fn(&Session, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        self.received = Box::new(act);
        self
    }

    pub(crate) fn on_timer(mut self, act: impl Fn(&Session, u64) + Send + Sync + 'static) -> Self {
        self.timer = Box::new(act);
        self
    }

    pub(crate) fn on_told(mut self, act: impl Fn(&Session, Note) + Send + Sync + 'static) -> Self {
        self.told = Box::new(act);
        self
    }

    pub(crate) fn on_closed(
        mut self,
        act: impl Fn(&Session, CloseReason) + Send + Sync + 'static,
    ) -> Self {
        self.closed = Box::new(act);
        self
    }

    pub(crate) fn on_ending(
        mut self,
        act: impl Fn(&Session, CloseReason) -> Option<Frame> + Send + Sync + 'static,
    ) -> Self {
        self.ending = Box::new(act);
        self
    }

    pub(crate) fn on_connect_failed(
        mut self,
        act: impl Fn(SessionId, &io::Error) + Send + Sync + 'static,
    ) -> Self {
        self.connect_failed = Box::new(act);
        self
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn on_upgrade(
        mut self,
        act: impl Fn(&wharf::UpgradeRequest) -> wharf::Upgrade + Send + Sync + 'static,
    ) -> Self {
        self.upgrade = Box::new(act);
        self
    }
}

/// What happened to one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// `opened` returned, so `closed` must come.
    pub(crate) opened: bool,
    /// The first frames received.
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) frame_count: u64,
    pub(crate) received_bytes: u64,
    /// The timers that have fired, and when.
    pub(crate) timers: Vec<(u64, Instant)>,
    pub(crate) notes: Vec<Note>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) closed_at: Option<Instant>,
    pub(crate) peer_address: Option<SocketAddr>,
    /// The name of the thread that opened it.
    pub(crate) worker: String,
    /// A callback runs. What it does after it was written down may not be done yet.
    pub(crate) inside: bool,
}

/// What happened to all of them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) records: HashMap<SessionId, Record>,
    /// In the order in which they opened.
    pub(crate) ids: Vec<SessionId>,
    pub(crate) connects_failed: Vec<(SessionId, SocketAddr, ErrorKind)>,
    /// What was told of accepting, each with its cause.
    pub(crate) accepts_failed: Vec<(String, Option<i32>)>,
    pub(crate) closed_count: usize,
    /// What must never be.
    faults: Vec<String>,
}

impl Ledger {
    /// Those for which this holds.
    pub(crate) fn count(&self, holds: impl Fn(&Record) -> bool) -> usize {
        self.records.values().filter(|record| holds(record)).count()
    }

    pub(crate) fn closed_by(&self, id: SessionId) -> Option<CloseReason> {
        self.records.get(&id)?.closed
    }

    fn enter(&mut self, id: SessionId, callback: &str) -> &mut Record {
        let record = self.records.entry(id).or_default();
        if record.inside {
            self.faults.push(format!("{id}: {callback} while another callback runs"));
        }
        if record.closed.is_some() {
            self.faults.push(format!("{id}: {callback} after closed"));
        }
        record.inside = true;
        record
    }
}

/// The ledger, for the test and the handler alike.
#[derive(Debug, Default)]
pub(crate) struct Log {
    ledger: Mutex<Ledger>,
    changed: Condvar,
}

impl Log {
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        look(&lock(&self.ledger))
    }

    fn write<R>(&self, write: impl FnOnce(&mut Ledger) -> R) -> R {
        let result = write(&mut lock(&self.ledger));
        self.changed.notify_all();
        result
    }

    /// Waits until `look` finds something.
    #[track_caller]
    pub(crate) fn wait<R>(&self, what: &str, mut look: impl FnMut(&Ledger) -> Option<R>) -> R {
        let deadline = Instant::now() + BOUND;
        let mut ledger = lock(&self.ledger);
        loop {
            if let Some(found) = look(&ledger) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it never came true: {what}; {} opened", ledger.ids.len());
            ledger =
                self.changed.wait_timeout(ledger, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The id of the session that opened as the `nth`, from 0.
    #[track_caller]
    pub(crate) fn opened(&self, nth: usize) -> SessionId {
        self.wait("a session opens", |ledger| ledger.ids.get(nth).copied())
    }

    /// Why that session ended, once it has.
    #[track_caller]
    pub(crate) fn closed(&self, id: SessionId) -> CloseReason {
        self.wait("a session closes", |ledger| ledger.closed_by(id))
    }

    #[track_caller]
    pub(crate) fn wait_closed_count(&self, count: usize) {
        self.wait("so many sessions close", |ledger| (ledger.closed_count >= count).then_some(()));
    }

    /// What is known of a session.
    #[track_caller]
    pub(crate) fn record(&self, id: SessionId) -> Record {
        self.look(|ledger| ledger.records[&id].clone())
    }
}

/// Writes down what happens, then does what the test wants.
pub(crate) struct Recorder {
    log: Arc<Log>,
    behaviour: Behaviour,
}

/// Lives with the session, so it must be the session's own at every callback.
pub(crate) struct Witness {
    id: SessionId,
    frame_count: u64,
}

/// Says that the callback is over, also when it panicked.
struct Inside<'a>(&'a Log, SessionId);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.write(|ledger| ledger.records.entry(self.1).or_default().inside = false);
    }
}

impl Recorder {
    fn fault(&self, fault: String) {
        self.log.write(|ledger| ledger.faults.push(fault));
    }
}

impl Handler for Recorder {
    type State = Witness;

    fn opened(&self, session: &Session) -> Witness {
        let id = session.id();
        self.log.write(|ledger| {
            if ledger.records.contains_key(&id) {
                ledger.faults.push(format!("{id}: opened twice"));
            }
            let worker = std::thread::current().name().unwrap_or_default().to_owned();
            let record = ledger.enter(id, "opened");
            let address = session.peer_address().and_then(|address| address.as_tcp());
            (record.worker, record.peer_address) = (worker, address);
            ledger.ids.push(id);
        });
        let inside = Inside(&self.log, id);
        (self.behaviour.opened)(session);
        drop(inside);
        self.log.write(|ledger| ledger.records.entry(id).or_default().opened = true);
        Witness { id, frame_count: 0 }
    }

    fn received(&self, session: &Session, witness: &mut Witness, frame: &[u8]) {
        let id = session.id();
        let frame_count = self.log.write(|ledger| {
            let record = ledger.enter(id, "received");
            if record.frames.len() < FRAMES_KEPT {
                record.frames.push(frame.to_vec());
            }
            record.received_bytes += frame.len() as u64;
            record.frame_count += 1;
            record.frame_count
        });
        witness.frame_count += 1;
        if witness.id != id || witness.frame_count != frame_count {
            self.fault(format!("{id}: it was lent the state of {}", witness.id));
        }
        let _inside = Inside(&self.log, id);
        (self.behaviour.received)(session, frame);
    }

    fn timer(&self, session: &Session, witness: &mut Witness, key: u64) {
        let id = session.id();
        self.log.write(|ledger| ledger.enter(id, "timer").timers.push((key, Instant::now())));
        let _inside = Inside(&self.log, id);
        if witness.id != id {
            self.fault(format!("{id}: it was lent the state of {}", witness.id));
        }
        (self.behaviour.timer)(session, key);
    }

    fn ending(&self, session: &Session, _: &mut Witness, reason: CloseReason) -> Option<Frame> {
        (self.behaviour.ending)(session, reason)
    }

    fn closed(&self, session: &Session, witness: Witness, reason: CloseReason) {
        let id = session.id();
        self.log.write(|ledger| {
            let record = ledger.enter(id, "closed");
            record.closed = Some(reason);
            record.closed_at = Some(Instant::now());
            let known = record.opened && record.frame_count == witness.frame_count;
            ledger.closed_count += 1;
            if !known || witness.id != id {
                ledger.faults.push(format!("{id}: closed with the state of {}", witness.id));
            }
        });
        let _inside = Inside(&self.log, id);
        (self.behaviour.closed)(session, reason);
    }

    fn accept_failed(&self, error: &AcceptError) {
        let told = (error.to_string(), error.source.raw_os_error());
        self.log.write(|ledger| ledger.accepts_failed.push(told));
    }

    fn connect_failed(&self, id: SessionId, target: &wharf::Target, error: &io::Error) {
        self.log.write(|ledger| {
            if ledger.records.contains_key(&id) {
                ledger.faults.push(format!("{id}: opened, and its connect failed"));
            }
            if ledger.connects_failed.iter().any(|(before, ..)| *before == id) {
                ledger.faults.push(format!("{id}: its connect failed twice"));
            }
            let address = target.address.as_tcp().unwrap();
            ledger.connects_failed.push((id, address, error.kind()));
        });
        (self.behaviour.connect_failed)(id, error);
    }

    #[cfg(feature = "websocket")]
    fn upgrade(&self, request: &wharf::UpgradeRequest) -> wharf::Upgrade {
        (self.behaviour.upgrade)(request)
    }
}

impl Told<Note> for Recorder {
    fn told(&self, session: &Session, witness: &mut Witness, note: Note) {
        let id = session.id();
        self.log.write(|ledger| ledger.enter(id, "told").notes.push(note));
        let _inside = Inside(&self.log, id);
        if witness.id != id {
            self.fault(format!("{id}: it was lent the state of {}", witness.id));
        }
        (self.behaviour.told)(session, note);
    }
}

// ---- The server -------------------------------------------------------------------------------

/// A server that is waited for no longer than [`BOUND`], and not at all by a test that failed: a
/// fault of its own then fails the test instead of holding it up for ever.
pub(crate) struct Running {
    server: Option<Server>,
    connector: Option<Connector>,
}

impl Running {
    #[track_caller]
    pub(crate) fn wait(mut self) {
        let (server, connector) = (self.server.take(), self.connector.take());
        let wait = move || {
            server.map_or(Ok(()), Server::wait).and(connector.map_or(Ok(()), Connector::wait))
        };
        let (ended, has_ended) = mpsc::channel();
        let waiter = std::thread::spawn(move || ended.send(wait()));
        has_ended.recv_timeout(BOUND).expect("the server ends").unwrap();
        // Else the process could end before it, and what is left of it would look like a leak.
        waiter.join().unwrap().unwrap();
    }
}

impl Deref for Running {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget((self.server.take(), self.connector.take()));
        }
    }
}

/// Tells other threads that it is over, also when the test fails: they would go on for ever.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A running server, and what its handler wrote down.
pub(crate) struct Harness {
    pub(crate) server: Running,
    pub(crate) handle: Handle,
    pub(crate) log: Arc<Log>,
}

/// One worker, on 127.0.0.1.
pub(crate) fn start(
    backend: Backend,
    framing: Framing,
    options: Options,
    behaviour: Behaviour,
) -> Harness {
    let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 0));
    start_builder(backend, builder.framing(framing).options(options), behaviour)
}

pub(crate) fn start_builder(backend: Backend, builder: Builder, behaviour: Behaviour) -> Harness {
    start_told(backend, builder, behaviour, &Mailer::new())
}

/// The same, whose sessions are told what this mailer tells.
pub(crate) fn start_told(
    backend: Backend,
    builder: Builder,
    behaviour: Behaviour,
    mailer: &Mailer<Note>,
) -> Harness {
    let log = Arc::new(Log::default());
    let handler = mailer.with(Recorder { log: log.clone(), behaviour });
    let server = builder.backend(backend).start(handler).unwrap();
    assert_eq!(server.backend().backend(), backend);
    let running = Running { server: Some(server), connector: None };
    Harness { handle: running.handle(), server: running, log }
}

pub(crate) fn start_connector(
    backend: Backend,
    builder: ConnectorBuilder,
    behaviour: Behaviour,
) -> Harness {
    let log = Arc::new(Log::default());
    let recorder = Recorder { log: log.clone(), behaviour };
    let connector = builder.backend(backend).start(recorder).unwrap();
    assert_eq!(connector.backend().backend(), backend);
    let handle = connector.handle();
    Harness { handle, server: Running { server: None, connector: Some(connector) }, log }
}

/// The default options, with one worker.
pub(crate) fn one_worker() -> Options {
    Options::default().workers(1)
}

/// The default options, with one worker that pauses receiving for who does not read.
pub(crate) fn pausing() -> Options {
    one_worker().with(|options| {
        options.receiving.backpressure = Backpressure::PauseReceive;
    })
}

impl Harness {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// A peer, which gives up after [`BOUND`].
    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// A peer, and the id of its session.
    #[track_caller]
    pub(crate) fn connect_known(&self) -> (TcpStream, SessionId) {
        let before = self.log.look(|ledger| ledger.ids.len());
        let peer = self.connect();
        let id = self.id_since(before, &peer);
        (peer, id)
    }

    /// The session of a peer's, among those that have opened since there were so many.
    #[track_caller]
    pub(crate) fn id_since(&self, before: usize, peer: &TcpStream) -> SessionId {
        let address = peer.local_addr().unwrap();
        self.log.wait("the session opens", |ledger| {
            let mut newer = ledger.ids[before..].iter();
            newer.find(|id| ledger.records[*id].peer_address == Some(address)).copied()
        })
    }

    /// Waits until no session is left, nor on its way from the worker that accepts to its own.
    #[track_caller]
    pub(crate) fn settle(&self) {
        eventually("no session is live", || {
            let stats = self.handle.stats();
            let never_opened = stats.refused + stats.refused_upgrades + stats.establish_failures;
            let arrived = stats.accepted <= stats.opened + never_opened;
            let established = stats.establishing == 0;
            arrived && established && stats.live == 0 && stats.opened == stats.closed
        });
    }

    /// Stops, and says whether all was in order.
    #[track_caller]
    pub(crate) fn finish(self) -> Stats {
        self.finish_after_panics(0)
    }

    /// As `finish`, after so many panics on purpose.
    #[track_caller]
    pub(crate) fn finish_after_panics(self, panics: u64) -> Stats {
        let Harness { server, handle, log } = self;
        handle.stop();
        server.wait();
        let stats = handle.stats();
        assert_eq!(stats.opened, stats.closed);
        assert_eq!((stats.live, stats.establishing), (0, 0));
        assert_eq!(stats.stale_completions, 0);
        assert_eq!(stats.queued_bytes, 0);
        assert_eq!(stats.held_jobs, 0);
        assert_eq!(stats.handler_panics, panics);
        assert_eq!(stats.closed_by().map(|(_, count)| count).sum::<u64>(), stats.closed);
        log.look(|ledger| {
            assert!(ledger.faults.is_empty(), "{:?}", ledger.faults);
            assert_eq!(ledger.ids.len() as u64, stats.opened);
            assert_eq!(ledger.connects_failed.len() as u64, stats.connect_failures);
            for (id, record) in &ledger.records {
                assert_eq!(record.opened, record.closed.is_some(), "{id}");
            }
        });
        stats
    }
}
