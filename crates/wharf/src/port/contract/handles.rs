//! What several handles to one shared port do together.

use std::sync::{Arc, Condvar, Mutex as WaitedFor, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::sockets::{BOUND, batch, listener, pair, pattern, read, read_to_end, tcp_socket, write};
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{
    Accepted, Anywhere, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome,
    PostAnywhere, Registration, Socket, Token, Waker,
};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Long enough for a thread to fall asleep; nothing is judged by it.
const TURN: Duration = Duration::from_millis(20);

/// A barrier that does not wait forever when another thread has failed.
struct Meeting {
    size: usize,
    arrived: WaitedFor<usize>,
    complete: Condvar,
}

impl Meeting {
    fn of(size: usize) -> Self {
        Meeting { size, arrived: WaitedFor::new(0), complete: Condvar::new() }
    }

    fn meet(&self) {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        let all = arrived.next_multiple_of(self.size);
        self.complete.notify_all();
        let waited = self.complete.wait_timeout_while(arrived, BOUND, |arrived| *arrived < all);
        assert!(!waited.unwrap().1.timed_out(), "not all came in {BOUND:?}");
    }
}

/// Waits repeatedly on this thread's own handle until the condition holds.
fn drive<P: CompletionPort>(
    port: &mut P,
    mut take: impl FnMut(Completion<'_>),
    mut until: impl FnMut() -> bool,
) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < BOUND, "not in {BOUND:?}");
        port.wait(Some(TURN), &mut take).unwrap();
    }
}

/// A registered socket with its peer.
fn registered<P: CompletionPort>(port: &mut P, token: u64) -> (Registration, Socket) {
    let (ours, peer) = pair();
    (port.register(ours, Token(token)).unwrap(), peer)
}

fn poster(port: &impl CompletionPort) -> Arc<dyn PostAnywhere> {
    let Some(Anywhere::Posts(poster)) = port.anywhere() else {
        panic!("a shared port is posted to")
    };
    poster
}

fn ring() -> Operation {
    Operation::ReceiveInto(Box::new(RingBuffer::with_capacity(64)))
}

pub(super) fn a_receive_and_a_send_of_one_socket_complete_on_two_threads_at_once<P>(
    join: impl Fn() -> P + Sync,
) where
    P: CompletionPort,
{
    let mut first = join();
    let (ours, peer) = registered(&mut first, 7);
    let poster = poster(&first);
    first.post(ours, ring()).unwrap();
    let (in_receive, is_in_receive) = mpsc::channel();
    // The thread that takes the receive stays in the sink until another takes the send.
    let meet = Meeting::of(2);
    let takers = Mutex::new(Vec::new());
    let take = |completion: Completion<'_>| {
        let kind = match completion.outcome {
            Outcome::ReceivedInto(ring, Ok(5)) => {
                assert_eq!(ring.filled_segments()[0], b"hello");
                in_receive.send(()).unwrap();
                OperationKind::Receive
            }
            Outcome::Sent(_, Ok(3)) => OperationKind::Send,
            outcome => panic!("{outcome:?}"),
        };
        meet.meet();
        takers.lock().push((kind, thread::current().id()));
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drive(&mut join(), take, || takers.lock().len() == 2));
        }
        write(&peer, b"hello");
        is_in_receive.recv_timeout(BOUND).unwrap();
        poster.post_send(ours, batch(b"bye")).unwrap();
    });
    let takers = takers.lock();
    assert!(takers[0].0 != takers[1].0 && takers[0].1 != takers[1].1, "{takers:?}");
    assert_eq!(read(&peer, 3), b"bye");
}

pub(super) fn completions_are_spread_over_the_handles<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    const SENDS: u64 = 300;
    let mut first = join();
    let sockets: Vec<_> = (0..SENDS).map(|token| registered(&mut first, token)).collect();
    for (ours, _) in &sockets {
        first.post(*ours, Operation::Send(batch(b"one"))).unwrap();
    }
    let taken = AtomicU64::new(0);
    let meet = Meeting::of(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut own = 0;
                // Each thread keeps its first completion until all have one.
                let take = |completion: Completion<'_>| {
                    assert!(matches!(completion.outcome, Outcome::Sent(_, Ok(3))));
                    own += 1;
                    if own == 1 {
                        meet.meet();
                    }
                    taken.fetch_add(1, Ordering::SeqCst);
                };
                drive(&mut join(), take, || taken.load(Ordering::SeqCst) == SENDS);
                assert!(own > 0);
            });
        }
    });
}

pub(super) fn each_wake_ends_the_wait_of_some_handle<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    let (joined, is_joined) = mpsc::channel::<Waker>();
    let (woken, is_woken) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..3 {
            let (join, joined, woken) = (&join, joined.clone(), woken.clone());
            scope.spawn(move || {
                let mut port = join();
                joined.send(port.waker()).unwrap();
                // Neither a completion nor a time-out can end it.
                port.wait(None, &mut |_: Completion<'_>| panic!("of nothing")).unwrap();
                woken.send(()).unwrap();
            });
        }
        let wakers: Vec<_> = (0..3).map(|_| is_joined.recv_timeout(BOUND).unwrap()).collect();
        for waker in wakers {
            assert!(is_woken.recv_timeout(TURN).is_err(), "woken by nobody");
            waker.wake();
            is_woken.recv_timeout(BOUND).unwrap();
        }
    });
}

pub(super) fn one_handle_does_not_swallow_the_wakes_of_the_others<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    let mut handles = [join(), join(), join()];
    let waker = handles[0].waker();
    for _ in 0..50 {
        for _ in 0..3 {
            waker.wake();
        }
        // All three are there, and the first handle could take them all.
        for handle in &mut handles {
            handle.wait(None, &mut |_: Completion<'_>| panic!("of nothing")).unwrap();
        }
    }
    let started = Instant::now();
    handles[0].wait(Some(TURN), &mut |_: Completion<'_>| panic!("of nothing")).unwrap();
    assert!(started.elapsed() >= TURN, "there were no more wakes than were asked for");
}

pub(super) fn a_thread_without_a_handle_posts_and_some_handle_hears_of_it<P>(
    join: impl Fn() -> P + Sync,
) where
    P: CompletionPort,
{
    let mut first = join();
    let mut second = join();
    let (ours, peer) = registered(&mut first, 1);
    let poster = poster(&first);
    let content = pattern(100_000, 3);
    let (sent, is_sent) = mpsc::channel();
    thread::scope(|scope| {
        let (poster, content, peer) = (&poster, &content, &peer);
        scope.spawn(move || {
            for frame in content.chunks(1_000) {
                poster.post_send(ours, batch(frame)).unwrap();
                is_sent.recv_timeout(BOUND).unwrap();
            }
        });
        let reading = scope.spawn(move || read(peer, content.len()) == *content);
        let mut left = content.len() / 1_000;
        while left > 0 {
            let take = |completion: Completion<'_>| match completion.outcome {
                Outcome::Sent(batch, Ok(1_000)) if batch.bytes() == 0 => left -= 1,
                outcome => panic!("{outcome:?}"),
            };
            second.wait(Some(BOUND), &mut { take }).unwrap();
            sent.send(()).unwrap();
        }
        assert!(reading.join().unwrap());
    });
    poster.post_send(ours, batch(b"")).unwrap();
    let mut empty = Vec::new();
    first
        .wait(Some(BOUND), &mut |c: Completion<'_>| empty.push(format!("{:?}", c.outcome)))
        .unwrap();
    assert!(empty.len() == 1 && empty[0].ends_with("Ok(0))"), "{empty:?}");
}

pub(super) fn what_a_poster_posts_to_a_dead_socket_completes_too<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    let mut port = join();
    let (ours, peer) = registered(&mut port, 1);
    let poster = poster(&port);
    port.shutdown(ours, std::net::Shutdown::Both);
    drop(peer);
    let mut failures = 0;
    for _ in 0..3 {
        poster.post_send(ours, batch(b"late")).unwrap();
        let take = |completion: Completion<'_>| match completion.outcome {
            Outcome::Sent(batch, Err(Failure::Os(_))) if batch.bytes() == 4 => failures += 1,
            outcome => panic!("{outcome:?}"),
        };
        port.wait(Some(BOUND), &mut { take }).unwrap();
    }
    assert_eq!(failures, 3);
}

pub(super) fn a_poster_may_outlive_its_port<P: CompletionPort>(join: impl Fn() -> P + Sync) {
    let mut port = join();
    let (ours, peer) = registered(&mut port, 1);
    let poster = poster(&port);
    port.close(&mut |completion: Completion<'_>| panic!("{completion:?}"));
    assert_eq!(read_to_end(&peer), b"");
    let refused = poster.post_send(ours, batch(b"late")).unwrap_err();
    assert_eq!(refused.given_back.bytes(), 4, "what was refused comes back");
}

pub(super) fn what_one_handle_left_behind_comes_to_another<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    let mut stays = join();
    let mut leaves = join();
    let (ours, peer) = registered(&mut leaves, 1);
    let (other, other_peer) = registered(&mut leaves, 2);
    // One will complete later, one has, and one has completed without the OS.
    leaves.post(ours, ring()).unwrap();
    leaves.post(ours, Operation::Send(batch(b"left"))).unwrap();
    leaves.post(other, Operation::Send(batch(b""))).unwrap();
    leaves.close(&mut |completion: Completion<'_>| panic!("{completion:?}"));
    write(&peer, b"later");
    let mut seen = Vec::new();
    let count = AtomicU64::new(0);
    let take = |completion: Completion<'_>| {
        count.fetch_add(1, Ordering::SeqCst);
        seen.push((completion.token.0, matches!(completion.outcome, Outcome::Sent(_, Ok(_)))));
    };
    drive(&mut stays, take, || count.load(Ordering::SeqCst) == 3);
    seen.sort();
    assert_eq!(seen, [(1, false), (1, true), (2, true)]);
    assert_eq!(read(&peer, 4), b"left");
    drop(stays.deregister(other));
    assert_eq!(read_to_end(&other_peer), b"");
}

pub(super) fn cancels_and_bytes_race_and_one_last_completion_comes<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    const ROUNDS: u64 = 300;
    let mut first = join();
    let (ours, peer) = registered(&mut first, 1);
    let (cancelled, received, mut posted) = (AtomicU64::new(0), AtomicU64::new(0), 0);
    let lasts = || cancelled.load(Ordering::SeqCst) + received.load(Ordering::SeqCst);
    let take = |completion: Completion<'_>| match completion.outcome {
        Outcome::ReceivedInto(ring, Ok(1)) if ring.len() == 1 => {
            received.fetch_add(1, Ordering::SeqCst);
        }
        Outcome::ReceivedInto(ring, Err(Failure::Cancelled)) if ring.len() == 0 => {
            cancelled.fetch_add(1, Ordering::SeqCst);
        }
        outcome => panic!("{outcome:?}"),
    };
    let start = Meeting::of(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                start.meet();
                write(&peer, b"!");
            }
        });
        scope.spawn(|| {
            let mut port = join();
            for round in 0..ROUNDS {
                start.meet();
                // Before or after the bytes.
                for _ in 0..round * 997 % 30_000 {
                    std::hint::spin_loop();
                }
                port.cancel(ours, OperationKind::Receive);
            }
        });
        for round in 1..=ROUNDS {
            let mut is_first = true;
            // What was cancelled has lost nothing: the next receive gets it.
            while received.load(Ordering::SeqCst) < round {
                first.post(ours, ring()).unwrap();
                posted += 1;
                if std::mem::take(&mut is_first) {
                    start.meet();
                }
                drive(&mut first, take, || lasts() >= posted);
            }
            assert_eq!(lasts(), posted, "one for each");
        }
    });
    println!("{cancelled:?} of {ROUNDS} receives were cancelled");
    let mut late = |completion: Completion<'_>| panic!("one too many: {completion:?}");
    first.wait(Some(TURN), &mut late).unwrap();
}

pub(super) fn an_accept_that_several_handles_take_has_one_last_completion<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    const ROUNDS: u64 = 30;
    const CLIENTS: u64 = 20;
    let mut first = join();
    let (listening, address) = listener(128);
    let listening = first.register(listening, Token(9)).unwrap();
    let (accepted, lasts) = (AtomicU64::new(0), AtomicU64::new(0));
    let served = Mutex::new(Vec::new());
    let take = |completion: Completion<'_>| {
        assert_eq!(completion.token, Token(9));
        match completion.outcome {
            Outcome::Accepted(Ok(Accepted { socket, peer_address })) => {
                assert_eq!(socket.peer().as_tcp(), peer_address);
                served.lock().push(socket);
                accepted.fetch_add(1, Ordering::SeqCst);
            }
            Outcome::Accepted(Err(Failure::Cancelled)) => assert!(!completion.more),
            outcome => panic!("{outcome:?}"),
        }
        if !completion.more {
            lasts.fetch_add(1, Ordering::SeqCst);
        }
    };
    let is_over = || lasts.load(Ordering::SeqCst) == ROUNDS;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drive(&mut join(), take, is_over));
        }
        for round in 0..ROUNDS {
            first.post(listening, Operation::Accept).unwrap();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let client = tcp_socket();
                    client.connect(address).unwrap();
                    client
                })
                .collect();
            // In every other round the cancel meets peers that are being accepted.
            let wanted = if round % 2 == 0 { (round + 1) * CLIENTS } else { 0 };
            drive(&mut first, take, || accepted.load(Ordering::SeqCst) >= wanted);
            first.cancel(listening, OperationKind::Accept);
            drive(&mut first, take, || lasts.load(Ordering::SeqCst) > round);
            assert_eq!(lasts.load(Ordering::SeqCst), round + 1);
            drop(clients);
        }
    });
    drop(first.deregister(listening));
}

/// Both halves of an echoing socket, and what they carry.
struct Echo {
    registration: Registration,
    ring: Option<Box<RingBuffer>>,
    batch: Option<Box<SendBatch>>,
}

pub(super) fn replies_go_back_and_forth_whoever_takes_them<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    const SOCKETS: u64 = 24;
    const ROUNDS: usize = 100;
    let mut first = join();
    let mut peers = Vec::new();
    let mut echoes = Vec::new();
    for token in 0..SOCKETS {
        let (registration, peer) = registered(&mut first, token);
        first.post(registration, ring()).unwrap();
        echoes.push(Mutex::new(Echo { registration, ring: None, batch: None }));
        peers.push(peer);
    }
    let ended = AtomicU64::new(0);
    let serve = || {
        let mut port = join();
        let started = Instant::now();
        while ended.load(Ordering::SeqCst) < SOCKETS {
            assert!(started.elapsed() < BOUND);
            let mut noted = Vec::new();
            let take = |completion: Completion<'_>| {
                let mut echo = echoes[completion.token.0 as usize].lock();
                match completion.outcome {
                    Outcome::ReceivedInto(_, Ok(0)) => {
                        ended.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    Outcome::ReceivedInto(mut ring, Ok(_)) => {
                        echo.batch = Some(batch(ring.make_contiguous()));
                        ring.consume(ring.len());
                        echo.ring = Some(ring);
                    }
                    Outcome::Sent(batch, Ok(_)) if batch.bytes() == 0 => {}
                    outcome => panic!("{outcome:?}"),
                }
                noted.push(completion.token.0 as usize);
            };
            port.wait(Some(TURN), &mut { take }).unwrap();
            for at in noted {
                let mut echo = echoes[at].lock();
                // First the reply and, when it has left, the next receive.
                if let Some(batch) = echo.batch.take() {
                    port.post(echo.registration, Operation::Send(batch)).unwrap();
                } else if let Some(ring) = echo.ring.take() {
                    port.post(echo.registration, Operation::ReceiveInto(ring)).unwrap();
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(serve);
        }
        for round in 0..ROUNDS {
            let ball = pattern(round % 60 + 1, round);
            for peer in &peers {
                write(peer, &ball);
            }
            for peer in &peers {
                assert!(read(peer, ball.len()) == ball, "round {round}");
            }
        }
        drop(peers);
    });
}

pub(super) fn the_last_handle_ends_what_all_of_them_left<P: CompletionPort>(
    join: impl Fn() -> P + Sync,
) {
    let mut handles = vec![join(), join(), join()];
    let mut peers = Vec::new();
    for token in 0..30 {
        let handle = &mut handles[token % 3];
        let (ours, peer) = registered(handle, token as u64);
        handle.post(ours, if token % 2 == 0 { ring() } else { Operation::Receive }).unwrap();
        peers.push(peer);
    }
    let mut ends = Vec::new();
    while let Some(handle) = handles.pop() {
        assert!(ends.is_empty(), "not before the last handle");
        handle.close(&mut |completion: Completion<'_>| match completion.outcome {
            Outcome::ReceivedInto(_, Err(Failure::Cancelled))
            | Outcome::Received(Err(Failure::Cancelled)) => ends.push(completion.token.0),
            outcome => panic!("{outcome:?}"),
        });
    }
    ends.sort();
    assert_eq!(ends, (0..30).collect::<Vec<_>>());
    for peer in peers {
        assert_eq!(read_to_end(&peer), b"", "every socket was closed");
    }
}
