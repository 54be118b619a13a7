//! Several threads, one session, frames larger than the socket's buffer: who keeps a frame whole?

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use instruments::connection;
use wharf::{Backpressure, Framing, Handler, Options, Server, Session, SessionId};

use crate::ways::send_or_wait;

const THREADS: u8 = 4;
const FRAME_BYTES: usize = 256 * 1024;

/// Each frame is of its thread's own byte throughout. Reads them all; the frames that are of several.
fn read_frames(mut peer: TcpStream, frames: usize) -> usize {
    let mut frame = vec![0; FRAME_BYTES];
    let mut torn = 0;
    for _ in 0..frames {
        peer.read_exact(&mut frame).expect("every byte comes");
        torn += usize::from(frame.iter().any(|byte| *byte != frame[0]));
    }
    torn
}

fn from_threads(frames_each: usize, send: impl Fn(&[u8]) + Sync) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let send = &send;
            scope.spawn(move || {
                let frame = vec![b'a' + thread; FRAME_BYTES];
                (0..frames_each).for_each(|_| send(&frame));
            });
        }
    });
}

/// Each thread writes to the socket itself, as often as it takes.
pub fn by_calls(frames_each: usize) -> usize {
    let (socket, peer) = connection();
    let frames = frames_each * usize::from(THREADS);
    let reads = thread::spawn(move || read_frames(peer, frames));
    from_threads(frames_each, |frame| (&socket).write_all(frame).expect("the peer is there"));
    reads.join().expect("the peer")
}

struct Tells(Mutex<SyncSender<SessionId>>);

impl Handler for Tells {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.lock().expect("nobody panics with it").send(session.id()).expect("who waits for it");
    }

    fn received(&self, _session: &Session, _state: &mut (), _bytes: &[u8]) {}
}

/// Each thread gives its frame to the session's send queue, whole.
pub fn by_wharf(frames_each: usize) -> usize {
    let (tell, told) = sync_channel(1);
    let options = Options::default().workers(1).with(|options| {
options.sending.queue_bytes_max = 4 * FRAME_BYTES;
options.receiving.backpressure = Backpressure::PauseReceive;
});
    let builder = Server::builder().listen("127.0.0.1:0").framing(Framing::raw());
    let server = builder.options(options).start(Tells(Mutex::new(tell))).expect("a server");
    let peer = TcpStream::connect(server.addresses()[0]).expect("a peer");
    let id = told.recv().expect("a session");
    let frames = frames_each * usize::from(THREADS);
    let reads = thread::spawn(move || read_frames(peer, frames));
    let handle = server.handle();
    from_threads(frames_each, |frame| send_or_wait(&handle, id, frame));
    reads.join().expect("the peer")
}
