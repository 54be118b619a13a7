//! The smallest server: `cargo run --release -p wharf-net --example echo`, then `nc 127.0.0.1 7000`.

use wharf::{Framing, Handler, Server, Session};

struct Echo;

impl Handler for Echo {
    type State = (); // one per session, `&mut` while a callback runs
    fn opened(&self, _session: &Session) {}
    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        session.send(frame); // queued, coalesced, bounded
    }
}

fn main() -> wharf::Result<()> {
    let server = Server::builder().listen("127.0.0.1:7000").framing(Framing::raw()).start(Echo)?;
    server.wait()
}
