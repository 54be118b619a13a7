//! wharf, with the same handler.

use std::time::Duration;

use wharf::{Backend, Framing, Handler, Options, Server, Session};

use crate::load::{self, CHUNK_BYTES, Seen};

struct Handles;

impl Handler for Handles {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), bytes: &[u8]) {
        load::handle(bytes, |answer| session.send(answer));
    }
}

fn run(options: Options, streams_for: Duration) -> Seen {
    // Receives of the size that the other servers have.
    let options = Options { workers: 1, receive_buffer_bytes: CHUNK_BYTES, ..options };
    let builder = Server::bind("127.0.0.1:0").expect("an address").framing(Framing::raw());
    let server = match builder.options(options).start(Handles) {
        Ok(server) => server,
        Err(error) => instruments::not_here(&error.to_string()),
    };
    load::run(server.addresses()[0], streams_for)
}

#[cfg(target_os = "linux")]
pub fn readiness(streams_for: Duration) -> Seen {
    run(Options { backend: Backend::Readiness, ..Options::default() }, streams_for)
}

#[cfg(target_os = "linux")]
pub fn uring(streams_for: Duration) -> Seen {
    run(Options { backend: Backend::Uring, ..Options::default() }, streams_for)
}

#[cfg(not(target_os = "linux"))]
fn iocp(synchronous_completions_max: u32, streams_for: Duration) -> Seen {
    let backend = Backend::Auto;
    run(Options { backend, synchronous_completions_max, ..Options::default() }, streams_for)
}

#[cfg(not(target_os = "linux"))]
pub fn none_inline(streams_for: Duration) -> Seen {
    iocp(0, streams_for)
}

#[cfg(not(target_os = "linux"))]
pub fn inline_16(streams_for: Duration) -> Seen {
    iocp(16, streams_for)
}

#[cfg(not(target_os = "linux"))]
pub fn inline_without_bound(streams_for: Duration) -> Seen {
    iocp(1 << 20, streams_for)
}
