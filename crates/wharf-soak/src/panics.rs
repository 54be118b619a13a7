//! Panics: deliberate ones, and the message of a worker that fails by a bug.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::{Mutex, Once, PoisonError};

const ON_PURPOSE: &str = "on purpose";

/// The last that a worker said when it failed.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// A payload whose destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        on_purpose_unless_panicking();
    }
}

pub(crate) fn on_purpose() -> ! {
    panic!("{ON_PURPOSE}")
}

/// With a payload that panics when it is dropped.
pub(crate) fn on_purpose_with_bomb() -> ! {
    panic_any(Bomb)
}

/// For destructors: a second panic would end the process.
pub(crate) fn on_purpose_unless_panicking() {
    if !std::thread::panicking() {
        on_purpose();
    }
}

/// Runs what may panic on purpose. `None`: it did.
pub(crate) fn expected<R>(body: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}

fn is_on_purpose(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Bomb>() || text_of(payload) == Some(ON_PURPOSE)
}

fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// From now on panics on purpose are silent, and those of workers are kept.
pub(crate) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if is_on_purpose(panic.payload()) {
                return;
            }
            let thread = std::thread::current();
            if thread.name().is_some_and(is_worker) {
                let text = text_of(panic.payload()).unwrap_or("no words");
                let place = panic.location().map_or(String::new(), |place| format!(" ({place})"));
                let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
                last.get_or_insert(format!("{}: {text}{place}", thread.name().unwrap_or_default()));
            } else {
                usual(panic);
            }
        }));
    });
}

/// Whether a thread of this name is a server's.
pub(crate) fn is_worker(name: &str) -> bool {
    name.strip_prefix("wharf-").is_some_and(|number| number.parse::<usize>().is_ok())
}

/// What a worker has said when it failed, if one has.
pub(crate) fn last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What a worker said when it failed, if one has since this was last asked.
pub(crate) fn take_last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).take()
}
