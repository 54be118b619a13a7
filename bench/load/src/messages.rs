//! Sessions that echo as those of `echo` do, but messages with a head: of a WebSocket, or a length.
//!
//! A client masks. So that this is no work while it is timed, each session has a few messages ready, masked with keys
//! of their own, and sends them in turn. An answer is checked where it came: its head, and each byte.

use std::collections::VecDeque;

use protocol::{Form, Pattern, now_ns};

use crate::Failure;
use crate::echo::Echoes;
use crate::fleet::{Client, Outbox};
use crate::opening::Opening;
use crate::report::Tally;
use crate::window::Measured;

/// How many messages a session has ready.
const READY: usize = 4;

pub(crate) struct Messages {
    form: Form,
    run_seed: u64,
    message_bytes: usize,
    /// What stands before each answer.
    answer_head: Vec<u8>,
    streams: Vec<Stream>,
    /// Upgrades and messages that are not answered yet.
    outstanding: usize,
    /// Each answer is followed by another message.
    looping: bool,
    tally: Tally,
}

struct Stream {
    opening: Opening,
    pattern: Pattern,
    /// On the wire.
    ready: [Vec<u8>; READY],
    sent: usize,
    answered: usize,
    /// What has come of the next answer, its head too.
    answer_bytes: usize,
    /// When each message that is on its way was sent.
    sent_ns: VecDeque<u64>,
}

impl Messages {
    pub(crate) fn new(form: Form, message_bytes: usize) -> Messages {
        let (mut answer_head, payload) = (Vec::new(), vec![0; message_bytes]);
        form.append_answer(&payload, &mut answer_head);
        answer_head.truncate(answer_head.len() - message_bytes);
        Messages {
            form,
            run_seed: now_ns(),
            message_bytes,
            answer_head,
            streams: Vec::new(),
            outstanding: 0,
            looping: false,
            tally: Tally::new(),
        }
    }

    fn send(&mut self, out: &mut Outbox, session: usize) {
        let stream = &mut self.streams[session];
        stream.sent_ns.push_back(out.now_ns);
        out.queue(session).extend_from_slice(&stream.ready[stream.sent % READY]);
        stream.sent += 1;
        self.outstanding += 1;
    }
}

impl Stream {
    fn new(form: Form, pattern: Pattern, message_bytes: usize, opening: Opening) -> Stream {
        let ready = std::array::from_fn(|index| {
            let (mut payload, mut frame) = (Vec::new(), Vec::new());
            pattern.append((index * message_bytes) as u64, message_bytes, &mut payload);
            let key = [0xa5, 0x3c, 0x96, 0x5a].map(|byte: u8| byte.wrapping_add(index as u8));
            form.append_question(&payload, key, &mut frame);
            frame
        });
        let sent_ns = VecDeque::new();
        Stream { opening, pattern, ready, sent: 0, answered: 0, answer_bytes: 0, sent_ns }
    }

    /// Takes bytes of one answer. Returns how many.
    fn take(&mut self, head: &[u8], message_bytes: usize, bytes: &[u8]) -> Result<usize, Failure> {
        if self.answered == self.sent {
            return Err("more came than was sent".into());
        }
        let came = self.answer_bytes;
        let (count, right) = match came.checked_sub(head.len()) {
            None => {
                let due = &head[came..];
                let count = due.len().min(bytes.len());
                (count, due[..count] == bytes[..count])
            }
            Some(place) => {
                let count = (message_bytes - place).min(bytes.len());
                let position = self.answered % READY * message_bytes + place;
                (count, self.pattern.matches(position as u64, &bytes[..count]))
            }
        };
        if !right {
            return Err(format!("wrong bytes in answer {} after {came}", self.answered).into());
        }
        self.answer_bytes += count;
        if self.answer_bytes == head.len() + message_bytes {
            (self.answer_bytes, self.answered) = (0, self.answered + 1);
        }
        Ok(count)
    }
}

impl Client for Messages {
    fn received(
        &mut self,
        out: &mut Outbox,
        session: usize,
        mut bytes: &[u8],
    ) -> Result<(), Failure> {
        let stream = &mut self.streams[session];
        let blame = |failure: Failure| Failure::from(format!("session {session}: {failure}"));
        if !stream.opening.is_over() {
            if stream.opening.take(bytes).map_err(blame)? {
                self.outstanding -= 1;
                self.send(out, session);
            }
            return Ok(());
        }
        let before = stream.answered;
        while !bytes.is_empty() {
            let taken = stream.take(&self.answer_head, self.message_bytes, bytes);
            bytes = &bytes[taken.map_err(blame)?..];
        }
        let answered = stream.answered - before;
        for sent_ns in stream.sent_ns.drain(..answered) {
            self.tally.count(1, out.now_ns.saturating_sub(sent_ns));
        }
        self.outstanding -= answered;
        if self.looping {
            for _ in 0..answered {
                self.send(out, session);
            }
        }
        Ok(())
    }
}

impl Echoes for Messages {
    fn sessions(&self) -> usize {
        self.streams.len()
    }

    fn begin(&mut self, out: &mut Outbox, session: usize) {
        assert_eq!(session, self.streams.len(), "there are no others");
        let pattern = Pattern::of_session(self.run_seed, session as u64);
        let opening = Opening::begin(self.form, out.queue(session));
        let is_over = opening.is_over();
        self.streams.push(Stream::new(self.form, pattern, self.message_bytes, opening));
        if is_over {
            self.send(out, session);
        } else {
            self.outstanding += 1;
        }
    }

    fn open_loop(&mut self, out: &mut Outbox, depth: usize) {
        self.looping = true;
        for session in 0..self.streams.len() {
            for _ in 0..depth {
                self.send(out, session);
            }
        }
    }

    fn send_each(&mut self, out: &mut Outbox) {
        for session in 0..self.streams.len() {
            self.send(out, session);
        }
    }
}

impl Measured for Messages {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn finish(&mut self) {
        self.looping = false;
    }

    fn is_finished(&self) -> bool {
        self.outstanding == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(form: Form) -> (Stream, Vec<u8>) {
        let pattern = Pattern::of_session(3, 4);
        (Stream::new(form, pattern, 200, Opening::Over), Messages::new(form, 200).answer_head)
    }

    /// All that a server answers to so many messages.
    fn answers(form: Form, messages: usize) -> Vec<u8> {
        let (stream, mut bytes) = (stream(form).0, Vec::new());
        for index in 0..messages {
            let mut payload = Vec::new();
            stream.pattern.append((index % READY * 200) as u64, 200, &mut payload);
            form.append_answer(&payload, &mut bytes);
        }
        bytes
    }

    fn taken(form: Form, bytes: &[u8], step: usize) -> Result<usize, Failure> {
        let (mut stream, head) = stream(form);
        stream.sent = 6;
        for mut piece in bytes.chunks(step) {
            while !piece.is_empty() {
                piece = &piece[stream.take(&head, 200, piece)?..];
            }
        }
        Ok(stream.answered)
    }

    #[test]
    fn right_answers_are_counted_wherever_they_are_cut_and_no_byte_may_be_another() {
        for form in [Form::Length, Form::WebSocket] {
            let good = answers(form, 6);
            for step in [1, 3, 64, 203, 204, 205, good.len()] {
                assert_eq!(taken(form, &good, step).unwrap(), 6);
            }
            for at in 0..good.len() {
                let mut wrong = good.clone();
                wrong[at] ^= 0x10;
                assert!(taken(form, &wrong, 500).is_err(), "{at}");
            }
            assert!(taken(form, &good[204..], 500).is_err(), "the first is lost");
            assert!(taken(form, &answers(form, 7), 500).is_err(), "one too many");
        }
    }

    #[test]
    fn the_masked_are_the_same_messages() {
        let (stream, _) = stream(Form::WebSocket);
        for (index, frame) in stream.ready.iter().enumerate() {
            let (head, key, payload) = (&frame[..4], &frame[4..8], &frame[8..]);
            assert_eq!(head, [0x82, 0x80 | 126, 0, 200]);
            let plain = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
            let plain: Vec<u8> = plain.collect();
            assert!(stream.pattern.matches((index * 200) as u64, &plain));
        }
    }
}
