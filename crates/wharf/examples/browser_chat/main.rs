//! A chat in browsers: `cargo run --release -p wharf-net --features websocket --example browser_chat`, then open
//! <http://127.0.0.1:8080> in several tabs, and `nc 127.0.0.1 7000` beside them: all are in the same rooms. In full:
//! `browser_chat [ADDR:PORT of browsers] [ADDR:PORT of lines] [ORIGIN ...]`. `WHARF_BACKEND` chooses the port.
//!
//! What one says first is `ROOM NAME`; afterwards each line goes to everyone in the room. A browser's binary message is a
//! picture, for the room's other browsers: one that reads slowly misses some. Who says too much is kicked with a reason.
//! Ctrl-C drains: each browser is told that the server goes away, and its page comes back by itself.
//!
//! The listener itself gives out the page, `page.html`. Other pages may not connect, unless their origins are named
//! (`https://chat.example.com`; the server's own is one of them then only if it is named too).

use std::error::Error;
use std::time::{Duration, Instant};

use wharf::{
    Close, CloseReason, Farewell, FirstFrameTimeout, Framing, Group, Groups, Handler, Lines,
    Listener, Options, Origins, Policy, PublishError, Server, Session, Text, Upgrade,
    UpgradeRequest, WebSocket,
};

const PAGE: &str = include_str!("page.html");
const LINE_BYTES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 32;
const PICTURE_BYTES_MAX: usize = 1 << 20;
/// Of a guest's.
const MESSAGES_A_SECOND: u32 = 20;
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The codes by which the page knows what to say. (1009 is one of WebSocket's own: a message was too large.)
const KICKED: u32 = 4001;
const NO_NAME: u32 = 4002;
const TOO_LARGE: u32 = 1009;

/// The groups are the rooms, and for the pictures in a room one more of its browsers.
#[derive(Default)]
struct Chat(Groups<String>);

/// What the chat knows of a session.
struct Guest {
    is_browser: bool,
    /// Once it has said them.
    room_and_name: Option<(String, String)>,
    /// Messages since then.
    messages: u32,
    since: Instant,
}

impl Guest {
    fn says_too_much(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.messages, self.since) = (0, Instant::now());
        }
        self.messages += 1;
        self.messages > MESSAGES_A_SECOND
    }
}

fn pictures_of(room: &str) -> String {
    format!("{room}/pictures")
}

/// Ends a session, which is told why.
fn end(session: &Session, code: u32, why: &str) {
    let _ = session.close_with(Farewell::new(code).text(why)); // it is short enough
}

impl Chat {
    /// Everyone in the room hears it, in the order in which it is said.
    fn say(&self, session: &Session, room: &str, line: &str) {
        let said = self.0.publish(session.handle(), room, Text(line));
        if let Err(PublishError::Full { .. }) = said {
            session.send(Text("* too much is being said; that was not"));
        }
    }

    fn enter(&self, session: &Session, guest: &mut Guest, first: &str) {
        let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '-';
        let is_name =
            |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_of_name);
        let both = first.split_once(' ').filter(|(room, name)| is_name(room) && is_name(name));
        let Some((room, name)) = both else {
            return end(session, NO_NAME, "first say ROOM NAME, of letters and digits");
        };
        let (handle, id) = (session.handle(), session.id());
        let mut joined = self.0.join(handle, id, room);
        if guest.is_browser && joined.is_ok() {
            joined = self.0.join_with(handle, id, &pictures_of(room)[..], Policy::Skip);
        }
        if joined.is_err() {
            return session.close(Close::Drain); // it goes, or too many come at once
        }
        guest.room_and_name = Some((room.to_owned(), name.to_owned()));
        self.say(session, room, &format!("* {name} came"));
    }

    fn show(&self, session: &Session, guest: &Guest, picture: &[u8]) {
        let Some((room, name)) = &guest.room_and_name else {
            return end(session, NO_NAME, "first say ROOM NAME");
        };
        let pictures = pictures_of(room);
        match self.0.publish_except(session.handle(), &pictures[..], session.id(), picture) {
            Ok(()) => {
                let bytes = picture.len();
                self.say(session, room, &format!("* {name} shows a picture of {bytes} bytes"));
            }
            Err(_) => session.send(Text("* too much is being shown; that was not")),
        }
    }
}

impl Handler for Chat {
    type State = Guest;

    fn upgrade(&self, request: &UpgradeRequest) -> Upgrade {
        if request.path() == "/chat" { Upgrade::accept() } else { Upgrade::refuse(404) }
    }

    fn opened(&self, session: &Session) -> Guest {
        let is_browser = session.establishment().is_some();
        Guest { is_browser, room_and_name: None, messages: 0, since: Instant::now() }
    }

    fn received(&self, session: &Session, guest: &mut Guest, message: &[u8]) {
        if guest.says_too_much() {
            return end(session, KICKED, "more than 20 messages in a second");
        }
        if guest.is_browser && !session.frame_is_text() {
            return self.show(session, guest, message);
        }
        if message.len() > LINE_BYTES_MAX {
            return end(session, TOO_LARGE, "a line has 1000 bytes at most");
        }
        // A line's end within it would make two of it for those who read lines.
        let line = String::from_utf8_lossy(message).replace(char::is_control, " ");
        match (&guest.room_and_name, line.trim()) {
            (_, "") => {}
            (None, first) => self.enter(session, guest, first),
            (Some((room, name)), line) => self.say(session, room, &format!("{name}: {line}")),
        }
    }

    fn lagged(&self, session: &Session, _: &mut Guest, _: Group, pictures: u64) {
        session.send(Text(format!("* you read slowly: {pictures} pictures are missing")));
    }

    fn closed(&self, session: &Session, guest: Guest, _: CloseReason) {
        if let Some((room, name)) = guest.room_and_name {
            // Nobody hears it if nobody is left, or if the server ends.
            let _ = self.0.publish(session.handle(), &room[..], Text(format!("* {name} left")));
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (of_browsers, of_lines) = (address("127.0.0.1:8080"), address("127.0.0.1:7000"));
    let named: Vec<String> = arguments.collect();
    let origins = if named.is_empty() { Origins::Same } else { Origins::Of(named) };
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;

    let web_socket = WebSocket::new()
        .origins(origins)
        .message_bytes_max(PICTURE_BYTES_MAX)
        .answer_as("/", "text/html; charset=utf-8", PAGE);
    // What is published must be a frame at each listener, pictures too.
    let lines = Framing::lines(Lines::default().frame_bytes_max(PICTURE_BYTES_MAX));
    let options = Options::default().with(|options| {
        options.sending.queue_bytes_max = 4 * PICTURE_BYTES_MAX;
        options.time.first_frame_timeout = FirstFrameTimeout::After(Duration::from_secs(10));
    });
    let server = Server::builder()
        .listen(Listener::new(of_browsers.as_str()).transport(web_socket))
        .listen(Listener::new(of_lines.as_str()).framing(lines))
        .options(options)
        .backend(backend)
        .start(Chat::default())?;
    let addresses = server.addresses();
    println!("listening on {}; for lines on {}; {}", addresses[0], addresses[1], server.backend());

    let handle = server.handle();
    ctrlc::set_handler(move || drop(handle.drain(DRAIN_DEADLINE)))?;
    Ok(server.wait()?)
}
