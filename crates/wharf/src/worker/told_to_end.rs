//! Tests: a worker is told to end at any point of its turn. Without sessions nothing else would wake it, so
//! the turn that takes the mail must be enough. And when one of several workers ends by a fault of wharf, the
//! others end too.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::CloseReason;
use crate::engine::{Content, Engine, Mail};
use crate::face::Handler;
use crate::framing::{Framing, Framings};
use crate::options::Listener;
use crate::options::Options;
use crate::port::readiness::ReadinessPort;
use crate::port::{CompletionPort, Sink};
use crate::server::{Listening, Plan, serve_on};
use crate::session::SessionId;
use crate::worker::changed_port::{ChangedPort, Changes};

const BOUND: Duration = Duration::from_secs(10);

/// A port that does not sleep while restless: its worker turns continuously. A broken one faults at its next
/// wait; the OS refuses the next wait of a failing one.
#[derive(Default)]
struct Mood {
    restless: AtomicBool,
    broken: AtomicBool,
    fails: AtomicBool,
}

impl<P: CompletionPort> Changes<P> for Arc<Mood> {
    fn wait<S: Sink>(
        &mut self,
        port: &mut P,
        timeout: Option<Duration>,
        sink: &mut S,
    ) -> io::Result<()> {
        if self.restless.load(Ordering::SeqCst) {
            return Ok(());
        }
        port.wait(timeout, sink)?;
        if self.broken.load(Ordering::SeqCst) {
            // Past the panic hook: to print where it was takes longer than all the rest, and before a worker
            // has unwound nobody learns of its fault.
            resume_unwind(Box::new("a fault of our own, on purpose"));
        }
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::OutOfMemory.into()),
            false => Ok(()),
        }
    }
}

fn readiness(mood: Arc<Mood>) -> io::Result<ChangedPort<ReadinessPort, Arc<Mood>>> {
    Ok(ChangedPort { port: ReadinessPort::new()?, changes: mood })
}

struct Silent;

impl Handler for Silent {
    type State = ();

    fn opened(&self, _: &crate::Session) {}

    fn received(&self, _: &crate::Session, (): &mut (), _: &[u8]) {}
}

/// Many rounds, because the critical moment is short.
fn ends_when_told(tell: fn(&Engine)) {
    let options = Options::default().workers(1).with(|options| {
        options.sessions.max = 1;
    });
    for round in 0..200 {
        let mood = Arc::new(Mood { restless: true.into(), ..Mood::default() });
        let for_port = mood.clone();
        let make_port = move |_| readiness(for_port.clone());
        let plan = Plan::new(Framings::of(&[Framing::raw(), Framing::raw()]), &options);
        let running = serve_on(make_port, plan, Vec::new(), &Arc::new(Silent)).unwrap();
        for _ in 0..round % 8 {
            std::thread::yield_now(); // let the worker be anywhere in its turns
        }
        tell(running.engine());
        mood.restless.store(false, Ordering::SeqCst);
        // If it sleeps, dropping `running` wakes it.
        let ended = running.engine().wait_ended(Some(BOUND));
        assert!(ended, "in round {round} the worker went to sleep instead");
    }
}

#[test]
fn a_worker_without_sessions_ends_at_whatever_moment_it_is_told_to_stop() {
    ends_when_told(Engine::stop);
}

#[test]
fn a_worker_without_sessions_ends_at_whatever_moment_it_is_told_to_drain() {
    ends_when_told(Engine::drain);
}

/// Counts what opens, and records how it ends.
#[derive(Default)]
struct Noting {
    opened: Mutex<Vec<(SessionId, SocketAddr)>>,
    closed: Mutex<Vec<(SessionId, CloseReason)>>,
    dropped: Arc<AtomicUsize>,
}

/// A session's state.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Noting {
    type State = Dropped;

    fn opened(&self, session: &crate::Session) -> Dropped {
        let address = session.peer_address().expect("the peer is there");
        self.opened.lock().unwrap().push((session.id(), address.as_tcp().unwrap()));
        Dropped(self.dropped.clone())
    }

    fn received(&self, _: &crate::Session, _: &mut Dropped, _: &[u8]) {}

    fn closed(&self, session: &crate::Session, _: Dropped, reason: CloseReason) {
        self.closed.lock().unwrap().push((session.id(), reason));
    }
}

const WORKERS: usize = 3;
const PEERS: usize = 41;

/// Worker 0 of three faults while all have sessions. `before` is called with a session of another worker.
fn a_fault_ends_the_server(before: fn(&Engine, SessionId)) {
    let mood = Arc::new(Mood::default());
    let for_port = mood.clone();
    let make_port =
        move |index| readiness(if index == 0 { for_port.clone() } else { Arc::default() });
    let mut plan = Plan::new(
        Framings::of(&[Framing::raw(), Framing::raw()]),
        &Options::default().workers(WORKERS),
    );
    let here = Listener::new((Ipv4Addr::LOCALHOST, 0));
    let Listening { sockets, places, .. } = plan.listen(vec![here], WORKERS).unwrap();
    let handler = Arc::new(Noting::default());
    let dropped = handler.dropped.clone();
    let running = serve_on(make_port, plan, sockets, &handler).unwrap();
    let engine = running.engine().clone();
    let mut peers: Vec<_> = (0..PEERS)
        .map(|_| TcpStream::connect_timeout(&places.addresses[0], BOUND).unwrap())
        .collect();
    while handler.opened.lock().unwrap().len() < PEERS {
        std::thread::yield_now();
    }
    let of_worker_0: Vec<_> = engine.table.sessions_of(0).collect();
    let others = engine.table.sessions_of(1).chain(engine.table.sessions_of(2));
    before(&engine, others.last().expect("newcomers are shared out"));

    mood.broken.store(true, Ordering::SeqCst);
    engine.ports[0].mailbox.post(Mail::Attend(of_worker_0[0])).unwrap(); // wakes it
    assert!(engine.wait_ended(Some(BOUND)), "the other workers did not end");
    let error = engine.take_error();
    assert!(matches!(error, Some(crate::Error::WorkerFault { worker: 0 })), "{error:?}");
    for (id, _) in handler.opened.lock().unwrap().iter() {
        assert!(!engine.send(*id, Content::Plain(b"late")), "a frame was accepted for {id}");
    }
    drop(running);
    for peer in &mut peers {
        peer.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap_or(0), 0, "its stream has ended");
    }
    let closed = handler.closed.lock().unwrap();
    let is_of_0 = |id: &SessionId| of_worker_0.contains(id);
    let of_others = closed.iter().filter(|(id, _)| !is_of_0(id)).count();
    assert_eq!(of_others + of_worker_0.len(), PEERS, "{closed:?}");
    assert!(closed.iter().all(|(_, reason)| *reason == CloseReason::Stopped), "{closed:?}");
    assert_eq!(dropped.load(Ordering::SeqCst), PEERS, "every state was dropped");
}

#[test]
fn a_worker_that_meets_a_fault_of_our_own_ends_the_others_in_order() {
    a_fault_ends_the_server(|_, _| {});
}

#[test]
fn what_the_faulted_worker_held_of_another_workers_keeps_nobody_waiting() {
    a_fault_ends_the_server(|engine, id| std::mem::forget(engine.table.look_up(id)));
}

/// A thread that the OS does not schedule holds the session while the worker's port fails.
#[test]
fn a_session_that_is_held_for_longer_than_its_worker_lives_is_closed_all_the_same() {
    let options = Options::default().workers(1).with(|options| {
        options.sessions.max = 1;
    });
    let mood = Arc::new(Mood::default());
    let for_port = mood.clone();
    let make_port = move |_| readiness(for_port.clone());
    let mut plan = Plan::new(Framings::of(&[Framing::raw(), Framing::raw()]), &options);
    let here = Listener::new((Ipv4Addr::LOCALHOST, 0));
    let Listening { sockets, places, .. } = plan.listen(vec![here], 1).unwrap();
    let handler = Arc::new(Noting::default());
    let running = serve_on(make_port, plan, sockets, &handler).unwrap();
    let engine = running.engine().clone();
    let _peer = TcpStream::connect_timeout(&places.addresses[0], BOUND).unwrap();
    while handler.opened.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    let (id, _) = handler.opened.lock().unwrap()[0];
    let held = engine.table.look_up(id).unwrap();
    mood.fails.store(true, Ordering::SeqCst);
    engine.ports[0].mailbox.post(Mail::Attend(id)).unwrap(); // wakes it
    assert!(engine.wait_ended(Some(BOUND)), "the server waits for a thread of the user's");
    let reason = CloseReason::Io { kind: io::ErrorKind::OutOfMemory, code: None };
    assert_eq!(*handler.closed.lock().unwrap(), [(id, reason)]);
    assert_eq!((engine.stats().live, engine.ports[0].assigned_sessions()), (0, 1));
    assert!(held.end(), "the slot is released by who held it");
    engine.release(id, 0);
    assert_eq!(engine.ports[0].assigned_sessions(), 0);
}
