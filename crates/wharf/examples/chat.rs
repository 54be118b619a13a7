//! A chat, on groups: `cargo run --release -p wharf-net --example chat [ADDR:PORT]`, then several times
//! `nc 127.0.0.1 7000`. `WHARF_BACKEND` chooses the port, as it does for the command.
//!
//! A line goes to everyone else in the room. `/nick NAME`, `/join ROOM`, `/leave` (back to the lobby),
//! `/who`, `/quit`. Who is in a room hears it by a group of the room's name; the chat itself knows who they are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf::{
    Close, CloseReason, Framing, Groups, Handler, Lines, PublishError, Server, Session, SessionId,
};

const LINE_BYTES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 32;
/// So many fit into a line that is sent.
const NAMES_MAX: usize = 1_000;
const LOBBY: &str = "lobby";

#[derive(Default)]
struct Chat {
    groups: Groups<String>,
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    /// Who is in each; only rooms that somebody is in.
    by_name: HashMap<String, HashMap<SessionId, String>>,
    guests: u64,
}

/// What the chat knows of a session.
struct Guest {
    name: String,
    room: String,
}

impl Chat {
    /// No callback of another session waits long for this: nothing under it blocks.
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is in the room when this is said hears it, in the order in which it is said.
    fn say(&self, session: &Session, room: &str, line: &str) {
        let said = self.groups.publish_except(session.handle(), room, session.id(), line);
        if let Err(PublishError::Full { .. }) = said {
            session.send("* too much is being said; that was not");
        }
    }

    fn enter(&self, session: &Session, guest: &mut Guest, name: &str) {
        let mut rooms = self.rooms();
        let room = rooms.by_name.entry(name.to_owned()).or_default();
        room.insert(session.id(), guest.name.clone());
        guest.room = name.to_owned();
        if self.groups.join(session.handle(), session.id(), name).is_err() {
            return session.close(Close::Drain); // it goes, or too many come at once
        }
        session.send(format!("* you are {} in {name}", guest.name));
        self.say(session, name, &format!("* {} came", guest.name));
    }

    fn leave(&self, session: &Session, guest: &Guest) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.by_name.get_mut(&guest.room) else { return };
        self.groups.leave(session.handle(), session.id(), &guest.room[..]);
        room.remove(&session.id());
        if room.is_empty() {
            rooms.by_name.remove(&guest.room);
        }
        self.say(session, &guest.room, &format!("* {} left", guest.name));
    }

    fn rename(&self, session: &Session, guest: &mut Guest, name: &str) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.by_name.get_mut(&guest.room) else { return };
        if room.values().any(|taken| taken == name) {
            return session.send("* somebody here has that name");
        }
        room.insert(session.id(), name.to_owned());
        let before = std::mem::replace(&mut guest.name, name.to_owned());
        session.send(format!("* you are {name}"));
        self.say(session, &guest.room, &format!("* {before} is {name} now"));
    }

    fn who(&self, session: &Session, guest: &Guest) {
        let rooms = self.rooms();
        let names = rooms.by_name.get(&guest.room).map(HashMap::values);
        let mut names: Vec<_> = names.into_iter().flatten().map(String::as_str).collect();
        names.sort_unstable();
        names.truncate(NAMES_MAX);
        session.send(format!("* in {}: {}", guest.room, names.join(" ")));
    }

    fn line(&self, session: &Session, guest: &mut Guest, line: &str) {
        let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        match line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim())) {
            ("", _) => {}
            ("/nick", name) if is_name(name) => self.rename(session, guest, name),
            ("/join", room) if is_name(room) => {
                self.leave(session, guest);
                self.enter(session, guest, room);
            }
            ("/leave", _) => {
                self.leave(session, guest);
                self.enter(session, guest, LOBBY);
            }
            ("/who", _) => self.who(session, guest),
            ("/quit", _) => session.close(Close::Drain),
            (word, _) if word.starts_with('/') => {
                session.send("* /nick NAME, /join ROOM, /leave, /who, /quit");
            }
            _ => {
                self.say(session, &guest.room, &format!("{}: {line}", guest.name));
            }
        }
    }
}

impl Handler for Chat {
    type State = Guest;

    fn opened(&self, session: &Session) -> Guest {
        let number = {
            let mut rooms = self.rooms();
            rooms.guests += 1;
            rooms.guests
        };
        let name = format!("guest{number}");
        let mut guest = Guest { name, room: String::new() };
        self.enter(session, &mut guest, LOBBY);
        guest
    }

    fn received(&self, session: &Session, guest: &mut Guest, line: &[u8]) {
        if line.len() > LINE_BYTES_MAX {
            session.send("* a line is too long");
            return session.close(Close::Drain);
        }
        self.line(session, guest, String::from_utf8_lossy(line).trim_end());
    }

    fn closed(&self, session: &Session, guest: Guest, _reason: CloseReason) {
        self.leave(session, &guest);
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let framing = Framing::lines(Lines::default());
    let server = Server::builder().listen(address.as_str()).framing(framing).backend(backend);
    let server = server.start(Chat::default())?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}
