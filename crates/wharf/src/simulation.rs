//! A simulated network, clock and scheduler, to test handlers with.
//!
//! A server that is started in a [`Simulation`] is the one that runs in production, with its workers,
//! timers and queues. But its port, the network beyond it, the time and the order in which its threads
//! run are decided by one number, the *seed*. So a test can go through hours of virtual time in
//! milliseconds, meet slow peers, resets, bytes that come one by one, operations that complete in any
//! order and threads that stand still, and do so in a thousand different ways; and a seed that fails,
//! fails again.
//!
//! ```
//! use std::time::Duration;
//!
//! use wharf::simulation::{Simulation, for_seeds};
//! use wharf::{Framing, Handler, Server, Session};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type State = ();
//!     fn opened(&self, _: &Session) {}
//!     fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
//!         session.send(frame);
//!     }
//! }
//!
//! for_seeds(20, |seed| {
//!     let simulation = Simulation::new(seed);
//!     let builder = Server::bind("10.0.0.1:7000").unwrap().framing(Framing::raw());
//!     let server = simulation.start(builder, Echo).unwrap();
//!     let peer = simulation.connect(server.addresses()[0]).unwrap();
//!     peer.send(b"hello");
//!     let mut answer = Vec::new();
//!     let answered = simulation.run_until(Duration::from_secs(60), || {
//!         answer.extend(peer.received());
//!         answer == b"hello"
//!     });
//!     assert!(answered, "only {answer:?} came back");
//! });
//! ```
//!
//! # What a test does
//!
//! The thread that makes the simulation is its *driver*. While it runs, nothing else does; when it lets
//! time pass ([`Simulation::sleep`], [`Simulation::run_until`], [`Simulation::next_news`]), the workers
//! run, one at a time, in an order of the seed's. It plays the [`Peer`]s, and may call the server's
//! [`Handle`](crate::Handle) like any thread. [`Simulation::spawn`] starts more of its kind. A test must
//! not wait for another thread by other means (a channel, a join), since that one runs only when this
//! one lets time pass; a lock that is held only briefly, and while time does not pass, is fine.
//! So is one that a handler holds while it calls a [`Handle`](crate::Handle), as a chat does that tells
//! all members of a room: unless [`Simulation::switch_in_calls`] was asked for, nobody else goes on in
//! such a call.
//!
//! `tests/chat_simulated.rs` in this crate's sources is such a test: a small chat, and what must hold
//! whatever its thousand networks do.
//!
//! # Steps
//!
//! In a build with debug assertions each access of the library's to an atomic or a lock is a *step*, at
//! which [`Fault::ThreadPreempted`] may let other threads go on. So a test meets orders that no call and no
//! completion decides. Workers have steps, but not in callbacks; with [`Simulation::switch_in_calls`] all
//! threads have them everywhere. A build without debug assertions has none, and is as fast as ever.
//!
//! Threads on real ports have steps too: [`pause_at_steps`] makes them stop there.
//!
//! # Faults
//!
//! [`Faults`] says what goes wrong. [`Simulation::new`] lets happen what neither peers nor handlers notice
//! but by the time it takes ([`Faults::unnoticed`]), half of it in each seed: the outcome of a test is the
//! same with it as without. [`Faults::all`] adds failures that end sessions, or the server.
//!
//! # Determinism
//!
//! The same seed gives the same run, on every machine, as long as the handler is deterministic too: it
//! takes its time from nowhere else, starts no threads, and iterates over no hash map of the standard
//! library's. [`Simulation::hash`] is a number over everything that happened; that it is the same
//! twice is a test worth having.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::error::Result;
use crate::face::Handler;
use crate::port::simulated::World;
pub use crate::port::simulated::{Fault, Faults, Figures, Peer, PeerListener};
use crate::server::{Builder, Server};

/// A run. See the [module](self).
#[derive(Debug)]
pub struct Simulation {
    world: World,
    seed: u64,
    ports: Ports,
    /// It belongs to its thread.
    of_its_thread: PhantomData<*const ()>,
}

/// Of which kind the port of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Each worker has one, and its sessions stay with it, as on io_uring and on the readiness port.
    OneEach,
    /// All workers share one, and any of them takes any completion, as on I/O completion ports.
    OneShared,
}

/// Runs a test for the seeds 0 to `count` - 1. When one panics, says which; `WHARF_SEED` in the
/// environment runs that one alone.
///
/// # Panics
/// As the test does.
pub fn for_seeds(count: u64, mut test: impl FnMut(u64)) {
    let only = std::env::var("WHARF_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("It failed with seed {seed}; run that alone with WHARF_SEED={seed}.");
            resume_unwind(panic);
        }
    }
}

/// Whether this fault is to happen now, in a handler that plays a part in it
/// ([`Fault::HandlerPanics`]). Outside of a simulation: never.
pub fn fires(fault: Fault) -> bool {
    crate::port::simulated::current().is_some_and(|world| world.fires(fault))
}

/// In a handler: a place where another thread may go on meanwhile. The handler must hold no lock.
/// Outside of a simulation nothing happens.
pub fn may_switch() {
    if let Some(world) = crate::port::simulated::current() {
        world.may_switch();
    }
}

/// From now on threads of this process that live in no simulation stop for a moment at about one in so
/// many of their steps: mostly to yield, sometimes for microseconds, rarely for a millisecond. So a test of
/// a server on a real port meets orders of steps that are rare otherwise. The seed says when and for how long; the
/// system still says who runs.
///
/// Only builds with debug assertions have steps. False: this one has none, and nothing happens.
pub fn pause_at_steps(seed: u64, one_in: u32) -> bool {
    crate::sync::steps::pause(seed, one_in)
}

/// In a callback that has just queued something for its own session: [`Figures::send_batches_max`] then
/// tells how many batches that waited. Outside of a simulation nothing happens.
pub fn note_queued() {
    if let Some(world) = crate::port::simulated::current() {
        world.note_queued();
    }
}

/// In a thread that [`Simulation::spawn`] has started: lets virtual time pass. Outside of a simulation
/// it returns at once.
pub fn sleep(duration: Duration) {
    if let Some(world) = crate::port::simulated::current() {
        world.sleep(duration);
    }
}

/// The virtual time since the simulation began; `None` outside of one.
pub fn now() -> Option<Duration> {
    crate::port::simulated::current().map(|world| world.now())
}

impl Simulation {
    /// A simulation in which half of the faults that nobody notices happen.
    pub fn new(seed: u64) -> Self {
        Self::with_faults(seed, Faults::unnoticed().swarm(seed))
    }

    /// A simulation with these faults.
    pub fn with_faults(seed: u64, faults: Faults) -> Self {
        #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
        crate::port::simulated::register_steps();
        let world = World::new(seed, faults);
        world.begin();
        let ports = if world.below(2) == 0 { Ports::OneEach } else { Ports::OneShared };
        Simulation { world, seed, ports, of_its_thread: PhantomData }
    }

    /// Says of which kind the ports of its servers are; else the seed does.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Lets threads change also where the test, or a callback, calls a [`Handle`](crate::Handle), and at
    /// every step of theirs. Only
    /// for tests and handlers that hold no lock of theirs meanwhile.
    pub fn switch_in_calls(self) -> Self {
        self.world.switch_in_calls();
        self
    }

    /// Makes its servers' ports as large as their options say; else many seeds make them so small that
    /// their bounds are reached.
    pub fn roomy_ports(self) -> Self {
        self.world.be_roomy();
        self
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Starts a server or connector in it. With [`Options::workers`](crate::Options::workers) 0, the seed
    /// says how many there are, one to four. No real socket is bound: any address will do.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start<H: Handler>(&self, builder: Builder, handler: H) -> Result<Server> {
        builder.start_simulated(&self.world, self.ports == Ports::OneShared, handler)
    }

    /// A peer that has connected to a server; it may not have been accepted yet. `None`: nobody
    /// listens there, or too many wait to be accepted.
    pub fn connect(&self, to: SocketAddr) -> Option<Peer> {
        self.world.connect_peer(to)
    }

    /// Listens, for servers that connect. `None`: somebody does already.
    pub fn listen(&self, address: SocketAddr) -> Option<PeerListener> {
        self.world.peer_listener(address)
    }

    /// Starts a thread that may call a [`Handle`](crate::Handle). Wait for it by [`run_until`](Self::run_until)
    /// and what it leaves behind.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(
        &self,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let (world, place) = (self.world.clone(), self.world.expect_threads(1));
        let (placed, is_placed) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().spawn(move || {
            world.take_place(place, false);
            let _ = placed.send(());
            world.wait_for_turn();
            body();
        })?;
        let _ = is_placed.recv();
        Ok(thread)
    }

    /// The virtual time since it began.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Lets time pass.
    pub fn sleep(&self, duration: Duration) {
        self.world.sleep(duration);
    }

    /// Lets time pass until something is true, at most so long; says whether it came true.
    pub fn run_until(&self, timeout: Duration, mut is_true: impl FnMut() -> bool) -> bool {
        let end = self.now().saturating_add(timeout);
        let mut step = Duration::from_micros(10);
        loop {
            if is_true() {
                return true;
            }
            let now = self.now();
            if now >= end {
                return false;
            }
            self.sleep(step.min(end - now));
            step = (step * 2).min(Duration::from_millis(10));
        }
    }

    /// Lets time pass until there is something new of a peer (bytes have come, its session has ended), at
    /// most so long, or a day if nothing is said; the peer's [`Peer::key`]. `None`: the time is over, or
    /// nothing will ever happen.
    pub fn next_news(&self, timeout: Option<Duration>) -> Option<u64> {
        // The timers of a session go on for as long as it does: there is always something to wait for.
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if let Some(key) = self.world.next_news() {
            return Some(key);
        }
        self.world.await_news(Some(timeout.unwrap_or(DAY)));
        self.world.next_news()
    }

    /// Whether this fault is to happen now, where the test plays a part in it.
    pub fn fires(&self, fault: Fault) -> bool {
        self.world.fires(fault)
    }

    /// A number below `below`, which is not 0, that the seed decides.
    pub fn random(&self, below: u64) -> u64 {
        self.world.below(below)
    }

    /// From now on no fault happens.
    pub fn be_quiet(&self) {
        self.world.be_quiet();
    }

    /// How often each fault has happened.
    pub fn fired(&self) -> Vec<(Fault, u64)> {
        self.world.fired()
    }

    /// How often faults have happened, those left out by [`Faults::muted`] included.
    pub fn firings(&self) -> u64 {
        self.world.firings()
    }

    /// How much was done.
    pub fn figures(&self) -> Figures {
        self.world.figures()
    }

    /// A number over everything that happened: the same seed gives it again.
    pub fn hash(&self) -> u64 {
        self.world.hash()
    }

    /// Notes something in the trace, about a session or peer of this number.
    pub fn note(&self, about: u64, words: std::fmt::Arguments<'_>) {
        self.world.say(about, words);
    }

    /// From now on keeps a trace of what happens (the last 200,000 lines of it).
    pub fn keep_trace(&self) {
        self.world.keep_trace();
    }

    /// The trace: of these sessions ([`SessionId::to_bits`](crate::SessionId::to_bits)) and peers
    /// ([`Peer::key`]), or of all if none is named.
    pub fn trace(&self, about: &[u64]) -> Vec<String> {
        self.world.trace(about)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.world.end();
    }
}

/// Notes something in the trace of the simulation that this thread is in, about a session or peer of
/// this number.
pub fn note(about: u64, words: std::fmt::Arguments<'_>) {
    if let Some(world) = crate::port::simulated::current() {
        world.say(about, words);
    }
}
