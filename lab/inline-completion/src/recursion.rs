//! Dealt with inline by a call: the handler of a completion posts the next receive, which succeeds at
//! once, and whose handler is called there and then. In a child process, for it does not end well.

use std::fmt;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use instruments::connection;

use crate::load::CHUNK_BYTES;

/// Far more than any stack holds: so many receives are there to be had.
const RECEIVES_MAX: usize = 100_000;

/// How far a child came.
pub struct Depth {
    receives: usize,
    pub overflowed: bool,
    status: String,
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Depth { receives, status, .. } = self;
        write!(
            f,
            "after {receives} receives of one busy session in a row the process ended with {status}"
        )
    }
}

/// Runs the child.
pub fn depth() -> Depth {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let child = child.args(["--recurse", "yes"]).stderr(Stdio::null());
    let output = child.output().expect("the child");
    let receives = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    Depth {
        receives,
        overflowed: !output.status.success() && receives < RECEIVES_MAX,
        status: output.status.to_string(),
    }
}

/// The child: a line for each receive.
pub fn recurse() -> ! {
    let (socket, mut peer) = connection();
    thread::spawn(move || while peer.write_all(&[b'b'; 64 * 1024]).is_ok() {});
    // A thread as they are: a worker's stack is 2 MiB.
    let worker = thread::spawn(move || completed(&socket, RECEIVES_MAX));
    worker.join().expect("it returns, if the stack suffices");
    std::process::exit(0)
}

#[inline(never)]
fn completed(mut socket: &TcpStream, left: usize) {
    let mut bytes = [0; CHUNK_BYTES];
    if left == 0 || !matches!(socket.read(&mut bytes), Ok(1..)) {
        return;
    }
    std::io::stdout().write_all(b"\n").expect("the parent");
    completed(socket, left - 1);
    black_box(&bytes);
}
