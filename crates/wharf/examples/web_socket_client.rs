//! A client over WebSocket that sends back what it is sent: `cargo run --release -p wharf-net --features deflate
//! --example web_socket_client ADDR:PORT PATH...`. `WHARF_BACKEND` chooses the port, as it does for the command.
//!
//! It asks for one path after the other, or for so many at once as `AT_ONCE` says. A line of each says how it ended.
//! `HEADER` is one more of each request, such as `X-Token: one`. With `GOODBYE` it says this at once, with the code
//! 4002, with `DEFLATE` what it is sent may be compressed, and with `PRINT` it prints that instead of sending it back.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use wharf::{
    Backpressure, CloseReason, Connector, Deflate, Farewell, Handler, Options, Session, SessionId,
    Target, Text, WebSocket,
};

const MESSAGE_BYTES_MAX: usize = 20 << 20;

struct Client {
    goodbye: Option<String>,
    prints: bool,
    ended: Sender<()>,
}

impl Client {
    fn ended(&self, path: &str, how: &str) {
        // Each fails if nobody waits for it any more.
        let _ = writeln!(io::stdout(), "{path}: {how}");
        let _ = self.ended.send(());
    }
}

/// The subprotocol that the server has taken.
type Subprotocol = Option<String>;

impl Handler for Client {
    type State = Subprotocol;

    fn opened(&self, session: &Session) -> Subprotocol {
        if let Some(goodbye) = &self.goodbye
            && let Err(error) = session.close_with(Farewell::new(4002).text(goodbye))
        {
            eprintln!("{error}");
        }
        session.establishment()?.subprotocol().map(str::to_owned)
    }

    fn received(&self, session: &Session, _: &mut Subprotocol, message: &[u8]) {
        match std::str::from_utf8(message) {
            _ if self.prints => println!("{}", String::from_utf8_lossy(message)),
            Ok(text) if session.frame_is_text() => session.send(Text(text)),
            _ => session.send(message),
        }
    }

    fn closed(&self, session: &Session, subprotocol: Subprotocol, reason: CloseReason) {
        let path = session.context::<String>().unwrap_or_default();
        self.ended(&path, &format!("{}, {reason}", subprotocol.as_deref().unwrap_or("-")));
    }

    fn connect_failed(&self, _: SessionId, target: &Target, error: &io::Error) {
        self.ended(&target.path, &error.to_string());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("usage: ADDR:PORT PATH...")?.parse()?;
    let at_once: usize = env::var("AT_ONCE").map_or(Ok(1), |count| count.parse())?;
    let mut web_socket =
        WebSocket::new().message_bytes_max(MESSAGE_BYTES_MAX).subprotocols(["echo.v2", "echo"]);
    web_socket.deflate = env::var_os("DEFLATE").map(|_| Deflate::default());
    let mut target = Target::new(address).transport(web_socket);
    if let Ok(header) = env::var("HEADER") {
        let (name, value) = header.split_once(": ").ok_or("HEADER must be NAME: VALUE")?;
        target = target.header(name, value);
    }
    let options = Options::default().with(|options| {
        options.receiving.backpressure = Backpressure::PauseReceive;
        options.sending.queue_bytes_max = 4 * MESSAGE_BYTES_MAX;
        options.receiving.queues_bytes_max = Some(12 * MESSAGE_BYTES_MAX);
    });
    let (ended, ends) = mpsc::channel();
    let (goodbye, prints) = (env::var("GOODBYE").ok(), env::var_os("PRINT").is_some());
    let backend = env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let connector = Connector::builder().options(options).backend(backend);
    let connector = connector.start(Client { goodbye, prints, ended })?;

    let handle = connector.handle();
    let mut begun = arguments.map(|path| {
        handle.connect(target.clone().path(path.as_str()).context(path))?;
        Ok::<_, Box<dyn std::error::Error>>(())
    });
    let mut going = 0;
    for connected in begun.by_ref().take(at_once) {
        connected?;
        going += 1;
    }
    while going > 0 {
        ends.recv()?;
        match begun.next() {
            Some(connected) => connected?,
            None => going -= 1,
        }
    }
    handle.drain(Duration::from_secs(5))?;
    Ok(())
}
