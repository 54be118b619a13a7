//! A server that pushes: `cargo run --release -p wharf-net --example ticker [ADDR:PORT]`. `WHARF_BACKEND`
//! chooses the port, as it does for the command.
//!
//! A session that begins with `TICK` and a line feed is sent 4 KiB every millisecond, by a thread of
//! its own that knows sessions only by their ids; any other session is echoed. Whoever asks for
//! ticks and does not read them ends as a slow consumer, and the others do not notice. Prints each
//! such end.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use wharf::{CloseReason, Handle, Handler, Server, Session, SessionId};

const PERIOD: Duration = Duration::from_millis(1);

struct Ticker {
    subscribe: Sender<SessionId>,
}

/// What a session is; known from its first byte on.
enum Kind {
    New,
    Echoed,
    Ticked,
}

impl Handler for Ticker {
    type State = Kind;

    fn opened(&self, _session: &Session) -> Kind {
        Kind::New
    }

    fn received(&self, session: &Session, kind: &mut Kind, bytes: &[u8]) {
        match kind {
            Kind::New if bytes.starts_with(b"TICK\n") => {
                *kind = Kind::Ticked;
                // It fails only when the server is ending.
                let _ = self.subscribe.send(session.id());
            }
            Kind::New => {
                *kind = Kind::Echoed;
                session.send(bytes);
            }
            Kind::Echoed => session.send(bytes),
            Kind::Ticked => {}
        }
    }

    fn closed(&self, session: &Session, kind: Kind, reason: CloseReason) {
        if matches!(kind, Kind::Ticked) {
            println!("{} ended: {reason}", session.id());
        }
    }
}

/// Sends to all subscribers, and forgets those that are gone.
fn tick(handle: &Handle, subscriptions: &mpsc::Receiver<SessionId>) {
    let frame = [b'.'; 4096];
    let mut subscribers = Vec::new();
    loop {
        subscribers.extend(subscriptions.try_iter());
        subscribers.retain(|id| handle.send(*id, frame).is_ok());
        thread::sleep(PERIOD);
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let (subscribe, subscriptions) = mpsc::channel();
    let server = Server::builder().listen(address.as_str()).workers(1).backend(backend);
    let server = server.start(Ticker { subscribe })?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    let handle = server.handle();
    thread::spawn(move || tick(&handle, &subscriptions));
    server.wait()
}
