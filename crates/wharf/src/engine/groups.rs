//! Groups: who gets a publication, and in which order.
//!
//! Each port keeps the members among its own sessions. Whatever a thread asks of a port (join, leave, publish)
//! enters the port's queue, and a worker of the port processes the queue in order. So the requests of one thread
//! take effect in the order of its calls, and no publisher waits for a fan-out. Publications enter the queues of
//! all ports in one order for the whole server.
//!
//! There are two locks:
//!
//! - [`Requests`], held briefly by any thread: the queue, and the memberships as they will be when the queue has
//!   been processed. A join or leave answers from these, the bound on a session's groups counts them, and a port
//!   without members gets no publication at all.
//! - [`Members`], held by the worker that processes the queue: the memberships so far. On a shared port it keeps
//!   the workers apart, so the order holds there too. No callback runs under it (invariant 8).
//!
//! A session that is asked to drain takes its place in the queue as well, so that it still gets what the same
//! thread published before. So does a session that ends: until its place is processed, its id stays in lists but
//! names nothing. That is safe because an id never returns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::backlog::{Backlog, CaughtUp, Offered, Seen, SlowRule};
use super::budget::PortBudget;
use super::frame::Frame;
use super::lag::Lag;
use super::members::{Group, Members};
use super::publication::{Audience, Publication, REQUEST_BYTES};
use crate::buffer::pages_of;
use crate::clock::Moment;
use crate::error::JoinError;
use crate::options::Sending;
use crate::session::{Policy, SessionId, Slot};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// The most memory of one membership, in bytes: the only member of its group, with a policy of its own, in no other
/// group, behind, and with its leave waiting.
pub(crate) const MEMBERSHIP_BYTES: usize = 1024;
/// How many frames are handed over and requests processed before a worker looks at its completions again, give
/// or take one publication.
const HANDED_MAX: usize = 64 * 1024;
/// How many members that are behind a worker looks at in one turn: some 0.2 ms, a system call each.
const MEMBERS_OF_A_TURN_MAX: usize = 256;

/// The groups of the sessions of one port.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// What waits is charged to the port.
    budget: Arc<PortBudget>,
    /// While it is held, no other lock is taken.
    requests: Mutex<Requests>,
    memberships: Mutex<Memberships>,
    /// When to look for slow members, in nanoseconds; 0: none is behind.
    next_look: AtomicU64,
    /// When they last did.
    last_look: AtomicU64,
    /// At the last look for slow members some were stuck.
    some_are_stuck: AtomicBool,
    pub(super) lag: Lag,
}

/// What the worker knows that processes the queue.
#[derive(Debug, Default)]
struct Memberships {
    members: Members,
    backlog: Backlog,
}

#[derive(Debug)]
enum Request {
    Join(SessionId, Group, Policy),
    Leave(SessionId, Group),
    /// The session was asked to drain. When this is processed, everything published before is in its send queue.
    Close(SessionId),
    /// The session has ended; these were its groups.
    Ended(SessionId, HashSet<Group>),
    Publish(Publication),
}

#[derive(Debug, Default)]
struct Requests {
    waiting: VecDeque<Request>,
    /// Bytes of waiting joins and publications, with [`REQUEST_BYTES`] for each.
    waiting_bytes: usize,
    /// Waiting leaves, closes and ends: the bound does not apply to them.
    ends_waiting: usize,
    /// Bytes of publications that were processed, and that members still lack.
    lacked_bytes: usize,
    /// The most bytes of a publication that was refused, since those who wait for room were told.
    refused_bytes: usize,
    /// Pages of what waits and is lacked that are charged to the port.
    charged_pages: u32,
    /// Of the waiting bytes, the room reserved for a publication while the other ports are asked for room.
    kept_bytes: usize,
    /// The memberships when everything that waits has been processed.
    groups_of: HashMap<SessionId, HashSet<Group>>,
    members_of: HashMap<Group, usize>,
    /// A worker knows that something waits. True until it has processed everything.
    told: bool,
}

/// What a port's worker is to do next.
#[derive(Debug)]
pub(crate) enum Due<'a> {
    /// Hand this over, and note those that have no room for it.
    Publication(&'a Publication, Recipients<'a>, &'a mut Vec<(SessionId, Policy)>),
    /// Let this session drain: everything published before the close has been handed over.
    Close(SessionId),
}

/// To whom a publication is handed over at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipients<'a> {
    /// `None`: all sessions.
    pub(crate) ids: Option<&'a [SessionId]>,
    pub(crate) policy: Policy,
}

/// A join or leave that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// It changed something.
    pub(crate) changed: bool,
    /// The caller must tell a worker of the port.
    pub(crate) tell: bool,
}

/// How much is processed at once. The rest waits for the next turn, so that queued frames can leave before more
/// are queued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    bytes: usize,
    handed: usize,
    /// If more ends than these wait (leaves, closes, ended sessions), they are processed whatever stands before
    /// them: no bound keeps them out.
    ends_max: usize,
}

impl Share {
    /// The share of one turn: as much as an empty send queue takes without a pause of receiving.
    pub(crate) fn of_a_turn(send_queue_bytes_max: usize, sessions_max: u32) -> Self {
        let ends_max = sessions_max as usize;
        Share { bytes: send_queue_bytes_max / 4, handed: HANDED_MAX, ends_max }
    }

    pub(crate) fn everything() -> Self {
        Share { bytes: usize::MAX, handed: usize::MAX, ends_max: 0 }
    }
}

impl Groups {
    pub(super) fn new(budget: Arc<PortBudget>) -> Self {
        Groups { budget, ..Groups::default() }
    }

    /// What is charged for it.
    #[cfg(debug_assertions)]
    pub(super) fn charged_pages(&self) -> u32 {
        self.requests.lock().charged_pages
    }

    /// The caller holds a count of the session.
    pub(crate) fn join(
        &self,
        id: SessionId,
        slot: &Slot,
        group: Group,
        policy: Policy,
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
        if requests.held_bytes() + REQUEST_BYTES > bytes_max {
            return Err(JoinError::Full { waiting: requests.held_bytes(), max: bytes_max });
        }
        requests.groups_of.entry(id).or_default().insert(group);
        *requests.members_of.entry(group).or_default() += 1;
        slot.set_in_groups(true);
        let tell = requests.add(Request::Join(id, group, policy));
        requests.account(&self.budget);
        Ok(Taken { changed: true, tell })
    }

    /// The caller holds a count of the session. The bound does not apply: there are no more leaves than joins.
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

    /// How many members a group has when everything that waits has been processed.
    pub(crate) fn member_count(&self, group: Group) -> usize {
        self.requests.lock().members_of.get(&group).copied().unwrap_or(0)
    }

    /// Who they are. Waits for the worker that processes the queue.
    pub(crate) fn members(&self, group: Group) -> Vec<SessionId> {
        let (memberships, requests) = (self.memberships.lock(), self.requests.lock());
        let mut ids: HashSet<_> = memberships.members.of(group).collect();
        for request in &requests.waiting {
            match request {
                Request::Join(id, joined, _) if *joined == group => {
                    ids.insert(*id);
                }
                Request::Leave(id, left) if *left == group => {
                    ids.remove(id);
                }
                Request::Ended(id, groups) if groups.contains(&group) => {
                    ids.remove(id);
                }
                _ => {}
            }
        }
        debug_assert_eq!(ids.len(), requests.members_of.get(&group).copied().unwrap_or(0));
        ids.into_iter().collect()
    }

    /// Ends the memberships of a session that ends. True: the caller must tell a worker.
    pub(crate) fn ended(&self, id: SessionId, slot: &Slot) -> bool {
        let mut requests = self.requests.lock();
        slot.set_in_groups(false);
        let Some(groups) = requests.groups_of.remove(&id) else { return false };
        groups.iter().for_each(|group| requests.less(*group));
        requests.add(Request::Ended(id, groups))
    }

    /// Whether everything that was asked for has taken effect.
    pub(crate) fn is_idle(&self) -> bool {
        !self.requests.lock().told
    }

    /// Puts the close of a session behind everything that was asked for before, if something may still wait, or
    /// the session lacks publications. The bound does not apply: a session closes once, and too many ends do not
    /// wait ([`Share`]). `changed`: it waits there.
    pub(crate) fn place_close(&self, id: SessionId, is_behind: bool) -> Taken {
        let mut requests = self.requests.lock();
        let waits = requests.told || is_behind;
        Taken { changed: waits, tell: waits && requests.add(Request::Close(id)) }
    }

    /// Puts a send behind everything that was asked for before. The caller holds the lock of the session's send
    /// queue.
    ///
    /// # Errors
    /// The bytes that wait, if there is no room.
    pub(crate) fn place_send(
        &self,
        id: SessionId,
        key: Option<u64>,
        frame: &Frame,
        bytes_max: usize,
    ) -> Result<Taken, usize> {
        let send = Publication { to: Audience::One(id), except: None, key, frame: frame.clone() };
        let mut requests = self.requests.lock();
        if !requests.has_room(send.waiting_bytes(), bytes_max, &self.budget) {
            return Err(requests.held_bytes());
        }
        Ok(Taken { changed: true, tell: requests.add(Request::Publish(send)) })
    }

    /// Offers a session what it lacks, in order, until `offer` says that it has no room. `caught_up` runs when it
    /// lacks nothing more, with whether it was to drain then.
    pub(crate) fn refill(
        &self,
        id: SessionId,
        offer: impl FnMut(&Publication, Policy) -> Offered,
        caught_up: impl FnOnce(bool),
    ) {
        let mut memberships = self.memberships.lock();
        let Memberships { members, backlog } = &mut *memberships;
        let refilled = backlog.refill(id, offer, |audience, policy| {
            if let Audience::Group(group) = audience {
                members.set_current(id, group, policy);
            }
        });
        if refilled != CaughtUp::No {
            caught_up(refilled == CaughtUp::AndCloses);
        }
        self.has_changed(backlog);
    }

    /// How many frames of a group a session has missed that it was not told of. `None`: none, and from now on it
    /// misses no more; then `caught_up` runs.
    pub(crate) fn missed(&self, id: SessionId, caught_up: impl FnOnce()) -> Option<(Group, u64)> {
        let mut memberships = self.memberships.lock();
        let Memberships { members, backlog } = &mut *memberships;
        loop {
            let missed = backlog.missed(id, |audience| {
                if let Audience::Group(group) = audience {
                    members.set_current(id, group, Policy::Skip);
                }
            });
            match missed {
                Some((Audience::Group(group), frames)) => return Some((group, frames)),
                Some(_) => {} // only members of groups miss frames
                None => {
                    caught_up();
                    return None;
                }
            }
        }
    }

    /// When a worker is to call [`slow`](Self::slow). `None`: no member is behind.
    pub(crate) fn next_look(&self) -> Option<Moment> {
        let at = self.next_look.load(Ordering::Relaxed);
        (at != 0).then(|| Moment::of_nanos(at))
    }

    /// The members that are slow, of as many as one turn looks at. See [`Backlog::slow`]. `have_lasted`: whether a turn of the port's workers has lasted
    /// so long since a moment.
    pub(crate) fn slow(
        &self,
        now: Moment,
        sending: &Sending,
        have_lasted: impl FnOnce(Duration, Moment) -> bool,
        see: impl FnMut(SessionId) -> Option<Seen>,
    ) -> Vec<SessionId> {
        let mut memberships = self.memberships.lock();
        // Under the lock: another worker of the port may have looked meanwhile.
        let Some(due) = self.next_look().filter(|due| *due <= now) else { return Vec::new() };
        let rule = SlowRule { after: sending.slow_after, bytes: sending.slow_bytes as u64 };
        let late_after = rule.late_after();
        // A look begins in time. It may take many turns, of which each has to be short.
        let begins_late = !memberships.backlog.is_looking() && due.after(late_after) < now;
        let is_late = begins_late || have_lasted(late_after, self.last_look());
        let slow = memberships.backlog.slow(MEMBERS_OF_A_TURN_MAX, is_late, rule, see);
        if memberships.backlog.is_looking() {
            return slow; // and goes on in the next turn, which is due
        }
        self.some_are_stuck.store(!memberships.backlog.stuck().is_empty(), Ordering::Relaxed);
        self.set_next_look(&memberships.backlog, now, sending.slow_after);
        if let Some(oldest_at) = memberships.backlog.oldest_at() {
            self.lag.oldest_at.store(oldest_at.nanos(), Ordering::Relaxed);
        }
        slow
    }

    fn set_next_look(&self, backlog: &Backlog, now: Moment, slow_after: Duration) {
        let at =
            if backlog.is_empty() { 0 } else { now.after(slow_after / SlowRule::LOOKS).nanos() };
        self.next_look.store(at, Ordering::Relaxed);
        self.last_look.store(now.nanos(), Ordering::Relaxed);
    }

    fn last_look(&self) -> Moment {
        Moment::of_nanos(self.last_look.load(Ordering::Relaxed))
    }

    /// After every change of what members lack.
    fn has_changed(&self, backlog: &Backlog) {
        self.requests.lock().set_lacked(backlog.held_bytes(), &self.budget);
        self.note_lag(backlog);
    }

    /// For the figures.
    fn note_lag(&self, backlog: &Backlog) {
        let relaxed = Ordering::Relaxed;
        if self.lag.members_behind.swap(backlog.lacking() as u64, relaxed) == 0
            && let Some(oldest_at) = backlog.oldest_at()
        {
            self.lag.oldest_at.store(oldest_at.nanos(), relaxed);
        }
        self.lag.superseded_frames.store(backlog.superseded(), relaxed);
    }

    /// The members that were stuck at the last look.
    pub(crate) fn stuck(&self) -> Vec<SessionId> {
        if !self.some_are_stuck.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.memberships.lock().backlog.stuck()
    }

    /// Makes room for a publication: members that are stuck, and for which nothing has left since, lack nothing any
    /// more. They are returned, to be closed.
    pub(crate) fn forget_stuck(
        &self,
        left: impl FnMut(SessionId) -> Option<u64>,
    ) -> Vec<SessionId> {
        let mut memberships = self.memberships.lock();
        let stuck = memberships.backlog.forget_stuck(left);
        self.has_changed(&memberships.backlog);
        self.some_are_stuck.store(false, Ordering::Relaxed);
        stuck
    }

    /// A member was asked to end because it is slow.
    pub(crate) fn note_slow_end(&self) {
        Lag::count(&self.lag.slow_ends, 1);
    }

    /// A session that was behind has ended.
    pub(crate) fn forget(&self, id: SessionId) {
        let mut memberships = self.memberships.lock();
        memberships.backlog.forget(id);
        self.has_changed(&memberships.backlog);
    }

    /// Reserves room for a publication, if a session of this port is to get it. The caller holds the lock that
    /// orders publications, and then puts the publication or gives the room up.
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
        if !requests.has_room(bytes, bytes_max, &self.budget) {
            requests.refused_bytes = requests.refused_bytes.max(bytes);
            return Err(requests.held_bytes());
        }
        requests.waiting_bytes += bytes;
        requests.kept_bytes = bytes;
        Ok(())
    }

    /// Whether at most half of the bound is used, and what was refused would fit, in the budget too.
    pub(crate) fn has_room_to_publish(&self, bytes_max: usize) -> bool {
        let requests = self.requests.lock();
        let held_bytes = requests.held_bytes();
        let has_room =
            held_bytes <= bytes_max / 2 && held_bytes + requests.refused_bytes <= bytes_max;
        has_room && !self.budget.is_out()
    }

    /// Whether a publication was refused, and there has been no [room](Self::has_room_to_publish) since.
    pub(crate) fn lacks_room(&self, bytes_max: usize) -> bool {
        self.requests.lock().refused_bytes > 0 && !self.has_room_to_publish(bytes_max)
    }

    /// Those who wait for room to publish are told of it.
    pub(crate) fn room_is_told(&self) {
        self.requests.lock().refused_bytes = 0;
    }

    pub(crate) fn give_up_room(&self) {
        let mut requests = self.requests.lock();
        requests.waiting_bytes -= std::mem::take(&mut requests.kept_bytes);
        requests.account(&self.budget);
    }

    /// Puts a publication into its reserved room, if there is any. True: the caller must tell a worker.
    pub(crate) fn put(&self, publication: &Publication) -> bool {
        let mut requests = self.requests.lock();
        let kept = std::mem::take(&mut requests.kept_bytes);
        requests.waiting_bytes -= kept;
        kept > 0 && requests.add(Request::Publish(publication.clone()))
    }

    /// Whether no session is in any group, now and when everything that waits has been processed.
    #[cfg(test)]
    pub(crate) fn has_no_members(&self) -> bool {
        let (memberships, requests) = (self.memberships.lock(), self.requests.lock());
        memberships.members.is_empty()
            && requests.groups_of.is_empty()
            && requests.members_of.is_empty()
    }

    /// Whether nothing waits, and no member lacks anything.
    #[cfg(all(test, loom))]
    pub(crate) fn holds_nothing(&self) -> bool {
        let memberships = self.memberships.lock();
        memberships.backlog.is_empty() && self.requests.lock().held_bytes() == 0
    }

    /// Processes what waits, in order, about as much as the share. `is_due` does what is due and returns how many
    /// sessions that concerned. True: something is left, and the caller must make sure that it is told again.
    pub(crate) fn work_off(
        &self,
        share: Share,
        now: Moment,
        slow_after: Duration,
        mut is_due: impl FnMut(Due<'_>) -> usize,
    ) -> bool {
        // Held from taking a request until it has taken effect: this gives the order on a shared port.
        let mut memberships = self.memberships.lock();
        let Memberships { members, backlog } = &mut *memberships;
        let (mut bytes, mut handed, mut without_room) = (0, 0, Vec::new());
        // Bytes of a publication count until it is handed over, or kept for those who lack it.
        let mut settled_bytes = 0;
        loop {
            let request = {
                let mut requests = self.requests.lock();
                requests.waiting_bytes -= std::mem::take(&mut settled_bytes);
                requests.set_lacked(backlog.held_bytes(), &self.budget);
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
                Some(Request::Join(id, group, policy)) => members.add(id, group, policy),
                Some(Request::Leave(id, group)) => {
                    members.remove(id, group);
                    backlog.leave(id, Audience::Group(group));
                }
                Some(Request::Ended(id, groups)) => {
                    groups.into_iter().for_each(|group| members.remove(id, group));
                }
                Some(Request::Close(id)) if backlog.close(id) => {}
                Some(Request::Close(id)) => handed += is_due(Due::Close(id)),
                Some(Request::Publish(publication)) => {
                    bytes += publication.frame.held_bytes();
                    settled_bytes = publication.waiting_bytes();
                    let policy = publication.policy_of_others();
                    let mut hand = |ids, policy| {
                        let to = Recipients { ids, policy };
                        is_due(Due::Publication(&publication, to, &mut without_room))
                    };
                    handed += match publication.to {
                        Audience::All => hand(None, policy),
                        Audience::Group(group) => members
                            .current(group)
                            .map(|(policy, ids)| hand(Some(ids), policy))
                            .sum(),
                        Audience::One(id) => hand(Some(&[id]), policy),
                    };
                    backlog.keep(&publication, &without_room, now, |id, policy| {
                        if let Audience::Group(group) = publication.to {
                            members.set_behind(id, group, policy);
                        }
                    });
                    if !backlog.is_empty() {
                        self.note_lag(backlog);
                    }
                    without_room.clear();
                    if self.next_look().is_none() {
                        self.set_next_look(backlog, now, slow_after);
                    }
                }
                None => {}
            }
        }
    }
}

impl Requests {
    /// What counts for the bound.
    fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.lacked_bytes
    }

    /// Whether there is room for so many bytes more. If so they are charged.
    fn has_room(&mut self, bytes: usize, bytes_max: usize, budget: &PortBudget) -> bool {
        let held_bytes = self.held_bytes() + bytes;
        let pages = pages_of(held_bytes).saturating_sub(self.charged_pages);
        // The reserve is for sends.
        let has_room = held_bytes <= bytes_max && (pages == 0 || budget.charge(pages, |_| false));
        if has_room {
            self.charged_pages += pages;
        }
        has_room
    }

    fn set_lacked(&mut self, bytes: usize, budget: &PortBudget) {
        self.lacked_bytes = bytes;
        self.account(budget);
    }

    /// Charges what is held now.
    #[inline]
    fn account(&mut self, budget: &PortBudget) {
        let pages = pages_of(self.held_bytes());
        let before = std::mem::replace(&mut self.charged_pages, pages);
        if pages > before {
            budget.charge_anyway(pages - before);
        } else {
            budget.discharge(before - pages);
        }
    }

    /// True: no worker knows of it yet.
    fn add(&mut self, request: Request) -> bool {
        self.waiting_bytes += request.waiting_bytes();
        self.ends_waiting += usize::from(request.is_end());
        self.waiting.push_back(request);
        !std::mem::replace(&mut self.told, true)
    }

    /// The bytes of a publication still count.
    fn take(&mut self) -> Option<Request> {
        let request = self.waiting.pop_front()?;
        if !matches!(request, Request::Publish(_)) {
            self.waiting_bytes -= request.waiting_bytes();
        }
        self.ends_waiting -= usize::from(request.is_end());
        Some(request)
    }

    /// The group will have one member less.
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
mod tests;
