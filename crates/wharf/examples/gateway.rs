//! A gateway: what comes at LISTEN goes to TARGET, and back. `cargo run --release -p wharf-net --example
//! gateway 127.0.0.1:7001 127.0.0.1:7000`. `WORKERS` says how many there are; without it one for each core.
//!
//! It keeps no bytes of its own: while one side's send queue is full, the other side is not received from. Each
//! direction ends by itself, so a peer that has finished still gets its answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use wharf::{
    Close, CloseReason, EndOfStream, Handle, Handler, Options, Server, Session, SessionId, Target,
};

/// The most bytes of a raw frame: with this much room the next one fits.
const FRAME_BYTES_MAX: usize = 64 * 1024;

struct Gateway {
    target: SocketAddr,
    handle: OnceLock<Handle>,
}

/// The other half of a pair. `None`: it could not be had.
struct Pair(Option<SessionId>);

impl Handler for Gateway {
    type State = Pair;

    fn opened(&self, session: &Session) -> Pair {
        if let Some(accepted) = session.context::<SessionId>() {
            return Pair(Some(*accepted)); // this is the side that we have connected
        }
        let target = Target::new(self.target).context(session.id());
        match session.handle().connect(target) {
            // It may be sent to at once: what is queued waits until the connection stands.
            Ok(connected) => Pair(Some(connected)),
            Err(error) => {
                eprintln!("{}: {error}", session.id());
                session.close(Close::Drain);
                Pair(None)
            }
        }
    }

    fn received(&self, session: &Session, Pair(other): &mut Pair, frame: &[u8]) {
        let Some(other) = *other else { return };
        // There is room: nobody else sends to the other side, and it had room for a whole frame.
        if session.handle().send(other, frame).is_err() {
            return session.close(Close::Stop);
        }
        if session.handle().room(other).is_some_and(|room| room < FRAME_BYTES_MAX) {
            session.pause_receiving(); // first, so that it cannot be resumed before
            session.handle().notify_writable(other, 2 * FRAME_BYTES_MAX);
        }
    }

    /// What this side is sent has left: its source may go on.
    fn writable(&self, session: &Session, Pair(other): &mut Pair) {
        if let Some(other) = *other {
            session.handle().resume_receiving(other);
        }
    }

    fn peer_finished(&self, session: &Session, Pair(other): &mut Pair) {
        if let Some(other) = *other {
            session.handle().finish(other);
        }
    }

    fn closed(&self, session: &Session, Pair(other): Pair, reason: CloseReason) {
        let Some(other) = other else { return };
        match reason {
            CloseReason::PeerClosed | CloseReason::Local => {
                session.handle().close(other, Close::Drain)
            }
            _ => session.handle().close(other, Close::Stop),
        };
    }

    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        eprintln!("{id}: {}: {error}", target.address);
        let accepted = target.context.as_deref().and_then(|context| context.downcast_ref());
        if let (Some(accepted), Some(handle)) = (accepted, self.handle.get()) {
            handle.close(*accepted, Close::Drain);
        }
    }
}

fn main() -> wharf::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: gateway LISTEN TARGET");
        std::process::exit(2);
    };
    let Ok(target) = target.parse() else {
        eprintln!("TARGET must be ADDRESS:PORT");
        std::process::exit(2);
    };
    let workers = std::env::var("WORKERS").ok().and_then(|workers| workers.parse().ok());
    let options = Options::default()
        .workers(workers.unwrap_or(0))
        .with(|options| options.receiving.end_of_stream = EndOfStream::Told);
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let server = Server::builder().listen(listen.as_str()).options(options).backend(backend);
    let gateway = Arc::new(Gateway { target, handle: OnceLock::new() });
    let prepared = server.prepare(gateway.clone())?;
    let _ = gateway.handle.set(prepared.handle());
    let server = prepared.start();
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}
