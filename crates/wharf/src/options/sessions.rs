//! How many sessions.

use crate::settings::settings;

settings! {
    /// How many sessions there may be, and of what else each may have how many.
    Sessions {
        /// The most sessions at once, 1 to 16,776,192. A peer that connects beyond that is closed at once
        /// and counted as [refused](crate::Stats::refused). A session stops counting when its
        /// [`closed`](crate::Handler::closed) begins, a connect when its
        /// [`connect_failed`](crate::Handler::connect_failed) begins: a connect from there finds a place.
        /// Default 65,536: more than the usual limit on descriptors. An idle session takes 300 to 400 bytes.
        max: u32 = 65_536,
        /// The most accepted sessions whose transport does not stand yet. One more is closed at once
        /// and counted as [refused](crate::Stats::refused). `None`, the default: an eighth of `max`, and at least 1,024.
        /// Each takes the memory of a session and up to 8 KiB of a head that is not whole, within
        /// [`receiving.queues_bytes_max`](field@crate::options::Receiving::queues_bytes_max).
        establishing_max: Option<u32> = None,
        /// The most groups that one session may be in, 0 to 65,536. One more is refused with
        /// [`JoinError::TooManyGroups`](crate::JoinError::TooManyGroups). Default 64: more than the rooms
        /// that one person follows, and less memory than a send queue.
        groups_max: u32 = 64,
        /// The most [timers](crate::Session::set_timer) that one session may have set, 0 to 1,024. Default 16:
        /// more than a protocol has, and a session with one takes about 200 bytes more.
        timers_max: u32 = 16,
        /// The most notes that wait for one session, 1 to 16,777,216; see [`Mailer::tell`](crate::Mailer::tell).
        /// Default 1,024: its worker is behind by many turns then.
        notes_max: u32 = 1_024,
        /// The most notes that wait for all sessions of a port, 1 to 16,777,216. Each worker has a port; on Windows
        /// there is one. Default 65,536: what two threads tell in 60 ms. A note takes up to twice its own size, and
        /// 100 bytes if its session has no other.
        notes_of_port_max: u32 = 65_536,
    }
}

#[cfg(feature = "websocket")]
impl Sessions {
    pub(crate) fn establishing_count_max(&self) -> u32 {
        self.establishing_max.unwrap_or((self.max / 8).max(1_024))
    }
}
