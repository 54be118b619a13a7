//! The arguments that every server takes.

use std::net::SocketAddr;
use std::process::exit;

/// What a server is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Sends back what comes in.
    Echo,
    /// Frames. A session that says hello is a member; every other frame goes to all members.
    Broadcast,
    /// Frames. When all sessions have said hello, threads of the server send to them at random.
    SendById,
    /// Messages of a WebSocket. Each goes back as it came.
    WsEcho,
    /// As `Broadcast`, with a WebSocket's messages for frames.
    WsBroadcast,
}

/// `--listen ADDR --workload NAME`, and for `send-by-id` also `--sessions N --senders N --rate R`.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub listen: SocketAddr,
    pub workload: Workload,
    /// How many sessions say hello before the senders begin.
    pub sessions: usize,
    /// How many threads send.
    pub senders: usize,
    /// Frames a second of all senders together; 0 is as fast as it goes.
    pub rate: f64,
    /// What else was given: each server's own.
    pub others: Vec<String>,
}

impl Arguments {
    /// Those of the command line. Whoever gives wrong ones is told which, and the process ends.
    pub fn from_command_line() -> Arguments {
        Arguments::parse(std::env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            exit(2)
        })
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            workload: Workload::Echo,
            sessions: 1000,
            senders: 1,
            rate: 0.0,
            others: Vec::new(),
        };
        while let Some(name) = words.next() {
            if !["--listen", "--workload", "--sessions", "--senders", "--rate"].contains(&&*name) {
                arguments.others.push(name);
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
            let wrong = |error: &dyn std::fmt::Display| format!("{name} {value}: {error}");
            match &*name {
                "--listen" => arguments.listen = value.parse().map_err(|e| wrong(&e))?,
                "--sessions" => arguments.sessions = value.parse().map_err(|e| wrong(&e))?,
                "--senders" => arguments.senders = value.parse().map_err(|e| wrong(&e))?,
                "--rate" => arguments.rate = value.parse().map_err(|e| wrong(&e))?,
                _ => {
                    arguments.workload = match &*value {
                        "echo" => Workload::Echo,
                        "broadcast" => Workload::Broadcast,
                        "send-by-id" => Workload::SendById,
                        "ws-echo" => Workload::WsEcho,
                        "ws-broadcast" => Workload::WsBroadcast,
                        _ => return Err(wrong(&"no such workload")),
                    }
                }
            }
        }
        Ok(arguments)
    }

    /// Whether a word of the server's own was given.
    pub fn has(&self, word: &str) -> bool {
        self.others.iter().any(|other| other == word)
    }

    /// Ends the process: this server has no such workload.
    pub fn refuse(&self) -> ! {
        eprintln!("error: this server does not do {:?}", self.workload);
        exit(2)
    }
}

/// What the harness waits for: the first line of a server.
pub fn announce(address: SocketAddr) {
    println!("listening on {address}");
}
