//! Why something of the program's does not come to a session.

/// Why a timer was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The session is closing, so its timers do not fire any more.
    #[error("the session is closing")]
    Closing,
    /// It has as many timers as it may have.
    #[error("the session has {max} timers already; cancel one, or raise sessions.timers_max")]
    TooMany {
        /// The bound, [`sessions.timers_max`](field@crate::options::Sessions::timers_max).
        max: u32,
    },
}

/// Why a session was not told a note. It comes back to the caller.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TellError<N> {
    /// The session is over or closing. Its id never becomes valid again.
    #[error("the session is gone")]
    Gone(N),
    /// The session's worker is slower than those who tell it. Try again later.
    #[error(
        "{waiting} of at most {max} notes wait; try again later, or raise sessions.notes_max or \
         sessions.notes_of_port_max"
    )]
    Full {
        /// The note.
        note: N,
        /// Notes that wait: for the session, or at its port.
        waiting: u32,
        /// The bound: [`sessions.notes_max`](field@crate::options::Sessions::notes_max) or
        /// [`sessions.notes_of_port_max`](field@crate::options::Sessions::notes_of_port_max).
        max: u32,
    },
    /// No server was started with the mailer's handler yet.
    #[error("no server has been started with this mailer's handler")]
    NotStarted(N),
}

/// Why work was not offloaded. It comes back to the caller.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError<F> {
    /// The session is over or closing. Its id never becomes valid again.
    #[error("the session is gone")]
    Gone(F),
    /// The pool has as many jobs as it may have: its threads, or the sessions that are told, are too slow. Try again
    /// later.
    #[error(
        "the pool has {held} of at most {max} jobs; try again later, or raise offload.threads or offload.jobs_max"
    )]
    Full {
        /// The work.
        work: F,
        /// Jobs that have places.
        held: u32,
        /// The bound, [`offload.jobs_max`](field@crate::options::Offload::jobs_max).
        max: u32,
    },
    /// There is no pool. This is a mistake of the program.
    #[error("offload.threads is 0, so there are no threads that run it")]
    NoThreads(F),
    /// No server was started with the mailer's handler yet.
    #[error("no server has been started with this mailer's handler")]
    NotStarted(F),
}

impl<F> OffloadError<F> {
    /// The work.
    pub fn into_work(self) -> F {
        match self {
            OffloadError::Gone(work)
            | OffloadError::Full { work, .. }
            | OffloadError::NoThreads(work)
            | OffloadError::NotStarted(work) => work,
        }
    }

    /// The same error with other work.
    pub(crate) fn map<G>(self, work: impl FnOnce(F) -> G) -> OffloadError<G> {
        match self {
            OffloadError::Gone(had) => OffloadError::Gone(work(had)),
            OffloadError::Full { work: had, held, max } => {
                OffloadError::Full { work: work(had), held, max }
            }
            OffloadError::NoThreads(had) => OffloadError::NoThreads(work(had)),
            OffloadError::NotStarted(had) => OffloadError::NotStarted(work(had)),
        }
    }
}

impl<N> TellError<N> {
    /// The note.
    pub fn into_note(self) -> N {
        match self {
            TellError::Gone(note) | TellError::Full { note, .. } | TellError::NotStarted(note) => {
                note
            }
        }
    }
}
