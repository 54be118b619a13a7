//! How an operator ends a running server: SIGINT or SIGTERM; on Windows Ctrl-C or Ctrl-Break.
//!
//! One crate per system. `ctrlc` supports Unix too, but there it takes SIGTERM and SIGHUP together or
//! neither, and a server started under `nohup` must outlive its terminal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::start_thread;

/// From now on each signal is one item.
#[cfg(unix)]
pub(crate) fn listen() -> io::Result<Receiver<()>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (tell, told) = channel();
    start_thread(move || {
        for _signal in signals.forever() {
            // Nobody listens any more only when the process ends.
            let _ = tell.send(());
        }
    })?;
    Ok(told)
}

/// From now on each signal is one item. A console window that is closed is one too, but Windows
/// ends the process without waiting for what follows from it.
#[cfg(windows)]
pub(crate) fn listen() -> io::Result<Receiver<()>> {
    let (tell, told) = channel();
    ctrlc::set_handler(move || {
        // As above.
        let _ = tell.send(());
    })
    .map_err(io::Error::other)?;
    Ok(told)
}

/// For a run that has an end of its own: the first signal sets this, the second ends the process with exit
/// code 1.
pub(crate) fn stop() -> io::Result<Arc<AtomicBool>> {
    let (signals, stop) = (listen()?, Arc::new(AtomicBool::new(false)));
    let to_be_set = Arc::clone(&stop);
    start_thread(move || {
        for _signal in signals {
            if to_be_set.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        }
    })?;
    Ok(stop)
}
