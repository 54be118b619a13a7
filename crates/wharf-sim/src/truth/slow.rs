//! Who may be cut as slow: nobody whose peer has read as fast as the rule wants, and nobody sooner than the rule
//! says.
//!
//! What a peer has read is known exactly, and when. What its session lacked is known from outside as what it was
//! *owed*: what was published for it, and has not come to its peer. A session that is behind is owed something
//! all the time, so it was behind for no longer than it was owed something.

use std::time::Duration;

use wharf::{CloseReason, Policy, SessionId};

use super::{PeerFacts, Truth, is_latest, now};
use crate::frames::{FRAME_BYTES_MAX, HEADER_BYTES};
use crate::rules::Rule;

/// At how many looks in `slow_after` a session must be seen without progress, to be ended for a publisher.
const LOOKS: u32 = 10;

/// What the rule says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SlowRule {
    pub(crate) after: Duration,
    pub(crate) bytes: u64,
    /// What waits at a port for those that lack it.
    pub(crate) held_bytes_max: u64,
    /// What can have left, and not be read: it lies in the network.
    pub(crate) window_bytes: u64,
}

/// A session that ended as slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    id: SessionId,
    at: Duration,
    /// A send may have found no room.
    found_full: bool,
    /// Its queue has room for the largest frame.
    has_room: bool,
}

/// When a peer has read how many bytes.
pub(crate) type Reads = Vec<(Duration, usize)>;

/// The fewest bytes that were read in a time of this length, between two moments. `None`: there is no such time.
fn fewest_in(
    reads: &[(Duration, usize)],
    length: Duration,
    from: Duration,
    to: Duration,
) -> Option<u64> {
    let last = to.checked_sub(length).filter(|last| *last >= from)?;
    // The time with the fewest begins when something was just read, or with all of it.
    let begins = reads.iter().map(|(at, _)| *at).filter(|at| (from..=last).contains(at));
    let (mut first, mut after, mut sum) = (0, 0, 0);
    let fewest = std::iter::once(from).chain(begins).map(|begin| {
        while after < reads.len() && reads[after].0 < begin + length {
            sum += reads[after].1 as u64;
            after += 1;
        }
        while first < after && reads[first].0 <= begin {
            sum -= reads[first].1 as u64;
            first += 1;
        }
        sum
    });
    fewest.min()
}

impl PeerFacts {
    /// It begins to read only now.
    pub(crate) fn has_not_read(&mut self) {
        self.stalls.push((Duration::ZERO, now()));
    }

    /// It stops reading, or reads on.
    pub(crate) fn stalls(&mut self, stalls: bool) {
        match (self.stalled, stalls) {
            (false, true) => self.stalls.push((now(), Duration::MAX)),
            (true, false) => self.stalls.last_mut().into_iter().for_each(|last| last.1 = now()),
            _ => {}
        }
        self.stalled = stalls;
    }
}

impl Truth {
    /// A frame may wait behind what a session lacks.
    pub(crate) fn may_be_placed(&mut self, bytes: usize) {
        if self.shape.is_text() {
            return self.publications.may_hold(bytes);
        }
        self.publications.held_bytes += bytes as u64;
    }

    /// Whether it may have lacked something: a publication, or a frame of which only the newest is of use.
    pub(super) fn may_be_behind(&self, id: SessionId) -> bool {
        let session = self.sessions.get(&id);
        self.publications.may_have_filled(id)
            || session.is_some_and(|of| of.accepted.keys().any(|sender| is_latest(*sender)))
    }

    /// Whether it lacked something when it ended.
    pub(super) fn lacked(&self, id: SessionId, peer: u32) -> bool {
        let policies = [Policy::Close, Policy::KeepLatest];
        self.publications.owed_since(id, peer, &policies).is_some()
    }

    pub(super) fn note_cut(&mut self, id: SessionId, reason: CloseReason) {
        let CloseReason::SlowConsumer { queued } = reason else { return };
        if self.excuses.budget_is_small {
            return;
        }
        if !self.may_be_behind(id) {
            return; // it was a send
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let found_full = session.full || session.under_way > 0;
        let has_room = queued + FRAME_BYTES_MAX + HEADER_BYTES <= self.excuses.send_queue_bytes_max;
        let cut = Cut { id, at: now(), found_full, has_room };
        self.cuts.push(cut);
    }

    /// All that was read is known now.
    pub(crate) fn judge_cuts(&mut self) {
        for cut in std::mem::take(&mut self.cuts) {
            if let Some(why) = self.why_not_slow(cut) {
                let what = format!("{} was cut as slow, but {why}", cut.id);
                self.broken(Rule::ReadersAreKept, self.about(cut.id), what);
            }
        }
    }

    fn why_not_slow(&self, cut: Cut) -> Option<String> {
        let Cut { id, at, found_full, has_room } = cut;
        if found_full && !has_room {
            return None;
        }
        let session = self.sessions.get(&id)?;
        let number = session.peer?;
        let peer = &self.peers[number as usize];
        // It may lack what was sent to it as well.
        let may_lack_sends = session.accepted.keys().any(|sender| is_latest(*sender));
        let owed_since = |policies: &[Policy]| self.publications.owed_since(id, number, policies);
        let since = match owed_since(&[Policy::Close, Policy::KeepLatest]) {
            _ if may_lack_sends => session.opened_at,
            Some(since) => since,
            None => return Some("it lacked nothing".to_owned()),
        };
        if found_full {
            return None; // a send that would have waited behind what it lacks
        }
        let SlowRule { after, bytes, held_bytes_max, window_bytes } = self.excuses.slow;
        // Counted as left before it is read, and read before it is counted: a window of each.
        let margin = 2 * window_bytes;
        let fewest = |length| {
            let fewest = fewest_in(&peer.reads, length, since, at)?;
            // Nobody knows what it reads after it has gone.
            Some(if peer.cut { 0 } else { fewest })
        };
        let has_read_on =
            !(peer.cut || peer.vanished || peer.stalls.iter().any(|(_, until)| *until >= since));
        if has_read_on && self.excuses.sends_enough {
            return Some("its peer has read all the time".to_owned());
        }
        // Who keeps the latest only, is never slow; but a send to it may wait.
        let may_be_slow = self.sent.contains_key(&id) || owed_since(&[Policy::Close]).is_some();
        let is_slow = may_be_slow && fewest(after).is_some_and(|read| read < bytes + margin);
        let may_be_stuck = fewest(after / LOOKS).is_some_and(|read| read <= margin)
            && self.publications.may_have_held(held_bytes_max);
        if is_slow || may_be_stuck {
            return None;
        }
        Some(format!(
            "it was owed something for {:?}, and its peer has read {:?} in {after:?} at least",
            at.saturating_sub(since),
            fewest(after)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_bytes_of_any_time_are_found() {
        let at = Duration::from_millis;
        let reads = [(at(10), 100), (at(20), 30), (at(30), 50), (at(100), 7)];
        let fewest = |length, from, to| fewest_in(&reads, at(length), at(from), at(to));
        assert_eq!(fewest(10, 0, 9), None, "it is shorter");
        assert_eq!(fewest(10, 0, 10), Some(0));
        assert_eq!(fewest(11, 0, 25), Some(30), "after the first");
        assert_eq!(fewest(25, 0, 35), Some(80));
        assert_eq!(fewest(71, 0, 101), Some(7));
        assert_eq!(fewest(81, 0, 105), Some(57));
    }
}
