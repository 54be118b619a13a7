//! What happens when a session is known by the number of its socket?
//!
//! A server owes each of its sessions an answer, which comes a little later, from a thread of its
//! own that has kept nothing of the session but its key. Half of the peers have left by then. In the
//! first server the key is the descriptor, which the kernel gives to the next connection; the second
//! is wharf, whose key is the SessionId. The peers, in a process of their own, count the answers that
//! were meant for others.

#[cfg(unix)]
mod by_descriptor;
#[cfg(unix)]
mod by_session_id;
#[cfg(unix)]
mod peers;

/// How long an answer takes.
#[cfg(unix)]
const ANSWER_AFTER: std::time::Duration = std::time::Duration::from_millis(5);
/// A request is the peer's name, and so is the answer to it.
#[cfg(unix)]
const NAME_BYTES: usize = 8;

/// What became of the answers, as the server sees it.
#[cfg(unix)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Answers {
    /// Taken by a session, whoever's.
    delivered: u64,
    /// Refused: there is nothing with that key.
    refused: u64,
}

#[cfg(unix)]
fn main() {
    use instruments::{Table, grouped, is_quick, option, verdict};

    let peers_each = if is_quick() { 60 } else { 600 };
    if let Some(address) = option("peers") {
        return peers::run(address.parse().expect("an address"), peers_each);
    }

    let mut table = Table::new([
        "key",
        "sessions",
        "answers",
        "refused",
        "reached its own",
        "reached nobody",
        "reached a STRANGER",
    ]);
    let mut strangers = Vec::new();
    for (key, serve) in [
        ("descriptor", by_descriptor::serve as fn(fn(std::net::SocketAddr) -> peers::Seen) -> _),
        ("SessionId", by_session_id::serve),
    ] {
        let (answers, seen): (Answers, peers::Seen) = serve(peers::start_and_wait);
        let reached = seen.own + seen.strangers;
        table.row([
            key.to_owned(),
            grouped(seen.sessions),
            grouped(answers.delivered + answers.refused),
            grouped(answers.refused),
            grouped(seen.own),
            // Taken by a session whose peer left before it read: nobody was harmed, by luck.
            grouped(answers.delivered.saturating_sub(reached)),
            grouped(seen.strangers),
        ]);
        strangers.push(seen.strangers);
    }
    println!("{table}");
    verdict(
        strangers[0] > 0 && strangers[1] == 0,
        "answers reach strangers by a descriptor, and none by a SessionId",
    );
}

#[cfg(not(unix))]
fn main() {
    instruments::not_here(
        "it is about descriptors of Unix, the lowest free of which is given out next",
    );
}
