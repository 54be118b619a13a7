//! Sends beside publications: what was sent before something was published comes before it. And sends of which only
//! the newest of a key must come.

use wharf::SessionId;

use super::Truth;
use crate::publications::PUBLISHERS;
use crate::rules::Rule;
use crate::town::ITSELF;

/// Senders of frames of which the newest of each key must come: this, and the number of the thread.
pub(crate) const LATEST: u32 = 1 << 27;
/// So many keys has each of them. A frame's key follows from its number.
pub(crate) const KEYS: u32 = 4;

pub(crate) fn is_latest(sender: u32) -> bool {
    (LATEST..LATEST << 1).contains(&sender)
}

pub(crate) fn key_of(sender: u32, number: u32) -> u64 {
    u64::from(sender) << 8 | u64::from(number % KEYS)
}

impl Truth {
    /// A frame was accepted, as its sender knows now.
    pub(crate) fn has_accepted(&mut self, id: SessionId, sender: u32, number: u32) {
        let now = self.publications.now();
        let ticks = self.sent.entry(id).or_default().entry(sender).or_default();
        ticks.resize(number as usize, u64::MAX);
        ticks.push(now);
    }

    /// A publication comes to the peer of a session: everything that was accepted before it began has come.
    pub(super) fn check_not_overtaken(&mut self, peer: u32, id: SessionId, name: (u32, u32)) {
        let Some(began) = self.publications.began(name) else { return };
        let Some(sent) = self.sent.get(&id) else { return };
        let got = &self.peers[peer as usize].got;
        let overtaken = sent.iter().filter(|(sender, _)| !is_latest(**sender)).find_map(|of| {
            let (sender, ticks) = of;
            let next = got.get(sender).copied().unwrap_or(0);
            let is_before = ticks.get(next as usize).is_some_and(|tick| *tick < began);
            is_before.then_some((*sender, next))
        });
        if let Some((sender, number)) = overtaken {
            let what = format!(
                "publication {} of {} came to {id} before message {number} of sender {sender}",
                name.1, name.0
            );
            self.broken(Rule::SendsAreNotOvertaken, vec![id.to_bits()], what);
        }
    }

    /// A message of a sender came of whom only the newest must come.
    pub(super) fn latest_comes(&mut self, peer: u32, id: SessionId, sender: u32, number: u32) {
        let facts = &mut self.peers[peer as usize];
        let next = facts.got.entry(sender).or_default();
        let is_in_order = number >= *next;
        *next = number + 1;
        facts.got_latest.insert((sender, number));
        if !is_in_order {
            let what = format!("peer {peer} got message {number} of {sender} after a newer one");
            self.broken(Rule::FramesArriveInOrder, vec![id.to_bits()], what);
        }
    }

    /// Of a sender of whom only the newest of each key must come: one that has not, of so many.
    pub(super) fn missing_latest(&self, peer: u32, sender: u32, accepted: u32) -> Option<u32> {
        let got = &self.peers[peer as usize].got_latest;
        let newest = accepted.saturating_sub(KEYS)..accepted;
        newest.into_iter().find(|number| !got.contains(&(sender, *number)))
    }

    /// `lagged` was called. The next message of the session's own marks it.
    pub(crate) fn is_told_of_lag(&mut self, id: SessionId, group: u64, frames: u64) {
        let accepted = self.sessions.get(&id).and_then(|session| session.accepted.get(&ITSELF));
        let mark = accepted.copied().unwrap_or(0);
        self.publications.lags(id, group, frames, Some(mark));
        if frames == 0 || !self.publications.may_miss(id, group) {
            let what = format!("{id} was told that it has missed {frames} frames of group {group}");
            self.broken(Rule::MissedIsTold, vec![id.to_bits()], what);
        }
    }
}

const _: () = assert!(LATEST << 1 <= crate::partings::FAREWELLS && LATEST < PUBLISHERS);
