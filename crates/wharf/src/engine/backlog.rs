//! Frames that members lack because their send queues had no room, and the place of each such member among them.
//!
//! Each audience (a group, all sessions, or one session) has a log of its frames, but only while a member is behind
//! in it. A *place* says which frame of a log a member lacks first. A member that lacks frames of several logs takes
//! them in the order in which they were published. A frame goes when the last place has passed it.
//!
//! There is a log for each [`Policy`]: one in which every frame stays, one in which the newest of each key stays, and
//! one that only counts.

mod latest;
mod log;
mod place;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use self::latest::Latest;
use self::log::Log;
pub(crate) use self::place::Offered;
use self::place::{Given, OPEN, Place};
use super::publication::{Audience, Publication};
use crate::clock::Moment;
use crate::session::{Policy, SessionId};

/// The most memory of a session that is behind, its places in groups not counted, in bytes.
pub(crate) const BEHIND_BYTES: usize = 656;

/// What the members of one port lack.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    logs: HashMap<Audience, Logs>,
    /// Hashed without a key, so that a simulated run ends them in the order that its seed decides.
    behind: HashMap<SessionId, Behind, BuildHasherDefault<DefaultHasher>>,
    /// Bytes of the frames in the logs, as they count for the port's bound.
    held_bytes: usize,
    /// How many publications there were: gives the order between logs.
    published: u64,
    /// How many members lack frames that are kept for them.
    lacking: usize,
    /// Frames whose place a newer one of the same key has taken.
    superseded: u64,
    /// Those that a look has not come to yet.
    looking: Vec<SessionId>,
    /// That look came late.
    looks_late: bool,
}

/// The frames of one audience that somebody lacks.
#[derive(Debug, Default)]
struct Logs {
    all: Log,
    latest: Latest,
    missed: Missed,
}

/// The frames that members miss: only how many there were.
#[derive(Debug, Default)]
struct Missed {
    frames: u64,
    members: u32,
}

/// A member that is behind.
#[derive(Debug)]
struct Behind {
    places: Vec<Place>,
    /// When it began to lack frames.
    since: Moment,
    /// How many bytes had left at the beginning of the time in which so many must leave. `None`: there was no look
    /// since it began to lack frames that it must get.
    began: Option<Progress>,
    /// What was seen at the last look.
    seen: Option<Seen>,
    /// At the last look nothing had left since the look before it.
    is_stuck: bool,
    /// The session was asked to drain. It gets what it lacks now and no more.
    closes: bool,
}

/// The time in which so many bytes must leave.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Looks since it began, on which a send was with the OS.
    looks: u32,
    /// Bytes that its peer had taken when it began.
    taken_bytes: i64,
}

/// What is seen of a member at a look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Bytes that have left since it is behind.
    pub(crate) left_bytes: u64,
    /// Bytes that the OS has taken and its peer has not acknowledged; 0 if the OS does not say.
    pub(crate) unacknowledged_bytes: u64,
    /// Whether a send is with the OS. If it was not at two looks, it is not the peer who takes its time.
    pub(crate) is_sending: bool,
}

/// When a member is slow: so few bytes have left in such a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlowRule {
    pub(super) after: Duration,
    pub(super) bytes: u64,
}

impl Seen {
    /// Bytes that its peer has taken since it is behind, less those that the OS held then.
    fn taken_bytes(self) -> i64 {
        self.left_bytes as i64 - self.unacknowledged_bytes as i64
    }
}

impl SlowRule {
    /// How many times in `after` a worker looks for slow members.
    pub(super) const LOOKS: u32 = 10;
    /// See [`late_after`](Self::late_after).
    const LATE_MIN: Duration = Duration::from_millis(100);

    /// A look that comes later than this, or after a turn that was longer, counts against nobody. A callback blocks,
    /// the process was stopped or the machine suspended: what would have left meanwhile has not, and that is not
    /// the peers' fault.
    pub(super) fn late_after(self) -> Duration {
        (self.after / Self::LOOKS).max(Self::LATE_MIN)
    }
}

/// How far a member has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    No,
    Yes,
    /// Yes, and the session waited for that to drain.
    AndCloses,
}

impl Backlog {
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.behind.is_empty()
    }

    /// How many members lack frames that are kept for them.
    pub(super) fn lacking(&self) -> usize {
        self.lacking
    }

    /// When the first of those that are behind fell behind.
    pub(super) fn oldest_at(&self) -> Option<Moment> {
        self.behind.values().filter(|behind| behind.lacks()).map(|behind| behind.since).min()
    }

    pub(super) fn superseded(&self) -> u64 {
        self.superseded
    }

    /// Keeps a publication for those members that had no room for it, and for all that are behind in its logs.
    /// `falls_behind` hears of each of `without_room` that is behind from now on.
    pub(super) fn keep(
        &mut self,
        publication: &Publication,
        without_room: &[(SessionId, Policy)],
        now: Moment,
        mut falls_behind: impl FnMut(SessionId, Policy),
    ) {
        let (audience, order) = (publication.to, self.published);
        self.published += 1;
        if self.behind.is_empty() && without_room.is_empty() {
            return;
        }
        if without_room.is_empty() && !self.logs.contains_key(&audience) {
            return;
        }
        let logs = self.logs.entry(audience).or_default();
        let mut places = 0;
        for (id, policy) in without_room {
            let behind = self.behind.entry(*id).or_insert_with(|| Behind::at(now));
            let is_there = |place: &Place| place.is_open(audience, *policy);
            if behind.closes || behind.places.iter().any(is_there) {
                continue;
            }
            let next = match policy {
                Policy::Close => logs.all.end(),
                Policy::KeepLatest => order,
                Policy::Skip => logs.missed.frames,
            };
            match policy {
                Policy::Close => places += 1,
                Policy::KeepLatest => logs.latest.begin(order),
                Policy::Skip => logs.missed.members += 1,
            }
            if *policy != Policy::Skip && !behind.lacks() {
                (behind.since, behind.seen) = (now, None);
                self.lacking += 1;
            }
            if *policy == Policy::Close && !behind.must_keep_up() {
                behind.began = None;
            }
            behind.places.push(Place { audience, policy: *policy, next, end: OPEN, order });
            falls_behind(*id, *policy);
        }
        // What is sent to one session is meant for one of its logs.
        let is_for = |policy| match audience {
            Audience::One(_) => publication.policy_of_others() == policy,
            Audience::All | Audience::Group(_) => true,
        };
        let is_for_all = places > 0 || is_for(Policy::Close) && !logs.all.is_empty();
        if is_for_all {
            logs.all.keep(publication, order, places);
            self.held_bytes += publication.waiting_bytes();
        }
        if is_for(Policy::KeepLatest) && !logs.latest.is_empty() {
            // It has asked the bound for its bytes once.
            self.held_bytes += if is_for_all { 0 } else { publication.waiting_bytes() };
            if let Some(bytes) = logs.latest.keep(publication, order, !is_for_all) {
                self.held_bytes -= bytes;
                self.superseded += 1;
            }
        }
        if logs.missed.members > 0 {
            logs.missed.frames += 1;
            self.does_not_miss(audience, publication.except);
        }
        self.trim(audience);
    }

    /// The one that is not meant misses nothing.
    fn does_not_miss(&mut self, audience: Audience, except: Option<SessionId>) {
        let Some(behind) = except.and_then(|id| self.behind.get_mut(&id)) else { return };
        let of_it = |place: &&mut Place| place.is_open(audience, Policy::Skip);
        if let Some(place) = behind.places.iter_mut().find(of_it) {
            place.next += 1;
        }
    }

    /// Offers a member what it lacks, in order, until it has no room. `caught_up_in` hears of each audience in
    /// which the member lacks nothing more.
    pub(super) fn refill(
        &mut self,
        id: SessionId,
        mut offer: impl FnMut(&Publication, Policy) -> Offered,
        mut caught_up_in: impl FnMut(Audience, Policy),
    ) -> CaughtUp {
        let Some(behind) = self.behind.get_mut(&id) else { return CaughtUp::Yes };
        if !behind.lacks() {
            return CaughtUp::Yes;
        }
        loop {
            let lacking = behind.places.iter().enumerate().filter(|(_, place)| place.lacks());
            let Some((at, _)) = lacking.min_by_key(|(_, place)| place.order) else { break };
            let others = behind.places.iter().enumerate().filter(|(other, _)| *other != at);
            let others = others.filter(|(_, place)| place.lacks()).map(|(_, place)| place.order);
            let until = others.min().unwrap_or(OPEN);
            let place = &mut behind.places[at];
            let (audience, policy) = (place.audience, place.policy);
            let Some(logs) = self.logs.get_mut(&audience) else { break };
            let offer = |publication: &Publication| offer(publication, policy);
            let given = match policy {
                Policy::Close => logs.all.give(id, place, until, offer),
                _ => logs.latest.give(id, place, until, offer),
            };
            if given == Given::All {
                let place = behind.places.swap_remove(at);
                if policy == Policy::KeepLatest {
                    logs.latest.forget(&place);
                }
                if place.end == OPEN {
                    caught_up_in(audience, policy);
                }
            }
            trim(&mut self.logs, audience, &mut self.held_bytes);
            if given == Given::NoRoom {
                return CaughtUp::No;
            }
        }
        let closes = behind.closes;
        self.lacking -= 1;
        if behind.places.is_empty() {
            self.behind.remove(&id);
        }
        if closes { CaughtUp::AndCloses } else { CaughtUp::Yes }
    }

    /// How many frames a member has missed that it was not told of, of one audience. `None`: it is told of all, and
    /// misses no more from now on; `caught_up_in` hears of each audience.
    pub(super) fn missed(
        &mut self,
        id: SessionId,
        mut caught_up_in: impl FnMut(Audience),
    ) -> Option<(Audience, u64)> {
        let behind = self.behind.get_mut(&id)?;
        for place in behind.places.iter_mut().filter(|place| !place.lacks()) {
            let frames = self.logs.get(&place.audience).map_or(0, |logs| logs.missed.frames);
            let missed = frames - std::mem::replace(&mut place.next, frames);
            if missed > 0 {
                return Some((place.audience, missed));
            }
        }
        let told: Vec<_> = behind.places.extract_if(.., |place| !place.lacks()).collect();
        if behind.places.is_empty() {
            self.behind.remove(&id);
        }
        for place in told {
            self.give_up(&place);
            if place.end == OPEN {
                caught_up_in(place.audience);
            }
        }
        None
    }

    /// A member leaves: what is published from now on it does not lack. What it has missed it is not told.
    pub(super) fn leave(&mut self, id: SessionId, audience: Audience) {
        self.end_places(id, |place| place.audience == audience);
    }

    /// A session that is to drain gets what it lacks now and no more. False: it lacks nothing.
    pub(super) fn close(&mut self, id: SessionId) -> bool {
        self.end_places(id, |_| true);
        let Some(behind) = self.behind.get_mut(&id) else { return false };
        behind.closes = true;
        true
    }

    fn end_places(&mut self, id: SessionId, which: impl Fn(&Place) -> bool) {
        let Some(behind) = self.behind.get_mut(&id) else { return };
        let is_of_no_use = |place: &mut Place| which(place) && !place.lacks();
        let missed: Vec<_> = behind.places.extract_if(.., is_of_no_use).collect();
        for place in behind.places.iter_mut().filter(|place| which(place) && place.end == OPEN) {
            let Some(logs) = self.logs.get_mut(&place.audience) else { continue };
            match place.policy {
                Policy::Close => place.end = logs.all.end(),
                _ => logs.latest.end_place(place, self.published),
            }
        }
        if behind.places.is_empty() {
            self.behind.remove(&id);
        }
        missed.iter().for_each(|place| self.give_up(place));
    }

    /// Looks at so many members that are behind, until it [has looked at all](Self::is_looking). Returns the members
    /// that are slow. Time is counted in looks: one that is late counts for nothing.
    pub(super) fn slow(
        &mut self,
        members_max: usize,
        is_late: bool,
        rule: SlowRule,
        mut see: impl FnMut(SessionId) -> Option<Seen>,
    ) -> Vec<SessionId> {
        let mut slow = Vec::new();
        if self.looking.is_empty() {
            self.looking.extend(self.behind.keys());
            self.looks_late = false;
        }
        // Of the whole rest: what was late may have been seen for the first time then.
        self.looks_late |= is_late;
        let is_late = self.looks_late;
        let later = self.looking.len().saturating_sub(members_max);
        for id in self.looking.drain(later..) {
            let Some(behind) = self.behind.get_mut(&id) else { continue };
            let Some(seen) = see(id) else { continue };
            let taken_bytes = seen.taken_bytes();
            let before = behind.seen.replace(seen);
            // One that was posted since then may not have reached the OS before now.
            let was_sending = before.is_some_and(|before| before.is_sending);
            let counts = !is_late && was_sending && seen.is_sending;
            let has_moved = before.is_none_or(|before| before.taken_bytes() != taken_bytes);
            behind.is_stuck = counts && !has_moved;
            if !behind.must_keep_up() {
                continue;
            }
            let begins = Progress { looks: 0, taken_bytes };
            match &mut behind.began {
                Some(began) if taken_bytes - began.taken_bytes < rule.bytes as i64 => {
                    began.looks += u32::from(counts);
                    if began.looks >= SlowRule::LOOKS {
                        slow.push(id);
                    }
                }
                began => *began = Some(begins),
            }
        }
        if later == 0 {
            self.looking = Vec::new();
        }
        slow
    }

    /// Whether a look has not come to all members yet.
    pub(super) fn is_looking(&self) -> bool {
        !self.looking.is_empty()
    }

    /// The members that were stuck at the last look.
    pub(super) fn stuck(&self) -> Vec<SessionId> {
        let is_stuck = |(id, behind): (&SessionId, &Behind)| behind.is_stuck.then_some(*id);
        self.behind.iter().filter_map(is_stuck).collect()
    }

    /// Takes away what those members lack that were stuck at the last look, and for which nothing has left since.
    /// They are returned.
    pub(super) fn forget_stuck(
        &mut self,
        mut left: impl FnMut(SessionId) -> Option<u64>,
    ) -> Vec<SessionId> {
        let mut stuck = self.stuck();
        stuck.retain(|id| {
            let seen = self.behind.get(id).and_then(|behind| behind.seen);
            left(*id).is_some_and(|bytes| seen.is_some_and(|seen| seen.left_bytes == bytes))
        });
        stuck.iter().for_each(|id| self.forget(*id));
        stuck
    }

    /// A session has ended, and lacks nothing any more.
    pub(super) fn forget(&mut self, id: SessionId) {
        let Some(behind) = self.behind.remove(&id) else { return };
        self.lacking -= usize::from(behind.lacks());
        behind.places.iter().for_each(|place| self.give_up(place));
    }

    fn give_up(&mut self, place: &Place) {
        let Some(logs) = self.logs.get_mut(&place.audience) else { return };
        match place.policy {
            Policy::Close => logs.all.forget(place),
            Policy::KeepLatest => logs.latest.forget(place),
            Policy::Skip => logs.missed.members -= 1,
        }
        self.trim(place.audience);
    }

    fn trim(&mut self, audience: Audience) {
        trim(&mut self.logs, audience, &mut self.held_bytes);
    }
}

/// Lets the frames of an audience go that all places have passed.
fn trim(logs: &mut HashMap<Audience, Logs>, audience: Audience, held_bytes: &mut usize) {
    let Some(of) = logs.get_mut(&audience) else { return };
    *held_bytes -= of.all.trim(|order| of.latest.takes_over(order));
    *held_bytes -= of.latest.trim();
    if of.all.is_empty() && of.latest.is_empty() && of.missed.members == 0 {
        logs.remove(&audience);
    }
}

impl Behind {
    fn at(now: Moment) -> Self {
        Behind {
            places: Vec::new(),
            since: now,
            began: None,
            seen: None,
            is_stuck: false,
            closes: false,
        }
    }

    /// Whether frames are kept for it.
    fn lacks(&self) -> bool {
        self.places.iter().any(Place::lacks)
    }

    /// Whether it ends if it is slow.
    fn must_keep_up(&self) -> bool {
        self.places.iter().any(|place| place.policy == Policy::Close)
    }
}

impl Place {
    /// Whether frames are kept for it.
    fn lacks(&self) -> bool {
        self.policy != Policy::Skip
    }

    /// Whether it goes on for as long as its member is one.
    fn is_open(&self, audience: Audience, policy: Policy) -> bool {
        self.audience == audience && self.policy == policy && self.end == OPEN
    }
}
