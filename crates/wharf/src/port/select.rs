//! Which port serves: chosen once, at start, and said in one line.

use crate::config::{Backend, BackendChoice, Options};
use crate::error::{BackendRefusal, Error, Result};

/// Chooses by the options, the environment and the kernel.
pub(crate) fn choose(options: &Options) -> Result<BackendChoice> {
    let asked = match options.backend {
        Backend::Auto => from_environment()?,
        forced => forced,
    };
    match asked {
        Backend::Readiness => Ok(BackendChoice::Forced(Backend::Readiness)),
        Backend::Uring => match probe_uring(options) {
            Ok(()) => Ok(BackendChoice::Forced(Backend::Uring)),
            Err(reason) => Err(Error::Backend { backend: "uring", reason }),
        },
        Backend::Auto => Ok(match probe_uring(options) {
            Ok(()) => BackendChoice::UringGranted,
            Err(reason) => BackendChoice::UringRefused(reason),
        }),
    }
}

fn from_environment() -> Result<Backend> {
    match std::env::var("WHARF_BACKEND") {
        Ok(name) if !name.is_empty() => name.parse(),
        _ => Ok(Backend::Auto),
    }
}

#[cfg(target_os = "linux")]
fn probe_uring(options: &Options) -> std::result::Result<(), BackendRefusal> {
    use super::uring::{UringSizes, probe};
    probe(UringSizes::new(options.receive_buffers, options.receive_buffer_bytes))
}

#[cfg(not(target_os = "linux"))]
fn probe_uring(_: &Options) -> std::result::Result<(), BackendRefusal> {
    Err(BackendRefusal::NotThere)
}
