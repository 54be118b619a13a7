//! Which callback a worker runs: a word that it leaves before each, for whoever asks why a turn takes long.

use std::fmt;
// Not from `crate::sync`: these order and guard nothing else, so a checker or a simulated world need not vary their
// order.
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::session::SessionId;

/// Above every session.
pub(crate) const NO_SESSION: SessionId = SessionId::from_bits(u64::MAX);

/// How often somebody reads the word again who was overtaken by the worker.
const READS_MAX: usize = 16;

macro_rules! callbacks {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal,)+) => {
        /// The code of the program's that a worker calls, each by the name that the program knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Callback {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Callback {
            const ALL: &[Callback] = &[$(Callback::$variant,)+];

            /// The name of the method, `"received"`.
            pub fn name(self) -> &'static str {
                match self { $(Callback::$variant => $name,)+ }
            }
        }
    };
}

callbacks! {
    /// [`Handler::opened`](crate::Handler::opened).
    Opened "opened",
    /// [`Handler::received`](crate::Handler::received), and the cutting of the frames by a
    /// [`CustomFraming`](crate::CustomFraming). All bytes that came together for a session are one call here, also if no
    /// frame is whole in them.
    Received "received",
    /// [`Handler::writable`](crate::Handler::writable).
    Writable "writable",
    /// [`Handler::timer`](crate::Handler::timer).
    Timer "timer",
    /// [`Told::told`](crate::Told::told).
    Told "told",
    /// [`Handler::lagged`](crate::Handler::lagged).
    Lagged "lagged",
    /// [`Handler::peer_finished`](crate::Handler::peer_finished).
    PeerFinished "peer_finished",
    /// [`Handler::ending`](crate::Handler::ending).
    Ending "ending",
    /// [`Handler::closed`](crate::Handler::closed).
    Closed "closed",
    /// [`Handler::upgrade`](crate::Handler#method.upgrade). Of no session that is open.
    Upgrade "upgrade",
    /// [`Handler::connect_failed`](crate::Handler::connect_failed).
    ConnectFailed "connect_failed",
    /// [`Handler::draining`](crate::Handler::draining). Of no session.
    Draining "draining",
    /// [`Handler::accept_failed`](crate::Handler::accept_failed). Of no session.
    AcceptFailed "accept_failed",
    /// What [`Handle::call_when_room`](crate::Handle::call_when_room) was given, or the waker of a
    /// [`WhenRoom`](crate::WhenRoom). Of no session.
    WhenRoom "call_when_room",
    /// What [`Handle::call_when_room_to_publish`](crate::Handle::call_when_room_to_publish) was given, or the waker of
    /// a [`WhenRoomToPublish`](crate::WhenRoomToPublish). Of no session.
    WhenRoomToPublish "call_when_room_to_publish",
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A call of a callback, by its name. It prints as `` `received` of session 5.17 ``.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Call {
    /// Which callback.
    pub callback: Callback,
    /// Of which session. `None`: the callback belongs to none.
    pub session: Option<SessionId>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.callback)?;
        self.session.map_or(Ok(()), |id| write!(f, " of session {id}"))
    }
}

/// What a worker leaves before each callback. Only the worker writes it, hence on its own cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Word {
    /// How many calls have begun, and how many have returned: one more than twice as many while one runs.
    count: AtomicU64,
    session: AtomicU64,
    callback: AtomicU8,
}

impl Default for Word {
    fn default() -> Self {
        let session = AtomicU64::new(NO_SESSION.to_bits());
        Word { count: AtomicU64::new(0), session, callback: AtomicU8::new(0) }
    }
}

impl Word {
    /// A callback begins. For the worker.
    #[inline]
    pub(super) fn enter(&self, callback: Callback, session: SessionId) {
        debug_assert!(!self.is_in_call());
        // Whoever reads one of the two has seen, or sees then, that the call before has returned.
        self.session.store(session.to_bits(), Ordering::Release);
        self.callback.store(callback as u8, Ordering::Release);
        self.count_one();
    }

    /// The callback has returned. For the worker.
    #[inline]
    pub(super) fn leave(&self) {
        debug_assert!(self.is_in_call());
        self.count_one();
    }

    #[inline]
    fn count_one(&self) {
        self.count.store(self.count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    fn is_in_call(&self) -> bool {
        self.count.load(Ordering::Relaxed) % 2 == 1
    }

    /// How many calls have begun.
    pub(super) fn calls(&self) -> u64 {
        self.count.load(Ordering::Relaxed).div_ceil(2)
    }

    /// The call that began last, if one did. For the worker.
    pub(super) fn last(&self) -> Option<Call> {
        let callback = Callback::ALL.get(usize::from(self.callback.load(Ordering::Acquire)))?;
        let session = SessionId::from_bits(self.session.load(Ordering::Acquire));
        let session = Some(session).filter(|id| *id != NO_SESSION);
        (self.calls() > 0).then_some(Call { callback: *callback, session })
    }

    /// How many calls have begun, and the last of them if it still runs. For any thread.
    pub(super) fn running(&self) -> (u64, Option<Call>) {
        let mut count = 0;
        for _ in 0..READS_MAX {
            count = self.count.load(Ordering::Acquire);
            let call = if count.is_multiple_of(2) { None } else { self.last() };
            if call.is_none() || self.count.load(Ordering::Relaxed) == count {
                return (count.div_ceil(2), call);
            }
        }
        (count.div_ceil(2), None) // so fast is the worker that no call takes long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_callback_is_read_as_itself_while_it_runs_and_as_the_last_afterwards() {
        let word = Word::default();
        assert_eq!((word.running(), word.last()), ((0, None), None));
        for (at, callback) in Callback::ALL.iter().enumerate() {
            let session = if at % 2 == 0 { SessionId::new(at as u32, 41) } else { NO_SESSION };
            word.enter(*callback, session);
            let (calls, call) = word.running();
            let call = call.expect("it runs");
            assert_eq!((call.callback, calls), (*callback, at as u64 + 1));
            assert_eq!(call.session, Some(session).filter(|_| at % 2 == 0));
            word.leave();
            assert_eq!((word.running(), word.last()), ((calls, None), Some(call)));
        }
    }

    #[test]
    fn a_call_prints_as_a_person_would_say_it() {
        let call = Call { callback: Callback::Received, session: Some(SessionId::new(5, 17)) };
        assert_eq!(call.to_string(), "`received` of session 5.17");
        let call = Call { callback: Callback::Draining, session: None };
        assert_eq!(call.to_string(), "`draining`");
    }

    /// A session is never read with the callback of another.
    #[test]
    fn whoever_reads_while_the_worker_goes_on_reads_calls_that_there_were() {
        let word = Word::default();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                for at in 0..200_000_u32 {
                    let callback = Callback::ALL[at as usize % 9];
                    word.enter(callback, SessionId::new(at % 9, 1));
                    word.leave();
                }
            });
            while !worker.is_finished() {
                let (_, Some(Call { callback, session })) = word.running() else { continue };
                assert_eq!(session.map(SessionId::index), Some(callback as u32));
            }
        });
    }

    #[test]
    fn what_a_worker_writes_before_each_callback_has_its_cache_line_for_itself() {
        assert_eq!((size_of::<Word>(), align_of::<Word>()), (64, 64));
    }
}
