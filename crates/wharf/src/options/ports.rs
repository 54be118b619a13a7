//! What only one backend has.

use crate::settings::settings;

settings! {
    /// For [`Backend::Uring`](crate::Backend::Uring) alone.
    Uring {
        /// Lent receive buffers for each worker, a power of two up to 32,768. When all are lent, receives
        /// wait until one comes back; nothing is lost. There are 16 more, of 64 KiB, for sessions that fill
        /// theirs again and again. No buffer takes memory before it is used. If the system does not grant
        /// the address space, [`Backend::Auto`](crate::Backend::Auto) serves on readiness, and
        /// [`Backend::Uring`](crate::Backend::Uring) fails with
        /// [`BackendRefusal::Memory`](crate::BackendRefusal::Memory). Default 256.
        receive_buffers: u16 = 256,
        /// The size of each buffer, 1 KiB to 1 MiB. Small frames cost the same in any size. Default 16 KiB.
        receive_buffer_bytes: usize = 16 * 1024,
    }
}

settings! {
    /// For [`Backend::Iocp`](crate::Backend::Iocp) alone.
    Iocp {
        /// How many AcceptEx operations are outstanding for each listening socket, 1 to 1,024. Default 64:
        /// a burst of 64 is accepted without a new post.
        accepts_outstanding: u32 = 64,
    }
}
