//! Tests of the backlog: against a list that is kept for each session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::frame::Frame;
use super::super::members::Group;
use super::*;

const SESSIONS: u32 = 7;
const AUDIENCES: u64 = 3;
const KEYS: u64 = 3;

fn id(index: u32) -> SessionId {
    SessionId::new(index, 3)
}

fn audience(number: u64) -> Audience {
    if number == 0 { Audience::All } else { Audience::Group(Group(number)) }
}

fn number(publication: &Publication) -> u32 {
    let body: Vec<u8> = publication.frame.body().iter().flat_map(|part| part.to_vec()).collect();
    u32::from_be_bytes(body.try_into().unwrap())
}

fn at(secs: u64) -> Moment {
    Moment::default().after(Duration::from_secs(secs))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    audience: Audience,
    number: u32,
    key: Option<u64>,
    /// A newer one of the same key may take its place.
    is_open: bool,
}

/// What each session should get and miss.
#[derive(Debug, Default)]
struct Oracle {
    members: BTreeMap<(u64, u32), Policy>,
    lacks: BTreeMap<u32, VecDeque<Entry>>,
    missed: BTreeMap<(u64, u32), u64>,
    /// Who is behind in which audience, and has neither left it nor closes.
    open: BTreeSet<(u64, u32)>,
    closes: BTreeSet<u32>,
}

impl Oracle {
    /// The members that have no room for this, of those that are not behind in its audience.
    fn without_room(
        &self,
        of: u64,
        except: Option<u32>,
        mut has_room: impl FnMut() -> bool,
    ) -> Vec<(SessionId, Policy)> {
        let current = self.members.iter().filter(|((group, index), _)| {
            *group == of && Some(*index) != except && !self.open.contains(&(of, *index))
        });
        let mut without_room = Vec::new();
        for ((_, index), policy) in current {
            if self.lacks.contains_key(index) || !has_room() {
                without_room.push((id(*index), *policy));
            }
        }
        without_room
    }

    fn publish(&mut self, of: u64, entry: Entry, except: Option<u32>) {
        for ((group, index), policy) in &self.members {
            if *group != of || Some(*index) == except || !self.open.contains(&(of, *index)) {
                continue;
            }
            if *policy == Policy::Skip {
                *self.missed.entry((of, *index)).or_default() += 1;
                continue;
            }
            let lacks = self.lacks.entry(*index).or_default();
            if *policy == Policy::KeepLatest && entry.key.is_some() {
                lacks.retain(|before| {
                    !(before.is_open
                        && before.key == entry.key
                        && before.audience == entry.audience)
                });
            }
            lacks.push_back(Entry { is_open: *policy == Policy::KeepLatest, ..entry });
        }
    }

    /// The session is in this audience no more, or in none if it closes.
    fn ends(&mut self, index: u32, of: Option<u64>) {
        let is_of = |group: u64| of.is_none_or(|of| of == group);
        self.open.retain(|(group, at)| *at != index || !is_of(*group));
        self.missed.retain(|(group, at), _| *at != index || !is_of(*group));
        self.members.retain(|(group, at), _| *at != index || !is_of(*group));
        for entry in self.lacks.entry(index).or_default() {
            entry.is_open &= of.is_some_and(|of| entry.audience != audience(of));
        }
        self.lacks.retain(|_, lacks| !lacks.is_empty());
    }

    fn forget(&mut self, index: u32) {
        self.lacks.remove(&index);
        self.ends(index, None);
        self.closes.remove(&index);
    }
}

#[test]
fn each_gets_what_it_lacks_as_if_it_had_a_list_of_its_own() {
    let mut random = 7u64;
    let mut below = |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % end
    };
    let rounds = if cfg!(miri) { 20 } else { 3_000 };
    let (mut refilled, mut missed, mut superseded, mut closed) = (0, 0, 0, 0);
    for _ in 0..rounds {
        let (mut backlog, mut oracle) = (Backlog::default(), Oracle::default());
        for step in 0..250u32 {
            let (index, of) = (below(SESSIONS.into()) as u32, below(AUDIENCES));
            match below(12) {
                0..4 => {
                    let key = (below(2) == 0).then(|| below(KEYS));
                    let except = (key.is_none() && below(3) == 0).then_some(index);
                    let without_room = oracle.without_room(of, except, || below(3) > 0);
                    let publication = Publication {
                        to: audience(of),
                        except: except.map(id),
                        key,
                        frame: Frame::of(&step.to_be_bytes()),
                    };
                    backlog.keep(&publication, &without_room, at(0), |id, _| {
                        oracle.open.insert((of, id.index()));
                    });
                    let entry = Entry { audience: audience(of), number: step, key, is_open: true };
                    oracle.publish(of, entry, except);
                }
                4..8 => {
                    let (mut room, mut got) = (below(8), Vec::new());
                    let offer = |publication: &Publication, _| {
                        if room == 0 {
                            return Offered::NoRoom;
                        }
                        room -= 1;
                        got.push(number(publication));
                        Offered::Taken
                    };
                    let caught_up = backlog.refill(id(index), offer, |to, _| {
                        oracle.open.retain(|(of, at)| audience(*of) != to || *at != index);
                    });
                    let mut lacks = oracle.lacks.remove(&index).unwrap_or_default();
                    refilled += got.len();
                    for number in got {
                        assert_eq!(lacks.pop_front().map(|entry| entry.number), Some(number));
                    }
                    assert_eq!(caught_up == CaughtUp::No, !lacks.is_empty());
                    if lacks.is_empty() {
                        assert_eq!(caught_up == CaughtUp::AndCloses, oracle.closes.remove(&index));
                    } else {
                        oracle.lacks.insert(index, lacks);
                    }
                }
                8 if !oracle.lacks.contains_key(&index) => {
                    let told = backlog.missed(id(index), |to| {
                        oracle.open.retain(|(of, at)| audience(*of) != to || *at != index);
                    });
                    if let Some((to, frames)) = told {
                        missed += frames;
                        let of = (0..AUDIENCES).find(|of| audience(*of) == to).unwrap();
                        assert_eq!(oracle.missed.remove(&(of, index)), Some(frames));
                    } else {
                        assert!(!oracle.missed.keys().any(|(_, at)| *at == index));
                    }
                }
                9 if oracle.members.contains_key(&(of, index)) => {
                    backlog.leave(id(index), audience(of));
                    oracle.ends(index, Some(of));
                }
                8..11 if !oracle.closes.contains(&index) => {
                    let policies = [Policy::Close, Policy::Skip, Policy::KeepLatest];
                    let policy = policies[below(3) as usize];
                    oracle.members.entry((of, index)).or_insert(policy);
                }
                _ if below(2) == 0 => {
                    let lacks = oracle.lacks.contains_key(&index);
                    assert_eq!(backlog.close(id(index)), lacks);
                    oracle.ends(index, None);
                    if lacks {
                        oracle.closes.insert(index);
                        closed += 1;
                    }
                }
                _ => {
                    backlog.forget(id(index));
                    oracle.forget(index);
                }
            }
            assert_eq!(backlog.lacking(), oracle.lacks.len());
        }
        superseded += backlog.superseded();
        (0..SESSIONS).for_each(|index| backlog.forget(id(index)));
        assert!(backlog.logs.is_empty() && backlog.is_empty() && backlog.lacking() == 0);
        assert_eq!(backlog.held_bytes(), 0);
    }
    assert!(refilled > rounds * 30, "{refilled}");
    assert!(missed as usize > rounds && superseded as usize > rounds && closed > rounds);
}

/// One that lacks a frame since second 0.
fn behind_since_0(policy: Policy) -> Backlog {
    let mut backlog = Backlog::default();
    lacks_at(&mut backlog, policy, 0);
    backlog
}

fn lacks_at(backlog: &mut Backlog, policy: Policy, secs: u64) {
    let frame = Frame::of(b"0123");
    let publication = Publication { to: audience(1), except: None, key: None, frame };
    backlog.keep(&publication, &[(id(0), policy)], at(secs), |_, _| {});
}

/// While a send is with the OS.
fn seen(left_bytes: u64) -> Option<Seen> {
    Some(Seen { left_bytes, unacknowledged_bytes: 0, is_sending: true })
}

const ALL: usize = usize::MAX;
const RULE: SlowRule = SlowRule { after: Duration::from_secs(10), bytes: 100 };

#[test]
fn a_member_is_slow_if_too_little_leaves_in_the_time() {
    // The first of ten looks on which somebody is slow, if as much has left at each.
    let slow_from = |backlog: &mut Backlog, left: &[u64]| {
        left.iter().position(|left| !backlog.slow(ALL, false, RULE, |_| seen(*left)).is_empty())
    };
    let mut backlog = behind_since_0(Policy::Close);
    assert_eq!(slow_from(&mut backlog, &[0; 10]), None, "it has its time");
    assert_eq!(slow_from(&mut backlog, &[100]), None, "as much has left as must");
    assert_eq!(slow_from(&mut backlog, &[199; 11]), Some(9), "from then on");
    assert_eq!(slow_from(&mut behind_since_0(Policy::Close), &[99; 12]), Some(10));
    for policy in [Policy::Skip, Policy::KeepLatest] {
        let mut backlog = behind_since_0(policy);
        assert_eq!(slow_from(&mut backlog, &[0; 100]), None, "{policy:?}");
        // From then on it lacks what it must have.
        lacks_at(&mut backlog, Policy::Close, 1_001);
        assert_eq!(slow_from(&mut backlog, &[0; 12]), Some(10), "{policy:?}");
    }
}

#[test]
fn time_in_which_the_worker_stands_still_or_nothing_is_with_the_os_counts_for_nobody() {
    for (is_late, is_sending) in [(true, true), (false, false), (false, true)] {
        let mut backlog = behind_since_0(Policy::Close);
        let counts = !is_late && is_sending;
        let see = |_| Some(Seen { left_bytes: 0, unacknowledged_bytes: 0, is_sending });
        let is_slow = (0..100).any(|_| !backlog.slow(ALL, is_late, RULE, see).is_empty());
        assert_eq!((is_slow, backlog.stuck().len()), (counts, usize::from(counts)));
    }
    assert_eq!(RULE.late_after(), Duration::from_secs(1));
    let short = SlowRule { after: Duration::from_millis(10), ..RULE };
    assert_eq!(short.late_after(), SlowRule::LATE_MIN, "turns take their time");
}

#[test]
fn a_member_is_stuck_if_nothing_leaves_between_two_looks_and_since() {
    let look = |backlog: &mut Backlog, left| {
        backlog.slow(ALL, false, RULE, |_| seen(left));
        backlog.stuck().len()
    };
    let mut backlog = behind_since_0(Policy::KeepLatest);
    let idle = Seen { left_bytes: 0, unacknowledged_bytes: 0, is_sending: false };
    backlog.slow(ALL, false, RULE, |_| Some(idle));
    assert_eq!(look(&mut backlog, 0), 0, "a send was posted since the last look");
    assert_eq!(look(&mut backlog, 0), 1);
    assert!(backlog.forget_stuck(|_| Some(1)).is_empty(), "something has left since");
    assert_eq!(look(&mut backlog, 1), 0);
    assert_eq!(look(&mut backlog, 1), 1);
    assert_eq!(backlog.forget_stuck(|_| Some(1)), [id(0)]);
    assert!(backlog.is_empty() && backlog.held_bytes() == 0);
}

#[test]
fn a_look_comes_to_each_member_once_however_few_at_a_time() {
    let mut backlog = Backlog::default();
    let frame = Frame::of(b"0123");
    let publication = Publication { to: audience(1), except: None, key: None, frame };
    let all: Vec<_> = (0..41).map(|index| (id(index), Policy::Close)).collect();
    backlog.keep(&publication, &all, at(0), |_, _| {});
    for look in 0..3 {
        let mut seen_ids = Vec::new();
        loop {
            let before = seen_ids.len();
            backlog.slow(7, false, RULE, |id| {
                seen_ids.push(id);
                seen(0)
            });
            assert!(seen_ids.len() - before <= 7);
            if look == 1 && before == 0 {
                // They end while the look goes on.
                (0..41)
                    .map(id)
                    .filter(|id| !seen_ids.contains(id))
                    .for_each(|id| backlog.forget(id));
            }
            if !backlog.is_looking() {
                break;
            }
        }
        let count = seen_ids.len();
        seen_ids.sort_unstable_by_key(|id| id.index());
        seen_ids.dedup();
        assert_eq!((count, seen_ids.len()), if look == 0 { (41, 41) } else { (7, 7) });
    }
}

#[test]
fn what_the_peer_acknowledges_is_progress_though_nothing_leaves() {
    let (mut backlog, mut held) = (behind_since_0(Policy::Close), 10_000);
    for look in 0..100 {
        held -= 10;
        let see = |_| Some(Seen { left_bytes: 7, unacknowledged_bytes: held, is_sending: true });
        assert!(
            backlog.slow(ALL, false, RULE, see).is_empty() && backlog.stuck().is_empty(),
            "{look}"
        );
    }
    // What the OS takes is none.
    let mut backlog = behind_since_0(Policy::Close);
    for look in 0..11 {
        let see = |_| {
            Some(Seen {
                left_bytes: 7 + look * 1_000,
                unacknowledged_bytes: held + look * 1_000,
                is_sending: true,
            })
        };
        assert_eq!(backlog.slow(ALL, false, RULE, see).len(), usize::from(look == 10), "{look}");
    }
}

#[test]
fn a_frame_that_is_kept_for_members_of_two_policies_counts_once() {
    let mut backlog = Backlog::default();
    let frame = Frame::of(b"0123");
    let publication = Publication { to: audience(1), except: None, key: Some(7), frame };
    let bytes = publication.waiting_bytes();
    let all = [(id(0), Policy::Close), (id(1), Policy::KeepLatest)];
    backlog.keep(&publication, &all, at(0), |_, _| {});
    assert_eq!(backlog.held_bytes(), bytes);
    backlog.keep(&publication, &[], at(0), |_, _| {});
    assert_eq!((backlog.held_bytes(), backlog.superseded()), (2 * bytes, 1));
    backlog.forget(id(0));
    assert_eq!(backlog.held_bytes(), bytes, "the newest is kept for the other");
    backlog.forget(id(1));
    assert_eq!(backlog.held_bytes(), 0);
}

#[test]
fn a_session_that_is_behind_has_so_much_memory() {
    // A map is at least seven sixteenths full while it grows; a list has four places at first.
    let in_the_map = (size_of::<(SessionId, Behind)>() + 1) * 16 / 7;
    let in_the_list = 2 * size_of::<SessionId>();
    assert!(in_the_map + in_the_list + 4 * size_of::<Place>() <= BEHIND_BYTES, "{in_the_map}");
}
