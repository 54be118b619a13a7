//! Groups: what is published reaches every member once, whole and in order, and nobody else.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use support::*;
use wharf::{
    Backend, Backpressure, Close, CloseReason, FirstFrameTimeout, Framing, Group, Handle,
    JoinError, LengthPrefix, Options, PublishError, SessionId,
};

const ROOM: Group = Group(7);
const OTHER_ROOM: Group = Group(8);

fn lengths() -> Framing {
    Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(100_000))
}

fn start_groups(backend: Backend, options: Options) -> Harness {
    // Members here only listen.
    let options = options.with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
    });
    start(backend, lengths(), options, Behaviour::silent())
}

fn two_workers() -> Options {
    Options::default().workers(2)
}

/// The next frame that a peer gets.
#[track_caller]
fn next(peer: &TcpStream) -> Vec<u8> {
    let length = u32::from_be_bytes(read(peer, 4).try_into().unwrap());
    read(peer, length as usize)
}

/// So many members of the room, and peers that are none.
fn room(harness: &Harness, count: usize) -> Vec<(TcpStream, SessionId)> {
    let members: Vec<_> = (0..count).map(|_| harness.connect_known()).collect();
    for (_, id) in &members {
        assert_eq!(harness.handle.join(*id, ROOM), Ok(true));
    }
    members
}

/// What a publisher says as its `number`th: who it is, the number, and bytes that show a change. Of all
/// sizes, those that are copied and those that are shared.
fn saying(publisher: u8, number: u32) -> Vec<u8> {
    let len = [9, 200, 3_000, 9, 20_000, 1_500][number as usize % 6] + publisher as usize;
    let mut frame = vec![publisher];
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|at| (at as u32 ^ number) as u8));
    frame
}

/// Publishes, and when it is too much at once, again.
fn publish(handle: &Handle, group: Group, bytes: &[u8]) {
    let mut bytes = bytes;
    while let Err(error) = handle.publish(group, bytes) {
        assert!(matches!(error, PublishError::Full { .. }), "{error}");
        bytes = error.into_inner();
        thread::yield_now();
    }
}

on_every_backend! {
    fn every_member_gets_each_frame_once_whole_and_in_one_order(backend) {
        const PUBLISHERS: u8 = 3;
        const EACH: u32 = 120;
        let options = two_workers().with(|options| {
options.sending.queue_bytes_max = 16 << 20;
});
        let harness = start_groups(backend, options);
        let members = room(&harness, 6);
        let (stranger, stranger_id) = harness.connect_known();
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let handle = &harness.handle;
                scope.spawn(move || {
                    for number in 0..EACH {
                        publish(handle, ROOM, &saying(publisher, number));
                    }
                });
            }
        });
        let mut orders = HashSet::new();
        for (peer, _) in &members {
            let (mut order, mut numbers) = (Vec::new(), [0; PUBLISHERS as usize]);
            for _ in 0..u32::from(PUBLISHERS) * EACH {
                let frame = next(peer);
                let number = &mut numbers[frame[0] as usize];
                assert_same(&frame, &saying(frame[0], *number));
                *number += 1;
                order.push(frame[0]);
            }
            assert_eq!(numbers, [EACH; PUBLISHERS as usize]);
            orders.insert(order);
        }
        assert_eq!(orders.len(), 1, "all members saw the same order");
        // The first that the others get is the last that is sent to them.
        harness.handle.send(stranger_id, b"alone").unwrap();
        assert_same(&next(&stranger), b"alone");
        harness.finish();
    }

    fn what_one_thread_joins_leaves_and_publishes_comes_about_in_its_order(backend) {
        let harness = start_groups(backend, two_workers());
        let handle = &harness.handle;
        let peers: Vec<_> = (0..4).map(|_| harness.connect_known()).collect();
        let say = |text: String| publish(handle, ROOM, text.as_bytes());
        for round in 0..200 {
            for (at, (_, id)) in peers.iter().enumerate() {
                say(format!("{round} before {at}"));
                assert_eq!(handle.join(*id, ROOM), Ok(true));
                assert_eq!(handle.join(*id, ROOM), Ok(false));
                say(format!("{round} with {at}"));
                handle.publish_except(ROOM, *id, format!("{round} but {at}")).unwrap();
                if at > 0 {
                    assert!(handle.leave(*id, ROOM).is_some());
                    assert_eq!(handle.leave(*id, ROOM), None);
                    say(format!("{round} without {at}"));
                }
            }
            assert!(handle.leave(peers[0].1, ROOM).is_some());
            if round % 20 == 19 {
                // Nobody is to be a slow consumer here.
                eventually("it has left", || handle.stats().queued_bytes == 0);
            }
        }
        for (at, (peer, id)) in peers.iter().enumerate() {
            handle.send(*id, b"the end").ok();
            let mut expected = Vec::new();
            for round in 0..200 {
                expected.push(format!("{round} with {at}"));
                if at == 0 {
                    for other in 1..4 {
                        for word in ["before", "with", "but", "without"] {
                            expected.push(format!("{round} {word} {other}"));
                        }
                    }
                }
            }
            // A direct send may overtake.
            let mut seen: Vec<_> =
                (0..=expected.len()).map(|_| String::from_utf8(next(peer)).unwrap()).collect();
            seen.retain(|text| text != "the end");
            assert_eq!(seen, expected);
        }
        harness.finish();
    }

    fn a_broadcast_reaches_all_that_are_open_and_one_that_opens_meanwhile_from_some_frame_on(backend) {
        const FRAMES: u32 = 400;
        let options = two_workers().with(|options| {
options.sending.queue_bytes_max = 16 << 20;
});
        let harness = start_groups(backend, options);
        let first: Vec<_> = (0..5).map(|_| harness.connect_known()).collect();
        let late = thread::scope(|scope| {
            let handle = &harness.handle;
            scope.spawn(move || {
                for number in 0..FRAMES {
                    while handle.broadcast(saying(1, number)).is_err() {
                        thread::yield_now();
                    }
                }
            });
            (0..10).map(|_| harness.connect_known()).collect::<Vec<_>>()
        });
        harness.handle.broadcast(saying(1, FRAMES)).unwrap();
        for (peer, _) in &first {
            (0..=FRAMES).for_each(|number| assert_same(&next(peer), &saying(1, number)));
        }
        for (peer, _) in &late {
            let frame = next(peer);
            let from = u32::from_be_bytes(frame[1..5].try_into().unwrap());
            assert_same(&frame, &saying(1, from));
            (from + 1..=FRAMES).for_each(|number| assert_same(&next(peer), &saying(1, number)));
        }
        harness.finish();
    }

    fn what_opened_broadcasts_reaches_its_own_session(backend) {
        let behaviour = Behaviour::silent()
            .on_opened(|session| session.handle().broadcast(b"somebody came").unwrap());
        let harness = start(backend, lengths(), two_workers(), behaviour);
        for _ in 0..20 {
            let peer = harness.connect();
            assert_same(&next(&peer), b"somebody came");
        }
        harness.finish();
    }

    fn membership_ends_with_the_session_and_never_passes_to_the_slots_next(backend) {
        // One slot, so that each session has the one of the session before.
        let options = one_worker().with(|options| {
options.sessions.max = 1;
});
        let harness = start_groups(backend, options);
        for round in 0..30u32 {
            let (peer, id) = harness.connect_known();
            publish(&harness.handle, ROOM, b"for the one before");
            if round % 2 == 0 {
                harness.handle.send(id, round.to_be_bytes()).unwrap();
                assert_same(&next(&peer), &round.to_be_bytes());
            } else {
                assert_eq!(harness.handle.join(id, ROOM), Ok(true), "nobody is a member");
                publish(&harness.handle, ROOM, &round.to_be_bytes());
                assert_same(&next(&peer), &round.to_be_bytes());
            }
            harness.handle.join(id, ROOM).unwrap();
            harness.handle.join(id, OTHER_ROOM).unwrap();
            harness.handle.close(id, Close::Stop);
            assert_eq!(harness.log.closed(id), CloseReason::Local);
            harness.settle();
            assert_eq!(harness.handle.join(id, ROOM), Err(JoinError::Gone));
            assert_eq!(harness.handle.leave(id, ROOM), None);
        }
        harness.finish();
    }

    fn a_member_that_never_reads_ends_as_a_slow_consumer_and_the_others_get_everything(backend) {
        for backpressure in [Backpressure::None, Backpressure::PauseReceive] {
            let harness = start_groups(backend, two_workers().with(|options| {
options.receiving.backpressure = backpressure;
options.sending.slow_after = std::time::Duration::from_millis(300);
}));
            let mut members = room(&harness, 4);
            let (_deaf, deaf_id) = members.pop().unwrap();
            let frame = |number: u32| saying(0, number).repeat(3);
            let mut published = 0;
            let have_read = &[const { AtomicU32::new(0) }; 3];
            thread::scope(|scope| {
                let frame = &frame;
                let readers: Vec<_> = members
                    .iter()
                    .zip(have_read)
                    .map(|((peer, _), has_read)| {
                        scope.spawn(move || {
                            loop {
                                let bytes = next(peer);
                                let number = has_read.load(Ordering::SeqCst);
                                if bytes == b"the end" {
                                    break number;
                                }
                                assert_same(&bytes, &frame(number));
                                has_read.store(number + 1, Ordering::SeqCst);
                            }
                        })
                    })
                    .collect();
                while harness.log.look(|ledger| ledger.closed_by(deaf_id)).is_none() {
                    publish(&harness.handle, ROOM, &frame(published));
                    published += 1;
                    // Those who read have what there is before more comes.
                    eventually("the others have it", || {
                        harness.log.look(|ledger| ledger.closed_by(deaf_id)).is_some()
                            || have_read.iter().all(|count| count.load(Ordering::SeqCst) == published)
                    });
                }
                publish(&harness.handle, ROOM, b"the end");
                for reader in readers {
                    assert_eq!(reader.join().unwrap(), published);
                }
            });
            assert!(matches!(harness.log.closed(deaf_id), CloseReason::SlowConsumer { .. }));
            let stats = harness.finish();
            assert_eq!(stats.closed_by().filter(|(kind, _)| *kind == "slow consumer").map(|(_, n)| n).sum::<u64>(), 1);
        }
    }

    fn threads_join_leave_and_publish_at_once_and_who_stays_misses_nothing(backend) {
        const EACH: u32 = 300;
        let options = two_workers().with(|options| {
options.sending.queue_bytes_max = 16 << 20;
});
        let harness = start_groups(backend, options);
        let stayers = room(&harness, 4);
        let comers: Vec<_> = (0..4).map(|_| harness.connect_known()).collect();
        let over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let handle = &harness.handle;
            let publishers: Vec<_> = (0..2)
                .map(|publisher| {
                    scope.spawn(move || {
                        for number in 0..EACH {
                            publish(handle, ROOM, &saying(publisher, number));
                        }
                    })
                })
                .collect();
            let _over = SetOnDrop(over);
            for (_, id) in &comers {
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        match handle.join(*id, ROOM) {
                            Ok(is_new) => assert!(is_new && handle.leave(*id, ROOM).is_some()),
                            Err(JoinError::Full { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        thread::sleep(Duration::from_micros(20)); // it is not about a full queue
                    }
                });
            }
            publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        });
        for (peer, _) in &stayers {
            let mut numbers = [0; 2];
            while numbers != [EACH; 2] {
                let frame = next(peer);
                assert_same(&frame, &saying(frame[0], numbers[frame[0] as usize]));
                numbers[frame[0] as usize] += 1;
            }
        }
        publish(&harness.handle, ROOM, b"not to who has left");
        harness.handle.broadcast(b"the end").unwrap();
        for (peer, _) in &comers {
            let mut lasts = [None; 2];
            loop {
                let frame = next(peer);
                if frame == b"the end" {
                    break;
                }
                let number = u32::from_be_bytes(frame[1..5].try_into().unwrap());
                assert_same(&frame, &saying(frame[0], number));
                let last = &mut lasts[frame[0] as usize];
                assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
                *last = Some(number);
            }
        }
        harness.finish();
    }

    fn bounds_refuse_and_give_the_frame_back(backend) {
        let options = one_worker().with(|options| {
options.sessions.groups_max = 2;
options.sending.publications_bytes_max = 8 * 1024;
});
        let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
        let in_handler = gate.clone();
        let behaviour = Behaviour::silent().on_received(move |_, _| {
            in_handler.wait(); // the worker stands still
            in_handler.wait();
        });
        let harness = start(backend, lengths(), options, behaviour);
        let handle = &harness.handle;
        let members = room(&harness, 2);
        let id = members[0].1;
        assert_eq!(handle.join(id, OTHER_ROOM), Ok(true));
        assert_eq!(handle.join(id, Group(9)), Err(JoinError::TooManyGroups { max: 2 }));
        let large = vec![1; 8 * 1024];
        let error = handle.publish(ROOM, large.clone()).unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { max, .. } if max < 8 * 1024), "{error}");
        assert_eq!(error.into_inner(), large);

        write(&members[1].0, b"\0\0\0\x01!");
        gate.wait();
        let mut count = 0u32;
        let error = loop {
            match handle.publish(ROOM, vec![count as u8; 100]) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        let is_full = matches!(
            error,
            PublishError::Full { waiting, max: 8192, .. } if waiting <= 8192
        );
        assert!(is_full && count > 10, "{error}");
        assert_eq!(error.into_inner(), vec![count as u8; 100]);
        let other = members[1].1;
        while handle.join(other, OTHER_ROOM).is_ok() && handle.leave(other, OTHER_ROOM).is_some() {}
        assert!(matches!(handle.join(other, OTHER_ROOM), Err(JoinError::Full { max: 8192, .. })));
        assert!(handle.publish(Group(99), b"to nobody").is_ok(), "it waits nowhere");
        gate.wait();

        for (peer, _) in &members {
            (0..count).for_each(|number| assert_same(&next(peer), &[number as u8; 100]));
        }
        publish(handle, ROOM, b"again");
        assert_same(&next(&members[0].0), b"again");
        handle.stop();
        assert_eq!(handle.publish(ROOM, b"late"), Err(PublishError::Ending(b"late")));
        harness.finish();
    }

    fn what_was_published_before_a_drain_leaves(backend) {
        let harness = start_groups(backend, two_workers());
        let members = room(&harness, 6);
        for number in 0..100 {
            publish(&harness.handle, ROOM, &saying(2, number % 3));
        }
        let report = thread::scope(|scope| {
            for (peer, _) in &members {
                scope.spawn(move || {
                    for number in 0..100 {
                        assert_same(&next(peer), &saying(2, number % 3));
                    }
                    assert!(read_to_end(peer).is_empty());
                });
            }
            harness.handle.drain(BOUND).unwrap()
        });
        assert_eq!((report.live, report.flushed), (6, 6), "{report:?}");
        harness.finish();
    }
}
