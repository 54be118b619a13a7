//! What waits to be delivered to the handler.

use crate::settings::settings;

/// Whether receiving pauses while the session's own peer reads slowly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backpressure {
    /// Receiving never pauses. The default: a handler that pushes to many sessions must not stop reading
    /// from one because that one is slow.
    #[default]
    None,
    /// While more than half of the send queue is filled, nothing is received from the peer. Receiving
    /// resumes when three quarters of the queue are free. For handlers that answer what they receive, as an
    /// echo does: TCP then slows the peer down. What the worker had received before waits in the receive
    /// queue: at most one worker's lent buffers, or one buffer of at most 64 KiB if the session paused a
    /// short time ago. `sending.queue_bytes_max` must hold two of the largest frames.
    PauseReceive,
}

/// What the end of a peer's stream does to its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndOfStream {
    /// It ends the session: what is queued for the peer leaves, and then the session ends with
    /// [`CloseReason::PeerClosed`](crate::CloseReason::PeerClosed). The default.
    #[default]
    Closes,
    /// It is told: [`Handler::peer_finished`](crate::Handler::peer_finished) is called, and the session goes on
    /// in the other direction for as long as the program likes, until
    /// [`finish`](crate::Session::finish) or a close. A peer that ends inside a frame ends its session all the
    /// same.
    Told,
}

settings! {
    /// What waits to be delivered to the handler.
    Receiving {
        /// Whether receiving pauses while the peer reads slowly. Default [`Backpressure::None`].
        backpressure: Backpressure = Backpressure::None,
        /// What the end of a peer's stream does. Default [`EndOfStream::Closes`].
        end_of_stream: EndOfStream = EndOfStream::Closes,
        /// The most bytes that wait in all receive queues of one worker: frames of which a part has come,
        /// and what came before receiving paused. At least one frame, at most 1 TiB. On Windows, where
        /// workers share their sessions, it is this many times the number of workers for all of them. A
        /// session that needs more ends with
        /// [`CloseReason::ReceiveQueueFull`](crate::CloseReason::ReceiveQueueFull). What a session that has had its
        /// share of a turn could still deliver waits in half of it at most; beyond that it is delivered. Default `None`: an eighth of
        /// the memory that the process may use, by its control group too, for all workers together; at least a
        /// frame, and at most 256 MiB for each: 1,000 sessions that each pause for the first time with a full
        /// window received.
        queues_bytes_max: Option<usize> = None,
        /// The kernel's own receive buffer of one session (SO_RCVBUF), 1 KiB to 1 GiB. Linux doubles the value,
        /// and limits it to `net.core.rmem_max`. Default `None`: the kernel chooses, and grows it to some
        /// megabytes.
        kernel_bytes: Option<usize> = None,
    }
}
