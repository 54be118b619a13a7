//! What is this port's alone.

use std::thread;

use super::UringPort;
use super::buffers::Group;
use super::record::{Ends, UserData};
use crate::port::contract::sockets::{pair, pattern, write};
use crate::port::contract::trial::Trial;
use crate::port::{Completion, CompletionPort, Operation, OperationKind, Token};

#[test]
fn a_completion_for_the_registration_before_is_no_completion_of_the_next_ones_operation() {
    let mut port = UringPort::for_test();
    let (ours, _peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    let late = UserData::new(ours.0, OperationKind::Receive, port.record(ours).generation);
    drop(port.deregister(ours));
    let (next, _peer) = pair();
    assert_eq!(port.register(next, Token(2)).unwrap(), ours, "the record is used again");
    port.post(ours, Operation::Receive).unwrap();
    // Built for debugging, it panics.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        port.complete(late, 0, 0, &mut |completion: Completion<'_>| panic!("{completion:?}"));
    }));
    let is_outstanding = port.record(ours).is_outstanding(OperationKind::Receive);
    let stale_completions = port.stale_completions;
    drop(port);
    assert_eq!((stale_completions, is_outstanding), (1, true));
}

#[test]
fn a_stream_goes_over_to_the_large_buffers_and_back_and_loses_nothing() {
    let mut trial = Trial::of(UringPort::for_test());
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    let stream = pattern(4_000_000, 1);
    thread::scope(|scope| {
        scope.spawn(|| write(&peer, &stream));
        trial.drive(|trial| trial.account(ours).received.len() == stream.len());
    });
    let registration = trial.registration(ours);
    assert_eq!(trial.port.record(registration).draws_from, Group::Large);
    let mut expected = stream;
    for round in 0..40 {
        let little = pattern(100, round);
        write(&peer, &little);
        expected.extend(little);
        trial.drive(|trial| trial.account(ours).received.len() == expected.len());
    }
    assert_eq!(trial.port.record(registration).draws_from, Group::Small);
    assert!(trial.account(ours).received == expected);
    assert!(trial.account(ours).lasts.is_empty(), "nobody hears of the change");
    trial.finish();
}

#[test]
fn a_stream_that_is_received_once_at_a_time_gets_large_buffers_too() {
    let mut trial = Trial::of(UringPort::for_test());
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    let registration = trial.registration(ours);
    let stream = pattern(1_000_000, 1);
    thread::scope(|scope| {
        scope.spawn(|| write(&peer, &stream));
        while trial.account(ours).received.len() < stream.len() {
            trial.post(ours, Operation::ReceiveOnce);
            trial.drive_until_settled(ours);
        }
    });
    assert_eq!(trial.port.record(registration).draws_from, Group::Large);
    assert!(trial.account(ours).received == stream);
    trial.finish();
}

#[test]
fn a_receive_that_is_cancelled_while_it_changes_its_buffers_is_cancelled() {
    let mut trial = Trial::of(UringPort::for_test());
    let (ours, peer) = pair();
    let ours = trial.register(ours);
    trial.post(ours, Operation::Receive);
    let stream = pattern(100_000, 1);
    thread::scope(|scope| {
        scope.spawn(|| write(&peer, &stream));
        let registration = trial.registration(ours);
        trial.drive(|trial| trial.port.record(registration).ends == Ends::ToChangeGroup);
        trial.cancel(ours, OperationKind::Receive);
        trial.drive_until_settled(ours);
        assert!(trial.account(ours).lasts[0].is_cancelled());
        trial.post(ours, Operation::Receive);
        trial.drive(|trial| trial.account(ours).received.len() == stream.len());
    });
    assert!(trial.account(ours).received == stream);
    trial.finish();
}
