//! What was published, which sessions must get it, and which may not.
//!
//! A publisher is a sender whose numbers run through all groups. Every event has a time, a tick. What ended
//! before something began must be visible to it; what began after it must not.

mod counts;
mod owed;
mod policies;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use wharf::{Policy, SessionId};

use self::counts::Answer;
use self::policies::Lags;
use crate::frames::{GROUPS, Message};
use crate::rules::Rule;

/// Senders from here on are publishers: peers by their requests, then the program's threads.
pub(crate) const PUBLISHERS: u32 = 1 << 31;
pub(crate) const PUBLISHING_THREADS: u32 = PUBLISHERS + (1 << 30);
/// Who says goodbye to all when the server drains.
pub(crate) const DRAINING: u32 = u32::MAX;

/// What a request counts for at a port besides its frame: at most this, with the frame's header.
const OF_EACH_BYTES_MAX: u64 = 512;

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Members(u64),
    MembersBut(u64, SessionId),
    All,
}

impl To {
    pub(crate) fn group(self) -> u64 {
        match self {
            To::Members(group) | To::MembersBut(group, _) => group,
            To::All => GROUPS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Publication {
    to: To,
    key: Option<u64>,
    began: u64,
    began_at: Duration,
    /// When the call returned, and whether it was accepted.
    returned: Option<(u64, bool)>,
}

/// A session in a group: from some tick between two on, and until some tick between two others.
#[derive(Debug, Clone, Copy)]
struct Membership {
    group: u64,
    policy: Policy,
    joins: u64,
    joined: Option<u64>,
    leaves: Option<u64>,
    left: Option<u64>,
}

/// What is known of publications.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    tick: u64,
    by_publisher: BTreeMap<u32, Vec<Publication>>,
    memberships: HashMap<SessionId, Vec<Membership>>,
    opened: HashMap<SessionId, u64>,
    /// When a callback last ran, other than `closed`; and when that began.
    alive: HashMap<SessionId, u64>,
    ended: HashMap<SessionId, u64>,
    answers: Vec<Answer>,
    /// When the program has asked the server to end.
    ends: Option<u64>,
    /// What each peer has got, in order.
    got: BTreeMap<u32, Vec<(u32, u32)>>,
    lasts: HashMap<(u32, u32), u32>,
    got_by: HashMap<u32, HashSet<(u32, u32)>>,
    lags: HashMap<(SessionId, u64), Lags>,
    /// The publications to each group, in the order in which they began.
    of_group: HashMap<u64, Vec<(u32, u32)>>,
    /// When it has got them.
    got_at: HashMap<u32, Vec<Duration>>,
    /// Wire forms of the server's beside the first.
    pub(crate) further_forms: u8,
    /// The most that can have waited at a port, if nothing ever left.
    pub(crate) held_bytes: u64,
}

impl Publications {
    pub(crate) fn now(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A frame of so many bytes may wait at a port, in every form that there is.
    pub(crate) fn may_hold(&mut self, bytes: usize) {
        let forms = 1 + u64::from(self.further_forms);
        self.held_bytes += (bytes as u64 + OF_EACH_BYTES_MAX) * forms;
    }

    pub(crate) fn opens(&mut self, id: SessionId) {
        let now = self.now();
        self.opened.insert(id, now);
    }

    pub(crate) fn server_ends(&mut self) {
        let now = self.now();
        self.ends.get_or_insert(now);
    }

    /// Somebody is about to publish: the number of that.
    pub(crate) fn begins(&mut self, publisher: u32, to: To, key: Option<u64>, bytes: usize) -> u32 {
        self.may_hold(bytes);
        let (began, began_at) = (self.now(), wharf::simulation::now().unwrap_or_default());
        let of = self.by_publisher.entry(publisher).or_default();
        of.push(Publication { to, key, began, began_at, returned: None });
        let number = of.len() as u32 - 1;
        self.of_group.entry(to.group()).or_default().push((publisher, number));
        number
    }

    pub(crate) fn returns(&mut self, publisher: u32, number: u32, accepted: bool) {
        let now = self.now();
        let of = self.by_publisher.entry(publisher).or_default();
        of[number as usize].returned = Some((now, accepted));
    }

    /// A session is about to join. Whether it was a member.
    pub(crate) fn joins(&mut self, id: SessionId, group: u64, policy: Policy) -> bool {
        self.held_bytes += OF_EACH_BYTES_MAX;
        let (was_member, joins) = (self.current(id, group).is_some(), self.now());
        if !was_member {
            let begun = Membership { group, policy, joins, joined: None, leaves: None, left: None };
            self.memberships.entry(id).or_default().push(begun);
        }
        was_member
    }

    /// One that was no member was let in, or not. How many groups it was in meanwhile, this one included.
    pub(crate) fn joined(
        &mut self,
        id: SessionId,
        group: u64,
        was_member: bool,
        is_let_in: bool,
    ) -> usize {
        let now = self.now();
        let count = self.groups_of(id).count();
        if !was_member && let Some(membership) = self.current(id, group) {
            membership.joined = Some(now);
            if !is_let_in {
                (membership.joined, membership.leaves, membership.left) =
                    (None, Some(now), Some(0));
            }
        }
        count
    }

    /// A session is about to leave. Whether it was a member.
    pub(crate) fn leaves(&mut self, id: SessionId, group: u64) -> bool {
        let now = self.now();
        let membership = self.current(id, group);
        membership.map(|membership| membership.leaves = Some(now)).is_some()
    }

    pub(crate) fn left(&mut self, id: SessionId, group: u64) {
        let now = self.now();
        let of = self.memberships.entry(id).or_default().iter_mut().rev();
        if let Some(membership) = of.into_iter().find(|membership| membership.group == group) {
            membership.left.get_or_insert(now);
        }
    }

    fn current(&mut self, id: SessionId, group: u64) -> Option<&mut Membership> {
        let mut of = self.memberships.get_mut(&id)?.iter_mut().rev();
        of.find(|membership| membership.group == group && membership.leaves.is_none())
    }

    pub(crate) fn groups_of(&self, id: SessionId) -> impl Iterator<Item = u64> {
        let of = self.memberships.get(&id).into_iter().flatten();
        of.filter(|membership| membership.leaves.is_none()).map(|membership| membership.group)
    }

    fn of(&self, publisher: u32, number: u32) -> Option<&Publication> {
        self.by_publisher.get(&publisher)?.get(number as usize)
    }

    pub(crate) fn began(&self, (publisher, number): (u32, u32)) -> Option<u64> {
        self.of(publisher, number).map(|publication| publication.began)
    }

    /// Whether the session, unless it ends, gets this for certain.
    fn must_get(&self, id: SessionId, publication: &Publication) -> bool {
        let Some((returned, true)) = publication.returned else { return false };
        let began = publication.began;
        let (group, except) = match publication.to {
            To::All => return self.opened.get(&id).is_some_and(|opened| *opened < began),
            To::Members(group) => (group, None),
            To::MembersBut(group, except) => (group, Some(except)),
        };
        let mut memberships = self.memberships.get(&id).into_iter().flatten();
        Some(id) != except
            && memberships.any(|membership| {
                membership.group == group
                    && membership.gets(publication)
                    && membership.joined.is_some_and(|joined| joined < began)
                    && membership.leaves.is_none_or(|leaves| leaves > returned)
            })
    }

    /// Why it may not have got this.
    fn why_not(&self, id: SessionId, publication: &Publication) -> Option<&'static str> {
        let returned = match publication.returned {
            Some((_, false)) => return Some("it was refused"),
            Some((returned, true)) => returned,
            None => u64::MAX,
        };
        let (group, except) = match publication.to {
            To::All => return None, // who opens meanwhile may get it
            To::Members(group) => (group, None),
            To::MembersBut(group, except) => (group, Some(except)),
        };
        let mut memberships = self.memberships.get(&id).into_iter().flatten();
        let may_be_member = memberships.any(|membership| {
            membership.group == group
                && membership.joins < returned
                && membership.left.is_none_or(|left| left > publication.began)
        });
        match (may_be_member, except == Some(id)) {
            (_, true) => Some("it was the one that was excepted"),
            (false, _) => Some("it was no member"),
            (true, false) => None,
        }
    }

    /// A publication that the peer of a session, which is well, must have got and has not; of those that
    /// returned before a tick.
    pub(crate) fn missing_before(
        &self,
        id: SessionId,
        peer: u32,
        before: u64,
    ) -> Option<(u32, u32)> {
        let nothing = Vec::new();
        let got: std::collections::BTreeSet<_> =
            self.got.get(&peer).unwrap_or(&nothing).iter().copied().collect();
        self.by_publisher.iter().find_map(|(publisher, publications)| {
            let is_missing = |(number, publication): (usize, &Publication)| {
                publication.returned.is_some_and(|(returned, _)| returned < before)
                    && self.must_get(id, publication)
                    && !got.contains(&(*publisher, number as u32))
            };
            let number = publications.iter().enumerate().position(is_missing)?;
            Some((*publisher, number as u32))
        })
    }

    /// Whether the peer of a session, which was drained and is well, has missed the goodbye to all.
    pub(crate) fn misses_goodbye(&self, id: SessionId, peer: u32) -> bool {
        let Some(goodbye) = self.of(DRAINING, 0) else { return false };
        let got = self.got.get(&peer).is_some_and(|got| got.contains(&(DRAINING, 0)));
        self.must_get(id, goodbye) && !got
    }

    /// When the server was asked to end.
    pub(crate) fn ends(&self) -> Option<u64> {
        self.ends
    }

    /// A frame of which the sessions were not told alone may have found the queue full.
    pub(crate) fn may_have_filled(&self, id: SessionId) -> bool {
        let to_all = |publication: &Publication| publication.to == To::All;
        self.memberships.contains_key(&id) || self.by_publisher.values().flatten().any(to_all)
    }

    /// Two peers that got the same publications in different orders.
    pub(crate) fn out_of_order(&self) -> Option<(u32, u32)> {
        let mut peers: Vec<_> = self.got.iter().collect();
        peers.sort_by_key(|(_, got)| std::cmp::Reverse(got.len()));
        peers.truncate(40);
        peers.windows(2).find_map(|pair| {
            let [(one, first), (other, second)] = pair else { return None };
            let places: HashMap<_, _> = first.iter().zip(0..).collect();
            let places: Vec<u32> =
                second.iter().filter_map(|got| places.get(got)).copied().collect();
            (!places.is_sorted()).then_some((**one, **other))
        })
    }

    /// A publication came to a peer whose session is known. What is wrong with it.
    pub(crate) fn comes(
        &mut self,
        peer: u32,
        id: SessionId,
        message: Message,
    ) -> Option<(Rule, String)> {
        let Message { to, sender, number } = message;
        self.got.entry(peer).or_default().push((sender, number));
        self.got_by.entry(peer).or_default().insert((sender, number));
        let now = wharf::simulation::now().unwrap_or_default();
        self.got_at.entry(peer).or_default().push(now);
        let last = self.lasts.insert((peer, sender), number);
        let Some(publication) = self.of(sender, number) else {
            let what = format!("peer {peer} got publication {number} of {sender}, who did not");
            return Some((Rule::FramesArriveWhole, what));
        };
        if publication.to.group() != to.to_bits() {
            let what = format!("publication {number} of {sender} came as of group {to}");
            return Some((Rule::FramesArriveWhole, what));
        }
        if let Some(why) = self.why_not(id, publication) {
            let what = format!("{id} got publication {number} of {sender}, but {why}");
            return Some((Rule::FramesReachTheirSession, what));
        }
        if last.is_some_and(|last| last >= number) {
            let what = format!("{id} got publication {number} of {sender} after {last:?}");
            return Some((Rule::FramesArriveInOrder, what));
        }
        let from = last.map_or(0, |last| last + 1);
        let must = |number: &u32| {
            self.of(sender, *number).is_some_and(|left_out| self.must_get(id, left_out))
        };
        let Some(left_out) = (from..number).find(must) else {
            return self.check_missed(id, peer, (sender, number));
        };
        let what = format!("{id} got publication {number} of {sender}, and not {left_out}");
        Some((Rule::FramesArriveInOrder, what))
    }
}
