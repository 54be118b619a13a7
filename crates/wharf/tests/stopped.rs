//! A server that was stopped and continued, or frozen with its container, ends nobody who has spoken
//! meanwhile. The server is a process of its own here.

#![cfg(unix)]
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::*;
use wharf::{Backend, Framing};

const LIMIT: Duration = Duration::from_secs(1);
/// More than the kernel would keep in one go for any port.
const CROWD: usize = 1_100;
/// Which port the server in the child uses.
const BACKEND: &str = "WHARF_TEST_STOPPED_BACKEND";
const ADDRESS: &str = "it listens on ";

/// What the child runs: a server, for as long as its input is open.
#[test]
#[ignore = "runs in a process of its own, which the other tests start"]
fn a_server_in_a_process_of_its_own() {
    let backend: Backend = std::env::var(BACKEND).unwrap().parse().unwrap();
    let options = one_worker().with(|options| {
        options.time.idle_timeout = Some(LIMIT);
    });
    let harness = start(backend, Framing::raw(), options, Behaviour::echo());
    println!("\n{ADDRESS}{}", harness.address());
    std::io::stdin().lines().count();
    assert_eq!(harness.handle.stats().closed, 0);
    harness.finish();
}

/// Ends it, whatever becomes of the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

on_every_backend! {
    fn a_crowd_that_speaks_while_the_server_is_stopped_is_there_when_it_goes_on(backend) {
        let mut server = Process(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_server_in_a_process_of_its_own", "--ignored", "--nocapture"])
                .env(BACKEND, backend.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let says = BufReader::new(server.0.stdout.take().unwrap());
        let mut lines = says.lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix(ADDRESS).map(str::to_owned));
        let address = address.unwrap().parse().unwrap();
        let mut peers = Vec::new();
        while peers.len() < CROWD {
            let more = || (0..100).map(|_| connect(address)).collect::<Vec<_>>();
            peers.extend(while_all_speak(&peers, b"x", LIMIT / 5, more));
        }
        while_all_speak(&peers, b"x", LIMIT / 5, || {
            server.signal(Signal::STOP);
            std::thread::sleep(3 * LIMIT); // so long it is stopped
            server.signal(Signal::CONT);
            for mut peer in &peers {
                write(peer, b"!");
                let mut answers = [0; 4_096];
                while !answers.contains(&b'!') {
                    let count = peer.read(&mut answers).unwrap();
                    assert!(count > 0, "the server has ended it");
                }
            }
        });
        drop(server.0.stdin.take());
        assert!(lines.any(|line| line.contains("1 passed")), "the server has ended somebody");
        drop(peers);
    }
}
