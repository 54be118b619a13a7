//! Each fault that the port itself produces fires and has an effect. Without it the same scene shows no
//! effect.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use super::{Bench, Told};
use crate::port::contract::sockets::batch;
use crate::port::simulated::{Fault, Faults};
use crate::port::{Completion, CompletionPort, Operation, OperationKind, Token};

const CONTENT: &[u8] = &[7; if cfg!(miri) { 50 } else { 1_000 }];
const AT_ONCE: Duration = Duration::from_micros(50);

fn kind_of(told: &(Told, bool)) -> Option<ErrorKind> {
    match told.0 {
        Told::Failed(kind, _) => Some(kind),
        _ => None,
    }
}

/// Plays the scene in which a fault would show. Returns whether it did. `None`: there is no such scene on
/// this port.
fn shows<const SHARED: bool>(fault: Fault, mut bench: Bench<SHARED>) -> Option<(bool, u64)> {
    use Fault::*;
    let shown = match fault {
        CompletionDelayed
        | ReceiveOfOneByte
        | ReceiveInPart
        | ReceiveEnds
        | ReceiveFails
        | CompletionQueueOverflowed => received(fault, &mut bench),
        BuffersExhausted if !SHARED => received(fault, &mut bench),
        CancelDelayed | CancelLosesRace | CompletionAfterShutdown => ended(fault, &mut bench),
        SendOfOneByte | SendInPart | SendFails | PostRefused => sent(fault, &mut bench),
        SubmissionQueueFull if !SHARED => {
            let (ours, peer) = bench.session(1);
            bench.post(ours, Operation::Send(batch(CONTENT)));
            // Without a wait: the OS gets it and completes it.
            bench.world.sleep(Duration::from_millis(1));
            !peer.received().is_empty()
        }
        CompletionsReordered | BatchOfOne => batched(fault, &mut bench),
        AcceptEnds
        | AcceptWithoutDescriptors
        | AcceptWithoutMemory
        | AcceptAborted
        | CancelledAcceptSucceeds => accepted(fault, &mut bench),
        RegisterRefused => bench.port.register(bench.world.socket().into(), Token(1)).is_err(),
        ConnectRefused | ConnectTimesOut | ConnectUnanswered | ConnectMeetsItself => {
            connected(fault, &mut bench)
        }
        WaitInterrupted => {
            let (ours, _peer) = bench.session(1);
            bench.post(ours, Operation::Send(batch(CONTENT)));
            bench.wait(Duration::from_secs(1)).unwrap() == 0
        }
        WakeSpurious => {
            bench.wait(Duration::from_secs(10)).unwrap();
            bench.world.now() < Duration::from_secs(9)
        }
        ClockJumps => {
            bench.world.sleep(Duration::from_millis(1));
            bench.world.now() > Duration::from_secs(9)
        }
        PortFails => {
            let error = bench.wait(AT_ONCE).err();
            error.is_some_and(|error| error.kind() == ErrorKind::OutOfMemory)
        }
        PortEndsUntold => {
            let (ours, _peer) = bench.session(1);
            bench.post(ours, Operation::Receive);
            bench.wait(AT_ONCE).unwrap();
            bench.world.with(|state| state.ports[0].has_failed = true);
            let mut told = 0;
            bench.port.leave(&mut |_: Completion<'_>| told += 1);
            told == 0
        }
        WorkerFaults => {
            let wait = std::panic::AssertUnwindSafe(|| drop(bench.wait(AT_ONCE)));
            std::panic::catch_unwind(wait).is_err()
        }
        AdmissionFaults => {
            let socket = bench.world.socket();
            let prepare = std::panic::AssertUnwindSafe(|| {
                socket.prepare();
            });
            std::panic::catch_unwind(prepare).is_err()
        }
        // Faults that only threads meet (see `runs` and `steps`), that this kind of port lacks, or that peers
        // and handlers play.
        ThreadStalls | SubmissionQueueFull | BuffersExhausted | PeerStalls | PeerVanishes
        | PeerHalfCloses | PeerResets | PeerClosesUnread | BytesCorrupted | HandlerPanics
        | DestructorPanics | BytesMisbehave | CallbackBlocks | LocalClose | ThreadPreempted => {
            return None;
        }
        WebSocketHeadDribbled
        | WebSocketHeadMerged
        | WebSocketFramesCut
        | WebSocketFramesMerged
        | WebSocketFragments
        | WebSocketControlBetween
        | WebSocketPingFlood
        | WebSocketClosesCross
        | WebSocketEndsUnsaid
        | WebSocketGoesOn
        | WebSocketLingerCut
        | WebSocketFrameInvalid
        | WebSocketMute
        | WebSocketUpgradeRefused
        | WebSocketUpgradeStalls
        | WebSocketUpgradeGarbage => return None,
    };
    Some((shown, bench.fired(fault)))
}

fn received<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let (ours, peer) = bench.session(1);
    bench.post(ours, Operation::Receive);
    peer.send(CONTENT);
    let told = bench.outcome(OperationKind::Receive).unwrap();
    match fault {
        Fault::CompletionDelayed => bench.world.now() > AT_ONCE,
        Fault::ReceiveOfOneByte => told == (Told::Bytes(vec![7]), true),
        Fault::ReceiveInPart => {
            matches!(&told, (Told::Bytes(bytes), true) if bytes.len() < CONTENT.len())
        }
        Fault::ReceiveEnds | Fault::CompletionQueueOverflowed => {
            told == (Told::Bytes(CONTENT.to_vec()), false)
        }
        Fault::BuffersExhausted => told == (Told::BuffersExhausted, false),
        _ => kind_of(&told).is_some() && !told.1,
    }
}

/// What a cancel or a shutdown meets.
fn ended<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let (ours, peer) = bench.session(1);
    if fault == Fault::CancelDelayed {
        bench.post(ours, Operation::Receive);
        bench.port.cancel(ours, OperationKind::Receive);
        assert_eq!(bench.outcome(OperationKind::Receive), Some((Told::Cancelled, false)));
        return bench.world.now() > AT_ONCE;
    }
    peer.send(CONTENT);
    let without = match fault {
        Fault::CancelLosesRace => {
            // The cancel comes before the OS has looked.
            bench.world.with(|state| {
                state.ports[0].put(ours.0, Operation::Receive);
                state.cancel_later(0, ours.0, OperationKind::Receive);
            });
            Told::Cancelled
        }
        _ => {
            bench.port.shutdown(ours, Shutdown::Both);
            bench.post(ours, Operation::Receive);
            Told::Bytes(Vec::new())
        }
    };
    let told = bench.outcome(OperationKind::Receive).unwrap();
    let is_whole = told.0 == Told::Bytes(CONTENT.to_vec());
    assert!(is_whole || told == (without, false), "{told:?}");
    is_whole
}

fn sent<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let (ours, peer) = bench.session(1);
    let posted = bench.port.post(ours, Operation::Send(batch(CONTENT)));
    if let Err(refused) = posted {
        assert!(
            matches!(refused.given_back, Operation::Send(batch) if batch.bytes() == CONTENT.len())
        );
        assert_eq!(bench.wait(AT_ONCE).unwrap(), 0, "what was refused has no completion");
        return fault == Fault::PostRefused;
    }
    let told = bench.outcome(OperationKind::Send).unwrap();
    bench.wait(AT_ONCE).unwrap();
    let arrived = peer.received().len();
    match told.0 {
        Told::Sent(count, left) => {
            assert_eq!((count + left, arrived), (CONTENT.len(), count));
            match fault {
                Fault::SendOfOneByte => count == 1,
                _ => left > 0,
            }
        }
        told => matches!(told, Told::Failed(..)) && arrived == 0,
    }
}

fn batched<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let sessions: Vec<_> = (1..=20).map(|token| bench.session(token)).collect();
    for (ours, _) in &sessions {
        bench.post(*ours, Operation::Send(batch(b"!")));
    }
    let count = bench.wait(AT_ONCE).unwrap();
    if fault == Fault::BatchOfOne {
        return count == 1;
    }
    assert_eq!(count, 20);
    !bench.told.is_sorted_by_key(|(token, ..)| token.0)
}

fn accepted<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let peer = bench.world.connect_peer(bench.address).unwrap();
    if fault == Fault::CancelledAcceptSucceeds {
        bench.world.with(|state| {
            state.ports[0].put(bench.listening.0, Operation::Accept);
            state.cancel_later(0, bench.listening.0, OperationKind::Accept);
        });
    } else {
        bench.post(bench.listening, Operation::Accept);
    }
    let told = bench.outcome(OperationKind::Accept).unwrap();
    match fault {
        Fault::AcceptEnds | Fault::CancelledAcceptSucceeds => {
            matches!(told, (Told::Socket(_), false))
        }
        Fault::AcceptAborted => {
            bench.wait(AT_ONCE).unwrap();
            kind_of(&told) == Some(ErrorKind::ConnectionAborted) && told.1 && peer.is_reset()
        }
        _ => {
            let without = match told.0 {
                Told::Failed(_, code @ Some(_)) => code == Some(24) && !told.1, // EMFILE
                Told::Failed(kind, None) => kind == ErrorKind::OutOfMemory && !told.1,
                _ => return false,
            };
            // A waiting connection is still there when there are descriptors again.
            bench.world.be_quiet();
            bench.told.clear();
            bench.post(bench.listening, Operation::Accept);
            let again = bench.outcome(OperationKind::Accept);
            without && matches!(again, Some((Told::Socket(_), true)))
        }
    }
}

fn connected<const SHARED: bool>(fault: Fault, bench: &mut Bench<SHARED>) -> bool {
    let listener = bench.peer_listener();
    let client = bench.port.register(bench.world.socket().into(), Token(1)).unwrap();
    bench.post(client, Operation::Connect(Box::new(listener.address().into())));
    if fault == Fault::ConnectUnanswered {
        bench.wait(Duration::from_secs(60)).unwrap();
        bench.port.cancel(client, OperationKind::Connect);
    }
    let told = bench.outcome(OperationKind::Connect).unwrap();
    let peer = listener.accept();
    match kind_of(&told) {
        None if told.0 == Told::Cancelled => peer.is_none(),
        None => {
            let (Told::Connected(Some(own)), false) = told else { panic!("{told:?}") };
            let meets_itself = own == listener.address();
            assert_eq!(peer.is_some(), !meets_itself);
            meets_itself
        }
        Some(kind) => {
            let refused = fault == Fault::ConnectRefused;
            let expected = if refused { ErrorKind::ConnectionRefused } else { ErrorKind::TimedOut };
            kind == expected && peer.is_none()
        }
    }
}

fn judge_each<const SHARED: bool>() {
    let mut judged = 0;
    for &fault in Fault::ALL {
        let Some((shown, _)) = shows(fault, Bench::<SHARED>::new(Faults::none())) else { continue };
        assert!(!shown, "{fault} shows without it");
        let bench = Bench::<SHARED>::new(Faults::none().with(fault, 1));
        let (shown, fired) = shows(fault, bench).unwrap();
        assert!(shown, "{fault} does not show");
        assert!(fired > 0, "{fault} is not counted");
        judged += 1;
    }
    assert_eq!(judged, if SHARED { 32 } else { 34 });
}

#[test]
fn each_fault_shows_on_a_port_of_its_own() {
    judge_each::<false>();
}

#[test]
fn each_fault_shows_on_a_shared_port() {
    judge_each::<true>();
}
