//! How to test a handler of your own: a small chat, and a thousand networks for it, each with its own
//! delays, torn lines, reordered completions and threads that stand still.
//!
//! Peers send lines: `NICK name`, `JOIN room`, `WHO`, `SAY text`. Rooms tell their members
//! `name: text`, and who comes and goes.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{Peer, Simulation, check};
use wharf::{Close, CloseReason, Framing, Handle, Handler, Options, Server, Session, SessionId};

const LINE_BYTES_MAX: usize = 1_000;

/// The members of each room, by nickname. Ordered, so that the same seed gives the same run.
type Rooms = BTreeMap<String, BTreeMap<String, SessionId>>;

#[derive(Default)]
struct Chat {
    rooms: Mutex<Rooms>,
    /// How sessions ended, for the test.
    ended: Mutex<BTreeMap<String, CloseReason>>,
}

/// What the chat knows of a session.
#[derive(Default)]
struct Member {
    nickname: String,
    room: Option<String>,
    /// A line of which the end has not come yet.
    unfinished: Vec<u8>,
}

/// Whoever calls holds the lock of the rooms: all members hear everything in the same order.
fn tell(handle: &Handle, rooms: &Rooms, room: &str, line: &str) {
    for id in rooms.get(room).into_iter().flat_map(BTreeMap::values) {
        // Who reads too slowly is cut by wharf, and has left by its `closed`.
        let _ = handle.send(*id, format!("{line}\n"));
    }
}

impl Chat {
    fn line(&self, session: &Session, member: &mut Member, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("NICK", name) => member.nickname = name.to_owned(),
            ("JOIN", room) => {
                self.leave(session, member);
                let mut rooms = self.rooms.lock().unwrap();
                let members = rooms.entry(room.to_owned()).or_default();
                members.insert(member.nickname.clone(), session.id());
                member.room = Some(room.to_owned());
                tell(session.handle(), &rooms, room, &format!("* {} joined", member.nickname));
            }
            ("WHO", _) => {
                let rooms = self.rooms.lock().unwrap();
                let members = member.room.as_ref().and_then(|room| rooms.get(room));
                let names: Vec<_> = members.into_iter().flat_map(BTreeMap::keys).cloned().collect();
                session.send(format!("* here: {}\n", names.join(" ")).as_bytes());
            }
            ("SAY", text) => {
                let rooms = self.rooms.lock().unwrap();
                if let Some(room) = &member.room {
                    let line = format!("{}: {text}", member.nickname);
                    tell(session.handle(), &rooms, room, &line);
                }
            }
            _ => session.close(Close::Drain),
        }
    }

    fn leave(&self, session: &Session, member: &mut Member) {
        let Some(room) = member.room.take() else { return };
        let mut rooms = self.rooms.lock().unwrap();
        if let Some(members) = rooms.get_mut(&room) {
            members.remove(&member.nickname);
        }
        tell(session.handle(), &rooms, &room, &format!("* {} left", member.nickname));
    }
}

/// The test keeps the chat that it gives to the server.
struct Shared(Arc<Chat>);

impl Handler for Shared {
    type State = Member;

    fn opened(&self, _: &Session) -> Member {
        Member::default()
    }

    fn received(&self, session: &Session, member: &mut Member, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            member.unfinished.extend_from_slice(part);
            if member.unfinished.len() > LINE_BYTES_MAX {
                return session.close(Close::Stop);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut member.unfinished);
                let line = String::from_utf8_lossy(&line[..line.len() - 1]).into_owned();
                self.0.line(session, member, &line);
            }
        }
    }

    fn closed(&self, session: &Session, mut member: Member, reason: CloseReason) {
        self.0.leave(session, &mut member);
        self.0.ended.lock().unwrap().insert(member.nickname, reason);
    }
}

/// A peer at its terminal.
struct Terminal {
    peer: Peer,
    seen: String,
}

impl Terminal {
    fn new(simulation: &Simulation, server: &Server, name: &str, room: &str) -> Terminal {
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(format!("NICK {name}\nJOIN {room}\n").as_bytes());
        Terminal { peer, seen: String::new() }
    }

    fn say(&self, text: &str) {
        self.peer.send(format!("SAY {text}\n").as_bytes());
    }

    fn sees(&mut self, line: &str) -> bool {
        self.seen.push_str(std::str::from_utf8(&self.peer.received()).unwrap());
        self.seen.lines().any(|seen| seen == line)
    }

    /// What it has heard of one who speaks, in order.
    fn heard(&self, speaker: &str) -> Vec<usize> {
        let said = self.seen.lines().filter_map(|line| line.strip_prefix(speaker));
        said.filter_map(|line| line.strip_prefix(": ")?.parse().ok()).collect()
    }
}

const LINES: usize = 12;
const LONG: Duration = Duration::from_secs(600);

fn evening(simulation: Simulation) {
    let chat = Arc::new(Chat::default());
    let options = Options::default().with(|options| {
        options.sending.queue_bytes_max = 16 * 1024;
    });
    let builder =
        Server::builder().listen("10.0.0.1:6667").framing(Framing::raw()).options(options);
    let server = simulation.start(builder, Shared(chat.clone())).unwrap();
    let come = |name, room| {
        let mut terminal = Terminal::new(&simulation, &server, name, room);
        let joined = format!("* {name} joined");
        assert!(simulation.run_until(LONG, || terminal.sees(&joined)), "{name} waits in vain");
        terminal
    };
    let mut elsewhere = come("fay", "cellar");
    let (mut ann, mut bob, cid) = (come("ann", "deck"), come("bob", "deck"), come("cid", "deck"));

    // One asks and asks and never reads.
    let eve = come("eve", "deck");
    eve.peer.stall(true);
    eve.peer.send("WHO\n".repeat(8_000).as_bytes());

    let mut dan = None;
    for number in 0..LINES - 1 {
        ann.say(&number.to_string());
        bob.say(&number.to_string());
        match number {
            0..3 => cid.say(&number.to_string()),
            3 => cid.peer.shutdown(), // after what it has said
            6 => dan = Some(come("dan", "deck")),
            _ => {}
        }
        simulation.sleep(Duration::from_micros(simulation.random(2_000)));
    }
    let mut dan = dan.unwrap();
    assert!(simulation.run_until(LONG, || ann.sees("* eve left") && ann.sees("* cid left")));
    dan.say("0");
    ann.say(&(LINES - 1).to_string());
    bob.say(&(LINES - 1).to_string());

    let all: Vec<_> = (0..LINES).collect();
    for terminal in [&mut ann, &mut bob, &mut dan] {
        let lasts = ["ann", "bob"].map(|speaker| format!("{speaker}: {}", LINES - 1));
        assert!(
            simulation.run_until(LONG, || {
                terminal.sees("dan: 0") && lasts.iter().all(|last| terminal.sees(last))
            }),
            "{}",
            terminal.seen
        );
    }
    for terminal in [&ann, &bob] {
        assert_eq!((terminal.heard("ann"), terminal.heard("bob")), (all.clone(), all.clone()));
        assert_eq!((terminal.heard("cid"), terminal.heard("dan")), (vec![0, 1, 2], vec![0]));
    }
    // Who came late has heard all that was said since.
    for speaker in ["ann", "bob"] {
        assert!(all.ends_with(&dan.heard(speaker)), "{}", dan.seen);
    }
    assert!(elsewhere.sees("* fay joined") && elsewhere.seen.lines().count() == 1);

    let ended = chat.ended.lock().unwrap().clone();
    assert!(matches!(ended["eve"], CloseReason::SlowConsumer { .. }), "{ended:?}");
    assert_eq!(ended["cid"], CloseReason::PeerClosed);
    assert_eq!(ended.len(), 2, "nobody else was disturbed: {ended:?}");
}

#[test]
fn every_line_said_in_a_room_reaches_its_members_once_and_in_order() {
    check(0..1_000, evening);
}
