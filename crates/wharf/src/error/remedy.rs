//! What to do about an error of the operating system's.

use std::fmt;
use std::io::{self, ErrorKind};

/// No descriptor is left: for this process (EMFILE, WSAEMFILE), or for all of them (ENFILE).
const PROCESS_HAS_NO_DESCRIPTOR: i32 = if cfg!(windows) { 10_024 } else { 24 };
const SYSTEM_HAS_NO_DESCRIPTOR: i32 = 23;

/// The remedy, if there is one that helps whatever was attempted.
pub(super) fn remedy(error: &io::Error) -> Option<&'static str> {
    match (error.kind(), error.raw_os_error()) {
        (_, Some(PROCESS_HAS_NO_DESCRIPTOR)) if cfg!(windows) => {
            Some("this process may have no more sockets")
        }
        (_, Some(PROCESS_HAS_NO_DESCRIPTOR)) => {
            Some("raise this process's limit on open files: `ulimit -n`, LimitNOFILE=")
        }
        (_, Some(SYSTEM_HAS_NO_DESCRIPTOR)) if cfg!(unix) => {
            Some("raise the system's limit on open files: sysctl fs.file-max")
        }
        (ErrorKind::WouldBlock, _) if cfg!(unix) => {
            Some("raise the limit on threads: `ulimit -u`, TasksMax=")
        }
        _ => None,
    }
}

/// The remedy in brackets, or nothing.
pub(super) struct InBrackets<R>(pub(super) Option<R>);

impl InBrackets<&'static str> {
    pub(super) fn of(error: &io::Error) -> Self {
        InBrackets(remedy(error))
    }

    /// Of one that came of looking up a name.
    pub(super) fn of_name(error: &io::Error) -> Self {
        let is_malformed = error.kind() == ErrorKind::InvalidInput;
        InBrackets(is_malformed.then_some("it must be HOST:PORT"))
    }
}

impl<R: fmt::Display> fmt::Display for InBrackets<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::error::{AcceptError, BackendRefusal, ConnectError, Error, ListenError};

    fn no_descriptor() -> io::Error {
        io::Error::from_raw_os_error(PROCESS_HAS_NO_DESCRIPTOR)
    }

    /// What prints an error and its sources would say it twice.
    #[test]
    fn what_an_error_says_does_not_repeat_its_source() {
        let address = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 7_000));
        let source = no_descriptor;
        let errors: [Box<dyn std::error::Error>; 6] = [
            Box::new(Error::Resolve { name: "here".to_owned(), source: source() }),
            Box::new(Error::Thread(source())),
            Box::new(Error::Port { worker: 1, source: source() }),
            Box::new(ConnectError::Socket { address: address.into(), source: source() }),
            Box::new(ListenError { address: address.into(), source: source() }),
            Box::new(AcceptError { source: source() }),
        ];
        for error in &errors {
            let source = error.source().expect("it came of something").to_string();
            let said = error.to_string();
            assert!(!said.contains(&source) && !said.contains("os error"), "{said}: {source}");
        }
        // What came of several has none of its own, and says them all.
        let failures =
            [(); 2].map(|()| ListenError { address: address.into(), source: source() }).into();
        let error = Error::Listen { name: "here".to_owned(), failures };
        assert!(error.source().is_none());
        assert_eq!(error.to_string().matches("os error").count(), 2, "{error}");
    }

    #[test]
    fn where_no_descriptor_is_left_that_is_what_is_advised_and_no_other_backend() {
        let step = "io_uring_setup";
        let refusal = BackendRefusal::Os { step, code: PROCESS_HAS_NO_DESCRIPTOR };
        let port = Error::Port { worker: 0, source: no_descriptor() };
        for said in [refusal.to_string(), port.to_string()] {
            let helps = if cfg!(windows) { "sockets" } else { "ulimit -n" };
            assert!(said.contains(helps) && !said.contains("readiness"), "{said}");
        }
        let other = BackendRefusal::Os { step, code: 7 }.to_string();
        assert!(other.ends_with("; use the readiness backend"), "{other}");
    }
}
