//! What members lack by their policies: each frame came, or was counted as missed, or a newer one of its key came.

use std::collections::HashSet;

use wharf::{Policy, SessionId};

use super::{Membership, Publication, Publications, To};
use crate::rules::Rule;

/// The frames of a group that a session was told that it has missed, and where in what its peer gets.
#[derive(Debug, Default)]
pub(super) struct Lags {
    /// Told, and marked by a message of this number of the session's own.
    marks: Vec<(u32, u64)>,
    /// Of the marks that have come to the peer: frames that are missing before what comes next.
    since_last: u64,
    /// The last publication of the group that has come.
    last: Option<(u32, u32)>,
    /// A mark could not be sent: nothing can be said.
    is_unclear: bool,
}

impl Membership {
    /// Whether the publication certainly is for this member.
    fn must_include(&self, publication: &Publication, returned: u64) -> bool {
        self.joined.is_some_and(|joined| joined < publication.began)
            && self.leaves.is_none_or(|leaves| leaves > returned)
    }

    /// Whether this member gets it, as it does all such frames.
    pub(super) fn gets(&self, publication: &Publication) -> bool {
        match self.policy {
            Policy::Skip => false,
            Policy::KeepLatest => publication.key.is_none(),
            _ => true,
        }
    }
}

/// A publication: its publisher and number.
type Name = (u32, u32);

impl Publications {
    /// `lagged` was called, and a mark of this number is sent; or it could not be.
    pub(crate) fn lags(&mut self, id: SessionId, group: u64, frames: u64, mark: Option<u32>) {
        let lags = self.lags.entry((id, group)).or_default();
        match mark {
            Some(mark) => lags.marks.push((mark, frames)),
            None => lags.is_unclear = true,
        }
    }

    /// Whether the session is or was a member of the group that misses what it has no room for.
    pub(crate) fn may_miss(&self, id: SessionId, group: u64) -> bool {
        let mut of = self.memberships.get(&id).into_iter().flatten();
        of.any(|of| of.group == group && of.policy == Policy::Skip)
    }

    /// A message of the session's own has come to its peer: perhaps a mark.
    pub(crate) fn mark_comes(&mut self, id: SessionId, number: u32) {
        for group in 0..crate::frames::GROUPS {
            let Some(lags) = self.lags.get_mut(&(id, group)) else { continue };
            let frames = lags.marks.iter().filter(|(mark, _)| *mark == number);
            lags.since_last += frames.map(|(_, frames)| frames).sum::<u64>();
        }
    }

    /// A publication of a group comes to a session that may miss some. What is wrong with how many it was told of.
    pub(super) fn check_missed(
        &mut self,
        id: SessionId,
        peer: u32,
        came: (u32, u32),
    ) -> Option<(Rule, String)> {
        let group = self.of(came.0, came.1)?.to.group();
        let skips = |of: &Membership| of.policy == Policy::Skip && of.group == group;
        if !self.memberships.get(&id)?.iter().any(skips) {
            return None;
        }
        let lags = self.lags.entry((id, group)).or_default();
        let (last, told) = (lags.last.replace(came), std::mem::take(&mut lags.since_last));
        if lags.is_unclear {
            return None;
        }
        let wrong = self.missed_wrongly(id, peer, group, (last, Some(came)), told)?;
        Some((Rule::MissedIsTold, format!("{id}, before {came:?} of group {group}: {wrong}")))
    }

    /// Nothing more comes: what is wrong with how many the members that are left were told of.
    pub(crate) fn missed_untold(&self, id: SessionId, peer: u32) -> Option<String> {
        let memberships = self.memberships.get(&id)?.iter();
        let mut skips = memberships.filter(|of| of.policy == Policy::Skip && of.leaves.is_none());
        skips.find_map(|of| {
            let lags = self.lags.get(&(id, of.group));
            if lags.is_some_and(|lags| lags.is_unclear) {
                return None;
            }
            let (last, told) = lags.map_or((None, 0), |lags| (lags.last, lags.since_last));
            let wrong = self.missed_wrongly(id, peer, of.group, (last, None), told)?;
            Some(format!("{id}, at last, of group {}: {wrong}", of.group))
        })
    }

    /// Between two publications that came.
    fn missed_wrongly(
        &self,
        id: SessionId,
        peer: u32,
        group: u64,
        (last, next): (Option<Name>, Option<Name>),
        told: u64,
    ) -> Option<String> {
        let times = |(publisher, number): (u32, u32)| {
            let publication = self.of(publisher, number)?;
            Some((publication.began, publication.returned.map_or(u64::MAX, |(at, _)| at)))
        };
        let (last_began, last_returned) = last.and_then(times).unwrap_or((0, 0));
        let (next_began, next_returned) = next.and_then(times).unwrap_or((u64::MAX, u64::MAX));
        let nothing = HashSet::new();
        let got = self.got_by.get(&peer).unwrap_or(&nothing);
        let memberships = self.memberships.get(&id)?;
        let (mut least, mut most) = (0, 0);
        for name in self.of_group.get(&group)? {
            let Some(publication) = self.of(name.0, name.1) else { continue };
            if publication.began > next_returned {
                break; // they are in the order of their begins
            }
            let returned = match publication.returned {
                Some((_, false)) => continue,
                Some((returned, true)) => returned,
                None => u64::MAX,
            };
            let is_after = publication.began > last_returned;
            if returned < last_began || got.contains(name) || self.is_excepted(id, publication) {
                continue;
            }
            let is_before = returned < next_began;
            // Of the membership that what comes next certainly is of: of one that has ended nothing more is told.
            let is_of_next = |of: &&Membership| {
                next.is_none() && of.leaves.is_none()
                    || next
                        .and_then(|(publisher, number)| self.of(publisher, number))
                        .is_some_and(|next| of.must_include(next, next_returned))
            };
            let mut of_group = memberships.iter().filter(|of| of.group == group);
            let certain = of_group.clone().filter(is_of_next);
            let mut certain = certain.filter(|of| of.policy == Policy::Skip);
            if is_after && is_before && certain.any(|of| of.must_include(publication, returned)) {
                least += 1;
            }
            if of_group.any(|of| {
                of.policy == Policy::Skip
                    && of.joins < returned
                    && of.left.is_none_or(|left| left > publication.began)
            }) {
                most += 1;
            }
        }
        let is_right = (least..=most).contains(&told);
        (!is_right).then(|| format!("told of {told}, and {least} to {most} did not come"))
    }

    fn is_excepted(&self, id: SessionId, publication: &Publication) -> bool {
        matches!(publication.to, To::MembersBut(_, except) if except == id)
    }

    /// A frame with a key that has not come to a member that keeps the latest, though no newer one has; of those that
    /// returned before a tick.
    pub(crate) fn not_superseded(
        &self,
        id: SessionId,
        peer: u32,
        before: u64,
    ) -> Option<(u32, u32)> {
        let memberships = self.memberships.get(&id)?;
        let nothing = HashSet::new();
        let got = self.got_by.get(&peer).unwrap_or(&nothing);
        memberships.iter().filter(|of| of.policy == Policy::KeepLatest).find_map(|of| {
            let names = self.of_group.get(&of.group)?;
            let is_lost = |(publisher, number): &&(u32, u32)| {
                let Some(publication) = self.of(*publisher, *number) else { return false };
                let Some((returned, true)) = publication.returned else { return false };
                let is_due = publication.key.is_some()
                    && returned < before
                    && !self.is_excepted(id, publication)
                    && of.must_include(publication, returned)
                    && !got.contains(&(*publisher, *number));
                is_due
                    && !names.iter().any(|newer| {
                        got.contains(newer)
                            && self.of(newer.0, newer.1).is_some_and(|newer| {
                                newer.key == publication.key
                                    && newer.returned.is_none_or(|(at, _)| at > publication.began)
                            })
                    })
            };
            names.iter().find(is_lost).copied()
        })
    }

    /// Whether it may lack this by a membership of one of these policies, or as one of all.
    pub(super) fn may_lack(
        &self,
        id: SessionId,
        publication: &Publication,
        policies: &[Policy],
    ) -> bool {
        let mut of = self.memberships.get(&id).into_iter().flatten();
        publication.to == To::All
            || of.any(|of| of.group == publication.to.group() && policies.contains(&of.policy))
    }
}
