//! The fault: a server whose sessions are known by their descriptors.

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::peers::Seen;
use crate::{ANSWER_AFTER, Answers, NAME_BYTES};

struct Owed {
    due: Instant,
    to: RawFd,
    name: [u8; NAME_BYTES],
}

/// Serves until the peers have ended.
pub fn serve(run_peers: fn(SocketAddr) -> Seen) -> (Answers, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("a mode");
    let address = listener.local_addr().expect("an address");
    let ends = Arc::new(AtomicBool::new(false));
    let (owe, owed) = channel();
    let sender = thread::spawn(move || send_late(&owed));
    let server = thread::spawn({
        let ends = ends.clone();
        move || accept_and_read(&listener, &owe, &ends)
    });
    let seen = run_peers(address);
    ends.store(true, Ordering::Relaxed);
    server.join().expect("the server");
    (sender.join().expect("the late sender"), seen)
}

/// The server: correct in itself. It closes what has ended, and a descriptor is closed once.
fn accept_and_read(listener: &TcpListener, owe: &Sender<Owed>, ends: &AtomicBool) {
    let mut sessions: HashMap<RawFd, TcpStream> = HashMap::new();
    while !ends.load(Ordering::Relaxed) {
        let mut polled: Vec<_> = sessions
            .keys()
            .copied()
            .chain([listener.as_raw_fd()])
            .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
            .collect();
        // SAFETY: the array is ours for the time of the call, and its length is right.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 10) };
        for ready in polled.iter().filter(|ready| ready.revents != 0) {
            let Some(stream) = sessions.get_mut(&ready.fd) else { continue };
            let mut name = [0; NAME_BYTES];
            // A name of 8 bytes never comes in parts over the loopback.
            if matches!(stream.read(&mut name), Ok(NAME_BYTES)) {
                let due = Instant::now() + ANSWER_AFTER;
                owe.send(Owed { due, to: ready.fd, name }).expect("the late sender");
            } else {
                sessions.remove(&ready.fd);
            }
        }
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("a mode");
            sessions.insert(stream.as_raw_fd(), stream);
        }
    }
}

/// The late sender. All that it knows of a session is a number.
fn send_late(owed: &Receiver<Owed>) -> Answers {
    let mut answers = Answers::default();
    for Owed { due, to, name } in owed {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // SAFETY: the memory is ours and its length is right. That the descriptor may be anybody's
        // by now is the fault that is shown; a send can do no more than fail, or reach a stranger.
        let sent = unsafe {
            libc::send(
                to,
                name.as_ptr().cast(),
                NAME_BYTES,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent == NAME_BYTES as isize { answers.delivered += 1 } else { answers.refused += 1 }
    }
    answers
}
