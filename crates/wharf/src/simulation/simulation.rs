//! A simulation: its making, the test's side of it, and what it tells.

use std::any::Any;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::face::Handler;
use crate::port::simulated::{Fault, Faults, Figures, Peer, PeerListener, World};
use crate::server::{Builder, Connector, ConnectorBuilder, Prepared, Server};

/// A simulated network, clock and scheduler, in which servers run. See the [module](super).
///
/// The thread that makes it is its driver. Its setters come before anything happens in it.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Simulation {
    pub(super) world: World,
    seed: u64,
    ports: Ports,
    /// What a thread of the program has panicked with first.
    thread_panic: Arc<Mutex<Option<Box<dyn Any + Send>>>>,
    /// It belongs to its thread.
    of_its_thread: PhantomData<*const ()>,
}

/// How a server's workers and ports belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Each worker has a port, and its sessions stay with it, as on io_uring and on the readiness port.
    OneEach,
    /// All workers share one port, and any of them takes any completion, as on I/O completion ports.
    OneShared,
}

impl Simulation {
    /// A simulation with half of the faults that nobody notices. [`check`](super::check) makes it for a test.
    pub fn new(seed: u64) -> Self {
        #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
        crate::port::simulated::register_steps();
        let world = World::new(seed, Faults::unnoticed().swarm(seed));
        world.begin();
        let ports = if world.below(2) == 0 { Ports::OneEach } else { Ports::OneShared };
        let thread_panic = Arc::default();
        Simulation { world, seed, ports, thread_panic, of_its_thread: PhantomData }
    }

    /// Sets which faults happen. Default: `Faults::unnoticed().swarm(seed)`.
    pub fn faults(self, faults: Faults) -> Self {
        self.world.set_faults(faults);
        self
    }

    /// Sets which ports its servers have. Default: as the seed says.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Also switches threads where the test, or a callback, calls a [`Handle`](crate::Handle), and at all of
    /// their [steps](super#steps). Only for tests and handlers that hold no lock of their own then.
    pub fn switch_in_calls(self) -> Self {
        self.world.switch_in_calls();
        self
    }

    /// Makes its servers' ports as large as their options say. Default: many seeds make ports so small that
    /// their bounds are reached.
    pub fn roomy_ports(self) -> Self {
        self.world.be_roomy();
        self
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Starts a server in it. No real socket is bound, so any address will do. If
    /// [`Options::workers`](field@crate::Options::workers) is 0, the seed says how many workers there are, 1 to
    /// 4.
    ///
    /// # Errors
    /// As of [`Builder::start`].
    pub fn start<H: Handler>(&self, builder: Builder, handler: H) -> Result<Server> {
        Ok(self.prepare(builder, handler)?.start())
    }

    /// Prepares a server in it, as [`Builder::prepare`] does: no worker runs before
    /// [`Prepared::start`].
    ///
    /// # Errors
    /// As of [`Builder::prepare`].
    pub fn prepare<H: Handler>(&self, builder: Builder, handler: H) -> Result<Prepared> {
        builder.prepare_simulated(&self.world, self.ports == Ports::OneShared, handler)
    }

    /// Starts a connector in it, as [`start`](Self::start) does a server.
    ///
    /// # Errors
    /// As of [`ConnectorBuilder::start`].
    pub fn start_connector<H: Handler>(
        &self,
        builder: ConnectorBuilder,
        handler: H,
    ) -> Result<Connector> {
        builder.start_simulated(&self.world, self.ports == Ports::OneShared, handler)
    }

    /// A peer that has connected to a server. The server may not have accepted it yet. `None`: nobody listens
    /// there, or too many connections wait to be accepted.
    pub fn connect(&self, to: SocketAddr) -> Option<Peer> {
        self.world.connect_peer(to)
    }

    /// Listens at an address, for servers that connect. `None`: somebody listens there already.
    pub fn listen(&self, address: SocketAddr) -> Option<PeerListener> {
        self.world.peer_listener(address)
    }

    /// Starts a thread of the program, which may call a [`Handle`](crate::Handle) and
    /// [`sleep`](super::sleep). Do not join it: let time pass ([`run_until`](Self::run_until)) until something
    /// that it does has come about. If it panics, the test does when the simulation is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(
        &self,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let (world, place) = (self.world.clone(), self.world.expect_threads(1));
        let (placed, is_placed) = std::sync::mpsc::channel();
        let thread_panic = self.thread_panic.clone();
        let thread = std::thread::Builder::new().spawn(move || {
            world.take_place(place, false);
            let _ = placed.send(());
            world.wait_for_turn();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                thread_panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
        })?;
        let _ = is_placed.recv();
        self.world.let_begin(place..place + 1);
        Ok(thread)
    }

    /// The virtual time since the simulation began.
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Lets virtual time pass.
    pub fn sleep(&self, duration: Duration) {
        self.world.let_pass(duration);
    }

    /// Lets virtual time pass until something is true, at most so long. Says whether it came true.
    pub fn run_until(&self, timeout: Duration, is_true: impl FnMut() -> bool) -> bool {
        self.world.run_until(timeout, is_true)
    }

    /// Lets virtual time pass until there is news of a peer: bytes have come, or its session has ended. Returns
    /// the peer's [`Peer::key`]. `None`: the time is over (a day if no time is given), or nothing will ever
    /// happen.
    pub fn next_news(&self, timeout: Option<Duration>) -> Option<u64> {
        // The timers of a session go on for as long as it does: there is always something to wait for.
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if let Some(key) = self.world.next_news() {
            return Some(key);
        }
        self.world.await_news(Some(timeout.unwrap_or(DAY)));
        self.world.next_news()
    }

    /// Whether a fault is to happen now, for a test that commits it, as with [`Fault::PeerResets`]. What happens
    /// by this is left out where [`check`](super::check) makes a failing seed small.
    pub fn fires(&self, fault: Fault) -> bool {
        self.world.fires(fault)
    }

    /// A number below `below`, as the seed says. 0 if `below` is 0.
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

    /// How much was done so far.
    pub fn figures(&self) -> Figures {
        self.world.figures()
    }

    /// A number over everything that has happened so far. The same seed gives the same number.
    pub fn hash(&self) -> u64 {
        self.world.hash()
    }

    /// Notes something in the trace; see [`note`](super::note).
    pub fn note(&self, about: u64, words: std::fmt::Arguments<'_>) {
        self.world.say(about, words);
    }

    /// From now on keeps a trace of what happens, the last 200,000 lines of it at most.
    pub fn keep_trace(&self) {
        self.world.keep_trace();
    }

    /// The trace: the lines about these sessions ([`SessionId::to_bits`](crate::SessionId::to_bits)) and peers
    /// ([`Peer::key`]), or all lines if none is named.
    pub fn trace(&self, about: &[u64]) -> Vec<String> {
        self.world.trace(about)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.world.end();
        let panic = self.thread_panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}
