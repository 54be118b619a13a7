//! Groups by name: whoever has joined by a name gets what is published by it, and names without members are forgotten.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, Weak};
use std::thread;

use support::*;
use wharf::{
    Backend, Close, FirstFrameTimeout, Framing, Group, Groups, Handle, JoinError, LengthPrefix,
    Options, Policy, PublishError, SessionId,
};

const CROWD: usize = 41;
const THREADS: usize = 4;

fn start_groups(backend: Backend) -> Harness {
    let options = Options::default().workers(2).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never; // members here only listen
        options.sending.queue_bytes_max = 16 << 20;
        options.sessions.groups_max = 1_000;
    });
    start(backend, Framing::length_prefixed(LengthPrefix::default()), options, Behaviour::silent())
}

fn crowd(harness: &Harness) -> Vec<(TcpStream, SessionId)> {
    (0..CROWD).map(|_| harness.connect_known()).collect()
}

#[track_caller]
fn next(peer: &TcpStream) -> Vec<u8> {
    let length = u32::from_be_bytes(read(peer, 4).try_into().unwrap());
    read(peer, length as usize)
}

/// Publishes, and when it is too much at once, again.
fn publish(groups: &Groups<String>, handle: &Handle, name: &str, text: &str) {
    while let Err(error) = groups.publish(handle, name, text) {
        assert!(matches!(error, PublishError::Full { .. }), "{error}");
        thread::yield_now();
    }
}

/// Ends a session, and waits until it is in no group.
fn end(harness: &Harness, id: SessionId) {
    assert!(harness.handle.close(id, Close::Stop));
    harness.log.closed(id);
}

/// Sweeps by new names, each of which is forgotten at once, until nothing is held.
fn sweep(groups: &Groups<String>, harness: &Harness) {
    let (_peer, id) = harness.connect_known();
    for number in 0..groups.len() {
        let name = format!("sweep {number}");
        assert_eq!(groups.join(&harness.handle, id, &name[..]), Ok(true));
        assert_eq!(groups.leave(&harness.handle, id, &name[..]), Some(0));
    }
    assert!(groups.is_empty(), "{groups:?}");
}

/// Says it behind all that was published: what is sent may overtake that.
fn say_over(groups: &Groups<String>, handle: &Handle, id: SessionId) {
    assert_eq!(groups.join(handle, id, "over"), Ok(true));
    publish(groups, handle, "over", "over");
    assert_eq!(groups.leave(handle, id, "over"), Some(0));
}

/// What a peer got until the word that says it is over, of what its own thread published for it.
fn own_words(peer: &TcpStream, number: usize) -> Vec<String> {
    let frames = std::iter::from_fn(|| {
        let frame = String::from_utf8(next(peer)).unwrap();
        (frame != "over").then_some(frame)
    });
    let own = format!("{number} ");
    frames.filter(|frame| frame.starts_with(&own)).collect()
}

on_every_backend! {
    fn nobody_who_has_joined_misses_a_word_while_others_take_the_last_members_out(backend) {
        const ROUNDS: usize = 60;
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::new());
        let members = crowd(&harness);
        // Two names for four threads: all the time the last leaves one as another comes.
        let room = |number: usize, round: usize| ["deck", "hold"][(number + round) % 2];
        thread::scope(|scope| {
            for part in members.chunks(CROWD.div_ceil(THREADS)).enumerate() {
                let (first, part) = (part.0 * CROWD.div_ceil(THREADS), part.1);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        for (number, (_, id)) in (first..).zip(part) {
                            let name = room(number, round);
                            assert_eq!(groups.join(handle, *id, name), Ok(true));
                            publish(groups, handle, name, &format!("{number} {round}"));
                            assert!(groups.leave(handle, *id, name).is_some());
                        }
                    }
                });
            }
        });
        assert!(groups.is_empty(), "{groups:?}: the last to leave has forgotten it");
        for (number, (peer, id)) in members.iter().enumerate() {
            say_over(groups, handle, *id);
            let expected: Vec<_> = (0..ROUNDS).map(|round| format!("{number} {round}")).collect();
            assert_eq!(own_words(peer, number), expected);
        }
        harness.finish();
    }

    fn nobody_who_has_joined_misses_a_word_while_the_sessions_of_others_end(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::new());
        let (staying, ending) = (crowd(&harness), crowd(&harness));
        let begins = &Barrier::new(2);
        thread::scope(|scope| {
            let (harness, ending) = (&harness, &ending);
            scope.spawn(move || {
                begins.wait();
                for (number, (_, id)) in ending.iter().enumerate() {
                    // The only member of its room, or nearly; and each new name looks at the rooms of others.
                    assert_eq!(groups.join(handle, *id, &number.to_string()[..]), Ok(true));
                    assert_eq!(groups.join(handle, *id, &format!("own {number}")[..]), Ok(true));
                    end(harness, *id);
                }
            });
            begins.wait();
            for (number, (_, id)) in staying.iter().enumerate() {
                let name = number.to_string();
                assert_eq!(groups.join(handle, *id, &name[..]), Ok(true));
                publish(groups, handle, &name, &format!("{number} hears"));
            }
        });
        for (number, (peer, id)) in staying.iter().enumerate() {
            assert_eq!(groups.members(handle, &number.to_string()[..]), [*id]);
            say_over(groups, handle, *id);
            assert_eq!(own_words(peer, number), [format!("{number} hears")]);
        }
        staying.iter().for_each(|(_, id)| end(&harness, *id));
        sweep(groups, &harness);
        harness.finish();
    }

    fn names_whose_sessions_have_ended_are_forgotten_as_others_come(backend) {
        const AT_ONCE: usize = 500;
        const NAMES: usize = 100_000;
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::new());
        let (_peer, stays) = harness.connect_known();
        assert_eq!(groups.join(handle, stays, "stays"), Ok(true));
        for session in 0..NAMES / AT_ONCE {
            let (_peer, id) = harness.connect_known();
            for number in 0..AT_ONCE {
                let name = format!("{session} {number}");
                assert_eq!(groups.join(handle, id, &name[..]), Ok(true));
                let held = groups.len();
                assert!(held <= 2 * (AT_ONCE + 1) + 8, "{held} names are held, after {name}");
            }
            end(&harness, id);
        }
        assert_eq!(groups.members(handle, "stays"), [stays]);
        end(&harness, stays);
        sweep(groups, &harness);
        harness.finish();
    }

    /// The worst that sessions can do: before a new name comes, they join those that are looked at next.
    fn names_that_have_members_whenever_they_are_looked_at_are_not_held_for_ever(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::new());
        let mut looked_until = 0; // if only new names made others be looked at
        for number in 0..300 {
            let (_peer, id) = harness.connect_known();
            for _ in 0..4 {
                let next = if looked_until > number { 0 } else { looked_until };
                looked_until = next + 1;
                if next < number {
                    groups.join(handle, id, &next.to_string()[..]).unwrap();
                }
            }
            assert_eq!(groups.join(handle, id, &number.to_string()[..]), Ok(true));
            assert!(groups.len() <= 2 * 5 + 8, "{} names are held, at {number}", groups.len());
            end(&harness, id);
        }
        harness.finish();
    }

    fn a_walk_has_each_name_that_stays_once_whatever_is_done_meanwhile(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::numbered_from(7));
        let (_peer, id) = harness.connect_known();
        let join = |name: &str| assert_eq!(groups.join(handle, id, name), Ok(true));
        let name = |number: usize| format!("{number:03}");
        (0..300).for_each(|number| join(&name(number)));
        let mut seen = Vec::new();
        for (number, (found, group)) in groups.names().take(500).enumerate() {
            let now = groups.group(&found[..]);
            assert!(now.is_none_or(|now| now == group), "{found}: {group:?}, {now:?}");
            if number < 100 {
                groups.leave(handle, id, &name(2 * number)[..]).unwrap(); // behind, and before
                join(&format!("new {number}"));
            }
            seen.push((*found).clone());
        }
        let once: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(once.len(), seen.len());
        let stay: BTreeSet<_> = (0..300).filter(|n| n % 2 == 1 || *n >= 200).map(name).collect();
        assert!(once.is_superset(&stay));
        assert_eq!(groups.names().next().map(|(name, group)| ((*name).clone(), group)),
            Some((name(1), Group(8))));
        harness.finish();
    }

    fn a_join_that_is_refused_leaves_no_name_behind(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<String>::numbered_from(u64::MAX));
        let ((_one, first), (_other, second)) = (harness.connect_known(), harness.connect_known());
        end(&harness, second);
        assert_eq!(groups.join(handle, second, "room"), Err(JoinError::Gone));
        assert!(groups.is_empty());
        assert_eq!(groups.join_with(handle, first, "room", Policy::Skip), Ok(true));
        assert_eq!(groups.join(handle, first, "room"), Ok(false));
        assert_eq!(groups.group("room"), Some(Group(u64::MAX)));
        assert_eq!(groups.member_count(handle, "room"), 1);
        assert_eq!(groups.join(handle, first, "another"), Err(JoinError::NoNumberLeft));
        assert_eq!((groups.len(), groups.group("another")), (1, None));
        assert_eq!(groups.leave(handle, first, "another"), None);
        assert_eq!(groups.leave(handle, first, "room"), Some(0));
        assert_eq!(groups.publish(handle, "room", "nobody hears"), Ok(()));
        assert_eq!(groups.join(handle, first, "room"), Err(JoinError::NoNumberLeft));
        harness.finish();
    }

    fn all_ways_to_publish_by_a_name_reach_its_group(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Groups::<(u32, u32)>::new());
        let members = crowd(&harness);
        for (number, (_, id)) in members.iter().enumerate() {
            assert_eq!(groups.join(handle, *id, &(number as u32 % 2, 7)), Ok(true));
        }
        let [.., (_, quiet)] = &members[..] else { unreachable!() };
        assert_eq!(groups.publish(handle, &(0, 7), "to all"), Ok(()));
        assert_eq!(groups.publish_keyed(handle, &(0, 7), 1, "by a key"), Ok(()));
        assert_eq!(groups.publish_except(handle, &(0, 7), *quiet, "to the others"), Ok(()));
        assert_eq!(groups.publish(handle, &(0, 7), "over"), Ok(()));
        assert_eq!(groups.publish(handle, &(1, 7), "over"), Ok(()));
        for (number, (peer, id)) in members.iter().enumerate() {
            let expected: &[&str] = match number % 2 {
                0 if id == quiet => &["to all", "by a key", "over"],
                0 => &["to all", "by a key", "to the others", "over"],
                _ => &["over"],
            };
            expected.iter().for_each(|expected| assert_same(&next(peer), expected.as_bytes()));
        }
        harness.finish();
    }

    /// With a lock held, each of these would wait for itself, or leave it broken.
    fn the_code_of_names_runs_under_no_lock(backend) {
        let harness = start_groups(backend);
        let (handle, groups) = (&harness.handle, &Arc::new(Groups::<Calling>::new()));
        let name = |text: &'static str| Calling { text, groups: Arc::downgrade(groups), is_copy: false };
        let (_peer, id) = harness.connect_known();
        for _ in 0..2 {
            assert_eq!(groups.join(handle, id, &name("a")), Ok(true));
            assert_eq!(groups.join(handle, id, &name("b")), Ok(true));
            for what in ["hash panics", "eq panics", "clone panics"] {
                let join = AssertUnwindSafe(|| groups.join(handle, id, &name(what)));
                assert!(catch_unwind(join).is_err(), "{what}");
            }
            assert_eq!(groups.len(), 2);
            assert_eq!(groups.leave(handle, id, &name("a")), Some(0));
            assert_eq!(groups.leave(handle, id, &name("b")), Some(0));
            assert!(groups.is_empty());
        }
        // One whose destructor panics is forgotten by the join of another.
        assert_eq!(groups.join(handle, id, &name("drop panics")), Ok(true));
        end(&harness, id);
        let (_peer, id) = harness.connect_known();
        let join = AssertUnwindSafe(|| groups.join(handle, id, &name("a")));
        assert!(catch_unwind(join).is_err(), "it was dropped");
        assert_eq!(groups.members(handle, &name("a")), [id]);
        assert_eq!(groups.len(), 1);
        harness.finish();
    }
}

/// A name that calls back whatever it is asked, and panics in what its text says.
struct Calling {
    text: &'static str,
    groups: Weak<Groups<Calling>>,
    /// It is what the groups hold.
    is_copy: bool,
}

impl Calling {
    fn called(&self, what: &str) {
        let held = self.groups.upgrade().map_or(0, |groups| groups.len());
        if self.text == what && !thread::panicking() {
            assert!(held < 100);
            panic_on_purpose();
        }
    }
}

impl Hash for Calling {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.called("hash panics");
        // All have one hash, so that they are compared.
        7.hash(state);
    }
}

impl PartialEq for Calling {
    fn eq(&self, other: &Calling) -> bool {
        self.called("eq panics");
        other.called("eq panics");
        self.text == other.text
    }
}

impl Eq for Calling {}

impl Clone for Calling {
    fn clone(&self) -> Self {
        self.called("clone panics");
        Calling { text: self.text, groups: self.groups.clone(), is_copy: true }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        if self.is_copy {
            self.called("drop panics");
        }
    }
}
