//! Misbehaving user code: destructors that panic, bytes that panic or call back in when read, callbacks that
//! block. Each is a named fault, so shrinking can remove it.

use std::panic::panic_any;
use std::time::Duration;

use wharf::simulation::{Fault, fires, now, sleep};
use wharf::{Group, Handle, SessionId};

/// Panics with words on purpose; who prints panics looks for this.
pub(crate) const ON_PURPOSE: &str = "the user's code panics on purpose";

/// A panic's payload, whose destructor panics too.
pub(crate) struct Dreadful;

impl Drop for Dreadful {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_any(Dreadful);
        }
    }
}

/// Panics with words, or with what panics when it is dropped.
pub(crate) fn panic_on_purpose() -> ! {
    if fires(Fault::DestructorPanics) {
        panic_any(Dreadful);
    }
    panic!("{ON_PURPOSE}");
}

/// In a callback: it may block, for 16 µs to 2 s.
pub(crate) fn may_block() {
    if fires(Fault::CallbackBlocks) {
        let magnitude = now().unwrap_or_default().as_nanos() as u32 % 18;
        sleep(Duration::from_nanos(1 << (14 + magnitude)));
    }
}

/// What a bad frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    /// Panics when it is looked at.
    Unreadable,
    /// Calls back in when it is looked at.
    CallsIn,
    /// Panics when it is dropped.
    Undroppable,
}

/// A frame that may misbehave when it is given to a handle.
#[derive(Debug)]
pub(crate) struct Bytes<'a> {
    frame: &'a [u8],
    mood: Mood,
    handle: &'a Handle,
    id: SessionId,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(frame: &'a [u8], handle: &'a Handle, id: SessionId) -> Self {
        let mood = match fires(Fault::BytesMisbehave) {
            false => Mood::Good,
            true => [Mood::Unreadable, Mood::CallsIn, Mood::Undroppable][frame.len() % 3],
        };
        Bytes { frame, mood, handle, id }
    }

    /// The frame, with which nothing will happen any more.
    pub(crate) fn into_frame(mut self) -> Vec<u8> {
        self.mood = Mood::Good;
        self.frame.to_vec()
    }

    /// A call that panics has not even tried it. Of another that panics, it was taken.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.mood == Mood::Unreadable
    }
}

impl AsRef<[u8]> for Bytes<'_> {
    fn as_ref(&self) -> &[u8] {
        match self.mood {
            Mood::Unreadable => panic!("{ON_PURPOSE}"),
            Mood::CallsIn => {
                // To a group that nobody is in, and from one that the session is not in.
                let _ = self.handle.stats();
                let _ = self.handle.publish(Group(u64::MAX), b"nobody");
                let _ = self.handle.leave(self.id, Group(u64::MAX));
            }
            Mood::Good | Mood::Undroppable => {}
        }
        self.frame
    }
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        if self.mood == Mood::Undroppable && !std::thread::panicking() {
            panic!("{ON_PURPOSE}");
        }
    }
}
