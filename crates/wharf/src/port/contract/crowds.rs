//! Many operations at once, small queues, few buffers, and reuse.

use std::sync::LazyLock;
use std::time::Duration;

use super::sockets::{fill_all, pair, pairs_within_limit, pattern, read, write};
use super::trial::{Last, Trial};
use crate::buffer::RingBuffer;
use crate::port::{CompletionPort, Operation, OperationKind, Token};
use crate::sync::Mutex;

/// Held by tests that take descriptors by the hundred or more.
static DESCRIPTORS: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// Drives until all are settled, looking at each only once.
fn drive_until_all_settled<P: CompletionPort>(trial: &mut Trial<P>, tokens: &[Token]) {
    for &token in tokens {
        trial.drive_until_settled(token);
    }
}

pub(super) fn ten_thousand_operations_are_outstanding_and_all_complete<P>(port: P)
where
    P: CompletionPort,
{
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let mut tokens = Vec::new();
    for _ in 0..pairs_within_limit(5_000) {
        let (left, right) = pair();
        for end in [left, right] {
            let token = trial.register(end);
            trial.post(token, Operation::Receive);
            tokens.push(token);
        }
    }
    trial.idle_turns();
    for (at, &token) in tokens.iter().enumerate() {
        trial.send(token, &at.to_le_bytes());
    }
    for (at, &token) in tokens.iter().enumerate() {
        // The other end of the pair wrote its own number.
        let expected = (at ^ 1).to_le_bytes();
        trial.drive(|trial| {
            let account = trial.account(token);
            account.received.len() == expected.len() && !account.is_outstanding(OperationKind::Send)
        });
        let account = trial.account(token);
        assert_eq!(account.received, expected);
        assert!(account.is_outstanding(OperationKind::Receive));
    }
    for &token in &tokens {
        trial.cancel(token, OperationKind::Receive);
    }
    drive_until_all_settled(&mut trial, &tokens);
    for &token in &tokens {
        let lasts = &trial.account(token).lasts;
        assert!(matches!(lasts[..], [Last::Sent(..), _]) && lasts[1].is_cancelled(), "{lasts:?}");
        trial.deregister(token);
    }
    trial.finish();
}

pub(super) fn receives_that_find_no_buffer_lose_nothing_when_posted_again<P>(port: P)
where
    P: CompletionPort,
{
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let content: Vec<_> = (0..64).map(|seed| pattern(64 * 1024, seed)).collect();
    let mut peers = Vec::new();
    let mut tokens = Vec::new();
    for content in &content {
        let (ours, peer) = pair();
        write(&peer, content);
        tokens.push(trial.register(ours));
        peers.push(peer);
    }
    // Everything is waiting for all; `turn` posts again those that find no buffer.
    for &token in &tokens {
        trial.post(token, Operation::Receive);
    }
    for (&token, content) in tokens.iter().zip(&content) {
        trial.drive(|trial| trial.account(token).received.len() >= content.len());
        assert!(trial.account(token).received == *content);
    }
    drop(peers);
    drive_until_all_settled(&mut trial, &tokens);
    let ledger = trial.finish();
    println!("{} receives found no buffer", ledger.exhausted);
}

pub(super) fn hundreds_of_operations_posted_between_two_waits_all_complete<P>(port: P)
where
    P: CompletionPort,
{
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let pairs: Vec<_> = (0..300)
        .map(|_| {
            let (ours, peer) = pair();
            (trial.register(ours), peer)
        })
        .collect();
    for round in 0..3 {
        for (at, (ours, peer)) in pairs.iter().enumerate() {
            write(peer, &pattern(10, at + round));
            if at % 2 == 0 {
                trial.post(*ours, Operation::Receive);
            } else {
                let ring = Box::new(RingBuffer::with_capacity(16));
                trial.post(*ours, Operation::ReceiveInto(ring));
            }
            trial.send(*ours, &pattern(20, at + round));
        }
        for (at, (ours, peer)) in pairs.iter().enumerate() {
            trial.drive(|trial| {
                let account = trial.account(*ours);
                let is_received = match at % 2 {
                    0 => account.received.len() == 10,
                    _ => !account.is_outstanding(OperationKind::Receive),
                };
                is_received && !account.is_outstanding(OperationKind::Send)
            });
            assert_eq!(read(peer, 20), pattern(20, at + round));
            trial.cancel(*ours, OperationKind::Receive);
            trial.drive_until_settled(*ours);
            let account = trial.account(*ours);
            for last in account.lasts.drain(..) {
                if let Last::ReceivedInto(mut ring, Ok(_)) = last {
                    account.received.extend_from_slice(ring.make_contiguous());
                }
            }
            assert_eq!(account.received, pattern(10, at + round));
            account.received.clear();
        }
    }
    trial.finish();
}

pub(super) fn hundreds_of_completions_that_come_at_once_all_arrive<P: CompletionPort>(port: P) {
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let mut pairs = Vec::new();
    for _ in 0..400 {
        let (ours, peer) = pair();
        let ours = trial.register(ours);
        trial.post(ours, Operation::Receive);
        pairs.push((ours, peer));
    }
    trial.idle_turns();
    for round in 1..=3 {
        for (at, (_, peer)) in pairs.iter().enumerate() {
            write(peer, &pattern(10, at));
        }
        for (at, (ours, _)) in pairs.iter().enumerate() {
            trial.drive(|trial| trial.account(*ours).received.len() == 10 * round);
            assert!(trial.account(*ours).received.chunks(10).all(|c| c == pattern(10, at)));
        }
    }
    // Bytes and the end at once.
    let tokens: Vec<_> = pairs.iter().map(|(ours, _)| *ours).collect();
    for (_, peer) in pairs {
        write(&peer, b"the last of it");
    }
    drive_until_all_settled(&mut trial, &tokens);
    for token in tokens {
        let account = trial.account(token);
        assert!(account.received.ends_with(b"the last of it"));
        assert!(matches!(account.lasts[..], [Last::Received(Ok(()))]), "{:?}", account.lasts);
    }
    trial.finish();
}

/// Every lent byte is overwritten with this, which appears in no pattern.
const WRITTEN_OVER: u8 = 0xFF;

/// Whatever is written over lent bytes, no other session and no later receive sees it.
pub(super) fn lent_bytes_are_written_over_and_nobody_else_sees_it<P: CompletionPort>(port: P) {
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let mut pairs = Vec::new();
    for _ in 0..300 {
        let (ours, peer) = pair();
        let ours = trial.register(ours);
        trial.post(ours, Operation::Receive);
        pairs.push((ours, peer));
    }
    let ways: [fn(&mut [u8]); 3] = [
        |bytes| bytes.fill(WRITTEN_OVER),
        |bytes| bytes[0] = WRITTEN_OVER,
        |bytes| bytes[bytes.len() - 1] = WRITTEN_OVER,
    ];
    for round in 0..9 {
        trial.ledger.writes_over = Some(ways[round % ways.len()]);
        // Every length up to some hundred, and a few streams.
        let sent = |at: usize| {
            let len = if at.is_multiple_of(32) { 50_000 } else { (at * 7 + round) % 700 + 1 };
            let mut sent = pattern(len, at + round);
            sent.iter_mut().for_each(|byte| *byte %= WRITTEN_OVER);
            sent
        };
        for (at, (_, peer)) in pairs.iter().enumerate() {
            write(peer, &sent(at));
        }
        for (at, (ours, _)) in pairs.iter().enumerate() {
            let sent = sent(at);
            trial.drive(|trial| trial.account(*ours).received.len() >= sent.len());
            let received = std::mem::take(&mut trial.account(*ours).received);
            assert!(received == sent, "round {round}, session {at}");
        }
    }
    let tokens: Vec<_> = pairs.iter().map(|(ours, _)| *ours).collect();
    drop(pairs);
    drive_until_all_settled(&mut trial, &tokens);
    trial.finish();
}

/// The same with few buffers, so that each is soon lent again.
pub(super) fn few_lent_bytes_are_written_over_and_nobody_else_sees_it<P: CompletionPort>(port: P) {
    lent_bytes_are_written_over_and_nobody_else_sees_it(port);
}

pub(super) fn hundreds_of_operations_cancelled_at_once_all_complete<P: CompletionPort>(port: P) {
    let _alone = DESCRIPTORS.lock();
    let mut trial = Trial::of(port);
    let mut tokens = Vec::new();
    let mut peers = Vec::new();
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    fill_all(&pairs.iter().map(|(ours, _)| ours).collect::<Vec<_>>());
    for (ours, peer) in pairs {
        let ours = trial.register(ours);
        trial.post(ours, Operation::Receive);
        trial.send(ours, b"stuck");
        tokens.push(ours);
        peers.push(peer);
    }
    trial.idle_turns();
    for &token in &tokens {
        trial.cancel(token, OperationKind::Send);
        trial.cancel(token, OperationKind::Receive);
    }
    drive_until_all_settled(&mut trial, &tokens);
    for token in tokens {
        let lasts = &trial.account(token).lasts;
        assert!(lasts.len() == 2 && lasts.iter().all(Last::is_cancelled), "{lasts:?}");
    }
    trial.finish();
}

pub(super) fn a_registration_used_again_sees_nothing_of_the_one_before<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    for round in 0..500 {
        let (old, old_peer) = pair();
        let descriptor_of_old = old.try_clone().unwrap();
        let old = trial.register(old);
        trial.post(old, Operation::Receive);
        if round % 3 == 0 {
            trial.turn(Some(Duration::ZERO));
        }
        write(&old_peer, b"old");
        trial.cancel(old, OperationKind::Receive);
        trial.drive_until_settled(old);
        drop(trial.deregister(old));
        // The old socket is still open elsewhere, and more happens to it.
        write(&old_peer, b"old");
        if round % 2 == 0 {
            drop(old_peer);
        }

        let (new, new_peer) = pair();
        let new = trial.register(new);
        trial.post(new, Operation::Receive);
        trial.idle_turns();
        drop(descriptor_of_old);
        trial.idle_turns();
        assert!(trial.account(new).received.is_empty(), "bytes of another socket");
        assert!(trial.account(new).lasts.is_empty(), "the end of another socket");
        write(&new_peer, b"new");
        trial.drive(|trial| trial.account(new).received == b"new");
        trial.cancel(new, OperationKind::Receive);
        trial.drive_until_settled(new);
        trial.deregister(new);
    }
    trial.finish();
}

pub(super) fn a_socket_registered_again_goes_on_where_it_was<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (mut ours, peer) = pair();
    let (mut written, mut received) = (Vec::new(), Vec::new());
    for round in 0..500 {
        let token = trial.register(ours);
        trial.post(token, Operation::Receive);
        let chunk = pattern(round % 60 + 1, round);
        write(&peer, &chunk);
        written.extend(chunk);
        match round % 4 {
            0 => {}
            1 => trial.turn(Some(Duration::ZERO)),
            // Takes everything that has come so far.
            _ => trial.drive(|trial| {
                received.len() + trial.account(token).received.len() == written.len()
            }),
        }
        trial.cancel(token, OperationKind::Receive);
        trial.drive_until_settled(token);
        received.append(&mut trial.account(token).received);
        ours = trial.deregister(token);
    }
    let token = trial.register(ours);
    trial.post(token, Operation::Receive);
    drop(peer);
    trial.drive_until_settled(token);
    received.append(&mut trial.account(token).received);
    assert!(received == written, "{} of {} bytes", received.len(), written.len());
    trial.finish();
}
