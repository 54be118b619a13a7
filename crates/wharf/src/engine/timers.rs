//! The timers of one port: each session's next deadline, and those that the program has set for its sessions.
//!
//! A timer of the program's that has fired is *due* until the handler is told of it, so cancelling it, or setting it
//! anew, takes it back until then. A session's timers stand together, in the order in which they were set: they are
//! few.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use crate::clock::Moment;
use crate::session::SessionId;
use crate::timer::{TimerId, TimingWheel};

/// What a timer of the program's takes, and what the first of a session takes more. Lists grow by doubling.
pub(crate) const TIMER_BYTES: usize = 2 * (size_of::<Timer>() + 40);
pub(crate) const TIMERS_OF_SESSION_BYTES: usize = 128;

/// For so many timers and sessions memory is kept when there is none.
const AT_REST_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Timers {
    /// Each session's next deadline.
    pub(crate) deadlines: TimingWheel<SessionId>,
    /// The program's timers that have not fired: whose they are, and which of its.
    set: TimingWheel<(SessionId, u64)>,
    /// Sessions for which the program has set something.
    of: HashMap<SessionId, OfSession, BuildHasherDefault<DefaultHasher>>,
    /// Swapped with what the wheel fills, so that it does not allocate again.
    fired: Vec<(SessionId, u64)>,
}

/// What the program has set for one session.
#[derive(Debug, Default)]
struct OfSession {
    timers: Vec<Timer>,
    /// How long it may be silent, if it has a time of its own.
    idle_timeout: Option<IdleTimeout>,
}

/// A session's own idle time-out. `Duration::ZERO`: none.
#[derive(Debug, Clone, Copy)]
struct IdleTimeout(Duration);

#[derive(Debug)]
struct Timer {
    key: u64,
    deadline: Moment,
    /// `None`: it has fired, and the handler is to be told.
    waits: Option<TimerId>,
}

/// A session has as many timers as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Timers {
    pub(crate) fn new() -> Self {
        Timers {
            deadlines: TimingWheel::new(),
            set: TimingWheel::new(),
            of: HashMap::default(),
            fired: Vec::new(),
        }
    }

    /// When to call [`advance`](Self::advance) next.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.next_deadline(), self.set.next_deadline()].into_iter().flatten().min()
    }

    /// Advances to `now`. Pushes each session whose deadline has passed to `passed`, and each of which a timer has
    /// fired to `due`.
    pub(crate) fn advance(
        &mut self,
        now: Moment,
        passed: &mut Vec<SessionId>,
        due: &mut Vec<SessionId>,
    ) {
        self.deadlines.advance(now, passed);
        self.set.advance(now, &mut self.fired);
        let mut fired = std::mem::take(&mut self.fired);
        for (id, key) in fired.drain(..) {
            let of_session = self.of.get_mut(&id);
            match of_session.and_then(|of| of.timers.iter_mut().find(|timer| timer.key == key)) {
                Some(timer) => timer.waits = None,
                None => debug_assert!(false, "a timer fires of a session that has none"),
            }
            due.push(id);
        }
        fired.shrink_to(AT_REST_MAX);
        self.fired = fired;
    }

    /// Sets a timer of a session's. One with the same key is set anew.
    pub(crate) fn set(
        &mut self,
        id: SessionId,
        key: u64,
        deadline: Moment,
        timers_max: u32,
    ) -> Result<(), TooMany> {
        if self.remove(id, key).is_none() {
            let count = self.of.get(&id).map_or(0, |of_session| of_session.timers.len());
            if count >= timers_max as usize {
                return Err(TooMany);
            }
        }
        let waits = Some(self.set.insert(deadline, (id, key)));
        let timers = &mut self.of.entry(id).or_default().timers;
        if timers.capacity() == 0 {
            timers.reserve_exact(1); // most have one
        }
        timers.push(Timer { key, deadline, waits });
        Ok(())
    }

    /// Cancels a timer of a session's. True: it was set, and the handler was not told of it.
    pub(crate) fn cancel(&mut self, id: SessionId, key: u64) -> bool {
        self.remove(id, key).is_some()
    }

    fn remove(&mut self, id: SessionId, key: u64) -> Option<Timer> {
        let timers = &mut self.of.get_mut(&id)?.timers;
        let at = timers.iter().position(|timer| timer.key == key)?;
        let timer = timers.remove(at);
        if let Some(waits) = timer.waits {
            let waited = self.set.cancel(waits);
            debug_assert!(waited, "a timer that has fired is due");
        }
        Some(timer)
    }

    /// The key of the timer of a session's of which the handler is to be told next: the earliest. It is set no more.
    pub(crate) fn take_due(&mut self, id: SessionId) -> Option<u64> {
        let timers = &mut self.of.get_mut(&id)?.timers;
        let due = timers.iter().enumerate().filter(|(_, timer)| timer.waits.is_none());
        let (at, _) = due.min_by_key(|(_, timer)| timer.deadline)?;
        Some(timers.remove(at).key)
    }

    /// Gives a session an idle time-out of its own.
    pub(crate) fn set_idle_timeout(&mut self, id: SessionId, idle_timeout: Option<Duration>) {
        let own = IdleTimeout(idle_timeout.unwrap_or(Duration::ZERO));
        self.of.entry(id).or_default().idle_timeout = Some(own);
    }

    /// A session's own idle time-out. `None`: it has none of its own.
    pub(crate) fn idle_timeout(&self, id: SessionId) -> Option<Option<Duration>> {
        if self.of.is_empty() {
            return None; // the usual case
        }
        let IdleTimeout(own) = self.of.get(&id)?.idle_timeout?;
        Some((own > Duration::ZERO).then_some(own))
    }

    /// Forgets what was set for a session. For its release.
    pub(crate) fn forget(&mut self, id: SessionId) {
        if self.of.is_empty() {
            return; // the usual case
        }
        if let Entry::Occupied(of_session) = self.of.entry(id) {
            for timer in of_session.remove().timers {
                timer.waits.map(|waits| self.set.cancel(waits));
            }
        }
        if self.of.is_empty() {
            self.of.shrink_to(AT_REST_MAX);
            self.set.shrink_to(AT_REST_MAX);
        }
    }
}
