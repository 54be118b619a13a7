//! A server whose answers are larger than a send queue: `cargo run --release -p wharf-net --example replies
//! [ADDR:PORT]`. `WHARF_BACKEND` chooses the port, as it does for the command.
//!
//! A request is a frame of 8 bytes: how many frames to answer with, and how many bytes each has. Each frame of
//! the answers begins with its number in the session. The next request waits until the last answer is queued, so
//! a session needs no more memory than its send queue, however much it is asked for.

use wharf::{Close, Framing, Handler, LengthPrefix, Options, SendError, Server, Session};

/// What is still to be sent.
#[derive(Default)]
struct Owed {
    frames: u32,
    bytes: usize,
    number: u32,
}

struct Replies;

impl Replies {
    fn go_on(session: &Session, owed: &mut Owed) {
        let mut frame: Vec<u8> = (0..owed.bytes).map(|at| at as u8).collect();
        while owed.frames > 0 {
            frame[..4].copy_from_slice(&owed.number.to_be_bytes());
            match session.try_send(&frame) {
                Ok(()) => (owed.frames, owed.number) = (owed.frames - 1, owed.number + 1),
                // `writable` is called when it fits.
                Err(SendError::Full { .. }) => return session.pause_receiving(),
                Err(_) => return session.close(Close::Stop),
            }
        }
        session.resume_receiving();
    }
}

impl Handler for Replies {
    type State = Owed;

    fn opened(&self, _: &Session) -> Owed {
        Owed::default()
    }

    fn received(&self, session: &Session, owed: &mut Owed, request: &[u8]) {
        let [f0, f1, f2, f3, b0, b1, b2, b3] = *request else { return session.close(Close::Stop) };
        owed.frames = u32::from_be_bytes([f0, f1, f2, f3]);
        owed.bytes = u32::from_be_bytes([b0, b1, b2, b3]).clamp(4, 64 * 1024) as usize;
        Self::go_on(session, owed);
    }

    fn writable(&self, session: &Session, owed: &mut Owed) {
        Self::go_on(session, owed);
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let options = Options::default();
    println!("at most {} bytes of memory for a session", options.memory().session_bytes_max);
    let framing = Framing::length_prefixed(LengthPrefix::default());
    let server = Server::builder().listen(address.as_str()).framing(framing).options(options);
    let server = server.backend(backend).start(Replies)?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}
