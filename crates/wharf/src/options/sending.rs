//! What waits to be sent.

use std::time::Duration;

use crate::settings::settings;

settings! {
    /// What waits to be sent.
    Sending {
        /// The most bytes that wait to be sent to one session, headers included, 1 to 1 GiB. No frame can
        /// be larger. A frame without room is refused whole: [`send`](crate::Handle::send) then ends the
        /// session, [`try_send`](crate::Handle::try_send) gives the frame back. Default 256 KiB: one second
        /// of a 2 Mbit/s stream, so a peer that is slow for a moment is not cut.
        queue_bytes_max: usize = 256 * 1024,
        /// The most bytes that wait to be sent in the whole server: in all send queues, and of publications.
        /// Counted is memory, in pages of 4 KiB: also what has left of a piece that is held, but not up to 6 KiB
        /// of what leaves in one send; and a published frame is in each queue that it is in. At least `queue_bytes_max`,
        /// at most 1 TiB. When it is used up, a frame without room is refused like one that its queue has no
        /// room for, and what is published waits. Then sessions end with
        /// [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer), those first for which nothing has
        /// left for longest, until a sixteenth is free. Sessions for which something has left within a tenth of
        /// `slow_after` end only if sends were refused for all of `slow_after` and there are no others; and
        /// each port has 1 MiB beyond the budget, for sends to them. Default `None`: a quarter of the memory
        /// that the process may use, by its control group too; 1 GiB where the system does not say, and in a
        /// simulated server.
        queued_bytes_max: Option<usize> = None,
        /// The most bytes of publications that wait at one port, for its worker or for members whose send
        /// queues have no room, 4 KiB to 1 TiB. A frame counts once, for however many members it waits. Each
        /// publication and each join that waits counts 288 bytes more, and a publication 112 bytes more for
        /// each further framing that the listeners have. One more is refused with
        /// [`PublishError::Full`](crate::PublishError::Full) or [`JoinError::Full`](crate::JoinError::Full); a
        /// leave is never refused. Members that keep publishers from more, and for which nothing leaves between
        /// two looks (a tenth of `slow_after`), then end. All ports together use at most half of
        /// `queued_bytes_max`, or what one frame at each needs. Default 16 MiB: tens of thousands of chat
        /// lines.
        publications_bytes_max: usize = 16 * 1024 * 1024,
        /// A member of a group is slow if it has lacked publications for this time, and its peer has
        /// acknowledged fewer than `slow_bytes` in it. What becomes of it then its [`Policy`](crate::Policy)
        /// says. A worker looks ten times in this time; while it stands still, nobody becomes slow. 1 ms to 1
        /// hour. Default 5 s. In less than 3 s one lost segment, which TCP sends again after 200 ms or more,
        /// can look like a peer that takes nothing. (Where the OS does not report what is acknowledged, on
        /// Windows and macOS, what it has taken counts.)
        slow_after: Duration = Duration::from_secs(5),
        /// See `slow_after`. 1 byte to 1 GiB. Default 128 KiB: about what one update of a TCP window
        /// acknowledges on the loopback interface.
        slow_bytes: usize = 128 * 1024,
        /// The kernel's own send buffer of one session (SO_SNDBUF), 1 KiB to 1 GiB. Linux doubles the value,
        /// and limits it to `net.core.wmem_max`. Default `None`: the kernel chooses, and grows it to some
        /// megabytes for a peer that is slow. Set it where what waits for a slow peer must stay small, or
        /// fresh.
        kernel_bytes: Option<usize> = None,
        /// How many bytes may lie in the kernel without having been sent (TCP_NOTSENT_LOWAT), 1 byte to 1 GiB:
        /// the send buffer's part that is sent but not acknowledged does not count. Linux; refused elsewhere.
        /// Default `None`: as many as fit.
        kernel_unsent_bytes: Option<usize> = None,
        /// TCP_NODELAY. Default `true`: wharf joins frames into one send itself; Nagle's algorithm would
        /// only delay them.
        no_delay: bool = true,
    }
}

impl Sending {
    /// A session for which something has left within this time makes progress.
    pub(crate) fn progress_within(&self) -> Duration {
        self.slow_after / PROGRESS_PARTS
    }
}

impl Sending {
    /// The most bytes of publications at a port with such a part of the budget: half of it is for send queues.
    pub(crate) fn publications_max(&self, budget_bytes: usize) -> usize {
        let one_at_least = self.queue_bytes_max.saturating_add(PUBLICATION_BYTES_MIN);
        self.publications_bytes_max.min((budget_bytes / 2).max(one_at_least))
    }
}

/// The least that `publications_bytes_max` may be.
pub(super) const PUBLICATION_BYTES_MIN: usize = 4 * 1024;

/// Progress is looked for so many times in `slow_after`.
const PROGRESS_PARTS: u32 = 10;
