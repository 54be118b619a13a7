//! A handle to the port, one for each worker.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completions::Taker;
use super::port::{Entries, Packet, Taken};
use super::record::{KINDS, Record};
use super::shared::SharedPort;
use super::state::CANCELLED;
use crate::port::memory::scratch;
use crate::port::{
    Anywhere, Completion, CompletionPort, Operation, OperationKind, Refused, Registration, Sink,
    Socket, Token, Waker,
};

/// How long the port's end waits for the last completions before it leaks what they own.
const LAST_COMPLETIONS_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest sleep of a handle before it checks for packets and wakes that the OS had no memory to queue.
/// Once a second costs an idle worker nothing measurable.
pub(super) const SLEEP_MS_MAX: u32 = 1_000;

/// One worker's handle to the port.
#[derive(Debug)]
pub(crate) struct IocpPort {
    pub(super) shared: Arc<SharedPort>,
    /// Packets that did not go through the port, for the next `wait`.
    pub(super) ready: VecDeque<Packet>,
    entries: Entries,
    scratch: Box<[u8]>,
    has_left: bool,
}

impl IocpPort {
    pub(crate) fn join(shared: Arc<SharedPort>) -> io::Result<Self> {
        {
            let mut handles = shared.handles.lock();
            if shared.is_ending() {
                return Err(io::Error::from(io::ErrorKind::NotConnected));
            }
            *handles += 1;
            shared.waker.set_handles(*handles);
        }
        Ok(IocpPort {
            shared,
            ready: VecDeque::new(),
            entries: Entries::new(),
            scratch: scratch()?,
            has_left: false,
        })
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        IocpPort::join_for_test(&SharedPort::for_test())
    }

    #[cfg(test)]
    pub(crate) fn join_for_test(shared: &Arc<SharedPort>) -> Self {
        IocpPort::join(shared.clone()).unwrap()
    }

    /// Takes what is there. Waits for the first until `deadline`. True: completions were delivered, or a wake
    /// came.
    fn turn<S: Sink>(&mut self, deadline: Deadline, sink: &mut S) -> io::Result<bool> {
        let IocpPort { shared, ready, entries, scratch, .. } = self;
        shared.take_left_over(ready);
        let mut taker = Taker { shared, ready, scratch, sink, delivered: false };
        // Not what these add: a busy socket has its next turn with the others.
        for _ in 0..taker.ready.len() {
            if let Some(packet) = taker.ready.pop_front() {
                taker.take(packet);
            }
        }
        let is_busy = taker.delivered || !taker.ready.is_empty();
        let timeout_ms = if is_busy { 0 } else { deadline.left_ms().min(SLEEP_MS_MAX) };
        let count = shared.port.take(entries, timeout_ms)?;
        let wakes = (0..count).filter(|at| matches!(entries.at(*at), Taken::Wake)).count();
        if wakes > 0 {
            // First, so that an idle handle is woken before this batch's handlers run.
            shared.waker.taken(wakes as u32, wakes < count);
        }
        for at in 0..count {
            if let Taken::Packet(packet) = entries.at(at) {
                taker.take(packet);
            }
        }
        Ok(taker.delivered || wakes > 0 || shared.waker.take_lost())
    }

    /// Closes this handle. The last one ends the port.
    fn leave<S: Sink>(&mut self, sink: &mut S) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let shared = self.shared.clone();
        let is_last = {
            let mut handles = shared.handles.lock();
            *handles -= 1;
            shared.waker.set_handles(*handles);
            if *handles == 0 {
                shared.refuse_foreign_posts();
            }
            *handles == 0
        };
        if is_last {
            self.end(sink);
        } else {
            for packet in self.ready.drain(..) {
                shared.pass(packet);
            }
        }
    }

    /// Cancels everything, takes every last completion, closes every socket.
    fn end<S: Sink>(&mut self, sink: &mut S) {
        let shared = self.shared.clone();
        for record in shared.records.iter() {
            if record.outstanding_kind().is_some() {
                // SAFETY: an operation of it is outstanding, and this is the last handle.
                let record = unsafe { record.in_use() };
                KINDS.iter().for_each(|kind| record.ask_to_end(*kind, CANCELLED));
            }
        }
        let deadline = Instant::now() + LAST_COMPLETIONS_TIMEOUT;
        let mut is_over = true;
        for record in shared.records.iter() {
            if self.end_record(record, deadline, sink) {
                // SAFETY: nothing of it is outstanding, and this is the last handle.
                drop(unsafe { record.vacate() });
            } else {
                is_over = false;
            }
        }
        if !is_over {
            // The wait was in vain, and the OS may still touch what they own (invariant 7).
            std::mem::forget(shared);
        }
    }

    /// Takes completions until nothing of the record is outstanding. False: they did not come.
    fn end_record<S: Sink>(&mut self, record: &Record, deadline: Instant, sink: &mut S) -> bool {
        while record.outstanding_kind().is_some() {
            if self.turn(Deadline(Some(deadline)), sink).is_err() || deadline <= Instant::now() {
                return false;
            }
        }
        true
    }
}

impl CompletionPort for IocpPort {
    const SHARED: bool = true;

    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        let refused = |refused: Refused<_>| Refused {
            given_back: Socket::Os(refused.given_back),
            error: refused.error,
        };
        self.shared.register(socket.into_os(), token).map_err(refused)
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        // SAFETY: the contract: the caller owns the registration, and no thread uses it from here on.
        unsafe { self.shared.deregister(registration) }.into()
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        // SAFETY: the contract: a registration that is posted for has not been deregistered, and is not
        // during the call.
        unsafe { self.shared.post(registration, operation, &mut self.ready) }
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        // SAFETY: as for `post`.
        unsafe { self.shared.cancel(registration, kind) };
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        // SAFETY: as for `post`.
        unsafe { self.shared.shutdown(registration, how) };
    }

    fn has_unread(&self, registration: Registration) -> bool {
        // SAFETY: as for `post`.
        unsafe { self.shared.in_use(registration) }.has_unread()
    }

    /// Windows does not report when a peer last took something.
    fn stalled_for(&self, _: Registration) -> Option<Duration> {
        None
    }

    fn unacknowledged_bytes(&self, _: Registration) -> Option<usize> {
        None
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        let deadline = Deadline::after(timeout);
        // The OS may return slightly early, and a packet may have no meaning.
        while !self.turn(deadline, sink)? && !deadline.has_passed() {}
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.shared.waker.clone()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        Some(Anywhere::Posts(self.shared.clone()))
    }

    fn close<S: Sink>(mut self, sink: &mut S) {
        self.leave(sink);
    }
}

impl Drop for IocpPort {
    fn drop(&mut self) {
        self.leave(&mut |_: Completion<'_>| {});
    }
}

/// When a wait ends. `None`: never by itself.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        // A time that is too far away to be represented means never.
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// In milliseconds, rounded up: a shorter sleep would end before anything is due.
    fn left_ms(self) -> u32 {
        let Some(deadline) = self.0 else {
            return u32::MAX;
        };
        let left_us = deadline.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000);
        u32::try_from(left_us.div_ceil(1_000)).unwrap_or(u32::MAX)
    }

    fn has_passed(self) -> bool {
        self.0.is_some_and(|deadline| deadline <= Instant::now())
    }
}
