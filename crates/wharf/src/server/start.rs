//! Starts the workers of a server, each on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc;

use super::listening::Listeners;
use super::plan::Plan;
use super::running::Running;
use crate::clock::{Clock, SystemClock};
use crate::close::{Close, CloseReason};
use crate::engine::{Acceptor, Engine};
use crate::error::{Error, NoMemory, Result};
use crate::face::Handler;
use crate::guarded::{self, caught};
#[cfg(target_os = "linux")]
use crate::options::Backend;
use crate::options::BackendChoice;
use crate::port::CompletionPort;
#[cfg(unix)]
use crate::port::readiness::ReadinessPort;
use crate::session::HalfTable;
use crate::worker::{Halves, Worker};

/// Starts the workers on the chosen port; if io_uring was merely granted, and a worker's ring
/// cannot be had after all, on the readiness port.
#[cfg(unix)]
pub(super) fn start_workers<H: Handler>(
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
pub(super) fn start_workers<H: Handler>(
    choice: &BackendChoice,
    plan: Plan<SystemClock>,
    listeners: Listeners,
    handler: &Arc<H>,
) -> Result<(Running, BackendChoice)> {
    use crate::port::iocp::{IocpPort, IocpSizes, SharedPort};
    let sizes = IocpSizes {
        concurrent_threads: plan.options.workers as u32,
        accepts_outstanding: plan.options.accepts_outstanding,
    };
    let shared = SharedPort::new(sizes).map_err(|source| Error::Port { worker: 0, source })?;
    let make_port = move |_| IocpPort::join(shared.clone());
    let started = start_on(make_port, plan, listeners, handler);
    started.map(|running| (running, choice.clone())).map_err(StartError::plain)
}

/// What stood in the way of the workers.
#[derive(Debug)]
pub(crate) enum StartError {
    Thread(std::io::Error),
    Port(std::io::Error),
}

impl StartError {
    pub(super) fn plain((error, _): (StartError, Listeners)) -> Error {
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
    let Plan { framings, options, clock, sockets, first_generation } = plan;
    let workers = options.workers;
    let mut engine = Engine::new(P::SHARED, framings, options, sockets);
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
