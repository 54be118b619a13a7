//! The listening sockets.

use crate::settings::settings;

settings! {
    /// The listening sockets.
    Listening {
        /// How many connections the kernel may hold for one listening socket before they are accepted. The
        /// kernel limits it to `net.core.somaxconn`. On Linux each worker has a listening socket of its own
        /// for each address. Default 4,096: one second of newcomers.
        backlog: u32 = 4_096,
        /// Whether `[::]` takes IPv6 alone (IPV6_V6ONLY). Default `false`: it takes IPv4 too, and such a
        /// peer's address is an IPv4 address. If an IPv4 address with the same port (`0.0.0.0`, say) is
        /// listened on as well, that one takes IPv4, and `[::]` does not.
        ipv6_only: bool = false,
    }
}
