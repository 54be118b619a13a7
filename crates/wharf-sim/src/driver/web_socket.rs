//! What peers do that speak WebSocket.

use std::time::Duration;

use wharf::Close;
use wharf::simulation::Fault;

use super::state::{Driver, Played};
use crate::forms::Refusal;
use crate::frames::FRAME_BYTES_MAX;
use crate::town::action;
use crate::truth::WebPeerFacts;
use crate::web_socket::{
    Heard, REFUSED_PATH, WAYS, WebPeer, invalid, is_sent_as_text, message, no_request,
};

/// More pieces than that take too long.
const PIECES_MAX: u32 = 400;
/// What a peer that does not read asks for at most before it says something else.
const PINGS_MAX: u64 = 900;
/// Codes that a peer may close with, beside none.
const CODES: [u16; 8] = [1000, 1001, 1003, 1007, 1011, 3000, 4000, 4999];

impl Driver<'_> {
    /// A peer that has connected asks for a WebSocket, in one of the ways that there are.
    pub(super) fn asks_for_web_socket(&mut self, index: usize) {
        let (seed, simulation) = (self.seed(), self.simulation);
        let mut facts = WebPeerFacts::default();
        let mut is_proper = false;
        let web = if simulation.fires(Fault::WebSocketUpgradeGarbage) {
            facts.is_refused = Some(400);
            WebPeer::strange(seed, true, &self.garbage())
        } else if simulation.fires(Fault::WebSocketUpgradeRefused) {
            match self.below(4) {
                0 => {
                    let status = [401, 403, 404, 429, 503][self.below(5) as usize];
                    facts.is_refused = Some(status);
                    WebPeer::asks(seed, &format!("{REFUSED_PATH}{status}"), true)
                }
                1 => {
                    facts.is_refused = Some(403);
                    WebPeer::asks(seed, "/", false)
                }
                _ => {
                    let (bytes, status) = no_request(self.below(10));
                    facts.is_refused = Some(status);
                    WebPeer::strange(seed, true, &bytes)
                }
            }
        } else {
            is_proper = true;
            WebPeer::asks(seed, "/play?x=1", true)
        };
        self.truth.lock().peers[self.peers[index].number as usize].web = Some(facts);
        self.peers[index].web = Some(web);
        if simulation.fires(Fault::WebSocketUpgradeStalls) {
            self.says_a_part(index);
        } else {
            if is_proper && simulation.fires(Fault::WebSocketHeadMerged) {
                self.says_requests_unasked(index, true);
            }
            let most = simulation.fires(Fault::WebSocketHeadDribbled).then_some(1);
            self.say_web_socket(index, most);
        }
    }

    /// A peer that the server has connected to waits for its request.
    pub(super) fn answers_with_web_socket(&mut self, index: usize) {
        let (seed, simulation) = (self.seed(), self.simulation);
        let mut facts = WebPeerFacts::default();
        let web = if simulation.fires(Fault::WebSocketUpgradeGarbage) {
            facts.is_refused = Some(0);
            WebPeer::strange(seed, false, &self.garbage())
        } else if simulation.fires(Fault::WebSocketUpgradeStalls) {
            facts.is_refused = Some(0);
            WebPeer::strange(seed, false, b"HTTP/1.1 101 Switching Protocols\r\nUpgr")
        } else {
            let refuses = simulation.fires(Fault::WebSocketUpgradeRefused);
            facts.is_refused = refuses.then_some(403);
            WebPeer::answers(seed, refuses)
        };
        self.truth.lock().peers[self.peers[index].number as usize].web = Some(facts);
        self.peers[index].web = Some(web);
        self.say_web_socket(index, None);
        self.take_news_of_web_socket(index); // what has come already
    }

    fn seed(&mut self) -> u64 {
        self.below(u64::MAX)
    }

    /// Bytes that are no head, whatever comes behind them.
    fn garbage(&mut self) -> Vec<u8> {
        let count = 1 + self.below(100);
        let mut bytes = vec![0x16];
        bytes.extend((0..count).map(|_| self.below(256) as u8));
        bytes
    }

    /// A peer sends a part of what it wants to say, and never the rest.
    fn says_a_part(&mut self, index: usize) {
        let Some(web) = &mut self.peers[index].web else { return };
        let out = web.take_out();
        let part = self.below(out.len() as u64 - 1) as usize;
        self.peers[index].web = Some(WebPeer::strange(0, true, &out[..part]));
        self.say_web_socket(index, None);
    }

    /// A peer sends a few requests past its codec: before it stands, or when it may not any more. Those do not count.
    fn says_requests_unasked(&mut self, index: usize, counts: bool) {
        let number = self.peers[index].number;
        for _ in 0..1 + self.below(3) {
            let frame = self.request(number, action::ANSWER, 0, 0);
            let sent = {
                let sent = &mut self.truth.lock().peers[number as usize].sent;
                *sent -= u32::from(!counts);
                *sent - u32::from(counts)
            };
            let key = (self.below(u64::from(u32::MAX)) as u32).to_be_bytes();
            let Some(web) = &mut self.peers[index].web else { return };
            let key = web.is_client().then_some(key);
            web.says_raw(&message(&frame, is_sent_as_text(sent), key));
        }
    }

    /// A peer that speaks WebSocket does something.
    pub(super) fn act_on_web_socket(&mut self, index: usize) {
        let number = self.peers[index].number;
        let (is_mute, is_over) = {
            let truth = self.truth.lock();
            let facts = &truth.peers[number as usize];
            let web = facts.web.as_ref();
            let has_closed = web.is_some_and(|web| web.closed_with.is_some());
            (web.is_some_and(|web| web.is_mute), has_closed || facts.refused.is_some())
        };
        if is_mute {
            return;
        }
        if is_over {
            match self.below(8) {
                0 => self.end_stream(index),
                1 if self.simulation.fires(Fault::WebSocketLingerCut) => self.cuts(index),
                _ => {}
            }
            return;
        }
        if !self.peers[index].web.as_ref().is_some_and(WebPeer::may_say) {
            if self.one_in(64) {
                self.leave(index);
            }
            return;
        }
        let most = self.acts(index);
        self.say_web_socket(index, most);
        if let Some(index) = self.index_of(number) {
            self.may_close(index);
        }
    }

    /// What it says. Returns how large the pieces are that it comes in.
    fn acts(&mut self, index: usize) -> Option<u64> {
        let (simulation, number) = (self.simulation, self.peers[index].number);
        if simulation.fires(Fault::WebSocketMute) {
            let Some(web) = &mut self.peers[index].web else { return None };
            web.is_mute_now();
            self.truth.lock().peers[number as usize]
                .web
                .iter_mut()
                .for_each(|of| of.is_mute = true);
            return None;
        }
        if simulation.fires(Fault::WebSocketPingFlood) {
            self.floods(index);
        }
        if simulation.fires(Fault::WebSocketClosesCross) {
            let id = self.truth.lock().peers[number as usize].session;
            if let Some(id) = id {
                self.truth.lock().asks_to_close(id, Close::Drain);
                self.handle.close(id, Close::Drain);
            }
            self.peers[index].requests_left = 0;
        }
        let merges = simulation.fires(Fault::WebSocketFramesMerged);
        let count = if merges { 2 + self.below(30) } else { 1 };
        for _ in 0..count {
            self.says_request(index);
        }
        if simulation.fires(Fault::WebSocketFrameInvalid) {
            self.breaks_a_rule(index);
        }
        let batches = simulation.figures().batches;
        let played = &mut self.peers[index];
        played.asked_at_batch.get_or_insert(batches);
        played.requests_left = played.requests_left.saturating_sub(count as u32);
        match () {
            () if simulation.fires(Fault::WebSocketFramesCut) => Some(1),
            () if self.one_in(4) => Some([3, 40, 5_000][self.below(3) as usize]),
            () => None,
        }
    }

    fn says_request(&mut self, index: usize) {
        let number = self.peers[index].number;
        let frame = match self.one_in(100) {
            true => self.request(number, action::ANSWER, 9, FRAME_BYTES_MAX),
            false => self.some_request(number),
        };
        let as_text = is_sent_as_text(self.truth.lock().peers[number as usize].sent - 1);
        let fragments = self.simulation.fires(Fault::WebSocketFragments);
        let sizes: Vec<usize> = match fragments {
            true => {
                (0..1 + self.below(12)).map(|_| [0, 1, 1, 7, 300][self.below(5) as usize]).collect()
            }
            false => Vec::new(),
        };
        let between = fragments && self.simulation.fires(Fault::WebSocketControlBetween);
        let Some(web) = &mut self.peers[index].web else { return };
        if fragments {
            web.says_in_fragments(&frame, as_text, &sizes, between);
        } else {
            web.says(&frame, as_text);
        }
        self.notes_pings(index);
    }

    fn notes_pings(&self, index: usize) {
        let Played { number, web: Some(web), .. } = &self.peers[index] else { return };
        let mut truth = self.truth.lock();
        truth.peers[*number as usize].web.iter_mut().for_each(|of| of.pings = web.pings_said());
    }

    /// It stops reading, and asks for pongs that it does not read.
    fn floods(&mut self, index: usize) {
        let (count, number) = (1 + self.below(PINGS_MAX) as usize, self.peers[index].number);
        let played = &mut self.peers[index];
        if played.pace.is_none() {
            played.peer.stall(true);
            self.truth.lock().peers[number as usize].stalls(true);
        }
        self.says_request(index); // which makes the control frames before it count no more
        let Some(web) = &mut self.peers[index].web else { return };
        web.pings(count);
        self.notes_pings(index);
    }

    fn breaks_a_rule(&mut self, index: usize) {
        let number = self.peers[index].number;
        let (way, key) = (self.below(WAYS), (self.below(u64::from(u32::MAX)) as u32).to_be_bytes());
        let Some(web) = &mut self.peers[index].web else { return };
        let (bytes, refusal) = invalid(way, web.is_client().then_some(key));
        web.says_raw(&bytes);
        self.truth.lock().peers[number as usize].refused = Some(refusal);
        if self.one_in(2) && !matches!(refusal, Refusal::TooLarge { .. }) {
            self.says_requests_unasked(index, false);
        }
    }

    /// It has said enough, perhaps.
    fn may_close(&mut self, index: usize) {
        let number = self.peers[index].number;
        let facts = self.truth.lock().peers[number as usize].refused;
        if self.peers[index].requests_left > 0 || facts.is_some() {
            return;
        }
        if self.simulation.fires(Fault::WebSocketEndsUnsaid) {
            return self.end_stream(index);
        }
        let code = Some(CODES[self.below(8) as usize]).filter(|_| !self.one_in(8));
        let Some(web) = &mut self.peers[index].web else { return };
        if !web.may_say() {
            return;
        }
        web.closes(code);
        self.truth.lock().peer_closes_with(number, code);
        if self.simulation.fires(Fault::WebSocketGoesOn) {
            self.says_requests_unasked(index, false);
        }
        self.say_web_socket(index, None);
        if let Some(index) = self.index_of(number)
            && self.one_in(2)
        {
            self.end_stream(index);
        }
    }

    /// It resets, where its protocol says that it is to wait.
    fn cuts(&mut self, index: usize) {
        let number = self.peers[index].number;
        self.truth.lock().peers[number as usize].cut = true;
        self.remove_peer(index).peer.reset();
    }

    /// A peer says what it wants to say, in pieces of less than so many bytes, with time between them. What it wants to
    /// say meanwhile comes behind.
    fn say_web_socket(&mut self, index: usize, most: Option<u64>) {
        let (key, number) = (self.peers[index].peer.key(), self.peers[index].number);
        let mut bytes = self.take_out(index);
        if !bytes.is_empty() && self.simulation.fires(Fault::BytesCorrupted) {
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.below(8);
            self.truth.lock().peers[number as usize].corrupt = true;
        }
        let Some(most) = most else { return self.say(index, &bytes) };
        self.peers[index].is_speaking = true;
        for _ in 0..PIECES_MAX {
            let Some(index) = self.by_key.get(&key).copied() else { return };
            bytes.extend(self.take_out(index));
            let piece = (1 + self.below(most) as usize).min(bytes.len());
            self.say(index, &bytes[..piece]);
            bytes.drain(..piece);
            if bytes.is_empty() {
                break;
            }
            let gap = self.below(self.plan.gap.as_nanos() as u64 / 8);
            self.let_pass(Duration::from_nanos(gap));
        }
        let Some(index) = self.by_key.get(&key).copied() else { return };
        bytes.extend(self.take_out(index));
        self.say(index, &bytes);
        self.peers[index].is_speaking = false;
    }

    fn take_out(&mut self, index: usize) -> Vec<u8> {
        self.peers[index].web.as_mut().map(WebPeer::take_out).unwrap_or_default()
    }

    /// Something came for it.
    pub(super) fn take_news_of_web_socket(&mut self, index: usize) {
        let Played { peer, number, web, is_speaking, asked_at_batch, .. } = &mut self.peers[index];
        let (number, is_speaking) = (*number, *is_speaking);
        let Some(web) = web else { return };
        let was_standing = web.stands();
        let heard = web.hears(&peer.received(), peer.is_ended());
        let begins = !was_standing && web.stands() && !web.is_client();
        let is_closed = heard.iter().any(|one| matches!(one, Heard::Close(_)));
        {
            let mut truth = self.truth.lock();
            let before = truth.frames;
            heard.into_iter().for_each(|one| truth.peer_hears(number, one));
            if truth.frames > before
                && let Some(asked) = asked_at_batch.take()
            {
                let waited = self.simulation.figures().batches - asked;
                self.batches_max = self.batches_max.max(waited);
            }
        }
        if is_closed && self.simulation.fires(Fault::WebSocketLingerCut) {
            return self.cuts(index);
        }
        if begins && self.simulation.fires(Fault::WebSocketHeadMerged) {
            self.says_request(index);
        }
        if !is_speaking {
            let most = begins && self.simulation.fires(Fault::WebSocketHeadDribbled);
            if most {
                // Not here, where time is passing already: byte by byte, all the same.
                let out = self.take_out(index);
                out.iter().for_each(|byte| self.say(index, std::slice::from_ref(byte)));
            } else {
                let out = self.take_out(index);
                self.say(index, &out);
            }
        }
        self.sees_ends(index);
    }
}
