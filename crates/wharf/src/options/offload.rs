//! Work that blocks.

use crate::settings::settings;

settings! {
    /// The threads that run what blocks, for a handler with a mailer; see
    /// [`Mailer::offload`](crate::Mailer::offload).
    Offload {
        /// How many threads, at most 1,024. They are started with the workers, if the handler has a
        /// [`Mailer`](crate::Mailer). 0: none, and every offload is refused. Default 8: calls that wait for 20 ms,
        /// 400 times a second.
        threads: usize = 8,
        /// The most jobs that the server has, 1 to 1,048,576: those that wait, those that run, and those whose note
        /// waits for its session. One more is refused. Default 1,024.
        jobs_max: u32 = 1_024,
        /// With so many jobs, or with all that there may be, a session's receiving is paused until it has half as many; 1
        /// to 1,048,576. Default 16.
        jobs_of_session_max: u32 = 16,
    }
}
