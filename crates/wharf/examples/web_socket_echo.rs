//! An echo over WebSocket: `cargo run --release -p wharf-net --features deflate --example web_socket_echo
//! [ADDR:PORT]`. `WHARF_BACKEND` chooses the port, as it does for the command.
//!
//! Text comes back as text, and what is binary as binary, up to 20 MiB; compressed if the client can. A client of `/goodbye` is told goodbye
//! instead, with a code of the program's. `/health` is for health checks, and other paths are refused.

use wharf::{
    Backpressure, Deflate, Farewell, Handler, Listener, Options, Server, Session, Text, Upgrade,
    UpgradeRequest, WebSocket,
};

const MESSAGE_BYTES_MAX: usize = 20 << 20;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn upgrade(&self, request: &UpgradeRequest) -> Upgrade {
        match request.path() {
            "/" | "/goodbye" => Upgrade::accept(),
            _ => Upgrade::refuse(404),
        }
    }

    fn opened(&self, session: &Session) {
        let establishment = session.establishment();
        let request = establishment.as_ref().and_then(|establishment| establishment.request());
        if request.is_some_and(|request| request.path() == "/goodbye") {
            // It is short enough.
            let _ = session.close_with(Farewell::new(4001).text("goodbye"));
        }
    }

    fn received(&self, session: &Session, (): &mut (), message: &[u8]) {
        match std::str::from_utf8(message) {
            Ok(text) if session.frame_is_text() => session.send(Text(text)),
            _ => session.send(message),
        }
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let web_socket = WebSocket::new()
        .message_bytes_max(MESSAGE_BYTES_MAX)
        .deflate(Deflate::default().bytes_min(1)) // short ones too: this is an example
        .subprotocols(["echo.v2", "echo"])
        .answer("/health", "fine\n");
    let options = Options::default().with(|options| {
        // Whoever does not read the echo is not received from.
        options.receiving.backpressure = Backpressure::PauseReceive;
        options.sending.queue_bytes_max = 4 * MESSAGE_BYTES_MAX;
        options.receiving.queues_bytes_max = Some(12 * MESSAGE_BYTES_MAX);
    });
    let listener = Listener::new(address.as_str()).transport(web_socket);
    let server = Server::builder().listen(listener).options(options).backend(backend);
    let server = server.start(Echo)?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}
