//! The ways to send. Each takes a message for a session from any thread.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use wharf::{
    Backend, Backpressure, Framing, Handle, Handler, Options, SendError, Server, Session, SessionId,
};

pub const MESSAGE_BYTES: usize = 64;
pub type Message = [u8; MESSAGE_BYTES];

pub trait Way: Sync {
    fn send(&self, session: usize, message: &Message);
    /// Waits until all of so many messages have left; says in how many send operations.
    fn finish(self: Box<Self>, messages: u64) -> u64;
}

/// A way by its name, its sessions standing. `listening` is called when peers may come.
pub fn named(name: &str, sessions: usize, listening: impl FnOnce(SocketAddr)) -> Box<dyn Way> {
    match name {
        "call" => {
            Box::new(ByCalls(accept(sessions, listening).into_iter().map(Mutex::new).collect()))
        }
        "operation" => Box::new(ByOperations::new(accept(sessions, listening))),
        "wharf-uring" => Box::new(ByWharf::new(Backend::Uring, sessions, listening)),
        "wharf-readiness" => Box::new(ByWharf::new(Backend::Readiness, sessions, listening)),
        _ => panic!("no way is called {name}"),
    }
}

fn accept(sessions: usize, listening: impl FnOnce(SocketAddr)) -> Vec<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listening(listener.local_addr().expect("an address"));
    let accepted = (0..sessions).map(|_| {
        let stream = listener.accept().expect("a peer").0;
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
    });
    accepted.collect()
}

/// The fault: whoever has a message calls `send`, and waits if the socket is full. The lock keeps a
/// message whole when several threads send to one session.
struct ByCalls(Vec<Mutex<TcpStream>>);

impl Way for ByCalls {
    fn send(&self, session: usize, message: &Message) {
        let mut stream = self.0[session].lock().expect("nobody panics with it");
        stream.write_all(message).expect("the peer is there");
    }

    fn finish(self: Box<Self>, messages: u64) -> u64 {
        messages
    }
}

/// The same on io_uring: a queue, and a thread with a ring that posts one send operation for each
/// message, one at a time for each session, as many sessions at once as there are.
struct ByOperations {
    queue: SyncSender<(usize, Message)>,
    thread: JoinHandle<u64>,
}

impl ByOperations {
    fn new(streams: Vec<TcpStream>) -> Self {
        let (queue, queued) = sync_channel(4_096);
        ByOperations { queue, thread: thread::spawn(move || post_each(&streams, &queued)) }
    }
}

impl Way for ByOperations {
    fn send(&self, session: usize, message: &Message) {
        self.queue.send((session, *message)).expect("the thread with the ring");
    }

    fn finish(self: Box<Self>, _messages: u64) -> u64 {
        drop(self.queue);
        self.thread.join().expect("the thread with the ring")
    }
}

fn post_each(streams: &[TcpStream], queued: &Receiver<(usize, Message)>) -> u64 {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(256)
        .unwrap_or_else(|error| instruments::not_here(&format!("no io_uring: {error}")));
    let mut waiting: Vec<VecDeque<Message>> = streams.iter().map(|_| VecDeque::new()).collect();
    let mut outstanding: Vec<Option<Box<Message>>> = streams.iter().map(|_| None).collect();
    let (mut operations, mut outstanding_count, mut goes_on) = (0, 0, true);
    let mut begins = Vec::new();
    while goes_on || outstanding_count > 0 || !begins.is_empty() {
        // With nothing to do for the ring the queue is waited for, else the ring.
        let is_idle = goes_on && outstanding_count == 0 && begins.is_empty();
        let mut next = if is_idle { queued.recv().ok() } else { None };
        for _ in 0..4_096 {
            let (session, message) = match next.take().map_or_else(|| queued.try_recv(), Ok) {
                Ok(queued) => queued,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    goes_on = false;
                    break;
                }
            };
            waiting[session].push_back(message);
            begins.push(session);
        }
        for session in begins.drain(..) {
            if outstanding[session].is_some() {
                continue;
            }
            let Some(message) = waiting[session].pop_front() else { continue };
            let message = outstanding[session].insert(Box::new(message));
            let descriptor = types::Fd(streams[session].as_raw_fd());
            let send = opcode::Send::new(descriptor, message.as_ptr(), MESSAGE_BYTES as u32)
                .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
                .user_data(session as u64);
            // SAFETY: the message stays where it is until its completion has been taken. There is
            // room, for each session has one operation at most.
            unsafe { ring.submission().push(&send) }.expect("there is room");
            operations += 1;
            outstanding_count += 1;
        }
        if outstanding_count == 0 {
            continue;
        }
        ring.submit_and_wait(1).expect("a completion");
        for completion in ring.completion() {
            assert_eq!(completion.result(), MESSAGE_BYTES as i32, "sent whole");
            let session = completion.user_data() as usize;
            outstanding[session] = None;
            outstanding_count -= 1;
            begins.push(session);
        }
    }
    operations
}

/// wharf: a bounded send queue for each session, all that waits in one send.
struct ByWharf {
    server: Server,
    ids: Vec<SessionId>,
}

struct Tells(Mutex<SyncSender<SessionId>>);

impl Handler for Tells {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.lock().expect("nobody panics with it").send(session.id()).expect("who waits for it");
    }

    fn received(&self, _session: &Session, _state: &mut (), _bytes: &[u8]) {}
}

impl ByWharf {
    fn new(backend: Backend, sessions: usize, listening: impl FnOnce(SocketAddr)) -> Self {
        let (tell, told) = sync_channel(sessions);
        let options = Options::default().workers(1).backend(backend).with(|options| {
// A full queue refuses, and the sender tries again.
options.receiving.backpressure = Backpressure::PauseReceive;
});
        let builder = Server::builder().listen("127.0.0.1:0").framing(Framing::raw());
        let server = builder.options(options).start(Tells(Mutex::new(tell))).expect("a server");
        listening(server.addresses()[0]);
        let ids = told.iter().take(sessions).collect();
        ByWharf { server, ids }
    }
}

/// Sends, and waits a little whenever the queue is full.
pub fn send_or_wait(handle: &Handle, id: SessionId, frame: &[u8]) {
    loop {
        match handle.try_send(id, frame) {
            Ok(()) => return,
            Err(SendError::Full { .. }) => thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Way for ByWharf {
    fn send(&self, session: usize, message: &Message) {
        send_or_wait(&self.server.handle(), self.ids[session], message);
    }

    fn finish(self: Box<Self>, messages: u64) -> u64 {
        loop {
            let stats = self.server.handle().stats();
            if stats.sent_frames == messages {
                return stats.sends;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
