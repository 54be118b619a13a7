//! Sessions that keep some messages on their way, and check that each comes back.

use std::collections::VecDeque;

use protocol::{Pattern, now_ns};

use crate::fleet::{Client, Fleet, Outbox, WAVE};
use crate::messages::Messages;
use crate::report::{Figures, Tally};
use crate::window::{Measured, measure, wait_for};
use crate::{Arguments, Failure};
use protocol::process::memory_bytes;

/// What one that never reads sends: more than the kernel holds for it.
const DEAF_BYTES: usize = 8 * 1024 * 1024;

pub(crate) fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(arguments.target)?;
    if let Some(form) = arguments.form {
        let mut messages = Messages::new(form, arguments.bytes);
        bring_up(&mut fleet, &mut messages, arguments.sessions)?;
        messages.open_loop(&mut fleet.out, arguments.depth);
        return measure(arguments, &mut fleet, &mut messages);
    }
    let mut echo = Echo::new(arguments.bytes);
    bring_up(&mut fleet, &mut echo, arguments.sessions)?;
    echo.open_loop(&mut fleet.out, arguments.depth);
    let alone = measure(arguments, &mut fleet, &mut echo)?;
    if arguments.stalled == 0 {
        return Ok(alone);
    }
    let before_bytes = memory_bytes(arguments.server, "RssAnon")?;
    for _ in 0..arguments.stalled {
        let session = fleet.connect_deaf()?;
        Pattern::of_session(0, session as u64).append(0, DEAF_BYTES, fleet.out.queue(session));
    }
    echo.open_loop(&mut fleet.out, arguments.depth);
    let mut beside = measure(arguments, &mut fleet, &mut echo)?;
    beside.p99_ratio = Some(beside.latency_us.p99 / alone.latency_us.p99);
    let grown_bytes = memory_bytes(arguments.server, "RssAnon")?.saturating_sub(before_bytes);
    beside.memory_bytes_per_session = Some(grown_bytes as f64 / arguments.stalled as f64);
    Ok(beside)
}

/// Clients that have sessions which echo.
pub(crate) trait Echoes: Measured {
    /// How many there are.
    fn sessions(&self) -> usize;

    /// A session is connected, the next of them. It is to echo one message.
    fn begin(&mut self, out: &mut Outbox, session: usize);

    /// From now on each session keeps so many messages on their way.
    fn open_loop(&mut self, out: &mut Outbox, depth: usize);

    /// Each session is to echo one message more.
    fn send_each(&mut self, out: &mut Outbox);
}

/// Connects sessions until there are so many, each of which has echoed one message.
pub(crate) fn bring_up<C: Echoes>(
    fleet: &mut Fleet,
    client: &mut C,
    sessions: usize,
) -> Result<(), Failure> {
    while client.sessions() < sessions {
        for _ in 0..WAVE.min(sessions - client.sessions()) {
            let session = fleet.connect()?;
            client.begin(&mut fleet.out, session);
        }
        wait_for(fleet, client, "the first replies", C::is_finished)?;
    }
    Ok(())
}

struct Stream {
    pattern: Pattern,
    sent_bytes: u64,
    received_bytes: u64,
    /// When each message that is on its way was sent.
    sent_ns: VecDeque<u64>,
}

pub(crate) struct Echo {
    run_seed: u64,
    message_bytes: usize,
    streams: Vec<Stream>,
    /// Messages that are not answered yet.
    outstanding: usize,
    /// Each answer is followed by another message.
    looping: bool,
    tally: Tally,
}

impl Echo {
    pub(crate) fn new(message_bytes: usize) -> Echo {
        Echo {
            run_seed: now_ns(),
            message_bytes,
            streams: Vec::new(),
            outstanding: 0,
            looping: false,
            tally: Tally::new(),
        }
    }

    fn add(&mut self, session: usize) {
        assert_eq!(session, self.streams.len(), "sessions that echo come first");
        let pattern = Pattern::of_session(self.run_seed, session as u64);
        self.streams.push(Stream {
            pattern,
            sent_bytes: 0,
            received_bytes: 0,
            sent_ns: VecDeque::new(),
        });
    }

    fn send(&mut self, out: &mut Outbox, session: usize) {
        let stream = &mut self.streams[session];
        stream.sent_ns.push_back(out.now_ns);
        stream.pattern.append(stream.sent_bytes, self.message_bytes, out.queue(session));
        stream.sent_bytes += self.message_bytes as u64;
        self.outstanding += 1;
    }
}

impl Client for Echo {
    fn received(&mut self, out: &mut Outbox, session: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Some(stream) = self.streams.get_mut(session) else {
            return Err(format!("session {session} was to be deaf").into());
        };
        let position = stream.received_bytes;
        let after = position + bytes.len() as u64;
        if after > stream.sent_bytes {
            return Err(format!("session {session}: more came than was sent").into());
        }
        if !stream.pattern.matches(position, bytes) {
            return Err(format!("session {session}: wrong bytes after {position}").into());
        }
        stream.received_bytes = after;
        let message = self.message_bytes as u64;
        let answered = after / message - position / message;
        if answered > 0 {
            for sent_ns in stream.sent_ns.drain(..answered as usize) {
                self.tally.count(1, out.now_ns.saturating_sub(sent_ns));
            }
            self.outstanding -= answered as usize;
            if self.looping {
                for _ in 0..answered {
                    self.send(out, session);
                }
            }
        }
        Ok(())
    }
}

impl Echoes for Echo {
    fn sessions(&self) -> usize {
        self.streams.len()
    }

    fn begin(&mut self, out: &mut Outbox, session: usize) {
        self.add(session);
        self.send(out, session);
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

impl Measured for Echo {
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
