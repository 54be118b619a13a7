//! The open loop: each message leaves when it is due, whatever happened to earlier ones.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::GRACE;
use super::fleet::{Fleet, Turn};
use super::pace::Pace;
use super::progress::Progress;
use super::tally::{histogram, record};
use crate::process::wake_punctually;

/// Sends from the calling thread. A message whose session has too many unanswered is owed: it
/// keeps the time at which it was due, and leaves as soon as there are fewer.
pub(super) struct OpenLoop<'a> {
    fleet: &'a mut Fleet,
    pace: Pace,
    sessions: usize,
    /// Per session: messages sent, and messages owed.
    sent: Vec<u64>,
    owed: Vec<u64>,
    /// The sessions that are owed something and may still get it.
    indebted: VecDeque<usize>,
    late_ns: Histogram<u64>,
}

pub(super) struct Sent {
    /// How much later than due the messages left.
    pub(super) late_ns: Histogram<u64>,
    /// What was due and never left: its turn did not come within the grace, or the session ended.
    pub(super) not_sent: u64,
}

impl<'a> OpenLoop<'a> {
    pub(super) fn new(fleet: &'a mut Fleet, pace: Pace) -> OpenLoop<'a> {
        let sessions = fleet.shared.slots.len();
        OpenLoop {
            fleet,
            pace,
            sessions,
            sent: vec![0; sessions],
            owed: vec![0; sessions],
            indebted: VecDeque::new(),
            late_ns: histogram(),
        }
    }

    pub(super) fn run(mut self, mut progress: Progress) -> Sent {
        /// How often to see whether what is owed may leave.
        const RETRY: Duration = Duration::from_millis(1);
        /// So many may be due at once before something else gets its turn.
        const BATCH: usize = 1024;
        wake_punctually();
        let total = self.pace.total();
        let last = self.pace.end() + GRACE;
        let mut next = 0;
        let mut tick = self.pace.start();
        while !self.fleet.all_over() && !self.fleet.shared.is_stopped() {
            let now = Instant::now();
            for _ in 0..BATCH {
                if next == total || self.pace.due(next) > now {
                    break;
                }
                self.fall_due((next % self.sessions as u64) as usize);
                next += 1;
            }
            self.retry();
            if now >= tick {
                tick = now + Progress::PERIOD;
                self.fleet.hear_all();
                let done = self.fleet.shared.tally.messages();
                progress.at_time(now - self.pace.start(), done, self.fleet.errors.total());
            }
            let settled = next == total && self.indebted.is_empty();
            if settled || now >= last {
                break;
            }
            let mut wake = if next < total { self.pace.due(next).min(tick) } else { now + RETRY };
            if !self.indebted.is_empty() {
                wake = wake.min(now + RETRY);
            }
            thread::sleep(wake.saturating_duration_since(Instant::now()));
        }
        let due = self.pace.due_until(self.fleet.shared.is_stopped());
        let not_sent = self.owed.iter().sum::<u64>() + due.saturating_sub(next);
        Sent { late_ns: self.late_ns, not_sent }
    }

    fn fall_due(&mut self, session: usize) {
        self.owed[session] += 1;
        if self.owed[session] == 1 && !self.pay(session) {
            self.indebted.push_back(session);
        }
    }

    fn retry(&mut self) {
        for _ in 0..self.indebted.len() {
            let Some(session) = self.indebted.pop_front() else { return };
            if !self.pay(session) {
                self.indebted.push_back(session);
            }
        }
    }

    /// Sends what a session is owed. Says whether there is nothing more to be done for it.
    fn pay(&mut self, session: usize) -> bool {
        while self.owed[session] > 0 {
            match self.fleet.send_in_turn(session) {
                Turn::Sent => {}
                Turn::Later => return false,
                Turn::Never => return true,
            }
            let due = self.pace.due_of(session, self.sessions, self.sent[session]);
            record(&mut self.late_ns, Instant::now().saturating_duration_since(due));
            self.sent[session] += 1;
            self.owed[session] -= 1;
        }
        true
    }
}
