//! Building and running a server or a connector.

mod listening;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use crate::Close;
use crate::acceptor::Acceptor;
use crate::clock::{Clock, SystemClock};
use crate::config::{Backend, BackendChoice, Options};
use crate::engine::Engine;
use crate::error::{CloseReason, Error, ListenFailure, NoMemory, Result};
use crate::framing::Framing;
use crate::guarded::{self, caught};
use crate::handle::Handle;
use crate::handler::Handler;
#[cfg(unix)]
use crate::port::readiness::ReadinessPort;
#[cfg(feature = "simulation")]
use crate::port::simulated::{SimulatedPort, World};
use crate::port::{CompletionPort, Sockets, select};
use crate::session::{HalfTable, SessionId};
use crate::worker::{Halves, Worker};

pub(crate) use self::listening::{Listeners, Listening, Name};

/// What a server or connector will be: addresses, framing, options.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    names: Vec<Name>,
    framing: Framing,
    options: Options,
}

impl Builder {
    /// Adds an address to listen on, or a name that stands for one or several: of these at least one
    /// must be had, and [`Server::listen_failures`] tells of the others. (`localhost` is often a name
    /// of `::1` also where there is no IPv6, as in Docker's containers.) Nothing is bound before
    /// [`start`](Self::start).
    ///
    /// `[::]` takes IPv4 too; see [`Options::ipv6_only`].
    ///
    /// # Errors
    /// [`Error::Resolve`] if the name has no address.
    pub fn listen(mut self, address: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        self.names.push(Name::resolve(address)?);
        Ok(self)
    }

    /// How bytes become frames. Default [`Framing::raw`].
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// All options at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How many workers; see [`Options::workers`].
    pub fn workers(mut self, count: usize) -> Self {
        self.options.workers = count;
        self
    }

    /// Which port; see [`Options::backend`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.options.backend = backend;
        self
    }

    /// Binds, chooses the port, starts the workers. When this returns, connections are accepted.
    ///
    /// # Errors
    /// If an option is outside its range, no address of a name can be listened on, a forced backend
    /// cannot be had, or no thread can be started.
    pub fn start<H: Handler>(self, handler: H) -> Result<Server> {
        let Builder { names, framing, mut options } = self;
        options.check(&framing)?;
        options.workers = options.worker_count();
        let choice = select::choose(&options)?;
        let plan = Plan::new(framing, &options);
        let ports = if choice.backend() == Backend::Iocp { 1 } else { plan.options.workers };
        let Listening { listeners, addresses, failures } = plan.listen(&names, ports)?;
        let (running, choice) = start_workers(&choice, plan, listeners, &Arc::new(handler))?;
        Ok(Server { running, choice, addresses, failures })
    }
}

#[cfg(feature = "simulation")]
impl Builder {
    /// The same in a simulated world; `is_shared` says of which kind its port is.
    pub(crate) fn start_simulated<H: Handler>(
        self,
        world: &World,
        is_shared: bool,
        handler: H,
    ) -> Result<Server> {
        // This thread waits for workers that wait for their first turn.
        let _undivided = crate::sync::steps::undivided();
        let Builder { names, framing, mut options } = self;
        options.check(&framing)?;
        if options.workers == 0 {
            options.workers = world.workers();
        }
        let workers = options.workers;
        let (clock, sockets) = (world.clone(), Sockets::Simulated(world.clone()));
        let sizes = world.sizes(&options);
        let first_generation = world.first_generation(SessionId::FIRST_GENERATION_BITS);
        let plan = Plan { framing, options, clock, sockets, first_generation };
        let ports = if is_shared { 1 } else { workers };
        let Listening { listeners, addresses, failures } = plan.listen(&names, ports)?;
        let first_port = world.make_ports(ports, is_shared, sizes);
        let first_thread = world.expect_threads(workers);
        let (world, handler) = (world.clone(), Arc::new(handler));
        let place = move |index| {
            world.take_place(first_thread + index, true);
            world.clone()
        };
        let started = if is_shared {
            let open = move |index| Ok(SimulatedPort::<true>::open(place(index), first_port));
            start_on(open, plan, listeners, &handler)
        } else {
            let open = move |index| {
                Ok(SimulatedPort::<false>::open(place(index), first_port + index as u32))
            };
            start_on(open, plan, listeners, &handler)
        };
        let running = started.map_err(StartError::plain)?;
        let choice = BackendChoice::Forced(Backend::Simulated);
        Ok(Server { running, choice, addresses, failures })
    }
}

/// What all workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Plan<C> {
    pub(crate) framing: Framing,
    pub(crate) options: Options,
    pub(crate) clock: C,
    pub(crate) sockets: Sockets,
    /// Of the first session in each slot ([`SessionId`]).
    pub(crate) first_generation: u64,
}

impl Plan<SystemClock> {
    /// The real clock, and the operating system's sockets.
    pub(crate) fn new(framing: Framing, options: &Options) -> Self {
        let (options, clock) = (options.clone(), SystemClock::start());
        let first_generation = draw_first_generation();
        Plan { framing, options, clock, sockets: Sockets::Os, first_generation }
    }
}

/// By the system's randomness, which keys the standard library's hashers. A process that was forked has
/// its parent's keys, and a machine that was restored from a copy has the copy's: so by its number and the
/// time too.
fn draw_first_generation() -> u64 {
    let drawn = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    drawn >> (u64::BITS - SessionId::FIRST_GENERATION_BITS)
}

/// A running server: from [`Server::bind`], or a connector, which has no listener.
/// Dropping it stops it at once, and waits until its workers have ended; [`wait`](Self::wait) lets it
/// run until it is drained or stopped. In one of its own callbacks nothing is waited for: to drop it there
/// stops it, and the workers end when the callback has returned.
pub struct Server {
    running: Running,
    choice: BackendChoice,
    addresses: Vec<SocketAddr>,
    failures: Vec<ListenFailure>,
}

impl Server {
    /// A server that will listen on `address`; see [`Builder::listen`].
    ///
    /// # Errors
    /// [`Error::Resolve`] if the name has no address.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> Result<Builder> {
        Builder::default().listen(address)
    }

    /// The server from any thread.
    pub fn handle(&self) -> Handle {
        Handle::new(self.running.engine.clone())
    }

    /// The addresses that are listened on; port 0 has become the one that was given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of the names it was given that are not listened on, and why.
    pub fn listen_failures(&self) -> &[ListenFailure] {
        &self.failures
    }

    /// Which port serves, and why.
    pub fn backend(&self) -> &BackendChoice {
        &self.choice
    }

    /// Waits until the server was drained or stopped through its [`Handle`].
    ///
    /// # Errors
    /// If a worker's port failed, or it met a fault of wharf's own, which stops the other workers too.
    /// [`Error::InCallback`] in a callback of the same server, whose worker it would wait for; the
    /// server, which this call has taken, is then stopped.
    pub fn wait(mut self) -> Result<()> {
        self.running.engine.refuse_on_a_worker("Server::wait")?;
        self.running.join();
        match self.running.engine.take_error() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// In a line: whoever has one may print it.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { running, choice, addresses, failures } = self;
        f.debug_struct("Server")
            .field("addresses", addresses)
            .field("failures", failures)
            .field("backend", &choice.backend())
            .field("handle", &Handle::new(running.engine.clone()))
            .finish()
    }
}

/// The connect side: sessions that we begin.
#[derive(Debug)]
pub struct Connector;

impl Connector {
    /// A connector. What [`start`](Builder::start) returns is a [`Server`] without a listener;
    /// its [`Handle::connect`] begins sessions.
    #[expect(clippy::new_ret_no_self, reason = "it reads as its counterpart Server::bind does")]
    pub fn new() -> Builder {
        Builder::default()
    }
}

/// The threads of a server.
pub(crate) struct Running {
    engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
    /// Whether workers serve: those that never began end without a word.
    has_begun: bool,
}

impl Running {
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Waits for the workers, if this thread is none of them.
    fn join(&mut self) {
        if self.engine.is_on_a_worker() {
            return;
        }
        #[cfg(feature = "simulation")]
        if self.has_begun && crate::port::simulated::current().is_some() {
            self.engine.wait_ended(None); // a thread that is joined must have had its turns
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has a bug of ours; its sockets are closed all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.stop();
        self.join();
    }
}

/// Starts the workers on the chosen port; if io_uring was merely granted, and a worker's ring
/// cannot be had after all, on the readiness port.
#[cfg(unix)]
fn start_workers<H: Handler>(
    choice: &BackendChoice,
    plan: Plan<SystemClock>,
    listeners: Listeners,
    handler: &Arc<H>,
) -> Result<(Running, BackendChoice)> {
    let readiness = |_| ReadinessPort::new();
    #[cfg(target_os = "linux")]
    if choice.backend() == Backend::Uring {
        use crate::port::uring::{UringPort, UringSizes, refusal};
        let options = &plan.options;
        let sizes = UringSizes::new(options.receive_buffers, options.receive_buffer_bytes);
        let started = start_on(move |_| UringPort::new(sizes), plan.clone(), listeners, handler);
        return match started {
            Ok(running) => Ok((running, choice.clone())),
            Err((StartError::Port(error), listeners)) => {
                let reason = refusal("a worker's ring", &error);
                if *choice == BackendChoice::Forced(Backend::Uring) {
                    return Err(Error::Backend { backend: "uring", reason });
                }
                let choice = BackendChoice::UringRefused(reason);
                let started = start_on(readiness, plan, listeners, handler);
                started.map(|running| (running, choice)).map_err(StartError::plain)
            }
            Err((StartError::Thread(error), _)) => Err(Error::Thread(error)),
        };
    }
    let started = start_on(readiness, plan, listeners, handler);
    started.map(|running| (running, choice.clone())).map_err(StartError::plain)
}

/// Starts the workers on one completion port.
#[cfg(windows)]
fn start_workers<H: Handler>(
    choice: &BackendChoice,
    plan: Plan<SystemClock>,
    listeners: Listeners,
    handler: &Arc<H>,
) -> Result<(Running, BackendChoice)> {
    use crate::port::iocp::{IocpPort, IocpSizes, SharedPort};
    let sizes = IocpSizes {
        concurrent_threads: plan.options.workers as u32,
        accepts_outstanding: plan.options.accepts_outstanding,
        synchronous_completions_max: plan.options.synchronous_completions_max,
    };
    let shared = SharedPort::new(sizes).map_err(|source| Error::Port { worker: 0, source })?;
    let make_port = move |_| IocpPort::join(shared.clone());
    let started = start_on(make_port, plan, listeners, handler);
    started.map(|running| (running, choice.clone())).map_err(StartError::plain)
}

#[derive(Debug)]
pub(crate) enum StartError {
    Thread(std::io::Error),
    Port(std::io::Error),
}

impl StartError {
    fn plain((error, _): (StartError, Listeners)) -> Error {
        match error {
            StartError::Thread(error) => Error::Thread(error),
            StartError::Port(source) => match NoMemory::of(&source) {
                Some(NoMemory { option, bytes }) => Error::Memory { option, bytes },
                None => Error::Port { worker: 0, source },
            },
        }
    }
}

/// Starts one thread for each worker. A port is made by the thread that uses it; only when all
/// have one does any begin to serve, so a failure leaves nothing behind, and gives the listeners back.
pub(crate) fn start_on<P, H: Handler, C: Clock>(
    make_port: impl Fn(usize) -> std::io::Result<P> + Clone + Send + 'static,
    plan: Plan<C>,
    listeners: Listeners,
    handler: &Arc<H>,
) -> std::result::Result<Running, (StartError, Listeners)>
where
    P: CompletionPort,
{
    let Plan { framing, options, clock, sockets, first_generation } = plan;
    let workers = options.workers;
    let mut engine = Engine::new(P::SHARED, framing, options, sockets);
    engine.set_clock(clock.clone());
    engine.table.begin_generations_at(first_generation);
    let halves: Arc<Halves<H>> = Arc::new(HalfTable::new(engine.table.slots_max()));
    if listeners.iter().filter(|at_port| !at_port.is_empty()).count() == engine.ports.len() {
        engine.accept_at_each_port();
    }
    let engine = Arc::new(engine);
    let (made, ports_made) = mpsc::channel();
    let mut running = Running { engine: engine.clone(), threads: Vec::new(), has_begun: false };
    // After `running`, so dropped before it: a worker that waits to begin is let go, then joined.
    let mut begins = Vec::new();
    for index in 0..workers {
        let (engine, halves, handler) = (engine.clone(), halves.clone(), handler.clone());
        let (make_port, made, clock) = (make_port.clone(), made.clone(), clock.clone());
        let (begin, may_begin) = mpsc::channel::<()>();
        begins.push(begin);
        let body = move || {
            engine.serve_on_this_thread();
            let port = match make_port(index) {
                Ok(port) => port,
                Err(error) => return drop(made.send(Err(error))),
            };
            let _ = made.send(Ok(()));
            // The sender is dropped when another worker failed: then this one never begins.
            if may_begin.recv().is_ok() {
                let worker = Worker::new(port, index, &engine, &halves, &*handler, clock);
                if caught(|| worker.run()).is_none() {
                    report_fault(&engine, index);
                }
            }
            // The last worker drops the handler, which is the user's.
            guarded::end(handler);
        };
        match std::thread::Builder::new().name(format!("wharf-{index}")).spawn(body) {
            Ok(thread) => running.threads.push(thread),
            Err(error) => return Err((StartError::Thread(error), listeners)),
        }
    }
    drop(made);
    for result in ports_made.iter().take(workers) {
        if let Err(error) = result {
            return Err((StartError::Port(error), listeners));
        }
    }
    for (port, listeners) in engine.ports.iter().zip(listeners) {
        *port.acceptor.lock() = Acceptor::new(listeners);
    }
    for begin in begins {
        let _ = begin.send(());
    }
    running.has_begun = true;
    Ok(running)
}

/// Reports a worker that ended by a panic of wharf's own (a broken invariant, since handlers'
/// panics are caught), so that nobody waits for it in vain.
fn report_fault(engine: &Engine, worker: usize) {
    engine.set_faulted();
    engine.stop(); // nothing is admitted any more, also not into slots of the faulted one's
    let is_shared = engine.ports.len() < engine.published.len();
    let port_index = if is_shared { 0 } else { worker };
    let port = &engine.ports[port_index];
    port.wake_all_others();
    if port.worker_left() {
        drop(port.mailbox.close());
        // Nobody attends to its sessions any more, so nothing must be accepted for them. Their slots stay
        // taken: what else is theirs was in the faulted one's hand.
        let (reason, how) = (CloseReason::Stopped, Close::Stop);
        caught(|| engine.ask_all_to_close(port_index, reason, how, |_, _| {}));
    }
    engine.worker_ended(Some(Error::WorkerFault { worker }));
}
