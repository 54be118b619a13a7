//! Accept and connect.

use std::io::ErrorKind;

use super::sockets::{deaf_socket, listener, read, reset, tcp_socket, write};
use super::trial::{Last, Trial};
use crate::port::{CompletionPort, Operation, OperationKind};

pub(super) fn every_connection_is_accepted<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (listening, address) = listener(128);
    let listening = trial.register(listening);
    trial.post(listening, Operation::Accept);
    let mut clients = Vec::new();
    // More at once than a port may take in one turn.
    for count in [1, 1, 100, 3, 90] {
        for _ in 0..count {
            let client = tcp_socket();
            client.connect(address).unwrap();
            clients.push(client);
        }
        trial.drive(|trial| trial.account(listening).accepted.len() == clients.len());
    }
    let mut seen: Vec<_> = trial
        .account(listening)
        .accepted
        .iter()
        .map(|served| served.peer().as_tcp().unwrap())
        .collect();
    let mut there: Vec<_> = clients.iter().map(|client| client.local_address().unwrap()).collect();
    seen.sort();
    there.sort();
    assert_eq!(seen, there);
    assert!(trial.account(listening).is_outstanding(OperationKind::Accept), "it goes on");
    trial.finish();
}

pub(super) fn connections_made_between_two_accepts_are_not_lost<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (listening, address) = listener(128);
    let listening = trial.register(listening);
    let mut clients = Vec::new();
    for round in 1..=20 {
        // While none is outstanding, with a turn in which the OS may report it in vain.
        for _ in 0..3 {
            let client = tcp_socket();
            client.connect(address).unwrap();
            clients.push(client);
            trial.idle_turns();
        }
        trial.post(listening, Operation::Accept);
        trial.drive(|trial| trial.account(listening).accepted.len() >= clients.len());
        trial.cancel(listening, OperationKind::Accept);
        trial.drive_until_settled(listening);
        assert_eq!(trial.account(listening).lasts.len(), round);
        assert_eq!(trial.account(listening).accepted.len(), clients.len());
    }
    trial.finish();
}

pub(super) fn an_accepted_socket_can_be_registered_and_used<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (listening, address) = listener(128);
    let listening = trial.register(listening);
    trial.post(listening, Operation::Accept);
    for _ in 0..20 {
        let client = tcp_socket();
        client.connect(address).unwrap();
        // Before it is accepted, and so before it is registered.
        write(&client, b"early");
        trial.drive(|trial| !trial.account(listening).accepted.is_empty());
        let served = trial.account(listening).accepted.remove(0);
        #[cfg(unix)]
        assert!(served.is_no_standard_stream());
        let served = trial.register(served);
        trial.post(served, Operation::Receive);
        trial.drive(|trial| trial.account(served).received == b"early");
        trial.send(served, b"reply");
        trial.drive(|trial| !trial.account(served).is_outstanding(OperationKind::Send));
        assert_eq!(read(&client, 5), b"reply");
        drop(client);
        trial.drive_until_settled(served);
        trial.deregister(served);
    }
    trial.finish();
}

pub(super) fn a_peer_that_gave_up_before_it_was_accepted_does_not_end_the_accept<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let (listening, address) = listener(128);
    let listening = trial.register(listening);
    for posted_first in [false, true] {
        if posted_first {
            trial.post(listening, Operation::Accept);
        }
        for _ in 0..10 {
            let client = tcp_socket();
            client.connect(address).unwrap();
            reset(client);
        }
        trial.idle_turns();
        if !posted_first {
            trial.post(listening, Operation::Accept);
        }
        let well = tcp_socket();
        well.connect(address).unwrap();
        let ours = well.local_address();
        trial.drive(|trial| {
            let mut accepted = trial.account(listening).accepted.iter();
            accepted.any(|served| ours.is_some() && served.peer().as_tcp() == ours)
        });
        assert!(trial.account(listening).is_outstanding(OperationKind::Accept), "it goes on");
        trial.cancel(listening, OperationKind::Accept);
        trial.drive_until_settled(listening);
    }
    trial.finish();
}

pub(super) fn a_connect_succeeds<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (listener, address) = listener(8);
    let client = trial.register(tcp_socket());
    trial.post(client, Operation::Connect(Box::new(address.into())));
    trial.drive_until_settled(client);
    let [Last::Connected(Ok(Some(own_address)))] = trial.account(client).lasts[..] else {
        panic!("{:?}", trial.account(client).lasts);
    };
    let (served, _) = listener.accept().unwrap();
    assert_eq!(served.peer().as_tcp(), Some(own_address));
    trial.send(client, b"first");
    trial.post(client, Operation::Receive);
    trial.drive(|trial| !trial.account(client).is_outstanding(OperationKind::Send));
    assert_eq!(read(&served, 5), b"first");
    write(&served, b"second");
    trial.drive(|trial| trial.account(client).received == b"second");
    trial.cancel(client, OperationKind::Receive);
    trial.drive_until_settled(client);
    assert_eq!(trial.deregister(client).peer().as_tcp(), Some(address));
    trial.finish();
}

pub(super) fn a_connect_is_refused<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (_deaf, address) = deaf_socket();
    for _ in 0..10 {
        let client = trial.register(tcp_socket());
        trial.post(client, Operation::Connect(Box::new(address.into())));
        trial.drive_until_settled(client);
        let lasts = &trial.account(client).lasts;
        assert_eq!(lasts.len(), 1, "{lasts:?}");
        assert_eq!(lasts[0].error_kind(), Some(ErrorKind::ConnectionRefused), "{lasts:?}");
        trial.deregister(client);
    }
    trial.finish();
}

/// What is needed to detect a connect to itself.
pub(super) fn a_connect_to_itself_says_so_by_the_address_that_it_has<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    for _ in 0..10 {
        let (client, address) = deaf_socket();
        let client = trial.register(client);
        trial.post(client, Operation::Connect(Box::new(address.into())));
        trial.drive_until_settled(client);
        let [Last::Connected(Ok(own_address))] = trial.account(client).lasts[..] else {
            panic!("{:?}", trial.account(client).lasts);
        };
        assert_eq!(own_address, Some(address));
        trial.deregister(client);
    }
    trial.finish();
}
