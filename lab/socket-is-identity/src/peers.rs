//! The peers: each connects, says its name, and then leaves at once or waits for its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::NAME_BYTES;

const THREADS: u64 = 16;
/// An answer that has not come by then will not come.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the peers saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub sessions: u64,
    /// Answers with the reader's own name.
    pub own: u64,
    /// Answers with another's.
    pub strangers: u64,
}

/// Runs all peers in a child process: in this one their descriptors would be among the server's.
pub fn start_and_wait(address: SocketAddr) -> Seen {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(std::env::args().skip(1)).arg("--peers").arg(address.to_string());
    let output = child.stderr(Stdio::inherit()).output().expect("the peers");
    assert!(output.status.success(), "the peers failed");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    let mut next = || numbers.next().expect("three numbers");
    Seen { sessions: next(), own: next(), strangers: next() }
}

/// The child's part: prints the three numbers.
pub fn run(address: SocketAddr, peers_each: u64) {
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| thread::spawn(move || one_after_another(address, thread, peers_each)))
        .collect();
    let mut sum = Seen::default();
    for thread in threads {
        let seen = thread.join().expect("a peer's thread");
        sum.sessions += seen.sessions;
        sum.own += seen.own;
        sum.strangers += seen.strangers;
    }
    println!("{} {} {}", sum.sessions, sum.own, sum.strangers);
}

fn one_after_another(address: SocketAddr, thread: u64, peers_each: u64) -> Seen {
    let mut seen = Seen::default();
    for peer in 0..peers_each {
        let name = thread << 32 | peer;
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        if stream.write_all(&name.to_le_bytes()).is_err() {
            continue;
        }
        seen.sessions += 1;
        let leaves_at_once = peer % 2 == 0;
        if !leaves_at_once {
            read_answers(&mut stream, name, &mut seen);
        }
    }
    seen
}

fn read_answers(stream: &mut TcpStream, name: u64, seen: &mut Seen) {
    let until = Instant::now() + PATIENCE;
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut answer = [0; NAME_BYTES];
    while Instant::now() < until {
        match stream.read_exact(&mut answer) {
            Ok(()) if u64::from_le_bytes(answer) == name => {
                seen.own += 1;
                return;
            }
            Ok(()) => seen.strangers += 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
