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

fn run(backend: Backend, streams_for: Duration) -> Seen {
    // Receives of the size that the other servers have.
    let receive_buffer_bytes = CHUNK_BYTES;
    let options = Options::default().workers(1).backend(backend).with(|options| {
options.uring.receive_buffer_bytes = receive_buffer_bytes;
});
    let builder = Server::builder().listen("127.0.0.1:0").framing(Framing::raw());
    let server = match builder.options(options).start(Handles) {
        Ok(server) => server,
        Err(error) => instruments::not_here(&error.to_string()),
    };
    load::run(server.addresses()[0], streams_for)
}

pub fn readiness(streams_for: Duration) -> Seen {
    run(Backend::Readiness, streams_for)
}

pub fn uring(streams_for: Duration) -> Seen {
    run(Backend::Uring, streams_for)
}
