//! Tests of what only this port does: the layers below the contract, and peculiarities of Windows.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::calls::{self, Started};
use super::overlapped::Overlapped;
use super::port::{Entries, OsPort, Taken};
use super::{IocpPort, IocpSizes, SharedPort};
use crate::port::contract::sockets::{
    BOUND, batch, listener, pair, pattern, read, tcp_socket, write,
};
use crate::port::contract::trial::{Last, Trial};
use crate::port::{
    Accepted, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome, Registration,
    Token,
};
use crate::sync::{AtomicU32, Ordering};

/// An operation outside any record. Leaked, because memory that the OS may touch must not end too early.
fn bare(kind: OperationKind) -> &'static Overlapped {
    let overlapped = Box::leak(Box::new(Overlapped::new(kind, 0)));
    // SAFETY: just made.
    unsafe { overlapped.prepare(0, 0) };
    overlapped
}

/// Waits for this operation's packet; returns how many bytes it moved.
fn packet_of(port: &OsPort, overlapped: &Overlapped) -> u32 {
    let mut entries = Entries::new();
    let taken = port.take(&mut entries, BOUND.as_millis() as u32).unwrap();
    assert_eq!(taken, 1);
    match entries.at(0) {
        Taken::Packet(packet) if std::ptr::eq(packet.overlapped, overlapped.pointer()) => {
            packet.count
        }
        _ => panic!("another packet"),
    }
}

/// An array of WSABUFs is read only during the call, even if the bytes move later. Here it is overwritten
/// after the call has returned, before a byte has moved.
#[test]
fn an_array_of_buffers_may_be_a_local_variable() {
    let port = OsPort::new(1).unwrap();
    let (ours, peer) = pair();
    port.associate(ours.os()).unwrap();
    let receive = bare(OperationKind::Receive);
    let memory: &'static mut [u8] = Box::leak(vec![0u8; 64].into_boxed_slice());
    let address = memory.as_ptr();
    let mut elsewhere = [[0u8; 64]; 2];
    {
        let (first, second) = memory.split_at_mut(8);
        let mut buffers = [IoSliceMut::new(first), IoSliceMut::new(second)];
        // SAFETY: the overlapped and the memory are leaked, and read only after the packet.
        let started = unsafe { calls::receive(calls::raw(ours.os()), &mut buffers, receive) };
        assert_eq!(started, Ok(Started::Outstanding));
        let [one, other] = &mut elsewhere;
        buffers = [IoSliceMut::new(one), IoSliceMut::new(other)];
        std::hint::black_box(&mut buffers);
    }
    write(&peer, b"both of the segments");
    assert_eq!(packet_of(&port, receive), 20);
    // SAFETY: the packet was taken; the memory is leaked and not shared.
    let received = unsafe { std::slice::from_raw_parts(address, 20) };
    assert_eq!(received, b"both of the segments");
    assert_eq!(elsewhere, [[0; 64]; 2]);

    // More than there is room for, so most of it leaves long after the call.
    let content: &'static [u8] = Box::leak(pattern(6_000_000, 3).into_boxed_slice());
    let send = bare(OperationKind::Send);
    {
        let (first, second) = content.split_at(1_000_000);
        let mut buffers = [IoSlice::new(first), IoSlice::new(second)];
        // SAFETY: as above.
        let started = unsafe { calls::send(calls::raw(ours.os()), &buffers, send) };
        assert_eq!(started, Ok(Started::Outstanding));
        buffers = [IoSlice::new(&elsewhere[0]), IoSlice::new(&elsewhere[1])];
        std::hint::black_box(&mut buffers);
    }
    assert!(read(&peer, content.len()) == content);
    assert_eq!(packet_of(&port, send), 6_000_000);
}

fn accepted(port: &mut IocpPort, listening: Registration) -> Accepted {
    port.post(listening, Operation::Accept).unwrap();
    let mut accepted = None;
    while accepted.is_none() {
        port.wait(Some(BOUND), &mut |completion: Completion<'_>| match completion.outcome {
            Outcome::Accepted(Ok(peer)) => accepted = Some(peer),
            outcome => panic!("{outcome:?}"),
        })
        .unwrap();
    }
    accepted.unwrap()
}

#[test]
fn an_accept_tells_the_address_of_the_peer() {
    for (domain, address) in [
        (Domain::IPV4, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        (Domain::IPV6, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
    ] {
        let listening = Socket::new(domain, Type::STREAM, None).unwrap();
        if let Err(error) = listening.bind(&address.into()) {
            assert_eq!(domain, Domain::IPV6, "{error}");
            println!("not tried on this machine, which has no IPv6: {error}");
            continue;
        }
        listening.listen(8).unwrap();
        let address = listening.local_addr().unwrap();
        let mut port = IocpPort::for_test();
        let listening = port.register(listening.into(), Token(1)).unwrap();
        let client = Socket::new(domain, Type::STREAM, None).unwrap();
        let client = port.register(client.into(), Token(2));
        let client = client.unwrap();
        port.post(client, Operation::Connect(Box::new(address.as_socket().unwrap().into())))
            .unwrap();
        let mut connected = false;
        while !connected {
            let take = |completion: Completion<'_>| match completion.outcome {
                Outcome::Connected(Ok(_)) => connected = true,
                outcome => panic!("{outcome:?}"),
            };
            port.wait(Some(BOUND), &mut { take }).unwrap();
        }
        // SAFETY: it stays registered until the port ends.
        let record = unsafe { port.shared.record(client).in_use() };
        let ours = record.socket().local_addr().unwrap().as_socket();
        let Accepted { socket, peer_address } = accepted(&mut port, listening);
        assert!(peer_address.is_some() && peer_address == ours, "{peer_address:?} {ours:?}");
        assert_eq!(socket.peer().as_tcp(), ours);
        assert_eq!(socket.local_address(), address.as_socket());
        // Without its listener's context it could not be shut down.
        socket.os().shutdown(std::net::Shutdown::Both).unwrap();
    }
}

#[test]
fn an_accept_that_cannot_go_on_ends_once_with_the_reason_after_all_its_parts() {
    let mut trial = Trial::of(IocpPort::for_test());
    let (listening, address) = listener(8);
    let listening = trial.register(listening);
    for round in 1..=20 {
        trial.post(listening, Operation::Accept);
        let client = tcp_socket();
        client.connect(address).unwrap();
        // As if no socket for the next peer could be made.
        let registration = trial.registration(listening);
        // SAFETY: it stays registered until the port ends.
        let record = unsafe { trial.port.shared.record(registration).in_use() };
        record.accepting_if_made().unwrap().fail(10024, record.raw_socket());
        trial.drive_until_settled(listening);
        let account = trial.account(listening);
        assert_eq!(account.lasts.len(), round);
        let Some(Last::Accepted(Err(Failure::Os(error)))) = account.lasts.last() else {
            panic!("{:?}", account.lasts)
        };
        assert_eq!(error.raw_os_error(), Some(10024));
    }
    trial.finish();
}

#[test]
fn an_accept_of_what_does_not_listen_has_its_last_completion() {
    let mut trial = Trial::of(IocpPort::for_test());
    let deaf = trial.register(tcp_socket());
    trial.post(deaf, Operation::Accept);
    trial.idle_turns();
    // Windows refuses it at once; Wine 8 waits for a peer that cannot come.
    trial.cancel(deaf, OperationKind::Accept);
    trial.drive_until_settled(deaf);
    let lasts = &trial.account(deaf).lasts;
    assert!(lasts.len() == 1 && lasts[0].failure().is_some(), "{lasts:?}");
    trial.finish();
}

#[test]
fn a_socket_without_a_connection_is_told_so_by_a_completion() {
    let mut trial = Trial::of(IocpPort::for_test());
    let lost = trial.register(tcp_socket());
    trial.post(lost, Operation::Receive);
    trial.send(lost, b"to nobody");
    trial.drive_until_settled(lost);
    let lasts = &trial.account(lost).lasts;
    assert_eq!(lasts.len(), 2);
    for last in lasts {
        // The second is what Wine 8 reports for a send.
        let kinds = [Some(ErrorKind::NotConnected), Some(ErrorKind::ConnectionReset)];
        assert!(kinds.contains(&last.error_kind()), "{last:?}");
    }
    trial.finish();
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "invariant 5")]
fn a_packet_of_what_is_not_outstanding_is_noticed() {
    let mut port = IocpPort::for_test();
    let (ours, _peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    let forged = port.shared.record(ours).send.overlapped.packet(1);
    // As in the record of an operation that was posted once.
    // SAFETY: it was never posted.
    unsafe { port.shared.record(ours).send.overlapped.prepare(ours.0, 0) };
    port.shared.port.post(forged).unwrap();
    port.wait(Some(BOUND), &mut |completion: Completion<'_>| panic!("{completion:?}")).unwrap();
}

/// A late packet finds its record while a post of the next registration has begun, but has not yet said so in
/// the overlapped.
#[test]
fn a_packet_of_the_registration_before_is_no_completion_of_the_next_ones_operation() {
    let mut port = IocpPort::for_test();
    let (ours, _peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    port.post(ours, Operation::Send(batch(b"!"))).unwrap();
    port.wait(Some(BOUND), &mut |_: Completion<'_>| {}).unwrap();
    drop(port.deregister(ours));
    let (next, _peer) = pair();
    assert_eq!(port.register(next, Token(2)).unwrap(), ours, "the record is used again");
    let shared = port.shared.clone();
    let send = &shared.record(ours).send;
    send.state.begin(OperationKind::Send);
    shared.port.post(send.overlapped.packet(1)).unwrap();
    // Panics in debug builds.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        port.wait(Some(Duration::ZERO), &mut |completion: Completion<'_>| panic!("{completion:?}"))
    }));
    assert_eq!(shared.stale_completions.load(Ordering::SeqCst), 1);
    assert!(send.state.is_outstanding(), "it was ended by another's packet");
    send.state.end();
}

#[test]
fn a_record_is_used_again_after_all_others_and_with_another_generation() {
    let mut port = IocpPort::for_test();
    let register = |port: &mut IocpPort| port.register(tcp_socket(), Token(0)).unwrap();
    let first = register(&mut port);
    let second = register(&mut port);
    let generation = port.shared.record(first).generation();
    drop(port.deregister(first));
    drop(port.deregister(second));
    assert_eq!((register(&mut port), register(&mut port)), (first, second));
    assert_ne!(port.shared.record(first).generation(), generation);
}

/// The cancel comes as soon as the operation counts as outstanding, before the OS has it. The post must find
/// its mark.
#[test]
fn a_cancel_that_overtakes_the_post_is_not_lost() {
    const ROUNDS: u32 = 1_000;
    let shared = SharedPort::for_test();
    let mut port = IocpPort::join(shared.clone()).unwrap();
    let (ours, _peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    let ended = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // In this order: what is outstanding after the last one ended is the next one.
                while ended.load(Ordering::SeqCst) < round
                    || !shared.record(ours).is_outstanding(OperationKind::Receive)
                {
                    std::hint::spin_loop();
                }
                // SAFETY: it stays registered until the port ends.
                unsafe { shared.cancel(ours, OperationKind::Receive) };
            }
        });
        for round in 0..ROUNDS {
            port.post(ours, Operation::Receive).unwrap();
            let take = |completion: Completion<'_>| {
                let outcome = completion.outcome;
                assert!(matches!(outcome, Outcome::Received(Err(Failure::Cancelled))));
                ended.fetch_add(1, Ordering::SeqCst);
            };
            port.wait(Some(BOUND), &mut { take }).unwrap();
            if ended.load(Ordering::SeqCst) == round {
                // So that the other thread ends too.
                ended.store(ROUNDS, Ordering::SeqCst);
                panic!("cancel {round} was lost");
            }
        }
    });
}

#[test]
fn nobody_joins_a_port_that_has_ended() {
    let shared: Arc<SharedPort> = SharedPort::for_test();
    drop(IocpPort::join(shared.clone()).unwrap());
    assert_eq!(IocpPort::join(shared).unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_port_that_nobody_closed_ends_with_its_last_handle() {
    let sizes = IocpSizes { concurrent_threads: 1, accepts_outstanding: 2 };
    let shared = SharedPort::new(sizes).unwrap();
    let mut port = IocpPort::join(shared.clone()).unwrap();
    let (ours, peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    port.post(ours, Operation::Receive).unwrap();
    drop(port);
    peer.os().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(std::io::Read::read(&mut &peer, &mut [0; 8]).unwrap(), 0, "it was closed");
    assert_eq!(shared.stale_completions.load(Ordering::SeqCst), 0);
}

/// What an endlessly sleeping handle delivers when `leave` leaves it something without a packet.
fn told_in_its_sleep(port: &mut IocpPort, leave: impl FnOnce(&SharedPort)) -> usize {
    let shared = port.shared.clone();
    let mut sleeper = IocpPort::join_for_test(&shared);
    let (sleeps, about_to_sleep) = std::sync::mpsc::channel();
    let sleeping = thread::spawn(move || {
        let mut told = 0;
        sleeps.send(()).unwrap();
        sleeper.wait(None, &mut |_: Completion<'_>| told += 1).unwrap();
        told
    });
    about_to_sleep.recv().unwrap();
    thread::sleep(Duration::from_millis(50)); // nothing shows that it sleeps; the test also holds if it does not yet
    leave(&shared);
    sleeping.join().unwrap()
}

#[test]
fn what_the_system_has_no_memory_to_queue_is_found_by_a_handle_that_sleeps() {
    let mut port = IocpPort::for_test();
    let (ours, peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    port.post(ours, Operation::Send(batch(b"!"))).unwrap();
    assert_eq!(read(&peer, 1), b"!");
    let mut entries = Entries::new();
    assert_eq!(port.shared.port.take(&mut entries, BOUND.as_millis() as u32).unwrap(), 1);
    let Taken::Packet(packet) = entries.at(0) else { panic!("a wake") };
    assert_eq!(told_in_its_sleep(&mut port, |shared| shared.leave_over(packet)), 1);
    // A wake without a packet ends one wait.
    assert_eq!(told_in_its_sleep(&mut port, |shared| shared.waker.wake_without_memory()), 0);
    assert!(!port.shared.waker.take_lost());
    drop(port.deregister(ours));
}
