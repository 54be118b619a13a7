//! The loop: take a batch of completions, then attend once to every session that something changed for.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use protocol::{Arguments, FRAME_BYTES, HEADER_BYTES, Hello, Workload, run_sender};
use ring::{Completion, Ring};

use crate::mail::{Letter, Mailbox};
use crate::send_queue::{Gathered, Piece};
use crate::session::{Kind, Session};

const ENTRIES: u32 = 4096;
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 16 * 1024;
/// With more lent than this, what is received is copied: stuck sends must not starve the others.
const LENT_MAX: usize = BUFFERS as usize / 2;
/// With more waiting than this, nothing more is received from a session.
const OWN_BYTES_MAX: usize = 1024 * 1024;

pub(crate) struct Server {
    ring: Ring,
    listener: RawFd,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    noted: Vec<usize>,
    lent: usize,
    spare: Vec<Gathered>,
    arguments: Arguments,
    /// The slots of those who have said hello.
    members: Vec<usize>,
    /// For `send-by-id`: slots by the index that a session said in its hello.
    slots: Vec<usize>,
    mailbox: Arc<Mailbox>,
    letters: Vec<Letter>,
    wake_word: Box<u64>,
}

impl Server {
    pub(crate) fn new(arguments: Arguments, listener: RawFd) -> io::Result<Server> {
        Ok(Server {
            ring: Ring::new(ENTRIES, BUFFERS, BUFFER_BYTES)?,
            listener,
            sessions: Vec::new(),
            free: Vec::new(),
            noted: Vec::new(),
            lent: 0,
            spare: Vec::new(),
            slots: vec![0; arguments.sessions],
            arguments,
            members: Vec::new(),
            mailbox: Arc::new(Mailbox::new()?),
            letters: Vec::new(),
            wake_word: Box::new(0),
        })
    }

    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.ring.accept(self.listener, Kind::Accept.token(0))?;
        let by_mail = self.arguments.workload == Workload::SendById;
        if by_mail {
            self.await_wake()?;
        }
        let mut completions = Vec::with_capacity(ENTRIES as usize);
        loop {
            let patience = (by_mail && !self.mailbox.may_sleep()).then_some(Duration::ZERO);
            self.ring.wait(patience, &mut completions)?;
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            if by_mail {
                self.take_mail();
            }
            while let Some(slot) = self.noted.pop() {
                self.attend(slot)?;
            }
        }
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        match Kind::of(completion.token) {
            (Kind::Accept, _) => self.accepted(completion)?,
            (Kind::Receive, slot) => self.received(slot, completion),
            (Kind::Send, slot) => self.sent(slot, completion.result),
            (Kind::Wake, _) => self.await_wake()?,
            (Kind::Cancel, _) => {}
        }
        Ok(())
    }

    fn accepted(&mut self, completion: Completion) -> io::Result<()> {
        if completion.result >= 0 {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.sessions.push(None);
                self.sessions.len() - 1
            });
            self.sessions[slot] = Some(Session::new(completion.result));
            self.note(slot);
        }
        if completion.more() {
            return Ok(());
        }
        self.ring.accept(self.listener, Kind::Accept.token(0))
    }

    fn received(&mut self, slot: usize, completion: Completion) {
        const NO_BUFFER: i32 = -libc::ENOBUFS;
        const CANCELLED: i32 = -libc::ECANCELED;
        let Some(session) = &mut self.sessions[slot] else { return };
        session.receiving = completion.more();
        match (completion.buffer(), completion.result) {
            (Some(buffer), result) if result > 0 => self.take(slot, buffer, result as usize),
            (Some(buffer), _) => {
                self.ring.give_back(buffer);
                session.ended = true;
            }
            // When this batch is done, at least half of the buffers are back.
            (None, NO_BUFFER | CANCELLED) => {}
            (None, 0) => session.ended = true,
            (None, _) => session.failed = true,
        }
        self.note_if_due(slot);
    }

    /// A session whose receive goes on and that has nothing to send needs no attention.
    fn note_if_due(&mut self, slot: usize) {
        let Some(session) = &self.sessions[slot] else { return };
        let idle = session.receiving && session.queue.is_empty() && !session.failed;
        if !idle {
            self.note(slot);
        }
    }

    /// What has come in a lent buffer.
    fn take(&mut self, slot: usize, buffer: u16, bytes: usize) {
        let Some(session) = &mut self.sessions[slot] else { return };
        if self.arguments.workload != Workload::Echo {
            let mut frames = Vec::new();
            let piece = self.ring.lent(buffer, bytes);
            let cut = session.cutter.cut(piece, |payload| frames.push(payload.to_vec()));
            session.failed |= cut.is_err();
            self.ring.give_back(buffer);
            for payload in frames {
                self.frame(slot, &payload);
            }
        } else if self.lent < LENT_MAX {
            self.lent += 1;
            session.queue.push(Piece::Lent { buffer, bytes });
        } else {
            session.queue.push_copy(self.ring.lent(buffer, bytes));
            self.ring.give_back(buffer);
        }
    }

    fn frame(&mut self, slot: usize, payload: &[u8]) {
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        if let Some(index) = Hello::read(payload) {
            self.push(slot, Piece::Own(frame));
            self.greeted(slot, index as usize);
        } else {
            let frame: Rc<[u8]> = frame.into();
            for index in 0..self.members.len() {
                self.push(self.members[index], Piece::Shared(Rc::clone(&frame)));
            }
        }
    }

    fn greeted(&mut self, slot: usize, index: usize) {
        if self.arguments.workload == Workload::Broadcast {
            return self.members.push(slot);
        }
        // Completions of several sessions come in any order.
        let Some(place) = self.slots.get_mut(index) else { return };
        *place = slot;
        self.members.push(slot);
        if self.members.len() == self.arguments.sessions {
            for sender in 0..self.arguments.senders {
                let (arguments, slots) = (self.arguments.clone(), self.slots.clone());
                let mailbox = Arc::clone(&self.mailbox);
                thread::spawn(move || {
                    run_sender(&arguments, sender as u32, |index, frame| {
                        mailbox.send(slots[index], frame)
                    });
                });
            }
        }
    }

    fn push(&mut self, slot: usize, piece: Piece) {
        let Some(session) = &mut self.sessions[slot] else { return };
        match piece {
            Piece::Own(bytes) => session.queue.push_copy(&bytes),
            piece => session.queue.push(piece),
        }
        self.note(slot);
    }

    fn take_mail(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        self.mailbox.take(&mut letters);
        for (slot, frame) in letters.drain(..) {
            if let Some(session) = &mut self.sessions[slot as usize] {
                session.queue.push_copy(&frame);
                self.note(slot as usize);
            }
        }
        self.letters = letters;
    }

    fn sent(&mut self, slot: usize, result: i32) {
        let Some(session) = &mut self.sessions[slot] else { return };
        session.failed |= result < 0;
        if self.arguments.workload == Workload::SendById {
            self.mailbox.left(result.max(0) as usize / FRAME_BYTES);
        }
        let lent = &mut self.lent;
        let bytes = result.max(0) as usize;
        session.queue.sent(bytes, &mut self.ring, &mut self.spare, || *lent -= 1);
        let waiting = session.paused || session.ended || session.failed;
        if waiting || !session.queue.is_empty() || !session.receiving {
            self.note(slot);
        }
    }

    fn note(&mut self, slot: usize) {
        if let Some(session) = &mut self.sessions[slot]
            && !session.noted
        {
            session.noted = true;
            self.noted.push(slot);
        }
    }

    /// From what is outstanding to what should be.
    fn attend(&mut self, slot: usize) -> io::Result<()> {
        let Some(session) = &mut self.sessions[slot] else { return Ok(()) };
        session.noted = false;
        if session.failed || (session.ended && session.queue.is_empty()) {
            return self.end(slot);
        }
        if !session.queue.is_empty() && !session.queue.is_sending() {
            let token = Kind::Send.token(slot);
            session.queue.post(&mut self.ring, session.socket, token, &mut self.spare)?;
        }
        if session.queue.own_bytes > OWN_BYTES_MAX && !session.paused {
            session.paused = true;
            if session.receiving {
                self.ring.cancel(Kind::Receive.token(slot), Kind::Cancel.token(slot))?;
            }
        } else if session.paused && session.queue.own_bytes < OWN_BYTES_MAX / 2 {
            session.paused = false;
        }
        if !session.receiving && !session.paused && !session.ended {
            session.receiving = true;
            self.ring.receive(session.socket, Kind::Receive.token(slot))?;
        }
        Ok(())
    }

    /// Closes the socket when nothing is outstanding any more.
    fn end(&mut self, slot: usize) -> io::Result<()> {
        let Some(session) = &mut self.sessions[slot] else { return Ok(()) };
        if session.receiving || session.queue.is_sending() {
            session.failed = true;
            // SAFETY: no memory is passed. Its operations complete by it.
            unsafe { libc::shutdown(session.socket, libc::SHUT_RDWR) };
            return Ok(());
        }
        // Whatever lent buffers still wait go back.
        let lent = &mut self.lent;
        session.queue.sent(usize::MAX / 2, &mut self.ring, &mut self.spare, || *lent -= 1);
        // SAFETY: the socket is this session's, and nothing is outstanding for it.
        unsafe { libc::close(session.socket) };
        self.sessions[slot] = None;
        self.free.push(slot);
        if self.arguments.workload == Workload::Broadcast {
            self.members.retain(|member| *member != slot);
        }
        Ok(())
    }

    fn await_wake(&mut self) -> io::Result<()> {
        let word = &raw mut *self.wake_word;
        // SAFETY: the word is boxed, and lives as long as the server.
        unsafe { self.ring.read_word(self.mailbox.wake_descriptor(), word, Kind::Wake.token(0)) }
    }
}
