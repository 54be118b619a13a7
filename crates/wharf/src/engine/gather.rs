//! What a thread sends in one go leaves in one send for each session.
//!
//! While a thread gathers, frames are queued as always, but no worker is told of them, and nothing is sent at once. The
//! mail that would tell them waits on the thread, and is posted at the end.

use std::cell::{Cell, RefCell};

use super::engine::Engine;
use super::mailbox::Mail;

/// So much mail waits at most; then it is posted in between.
const MAILS_MAX: usize = 65_536;
/// For so much mail memory is kept.
const AT_REST_MAX: usize = 1_024;

thread_local! {
    /// The address of the engine for which this thread gathers. 0: none.
    static GATHERS_FOR: Cell<usize> = const { Cell::new(0) };
    /// Mail, and the port that it is for.
    static MAILS: RefCell<Vec<(usize, Mail)>> = const { RefCell::new(Vec::new()) };
}

/// Ends the gathering, also when the program's code panics.
struct Ends<'e>(&'e Engine);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        GATHERS_FOR.set(0);
        self.0.post_gathered();
    }
}

impl Engine {
    /// Runs the program's code, and gathers what it sends.
    pub(crate) fn gather<R>(&self, act: impl FnOnce() -> R) -> R {
        if GATHERS_FOR.get() != 0 {
            return act(); // for this engine already; or for another, whose callers are not ours
        }
        GATHERS_FOR.set(self.address());
        let _ends = Ends(self);
        act()
    }

    #[inline]
    pub(super) fn is_gathering(&self) -> bool {
        GATHERS_FOR.get() == self.address()
    }

    /// Posts mail to a port, or keeps it while this thread gathers. Has the port's worker ended, so have its sessions,
    /// and nothing is left to attend to.
    #[inline]
    pub(super) fn post_or_keep(&self, port: usize, mail: Mail) {
        if !self.is_gathering() {
            let _ = self.ports[port].mailbox.post(mail);
            return;
        }
        let is_full = MAILS.with_borrow_mut(|mails| {
            mails.push((port, mail));
            mails.len() >= MAILS_MAX
        });
        if is_full {
            self.post_gathered();
        }
    }

    fn post_gathered(&self) {
        let mut mails = MAILS.take();
        for (index, port) in self.ports.iter().enumerate() {
            let of_port = mails.extract_if(.., |(to, _)| *to == index);
            port.mailbox.post_all(of_port.map(|(_, mail)| mail));
        }
        mails.clear();
        mails.shrink_to(AT_REST_MAX);
        MAILS.set(mails);
    }
}
