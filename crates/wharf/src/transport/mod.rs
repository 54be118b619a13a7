//! The layers between a session's bytes and its framing. They know no socket, no clock and no operating system.

pub(crate) mod web_socket;
