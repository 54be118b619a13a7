//! What is this port's alone.

use super::UringPort;
use super::record::UserData;
use crate::port::contract::sockets::pair;
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
