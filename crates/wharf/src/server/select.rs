//! Which port serves: chosen once, at start, and said in one line.

use crate::error::{BackendRefusal, Error, Result};
use crate::options::{Backend, BackendChoice, Options};

/// Chooses by the options and the kernel.
#[cfg(unix)]
pub(crate) fn choose(options: &Options) -> Result<BackendChoice> {
    match options.backend {
        Backend::Readiness => Ok(BackendChoice::Forced(Backend::Readiness)),
        Backend::Uring => match probe_uring(options) {
            Ok(()) => Ok(BackendChoice::Forced(Backend::Uring)),
            Err(reason) => Err(Error::Backend { backend: "uring", reason }),
        },
        Backend::Iocp => {
            let reason = BackendRefusal::OtherSystem { instead: "readiness" };
            Err(Error::Backend { backend: "iocp", reason })
        }
        #[cfg(feature = "simulation")]
        Backend::Simulated => {
            let reason = BackendRefusal::OtherSystem { instead: "readiness" };
            Err(Error::Backend { backend: "simulated", reason })
        }
        Backend::Auto => Ok(match probe_uring(options) {
            Ok(()) => BackendChoice::UringGranted,
            Err(reason) => BackendChoice::UringRefused(reason),
        }),
    }
}

/// Chooses by the options alone.
#[cfg(windows)]
pub(crate) fn choose(options: &Options) -> Result<BackendChoice> {
    let refused = |backend| {
        let reason = BackendRefusal::OtherSystem { instead: "iocp" };
        Err(Error::Backend { backend, reason })
    };
    match options.backend {
        Backend::Auto => Ok(BackendChoice::WindowsHasIocp),
        Backend::Iocp => Ok(BackendChoice::Forced(Backend::Iocp)),
        Backend::Uring => refused("uring"),
        Backend::Readiness => refused("readiness"),
        #[cfg(feature = "simulation")]
        Backend::Simulated => refused("simulated"),
    }
}

/// Asks on a thread of its own: the kernel ends a ring by interrupting the thread that made it, and
/// a caller's later blocking call must not fail with EINTR because it once started a server.
#[cfg(target_os = "linux")]
fn probe_uring(options: &Options) -> std::result::Result<(), BackendRefusal> {
    use crate::port::uring::{UringSizes, probe};
    let sizes = UringSizes::new(options.uring.receive_buffers, options.uring.receive_buffer_bytes);
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new()
            .name("wharf-probe".to_owned())
            .spawn_scoped(scope, || probe(sizes));
        match asking.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                Err(BackendRefusal::Os { step: "starting a thread", code })
            }
        }
    })
}

#[cfg(all(unix, not(target_os = "linux")))]
fn probe_uring(_: &Options) -> std::result::Result<(), BackendRefusal> {
    Err(BackendRefusal::NotThere)
}
