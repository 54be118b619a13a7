//! Tests of what only this port does.

use std::mem::offset_of;
use std::thread;
use std::time::{Duration, Instant};

use super::{REFUSED_TIMEOUT, UringPort};
use crate::port::contract::sockets::{batch, pair, pattern, read_to_end, tcp_pair, write};
use crate::port::contract::trial::Trial;
use crate::port::uring::buffers::Group;
use crate::port::uring::record::{Ends, UserData};
use crate::port::{Completion, CompletionPort, Failure, Operation, OperationKind, Token};

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
    // Panics in debug builds.
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

/// The kernel may still touch what they own, so that is leaked. But the end does not hang, and every socket
/// is closed.
#[test]
fn the_end_of_a_port_waits_once_for_completions_that_never_come() {
    let mut port = UringPort::for_test();
    port.last_completions_timeout = Duration::from_secs(2);
    let (ours, peer) = pair();
    let ours = port.register(ours, Token(1)).unwrap();
    port.post(ours, Operation::Receive).unwrap();
    port.outstanding += 1; // its completion never comes
    let started = Instant::now();
    port.close(&mut |_: Completion<'_>| {});
    let took = started.elapsed();
    assert!(took < Duration::from_millis(3_800), "it waited twice: {took:?}");
    assert_eq!(read_to_end(&peer), b"");
}

#[test]
fn a_port_that_is_refused_every_enter_ends_at_once_and_closes_its_sockets() {
    let mut port = UringPort::for_test();
    let pairs: Vec<_> = (0..41).map(|_| tcp_pair()).collect();
    let mut peers = Vec::new();
    for (number, (ours, peer)) in pairs.into_iter().enumerate() {
        let ours = port.register(ours, Token(number as u64)).unwrap();
        port.post(ours, Operation::Receive).unwrap();
        port.post(ours, Operation::Send(batch(&pattern(3_000_000, 1)))).unwrap();
        peers.push(peer);
    }
    port.wait(Some(Duration::ZERO), &mut |_: Completion<'_>| {}).unwrap();
    port.lose_ring();
    assert!(port.wait(None, &mut |_: Completion<'_>| {}).is_err());
    port.close(&mut |completion: Completion<'_>| panic!("{completion:?}"));
    for peer in peers {
        let received = read_to_end(&peer);
        assert!(received[..] == pattern(3_000_000, 1)[..received.len()]);
    }
}

/// Makes the kernel refuse every `io_uring_enter` of this thread from now on (seccomp(2)).
fn refuse_enters_of_this_thread(errno: i32) {
    // If the call's number is that of `io_uring_enter`: refuse; else allow.
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
    let statement = |code, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_enter as u32,
            )
        },
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the first call takes no pointers; the program and its filter are only read during the second
    // call.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// On its own thread, because a filter cannot be removed.
#[test]
fn a_port_that_is_refused_every_enter_for_something_that_may_pass_fails_when_it_does_not_pass() {
    for errno in [libc::EAGAIN, libc::ENOMEM, libc::EBUSY] {
        let refused = move || {
            let mut port = UringPort::for_test();
            let (ours, peer) = pair();
            let ours = port.register(ours, Token(1)).unwrap();
            port.post(ours, Operation::Receive).unwrap();
            let wait =
                |port: &mut UringPort| port.wait(Some(Duration::ZERO), &mut |_: Completion<'_>| {});
            wait(&mut port).unwrap();
            refuse_enters_of_this_thread(errno);
            for _ in 0..10 {
                wait(&mut port).expect("it may pass");
            }
            let since = port.refused_since.expect("it is refused");
            port.refused_since = since.checked_sub(REFUSED_TIMEOUT);
            assert_eq!(wait(&mut port).unwrap_err().raw_os_error(), Some(errno));
            port.close(&mut |_: Completion<'_>| {});
            assert_eq!(read_to_end(&peer), b"");
        };
        thread::spawn(refused).join().unwrap();
    }
}

#[test]
fn an_operation_that_the_kernel_interrupted_counts_as_cancelled() {
    for errno in [libc::ECANCELED, libc::EINTR] {
        assert!(matches!(super::count_or_failure(-errno), Err(Failure::Cancelled)));
    }
    assert!(matches!(super::count_or_failure(-libc::EPIPE), Err(Failure::Os(_))));
    assert!(matches!(super::count_or_failure(7), Ok(7)));
}
