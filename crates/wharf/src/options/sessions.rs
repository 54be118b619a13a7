//! How many sessions.

use crate::settings::settings;

settings! {
    /// How many sessions there may be, and in how many groups.
    Sessions {
        /// The most sessions at once, 1 to 16,776,192. A peer that connects beyond that is closed at once
        /// and counted as [refused](crate::Stats::refused). A session stops counting when its
        /// [`closed`](crate::Handler::closed) begins, a connect when its
        /// [`connect_failed`](crate::Handler::connect_failed) begins: a connect from there finds a place.
        /// Default 65,536: more than the usual limit on descriptors. An idle session takes 300 to 400 bytes.
        max: u32 = 65_536,
        /// The most groups that one session may be in, 0 to 65,536. One more is refused with
        /// [`JoinError::TooManyGroups`](crate::JoinError::TooManyGroups). Default 64: more than the rooms
        /// that one person follows, and less memory than a send queue.
        groups_max: u32 = 64,
    }
}
