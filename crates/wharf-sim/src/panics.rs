//! Panics of workers: deliberate ones are ignored; a broken invariant becomes part of the violation.

use std::any::Any;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use crate::misbehaviour::{Dreadful, ON_PURPOSE};

/// The last that a worker said when it failed.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// From now on workers' panics are kept instead of printed.
pub(crate) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let text = text_of(panic.payload()).unwrap_or("no words");
            if text == ON_PURPOSE || panic.payload().is::<Dreadful>() {
                return;
            }
            let is_worker =
                std::thread::current().name().is_some_and(|name| name.starts_with("wharf-"));
            if !is_worker {
                return usual(panic);
            }
            let is_on_purpose = text.ends_with("on purpose"); // a fault of the simulation's
            if !is_on_purpose && std::env::var_os("RUST_BACKTRACE").is_some() {
                usual(panic); // with all there is to see
            }
            let place = panic.location().map_or(String::new(), |place| format!(" ({place})"));
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            last.get_or_insert(format!("{text}{place}"));
        }));
    });
}

/// What a worker said when it failed, if one has since this was last asked. (Of several lanes that fail
/// at once, one is told what another's said.)
pub(crate) fn take_last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}
