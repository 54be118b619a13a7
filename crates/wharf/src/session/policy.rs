//! What becomes of a member of a group that cannot take what is published.

/// What happens to a member of a group that reads more slowly than is published to it. It belongs to a membership:
/// [`Handle::join_with`](crate::Handle::join_with).
///
/// A member whose send queue has no room does not end at once: publications wait for it, within
/// [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max). It is *slow* if it has
/// lacked some for [`sending.slow_after`](field@crate::options::Sending::slow_after), and fewer than
/// [`sending.slow_bytes`](field@crate::options::Sending::slow_bytes) have left for it in that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// It gets every publication, and ends with [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer) if
    /// it is slow. The default.
    #[default]
    Close,
    /// It misses what its send queue has no room for, whole frames only, and
    /// [`Handler::lagged`](crate::Handler::lagged) says how many. Nothing waits for it, so it is never slow. For
    /// what is worth nothing later: a meter, a ticker.
    Skip,
    /// Of what it lacks it gets only the newest frame of each key, in its own place in the order
    /// ([`Handle::publish_keyed`](crate::Handle::publish_keyed)). Frames without a key are never left out. At most
    /// 16 KiB wait in its send queue, so that what leaves is new. It is never slow; but if a port's bound is
    /// reached and nothing leaves for it, it ends as with [`Policy::Close`]. For state: positions, prices.
    KeepLatest,
}
