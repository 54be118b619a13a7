//! Sessions that say hello and then hear frames: of a speaker among us (`broadcast`), or of the
//! server's own threads (`send-by-id`). Each session checks that of every sender it hears every
//! frame that is for it, once and in order.

use std::collections::VecDeque;

use protocol::{Form, Frame, FrameCutter, Hello, now_ns};

use crate::fleet::{Client, Fleet, Outbox, WAVE};
use crate::opening::Opening;
use crate::report::{Figures, Tally};
use crate::window::{Measured, measure, wait_for};
use crate::{Arguments, Failure, Workload};

/// What a WebSocket's frames are masked with.
const KEY: [u8; 4] = [0xa5, 0x3c, 0x96, 0x5a];

pub(crate) fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(arguments.target)?;
    let form = arguments.form.unwrap_or_default();
    let mut members = Members {
        form,
        members: Vec::new(),
        greeted: 0,
        addressed: arguments.workload == Workload::SendById,
        speaker_opening: Opening::Over,
        speaker: None,
        tally: Tally::new(),
    };
    while members.members.len() < arguments.sessions {
        for _ in 0..WAVE.min(arguments.sessions - members.members.len()) {
            let session = fleet.connect()?;
            let opening = Opening::begin(form, fleet.out.queue(session));
            let is_over = opening.is_over();
            let cutter = FrameCutter::new(form);
            members.members.push(Member { opening, cutter, sequences: Vec::new() });
            if is_over {
                members.say_hello(&mut fleet.out, session);
            }
        }
        wait_for(&mut fleet, &mut members, "hello", |it| it.greeted == it.members.len())?;
    }
    if !members.addressed {
        let session = fleet.connect()?;
        members.speaker_opening = Opening::begin(form, fleet.out.queue(session));
        wait_for(&mut fleet, &mut members, "an upgrade", |it| it.speaker_opening.is_over())?;
        let period_ns = (arguments.rate > 0.0).then(|| 1e9 / arguments.rate);
        members.speaker = Some(Speaker {
            form,
            session,
            period_ns,
            start_ns: now_ns(),
            waiting_max: arguments.depth,
            said: 0,
            missing: VecDeque::new(),
            quiet: false,
        });
    }
    let figures = measure(arguments, &mut fleet, &mut members)?;
    match members.members.iter().position(|member| member.sequences.is_empty()) {
        Some(session) => Err(format!("session {session}: heard nothing").into()),
        None => Ok(figures),
    }
}

struct Member {
    opening: Opening,
    cutter: FrameCutter,
    /// The next sequence of each sender.
    sequences: Vec<u64>,
}

/// The session that says to all.
struct Speaker {
    form: Form,
    session: usize,
    /// None: as soon as fewer than `waiting_max` frames wait.
    period_ns: Option<f64>,
    start_ns: u64,
    waiting_max: usize,
    said: u64,
    /// For each frame that is on its way, how many members have not heard it.
    missing: VecDeque<usize>,
    quiet: bool,
}

impl Speaker {
    /// Says what is due, and when the next will be.
    fn act(&mut self, out: &mut Outbox, members: usize) -> Option<u64> {
        while !self.quiet {
            let due_ns = match self.period_ns {
                None if self.missing.len() >= self.waiting_max => return None,
                None => now_ns(),
                Some(period_ns) => self.start_ns + (self.said as f64 * period_ns) as u64,
            };
            if due_ns > now_ns() {
                return Some(due_ns);
            }
            let frame = Frame { sender: 0, recipient: 0, sequence: self.said, due_ns };
            self.form.append_question(&frame.payload(), KEY, out.queue(self.session));
            self.said += 1;
            self.missing.push_back(members);
        }
        None
    }

    /// A member has heard a frame.
    fn heard(&mut self, sequence: u64) -> Result<(), Failure> {
        let first = self.said - self.missing.len() as u64;
        let missing = sequence
            .checked_sub(first)
            .and_then(|index| self.missing.get_mut(index as usize))
            .ok_or("a frame that was not said")?;
        *missing -= 1;
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
        }
        Ok(())
    }
}

struct Members {
    form: Form,
    members: Vec<Member>,
    greeted: usize,
    /// Frames say whom they are for.
    addressed: bool,
    speaker_opening: Opening,
    speaker: Option<Speaker>,
    tally: Tally,
}

impl Members {
    fn say_hello(&self, out: &mut Outbox, session: usize) {
        let hello = Hello::payload(session as u32);
        self.form.append_question(&hello, KEY, out.queue(session));
    }

    fn take(&mut self, now_ns: u64, session: usize, payload: &[u8]) -> Result<(), Failure> {
        if Hello::read(payload) == Some(session as u32) {
            self.greeted += 1;
            return Ok(());
        }
        let frame = Frame::read(payload).ok_or("wrong bytes in a frame")?;
        if self.addressed && frame.recipient as usize != session {
            return Err(format!("a frame for session {}", frame.recipient).into());
        }
        let sequences = &mut self.members[session].sequences;
        let sender = frame.sender as usize;
        if sequences.len() <= sender {
            if sender > 64 {
                return Err(format!("a frame of sender {sender}").into());
            }
            sequences.resize(sender + 1, 0);
        }
        if sequences[sender] != frame.sequence {
            let due = sequences[sender];
            return Err(format!("frame {} of sender {sender}, due {due}", frame.sequence).into());
        }
        sequences[sender] += 1;
        self.tally.count(1, now_ns.saturating_sub(frame.due_ns));
        self.speaker.as_mut().map_or(Ok(()), |speaker| speaker.heard(frame.sequence))
    }
}

impl Client for Members {
    fn received(&mut self, out: &mut Outbox, session: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Some(member) = self.members.get_mut(session) else {
            if self.speaker_opening.is_over() {
                return Err("the speaker, which is no member, heard something".into());
            }
            return self.speaker_opening.take(bytes).map(drop);
        };
        if !member.opening.is_over() {
            if member.opening.take(bytes)? {
                self.say_hello(out, session);
            }
            return Ok(());
        }
        let mut cutter = std::mem::take(&mut self.members[session].cutter);
        let mut taken = Ok(());
        cutter.cut(bytes, |payload| {
            if taken.is_ok() {
                taken = self.take(out.now_ns, session, payload);
            }
        })?;
        self.members[session].cutter = cutter;
        taken.map_err(|failure| format!("session {session}: {failure}").into())
    }
}

impl Measured for Members {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn act(&mut self, out: &mut Outbox) -> Option<u64> {
        let members = self.members.len();
        self.speaker.as_mut().and_then(|speaker| speaker.act(out, members))
    }

    fn finish(&mut self) {
        if let Some(speaker) = &mut self.speaker {
            speaker.quiet = true;
        }
    }

    fn is_finished(&self) -> bool {
        self.speaker.as_ref().is_none_or(|speaker| speaker.missing.is_empty())
    }
}
