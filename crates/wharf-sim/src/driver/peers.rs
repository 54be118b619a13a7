//! What peers do: connect, ask, misbehave, leave, and read what arrives.

use std::net::SocketAddr;
use std::time::Duration;

use wharf::simulation::for_wharf_sim::{take_reads, watch_reads};
use wharf::simulation::{Fault, Peer, PeerListener};
use wharf::{Close, SessionId, Target};

use super::state::{DRIVER, Driver, PEERS, Played, WEB_PEERS};
use crate::forms::Form;
use crate::frames::{FRAME_BYTES_MAX, Request, cut_frames};
use crate::scenario::Scenario;
use crate::senders;
use crate::sending::send;
use crate::town::{Known, action};

impl Driver<'_> {
    pub(super) fn new_peer(&mut self) {
        if self.listener.is_some()
            && self.one_in(2)
            && let Some(id) = self.connect()
        {
            self.truth.lock().connects(id);
            self.may_send_early(id);
        }
        self.accept();
        if self.case.scenario == Scenario::Connect && !self.one_in(8) {
            return;
        }
        let (address, form) = self.any_form();
        if let Some(peer) = self.simulation.connect(address) {
            let number = {
                let mut truth = self.truth.lock();
                let number = truth.new_peer(Some(peer.address()));
                truth.peers[number as usize].form = form;
                number
            };
            self.add_peer(peer, number, form);
            if form.is_some_and(Form::is_web) {
                self.asks_for_web_socket(self.peers.len() - 1);
            }
        }
    }

    /// A session that the server begins, with a context.
    fn connect(&mut self) -> Option<SessionId> {
        let with_web_socket = self.web_listener.is_some() && self.one_in(2);
        let web = self.plan.framings.as_ref().and_then(|framings| framings.web.as_ref());
        let settings = web.filter(|_| with_web_socket).map(|web| web.settings(Form::WebCalls));
        let known = Known::new(&self.truth, settings.as_ref().map(|_| Form::WebCalls));
        let number = known.number;
        let target = match settings {
            None => Target::new(SocketAddr::from(PEERS)),
            Some(web) => Target::new(SocketAddr::from(WEB_PEERS)).transport(web).path("/play?x=1"),
        };
        let id = self.handle.connect(target.context(known)).ok()?;
        self.truth.lock().has_context(id, Some(number));
        if with_web_socket {
            self.truth.lock().connects_with_web_socket(id);
        }
        Some(id)
    }

    /// Those that the server has connected to.
    pub(super) fn accept(&mut self) {
        while let Some(peer) = self.listener.as_ref().and_then(PeerListener::accept) {
            let number = {
                let mut truth = self.truth.lock();
                let number = truth.new_peer(None);
                truth.peers[number as usize].has_not_read();
                number
            };
            let form = self.plan.framings.as_ref().map(|framings| framings.forms[0]);
            self.add_peer(peer, number, form);
        }
        while let Some(peer) = self.web_listener.as_ref().and_then(PeerListener::accept) {
            let number = {
                let mut truth = self.truth.lock();
                let number = truth.new_peer(None);
                truth.peers[number as usize].has_not_read();
                number
            };
            self.add_peer(peer, number, Some(Form::WebCalls));
            self.answers_with_web_socket(self.peers.len() - 1);
        }
    }

    /// Sends to a session that is being connected, and may ask it to drain at once.
    fn may_send_early(&mut self, id: SessionId) {
        if !self.one_in(3) {
            return;
        }
        self.truth.lock().is_sent_to_early(id);
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        send(&self.truth, &self.handle, id, DRIVER, bytes, None);
        if self.plan.has_parting() && self.one_in(2) {
            let (what, bytes) = (self.below(3), self.below(1 << 16) as usize);
            senders::part(&self.truth, &self.handle, &self.plan, id, what, bytes);
        } else if self.one_in(2) {
            self.truth.lock().asks_to_close(id, Close::Drain);
            self.handle.close(id, Close::Drain);
        }
    }

    /// Some peers leave together, and as many come as there may be.
    pub(super) fn crowd(&mut self, peers: usize) {
        for _ in 0..self.below(self.peers.len() as u64 + 1) {
            let index = self.below(self.peers.len() as u64) as usize;
            self.leave(index);
        }
        for _ in self.peers.len()..peers {
            self.new_peer();
        }
    }

    pub(super) fn add_peer(&mut self, peer: Peer, number: u32, form: Option<Form>) {
        let requests_left = match self.plan.lifetime_frames {
            0 => u32::MAX,
            frames => 1 + self.below(u64::from(frames) * 2) as u32,
        };
        watch_reads(&peer);
        self.by_key.insert(peer.key(), self.peers.len());
        let (stream, asked_at_batch) = (Vec::new(), None);
        let now = self.simulation.now();
        let behind = self.plan.behind.as_ref().filter(|_| !self.truth.lock().senders_end);
        let pace = behind.map(|behind| behind.pace(&mut self.random, now));
        let speaker = form.filter(|form| !form.is_web()).map(|form| self.speaker(form));
        let (web, is_speaking) = (None, false);
        self.peers.push(Played {
            peer,
            number,
            stream,
            requests_left,
            asked_at_batch,
            pace,
            speaker,
            web,
            is_speaking,
        });
    }

    pub(super) fn remove_peer(&mut self, index: usize) -> Played {
        self.note_reads(index);
        let played = self.peers.swap_remove(index);
        self.by_key.remove(&played.peer.key());
        if let Some(moved) = self.peers.get(index) {
            self.by_key.insert(moved.peer.key(), index);
        }
        played
    }

    /// A peer does something.
    pub(super) fn act(&mut self, index: usize) {
        if self.plan.is_rough && self.does_harm(index) {
            return;
        }
        let number = self.peers[index].number;
        let (ended, got_end) = {
            let truth = self.truth.lock();
            let facts = &truth.peers[number as usize];
            (facts.ended || facts.vanished, facts.got_end)
        };
        if ended {
            // What of the server's direction is still to come is read for longer, if it may be much.
            if self.one_in(if self.plan.halves { 16 } else { 4 }) {
                self.leave(index);
            }
            return;
        }
        if got_end && self.one_in(8) {
            return self.leave(index);
        }
        if self.peers[index].web.is_some() {
            return self.act_on_web_socket(index);
        }
        let count = if self.one_in(10) { 1 + self.below(20) } else { 1 };
        let mut bytes = Vec::new();
        match self.peers[index].speaker.take() {
            None => (0..count).for_each(|_| self.write_request(number, &mut bytes)),
            Some(mut speaker) => {
                self.speak(number, &mut speaker, count, &mut bytes);
                self.peers[index].speaker = Some(speaker);
            }
        }
        if bytes.is_empty() {
            return; // it waits for a change, or has nothing more to say
        }
        if self.simulation.fires(Fault::BytesCorrupted) {
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.below(8);
            self.truth.lock().peers[number as usize].corrupt = true;
        }
        let batches = self.simulation.figures().batches;
        let played = &mut self.peers[index];
        played.asked_at_batch.get_or_insert(batches);
        played.requests_left = played.requests_left.saturating_sub(count as u32);
        let leaves = played.requests_left == 0 || self.plan.halves && self.one_in(32);
        if self.plan.framings.is_some() && self.one_in(3) {
            self.say_in_pieces(index, &bytes);
        } else if self.plan.is_rough && self.one_in(3) {
            // In two parts, with time between them.
            let cut = self.below(bytes.len() as u64) as usize;
            self.say(index, &bytes[..cut]);
            let key = self.peers[index].peer.key();
            let gap = self.below(self.plan.gap.as_nanos() as u64 * 2);
            self.let_pass(Duration::from_nanos(gap));
            if let Some(index) = self.by_key.get(&key) {
                self.say(*index, &bytes[cut..]);
            }
        } else {
            self.say(index, &bytes);
        }
        if leaves && let Some(index) = self.index_of(number) {
            self.end_stream(index);
        }
    }

    pub(super) fn say(&mut self, index: usize, bytes: &[u8]) {
        let Played { peer, number, .. } = &self.peers[index];
        if !bytes.is_empty() {
            self.truth.lock().peers[*number as usize].speech.goes_on();
        }
        peer.send(bytes);
    }

    pub(super) fn index_of(&self, number: u32) -> Option<usize> {
        self.peers.iter().position(|played| played.number == number)
    }

    fn write_request(&mut self, peer: u32, into: &mut Vec<u8>) {
        let frame = self.some_request(peer);
        into.extend((frame.len() as u32).to_be_bytes());
        into.extend(frame);
    }

    pub(super) fn some_request(&mut self, peer: u32) -> Vec<u8> {
        let only_asks =
            matches!(self.case.scenario, Scenario::Calm | Scenario::Echo | Scenario::Idle);
        let joins = matches!(self.case.scenario, Scenario::Rooms | Scenario::Behind)
            || self.plan.framings.is_some() && self.one_in(2);
        let action = if only_asks || self.one_in(2) && !joins {
            action::ANSWER
        } else if joins && !self.one_in(4) {
            [action::JOIN, action::LEAVE, action::PUBLISH, action::PUBLISH][self.below(4) as usize]
        } else {
            let (any, closes) = (self.below(action::COUNT) as u8, self.one_in(20));
            let is_close = matches!(any, action::CLOSE | action::CLOSE_OTHER);
            if is_close && !closes { action::LISTEN } else { any }
        };
        let action = self.instead(action);
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        let argument = self.below(self.plan.request_bytes.min(FRAME_BYTES_MAX) as u64) as u16;
        self.request(peer, action, argument, bytes)
    }

    /// The next request of a peer.
    pub(super) fn request(&self, peer: u32, action: u8, argument: u16, bytes: usize) -> Vec<u8> {
        let (number, shape) = {
            let mut truth = self.truth.lock();
            let sent = &mut truth.peers[peer as usize].sent;
            *sent += 1;
            (*sent - 1, truth.shape)
        };
        let mut frame = Vec::new();
        Request { peer, number, action, argument }.write(bytes, shape, &mut frame);
        frame
    }

    /// What a request asks for in this scenario, instead of this.
    fn instead(&mut self, asked: u8) -> u8 {
        let is_published = matches!(asked, action::JOIN | action::PUBLISH | action::BROADCAST);
        if is_published && !self.plan.publishes {
            return action::LISTEN;
        }
        if self.plan.notes && self.one_in(4) {
            return action::TELL_OTHER + self.below(4) as u8;
        }
        if !self.plan.has_parting() || !self.one_in(4) {
            return asked;
        }
        let ends = self.one_in(8);
        match self.below(3) {
            0 if self.plan.halves && ends => [action::FINISH, action::FINISH_OTHER][self.coin()],
            1 if self.plan.farewells && ends => [action::KICK, action::KICK_OTHER][self.coin()],
            2 if self.plan.room => {
                let among = u64::from(action::RESUME_OTHER - action::ASK_FOR_ROOM) + 1;
                action::ASK_FOR_ROOM + self.below(among) as u8
            }
            _ => asked,
        }
    }

    fn coin(&mut self) -> usize {
        self.below(2) as usize
    }

    /// What no good peer does. True: it has done it, and nothing else.
    fn does_harm(&mut self, index: usize) -> bool {
        let simulation = self.simulation;
        let number = self.peers[index].number as usize;
        if self.plan.behind.is_some() {
            // They read at their own paces.
        } else if simulation.fires(Fault::PeerStalls) {
            self.peers[index].peer.stall(true);
            self.truth.lock().peers[number].stalls(true);
        } else if self.truth.lock().peers[number].stalled && self.one_in(8) {
            self.peers[index].peer.stall(false);
            self.truth.lock().peers[number].stalls(false);
        }
        if simulation.fires(Fault::PeerHalfCloses) {
            self.end_stream(index);
            return true;
        }
        if simulation.fires(Fault::PeerVanishes) {
            self.truth.lock().peers[number].vanished = true;
            self.peers[index].peer.vanish();
            self.remove_peer(index);
            return true;
        }
        if simulation.fires(Fault::PeerResets) {
            self.truth.lock().peers[number].cut = true;
            let played = self.remove_peer(index);
            played.peer.reset();
            return true;
        }
        if simulation.fires(Fault::PeerClosesUnread) {
            self.truth.lock().peers[number].cut = true;
            let played = self.remove_peer(index);
            played.peer.close_now();
            return true;
        }
        false
    }

    pub(super) fn end_stream(&mut self, index: usize) {
        self.truth.lock().peers[self.peers[index].number as usize].ended = true;
        self.peers[index].peer.shutdown();
    }

    /// A peer closes, in order as far as it can tell.
    pub(super) fn leave(&mut self, index: usize) {
        let played = self.remove_peer(index);
        let facts = &mut self.truth.lock().peers[played.number as usize];
        facts.ended = true;
        // What comes after it has closed is answered by a reset.
        facts.cut = true;
    }

    /// What a peer has read since the last time.
    pub(super) fn note_reads(&self, index: usize) {
        let Played { peer, number, .. } = &self.peers[index];
        let reads = take_reads(peer);
        self.truth.lock().peers[*number as usize].reads.extend(reads);
    }

    /// Something came for a peer: messages, or an end.
    pub(super) fn take_news(&mut self, key: u64) {
        let Some(index) = self.by_key.get(&key).copied() else { return };
        self.note_reads(index);
        if self.peers[index].web.is_some() {
            return self.take_news_of_web_socket(index);
        }
        let played = &mut self.peers[index];
        played.stream.extend(played.peer.received());
        let (number, mut stream) = (played.number, std::mem::take(&mut played.stream));
        {
            let mut truth = self.truth.lock();
            let before = truth.frames;
            match &mut played.speaker {
                None => cut_frames(&mut stream, |frame| truth.peer_gets(number, frame, 0)),
                Some(speaker) => {
                    let get = |frame: &[u8], changes| truth.peer_gets(number, frame, changes);
                    let is_right = speaker.hear(&mut stream, get);
                    truth.hears(number, speaker.hears, is_right);
                }
            }
            if truth.frames > before
                && let Some(asked) = played.asked_at_batch.take()
            {
                let waited = self.simulation.figures().batches - asked;
                self.batches_max = self.batches_max.max(waited);
            }
        }
        self.peers[index].stream = stream;
        self.sees_ends(index);
    }

    /// The end of the server's stream has come, or a reset.
    pub(super) fn sees_ends(&mut self, index: usize) {
        let played = &self.peers[index];
        let number = played.number;
        if played.peer.is_reset() {
            self.remove_peer(index);
            let facts = &mut self.truth.lock().peers[number as usize];
            (facts.cut, facts.saw_end) = (true, true);
        } else if played.peer.is_ended() {
            let ended = {
                let facts = &mut self.truth.lock().peers[number as usize];
                facts.got_end = true;
                facts.ended
            };
            // A peer that has not finished its own direction goes on, if that may be all that has ended.
            if ended || !self.plan.halves {
                self.truth.lock().peers[number as usize].ended = true;
                self.remove_peer(index);
            }
            self.truth.lock().peers[number as usize].saw_end = true;
        }
    }
}
