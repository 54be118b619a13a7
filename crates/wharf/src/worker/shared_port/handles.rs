//! Several handles to one readiness port, for systems without shared ports.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::buffer::SendBatch;
use crate::port::readiness::ReadinessPort;
use crate::port::{
    Accepted, Anywhere, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome,
    PostAnywhere, Refused, Registration, Sink, Socket, Token, Wake, Waker,
};

/// How long a handle leaves the port to the others. It never sleeps with the lock held.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// What the handles share.
pub(super) struct Shared {
    port: Mutex<Option<ReadinessPort>>,
    tokens: Mutex<HashMap<u32, Token>>,
    handles: AtomicUsize,
    /// Makes the next wait of every handle, or of one, fail instead.
    fails: AtomicBool,
    /// The last handle to close delivers nothing.
    ends_untold: AtomicBool,
    faults_once: AtomicBool,
    wake: Arc<WakeMark>,
    /// Completions that were taken and not delivered yet. The next handle delivers them.
    taken: Mutex<Vec<Owned>>,
}

/// Ends the wait of one handle.
#[derive(Debug, Default)]
struct WakeMark(AtomicBool);

impl Wake for WakeMark {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

pub(super) struct SharedHandle(Arc<Shared>);

/// A completion that outlives the call of the sink.
struct Owned {
    token: Token,
    outcome: OwnedOutcome,
    more: bool,
}

enum OwnedOutcome {
    Accepted(Result<Accepted, Failure>),
    Connected(Result<Option<SocketAddr>, Failure>),
    Received(Result<Vec<u8>, Failure>),
    Other(Outcome<'static>),
}

impl Owned {
    fn of(completion: Completion<'_>) -> Owned {
        let Completion { token, outcome, more, .. } = completion;
        let outcome = match outcome {
            Outcome::Accepted(result) => OwnedOutcome::Accepted(result),
            Outcome::Connected(result) => OwnedOutcome::Connected(result),
            Outcome::Received(result) => OwnedOutcome::Received(result.map(|bytes| bytes.to_vec())),
            Outcome::ReceivedInto(ring, result) => {
                OwnedOutcome::Other(Outcome::ReceivedInto(ring, result))
            }
            Outcome::Sent(batch, result) => OwnedOutcome::Other(Outcome::Sent(batch, result)),
        };
        Owned { token, outcome, more }
    }

    fn deliver<S: Sink>(self, sink: &mut S) {
        let Owned { token, outcome, more } = self;
        match outcome {
            OwnedOutcome::Accepted(result) => {
                sink.take(Completion::new(token, Outcome::Accepted(result), more));
            }
            OwnedOutcome::Connected(result) => {
                sink.take(Completion::new(token, Outcome::Connected(result), more));
            }
            OwnedOutcome::Received(Ok(mut bytes)) => {
                sink.take(Completion::new(token, Outcome::Received(Ok(&mut bytes)), more));
            }
            OwnedOutcome::Received(Err(failure)) => {
                sink.take(Completion::new(token, Outcome::Received(Err(failure)), more));
            }
            OwnedOutcome::Other(outcome) => sink.take(Completion::new(token, outcome, more)),
        }
    }
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        let port = Mutex::new(Some(ReadinessPort::new().unwrap()));
        let (wake, taken) = (Arc::default(), Mutex::default());
        let [fails, ends_untold, faults_once] = [(); 3].map(|()| AtomicBool::new(false));
        let (tokens, handles) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Shared { port, tokens, handles, fails, ends_untold, faults_once, wake, taken })
    }

    /// Makes every wait fail from now on.
    pub(super) fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    /// The same, and outstanding operations never complete.
    pub(super) fn fail_untold(&self) {
        self.ends_untold.store(true, Ordering::SeqCst);
        self.fail();
    }

    /// Makes the next handle that takes completions panic, as a broken invariant would.
    pub(super) fn fault_once(&self) {
        self.faults_once.store(true, Ordering::SeqCst);
    }

    fn with<R>(&self, act: impl FnOnce(&mut ReadinessPort) -> R) -> R {
        act(self.port.lock().unwrap().as_mut().expect("some handle is open"))
    }
}

impl SharedHandle {
    pub(super) fn join(shared: Arc<Shared>) -> io::Result<Self> {
        shared.handles.fetch_add(1, Ordering::SeqCst);
        Ok(SharedHandle(shared))
    }
}

impl CompletionPort for SharedHandle {
    const SHARED: bool = true;

    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        let registration = self.0.with(|port| port.register(socket, token))?;
        self.0.tokens.lock().unwrap().insert(registration.0, token);
        Ok(registration)
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        self.0.with(|port| port.deregister(registration))
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        self.0.with(|port| port.shutdown(registration, how));
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        match operation {
            Operation::Send(batch) => self.0.post_send(registration, batch).map_err(|refused| {
                Refused { given_back: Operation::Send(refused.given_back), error: refused.error }
            }),
            operation => self.0.with(|port| port.post(registration, operation)),
        }
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        self.0.with(|port| port.cancel(registration, kind));
    }

    fn has_unread(&self, registration: Registration) -> bool {
        self.0.with(|port| port.has_unread(registration))
    }

    fn stalled_for(&self, registration: Registration) -> Option<Duration> {
        self.0.with(|port| port.stalled_for(registration))
    }

    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize> {
        self.0.with(|port| port.unacknowledged_bytes(registration))
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.0.fails.load(Ordering::SeqCst) {
                return Err(io::Error::from(io::ErrorKind::OutOfMemory));
            }
            let mut taken = Vec::new();
            self.0.with(|port| {
                port.wait(Some(Duration::ZERO), &mut |completion: Completion<'_>| {
                    taken.push(Owned::of(completion));
                })
            })?;
            // Leave half for another handle, as an unfair kernel might.
            let mut others = self.0.taken.lock().unwrap();
            let mut mine = std::mem::take(&mut *others);
            others.extend(taken.split_off(taken.len().div_ceil(2)));
            drop(others);
            mine.append(&mut taken);
            let over = until.is_some_and(|until| Instant::now() >= until);
            if mine.is_empty() && !over && !self.0.wake.0.swap(false, Ordering::SeqCst) {
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            let faults = !mine.is_empty() && self.0.faults_once.swap(false, Ordering::SeqCst);
            assert!(!faults, "a fault on purpose");
            for owned in mine {
                owned.deliver(sink);
            }
            return Ok(());
        }
    }

    fn waker(&self) -> Waker {
        self.0.wake.clone()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        Some(Anywhere::Posts(self.0.clone()))
    }

    fn close<S: Sink>(self, sink: &mut S) {
        if self.0.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            if self.0.ends_untold.load(Ordering::SeqCst) {
                self.0.taken.lock().unwrap().clear();
                drop(self.0.port.lock().unwrap().take());
                return;
            }
            for owned in std::mem::take(&mut *self.0.taken.lock().unwrap()) {
                owned.deliver(sink);
            }
            if let Some(port) = self.0.port.lock().unwrap().take() {
                port.close(sink);
            }
        }
    }
}

impl PostAnywhere for Shared {
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        let unconnected = self.with(|port| port.is_unconnected(registration));
        if unconnected {
            // Winsock does this; Linux would keep it.
            let token = self.tokens.lock().unwrap()[&registration.0];
            let error = io::Error::from(io::ErrorKind::NotConnected);
            let outcome = OwnedOutcome::Other(Outcome::Sent(batch, Err(Failure::Os(error))));
            self.taken.lock().unwrap().push(Owned { token, outcome, more: false });
            return Ok(());
        }
        let posted = self.with(|port| port.post(registration, Operation::Send(batch)));
        posted.map_err(|refused| match refused.given_back {
            Operation::Send(given_back) => Refused { given_back, error: refused.error },
            _ => unreachable!("a send was posted"),
        })
    }
}
