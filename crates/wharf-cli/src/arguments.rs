//! Arguments that both tasks take, and how they are read.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use wharf::{Backend, Framing, LengthPrefix};

/// Which completion port to use.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BackendName {
    /// io_uring where the kernel grants it, else readiness; on Windows iocp.
    Auto,
    /// io_uring, or a failure that says why not.
    Uring,
    /// epoll or kqueue. Not on Windows.
    Readiness,
    /// I/O completion ports. Windows alone.
    Iocp,
}

impl BackendName {
    /// `auto` is what WHARF_BACKEND says, if it says anything.
    pub(crate) fn backend(self) -> Result<Backend, String> {
        match self {
            BackendName::Auto => match std::env::var_os("WHARF_BACKEND") {
                Some(name) if !name.is_empty() => {
                    let backend = name.to_string_lossy().parse();
                    backend.map_err(|error| format!("WHARF_BACKEND: {error}"))
                }
                _ => Ok(Backend::Auto),
            },
            BackendName::Uring => Ok(Backend::Uring),
            BackendName::Readiness => Ok(Backend::Readiness),
            BackendName::Iocp => Ok(Backend::Iocp),
        }
    }
}

/// How bytes are cut into frames.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FramingName {
    /// Not at all: whatever has come is a frame.
    Raw,
    /// Each frame behind its length, 4 bytes.
    Length,
}

impl FramingName {
    pub(crate) fn framing(self) -> Framing {
        match self {
            FramingName::Raw => Framing::raw(),
            FramingName::Length => Framing::length_prefixed(LengthPrefix::default()),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            FramingName::Raw => "raw",
            FramingName::Length => "length",
        }
    }
}

/// Seconds, with fractions if need be: `10`, `0.25`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())
}

/// A rate of more than nothing a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("not a rate above 0".to_owned()),
    }
}

/// `ADDRESS:PORT`, or `NAME:PORT` of which the first address is taken.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "a name without an address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_fractions_but_not_be_negative() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err() && seconds("nan").is_err());
    }

    #[test]
    fn a_rate_is_above_nothing() {
        assert_eq!(rate("4000"), Ok(4000.0));
        assert!(rate("0").is_err() && rate("inf").is_err() && rate("-3").is_err());
    }
}
