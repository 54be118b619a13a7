//! Which port serves, and why.

use std::fmt;
use std::str::FromStr;

use crate::error::{BackendRefusal, Error, Result};

/// Which completion port to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring where the kernel grants every feature it needs, else readiness; on Windows iocp.
    /// The default.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// epoll or kqueue. Not on Windows.
    Readiness,
    /// I/O completion ports. Windows alone, and all there is there.
    Iocp,
    /// The simulated port: of servers that a `simulation::Simulation` has started, and no others.
    #[cfg(feature = "simulation")]
    Simulated,
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Backend::Auto),
            "uring" => Ok(Backend::Uring),
            "readiness" => Ok(Backend::Readiness),
            "iocp" => Ok(Backend::Iocp),
            _ => Err(Error::BackendName { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Uring => "uring",
            Backend::Readiness => "readiness",
            Backend::Iocp => "iocp",
            #[cfg(feature = "simulation")]
            Backend::Simulated => "simulated",
        })
    }
}

/// Which port was chosen, and why. Its `Display` is the one line that a server says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendChoice {
    /// It was asked for by name.
    Forced(Backend),
    /// io_uring was there with all it needs.
    UringGranted,
    /// io_uring cannot be used, for this reason.
    UringRefused(BackendRefusal),
    /// This is Windows, which has I/O completion ports and needs no choice.
    WindowsHasIocp,
}

impl BackendChoice {
    /// The port that serves: any but [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        match self {
            BackendChoice::Forced(backend) => *backend,
            BackendChoice::UringGranted => Backend::Uring,
            BackendChoice::UringRefused(_) => Backend::Readiness,
            BackendChoice::WindowsHasIocp => Backend::Iocp,
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendChoice::Forced(backend) => write!(f, "{backend} (asked for)"),
            BackendChoice::UringGranted => {
                f.write_str("uring (the kernel grants every feature it needs)")
            }
            BackendChoice::UringRefused(reason) => write!(f, "readiness (no io_uring: {reason})"),
            BackendChoice::WindowsHasIocp => f.write_str("iocp (the completion port of Windows)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_no_backend_is_told_as_that_wherever_it_came_from() {
        for backend in [Backend::Auto, Backend::Uring, Backend::Readiness, Backend::Iocp] {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
        }
        let error = "foo".parse::<Backend>().unwrap_err().to_string();
        let rest = "there are auto, uring, readiness and iocp";
        assert_eq!(error, format!("no backend is named \"foo\"; {rest}"));
    }
}
