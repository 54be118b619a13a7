//! Tests of what no real port does on demand: it refuses to register a socket or to take an operation. The
//! count must go back at once (invariant 3), and the session must end for that reason.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::close::CloseReason;
use crate::face::{Handle, Handler};
use crate::framing::Framing;
use crate::options::Options;
use crate::port::readiness::ReadinessPort;
use crate::port::{CompletionPort, Operation, OperationKind, Refused, Registration, Socket, Token};
use crate::server::{Plan, Running, serve_on};
use crate::session::SessionId;
use crate::worker::changed_port::{ChangedPort, Changes};

/// What is refused: every second one of these.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Register,
    Post(OperationKind),
}

/// A port that refuses some calls.
struct Refuses {
    what: What,
    asked: usize,
    refused: Arc<AtomicUsize>,
}

impl Refuses {
    fn refuses(&mut self, what: What) -> bool {
        if what != self.what {
            return false;
        }
        self.asked += 1;
        let refuses = self.asked.is_multiple_of(2);
        self.refused.fetch_add(usize::from(refuses), Ordering::Relaxed);
        refuses
    }
}

fn no_memory<T>(given_back: T) -> Refused<T> {
    Refused { given_back, error: io::Error::from(io::ErrorKind::OutOfMemory) }
}

impl<P: CompletionPort> Changes<P> for Refuses {
    fn register(
        &mut self,
        port: &mut P,
        socket: Socket,
        token: Token,
    ) -> Result<Registration, Refused<Socket>> {
        if self.refuses(What::Register) {
            return Err(no_memory(socket));
        }
        port.register(socket, token)
    }

    fn post(
        &mut self,
        port: &mut P,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        if self.refuses(What::Post(operation.kind())) {
            return Err(no_memory(operation));
        }
        port.post(registration, operation)
    }
}

#[derive(Default)]
struct Notes {
    opened: AtomicUsize,
    closed: Mutex<Vec<CloseReason>>,
    connects_failed: AtomicUsize,
}

struct Echo(Arc<Notes>);

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &crate::Session) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn received(&self, session: &crate::Session, _: &mut (), frame: &[u8]) {
        session.send(frame);
    }

    fn closed(&self, _: &crate::Session, _: (), reason: CloseReason) {
        self.0.closed.lock().unwrap().push(reason);
    }

    fn connect_failed(&self, _: SessionId, _: &crate::Target, error: &io::Error) {
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        self.0.connects_failed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Trial {
    running: Running,
    address: SocketAddr,
    notes: Arc<Notes>,
    refused: Arc<AtomicUsize>,
}

impl Trial {
    fn of(what: What) -> Self {
        let options = Options::default().workers(1);
        let plan = Plan::new(Framing::raw(), &options);
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listeners = plan.sockets.listen(any, false, &options, 1).unwrap();
        let address = listeners[0].local_address().unwrap();
        let (notes, refused) = (Arc::new(Notes::default()), Arc::new(AtomicUsize::new(0)));
        let counted = refused.clone();
        let make_port = move |_| {
            let changes = Refuses { what, asked: 0, refused: counted.clone() };
            Ok(ChangedPort { port: ReadinessPort::new()?, changes })
        };
        let handler = Arc::new(Echo(notes.clone()));
        let started = serve_on(make_port, plan, vec![listeners], &handler);
        let Ok(running) = started else { panic!("not started") };
        Trial { running, address, notes, refused }
    }

    fn handle(&self) -> Handle {
        Handle::new(self.running.engine().clone())
    }

    /// Connects and sends; returns whether an answer came.
    fn is_answered(&self) -> bool {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = [0; 5];
        peer.write_all(b"hello").and_then(|()| peer.read_exact(&mut answer)).is_ok()
            && answer == *b"hello"
    }

    fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(30), "it never came true: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until every session has ended and every count is 0, so that the table is empty.
    fn settles(&self) -> Vec<CloseReason> {
        let engine = self.running.engine();
        self.eventually("every slot is released", || {
            engine.ports[0].assigned_sessions() == 0 && self.handle().stats().live == 0
        });
        let stats = self.handle().stats();
        let closed = self.notes.closed.lock().unwrap().clone();
        assert_eq!(self.notes.opened.load(Ordering::SeqCst), closed.len());
        assert_eq!((stats.opened, stats.closed), (closed.len() as u64, closed.len() as u64));
        assert!(self.refused.load(Ordering::Relaxed) > 0, "nothing was refused");
        closed
    }
}

fn is_no_memory(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Io { kind: io::ErrorKind::OutOfMemory, .. })
}

#[test]
fn a_session_whose_receive_cannot_be_posted_ends_and_the_others_are_served() {
    let trial = Trial::of(What::Post(OperationKind::Receive));
    let answered = (0..20).filter(|_| trial.is_answered()).count();
    assert_eq!(answered, 10);
    let closed = trial.settles();
    assert_eq!(closed.iter().filter(|reason| is_no_memory(reason)).count(), 10, "{closed:?}");
}

#[test]
fn a_session_whose_send_cannot_be_posted_ends_and_the_others_are_served() {
    let trial = Trial::of(What::Post(OperationKind::Send));
    let answered = (0..20).filter(|_| trial.is_answered()).count();
    assert_eq!(answered, 10);
    let closed = trial.settles();
    assert_eq!(closed.iter().filter(|reason| is_no_memory(reason)).count(), 10, "{closed:?}");
}

#[test]
fn a_session_whose_socket_cannot_be_registered_ends_and_the_others_are_served() {
    // The listener is registered first, so refusals begin with the first session.
    let trial = Trial::of(What::Register);
    let answered = (0..20).filter(|_| trial.is_answered()).count();
    assert_eq!(answered, 10);
    let closed = trial.settles();
    assert_eq!(closed.iter().filter(|reason| is_no_memory(reason)).count(), 10, "{closed:?}");
}

#[test]
fn a_connect_that_cannot_be_posted_fails_and_leaves_nothing() {
    let trial = Trial::of(What::Post(OperationKind::Connect));
    let handle = trial.handle();
    for _ in 0..20 {
        handle.connect(trial.address).unwrap();
    }
    trial.eventually("half of them fail", || {
        trial.notes.connects_failed.load(Ordering::SeqCst) == 10 && handle.stats().opened == 20 // ten connected, and their ten other ends
    });
    handle.stop();
    trial.settles();
}
