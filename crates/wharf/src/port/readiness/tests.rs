//! Tests of what only this port does.

use std::time::Duration;

use super::ReadinessPort;
use crate::port::contract::sockets::{tcp_pair, write, write_urgent};
use crate::port::{Completion, CompletionPort, Operation, Outcome, Registration, Token};

/// One wait: returns what was received.
fn received(port: &mut ReadinessPort) -> Vec<u8> {
    let mut received = Vec::new();
    let take = |completion: Completion<'_>| match completion.outcome {
        Outcome::Received(Ok(bytes)) => received.extend_from_slice(bytes),
        outcome => panic!("{outcome:?}"),
    };
    port.wait(Some(Duration::ZERO), &mut { take }).unwrap();
    received
}

/// Whether another read follows one that brought something.
fn reads_on(port: &ReadinessPort, of: Registration) -> bool {
    port.slots[of.0 as usize].record.as_ref().unwrap().is_ready()
}

/// Reading until it would block costs a system call per message.
#[test]
fn only_who_has_sent_urgent_data_is_read_until_it_would_block() {
    let mut port = ReadinessPort::new().unwrap();
    let (ours, peer) = tcp_pair();
    let ours = port.register(ours, Token(1)).unwrap();
    port.post(ours, Operation::Receive).unwrap();
    for _ in 0..3 {
        write(&peer, b"AAAA");
        assert_eq!(received(&mut port), b"AAAA");
        assert!(!reads_on(&port, ours));
        write(&peer, b"AAAA");
        write_urgent(&peer);
        write(&peer, b"BBBB");
        assert_eq!(received(&mut port), b"AAAA");
        assert!(reads_on(&port, ours));
        assert_eq!(received(&mut port), b"BBBB");
        assert_eq!(received(&mut port), b"");
        assert!(!reads_on(&port, ours));
    }
}
