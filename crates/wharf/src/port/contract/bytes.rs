//! Bytes arrive completely, in order and once, and so does their end.

use std::thread;
use std::time::Duration;

use super::sockets::{
    BOUND, deaf_socket, fill, full_listener, pair, pattern, read, tcp_pair, write, write_urgent,
};
use super::trial::{Last, Trial};
use crate::buffer::RingBuffer;
use crate::port::{Completion, CompletionPort, Operation, OperationKind, Outcome, Sink, Token};

/// Waits for the last completion of a `ReceiveInto`, and takes it.
fn ring_back<P: CompletionPort>(trial: &mut Trial<P>, token: Token) -> (Box<RingBuffer>, usize) {
    trial.drive_until_settled(token);
    match trial.account(token).lasts.pop() {
        Some(Last::ReceivedInto(ring, Ok(count))) => (ring, count),
        last => panic!("{last:?}"),
    }
}

fn is_sent<P: CompletionPort>(trial: &mut Trial<P>, token: Token) -> bool {
    !trial.account(token).is_outstanding(OperationKind::Send)
}

pub(super) fn the_end_of_a_stream_is_zero_bytes_after_all_that_came_before_it<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let tail = pattern(150_000, 1);
    for pair in [pair, tcp_pair] {
        // The bytes and the end come while the receive is outstanding, or before it is posted.
        for posted_first in [true, false] {
            let (ours, peer) = pair();
            let ours = trial.register(ours);
            if posted_first {
                trial.post(ours, Operation::Receive);
                trial.idle_turns();
            }
            let sent = if posted_first { &tail[..] } else { &tail[..5_000] };
            thread::scope(|scope| {
                let writing = scope.spawn(move || write(&peer, sent));
                if !posted_first {
                    writing.join().unwrap();
                    trial.idle_turns();
                    trial.post(ours, Operation::Receive);
                }
                trial.drive_until_settled(ours);
            });
            let account = trial.account(ours);
            assert!(account.received == sent, "{} bytes", account.received.len());
            assert!(matches!(account.lasts[..], [Last::Received(Ok(()))]), "{:?}", account.lasts);
        }

        let (ours, peer) = pair();
        let ours = trial.register(ours);
        write(&peer, &tail[..100]);
        drop(peer);
        let mut ring = Box::new(RingBuffer::with_capacity(64));
        let (mut received, mut counts) = (Vec::new(), Vec::new());
        while counts.last() != Some(&0) {
            trial.post(ours, Operation::ReceiveInto(ring));
            let (back, count) = ring_back(&mut trial, ours);
            ring = back;
            received.extend_from_slice(ring.make_contiguous());
            ring.consume(ring.len());
            counts.push(count);
        }
        assert_eq!((&received[..], &counts[..]), (&tail[..100], &[64, 36, 0][..]));
    }
    trial.finish();
}

pub(super) fn the_end_of_a_stream_is_told_again_to_who_asks_again<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = tcp_pair();
    let ours = trial.register(ours);
    drop(peer);
    for _ in 0..5 {
        trial.post(ours, Operation::Receive);
        trial.drive_until_settled(ours);
        assert!(matches!(trial.account(ours).lasts.pop(), Some(Last::Received(Ok(())))));
        trial.post(ours, Operation::ReceiveInto(Box::new(RingBuffer::with_capacity(8))));
        let (ring, count) = ring_back(&mut trial, ours);
        assert_eq!((ring.len(), count), (0, 0));
    }
    trial.finish();
}

pub(super) fn an_end_that_came_with_the_connection_is_seen<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (mut full, address) = full_listener();
    let (client, ours) = deaf_socket();
    let client = trial.register(client);
    trial.post(client, Operation::Connect(Box::new(address.into())));
    trial.idle_turns();
    // The fillers of the backlog leave, so that they do not compete with the client for the room made by the
    // accepts below. On Linux the client is connected only now, between two waits, when it retries. Elsewhere
    // it may be connected already.
    full.truncate(1);
    loop {
        let (served, peer) = full[0].accept().unwrap();
        if peer == Some(ours) {
            write(&served, b"all there is");
            break;
        }
        full.push(served);
    }
    trial.drive_until_settled(client);
    trial.post(client, Operation::Receive);
    trial.drive_until_settled(client);
    let account = trial.account(client);
    assert_eq!(account.received, b"all there is");
    let [Last::Connected(Ok(Some(_))), Last::Received(Ok(()))] = account.lasts[..] else {
        panic!("{:?}", account.lasts)
    };
    trial.finish();
}

pub(super) fn an_empty_batch_is_sent_as_zero_bytes<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = tcp_pair();
    let ours = trial.register(ours);
    for _ in 0..3 {
        trial.send(ours, b"");
        trial.drive_until_settled(ours);
        let Some(Last::Sent(batch, Ok(0))) = trial.account(ours).lasts.pop() else {
            panic!("not sent")
        };
        assert_eq!(batch.bytes(), 0);
    }
    trial.send(ours, b"some");
    trial.drive_until_settled(ours);
    assert_eq!(read(&peer, 4), b"some");
    trial.finish();
}

pub(super) fn a_send_that_left_in_part_goes_on_where_it_stopped<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let content = pattern(3_000_000, 2);
    for pair in [pair, tcp_pair] {
        let (ours, peer) = pair();
        let ours = trial.register(ours);
        trial.send(ours, &content);
        trial.idle_turns();
        assert!(!is_sent(&mut trial, ours), "there is not so much room");
        let read = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut bytes = Vec::new();
                // A slow reader: small steps of many sizes.
                for step in (1..).map(|step| step * 37 % 9_000 + 1) {
                    let left = content.len() - bytes.len();
                    if left == 0 {
                        return bytes;
                    }
                    bytes.extend(read(&peer, step.min(left)));
                    thread::yield_now();
                }
                bytes
            });
            trial.drive(|trial| is_sent(trial, ours));
            reading.join().unwrap()
        });
        assert!(read == content, "what was sent is what arrives");
        assert_eq!(trial.account(ours).sent, content.len());
        assert!(
            matches!(&trial.account(ours).lasts[..], [Last::Sent(batch, Ok(_))] if batch.bytes() == 0)
        );
    }
    trial.finish();
}

pub(super) fn a_stuck_send_goes_on_when_there_is_room<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    for pair in [pair, tcp_pair] {
        let (ours, peer) = pair();
        let mut filled = fill(&ours);
        let ours = trial.register(ours);
        for round in 0..20 {
            let next = pattern(200_000, round);
            // The room may come before the send is posted, when nothing waits for it.
            if round % 2 == 1 {
                assert_eq!(read(&peer, filled.len()), filled);
                filled.clear();
                trial.idle_turns();
            }
            trial.send(ours, &next);
            trial.idle_turns();
            filled.extend(next);
            let kept = filled.split_off(filled.len() - 10_000);
            let peer = &peer;
            thread::scope(|scope| {
                let reading = scope.spawn(move || read(peer, filled.len()) == filled);
                trial.drive(|trial| is_sent(trial, ours));
                assert!(reading.join().unwrap(), "round {round}");
            });
            filled = kept;
        }
    }
    trial.finish();
}

pub(super) fn what_is_handed_over_with_what_came_goes_before_what_is_sent<P: CompletionPort>(
    port: P,
) {
    let mut trial = Trial::of(port);
    for pair in [pair, tcp_pair] {
        let (ours, peer) = pair();
        let ours = trial.register(ours);
        trial.post(ours, Operation::Receive);
        let (little, much) = (pattern(5_000, 1), pattern(3_000_000, 2)); // more than there is room for
        trial.account(ours).reply = little.clone();
        write(&peer, b"1");
        trial.drive(|trial| trial.account(ours).received == b"1");
        let Some(taken) = trial.account(ours).taken.take() else {
            assert!(P::SHARED, "there is no way back");
            return;
        };
        assert!((1..=little.len()).contains(&taken));
        assert_eq!(read(&peer, taken), little[..taken]);
        trial.account(ours).reply = much.clone();
        write(&peer, b"2");
        trial.drive(|trial| trial.account(ours).received == b"12");
        let taken = trial.account(ours).taken.take().expect("the way back");
        assert!((1..much.len()).contains(&taken), "{taken}");
        // Both are there at the next wait.
        write(&peer, b"3");
        trial.send(ours, &much[taken..]);
        trial.drive(|trial| trial.account(ours).received == b"123");
        thread::scope(|scope| {
            let reading = scope.spawn(|| assert!(read(&peer, much.len()) == much));
            trial.drive(|trial| is_sent(trial, ours));
            reading.join().unwrap();
        });
    }
    trial.finish();
}

pub(super) fn room_that_came_while_no_send_was_outstanding_is_used<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    for pair in [pair, tcp_pair] {
        let (ours, peer) = pair();
        let ours = trial.register(ours);
        for round in 0..10 {
            // More than there is room for; the rest is given up.
            let before = trial.account(ours).sent;
            trial.send(ours, &pattern(3_000_000, round));
            trial.idle_turns();
            trial.cancel(ours, OperationKind::Send);
            trial.drive_until_settled(ours);
            let left = trial.account(ours).sent - before;
            assert!(read(&peer, left) == pattern(3_000_000, round)[..left]);
            // Turns in which the OS may report the room while nothing waits for it.
            trial.idle_turns();
            trial.send(ours, b"next");
            trial.drive(|trial| is_sent(trial, ours));
            assert_eq!(read(&peer, 4), b"next");
        }
    }
    trial.finish();
}

pub(super) fn many_pieces_leave_in_their_order<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = tcp_pair();
    let ours = trial.register(ours);
    // 2 KiB, 16 KiB and then pieces of 64 KiB: more than leave in one call of the OS.
    let content = pattern(40 * 64 * 1024, 9);
    let mut many = Box::<crate::buffer::SendBatch>::default();
    for frame in content.chunks(7_777) {
        let (head, body) = frame.split_at(frame.len().min(4));
        many.push_frame([head, body]);
    }
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    assert!(many.gather(&mut slices) > 32, "this is about many pieces");
    trial.post(ours, Operation::Send(many));
    thread::scope(|scope| {
        let reading = scope.spawn(|| read(&peer, content.len()) == content);
        trial.drive(|trial| is_sent(trial, ours));
        assert!(reading.join().unwrap(), "every piece in its place");
    });
    trial.finish();
}

pub(super) fn a_receive_fills_both_free_segments_of_a_wrapped_ring<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    for there_before in [true, false] {
        let mut ring = Box::new(RingBuffer::with_capacity(16));
        ring.write(b"0123456789ab");
        ring.consume(8);
        assert_eq!(ring.free_segments().map(|segment| segment.len()), [4, 8]);
        if there_before {
            write(&peer, b"cdefghijkl");
        }
        trial.post(ours, Operation::ReceiveInto(ring));
        if !there_before {
            trial.idle_turns();
            write(&peer, b"cdefghijkl");
        }
        let (ring, count) = ring_back(&mut trial, ours);
        assert_eq!((count, ring.len()), (10, 14));
        assert_eq!(ring.filled_segments(), [&b"89abcdef"[..], b"ghijkl"]);
    }
    trial.finish();
}

pub(super) fn a_ring_takes_no_more_than_it_has_room_for_and_the_rest_waits<P: CompletionPort>(
    port: P,
) {
    let mut trial = Trial::of(port);
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    let content = pattern(10_000, 4);
    write(&peer, &content);
    let mut ring = Box::new(RingBuffer::with_capacity(61));
    let mut received = Vec::new();
    while received.len() < content.len() {
        trial.post(ours, Operation::ReceiveInto(ring));
        let (back, count) = ring_back(&mut trial, ours);
        assert!(count > 0 && count <= 61, "{count}");
        ring = back;
        // Keeps some bytes, so that head and tail go round.
        let keep = 7.min(ring.len() - 1);
        let take = ring.len() - keep;
        received.extend_from_slice(&ring.make_contiguous()[..take]);
        ring.consume(take);
        if received.len() + ring.len() == content.len() {
            received.extend_from_slice(ring.make_contiguous());
        }
    }
    assert_eq!(received, content);
    trial.finish();
}

pub(super) fn bytes_that_came_while_no_receive_was_outstanding_are_received<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    // Everything that is written before the post must fit between the two.
    for ((ours, peer), step) in [(pair(), 10_000), (tcp_pair(), 1_000)] {
        let ours = trial.register(ours);
        let mut written = Vec::new();
        for round in 0..20 {
            trial.idle_turns();
            written.extend(pattern(step * round + 1, round));
            write(&peer, &pattern(step * round + 1, round));
            // Turns in which the OS may report it while nothing waits for it.
            trial.idle_turns();
            trial.post(ours, Operation::Receive);
            trial.drive(|trial| trial.account(ours).received.len() >= written.len());
            assert!(trial.account(ours).received == written, "round {round}");
            trial.cancel(ours, OperationKind::Receive);
            trial.drive_until_settled(ours);
        }
    }
    trial.finish();
}

/// A read stops at the urgent byte, however much lies behind it.
pub(super) fn what_lies_before_and_behind_an_urgent_byte_is_received<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    for urgent_at in [4, 0, 8] {
        let pairs: Vec<_> = (0..41).map(|_| tcp_pair()).collect();
        let (ours, peers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let ours: Vec<_> = ours.into_iter().map(|ours| trial.register(ours)).collect();
        for round in 1..=3 {
            let expected = b"AAAABBBB".repeat(round);
            for peer in &peers {
                write(peer, &b"AAAABBBB"[..urgent_at]);
                write_urgent(peer);
                write(peer, &b"AAAABBBB"[urgent_at..]);
            }
            if round == 2 {
                trial.idle_turns(); // in which the OS may report it while nothing waits for it
            }
            for (at, ours) in ours.iter().enumerate() {
                match (at + round) % 3 {
                    0 => trial.post(*ours, Operation::Receive),
                    1 => trial.post(*ours, Operation::ReceiveOnce),
                    _ => {
                        let ring = Box::new(RingBuffer::with_capacity(64));
                        trial.post(*ours, Operation::ReceiveInto(ring));
                    }
                }
            }
            trial.drive(|trial| {
                ours.iter().all(|ours| {
                    let account = trial.account(*ours);
                    for last in std::mem::take(&mut account.lasts) {
                        if let Last::ReceivedInto(mut ring, _) = last {
                            account.received.extend_from_slice(ring.make_contiguous());
                        }
                    }
                    let (is_all, settled) =
                        (account.received.len() >= expected.len(), account.is_settled());
                    if settled && !is_all {
                        trial.post(*ours, Operation::ReceiveOnce);
                    }
                    is_all
                })
            });
            for ours in &ours {
                assert_eq!(trial.account(*ours).received, expected, "urgent at {urgent_at}");
                trial.cancel(*ours, OperationKind::Receive);
                trial.drive_until_settled(*ours);
                trial.account(*ours).lasts.clear();
            }
        }
    }
    trial.finish();
}

pub(super) fn a_receive_once_takes_one_arrival_and_then_the_end<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = tcp_pair();
    let ours = trial.register(ours);
    let content = pattern(300_000, 9);
    let mut completions = 0;
    thread::scope(|scope| {
        let writing = content.clone();
        scope.spawn(move || {
            write(&peer, &writing);
            drop(peer);
        });
        let mut received: Vec<u8> = Vec::new();
        loop {
            trial.post(ours, Operation::ReceiveOnce);
            trial.drive_until_settled(ours);
            completions += 1;
            let account = trial.account(ours);
            assert!(matches!(account.lasts[..], [Last::Received(Ok(()))]), "{:?}", account.lasts);
            account.lasts.clear();
            if account.received.is_empty() {
                break;
            }
            received.append(&mut account.received);
        }
        assert!(received == content, "{} bytes", received.len());
    });
    // 64 KiB is the largest that any port lends.
    assert!(completions > content.len() / 65_536, "each took one arrival, not all there was");
    trial.finish();
}

pub(super) fn a_cancel_loses_no_bytes<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = tcp_pair();
    let ours = trial.register(ours);
    let content = pattern(2_000_000, 5);
    thread::scope(|scope| {
        scope.spawn(|| {
            for chunk in content.chunks(3_001) {
                write(&peer, chunk);
            }
        });
        let mut received: Vec<u8> = Vec::new();
        let mut round = 0;
        while received.len() < content.len() {
            round += 1;
            if round % 2 == 0 {
                trial.post(ours, Operation::Receive);
            } else {
                let ring = Box::new(RingBuffer::with_capacity(5_000));
                trial.post(ours, Operation::ReceiveInto(ring));
            }
            if round % 3 == 0 {
                trial.turn(Some(Duration::ZERO));
            }
            trial.cancel(ours, OperationKind::Receive);
            trial.drive_until_settled(ours);
            let account = trial.account(ours);
            received.append(&mut account.received);
            for last in account.lasts.drain(..) {
                assert!(last.error_kind().is_none(), "{last:?}");
                if let Last::ReceivedInto(mut ring, _) = last {
                    received.extend_from_slice(ring.make_contiguous());
                }
            }
            // Some ports may never be quicker than their own cancel.
            if round % 16 == 0 {
                trial.post(ours, Operation::Receive);
                let is_all = received.len() == content.len();
                trial.drive(|trial| is_all || !trial.account(ours).received.is_empty());
                trial.cancel(ours, OperationKind::Receive);
                trial.drive_until_settled(ours);
                let account = trial.account(ours);
                account.lasts.clear();
                received.append(&mut account.received);
            }
        }
        assert!(received == content, "{round} cancels");
    });
    trial.finish();
}

pub(super) fn replies_go_back_and_forth_without_an_end<P: CompletionPort>(port: P) {
    const ROUNDS: usize = 200;
    let mut trial = Trial::of(port);
    let mut ends = Vec::new();
    for (at, pair) in [pair, tcp_pair].into_iter().cycle().take(16).enumerate() {
        let (left, right) = pair();
        let (left, right) = (trial.register(left), trial.register(right));
        trial.post(left, Operation::Receive);
        trial.post(right, Operation::Receive);
        let ball = pattern(at * at * 40 + 1, at);
        trial.send(left, &ball);
        ends.push((left, ball.clone(), 1));
        ends.push((right, ball, 0));
    }
    trial.drive(|trial| {
        let mut is_over = true;
        for (end, ball, thrown) in &mut ends {
            let account = trial.account(*end);
            assert!(account.received.len() <= ball.len());
            let caught = account.received.len() == ball.len();
            is_over &= *thrown == ROUNDS;
            if caught && *thrown < ROUNDS && !account.is_outstanding(OperationKind::Send) {
                assert!(account.received == *ball);
                account.received.clear();
                *thrown += 1;
                trial.send(*end, ball);
            }
        }
        is_over
    });
    trial.finish();
}

pub(super) fn a_busy_socket_does_not_starve_a_quiet_one<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (busy, busy_peer) = pair();
    let (quiet, quiet_peer) = pair();
    let (busy, quiet) = (trial.register(busy), trial.register(quiet));
    trial.post(busy, Operation::Receive);
    trial.post(quiet, Operation::Receive);
    write(&busy_peer, &pattern(200_000, 0));
    for round in 1..=50 {
        write(&quiet_peer, b"!");
        let mut of_busy = 0;
        while trial.account(quiet).received.len() < round {
            let ledger = &mut trial.ledger;
            let mut refilling = |completion: Completion<'_>| {
                if let Outcome::Received(Ok(bytes)) = &completion.outcome
                    && completion.token == busy
                {
                    // Exactly what was taken arrives after it, without an end.
                    write(&busy_peer, bytes);
                    of_busy += 1;
                    assert!(of_busy < 1_000, "the quiet one had no turn");
                }
                ledger.take(completion);
            };
            trial.port.wait(Some(BOUND), &mut refilling).unwrap();
            trial.post_again();
        }
    }
    drop(busy_peer);
    trial.drive_until_settled(busy);
    trial.finish();
}
