//! What peers do of which some speak other forms than others.

use std::net::SocketAddr;
use std::time::Duration;

use super::state::Driver;
use crate::forms::Form;
use crate::frames::FRAME_BYTES_MAX;
use crate::framings::{Change, Speaker};
use crate::town::action;

/// More pieces than that take too long.
const PIECES_MAX: u32 = 200;
/// A small request has no more bytes.
const SMALL_BYTES_MAX: usize = 100;

impl Driver<'_> {
    /// Where a peer connects to, and which form it speaks there.
    pub(super) fn any_form(&mut self) -> (SocketAddr, Option<Form>) {
        let Some(count) = self.plan.framings.as_ref().map(|framings| framings.forms.len()) else {
            return (self.address, None);
        };
        let place = self.below(count as u64) as usize;
        let framings = self.plan.framings.as_ref();
        let at = framings.map(|of| (of.address(self.address, place), Some(of.forms[place])));
        at.unwrap_or((self.address, None))
    }

    pub(super) fn speaker(&self, form: Form) -> Speaker {
        Speaker::new(form, self.plan.framings.as_ref().and_then(|framings| framings.frame_bytes()))
    }

    /// Some requests of a peer, in the form that it speaks; perhaps one for another form, or something that is refused.
    pub(super) fn speak(
        &mut self,
        number: u32,
        speaker: &mut Speaker,
        count: u64,
        into: &mut Vec<u8>,
    ) {
        for _ in 0..count {
            if self.truth.lock().peers[number as usize].refused.is_some() {
                break;
            }
            let is_free = speaker.may_say_bytes == usize::MAX;
            if is_free && self.one_in(4) && self.asks_for_change(number, speaker, into) {
                continue;
            }
            if is_free
                && self.plan.is_rough
                && self.one_in(400)
                && self.is_refused(number, speaker, into)
            {
                break;
            }
            let frame = if !is_free {
                if speaker.may_say_bytes < SMALL_BYTES_MAX {
                    break;
                }
                self.request(number, action::ANSWER, 0, 0)
            } else if self.one_in(100) {
                self.request(number, action::ANSWER, 9, FRAME_BYTES_MAX)
            } else {
                self.some_request(number)
            };
            let start = into.len();
            speaker.says.write(&frame, into);
            speaker.has_said(into.len() - start);
        }
    }

    fn asks_for_change(&mut self, number: u32, speaker: &mut Speaker, into: &mut Vec<u8>) -> bool {
        let Some(framings) = self.plan.framings.as_ref().filter(|framings| framings.changes) else {
            return false;
        };
        let count = framings.forms.len() as u64;
        let (place, later) = (self.below(count) as usize, self.one_in(2));
        let Some(form) = self.plan.framings.as_ref().map(|framings| framings.forms[place]) else {
            return false;
        };
        let Some(how) = speaker.may_change_to(form, later) else { return false };
        let action = match how {
            Change::AtOnce => action::CHANGE,
            Change::Later => action::CHANGE_LATER,
        };
        let frame = self.request(number, action, place as u16, 0);
        speaker.says.write(&frame, into);
        speaker.has_asked_for(form, how);
        true
    }

    fn is_refused(&mut self, number: u32, speaker: &Speaker, into: &mut Vec<u8>) -> bool {
        let way = self.below(3);
        let Some((bytes, why)) = speaker.says.refused(way) else { return false };
        into.extend(bytes);
        self.truth.lock().peers[number as usize].refused = Some(why);
        true
    }

    /// A peer says this in many pieces, with time between them.
    pub(super) fn say_in_pieces(&mut self, index: usize, mut bytes: &[u8]) {
        let key = self.peers[index].peer.key();
        let most = [1, 3, 40, 5_000][self.below(4) as usize];
        for _ in 0..PIECES_MAX {
            let Some(index) = self.by_key.get(&key).copied() else { return };
            let piece = 1 + self.below(most) as usize;
            let (now, later) = bytes.split_at(piece.min(bytes.len()));
            self.say(index, now);
            bytes = later;
            if bytes.is_empty() {
                return;
            }
            let gap = self.below(self.plan.gap.as_nanos() as u64 / 8);
            self.let_pass(Duration::from_nanos(gap));
        }
        if let Some(index) = self.by_key.get(&key) {
            self.say(*index, bytes);
        }
    }
}
