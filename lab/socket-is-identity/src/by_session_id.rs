//! The same on wharf: the late sender keeps a SessionId.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use wharf::{Framing, Handle, Handler, Server, Session, SessionId};

use crate::peers::Seen;
use crate::{ANSWER_AFTER, Answers, NAME_BYTES};

struct Owed {
    due: Instant,
    to: SessionId,
    name: [u8; NAME_BYTES],
}

struct Owes(Mutex<Sender<Owed>>);

impl Handler for Owes {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), bytes: &[u8]) {
        let Ok(name) = bytes.try_into() else { return };
        let due = Instant::now() + ANSWER_AFTER;
        let owe = self.0.lock().expect("nobody panics with it");
        owe.send(Owed { due, to: session.id(), name }).expect("the late sender");
    }
}

/// Serves until the peers have ended.
pub fn serve(run_peers: fn(SocketAddr) -> Seen) -> (Answers, Seen) {
    let (owe, owed) = channel();
    let builder = Server::builder().listen("127.0.0.1:0");
    let builder = builder.framing(Framing::raw()).workers(1);
    let server = builder.start(Owes(Mutex::new(owe))).expect("a server");
    let handle = server.handle();
    let sender = thread::spawn(move || send_late(&owed, &handle));
    let seen = run_peers(server.addresses()[0]);
    drop(server); // and with it the handler, the only one who can owe
    (sender.join().expect("the late sender"), seen)
}

fn send_late(owed: &Receiver<Owed>, handle: &Handle) -> Answers {
    let mut answers = Answers::default();
    for Owed { due, to, name } in owed {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if handle.send(to, name).is_ok() { answers.delivered += 1 } else { answers.refused += 1 }
    }
    answers
}
