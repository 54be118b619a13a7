//! Starts the workers of a server, each on a thread of its own, and the threads that run jobs.

use std::sync::Arc;
use std::sync::mpsc;

use super::listening::ListeningSockets;
use super::plan::Plan;
use super::running::Running;
use crate::clock::{Clock, SystemClock};
use crate::close::{Close, CloseReason};
use crate::engine::{Acceptor, Engine};
use crate::error::{Error, NoMemory, Result};
use crate::face::{Handle, Handler, Internal};
use crate::guarded::{self, caught};
#[cfg(target_os = "linux")]
use crate::options::Backend;
use crate::options::BackendChoice;
use crate::port::CompletionPort;
#[cfg(unix)]
use crate::port::readiness::ReadinessPort;
use crate::session::HalfTable;
use crate::worker::{Halves, LargeState, Worker};

/// Starts the workers on the chosen port; if io_uring was merely granted, and a worker's ring
/// cannot be had after all, on the readiness port.
#[cfg(unix)]
pub(super) fn start_workers<H: Handler>(
    choice: &BackendChoice,
    plan: Plan<SystemClock>,
    sockets: ListeningSockets,
    handler: &Arc<H>,
) -> Result<(Running, BackendChoice)> {
    let readiness = |_| ReadinessPort::new();
    #[cfg(target_os = "linux")]
    if choice.backend() == Backend::Uring {
        use crate::port::uring::{UringPort, UringSizes, refusal};
        let options = &plan.options;
        let sizes =
            UringSizes::new(options.uring.receive_buffers, options.uring.receive_buffer_bytes);
        let started = start_on(move |_| UringPort::new(sizes), plan.clone(), sockets, handler);
        return match started {
            Ok(running) => Ok((running, choice.clone())),
            Err((StartError::Port(error), sockets)) => {
                let reason = refusal("a worker's ring", &error);
                if *choice == BackendChoice::Forced(Backend::Uring) {
                    return Err(Error::Backend { backend: "uring", reason });
                }
                let choice = BackendChoice::UringRefused(reason);
                let started = start_on(readiness, plan, sockets, handler);
                started.map(|running| (running, choice)).map_err(StartError::plain)
            }
            Err(failed) => Err(StartError::plain(failed)),
        };
    }
    let started = start_on(readiness, plan, sockets, handler);
    started.map(|running| (running, choice.clone())).map_err(StartError::plain)
}

/// Starts the workers on one completion port.
#[cfg(windows)]
pub(super) fn start_workers<H: Handler>(
    choice: &BackendChoice,
    plan: Plan<SystemClock>,
    sockets: ListeningSockets,
    handler: &Arc<H>,
) -> Result<(Running, BackendChoice)> {
    use crate::port::iocp::{IocpPort, IocpSizes, SharedPort};
    let sizes = IocpSizes {
        concurrent_threads: plan.options.workers as u32,
        accepts_outstanding: plan.options.iocp.accepts_outstanding,
    };
    let shared = SharedPort::new(sizes).map_err(|source| Error::Port { worker: 0, source })?;
    let make_port = move |_| IocpPort::join(shared.clone());
    let started = start_on(make_port, plan, sockets, handler);
    started.map(|running| (running, choice.clone())).map_err(StartError::plain)
}

/// What stood in the way of the workers.
#[derive(Debug)]
pub(crate) enum StartError {
    Thread(std::io::Error),
    Port(std::io::Error),
    /// The handler's mailer is another server's.
    MailerInUse,
}

impl StartError {
    pub(super) fn plain((error, _): (StartError, ListeningSockets)) -> Error {
        match error {
            StartError::Thread(error) => Error::Thread(error),
            StartError::MailerInUse => Error::MailerInUse,
            StartError::Port(source) => match NoMemory::of(&source) {
                Some(NoMemory { option, bytes }) => Error::Memory { option, bytes },
                None => Error::Port { worker: 0, source },
            },
        }
    }
}

/// Starts one thread for each worker, which makes its port and then waits for [`Running::begin`]. If one
/// fails, nothing is left behind, and the sockets come back.
pub(super) fn start_on<P: CompletionPort, H: Handler, C: Clock>(
    make_port: impl Fn(usize) -> std::io::Result<P> + Clone + Send + 'static,
    plan: Plan<C>,
    sockets: ListeningSockets,
    handler: &Arc<H>,
) -> std::result::Result<Running, (StartError, ListeningSockets)> {
    if const { LargeState::<H>::IS_NEEDED } {
        start_with(make_port, plan, sockets, LargeState::of(handler))
    } else {
        start_with(make_port, plan, sockets, handler.clone())
    }
}

fn start_with<P: CompletionPort, H: Handler, C: Clock>(
    make_port: impl Fn(usize) -> std::io::Result<P> + Clone + Send + 'static,
    plan: Plan<C>,
    sockets: ListeningSockets,
    handler: Arc<H>,
) -> std::result::Result<Running, (StartError, ListeningSockets)> {
    let (workers, clock) = (plan.options.workers, plan.clock.clone());
    let engine = Arc::new(engine_of::<P, C>(plan, &sockets));
    let halves: Arc<Halves<H>> = Arc::new(HalfTable::new(engine.table.slots_max()));
    let (made, ports_made) = mpsc::channel();
    let mut running = Running {
        engine: engine.clone(),
        threads: Vec::new(),
        is_ready: false,
        may_begin: Vec::new(),
        pool_threads: 0,
        #[cfg(feature = "simulation")]
        places: Vec::new(),
    };
    for index in 0..workers {
        let (engine, halves, handler) = (engine.clone(), halves.clone(), handler.clone());
        let (make_port, made, clock) = (make_port.clone(), made.clone(), clock.clone());
        let thread_name = format!("{}-{index}", engine.options.thread_name);
        let (begin, may_begin) = mpsc::channel::<()>();
        running.may_begin.push(begin);
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
        match std::thread::Builder::new().name(thread_name).spawn(body) {
            Ok(thread) => running.threads.push(thread),
            Err(error) => return Err((StartError::Thread(error), sockets)),
        }
    }
    drop(made);
    for result in ports_made.iter().take(workers) {
        if let Err(error) = result {
            return Err((StartError::Port(error), sockets));
        }
    }
    let tells = handler.tells(Internal);
    if tells.is_some()
        && let Err(error) = running.start_pool()
    {
        return Err((StartError::Thread(error), sockets));
    }
    // Now that nothing else can fail: a mailer begins once.
    if tells.is_some_and(|tells| !tells.begin(Handle::new(engine.clone()))) {
        return Err((StartError::MailerInUse, sockets));
    }
    for (port, sockets) in engine.ports.iter().zip(sockets) {
        *port.acceptor.lock() = Acceptor::new(sockets);
    }
    running.is_ready = true;
    Ok(running)
}

/// What the workers will share.
fn engine_of<P: CompletionPort, C: Clock>(plan: Plan<C>, sockets: &ListeningSockets) -> Engine {
    let Plan { framings, listeners, listener_of_socket, options, clock, .. } = plan;
    let mut engine = Engine::new(P::SHARED, framings, options, plan.sockets);
    engine.set_clock(clock);
    engine.table.begin_generations_at(plan.first_generation);
    #[cfg(all(feature = "websocket", feature = "simulation"))]
    if engine.sockets.are_simulated() {
        engine.set_key_seed(plan.first_generation);
    }
    if sockets.iter().filter(|at_port| !at_port.is_empty()).count() == engine.ports.len() {
        engine.accept_at_each_port();
    }
    engine.set_listeners(listeners, listener_of_socket);
    engine
}

/// The same, and they begin.
#[cfg(test)]
pub(crate) fn serve_on<P: CompletionPort, H: Handler, C: Clock>(
    make_port: impl Fn(usize) -> std::io::Result<P> + Clone + Send + 'static,
    plan: Plan<C>,
    sockets: ListeningSockets,
    handler: &Arc<H>,
) -> std::result::Result<Running, StartError> {
    let started = start_on(make_port, plan, sockets, handler);
    let mut running = started.map_err(|(error, _)| error)?;
    running.begin();
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
    port.turns.leave(if is_shared { worker } else { 0 });
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
