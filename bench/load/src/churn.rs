//! Connect, one message and its reply, our end of the stream, the server's end, close, and again.

use protocol::{Pattern, now_ns};

use crate::fleet::{Client, Fleet, Outbox};
use crate::report::{Figures, Tally};
use crate::window::{Measured, measure_over};
use crate::{Arguments, Failure};

pub(crate) fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(arguments.target)?;
    let mut churn = Churn {
        run_seed: now_ns(),
        message_bytes: arguments.bytes,
        visits: Vec::new(),
        begun: 0,
        over: Vec::new(),
        looping: true,
        tally: Tally::new(),
    };
    for _ in 0..arguments.sessions {
        let session = fleet.connect()?;
        churn.visits.push(Visit::default());
        churn.begin(&mut fleet.out, session);
    }
    measure_over(arguments, &mut fleet, &mut churn, |fleet, churn| {
        if churn.looping {
            for session in std::mem::take(&mut churn.over) {
                fleet.open(session)?;
                churn.begin(&mut fleet.out, session);
            }
        }
        Ok(())
    })
}

#[derive(Default)]
struct Visit {
    number: u64,
    received_bytes: usize,
    since_ns: u64,
}

struct Churn {
    run_seed: u64,
    message_bytes: usize,
    visits: Vec<Visit>,
    begun: u64,
    /// Sessions that have ended and may be connected again.
    over: Vec<usize>,
    looping: bool,
    tally: Tally,
}

impl Churn {
    fn pattern(&self, session: usize) -> Pattern {
        Pattern::of_session(self.run_seed, self.visits[session].number)
    }

    fn begin(&mut self, out: &mut Outbox, session: usize) {
        self.visits[session] =
            Visit { number: self.begun, received_bytes: 0, since_ns: out.now_ns };
        self.begun += 1;
        self.pattern(session).append(0, self.message_bytes, out.queue(session));
    }
}

impl Client for Churn {
    fn received(&mut self, out: &mut Outbox, session: usize, bytes: &[u8]) -> Result<(), Failure> {
        let position = self.visits[session].received_bytes;
        let after = position + bytes.len();
        let right =
            after <= self.message_bytes && self.pattern(session).matches(position as u64, bytes);
        if !right {
            return Err(format!("session {session}: wrong bytes after {position}").into());
        }
        self.visits[session].received_bytes = after;
        if after == self.message_bytes {
            out.finish(session)?;
        }
        Ok(())
    }

    fn ended(&mut self, out: &mut Outbox, session: usize) -> Result<(), Failure> {
        let visit = &self.visits[session];
        if visit.received_bytes != self.message_bytes {
            return Err(format!("session {session}: ended before its reply").into());
        }
        self.tally.count(1, out.now_ns.saturating_sub(visit.since_ns));
        self.over.push(session);
        Ok(())
    }
}

impl Measured for Churn {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn finish(&mut self) {
        self.looping = false;
    }

    fn is_finished(&self) -> bool {
        self.over.len() == self.visits.len()
    }
}
