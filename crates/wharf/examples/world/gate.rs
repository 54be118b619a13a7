//! The handler: who has not logged in is known here only, who has is in the world.
//!
//! It stands around the handler that `wharf::events` gives, and passes on what the world is to hear: `opened` when
//! somebody has logged in and not when a connection comes, and afterwards frames and the end. What needs no world is
//! done here, on the session's worker: pongs, and the limit of what one may say. The database is asked by threads of the
//! server's pool, and the answer comes as a note.

use std::time::Duration;

use wharf::{CloseReason, EventHandler, Farewell, Frame, Handler, Mailer, Session, Told};

use crate::database;
use crate::protocol::{ALIVE, CHAT, LAST_WORD, LOGIN, MOVE, PING, REFUSED, frame};

/// Codes of farewells.
pub(crate) const BROKE_A_RULE: u32 = 1;
pub(crate) const SPAMMED: u32 = 2;
pub(crate) const TAKEN_OVER: u32 = 3;

/// So many lines may be said in this time; who says so many more in it is kicked.
const LINES_MAX: u32 = 5;
const LINES_IN: Duration = Duration::from_secs(5);
const REFUSED_MAX: u32 = 10;
const LINE_BYTES_MAX: usize = 200;

const LOGIN_WITHIN: Duration = Duration::from_secs(20);
/// Keys of timers.
const LOGIN_TAKES_TOO_LONG: u64 = 0;
const MAY_SPEAK_AGAIN: u64 = 1;

/// What a session is told from outside.
pub(crate) enum Note {
    /// Whose token it has. `None`: nobody's.
    Login(Option<u32>),
}

pub(crate) struct Gate {
    pub(crate) world: EventHandler,
    pub(crate) mailer: Mailer<Note>,
}

pub(crate) enum Player {
    New,
    /// The database has been asked.
    Asked,
    /// It has said so many lines lately.
    InTheWorld {
        lines: u32,
    },
}

impl Gate {
    fn log_in(&self, session: &Session, player: &mut Player, token: &[u8]) {
        let token = token.to_owned();
        let asks = move || Note::Login(database::account_of(&token));
        if self.mailer.offload(session.id(), asks).is_err() {
            return kick(session, BROKE_A_RULE, "too many log in at once; try again");
        }
        *player = Player::Asked;
        let _ = session.set_timer(LOGIN_TAKES_TOO_LONG, LOGIN_WITHIN); // it has no other
    }

    fn say(&self, session: &Session, lines: &mut u32, said: &[u8]) {
        if *lines == 0 {
            let _ = session.set_timer(MAY_SPEAK_AGAIN, LINES_IN);
        }
        *lines += 1;
        if *lines > LINES_MAX + REFUSED_MAX {
            kick(session, SPAMMED, "you say too much");
        } else if *lines > LINES_MAX {
            session.send(frame(REFUSED, "you may say five lines in five seconds"));
        } else if said.len() > LINE_BYTES_MAX {
            session.send(frame(REFUSED, "a line is too long"));
        } else {
            self.world.received(session, &mut (), said);
        }
    }
}

/// Ends a session with a last word, which arrives.
fn kick(session: &Session, code: u32, why: &str) {
    let farewell = Farewell::new(code).frame(frame(LAST_WORD, why));
    let _ = session.close_with(farewell); // it is short, so it is not refused
}

impl Handler for Gate {
    type State = Player;

    fn opened(&self, _: &Session) -> Player {
        Player::New
    }

    fn received(&self, session: &Session, player: &mut Player, said: &[u8]) {
        match (&mut *player, said) {
            (Player::New, [LOGIN, token @ ..]) => self.log_in(session, player, token),
            (Player::InTheWorld { .. }, [PING, ..]) => session.send(said),
            (Player::InTheWorld { lines }, [CHAT, ..]) => self.say(session, lines, said),
            (Player::InTheWorld { .. }, [MOVE, _, _]) => {
                self.world.received(session, &mut (), said);
            }
            (Player::Asked | Player::InTheWorld { .. }, [ALIVE]) => {}
            _ => kick(session, BROKE_A_RULE, "that is not to be said here"),
        }
    }

    fn timer(&self, session: &Session, player: &mut Player, key: u64) {
        match (key, player) {
            (MAY_SPEAK_AGAIN, Player::InTheWorld { lines }) => *lines = 0,
            (LOGIN_TAKES_TOO_LONG, Player::Asked) => {
                kick(session, BROKE_A_RULE, "nobody could say who you are");
            }
            _ => {}
        }
    }

    /// A limit of the server's ends it: the peer is told which.
    fn ending(&self, session: &Session, _: &mut Player, why: CloseReason) -> Option<Frame> {
        let why = match why {
            CloseReason::IdleTimeout => "nothing was heard of you for 15 s".to_owned(),
            other => other.to_string(),
        };
        session.handle().encode(frame(LAST_WORD, why)).ok()
    }

    fn closed(&self, session: &Session, player: Player, reason: CloseReason) {
        if let Player::InTheWorld { .. } = player {
            self.world.closed(session, (), reason);
        }
    }

    fn draining(&self) {
        self.world.draining();
    }
}

impl Told<Note> for Gate {
    fn told(&self, session: &Session, player: &mut Player, Note::Login(account): Note) {
        let Some(account) = account else {
            return kick(session, BROKE_A_RULE, "nobody has this token");
        };
        session.cancel_timer(LOGIN_TAKES_TOO_LONG);
        *player = Player::InTheWorld { lines: 0 };
        // To the world a session's first frame is its account.
        self.world.opened(session);
        self.world.received(session, &mut (), &account.to_be_bytes());
    }
}
