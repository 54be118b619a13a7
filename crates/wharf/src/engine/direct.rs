//! Frames that leave by the thread that sends them, to a session whose worker sleeps.
//!
//! To wake a worker for one frame costs more than the frame: so a thread that finds it asleep, and the
//! session with nothing queued, gives the frame to the socket itself, under the session's lock as ever.
//! What the socket does not take is queued, and the worker woken. But many frames are sent for less by one
//! who gathers them: when there are more than [`SENDS_MAX`] within [`WINDOW_MILLIS`], all are queued for
//! [`REST_MILLIS`].

use std::fmt;

use crate::buffer::Direct;
use crate::clock::Moment;
use crate::close::CloseReason;
use crate::port::{DirectSender, Registration};
use crate::session::Slot;
use crate::stats::Stats;
use crate::sync::{AtomicU64, OnceLock, Ordering};

/// A send of its own costs 2 µs, a gathered one 0.25 µs and its part of a wake. So many within a
/// millisecond, at most once in a hundred, cost a flood less than 1 %.
const SENDS_MAX: u64 = 128;
const WINDOW_MILLIS: u64 = 1;
const REST_MILLIS: u64 = 100;

/// Of one port: the way to its sockets, and what has left by it. On cache lines of its own: the worker
/// writes nothing of it.
#[repr(align(64))]
pub(crate) struct DirectSends {
    way: OnceLock<Way>,
    window: Window,
    sends: AtomicU64,
    bytes: AtomicU64,
    frames: AtomicU64,
}

struct Way {
    sender: DirectSender,
    now: Box<dyn Fn() -> Moment + Send + Sync>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sender.fmt(f)
    }
}

impl Default for DirectSends {
    fn default() -> Self {
        DirectSends {
            way: OnceLock::new(),
            window: Window::default(),
            sends: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            frames: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for DirectSends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectSends").field("window", &self.window).finish_non_exhaustive()
    }
}

impl DirectSends {
    /// Once, by the worker, before it serves.
    pub(crate) fn set_way(
        &self,
        sender: DirectSender,
        now: impl Fn() -> Moment + Send + Sync + 'static,
    ) {
        let set = self.way.set(Way { sender, now: Box::new(now) });
        debug_assert!(set.is_ok(), "a port with this way has one worker");
    }

    /// The way to the session's socket. For who holds a count.
    pub(super) fn to(&self, slot: &Slot) -> Option<ToSession<'_>> {
        let way = self.way.get()?;
        let registration = Registration(slot.registration()?);
        Some(ToSession { sends: self, way, registration })
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        stats.sends += self.sends.load(Ordering::Relaxed);
        stats.sent_bytes += self.bytes.load(Ordering::Relaxed);
        stats.sent_frames += self.frames.load(Ordering::Relaxed);
    }
}

/// The way to one session's socket.
#[derive(Debug)]
pub(super) struct ToSession<'a> {
    sends: &'a DirectSends,
    way: &'a Way,
    registration: Registration,
}

impl Direct for ToSession<'_> {
    /// Asked for the window here and not before, so that only what would leave counts: not what finds
    /// other frames before it, or no room.
    fn send(&self, parts: [&[u8]; 2]) -> Result<usize, CloseReason> {
        let DirectSends { window, sends, bytes, frames, .. } = self.sends;
        if !window.may_send((self.way.now)().since_start().as_millis() as u64) {
            return Ok(0);
        }
        let count = self.way.sender.send(self.registration, parts)?;
        sends.fetch_add(u64::from(count > 0), Ordering::Relaxed);
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        let whole = count == parts[0].len() + parts[1].len();
        frames.fetch_add(u64::from(whole), Ordering::Relaxed);
        Ok(count)
    }

    fn bytes_min(&self) -> usize {
        1
    }
}

/// How many have left by this way in the millisecond in which the first of them did: that millisecond,
/// and in the lowest [`COUNT_BITS`] bits their number.
#[derive(Debug, Default)]
struct Window(AtomicU64);

const COUNT_BITS: u32 = 16;

impl Window {
    /// Whether one more may leave now.
    fn may_send(&self, now_millis: u64) -> bool {
        let next = |word: u64| {
            let (began, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
            // Another thread may have looked at the clock a little later.
            let passed = now_millis.saturating_sub(began);
            let length = if count < SENDS_MAX { WINDOW_MILLIS } else { REST_MILLIS };
            match (passed >= length, count < SENDS_MAX) {
                (true, _) => Some(now_millis << COUNT_BITS | 1),
                (false, true) => Some(word + 1),
                (false, false) => None,
            }
        };
        // Relaxed: it is a measure, and guards nothing.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{Engine, Follows};
    use crate::framing::Framing;
    use crate::options::Options;
    use crate::port::{SendAnywhere, Sockets};
    use crate::sync::Mutex;

    /// A socket that takes so many bytes at a time.
    #[derive(Debug)]
    struct Takes(usize, Mutex<Vec<u8>>);

    impl SendAnywhere for Takes {
        fn send(
            &self,
            registration: Registration,
            parts: [&[u8]; 2],
        ) -> Result<usize, CloseReason> {
            assert_eq!(registration, Registration(7));
            let bytes = parts.concat();
            let count = bytes.len().min(self.0);
            self.1.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_frame_leaves_at_once_if_the_worker_sleeps_and_nothing_is_before_it() {
        let options = Options { workers: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let slot = engine.table.held(engine.admit(None).unwrap()).unwrap();
        let mailbox = &engine.ports[0].mailbox;
        let taken = Arc::new(Takes(3, Mutex::default()));
        let push = |bytes: &[u8]| {
            let (result, follows) = engine.push_from_outside(slot, bytes);
            result.unwrap();
            follows
        };
        let queued = |bytes: usize| assert_eq!(slot.send_queue.lock().queued_bytes(), bytes);

        assert!(mailbox.may_sleep());
        engine.ports[0].direct_sends.set_way(taken.clone(), Moment::default);
        assert!(push(b"a").armed, "its socket is not registered yet");
        slot.set_registration(Some(7));
        assert!(!push(b"b").armed, "something is before it");
        let mut batch = slot.begin_send(|| 0).unwrap();
        assert!(!push(b"c").armed, "a send is outstanding");
        batch.advance(2);
        slot.send_queue.lock().sent(batch, 2, 0);
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        assert!(!slot.send_queue.lock().sent(batch, 1, 0).goes_on);
        mailbox.take(&mut Vec::new());
        assert!(push(b"d").armed, "the worker is awake");
        let mut batch = slot.begin_send(|| 0).unwrap();
        batch.advance(1);
        slot.send_queue.lock().sent(batch, 1, 0);
        assert!(taken.1.lock().is_empty());

        assert!(mailbox.may_sleep());
        assert_eq!(push(b"efg"), Follows::default(), "nobody need be told");
        queued(0);
        assert!(push(b"hijkl").armed, "the rest is the worker's");
        queued(2);
        assert!(!push(b"m").armed);
        queued(3);
        assert_eq!(*taken.1.lock(), b"efghij");
        let stats = engine.stats();
        assert_eq!((stats.sends, stats.sent_bytes, stats.sent_frames), (2, 6, 1));
    }

    #[test]
    fn what_would_not_leave_at_once_anyway_takes_nothing_from_others() {
        let options = Options { workers: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let [stalled, other] =
            [(); 2].map(|()| engine.table.held(engine.admit(None).unwrap()).unwrap());
        let taken = Arc::new(Takes(1, Mutex::default()));
        engine.ports[0].direct_sends.set_way(taken.clone(), Moment::default);
        assert!(engine.ports[0].mailbox.may_sleep());
        assert!(engine.push_from_outside(stalled, b"a").1.armed, "it is not registered yet");
        stalled.set_registration(Some(7));
        for _ in 0..2 * SENDS_MAX {
            assert_eq!(engine.push_from_outside(stalled, b"b").1, Follows::default());
        }
        other.set_registration(Some(7));
        assert_eq!(engine.push_from_outside(other, b"c").1, Follows::default());
        assert_eq!(*taken.1.lock(), b"c");
    }

    #[test]
    fn so_many_may_leave_in_a_millisecond_and_after_more_none_for_a_while() {
        let window = Window::default();
        for millis in 100..200 {
            assert!((0..SENDS_MAX - 1).all(|_| window.may_send(millis)), "a steady stream");
        }
        assert!(window.may_send(199), "the last that may");
        for millis in 199..199 + REST_MILLIS {
            assert!(!window.may_send(millis));
        }
        assert!(window.may_send(199 + REST_MILLIS));
        assert!(window.may_send(190), "a clock that was looked at before");
    }
}
