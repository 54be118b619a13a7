//! Each direction of a stream ends by itself, and a receive that was stopped goes on where it was.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::sockets::{pair, pattern, read, read_to_end, reset, tcp_pair, write};
use super::trial::{Last, Trial};
use crate::buffer::RingBuffer;
use crate::port::{CompletionPort, Operation, OperationKind, Socket, Token};

const CROWD: usize = 41;
/// One in so many sends more than there is room for.
const LARGE_ONE_IN: usize = 8;

/// Ends of pairs, registered, with the other ends. Both kinds of pairs, or only TCP.
fn crowd<P: CompletionPort>(trial: &mut Trial<P>, only_tcp: bool) -> Vec<(Token, Socket)> {
    let other: fn() -> (Socket, Socket) = if only_tcp { tcp_pair } else { pair };
    let pairs = [tcp_pair, other].into_iter().cycle().take(CROWD).map(|pair| pair());
    pairs.map(|(ours, peer)| (trial.register(ours), peer)).collect()
}

/// Posts a receive in one of its three forms.
fn receive<P: CompletionPort>(trial: &mut Trial<P>, token: Token, form: usize) {
    let operation = match form % 3 {
        0 => Operation::Receive,
        1 => Operation::ReceiveOnce,
        _ => Operation::ReceiveInto(Box::new(RingBuffer::with_capacity(64))),
    };
    trial.post(token, operation);
}

/// Moves what came into rings to the other bytes. Returns the error that a receive ended with.
fn gather<P: CompletionPort>(trial: &mut Trial<P>, token: Token) -> Option<ErrorKind> {
    let account = trial.account(token);
    let mut error = None;
    for last in std::mem::take(&mut account.lasts) {
        error = error.or(last.error_kind());
        if let Last::ReceivedInto(mut ring, _) = last {
            account.received.extend_from_slice(ring.make_contiguous());
        }
    }
    error
}

/// Receives until so many bytes have come.
fn receive_until<P: CompletionPort>(trial: &mut Trial<P>, token: Token, form: usize, len: usize) {
    trial.drive(|trial| {
        assert_eq!(gather(trial, token), None);
        let is_all = trial.account(token).received.len() >= len;
        if !is_all && !trial.account(token).is_outstanding(OperationKind::Receive) {
            receive(trial, token, form);
        }
        is_all
    });
}

/// The end of the stream comes, and no more bytes before it.
fn receive_end<P: CompletionPort>(trial: &mut Trial<P>, token: Token, at: usize) {
    let before = trial.account(token).received.len();
    trial.drive(|trial| !trial.account(token).is_outstanding(OperationKind::Receive));
    assert_eq!(gather(trial, token), None, "number {at}");
    // It says so to who asks again, whatever the form before.
    trial.post(token, Operation::Receive);
    trial.drive(|trial| !trial.account(token).is_outstanding(OperationKind::Receive));
    let account = trial.account(token);
    assert!(matches!(account.lasts[..], [Last::Received(Ok(()))]), "{at}: {:?}", account.lasts);
    account.lasts.clear();
    assert_eq!(account.received.len(), before, "number {at}");
}

/// What is sent to the peer of this number.
fn content(at: usize) -> Vec<u8> {
    let len = if at.is_multiple_of(LARGE_ONE_IN) { 600_000 } else { 10_000 + at };
    pattern(len, at)
}

pub(super) fn a_shutdown_of_our_direction_leaves_the_receive_going<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, false);
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
    }
    trial.idle_turns();
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        trial.shutdown(*ours, Shutdown::Write);
        assert_eq!(read_to_end(peer), b"");
        trial.idle_turns();
        assert!(trial.account(*ours).is_outstanding(OperationKind::Receive), "number {at}");
    }
    for (at, (_, peer)) in crowd.iter().enumerate() {
        write(peer, &pattern(200 + at, at));
    }
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        receive_until(&mut trial, *ours, at, 200 + at);
        assert!(trial.account(*ours).received == pattern(200 + at, at), "number {at}");
        peer.shutdown(Shutdown::Write).unwrap();
        receive_end(&mut trial, *ours, at);
    }
    trial.finish();
}

pub(super) fn a_peers_end_leaves_our_sends_going_and_then_our_own_end_comes<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, false);
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
        write(peer, b"asked");
        peer.shutdown(Shutdown::Write).unwrap();
    }
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive_until(&mut trial, *ours, at, 5);
        receive_end(&mut trial, *ours, at);
    }
    for (at, (ours, _)) in crowd.iter().enumerate() {
        trial.send(*ours, &content(at));
    }
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for (at, (_, peer)) in crowd.iter().enumerate() {
                let expected = content(at);
                assert!(read(peer, expected.len()) == expected, "number {at}");
            }
        });
        for (ours, _) in &crowd {
            trial.drive_until_settled(*ours);
        }
        reading.join().unwrap();
    });
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        let lasts = &trial.account(*ours).lasts;
        assert!(matches!(&lasts[..], [Last::Sent(batch, Ok(_))] if batch.bytes() == 0), "{at}");
        trial.shutdown(*ours, Shutdown::Write);
        assert_eq!(read_to_end(peer), b"", "number {at}");
    }
    trial.finish();
}

pub(super) fn what_came_while_a_receive_was_cancelled_comes_in_order_and_so_does_the_end<P>(port: P)
where
    P: CompletionPort,
{
    const ROUNDS: usize = 4;
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, false);
    let mut written = vec![Vec::new(); CROWD];
    for round in 0..ROUNDS {
        let mut write = |at: usize, peer: &Socket, part: usize| {
            let chunk = pattern(100 * part + at + 1, at + 2 * round + part);
            write(peer, &chunk);
            written[at].extend(chunk);
        };
        for (at, (ours, peer)) in crowd.iter().enumerate() {
            receive(&mut trial, *ours, at + round);
            write(at, peer, 0);
        }
        if round % 2 == 1 {
            trial.turn(Some(Duration::ZERO));
        }
        for (ours, _) in &crowd {
            trial.cancel(*ours, OperationKind::Receive);
        }
        for (at, (ours, peer)) in crowd.iter().enumerate() {
            trial.drive_until_settled(*ours);
            assert_eq!(gather(&mut trial, *ours), None);
            write(at, peer, 1);
            if round + 1 == ROUNDS {
                peer.shutdown(Shutdown::Write).unwrap();
            }
        }
        // Turns in which the OS may report it while nothing waits for it.
        trial.idle_turns();
    }
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
    }
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive_until(&mut trial, *ours, at, written[at].len());
        assert!(trial.account(*ours).received == written[at], "number {at}");
        receive_end(&mut trial, *ours, at);
    }
    trial.finish();
}

pub(super) fn a_reset_after_a_peers_end_fails_the_next_send<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, true);
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
        peer.shutdown(Shutdown::Write).unwrap();
    }
    let mut reset_ones = Vec::new();
    for (at, (ours, peer)) in crowd.into_iter().enumerate() {
        receive_end(&mut trial, ours, at);
        trial.send(ours, b"taken");
        trial.drive_until_settled(ours);
        assert!(matches!(trial.account(ours).lasts.pop(), Some(Last::Sent(_, Ok(5)))));
        assert_eq!(read(&peer, 5), b"taken");
        reset(peer);
        reset_ones.push(ours);
    }
    for ours in &reset_ones {
        trial.send(*ours, b"not taken");
    }
    for ours in reset_ones {
        trial.drive_until_settled(ours);
        let lasts = &trial.account(ours).lasts;
        let [last @ Last::Sent(..)] = &lasts[..] else { panic!("{lasts:?}") };
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(last.error_kind().is_some_and(|kind| kinds.contains(&kind)), "{last:?}");
    }
    trial.finish();
}

pub(super) fn a_reset_after_our_own_end_fails_the_receive<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, true);
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
        trial.shutdown(*ours, Shutdown::Write);
    }
    trial.idle_turns();
    for (ours, peer) in crowd {
        assert_eq!(read_to_end(&peer), b"");
        reset(peer);
        trial.drive_until_settled(ours);
        assert_eq!(gather(&mut trial, ours), Some(ErrorKind::ConnectionReset));
    }
    trial.finish();
}

pub(super) fn a_shutdown_after_a_send_cuts_nothing_off<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let crowd = crowd(&mut trial, false);
    for (at, (ours, _)) in crowd.iter().enumerate() {
        receive(&mut trial, *ours, at);
        trial.send(*ours, &content(at));
    }
    thread::scope(|scope| {
        // Of the large ones all must be read before the send completes; of the others nothing is.
        let reading = scope.spawn(|| {
            for (at, (_, peer)) in crowd.iter().enumerate().step_by(LARGE_ONE_IN) {
                assert!(read_to_end(peer) == content(at), "number {at}");
            }
        });
        for (ours, _) in &crowd {
            trial.drive(|trial| !trial.account(*ours).is_outstanding(OperationKind::Send));
            trial.shutdown(*ours, Shutdown::Write);
        }
        reading.join().unwrap();
    });
    for (at, (ours, peer)) in crowd.iter().enumerate() {
        if !at.is_multiple_of(LARGE_ONE_IN) {
            assert!(read_to_end(peer) == content(at), "number {at}");
        }
        assert!(trial.account(*ours).is_outstanding(OperationKind::Receive), "number {at}");
    }
    trial.finish();
}
