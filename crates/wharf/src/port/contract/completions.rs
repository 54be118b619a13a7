//! Every accepted operation has exactly one last completion, however it ends.

use std::io::ErrorKind;
use std::net::Shutdown;

use super::sockets::{
    batch, fill, full_listener, listener, pair, pattern, read, read_to_end, reset, tcp_pair,
    tcp_socket, write,
};
use super::trial::{Account, KINDS, Last, Ledger, Trial};
use crate::buffer::RingBuffer;
use crate::port::{CompletionPort, Operation, OperationKind, Socket, Token};

/// More than the buffers of a [`tcp_pair`] hold.
const STUCK_BYTES: usize = 4 * 1024 * 1024;

fn ring(capacity: usize) -> Operation {
    Operation::ReceiveInto(Box::new(RingBuffer::with_capacity(capacity)))
}

pub(super) fn every_operation_that_succeeds_completes<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (listening, address) = listener(8);
    let listening = trial.register(listening);
    let client = trial.register(tcp_socket());
    trial.post(listening, Operation::Accept);
    trial.post(client, Operation::Connect(Box::new(address.into())));
    trial.drive(|trial| {
        trial.account(client).is_settled() && trial.account(listening).accepted.len() == 1
    });
    let served = trial.account(listening).accepted.remove(0);
    let served = trial.register(served);

    trial.post(served, Operation::Receive);
    trial.send(client, b"request");
    trial.drive(|trial| trial.account(served).received == b"request");
    trial.post(client, ring(64));
    trial.send(served, b"reply");
    trial.drive_until_settled(client);
    trial.drive(|trial| !trial.account(served).is_outstanding(OperationKind::Send));

    let mut ledger = trial.finish();
    let [Last::Connected(Ok(Some(_))), Last::Sent(sent, Ok(7)), Last::ReceivedInto(ring, Ok(5))] =
        &ledger.account(client).lasts[..]
    else {
        panic!("{:?}", ledger.account(client).lasts)
    };
    assert_eq!((sent.bytes(), ring.filled_segments()), (0, [&b"reply"[..], b""]));
    let served = &ledger.account(served).lasts;
    assert!(matches!(&served[0], Last::Sent(_, Ok(5))), "{served:?}");
    assert!(served[1].is_cancelled(), "the receive ended with the port: {served:?}");
    assert!(ledger.account(listening).lasts[0].is_cancelled());
}

/// One operation of each kind that nothing will complete, and what keeps it so.
struct Stuck {
    accept: Token,
    connect: Token,
    receive: Token,
    receive_into: Token,
    send: Token,
    filled: Vec<u8>,
    peers: Vec<Socket>,
    _full: Vec<Socket>,
}

impl Stuck {
    fn on<P: CompletionPort>(trial: &mut Trial<P>) -> Stuck {
        let (listening, _) = listener(8);
        let (full, address) = full_listener();
        let (quiet, quiet_peer) = pair();
        let (into, into_peer) = pair();
        let (sending, sending_peer) = pair();
        let filled = fill(&sending);
        let stuck = Stuck {
            accept: trial.register(listening),
            connect: trial.register(tcp_socket()),
            receive: trial.register(quiet),
            receive_into: trial.register(into),
            send: trial.register(sending),
            filled,
            peers: vec![quiet_peer, into_peer, sending_peer],
            _full: full,
        };
        trial.post(stuck.accept, Operation::Accept);
        trial.post(stuck.connect, Operation::Connect(Box::new(address.into())));
        trial.post(stuck.receive, Operation::Receive);
        trial.post(stuck.receive_into, ring(64));
        trial.send(stuck.send, &pattern(100_000, 3));
        stuck
    }

    fn all(&self) -> [(Token, OperationKind); 5] {
        [
            (self.accept, OperationKind::Accept),
            (self.connect, OperationKind::Connect),
            (self.receive, OperationKind::Receive),
            (self.receive_into, OperationKind::Receive),
            (self.send, OperationKind::Send),
        ]
    }

    /// Each ended once, by the cancel, and returned what it owned.
    fn judge(&self, ledger: &mut Ledger) {
        for (token, kind) in self.all() {
            let account: &mut Account = ledger.account(token);
            assert_eq!(account.lasts.len(), 1, "{account:?}");
            // Elsewhere a full backlog may refuse, or still take the connection.
            if kind != OperationKind::Connect || cfg!(target_os = "linux") {
                assert!(account.lasts[0].is_cancelled(), "{account:?}");
            }
        }
        let Last::ReceivedInto(ring, _) = &ledger.account(self.receive_into).lasts[0] else {
            panic!("not the ring");
        };
        assert_eq!((ring.capacity(), ring.len()), (64, 0));
        let Last::Sent(batch, _) = &ledger.account(self.send).lasts[0] else {
            panic!("not the batch");
        };
        assert_eq!(batch.bytes(), 100_000, "nothing of it could leave");
    }
}

pub(super) fn a_cancelled_operation_has_one_last_completion<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let stuck = Stuck::on(&mut trial);
    trial.idle_turns();
    for (token, kind) in stuck.all() {
        if kind != OperationKind::Connect {
            assert!(trial.account(token).is_outstanding(kind), "{kind:?} of nothing");
        }
        trial.cancel(token, kind);
        trial.cancel(token, kind);
    }
    for (token, _) in stuck.all() {
        trial.drive_until_settled(token);
    }
    stuck.judge(&mut trial.ledger);

    // All but the connect can be posted again, and continue.
    trial.post(stuck.receive, Operation::Receive);
    trial.post(stuck.receive_into, ring(8));
    trial.send(stuck.send, b"again");
    write(&stuck.peers[0], b"quiet");
    write(&stuck.peers[1], b"into");
    assert_eq!(read(&stuck.peers[2], stuck.filled.len()), stuck.filled);
    trial.drive(|trial| {
        trial.account(stuck.receive).received == b"quiet"
            && trial.account(stuck.receive_into).is_settled()
            && trial.account(stuck.send).is_settled()
    });
    assert_eq!(read(&stuck.peers[2], 5), b"again");
    trial.finish();
}

pub(super) fn an_operation_cancelled_before_any_wait_has_one_last_completion<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let stuck = Stuck::on(&mut trial);
    for (token, kind) in stuck.all() {
        trial.cancel(token, kind);
    }
    for (token, _) in stuck.all() {
        trial.drive_until_settled(token);
    }
    let mut ledger = trial.finish();
    stuck.judge(&mut ledger);
}

pub(super) fn a_cancel_of_what_is_not_outstanding_does_nothing<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    for kind in KINDS {
        trial.cancel(ours, kind);
    }
    trial.idle_turns();
    for kind in KINDS {
        trial.cancel(ours, kind);
    }
    // The cancel was for the earlier one: it does not end what is posted after it.
    trial.post(ours, Operation::Receive);
    trial.send(ours, b"sent");
    assert!(trial.account(ours).lasts.is_empty());
    trial.drive(|trial| !trial.account(ours).is_outstanding(OperationKind::Send));
    write(&peer, b"received");
    trial.drive(|trial| trial.account(ours).received == b"received");
    assert_eq!(read(&peer, 4), b"sent");
    let lasts = &trial.account(ours).lasts;
    assert!(matches!(lasts[..], [Last::Sent(_, Ok(4))]), "{lasts:?}");
    trial.finish();
}

pub(super) fn a_shutdown_ends_what_is_outstanding<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, _peer) = tcp_pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    trial.send(ours, &pattern(STUCK_BYTES, 0));
    trial.idle_turns();
    assert!(trial.account(ours).is_outstanding(OperationKind::Receive));
    assert!(trial.account(ours).is_outstanding(OperationKind::Send));
    trial.shutdown(ours, Shutdown::Both);
    trial.drive_until_settled(ours);
    judge_received_end_and_failed_send(trial.account(ours));

    // The direction that is received from alone. Of the other see `directions`.
    let (ours, _peer) = tcp_pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    trial.idle_turns();
    trial.shutdown(ours, Shutdown::Read);
    trial.drive_until_settled(ours);

    // Elsewhere a listener cannot be shut down.
    if cfg!(target_os = "linux") {
        let (listening, _) = listener(8);
        let listening = trial.register(listening);
        trial.post(listening, Operation::Accept);
        trial.idle_turns();
        trial.shutdown(listening, Shutdown::Both);
        trial.drive_until_settled(listening);
        assert!(trial.account(listening).lasts[0].error_kind().is_some());
    }
    trial.finish();
}

fn judge_received_end_and_failed_send(account: &Account) {
    assert_eq!(account.lasts.len(), 2, "{:?}", account.lasts);
    for last in &account.lasts {
        match last {
            Last::Received(received) => assert!(received.is_ok(), "{last:?}"),
            Last::Sent(batch, _) => {
                assert!(last.error_kind().is_some(), "{last:?}");
                assert_eq!(batch.bytes(), STUCK_BYTES - account.sent, "what did not leave");
            }
            _ => panic!("{last:?}"),
        }
    }
}

pub(super) fn a_reset_by_the_peer_ends_what_is_outstanding<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (receiving, peer) = tcp_pair();
    let receiving = trial.register(receiving);
    trial.post(receiving, Operation::Receive);
    trial.idle_turns();
    reset(peer);
    trial.drive_until_settled(receiving);
    let last = &trial.account(receiving).lasts[0];
    assert_eq!(last.error_kind(), Some(ErrorKind::ConnectionReset), "{last:?}");

    let (into, peer) = tcp_pair();
    let into = trial.register(into);
    trial.post(into, ring(64));
    trial.idle_turns();
    reset(peer);
    trial.drive_until_settled(into);
    let last = &trial.account(into).lasts[0];
    assert_eq!(last.error_kind(), Some(ErrorKind::ConnectionReset), "{last:?}");

    // The one that completes first reports the reset; the other reports an end or a broken pipe.
    let (both, peer) = tcp_pair();
    let both = trial.register(both);
    trial.post(both, Operation::Receive);
    trial.send(both, &pattern(STUCK_BYTES, 0));
    trial.idle_turns();
    reset(peer);
    trial.drive_until_settled(both);
    let broken = [Some(ErrorKind::BrokenPipe), Some(ErrorKind::ConnectionReset)];
    let lasts = &trial.account(both).lasts;
    assert_eq!(lasts.len(), 2, "{lasts:?}");
    let sent = lasts.iter().find(|last| matches!(last, Last::Sent(..))).unwrap();
    assert!(broken.contains(&sent.error_kind()), "{sent:?}");

    // Posted after the end: an error, and no signal.
    trial.send(both, b"late");
    trial.drive_until_settled(both);
    let late = trial.account(both).lasts.last().unwrap();
    assert!(broken.contains(&late.error_kind()), "{late:?}");
    trial.finish();
}

pub(super) fn the_end_of_the_port_ends_everything_and_gives_everything_back<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let waited: Vec<_> = (0..8).map(|_| Stuck::on(&mut trial)).collect();
    trial.idle_turns();
    let posted_last = Stuck::on(&mut trial);
    let (cancelled, _peer) = pair();
    let cancelled = trial.register(cancelled);
    trial.post(cancelled, Operation::Receive);
    trial.cancel(cancelled, OperationKind::Receive);
    let (idle, idle_peer) = pair();
    trial.register(idle);

    // Not `finish`, which would wait first.
    trial.port.close(&mut trial.ledger);

    for stuck in waited.iter().chain([&posted_last]) {
        stuck.judge(&mut trial.ledger);
        for (token, _) in stuck.all() {
            assert!(trial.ledger.account(token).is_settled());
        }
        // Every socket was closed, and only what was already there had left.
        assert_eq!(read_to_end(&stuck.peers[0]), b"");
        assert_eq!(read_to_end(&stuck.peers[1]), b"");
        assert_eq!(read_to_end(&stuck.peers[2]), stuck.filled);
    }
    let cancelled = &trial.ledger.account(cancelled).lasts;
    assert!(cancelled.len() == 1 && cancelled[0].is_cancelled(), "{cancelled:?}");
    assert_eq!(read_to_end(&idle_peer), b"");
}

pub(super) fn a_second_operation_of_a_kind_is_a_fault<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, _peer) = pair();
    fill(&ours);
    let ours = trial.register(ours);
    trial.post(ours, Operation::Send(batch(b"first")));
    trial.idle_turns();
    trial.post(ours, Operation::Send(batch(b"second")));
}

pub(super) fn a_second_receive_of_the_other_form_is_a_fault<P: CompletionPort>(port: P) {
    let mut trial = Trial::of(port);
    let (ours, _peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    trial.post(ours, ring(64));
}

pub(super) fn a_deregistration_with_an_operation_outstanding_is_a_fault<P: CompletionPort>(
    port: P,
) {
    let mut trial = Trial::of(port);
    let (ours, _peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    trial.idle_turns();
    trial.deregister(ours);
}

pub(super) fn a_deregistration_before_the_cancelled_operation_completed_is_a_fault<P>(port: P)
where
    P: CompletionPort,
{
    let mut trial = Trial::of(port);
    let (ours, _peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    trial.cancel(ours, OperationKind::Receive);
    trial.deregister(ours);
}
