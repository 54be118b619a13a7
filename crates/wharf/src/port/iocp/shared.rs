//! What all handles of a port share: the records, and posting.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use socket2::Socket;

use super::accept::{Accepting, Place};
use super::calls::{self, Started};
use super::error::{error_of, is_shortage};
use super::extension::Extensions;
use super::overlapped::Overlapped;
use super::port::{OsPort, Packet};
use super::record::{InUse, Receiving, Record};
use super::records::Records;
use super::state::{CANCELLED, SHUT, State};
use super::wake::PortWaker;
use crate::buffer::SendBatch;
use crate::port::{Operation, OperationKind, PostAnywhere, Refused, Registration, Token};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};

/// How a completion port is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IocpSizes {
    /// `NumberOfConcurrentThreads`: the workers.
    pub(crate) concurrent_threads: u32,
    /// AcceptEx operations outstanding for each listener.
    pub(crate) accepts_outstanding: u32,
}

/// The most pieces in one send operation. The rest leaves with the next.
const PIECES_MAX: usize = 64;

/// A bit in `foreign_posts`: the port is ending, and accepts no more.
const ENDING: u32 = 1 << 31;

/// The port itself, and everything registered at it.
#[derive(Debug)]
pub(crate) struct SharedPort {
    pub(super) port: Arc<OsPort>,
    pub(super) extensions: Extensions,
    pub(super) records: Records,
    pub(super) waker: Arc<PortWaker>,
    pub(super) handles: Mutex<u32>,
    sizes: IocpSizes,
    /// Posts in progress on threads without a handle, and `ENDING`.
    foreign_posts: AtomicU32,
    /// Packets that the OS had no memory to queue, for the next handle that waits.
    left_over: Mutex<VecDeque<Packet>>,
    has_left_over: AtomicBool,
    pub(super) stale_completions: AtomicU64,
}

/// How a packet that the OS does not queue reaches a handle.
pub(super) enum Way<'a> {
    /// With the next `wait` of the posting handle.
    Ready(&'a mut VecDeque<Packet>),
    /// Through the port.
    Port,
}

impl SharedPort {
    pub(crate) fn new(sizes: IocpSizes) -> io::Result<Arc<Self>> {
        let extensions = Extensions::load()?;
        let port = Arc::new(OsPort::new(sizes.concurrent_threads)?);
        Ok(Arc::new(SharedPort {
            waker: Arc::new(PortWaker::new(port.clone())),
            port,
            extensions,
            records: Records::new(),
            handles: Mutex::new(0),
            sizes,
            foreign_posts: AtomicU32::new(0),
            left_over: Mutex::new(VecDeque::new()),
            has_left_over: AtomicBool::new(false),
            stale_completions: AtomicU64::new(0),
        }))
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Arc<Self> {
        SharedPort::new(IocpSizes { concurrent_threads: 4, accepts_outstanding: 4 }).unwrap()
    }

    pub(super) fn register(
        &self,
        socket: Socket,
        token: Token,
    ) -> Result<Registration, Refused<Socket>> {
        // Non-blocking, for reads into scratch memory. Posted operations are not affected.
        let entered = socket.set_nonblocking(true).and_then(|()| self.port.associate(&socket));
        if let Err(error) = entered {
            return Err(Refused { given_back: socket, error });
        }
        let Some((index, record)) = self.records.occupy() else {
            let error = io::Error::from(io::ErrorKind::OutOfMemory);
            return Err(Refused { given_back: socket, error });
        };
        // SAFETY: the record was vacant, and only this call has it.
        unsafe { record.register(socket, token) };
        Ok(Registration(index))
    }

    /// # Safety
    /// The registration is valid at this port, and no thread uses it from here on.
    pub(super) unsafe fn deregister(&self, registration: Registration) -> Socket {
        // SAFETY: the caller's promise.
        let socket = unsafe { self.record(registration).deregister() };
        self.records.vacate(registration.0);
        socket
    }

    pub(super) fn record(&self, registration: Registration) -> &Record {
        self.records.get(registration.0).expect("the registration was deregistered")
    }

    /// # Safety
    /// The registration is valid at this port, and is not ended while the result is used to access its
    /// socket.
    pub(super) unsafe fn in_use(&self, registration: Registration) -> InUse<'_> {
        // SAFETY: the caller's promise.
        unsafe { self.record(registration).in_use() }
    }

    /// # Safety
    /// The registration is valid at this port, and is not ended before this returns.
    pub(super) unsafe fn post(
        &self,
        registration: Registration,
        operation: Operation,
        ready: &mut VecDeque<Packet>,
    ) -> Result<(), Refused<Operation>> {
        // SAFETY: the caller's promise.
        let record = unsafe { self.in_use(registration) };
        let index = registration.0;
        match operation {
            Operation::Accept => {
                self.post_accept(index, record, ready);
                Ok(())
            }
            Operation::Connect(address) => match address.as_tcp() {
                Some(address) => {
                    self.post_connect(index, record, address, &mut Way::Ready(ready));
                    Ok(())
                }
                None => Err(Refused {
                    given_back: Operation::Connect(address),
                    error: io::ErrorKind::Unsupported.into(),
                }),
            },
            Operation::Receive => self.post_receive(index, record, Receiving::Lent, ready),
            Operation::ReceiveOnce => self.post_receive(index, record, Receiving::LentOnce, ready),
            Operation::ReceiveInto(ring) => {
                assert!(ring.free() > 0, "a receive without room would look like the end");
                self.post_receive(index, record, Receiving::Into(ring), ready)
            }
            Operation::Send(batch) => {
                let posted = self.post_batch(index, record, batch, &mut Way::Ready(ready));
                posted.map_err(|refused| Refused {
                    given_back: Operation::Send(refused.given_back),
                    error: refused.error,
                })
            }
        }
    }

    fn post_accept(&self, index: u32, record: InUse<'_>, ready: &mut VecDeque<Packet>) {
        let accepting = record.accepting(self.sizes.accepts_outstanding);
        // A listener has an address; if not, its first accept will report that.
        let family = record.socket().local_addr().map_or(socket2::Domain::IPV4, |a| a.domain());
        accepting.begin(family);
        for place in &accepting.places {
            self.start_accept(index, record, accepting, place, &mut Way::Ready(ready));
        }
    }

    /// Accepts one more peer. A packet will come in every case.
    pub(super) fn start_accept(
        &self,
        index: u32,
        record: InUse<'_>,
        accepting: &Accepting,
        place: &Place,
        way: &mut Way<'_>,
    ) {
        let socket = record.raw_socket();
        // SAFETY: the place is at rest and only this call has it: by `begin`, or by having taken its packet
        // (invariant 2).
        let started = unsafe {
            place.overlapped.prepare(index, record.generation());
            place.accept(&self.extensions, socket, accepting.family())
        };
        match started {
            Ok(Started::Outstanding) => {
                accepting.state.cancel_if_asked(|| place.overlapped.cancel(socket))
            }
            Ok(Started::Done) => {}
            Err(code) => self.deliver_failure(&place.overlapped, code, way),
        }
    }

    /// A connect that cannot even begin counts as failed, so a packet will come in every case.
    fn post_connect(&self, index: u32, record: InUse<'_>, address: SocketAddr, way: &mut Way<'_>) {
        let connect = &record.connect;
        let socket = record.raw_socket();
        connect.state.begin(OperationKind::Connect);
        // SAFETY: begun by this call, which has the operation exclusively until the OS does.
        let started = unsafe {
            connect.overlapped.prepare(index, record.generation());
            calls::bind_for_connect(record.socket(), &address);
            calls::connect(&self.extensions, socket, &address.into(), &connect.overlapped)
        };
        match started {
            Ok(Started::Outstanding) => {
                connect.state.cancel_if_asked(|| connect.overlapped.cancel(socket));
            }
            Ok(Started::Done) => {}
            Err(code) => self.deliver_failure(&connect.overlapped, code, way),
        }
    }

    fn post_receive(
        &self,
        index: u32,
        record: InUse<'_>,
        receiving: Receiving,
        ready: &mut VecDeque<Packet>,
    ) -> Result<(), Refused<Operation>> {
        let receive = &record.receive;
        receive.state.begin(OperationKind::Receive);
        // SAFETY: begun by this call, which has the operation exclusively until the OS does.
        unsafe { *receive.payload() = Some(receiving) };
        let Err(code) = self.start_receive(index, record, &mut Way::Ready(ready)) else {
            return Ok(());
        };
        // SAFETY: the OS refused it, so this call still has it.
        let receiving = unsafe { receive.payload().take() };
        receive.state.end();
        let given_back = match receiving {
            Some(Receiving::Into(ring)) => Operation::ReceiveInto(ring),
            Some(Receiving::LentOnce) => Operation::ReceiveOnce,
            Some(Receiving::Lent) | None => Operation::Receive,
        };
        Err(Refused { given_back, error: error_of(code) })
    }

    /// Passes the caller's receive to the OS. An error returns it.
    pub(super) fn start_receive(
        &self,
        index: u32,
        record: InUse<'_>,
        way: &mut Way<'_>,
    ) -> Result<(), u32> {
        let receive = &record.receive;
        let socket = record.raw_socket();
        // SAFETY: the caller has the operation. A ring lies in it, so it stays in place and is not touched
        // until its packet was taken (invariants 2 and 7). Other receives pass no memory to the OS: they ask
        // for zero bytes.
        let started = unsafe {
            receive.overlapped.prepare(index, record.generation());
            match receive.payload() {
                Some(Receiving::Into(ring)) => {
                    let [first, second] = ring.free_segments();
                    let count = if second.is_empty() { 1 } else { 2 };
                    let mut buffers = [IoSliceMut::new(first), IoSliceMut::new(second)];
                    calls::receive(socket, &mut buffers[..count], &receive.overlapped)
                }
                _ => {
                    let mut none = [IoSliceMut::new(&mut [])];
                    calls::receive(socket, &mut none, &receive.overlapped)
                }
            }
        };
        self.settle(&receive.overlapped, &receive.state, socket, started, way)
    }

    fn post_batch(
        &self,
        index: u32,
        record: InUse<'_>,
        batch: Box<SendBatch>,
        way: &mut Way<'_>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        let send = &record.send;
        let is_empty = batch.bytes() == 0;
        send.state.begin(OperationKind::Send);
        // SAFETY: begun by this call, which has the operation exclusively until the OS does.
        let payload = unsafe { send.payload() };
        let batch = &**payload.insert(batch);
        // SAFETY: as above. The batch lies in the operation, so it stays in place and unchanged until its
        // packet was taken (invariants 2 and 7).
        let started = unsafe {
            send.overlapped.prepare(index, record.generation());
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = batch.gather(&mut slices);
            if is_empty {
                // Some systems do not send zero pieces. So it is complete, and the OS never had it.
                self.deliver(send.overlapped.packet(0), way);
                return Ok(());
            }
            let socket = record.raw_socket();
            let started = calls::send(socket, &slices[..count], &send.overlapped);
            self.settle(&send.overlapped, &send.state, socket, started, way)
        };
        let Err(code) = started else {
            return Ok(());
        };
        // SAFETY: the OS refused it, so this call still has it.
        let batch = unsafe { send.payload().take() };
        send.state.end();
        Err(Refused { given_back: batch.unwrap_or_default(), error: error_of(code) })
    }

    /// What the call's answer means. After a success the operation no longer belongs to this call: another
    /// thread may have taken and processed its packet before this runs.
    ///
    /// If the OS lacks something (usually memory), the post is refused and may be tried again. Everything
    /// else concerns the socket or its peer, and is reported by a completion, as at any port.
    fn settle(
        &self,
        overlapped: &Overlapped,
        state: &State,
        socket: usize,
        started: Result<Started, u32>,
        way: &mut Way<'_>,
    ) -> Result<(), u32> {
        match started {
            Ok(Started::Outstanding) => state.cancel_if_asked(|| overlapped.cancel(socket)),
            Ok(Started::Done) => {}
            Err(code) if is_shortage(code) => return Err(code),
            Err(code) => self.deliver_failure(overlapped, code, way),
        }
        Ok(())
    }

    fn deliver_failure(&self, overlapped: &Overlapped, code: u32, way: &mut Way<'_>) {
        overlapped.tell(code);
        self.deliver(overlapped.packet(0), way);
    }

    fn deliver(&self, packet: Packet, way: &mut Way<'_>) {
        match way {
            Way::Ready(ready) => ready.push_back(packet),
            Way::Port => self.pass(packet),
        }
    }

    /// Sends a packet through the port. If the OS has no memory for it, it waits for the next `wait`, or for
    /// a sleeping handle to check ([`SLEEP_MS_MAX`](super::handle::SLEEP_MS_MAX)).
    pub(super) fn pass(&self, packet: Packet) {
        if self.port.post(packet).is_err() {
            self.leave_over(packet);
        }
    }

    pub(super) fn leave_over(&self, packet: Packet) {
        self.left_over.lock().push_back(packet);
        self.has_left_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_left_over(&self, ready: &mut VecDeque<Packet>) {
        if self.has_left_over.load(Ordering::Relaxed) {
            let mut left_over = self.left_over.lock();
            self.has_left_over.store(false, Ordering::SeqCst);
            ready.append(&mut left_over);
        }
    }

    /// # Safety
    /// As for [`post`](Self::post).
    pub(super) unsafe fn cancel(&self, registration: Registration, kind: OperationKind) {
        // SAFETY: the caller's promise.
        unsafe { self.in_use(registration) }.ask_to_end(kind, CANCELLED);
    }

    /// On Windows a shutdown alone does not end what is outstanding.
    ///
    /// # Safety
    /// As for [`post`](Self::post).
    pub(super) unsafe fn shutdown(&self, registration: Registration, how: Shutdown) {
        // SAFETY: the caller's promise.
        let record = unsafe { self.in_use(registration) };
        // If the peer has already reset, nothing is left to shut down.
        let _ = record.socket().shutdown(how);
        let (reads, writes) = (how != Shutdown::Write, how != Shutdown::Read);
        for (kind, ends) in [
            (OperationKind::Accept, reads),
            (OperationKind::Connect, true),
            (OperationKind::Receive, reads),
            (OperationKind::Send, writes),
        ] {
            if ends {
                record.ask_to_end(kind, SHUT);
            }
        }
    }

    /// Refuses posts from threads without a handle from here on. Returns when none is in progress.
    pub(super) fn refuse_foreign_posts(&self) {
        self.foreign_posts.fetch_or(ENDING, Ordering::SeqCst);
        while self.foreign_posts.load(Ordering::SeqCst) != ENDING {
            std::thread::yield_now();
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.foreign_posts.load(Ordering::SeqCst) & ENDING != 0
    }
}

impl PostAnywhere for SharedPort {
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        let Some(_at_work) = ForeignPost::begin(&self.foreign_posts) else {
            let error = io::Error::from(io::ErrorKind::NotConnected);
            return Err(Refused { given_back: batch, error });
        };
        // SAFETY: the contract: the posting thread holds a count on the session, so its registration stays
        // valid.
        let record = unsafe { self.in_use(registration) };
        self.post_batch(registration.0, record, batch, &mut Way::Port)
    }
}

/// A post in progress on a thread without a handle. The port does not end meanwhile.
struct ForeignPost<'a>(&'a AtomicU32);

impl<'a> ForeignPost<'a> {
    fn begin(posts: &'a AtomicU32) -> Option<Self> {
        let before = posts.fetch_add(1, Ordering::SeqCst);
        let post = ForeignPost(posts);
        (before & ENDING == 0).then_some(post)
    }
}

impl Drop for ForeignPost<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
