//! The port over a ring.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use socket2::SockAddr;

use super::buffers::{BufferRing, Group, LARGE_BYTES, LARGE_COUNT};
use super::record::{Ends, Record, UserData, bit};
use super::wake::WakeEvent;
use crate::port::descriptors::Descriptors;
use crate::port::socket::{has_unread, stalled_for, unacknowledged_bytes};
use crate::port::{
    Accepted, Anywhere, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome,
    Refused, Registration, Sink, Socket, Token, Waker,
};

/// The most pieces in one send operation. The rest leaves with the next.
const PIECES_MAX: usize = 16;
/// How long the port's end waits for the last completions before it leaks what they own.
const LAST_COMPLETIONS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the kernel may refuse every `io_uring_enter` before the port fails, and the pause between two
/// tries.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// What the small buffers' memory depends on.
const BUFFERS_OPTION: &str = "uring.receive_buffers or uring.receive_buffer_bytes";

/// A ring with the flags that the port needs.
pub(super) fn build_ring(submission_entries: u32, completion_entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(completion_entries)
        .build(submission_entries)
}

/// The sizes of a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UringSizes {
    pub(crate) submission_entries: u32,
    pub(crate) completion_entries: u32,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: usize,
}

impl UringSizes {
    /// Queue sizes for 10,000 sessions per worker: 64 KiB and 128 KiB of memory.
    pub(crate) fn new(buffers: u16, buffer_bytes: usize) -> Self {
        UringSizes { submission_entries: 1024, completion_entries: 8192, buffers, buffer_bytes }
    }
}

/// What could not be put into the submission queue yet.
#[derive(Debug)]
pub(super) enum Request {
    Operation(u32, OperationKind, Option<Box<SockAddr>>),
    Cancel(UserData),
    AwaitWakes,
}

/// What a gathered operation points to until the kernel copies it, when it takes the operation from the
/// submission queue (`IORING_FEAT_SUBMIT_STABLE`, required at start).
struct Gather {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES_MAX],
    address: Option<Box<SockAddr>>,
}

impl Gather {
    fn new() -> Box<Self> {
        // SAFETY: all-zero is a valid msghdr and iovec: null pointers with zero lengths.
        let (header, pieces) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Gather { header, pieces, address: None })
    }
}

pub(crate) struct UringPort {
    descriptors: Descriptors,
    ring: IoUring,
    pub(super) records: Vec<Record>,
    free_records: Vec<u32>,
    deferred: VecDeque<Request>,
    #[expect(clippy::vec_box, reason = "the kernel has their addresses while the vector grows")]
    gathers: Vec<Box<Gather>>,
    gathers_used: usize,
    buffers: BufferRing,
    /// `None` if the small ones are as large.
    large_buffers: Option<BufferRing>,
    wake: Arc<WakeEvent>,
    wake_outstanding: bool,
    /// Operations accepted and not completed.
    pub(super) outstanding: usize,
    pub(super) ending: bool,
    /// The completions of a batch: (user data, result, flags).
    batch: Vec<(u64, i32, u32)>,
    stale_completions: u64,
    last_completions_timeout: Duration,
    /// Since when the kernel refuses every `io_uring_enter`.
    refused_since: Option<Instant>,
}

impl UringPort {
    pub(crate) fn new(sizes: UringSizes) -> io::Result<Self> {
        let UringSizes { submission_entries, completion_entries, buffers, buffer_bytes } = sizes;
        // The buffers before the ring, so that the ring ends first on every path.
        let mut buffers = BufferRing::new(buffers, buffer_bytes, BUFFERS_OPTION)?;
        let make_large = || BufferRing::new(LARGE_COUNT, LARGE_BYTES, "workers");
        let mut large_buffers = (buffer_bytes < LARGE_BYTES).then(make_large).transpose()?;
        let ring = build_ring(submission_entries, completion_entries)?;
        // SAFETY: see above. The ring is also the earlier field of the port, and `end_once` either takes its
        // last completion or leaks the buffers.
        unsafe {
            buffers.register(&ring, Group::Small)?;
            if let Some(large) = &mut large_buffers {
                large.register(&ring, Group::Large)?;
            }
        }
        let mut port = UringPort {
            descriptors: Descriptors::default(),
            ring,
            records: Vec::new(),
            free_records: Vec::new(),
            deferred: VecDeque::new(),
            gathers: Vec::new(),
            gathers_used: 0,
            buffers,
            large_buffers,
            wake: Arc::new(WakeEvent::new()?),
            wake_outstanding: false,
            outstanding: 0,
            ending: false,
            batch: Vec::new(),
            stale_completions: 0,
            last_completions_timeout: LAST_COMPLETIONS_TIMEOUT,
            refused_since: None,
        };
        port.request(Request::AwaitWakes);
        Ok(port)
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        UringPort::new(UringSizes::new(256, 16 * 1024)).unwrap()
    }

    #[cfg(test)]
    pub(crate) fn for_test_small() -> Self {
        let (submission_entries, completion_entries) = (8, 16);
        let (buffers, buffer_bytes) = (4, 4096);
        let sizes = UringSizes { submission_entries, completion_entries, buffers, buffer_bytes };
        UringPort::new(sizes).unwrap()
    }

    /// Makes the kernel refuse every `io_uring_enter` from now on, by replacing the ring's descriptor.
    #[cfg(test)]
    pub(crate) fn lose_ring(&self) {
        let other = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: both are open. The ring's owner later closes the replacement instead.
        let lost = unsafe { libc::dup2(other.as_raw_fd(), self.ring.as_raw_fd()) };
        assert_ne!(lost, -1, "{}", io::Error::last_os_error());
    }

    fn record(&self, registration: Registration) -> &Record {
        let record = &self.records[registration.0 as usize];
        assert!(record.socket.is_some(), "a registration was used after its end");
        record
    }

    fn os_socket(&self, registration: Registration) -> &socket2::Socket {
        let socket = self.records[registration.0 as usize].socket.as_ref();
        socket.expect("a registration was used after its end").os()
    }

    /// Puts a request into the submission queue or, if the kernel takes no more, keeps it in order.
    pub(super) fn request(&mut self, request: Request) {
        if self.deferred.is_empty() && self.room_for_one() {
            self.push(request);
        } else {
            self.deferred.push_back(request);
        }
    }

    #[inline]
    fn room_for_one(&mut self) -> bool {
        if !self.ring.submission().is_full() {
            return true;
        }
        // After an error (a full completion queue, no memory) the queue is unchanged: try again later.
        let _ = self.ring.submit();
        self.recycle_gathers();
        !self.ring.submission().is_full()
    }

    fn push_deferred(&mut self) {
        while !self.deferred.is_empty() && self.room_for_one() {
            if let Some(request) = self.deferred.pop_front() {
                self.push(request);
            }
        }
    }

    fn recycle_gathers(&mut self) {
        if self.gathers_used > 0 && self.ring.submission().is_empty() {
            self.gathers_used = 0;
        }
    }

    fn gather(&mut self) -> &mut Gather {
        if self.gathers_used == self.gathers.len() {
            self.gathers.push(Gather::new());
        }
        self.gathers_used += 1;
        &mut self.gathers[self.gathers_used - 1]
    }

    fn push(&mut self, request: Request) {
        let entry = match request {
            Request::Operation(index, kind, address) => self.operation_entry(index, kind, address),
            Request::Cancel(target) => {
                opcode::AsyncCancel::new(target.0).build().user_data(UserData::CANCEL.0)
            }
            Request::AwaitWakes => {
                self.wake_outstanding = true;
                opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32)
                    .multi(true)
                    .build()
                    .user_data(UserData::WAKE.0)
            }
        };
        // SAFETY: what the entry points to stays valid until its completion (invariant 7). Sockets, batches
        // and rings stay in the record, and neither `deregister` nor Drop ends a record with an operation
        // outstanding. The buffer rings end with the port, after its last completion. Message headers, iovecs
        // and addresses must live only until the entry is submitted, and `gathers` are reused only after
        // that.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "there was room for one entry");
    }

    fn operation_entry(
        &mut self,
        index: u32,
        kind: OperationKind,
        address: Option<Box<SockAddr>>,
    ) -> squeue::Entry {
        let record = &mut self.records[index as usize];
        let descriptor = types::Fd(record.descriptor());
        let user_data = UserData::new(index, kind, record.generation).0;
        let entry = match kind {
            OperationKind::Accept if record.polls => {
                opcode::PollAdd::new(descriptor, libc::POLLIN as u32).build()
            }
            OperationKind::Accept => {
                opcode::AcceptMulti::new(descriptor).flags(libc::SOCK_CLOEXEC).build()
            }
            OperationKind::Connect => {
                let gather = self.gather();
                gather.address = address;
                let address = gather.address.as_ref().map(|a| (a.as_ptr().cast(), a.len()));
                let (pointer, length) = address.unwrap_or((std::ptr::null(), 0));
                opcode::Connect::new(descriptor, pointer, length).build()
            }
            OperationKind::Receive => match &mut record.receiving {
                None => {
                    record.draws_from = record.choice.group();
                    let group = record.draws_from as u16;
                    if record.receives_on {
                        opcode::RecvMulti::new(descriptor, group).build()
                    } else {
                        opcode::Recv::new(descriptor, std::ptr::null_mut(), 0)
                            .buf_group(group)
                            .build()
                            .flags(squeue::Flags::BUFFER_SELECT)
                    }
                }
                Some(ring) => {
                    let segments = ring.free_segments().map(|segment| libc::iovec {
                        iov_base: segment.as_mut_ptr().cast(),
                        iov_len: segment.len(),
                    });
                    let count = if segments[1].iov_len == 0 { 1 } else { 2 };
                    let gather = self.gather();
                    gather.pieces[..2].copy_from_slice(&segments);
                    opcode::Readv::new(descriptor, gather.pieces.as_ptr(), count).build()
                }
            },
            OperationKind::Send => {
                let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                let count = record.sending.as_ref().map_or(0, |batch| batch.gather(&mut slices));
                if count == 1 {
                    let length = u32::try_from(slices[0].len()).unwrap_or(u32::MAX);
                    opcode::Send::new(descriptor, slices[0].as_ptr(), length)
                        .flags(libc::MSG_NOSIGNAL)
                        .build()
                } else {
                    let pieces = slices.map(|slice| libc::iovec {
                        iov_base: slice.as_ptr().cast_mut().cast(),
                        iov_len: slice.len(),
                    });
                    let gather = self.gather();
                    gather.pieces = pieces;
                    gather.header.msg_iov = gather.pieces.as_mut_ptr();
                    gather.header.msg_iovlen = count;
                    opcode::SendMsg::new(descriptor, &gather.header)
                        .flags(libc::MSG_NOSIGNAL as u32)
                        .build()
                }
            }
        };
        entry.user_data(user_data)
    }

    /// One `io_uring_enter`: submits what was posted, collects completions, waits for one.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.push_deferred();
        let timeout = if self.deferred.is_empty() { timeout } else { Some(Duration::ZERO) };
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        self.recycle_gathers();
        let Err(error) = entered else {
            self.refused_since = None;
            return Ok(());
        };
        match error.raw_os_error() {
            // The time-out, or a signal. The next turn continues.
            Some(libc::ETIME | libc::EINTR) => {
                self.refused_since = None;
                Ok(())
            }
            // The completion queue must be emptied first, or the kernel lacks memory.
            Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => self.refused(error),
            _ => Err(error),
        }
    }

    /// The kernel refused an enter for a reason that may pass. The next turn tries again, but not forever: a
    /// worker that can neither submit nor complete serves no session.
    #[cold]
    fn refused(&mut self, error: io::Error) -> io::Result<()> {
        match self.refused_since {
            // No pause: the reason may be gone already.
            None => self.refused_since = Some(Instant::now()),
            Some(since) if since.elapsed() > REFUSED_TIMEOUT => return Err(error),
            Some(_) => std::thread::sleep(REFUSED_PAUSE),
        }
        Ok(())
    }

    fn reap<S: Sink>(&mut self, sink: &mut S) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(
            self.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())),
        );
        for (user_data, result, flags) in batch.drain(..) {
            self.complete(UserData(user_data), result, flags, sink);
        }
        self.buffers.publish();
        if let Some(large) = &mut self.large_buffers {
            large.publish();
        }
        self.batch = batch;
    }

    fn complete<S: Sink>(&mut self, user_data: UserData, result: i32, flags: u32, sink: &mut S) {
        if user_data == UserData::CANCEL {
            return;
        }
        if user_data == UserData::WAKE {
            if !io_uring::cqueue::more(flags) {
                self.wake_outstanding = false;
                if !self.ending {
                    self.request(Request::AwaitWakes);
                }
            }
            return;
        }
        let kind = user_data.kind();
        let more = io_uring::cqueue::more(flags);
        let Some(record) = self.records.get_mut(user_data.index() as usize) else {
            self.stale_completions += 1;
            return;
        };
        if record.generation != user_data.generation() || !record.is_outstanding(kind) {
            self.stale_completions += 1;
            debug_assert!(false, "invariant 5: a completion came for an operation that had ended");
            return;
        }
        if !more {
            record.outstanding &= !bit(kind);
            self.outstanding -= 1;
        }
        let token = record.token;
        let count = count_or_failure(result);
        if kind == OperationKind::Receive && record.receiving.is_none() {
            return self.received(user_data.index(), count, flags, sink);
        }
        if kind == OperationKind::Accept && record.polls {
            return self.polled(user_data.index(), count, sink);
        }
        let outcome = match kind {
            OperationKind::Accept => Outcome::Accepted(count.map(|descriptor| {
                // SAFETY: the kernel has just created this descriptor for us; it has no other owner.
                let socket = unsafe { socket2::Socket::from_raw_fd(descriptor as RawFd) };
                Accepted { socket: socket.into(), peer_address: None }
            })),
            OperationKind::Connect => {
                let own_address = || record.socket.as_ref().and_then(Socket::local_address);
                Outcome::Connected(count.map(|_| own_address()))
            }
            OperationKind::Send => {
                let Some(mut batch) = record.sending.take() else { return };
                if let Ok(count) = count {
                    batch.advance(count);
                }
                Outcome::Sent(batch, count)
            }
            OperationKind::Receive => {
                let Some(mut ring) = record.receiving.take() else { return };
                if let Ok(count) = count {
                    ring.filled(count);
                }
                Outcome::ReceivedInto(ring, count)
            }
        };
        sink.take(Completion::new(token, outcome, more));
    }

    /// A receive into a lent buffer has brought something, or has ended.
    fn received<S: Sink>(
        &mut self,
        index: u32,
        result: Result<usize, Failure>,
        flags: u32,
        sink: &mut S,
    ) {
        let more = io_uring::cqueue::more(flags);
        let record = &mut self.records[index as usize];
        let changes_group = record.ends == Ends::ToChangeGroup && !more;
        if changes_group && matches!(result, Err(Failure::Cancelled)) {
            // The port itself cancelled it. For the caller the receive continues.
            record.ends = Ends::ByItself;
            record.outstanding |= bit(OperationKind::Receive);
            self.outstanding += 1;
            return self.request(Request::Operation(index, OperationKind::Receive, None));
        }
        let (small_bytes, has_large) = (self.buffers.buffer_bytes(), self.large_buffers.is_some());
        let buffers = match &mut self.large_buffers {
            Some(large) if record.draws_from == Group::Large => large,
            _ => &mut self.buffers,
        };
        let (mut cancel, mut may_reply) = (None, matches!(result, Ok(1..)));
        if let Ok(count @ 1..) = result
            && has_large
        {
            record.choice.note(count, small_bytes);
            // A full buffer: more bytes are there already, and one reply to all is cheaper than several.
            may_reply = record.draws_from == Group::Large || count < small_bytes;
            let changes = record.choice.group() != record.draws_from;
            if changes && more && record.ends == Ends::ByItself {
                record.ends = Ends::ToChangeGroup;
                cancel = Some(UserData::new(index, OperationKind::Receive, record.generation));
            }
        }
        let buffer = io_uring::cqueue::buffer_select(flags);
        let outcome = Outcome::Received(match (result, buffer) {
            (Ok(count), Some(buffer)) => Ok(buffers.bytes(buffer, count)),
            (result, _) => result.map(|_| &mut [][..]),
        });
        let direct = may_reply && !record.is_outstanding(OperationKind::Send);
        sink.take(Completion { token: record.token, outcome, more, direct });
        if let Some(buffer) = buffer {
            buffers.give_back(buffer);
        }
        if let Some(cancel) = cancel {
            self.request(Request::Cancel(cancel));
        }
    }

    /// Ends the port, once: takes every last completion, or leaks what they would have returned.
    fn end_once<S: Sink>(&mut self, sink: &mut S) {
        if !self.end(sink) {
            self.leak();
        }
    }

    /// Cancels everything and takes every last completion. False: some did not come.
    fn end<S: Sink>(&mut self, sink: &mut S) -> bool {
        self.ending = true;
        for index in 0..self.records.len() as u32 {
            for kind in [
                OperationKind::Accept,
                OperationKind::Connect,
                OperationKind::Receive,
                OperationKind::Send,
            ] {
                self.cancel(Registration(index), kind);
            }
        }
        if self.wake_outstanding {
            self.request(Request::Cancel(UserData::WAKE));
        }
        let started = Instant::now();
        while self.outstanding > 0 || self.wake_outstanding {
            if self.enter(Some(Duration::from_millis(100))).is_err()
                || started.elapsed() > self.last_completions_timeout
            {
                return false;
            }
            self.reap(sink);
        }
        true
    }

    /// Leaks what the kernel may still touch (invariant 7), after waiting in vain. The sockets are closed
    /// nevertheless: outstanding operations hold references to their files.
    fn leak(&mut self) {
        for record in &mut self.records {
            std::mem::forget((record.sending.take(), record.receiving.take()));
            record.outstanding = 0;
        }
        self.buffers.leak();
        if let Some(large) = &mut self.large_buffers {
            large.leak();
        }
        (self.outstanding, self.wake_outstanding) = (0, false);
    }
}

fn count_or_failure(result: i32) -> Result<usize, Failure> {
    match result {
        0.. => Ok(result as usize),
        // EINTR: the kernel may carry out an operation in a thread of its own, where a cancel interrupts it, and
        // so does a signal that stops the process. It had no effect, and may be posted again.
        _ if [-libc::ECANCELED, -libc::EINTR].contains(&result) => Err(Failure::Cancelled),
        _ if result == -libc::ENOBUFS => Err(Failure::BuffersExhausted),
        _ => Err(Failure::Os(io::Error::from_raw_os_error(-result))),
    }
}

impl CompletionPort for UringPort {
    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        let descriptor = socket.os().as_raw_fd();
        let index = match self.free_records.pop() {
            Some(index) => {
                self.records[index as usize].occupy(token, socket);
                index
            }
            None => {
                self.records.push(Record::new(token, socket));
                self.records.len() as u32 - 1
            }
        };
        // SAFETY: the socket stays in its record until `deregister` or the end of the port, which drops
        // `descriptors` first.
        unsafe { self.descriptors.occupy(Registration(index), descriptor) };
        Ok(Registration(index))
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        self.descriptors.vacate(registration);
        let record = &mut self.records[registration.0 as usize];
        assert_eq!(record.outstanding, 0, "invariant 5: an operation is outstanding");
        let socket = record.socket.take();
        record.generation = (record.generation + 1) & ((1 << 30) - 1);
        self.free_records.push(registration.0);
        match socket {
            Some(socket) => socket,
            None => panic!("a registration was ended twice"),
        }
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        let kind = operation.kind();
        assert!(
            !self.record(registration).is_outstanding(kind),
            "invariant 1: a second {kind:?} was posted while one is outstanding"
        );
        let record = &mut self.records[registration.0 as usize];
        let mut address = None;
        match operation {
            Operation::Accept => {
                let listener = record.socket.as_ref();
                // Who shares the socket may change that later; what was seen at first stays.
                record.polls |= listener.is_some_and(|it| it.os().nonblocking().unwrap_or(false));
                record.ends = Ends::ByItself;
            }
            Operation::Receive => (record.receives_on, record.ends) = (true, Ends::ByItself),
            Operation::ReceiveOnce => (record.receives_on, record.ends) = (false, Ends::ByItself),
            Operation::Connect(to) => match to.to_system() {
                Ok(to) => address = Some(Box::new(to)),
                Err(error) => return Err(Refused { given_back: Operation::Connect(to), error }),
            },
            Operation::ReceiveInto(ring) => {
                assert!(ring.free() > 0, "a receive without room would look like the end");
                record.receiving = Some(ring);
            }
            Operation::Send(batch) => record.sending = Some(batch),
        }
        record.outstanding |= bit(kind);
        self.outstanding += 1;
        self.request(Request::Operation(registration.0, kind, address));
        Ok(())
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        let record = &mut self.records[registration.0 as usize];
        if record.is_outstanding(kind) {
            if matches!(kind, OperationKind::Receive | OperationKind::Accept) {
                record.ends = Ends::ByCancel;
            }
            let target = UserData::new(registration.0, kind, record.generation);
            self.request(Request::Cancel(target));
        }
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        if let Some(socket) = &self.record(registration).socket {
            // If the peer has already reset, nothing is left to shut down.
            let _ = socket.os().shutdown(how);
        }
    }

    fn has_unread(&self, registration: Registration) -> bool {
        has_unread(self.os_socket(registration))
    }

    fn stalled_for(&self, registration: Registration) -> Option<Duration> {
        stalled_for(self.os_socket(registration))
    }

    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize> {
        unacknowledged_bytes(self.os_socket(registration))
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        self.enter(timeout)?;
        self.reap(sink);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.wake.clone()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        Some(self.descriptors.anywhere())
    }

    fn close<S: Sink>(mut self, sink: &mut S) {
        self.end_once(sink);
    }
}

impl Drop for UringPort {
    fn drop(&mut self) {
        self.end_once(&mut |_: Completion<'_>| {});
    }
}
