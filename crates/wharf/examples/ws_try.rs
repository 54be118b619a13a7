//! Temporary.
use std::sync::OnceLock;
use wharf::{
    Backend, Backpressure, CloseReason, Handle, Handler, Listener, Options, Server, Session, Text,
    WebSocket,
};
struct Echo;
static H: OnceLock<Handle> = OnceLock::new();
impl Handler for Echo {
    type State = ();
    fn opened(&self, _session: &Session) {}
    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        if session.frame_is_text() {
            session.send(Text(std::str::from_utf8(frame).unwrap()));
        } else {
            session.send(frame);
        }
    }
    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        if std::env::var_os("SAY").is_some() {
            eprintln!("{reason}");
        }
    }
}
fn main() -> wharf::Result<()> {
    let mut a = std::env::args().skip(1);
    let address = a.next().unwrap();
    let backend =
        if a.next().as_deref() == Some("readiness") { Backend::Readiness } else { Backend::Uring };
    #[cfg(feature = "deflate")]
    let ws = WebSocket::new().deflate(wharf::Deflate::default().bytes_min(1));
    #[cfg(not(feature = "deflate"))]
    let ws = WebSocket::new();
    let ws = ws.message_bytes_max(20 << 20).answer("/health", "fine\n");
    let options = Options::default().workers(1).with(|o| {
        o.sending.queue_bytes_max = 80 << 20;
        o.receiving.queues_bytes_max = Some(256 << 20);
        o.receiving.backpressure = Backpressure::PauseReceive;
    });
    let server = Server::builder()
        .listen(Listener::new(address.as_str()).transport(ws))
        .options(options)
        .backend(backend)
        .start(Echo)?;
    let _ = H.set(server.handle());
    server.wait()
}
