//! Groups: who is sent what is published, and in which order.
//!
//! The members of a group are kept for each port, which its worker (or workers) alone serves. What a
//! thread asks of a port, to join, to leave, to publish, goes into that port's queue, and is worked off
//! in its order; so what one thread does comes about as it was done, and no publisher waits for a
//! fan-out. Publications enter the queues of all ports in one order, that of the server.
//!
//! Two locks, for two things:
//!
//! - [`Requests`], held for a moment by any thread: the queue, and who will be a member when all of it
//!   has been worked off. That is what a join and a leave return, what the bound on a session's groups
//!   counts, and why a port without members is not told of a publication at all.
//! - [`Members`], held by the worker that works off the queue: who is a member so far. On a shared port
//!   it keeps the workers apart, so the order holds there too. No callback runs under it (invariant 8).
//!
//! A session that is asked to drain takes its place in the queue as well, so that what the same thread
//! has published to it before still reaches it. So does one that ends: until then its id stands in lists, and
//! names nobody. That is safe because an id never comes again.

use std::collections::{HashMap, HashSet, VecDeque};

use super::members::{Group, Members};
use crate::buffer::SharedFrame;
use crate::error::JoinError;
use crate::session::{SessionId, Slot};
use crate::sync::Mutex;

/// What a request that waits holds in memory besides the bytes of its frame, in bytes.
pub(crate) const REQUEST_BYTES: usize = 192;
/// What a membership holds in memory at most, that of the only member of a group by a session that has
/// no other, and with its leaving on its way, in bytes.
pub(crate) const MEMBERSHIP_BYTES: usize = 704;
/// Frames that are handed over, and requests that are worked off, before a worker looks at its
/// completions again, give or take one publication.
const HANDED_MAX: usize = 64 * 1024;

/// The groups of the sessions of one port.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Never held while another lock is taken.
    requests: Mutex<Requests>,
    members: Mutex<Members>,
}

/// A frame for many.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) to: Audience,
    pub(crate) except: Option<SessionId>,
    pub(crate) frame: SharedFrame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every session.
    All,
    Group(Group),
}

#[derive(Debug)]
enum Request {
    Join(SessionId, Group),
    Leave(SessionId, Group),
    /// The session was asked to drain: what was published before is in its queue when this is come to.
    Close(SessionId),
    /// The session has ended; these were its groups.
    Ended(SessionId, HashSet<Group>),
    Publish(Publication),
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<Request>,
    /// Joins and publications that wait, each with [`REQUEST_BYTES`].
    waiting_bytes: usize,
    /// Leaves, closes and ends that wait: what is taken without heed of the bound.
    ends_waiting: usize,
    /// Of these bytes, the room that is kept for a publication while the other ports are asked for theirs.
    kept_bytes: usize,
    /// Who is a member when all that waits has been worked off.
    groups_of: HashMap<SessionId, HashSet<Group>>,
    members_of: HashMap<Group, usize>,
    /// A worker knows that something waits, and until it has worked off all of it.
    told: bool,
}

/// What a port's worker is to do next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due<'a> {
    /// To hand this over: to these members of its group, or to all sessions.
    Publication(&'a Publication, Option<&'a [SessionId]>),
    /// To let this session drain: what was published before it was asked to close was handed over.
    Close(SessionId),
}

/// A join or leave that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// It was not so already.
    pub(crate) changed: bool,
    /// The caller must tell a worker of the port.
    pub(crate) tell: bool,
}

/// How much is worked off at once; the rest waits for the next turn, so that what has been queued can
/// leave before more comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    bytes: usize,
    handed: usize,
    /// More ends than these (leaves, closes, sessions that have ended) do not wait: no bound keeps them out,
    /// so they are worked off however much stands before them.
    ends_max: usize,
}

impl Share {
    /// Of one turn: what a session that has nothing queued takes without being held back.
    pub(crate) fn of_a_turn(send_queue_bytes_max: usize, sessions_max: u32) -> Self {
        let ends_max = sessions_max as usize;
        Share { bytes: send_queue_bytes_max / 4, handed: HANDED_MAX, ends_max }
    }

    pub(crate) fn everything() -> Self {
        Share { bytes: usize::MAX, handed: usize::MAX, ends_max: 0 }
    }
}

impl Publication {
    fn waiting_bytes(&self) -> usize {
        self.frame.bytes() + REQUEST_BYTES
    }
}

impl Groups {
    /// For who holds a count of the session.
    pub(crate) fn join(
        &self,
        id: SessionId,
        slot: &Slot,
        group: Group,
        groups_max: u32,
        bytes_max: usize,
    ) -> Result<Taken, JoinError> {
        let mut requests = self.requests.lock();
        let is_known =
            requests.groups_of.get(&id).map(|groups| (groups.contains(&group), groups.len()));
        let (is_member, count) = is_known.unwrap_or_default();
        if is_member {
            return Ok(Taken { changed: false, tell: false });
        }
        if count >= groups_max as usize {
            return Err(JoinError::TooManyGroups { max: groups_max });
        }
        if requests.waiting_bytes + REQUEST_BYTES > bytes_max {
            return Err(JoinError::Full { waiting: requests.waiting_bytes, max: bytes_max });
        }
        requests.groups_of.entry(id).or_default().insert(group);
        *requests.members_of.entry(group).or_default() += 1;
        slot.set_in_groups(true);
        Ok(Taken { changed: true, tell: requests.add(Request::Join(id, group)) })
    }

    /// For who holds a count of the session. Takes no heed of the bound: there are no more leaves than
    /// there were joins.
    pub(crate) fn leave(&self, id: SessionId, slot: &Slot, group: Group) -> Taken {
        let mut requests = self.requests.lock();
        let Some(groups) = requests.groups_of.get_mut(&id).filter(|groups| groups.contains(&group))
        else {
            return Taken { changed: false, tell: false };
        };
        groups.remove(&group);
        if groups.is_empty() {
            requests.groups_of.remove(&id);
            slot.set_in_groups(false);
        }
        requests.less(group);
        Taken { changed: true, tell: requests.add(Request::Leave(id, group)) }
    }

    /// For the release of a session that is in groups. True: the caller must tell a worker.
    pub(crate) fn ended(&self, id: SessionId, slot: &Slot) -> bool {
        let mut requests = self.requests.lock();
        slot.set_in_groups(false);
        let Some(groups) = requests.groups_of.remove(&id) else { return false };
        groups.iter().for_each(|group| requests.less(*group));
        requests.add(Request::Ended(id, groups))
    }

    /// Whether all that was asked has come about.
    pub(crate) fn is_idle(&self) -> bool {
        !self.requests.lock().told
    }

    /// Puts the close of a session behind all that was asked before, if any of that may still wait. Takes
    /// no heed of the bound: a session closes once, and of too many ends none waits ([`Share`]).
    pub(crate) fn place_close(&self, id: SessionId) -> bool {
        let mut requests = self.requests.lock();
        let waits = requests.told;
        if waits {
            requests.add(Request::Close(id));
        }
        waits
    }

    /// Keeps room for a publication, if anybody of this port is to have it. For who holds the lock that
    /// orders publications, and then puts it or gives the room up.
    ///
    /// # Errors
    /// The bytes that wait, if there is no room.
    pub(crate) fn keep_room(
        &self,
        publication: &Publication,
        bytes_max: usize,
    ) -> Result<(), usize> {
        let mut requests = self.requests.lock();
        debug_assert_eq!(requests.kept_bytes, 0, "publications take their turns");
        if let Audience::Group(group) = publication.to
            && !requests.members_of.contains_key(&group)
        {
            return Ok(());
        }
        let bytes = publication.waiting_bytes();
        if requests.waiting_bytes + bytes > bytes_max {
            return Err(requests.waiting_bytes);
        }
        requests.waiting_bytes += bytes;
        requests.kept_bytes = bytes;
        Ok(())
    }

    pub(crate) fn give_up_room(&self) {
        let mut requests = self.requests.lock();
        requests.waiting_bytes -= std::mem::take(&mut requests.kept_bytes);
    }

    /// Puts a publication into the room that was kept for it, if any was. True: the caller must tell a
    /// worker.
    pub(crate) fn put(&self, publication: &Publication) -> bool {
        let mut requests = self.requests.lock();
        let kept = std::mem::take(&mut requests.kept_bytes);
        requests.waiting_bytes -= kept;
        kept > 0 && requests.add(Request::Publish(publication.clone()))
    }

    /// Whether nobody is in any group, nor will be when all that waits has been worked off.
    #[cfg(test)]
    pub(crate) fn has_no_members(&self) -> bool {
        let (members, requests) = (self.members.lock(), self.requests.lock());
        members.is_empty() && requests.groups_of.is_empty() && requests.members_of.is_empty()
    }

    /// Works off what waits, in order, about as much as the share. `is_due` does what is due, and says
    /// how many sessions that concerned. True: something is left, and the caller must see to it that it
    /// is told again.
    pub(crate) fn work_off(&self, share: Share, mut is_due: impl FnMut(Due<'_>) -> usize) -> bool {
        // Held from taking a request until it has come about: that is the order on a shared port.
        let mut members = self.members.lock();
        let (mut bytes, mut handed) = (0, 0);
        loop {
            let request = {
                let mut requests = self.requests.lock();
                if requests.waiting.is_empty() {
                    requests.told = false;
                    return false;
                }
                let is_enough = bytes >= share.bytes || handed >= share.handed;
                if is_enough && requests.ends_waiting <= share.ends_max {
                    return true;
                }
                requests.take()
            };
            handed += 1; // whatever it is, it is work
            match request {
                Some(Request::Join(id, group)) => members.add(id, group),
                Some(Request::Leave(id, group)) => members.remove(id, group),
                Some(Request::Ended(id, groups)) => {
                    groups.into_iter().for_each(|group| members.remove(id, group));
                }
                Some(Request::Close(id)) => handed += is_due(Due::Close(id)),
                Some(Request::Publish(publication)) => {
                    bytes += publication.frame.bytes();
                    let to = match publication.to {
                        Audience::All => None,
                        Audience::Group(group) => Some(members.of(group)),
                    };
                    handed += is_due(Due::Publication(&publication, to));
                }
                None => {}
            }
        }
    }
}

impl Requests {
    /// True: no worker knows of it yet.
    fn add(&mut self, request: Request) -> bool {
        self.waiting_bytes += request.waiting_bytes();
        self.ends_waiting += usize::from(request.is_end());
        self.waiting.push_back(request);
        !std::mem::replace(&mut self.told, true)
    }

    fn take(&mut self) -> Option<Request> {
        let request = self.waiting.pop_front()?;
        self.waiting_bytes -= request.waiting_bytes();
        self.ends_waiting -= usize::from(request.is_end());
        Some(request)
    }

    /// One member less will be in the group.
    fn less(&mut self, group: Group) {
        if let Some(count) = self.members_of.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.members_of.remove(&group);
            }
        }
    }
}

impl Request {
    fn is_end(&self) -> bool {
        matches!(self, Request::Leave(..) | Request::Close(_) | Request::Ended(..))
    }

    fn waiting_bytes(&self) -> usize {
        match self {
            Request::Publish(publication) => publication.waiting_bytes(),
            Request::Join(..) => REQUEST_BYTES,
            // Bounded by what there is to end: they take no room from who asks for more.
            Request::Leave(..) | Request::Close(_) | Request::Ended(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
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
        Publication { to, except: None, frame: SharedFrame::new([b"", bytes]) }
    }

    impl Port {
        fn join(&self, index: u32, group: u64) -> Result<Taken, JoinError> {
            self.groups.join(id(index), &self.slot, Group(group), 2, BYTES_MAX)
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
            let left = self.groups.work_off(share, |due| {
                let Due::Publication(publication, members) = due else {
                    seen.push((0, Vec::new()));
                    return 1;
                };
                let mut to: Vec<_> = members.unwrap().iter().map(|id| id.index()).collect();
                to.sort_unstable();
                let count = to.len();
                seen.push((publication.frame.bytes(), to));
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
        assert!(port.groups.is_idle() && !port.groups.place_close(id(7)));
        port.join(7, 1).unwrap();
        port.publish(1, b"a").unwrap();
        assert!(!port.groups.is_idle() && port.groups.place_close(id(7)));
        port.publish(1, b"ab").unwrap();
        assert_eq!(
            port.work_off(Share { bytes: 9, handed: 2, ends_max: 9 }),
            (vec![(1, vec![7])], true)
        );
        assert!(!port.groups.is_idle(), "something is left");
        assert_eq!(port.all(), [(0, vec![]), (2, vec![7])]);
        assert!(port.groups.is_idle() && !port.groups.place_close(id(7)));
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
            assert!(port.groups.place_close(id(index)));
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
                groups.work_off(Share { bytes: 1, handed: 9, ends_max: 9 }, |_| {
                    begun.send(()).unwrap();
                    let overtaken = has_come.recv_timeout(Duration::from_millis(50));
                    assert!(overtaken.is_err(), "the second publication went before the first");
                    1
                })
            });
            has_begun.recv().unwrap();
            let handed = |due: Due<'_>| {
                let Due::Publication(publication, _) = due else { unreachable!("nobody closes") };
                // Who is over does not hear it.
                let _ = second.send(publication.frame.bytes());
                1
            };
            assert!(!groups.work_off(Share::everything(), handed));
        });
        assert_eq!(port.waiting_bytes(), 0);
    }
}
