//! What happened: always as one number, which the same seed reproduces; on request in words too.

use std::fmt;
use std::net::Shutdown;
use std::time::Duration;

use super::fault::Fault;
use super::threads::DRIVER;
use crate::port::operation::{OperationKind, Token};

/// One event.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Posted {
        token: Token,
        kind: OperationKind,
    },
    PostRefused {
        token: Token,
        kind: OperationKind,
    },
    Delivered {
        token: Token,
        kind: OperationKind,
        result: i64,
        more: bool,
    },
    SentDirectly {
        token: Token,
        count: u64,
    },
    Cancelled {
        token: Token,
        kind: OperationKind,
    },
    ShutDown {
        token: Token,
        how: Shutdown,
    },
    Deregistered {
        token: Token,
    },
    Woken {
        port: u32,
    },
    Waits {
        port: u32,
    },
    Peer {
        peer: u64,
        does: &'static str,
        count: u64,
    },
    Fault {
        fault: Fault,
        firing: u64,
    },
    Runs,
    /// What the scenario did or saw.
    Said {
        about: u64,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    at: u64,
    thread: usize,
    what: What,
    words: Option<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    entries: Option<Vec<Entry>>,
    /// The test has failed. What follows from that is not kept.
    is_over: bool,
}

/// The most entries that a trace keeps: the latest.
const ENTRIES_MAX: usize = 200_000;

impl Trace {
    /// Keeps words from now on.
    pub(super) fn keep(&mut self) {
        self.entries.get_or_insert_default();
    }

    pub(super) fn is_kept(&self) -> bool {
        self.entries.is_some()
    }

    pub(super) fn note(&mut self, at: u64, thread: usize, what: What) {
        self.note_in_words(at, thread, what, None);
    }

    pub(super) fn note_in_words(
        &mut self,
        at: u64,
        thread: usize,
        what: What,
        words: Option<Box<str>>,
    ) {
        let (kind, one, other) = what.numbers();
        for number in [at, thread as u64 ^ kind << 32, one, other] {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.is_over |= self.is_kept() && thread == DRIVER && std::thread::panicking();
        if let Some(entries) = self.entries.as_mut().filter(|_| !self.is_over) {
            if entries.len() == ENTRIES_MAX {
                entries.drain(..ENTRIES_MAX / 2);
            }
            entries.push(Entry { at, thread, what, words });
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The trace's lines, except about who runs and waits.
    pub(super) fn lines_of_deeds(&self) -> Vec<String> {
        let is_of_threads =
            |what: &What| matches!(what, What::Woken { .. } | What::Waits { .. } | What::Runs);
        let entries = self.entries.iter().flatten().filter(|entry| !is_of_threads(&entry.what));
        entries.map(Entry::to_string).collect()
    }

    /// The trace's lines about these tokens and peers (all, if none are given), and about every fault.
    pub(super) fn lines(&self, about: &[u64]) -> Vec<String> {
        let concerned = |entry: &&Entry| about.is_empty() || entry.what.concerns(about);
        let entries = self.entries.iter().flatten().filter(concerned);
        entries.map(Entry::to_string).collect()
    }
}

impl What {
    fn numbers(&self) -> (u64, u64, u64) {
        match *self {
            What::Posted { token, kind } => (1, token.0, kind as u64),
            What::PostRefused { token, kind } => (2, token.0, kind as u64),
            What::Delivered { token, kind, result, more } => {
                (3, token.0, (result as u64) << 8 ^ (kind as u64) << 1 ^ u64::from(more))
            }
            What::Cancelled { token, kind } => (4, token.0, kind as u64),
            What::ShutDown { token, how } => (5, token.0, how as u64),
            What::Deregistered { token } => (6, token.0, 0),
            What::Woken { port } => (7, port.into(), 0),
            What::Waits { port } => (8, port.into(), 0),
            What::Peer { peer, does, count } => (9, peer ^ (does.len() as u64) << 56, count),
            What::Fault { fault, firing } => (10, fault as u64, firing),
            What::Runs => (11, 0, 0),
            What::Said { about } => (12, about, 0),
            What::SentDirectly { token, count } => (13, token.0, count),
        }
    }

    fn concerns(&self, about: &[u64]) -> bool {
        match self {
            What::Posted { token, .. }
            | What::PostRefused { token, .. }
            | What::Delivered { token, .. }
            | What::SentDirectly { token, .. }
            | What::Cancelled { token, .. }
            | What::ShutDown { token, .. }
            | What::Deregistered { token } => about.contains(&token.0),
            What::Peer { peer, .. } => about.contains(peer),
            What::Said { about: of, .. } => about.contains(of),
            What::Fault { .. } => true,
            What::Woken { .. } | What::Waits { .. } | What::Runs => false,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Duration::from_nanos(self.at);
        match self.thread {
            0 => write!(f, "{:>14.6} s  driver    ", at.as_secs_f64())?,
            thread => write!(f, "{:>14.6} s  thread {thread:<2} ", at.as_secs_f64())?,
        }
        if let Some(words) = &self.words {
            return f.write_str(words);
        }
        match self.what {
            What::Posted { token, kind } => write!(f, "{} posts {kind:?}", name(token)),
            What::PostRefused { token, kind } => write!(f, "{} {kind:?} refused", name(token)),
            What::Delivered { token, kind, result, more } => {
                let goes_on = if more { ", goes on" } else { "" };
                write!(f, "{} {kind:?} completes: {result}{goes_on}", name(token))
            }
            What::SentDirectly { token, count } => {
                write!(f, "{} takes {count} bytes at once", name(token))
            }
            What::Cancelled { token, kind } => write!(f, "{} cancels {kind:?}", name(token)),
            What::ShutDown { token, how } => write!(f, "{} shuts down: {how:?}", name(token)),
            What::Deregistered { token } => write!(f, "{} is deregistered", name(token)),
            What::Woken { port } => write!(f, "wakes port {port}"),
            What::Waits { port } => write!(f, "waits at port {port}"),
            What::Peer { peer, does, count } => write!(f, "peer {peer} {does} {count}"),
            What::Fault { fault, firing } => write!(f, "FAULT {firing}: {fault}"),
            What::Runs => f.write_str("goes on"),
            What::Said { about } => write!(f, "{about}"),
        }
    }
}

/// A session by its [`SessionId`](crate::SessionId), as that is displayed; a listener, whose token is one of the
/// last 256, by its number.
fn name(token: Token) -> String {
    match u64::MAX - token.0 {
        listener @ 0..=255 => format!("listener {listener}"),
        _ => format!("session {}.{}", token.0 & 0xff_ffff, token.0 >> 24),
    }
}
