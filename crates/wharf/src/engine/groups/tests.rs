//! Tests of groups.

use super::*;

const BYTES_MAX: usize = 10_000;

#[derive(Default)]
struct Port {
    groups: Groups,
    slot: Slot,
}

fn id(index: u32) -> SessionId {
    SessionId::new(index, 3)
}

fn publication(group: u64, bytes: &[u8]) -> Publication {
    let to = Audience::Group(Group(group));
    Publication { to, except: None, key: None, frame: Frame::of(bytes) }
}

impl Port {
    fn join(&self, index: u32, group: u64) -> Result<Taken, JoinError> {
        self.groups.join(id(index), &self.slot, Group(group), Policy::Close, 2, BYTES_MAX)
    }

    fn leave(&self, index: u32, group: u64) -> bool {
        self.groups.leave(id(index), &self.slot, Group(group)).changed
    }

    fn publish(&self, group: u64, bytes: &[u8]) -> Result<bool, usize> {
        let publication = publication(group, bytes);
        self.groups.keep_room(&publication, BYTES_MAX)?;
        Ok(self.groups.put(&publication))
    }

    /// To whom each publication went, by its length; and whether something is left.
    fn work_off(&self, share: Share) -> (Vec<(usize, Vec<u32>)>, bool) {
        let mut seen = Vec::new();
        let left = self.groups.work_off(share, Moment::default(), Duration::from_secs(5), |due| {
            let Due::Publication(publication, to, _) = due else {
                seen.push((0, Vec::new()));
                return 1;
            };
            let mut to: Vec<_> = to.ids.unwrap().iter().map(|id| id.index()).collect();
            to.sort_unstable();
            let count = to.len();
            seen.push((publication.frame.body_bytes(), to));
            count
        });
        (seen, left)
    }

    fn all(&self) -> Vec<(usize, Vec<u32>)> {
        self.work_off(Share::everything()).0
    }

    fn waiting_bytes(&self) -> usize {
        self.groups.requests.lock().waiting_bytes
    }
}

#[test]
fn what_is_asked_comes_about_in_its_order() {
    let port = Port::default();
    assert_eq!(port.publish(1, b"a"), Ok(false), "to nobody");
    assert_eq!(port.join(7, 1), Ok(Taken { changed: true, tell: true }));
    assert_eq!(port.publish(1, b"ab"), Ok(false), "a worker knows already");
    assert_eq!(port.join(8, 1), Ok(Taken { changed: true, tell: false }));
    assert_eq!(port.join(8, 1), Ok(Taken { changed: false, tell: false }));
    port.publish(1, b"abc").unwrap();
    assert!(port.leave(7, 1) && !port.leave(7, 1));
    port.publish(1, b"abcd").unwrap();
    assert_eq!(port.all(), [(2, vec![7]), (3, vec![7, 8]), (4, vec![8])]);
    assert_eq!(port.waiting_bytes(), 0);
    assert_eq!(port.publish(1, b"a"), Ok(true), "nobody is told any more");
}

#[test]
fn a_close_has_its_place_behind_what_was_asked_before_it_and_needs_none_if_nothing_waits() {
    let port = Port::default();
    assert!(port.groups.is_idle() && !port.groups.place_close(id(7), false).changed);
    port.join(7, 1).unwrap();
    port.publish(1, b"a").unwrap();
    assert!(!port.groups.is_idle() && port.groups.place_close(id(7), false).changed);
    port.publish(1, b"ab").unwrap();
    assert_eq!(
        port.work_off(Share { bytes: 9, handed: 2, ends_max: 9 }),
        (vec![(1, vec![7])], true)
    );
    assert!(!port.groups.is_idle(), "something is left");
    assert_eq!(port.all(), [(0, vec![]), (2, vec![7])]);
    assert!(port.groups.is_idle() && !port.groups.place_close(id(7), false).changed);
    assert_eq!(port.waiting_bytes(), 0);
}

#[test]
fn a_session_that_ends_leaves_all_its_groups_and_none_of_anyone_elses() {
    let port = Port::default();
    for (index, group) in [(7, 1), (7, 2), (8, 1)] {
        port.join(index, group).unwrap();
    }
    assert!(port.slot.is_in_groups());
    assert!(!port.groups.ended(id(7), &port.slot));
    assert!(!port.slot.is_in_groups());
    port.publish(1, b"a").unwrap();
    assert_eq!(port.publish(2, b"ab"), Ok(false));
    assert_eq!(port.all(), [(1, vec![8])]);
    assert!(port.leave(8, 1));
    assert!(port.all().is_empty());
    assert!(port.groups.has_no_members(), "a group without members is no more");
}

#[test]
fn a_session_is_in_so_many_groups_and_no_more() {
    let port = Port::default();
    port.join(7, 1).unwrap();
    port.join(7, 2).unwrap();
    assert_eq!(port.join(7, 3), Err(JoinError::TooManyGroups { max: 2 }));
    assert!(port.join(7, 2).is_ok(), "it is a member already");
    port.leave(7, 1);
    port.join(7, 3).unwrap();
}

#[test]
fn no_more_waits_than_the_bound_and_a_publication_is_put_whole_or_not_at_all() {
    let port = Port::default();
    port.join(7, 1).unwrap();
    port.publish(1, &[0; 9_000]).unwrap();
    let waiting = 9_000 + 2 * REQUEST_BYTES;
    assert_eq!(port.publish(1, &[0; 1_000]), Err(waiting));
    port.publish(1, &[0; BYTES_MAX - 9_000 - 3 * REQUEST_BYTES]).unwrap();
    assert_eq!(port.waiting_bytes(), BYTES_MAX);
    assert_eq!(port.join(8, 1), Err(JoinError::Full { waiting: BYTES_MAX, max: BYTES_MAX }));
    assert!(port.leave(7, 1), "leaving is never refused");
    assert_eq!(port.all().len(), 2);
    port.join(7, 1).unwrap();
    port.groups.keep_room(&publication(1, b"a"), BYTES_MAX).unwrap();
    port.groups.give_up_room();
    assert_eq!(port.waiting_bytes(), REQUEST_BYTES);
    assert!(port.all().is_empty());
}

#[test]
fn a_turn_has_its_share_and_the_rest_keeps_its_order() {
    let port = Port::default();
    port.join(7, 1).unwrap();
    for len in 1..=4 {
        port.publish(1, &vec![0; len]).unwrap();
    }
    let share = Share::of_a_turn(12, 9); // 3 bytes
    assert_eq!(port.work_off(share), (vec![(1, vec![7]), (2, vec![7])], true));
    assert_eq!(port.publish(1, &[0; 5]), Ok(false), "it is told again anyway");
    assert_eq!(port.work_off(share), (vec![(3, vec![7])], true));
    assert_eq!(port.work_off(share), (vec![(4, vec![7])], true));
    assert_eq!(port.work_off(share), (vec![(5, vec![7])], false));
}

#[test]
fn more_ends_than_there_are_sessions_do_not_wait_for_their_turn() {
    let port = Port::default();
    for index in 0..3 {
        port.join(index, 1).unwrap();
    }
    for index in 0..3 {
        port.publish(1, b"abc").unwrap();
        assert!(port.groups.place_close(id(index), false).changed);
    }
    let (handed, left) = port.work_off(Share { bytes: 1, handed: 9, ends_max: 2 });
    assert_eq!((handed.len(), left), (2, true), "a publication, and one close");
    let (handed, left) = port.work_off(Share { bytes: 1, handed: 9, ends_max: 2 });
    assert_eq!((handed.len(), left), (1, true), "the others may wait");
}

#[test]
fn of_two_workers_at_a_port_one_hands_over_after_the_other() {
    use std::sync::mpsc;
    use std::time::Duration;
    let port = Port::default();
    port.join(7, 1).unwrap();
    port.publish(1, b"a").unwrap();
    port.publish(1, b"ab").unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (second, has_come) = mpsc::channel();
    std::thread::scope(|scope| {
        let groups = &port.groups;
        scope.spawn(move || {
            groups.work_off(
                Share { bytes: 1, handed: 9, ends_max: 9 },
                Moment::default(),
                Duration::from_secs(5),
                |_| {
                    begun.send(()).unwrap();
                    let overtaken = has_come.recv_timeout(Duration::from_millis(50));
                    assert!(overtaken.is_err(), "the second publication went before the first");
                    1
                },
            )
        });
        has_begun.recv().unwrap();
        let handed = |due: Due<'_>| {
            let Due::Publication(publication, ..) = due else { unreachable!("nobody closes") };
            // Who is over does not hear it.
            let _ = second.send(publication.frame.body_bytes());
            1
        };
        assert!(!groups.work_off(
            Share::everything(),
            Moment::default(),
            Duration::from_secs(5),
            handed
        ));
    });
    assert_eq!(port.waiting_bytes(), 0);
}
