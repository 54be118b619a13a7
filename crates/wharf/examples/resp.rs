//! Keys and values for clients of Redis, by its protocol RESP2: `cargo run --release -p wharf-net --example resp
//! [ADDR:PORT]`, then `redis-cli -p 6379`. `WHARF_BACKEND` chooses the port, `WORKERS` how many workers there are.
//!
//! PING, ECHO, SET, GET, DEL, INCR and MGET, pipelined as deep as a client likes; values of up to 1 MB. A command is one
//! frame: the framing below finds its end, in both forms that the protocol has. A value is held once, and is sent from
//! where it lies.

use std::collections::HashMap;
use std::io::{IoSlice, Write};
use std::str::from_utf8;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf::{
    Backpressure, CloseReason, CustomFraming, Cut, Frame, Framing, FramingError, Handler, Options,
    Parts, Server, Session,
};

const VALUE_BYTES_MAX: usize = 1 << 20;
const COMMAND_BYTES_MAX: usize = VALUE_BYTES_MAX + 64 * 1024;
const ARGUMENTS_MAX: usize = 1024;
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// What the replies to one command may have together.
const REPLY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// Where a command ends. The replies that are sent have their form already.
pub(crate) struct Commands;

impl CustomFraming for Commands {
    fn wire_frame_bytes_max(&self) -> usize {
        COMMAND_BYTES_MAX
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        match end(bytes, scanned) {
            Ok(End::At(frame_bytes)) => {
                Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes: 0 }
            }
            Ok(End::NotBefore { bytes_min, scanned }) => Cut::More { bytes_min, scanned },
            Err(reason) => Cut::Refused(FramingError::Refused { reason }),
        }
    }
}

enum End {
    At(usize),
    NotBefore { bytes_min: usize, scanned: usize },
}

/// Where the first command ends: an array of strings, each with its length, or a line of words.
fn end(bytes: &[u8], scanned: usize) -> Result<End, &'static str> {
    if bytes.first() != Some(&b'*') {
        return match bytes[scanned..].iter().position(|byte| *byte == b'\n') {
            Some(at) => Ok(End::At(scanned + at + 1)),
            None if bytes.len() > INLINE_BYTES_MAX => Err("too big inline request"),
            None => Ok(End::NotBefore { bytes_min: bytes.len() + 1, scanned: bytes.len() }),
        };
    }
    let more = |bytes_min: usize| {
        Ok(End::NotBefore { bytes_min: bytes_min.max(bytes.len() + 1), scanned: 0 })
    };
    let Some((count, mut at)) = number(bytes, 1)? else { return more(4) };
    if count > ARGUMENTS_MAX {
        return Err("invalid multibulk length");
    }
    for left in (0..count).rev() {
        match bytes.get(at) {
            None => return more(at + 6 * (left + 1)), // `$0`, no bytes, and two ends of lines
            Some(b'$') => {}
            Some(_) => return Err("expected '$'"),
        }
        let Some((length, begins)) = number(bytes, at + 1)? else { return more(at + 6) };
        if length > VALUE_BYTES_MAX {
            return Err("invalid bulk length");
        }
        at = begins + length + 2;
        if at > bytes.len() {
            return more(at + 6 * left);
        }
    }
    Ok(End::At(at))
}

/// The number in the line that begins there, and where the next line begins. `None`: the line has not ended.
fn number(bytes: &[u8], from: usize) -> Result<Option<(usize, usize)>, &'static str> {
    const INVALID: &str = "invalid length";
    let mut number = 0usize;
    for (at, byte) in bytes.iter().enumerate().skip(from).take(10) {
        match byte {
            b'0'..=b'9' => number = 10 * number + usize::from(byte - b'0'),
            b'\r' if at > from => {
                let has_ended = bytes.len() > at + 1;
                return Ok(has_ended.then_some((number, at + 2)));
            }
            _ => return Err(INVALID),
        }
    }
    if bytes.len() < from + 10 { Ok(None) } else { Err(INVALID) }
}

/// The words of a command that is whole.
fn words(command: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut array, mut inline) = (None, None);
    if let Ok(Some((_, at))) = number(command, 1)
        && command[0] == b'*'
    {
        array = Some(at);
    } else {
        inline = Some(command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()));
    }
    std::iter::from_fn(move || match (&mut array, &mut inline) {
        (Some(at), _) => {
            let (length, begins) = number(command, *at + 1).ok()??;
            *at = begins + length + 2;
            command.get(begins..begins + length)
        }
        (None, Some(words)) => words.next(),
        (None, None) => None,
    })
}

type Values = HashMap<Box<[u8]>, Arc<[u8]>>;

#[derive(Default)]
struct Store {
    values: Mutex<Values>,
}

impl Store {
    /// Nothing under it blocks.
    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.values().get(key).cloned()
    }

    /// Adds one to a value that is a number.
    fn increment(&self, key: &[u8]) -> Option<i64> {
        let mut values = self.values();
        let before = values.get(key).map_or(Some("0"), |value| from_utf8(value).ok());
        let number = before?.parse::<i64>().ok()?.checked_add(1)?;
        values.insert(key.into(), number.to_string().into_bytes().into());
        Some(number)
    }

    fn run<'c>(&self, session: &Session, name: &[u8], mut words: impl Iterator<Item = &'c [u8]>) {
        let mut upper = [0; 8];
        let known = upper.get_mut(..name.len()).map(|upper| {
            upper.copy_from_slice(name);
            upper.make_ascii_uppercase();
            &*upper
        });
        match (known.unwrap_or_default(), words.next(), words.next()) {
            (b"PING", None, None) => session.send("+PONG\r\n"),
            (b"PING" | b"ECHO", Some(word), None) => reply(session, word),
            (b"GET", Some(key), None) => match self.value(key) {
                Some(value) => reply(session, &value),
                None => session.send("$-1\r\n"),
            },
            (b"SET", Some(key), Some(value)) => {
                self.values().insert(key.into(), value.into());
                session.send("+OK\r\n");
            }
            (b"DEL", Some(first), second) => {
                let keys = std::iter::once(first).chain(second).chain(words);
                let mut values = self.values();
                let removed = keys.filter(|key| values.remove(*key).is_some()).count();
                drop(values);
                head(session, b':', removed as i64);
            }
            (b"INCR", Some(key), None) => match self.increment(key) {
                Some(number) => head(session, b':', number),
                None => session.send("-ERR value is not an integer or out of range\r\n"),
            },
            (b"MGET", Some(first), second) => {
                let keys = std::iter::once(first).chain(second).chain(words);
                let values: Vec<_> = keys.map(|key| self.value(key)).collect();
                let bytes = values.iter().flatten().map(|value| value.len()).sum::<usize>();
                if bytes > REPLY_BYTES_MAX {
                    return session.send("-ERR the reply is too large\r\n");
                }
                head(session, b'*', values.len() as i64);
                for value in values {
                    match value {
                        Some(value) => reply(session, &value),
                        None => session.send("$-1\r\n"),
                    }
                }
            }
            (b"PING" | b"ECHO" | b"GET" | b"SET" | b"DEL" | b"INCR" | b"MGET", ..) => {
                session.send("-ERR wrong number of arguments\r\n");
            }
            _ => session.send("-ERR unknown command\r\n"),
        }
    }
}

/// Sends a line that is a number: of bytes, of replies, or the reply itself.
fn head(session: &Session, kind: u8, number: i64) {
    let mut line = [0; 32];
    session.send(line_of(&mut line, kind, number));
}

fn line_of(line: &mut [u8; 32], kind: u8, number: i64) -> &[u8] {
    let mut rest = &mut line[..];
    let _ = write!(rest, "{}{number}\r\n", char::from(kind)); // it fits
    let left = rest.len();
    &line[..32 - left]
}

/// Sends a string, from where it lies.
fn reply(session: &Session, value: &[u8]) {
    let mut line = [0; 32];
    let parts = [line_of(&mut line, b'$', value.len() as i64), value, b"\r\n"];
    session.send(Parts(&parts.map(IoSlice::new)));
}

impl Handler for Store {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, (): &mut (), command: &[u8]) {
        let mut words = words(command);
        if let Some(name) = words.next() {
            self.run(session, name, words);
        }
    }

    fn ending(&self, session: &Session, (): &mut (), reason: CloseReason) -> Option<Frame> {
        let CloseReason::FrameRefused { reason } = reason else { return None };
        session.handle().encode(format!("-ERR Protocol error: {reason}\r\n")).ok()
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6379".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let workers = std::env::var("WORKERS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let options = Options::default().workers(workers).with(|options| {
        // Whoever asks for more than it reads is not read from; a reply always finds room.
        options.receiving.backpressure = Backpressure::PauseReceive;
        options.sending.queue_bytes_max = 4 * REPLY_BYTES_MAX;
    });
    let server = Server::builder().listen(address.as_str()).framing(Framing::custom(Commands));
    let server = server.options(options).backend(backend).start(Store::default())?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}
