//! What the load tester says of servers that do not echo what they got.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::running::{Output, run};

/// What a server does at byte [`AT`] of each connection's stream.
#[derive(Clone, Copy)]
enum Mischief {
    Corrupt,
    Drop,
    Add,
    Close,
    Swallow,
}

/// In the middle of a message of 64 bytes.
const AT: usize = 1000;

/// Serves until the test's process ends.
fn serve(mischief: Mischief) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for peer in listener.incoming() {
            thread::spawn(move || misbehave(peer.unwrap(), mischief));
        }
    });
    address
}

fn misbehave(mut peer: TcpStream, mischief: Mischief) {
    peer.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    let mut position = 0;
    while let Ok(count @ 1..) = peer.read(&mut buffer) {
        let mut reply = buffer[..count].to_vec();
        if let Some(at) = AT.checked_sub(position).filter(|at| *at < count) {
            match mischief {
                Mischief::Corrupt => reply[at] ^= 1,
                Mischief::Drop => drop(reply.remove(at)),
                Mischief::Add => reply.insert(at, 0xAA),
                Mischief::Close => return,
                Mischief::Swallow => reply.truncate(at),
            }
        }
        position += count;
        let swallowed = matches!(mischief, Mischief::Swallow) && position > AT;
        if (!swallowed || position <= AT + count) && peer.write_all(&reply).is_err() {
            return;
        }
    }
}

fn load(mode: &str, mischief: Mischief, bytes: &str) -> Output {
    let target = serve(mischief).to_string();
    let output = run(&["load", mode, "--bytes", bytes, "--secs", "0.5", "--target", &target]);
    assert_eq!(output.code, Some(1), "{output:?}");
    output
}

#[test]
fn a_corrupted_byte_is_a_wrong_byte_at_its_place() {
    let output = load("echo", Mischief::Corrupt, "64");
    assert!(output.stdout.contains("wrong byte: 1\n"), "{output:?}");
    assert!(output.stdout.contains("wrong byte at 1000 of the stream"), "{output:?}");
}

#[test]
fn a_dropped_byte_is_a_missing_byte() {
    let output = load("echo", Mischief::Drop, "64");
    assert!(output.stdout.contains("missing byte: 1\n"), "{output:?}");
}

#[test]
fn an_added_byte_is_an_extra_byte() {
    let output = load("echo", Mischief::Add, "64");
    assert!(output.stdout.contains("extra byte: 1\n"), "{output:?}");
}

#[test]
fn an_early_end_is_told_with_its_reason() {
    let output = load("echo", Mischief::Close, "64");
    assert!(output.stdout.contains("session 0 ended early: peer closed"), "{output:?}");
}

#[test]
fn a_reply_that_does_not_come_is_unanswered() {
    let output = load("echo", Mischief::Swallow, "64");
    assert!(output.stdout.contains("unanswered: 1\n"), "{output:?}");
}

#[test]
fn churn_and_idle_verify_too() {
    // Messages that reach to the mischief.
    let output = load("churn", Mischief::Corrupt, "1064");
    assert!(output.stdout.contains("wrong byte: "), "{output:?}");
    let output = load("churn", Mischief::Close, "1064");
    assert!(output.stdout.contains("ended early: peer closed: "), "{output:?}");
    // Only the message after the sitting reaches so far.
    let output = load("idle", Mischief::Add, "564");
    assert!(output.stdout.contains("extra byte: "), "{output:?}");
}

#[test]
fn a_target_where_nobody_listens_is_said_to_refuse() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for mode in ["echo", "churn", "idle"] {
        let output = run(&["load", mode, "--secs", "0.5", "--target", &target]);
        assert_eq!(output.code, Some(1), "{output:?}");
        let says = format!("cannot connect to {target}: ");
        let said = output.stdout.lines().find(|line| line.contains(&says));
        // Each system has its own words for it, and all have this one.
        assert!(said.is_some_and(|line| line.contains("refused")), "{output:?}");
    }
}
