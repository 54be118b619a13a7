//! What a worker does while its port's budget is used up: it ends sessions whose peers do not read, and tells
//! sessions whose sends were refused when there is room again.

use std::time::Duration;

use super::floor::Floor;
use crate::clock::{Clock, Moment};
use crate::engine::Mail;
use crate::face::Handler;
use crate::session::{Closing, SessionId};
use crate::timer::TICK;

/// This part of what is charged to a port is to become free.
const FREED_PART: u32 = 16;

/// A session that something is charged for.
#[derive(Debug, Clone, Copy)]
struct Charged {
    id: SessionId,
    pages: u32,
    /// Since when nothing has left; `None`: what waits was only just queued.
    waits_since: Option<Moment>,
}

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// Looks whether there is room again. If not, ends those without progress for longest.
    #[inline]
    pub(super) fn look_at_budget(&mut self, now: Moment) {
        if self.share().budget.needs_look() {
            self.make_room(now);
        }
    }

    #[cold]
    fn make_room(&mut self, now: Moment) {
        let budget = &self.share().budget;
        if budget.take_asked() {
            self.end_those_who_wait(now, self.engine.options.sending.progress_within());
        }
        if !budget.is_out() {
            return;
        }
        if let Some(some_were_refused) = budget.recovers() {
            if some_were_refused {
                self.tell_of_recovery();
            }
            return;
        }
        if budget.next_look().is_none_or(|at| at > now) {
            return;
        }
        let recently = self.engine.options.sending.progress_within();
        let mut ends_some = self.end_those_who_wait(now, recently);
        if !ends_some {
            self.ask_other_ports();
            // Sends are refused, and nobody has stopped reading, here or there. So it is those who read least.
            let slow_after = self.engine.options.sending.slow_after;
            if budget.has_been_out_for(now) >= slow_after && budget.were_sends_refused() {
                ends_some = self.end_those_who_wait(now, Duration::ZERO);
            }
        }
        if ends_some {
            budget.some_were_ended(now);
        }
        budget.look_again_at(now.after(if ends_some { TICK } else { recently }));
    }

    /// Ends sessions for which nothing has left for at least this time, longest first, until a part of what is
    /// charged to the port will be free. False: there are none.
    fn end_those_who_wait(&mut self, now: Moment, at_least: Duration) -> bool {
        let wanted = self.share().budget.charged_pages().div_ceil(FREED_PART);
        let (mut freed, mut charged) = self.charged_sessions();
        let turns = &self.share().turns;
        charged.retain(|session| match session.waits_since {
            Some(since) => turns.latest(since, now).after(at_least) <= now,
            None => at_least.is_zero(),
        });
        charged
            .sort_unstable_by_key(|session| (session.waits_since.is_none(), session.waits_since));
        for session in charged {
            if freed >= wanted {
                break;
            }
            freed += session.pages;
            self.with_hold(session.id, |floor, slot| {
                if slot.ask_to_stop_as_slow() {
                    floor.stats.budget_ends += 1;
                    floor.session.desk.end_later(session.id);
                }
            });
        }
        freed > 0
    }

    /// The sessions that something is charged for; and how much is for those that end at once.
    fn charged_sessions(&mut self) -> (u32, Vec<Charged>) {
        let (mut ending_pages, mut charged) = (0, Vec::new());
        for id in self.engine.table.sessions_of(self.place.port) {
            self.with_hold(id, |_, slot| {
                let queue = slot.send_queue.lock();
                let pages = queue.pages();
                if pages == 0 {
                    return;
                }
                if queue.closing().is_some_and(Closing::is_stop) {
                    ending_pages += pages;
                } else {
                    let waits_since = queue.waits_since().map(Moment::of_nanos);
                    charged.push(Charged { id, pages, waits_since });
                }
            });
        }
        (ending_pages, charged)
    }

    /// Perhaps those who do not read are at other ports.
    fn ask_other_ports(&self) {
        let others = self.engine.ports.iter().enumerate();
        for (_, port) in others.filter(|(index, _)| *index != self.place.port) {
            port.budget.ask();
            let _ = port.mailbox.post(Mail::Budget); // has it ended, so has it given everything back
        }
    }

    /// Attends to the sessions whose sends were refused: somebody may wait for room.
    fn tell_of_recovery(&mut self) {
        for id in self.engine.table.sessions_of(self.place.port) {
            self.with_hold(id, |floor, slot| {
                if slot.send_queue.lock().ends_shortage() {
                    floor.session.desk.attend_later(id);
                }
            });
        }
    }
}
