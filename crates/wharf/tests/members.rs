//! Who is in a group and how many, over several workers, whatever still waits to come about.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use support::*;
use wharf::{Backend, Close, FirstFrameTimeout, Framing, Group, Options, SessionId};

const ROOM: Group = Group(7);
const OTHER_ROOM: Group = Group(8);
const CROWD: usize = 41;
const WORKERS: usize = 3;
const THREADS: usize = 3;

fn start_groups(backend: Backend, behaviour: Behaviour) -> Harness {
    let options = Options::default().workers(WORKERS).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
    });
    start(backend, Framing::raw(), options, behaviour)
}

fn crowd(harness: &Harness) -> Vec<(TcpStream, SessionId)> {
    (0..CROWD).map(|_| harness.connect_known()).collect()
}

/// Both questions have this answer, and nobody is named twice.
#[track_caller]
fn assert_members(harness: &Harness, group: Group, expected: &[SessionId]) {
    let members = harness.handle.members(group);
    assert_eq!(members.len(), expected.len());
    let set = |ids: &[SessionId]| ids.iter().copied().collect::<HashSet<_>>();
    assert_eq!(set(&members), set(expected));
    assert_eq!(harness.handle.member_count(group), expected.len());
}

on_every_backend! {
    fn who_joins_and_leaves_and_ends_is_counted_at_once_over_all_workers(backend) {
        let harness = start_groups(backend, Behaviour::silent());
        let handle = &harness.handle;
        let peers = crowd(&harness);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        assert_members(&harness, ROOM, &[]);
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(handle.join(*id, ROOM), Ok(true));
            assert_eq!(handle.join(*id, ROOM), Ok(false), "it counts once");
            assert_eq!(handle.join(*id, OTHER_ROOM), Ok(true));
            assert_eq!(handle.member_count(ROOM), index + 1);
        }
        assert_members(&harness, ROOM, &ids);
        let (leave, rest) = ids.split_at(CROWD / 2);
        for (index, id) in leave.iter().enumerate() {
            assert_eq!(handle.leave(*id, ROOM), Some(CROWD - 1 - index));
            assert_eq!(handle.leave(*id, ROOM), None, "it is a member no more");
        }
        assert_members(&harness, ROOM, rest);
        assert_members(&harness, OTHER_ROOM, &ids);
        let (end, rest) = rest.split_at(rest.len() / 2);
        for id in end {
            handle.close(*id, Close::Stop);
            harness.log.closed(*id);
            assert_eq!(handle.leave(*id, ROOM), None);
        }
        assert_members(&harness, ROOM, rest);
        for (index, id) in rest.iter().enumerate() {
            assert_eq!(handle.leave(*id, ROOM), Some(rest.len() - 1 - index));
        }
        assert_members(&harness, ROOM, &[]);
        let others: Vec<_> = leave.iter().chain(rest).copied().collect();
        assert_members(&harness, OTHER_ROOM, &others);
        harness.finish();
    }

    fn what_still_waits_is_counted_as_if_it_had_come_about(backend) {
        let (gate, standing) = (Arc::new(Barrier::new(WORKERS + 1)), Arc::new(AtomicUsize::new(0)));
        let (in_handler, stands) = (gate.clone(), standing.clone());
        let behaviour = Behaviour::silent().on_received(move |_, _| {
            stands.fetch_add(1, Ordering::SeqCst);
            in_handler.wait(); // every worker stands still
            in_handler.wait();
        });
        let harness = start_groups(backend, behaviour);
        let handle = &harness.handle;
        let peers = crowd(&harness);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        let (before, later) = ids.split_at(11);
        before.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        // One peer of each worker speaks. (On a shared port any worker takes it.)
        let mut seen = HashSet::new();
        let is_shared = cfg!(windows);
        for (index, (peer, id)) in peers.iter().enumerate() {
            let is_new = seen.insert(harness.log.record(*id).worker);
            if if is_shared { index < WORKERS } else { is_new } {
                let before = standing.load(Ordering::SeqCst);
                write(peer, b"!");
                // One after the other: a worker may take several completions at once.
                eventually("it stands", || standing.load(Ordering::SeqCst) > before);
            }
        }
        gate.wait();
        later.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        assert_members(&harness, ROOM, &ids);
        for (index, id) in ids[5..20].iter().enumerate() {
            assert_eq!(handle.leave(*id, ROOM), Some(CROWD - 1 - index));
        }
        for (index, id) in ids[5..10].iter().enumerate() {
            assert_eq!(handle.join(*id, ROOM), Ok(true), "once more");
            assert_eq!(handle.member_count(ROOM), CROWD - 15 + index + 1);
        }
        let expected: Vec<_> = ids[..10].iter().chain(&ids[20..]).copied().collect();
        assert_members(&harness, ROOM, &expected);
        // Who is asked to end counts until its `closed`.
        handle.close(ids[0], Close::Stop);
        assert_members(&harness, ROOM, &expected);
        handle.publish(ROOM, b"to who is there").unwrap();
        assert_members(&harness, ROOM, &expected);
        gate.wait();
        harness.log.closed(ids[0]);
        assert_members(&harness, ROOM, &expected[1..]);
        for (peer, _) in peers[1..10].iter().chain(&peers[20..]) {
            assert_eq!(read(peer, 15), b"to who is there");
        }
        harness.finish();
    }

    fn in_closed_the_session_counts_no_more_and_the_last_finds_its_group_empty(backend) {
        type EndAll = fn(&Harness, Vec<(TcpStream, SessionId)>);
        let ways: [EndAll; 3] = [
            |_, peers| drop(peers),
            |harness, _peers| harness.handle.stop(),
            |harness, peers| {
                thread::scope(|scope| {
                    for part in peers.chunks(CROWD / 3 + 1) {
                        scope.spawn(|| {
                            part.iter().all(|(_, id)| harness.handle.close(*id, Close::Stop))
                        });
                    }
                });
            },
        ];
        for end_all in ways {
            let seen: Arc<Mutex<Vec<(usize, bool)>>> = Arc::default();
            let noted = seen.clone();
            let behaviour = Behaviour::silent().on_closed(move |session, _| {
                let (handle, id) = (session.handle(), session.id());
                let count = handle.member_count(ROOM);
                let sees_itself = handle.members(ROOM).contains(&id);
                assert_eq!(session.leave(ROOM), None);
                noted.lock().unwrap().push((count, sees_itself));
            });
            let harness = start_groups(backend, behaviour);
            let peers = crowd(&harness);
            for (_, id) in &peers {
                assert_eq!(harness.handle.join(*id, ROOM), Ok(true));
            }
            end_all(&harness, peers);
            harness.log.wait_closed_count(CROWD);
            let log = harness.log.clone();
            harness.finish();
            let seen = seen.lock().unwrap();
            assert_eq!(seen.len(), log.look(|ledger| ledger.closed_count));
            assert!(seen.iter().any(|(count, _)| *count == 0), "nobody was the last: {seen:?}");
            assert!(seen.iter().all(|(count, itself)| *count < CROWD && !itself), "{seen:?}");
        }
    }

    fn whoever_asks_while_others_come_and_go_gets_all_that_stay_and_nobody_twice(backend) {
        let harness = start_groups(backend, Behaviour::silent());
        let handle = &harness.handle;
        let peers = crowd(&harness);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        let (stay, come) = ids.split_at(30);
        stay.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        let (over, stay_set) = (AtomicBool::new(false), stay.iter().copied().collect());
        thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            for part in come.chunks(4) {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        part.iter().for_each(|id| _ = handle.join(*id, ROOM));
                        handle.publish(ROOM, b".").ok();
                        part.iter().for_each(|id| _ = handle.leave(*id, ROOM));
                        thread::yield_now();
                    }
                });
            }
            for _ in 0..500 {
                let members = handle.members(ROOM);
                let set: HashSet<_> = members.iter().copied().collect();
                assert_eq!(set.len(), members.len(), "one is named twice");
                assert!(set.is_superset(&stay_set) && set.iter().all(|id| ids.contains(id)));
                let count = handle.member_count(ROOM);
                assert!((stay.len()..=CROWD).contains(&count), "{count}");
            }
        });
        assert_members(&harness, ROOM, stay);
        harness.finish();
    }

    fn of_those_that_leave_at_once_at_least_one_finds_the_group_empty(backend) {
        let harness = start_groups(backend, Behaviour::silent());
        let handle = &harness.handle;
        let peers = crowd(&harness);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        // All of the crowd, then one for each thread, often.
        for (members, rounds) in [(&ids[..], 20), (&ids[..THREADS], 2_000)] {
            let (together, left) = (Barrier::new(THREADS), Mutex::new(Vec::new()));
            thread::scope(|scope| {
                for part in members.chunks(members.len().div_ceil(THREADS)) {
                    let (together, left) = (&together, &left);
                    scope.spawn(move || {
                        for _ in 0..rounds {
                            part.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
                            together.wait();
                            let counts: Vec<_> =
                                part.iter().map(|id| handle.leave(*id, ROOM).unwrap()).collect();
                            assert!(counts.is_sorted_by(|a, b| a > b), "it falls: {counts:?}");
                            left.lock().unwrap().extend(counts.last());
                            if together.wait().is_leader() {
                                let lasts = std::mem::take(&mut *left.lock().unwrap());
                                assert!(lasts.contains(&0), "{lasts:?}");
                                assert_eq!(handle.member_count(ROOM), 0);
                            }
                            together.wait();
                        }
                    });
                }
            });
        }
        harness.finish();
    }
}
