//! Nine facts of a send queue and its pages, in one word: so that a slot stays one cache line.

/// A thread is responsible for sending what waits.
pub(super) const ARMED: u32 = 1;
/// A send operation is outstanding.
pub(super) const SENDING: u32 = 2;
/// Nothing is sent yet, because the connect is outstanding.
pub(super) const HELD_BACK: u32 = 4;
/// Receiving is paused until fewer bytes are queued.
pub(super) const PAUSED: u32 = 8;
/// Something of the program's waits for the session: a note, a timer that has fired.
pub(super) const DUE: u32 = 16;
/// It is told more of that in the worker's next turn, and not in this one.
pub(super) const PUT_OFF: u32 = 32;
/// Who wants receiving paused.
const PAUSED_BY_PROGRAM: u32 = 64;
const PAUSED_BY_EVENTS: u32 = 128;
const PAUSED_BY_JOBS: u32 = 256;
const PAGE_SHIFT: u32 = 9;

/// Who wants the receiving of a session paused: each resumes it for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedBy {
    Program,
    /// A program's loop has no room for more events.
    Events,
    /// It has as many jobs as it may have.
    Jobs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(u32);

impl Marks {
    /// Whether any of these is set.
    #[inline]
    pub(super) fn has(self, marks: u32) -> bool {
        self.0 & marks != 0
    }

    /// Whether of these those are set.
    #[inline]
    pub(super) fn are(self, marks: u32, set: u32) -> bool {
        self.0 & marks == set
    }

    /// Returns whether it was set.
    #[inline]
    pub(super) fn set(&mut self, mark: u32, is_set: bool) -> bool {
        let was_set = self.has(mark);
        self.0 = if is_set { self.0 | mark } else { self.0 & !mark };
        was_set
    }

    /// Notes who wants receiving paused. Returns whether anybody does now.
    pub(super) fn ask_to_pause(&mut self, by: PausedBy, pause: bool) -> bool {
        let mark = match by {
            PausedBy::Program => PAUSED_BY_PROGRAM,
            PausedBy::Events => PAUSED_BY_EVENTS,
            PausedBy::Jobs => PAUSED_BY_JOBS,
        };
        self.set(mark, pause);
        self.has(PAUSED_BY_PROGRAM | PAUSED_BY_EVENTS | PAUSED_BY_JOBS)
    }

    /// The pages that are charged for the queue. Fewer than 2^23: a queue has at most 1 GiB.
    #[inline]
    pub(super) fn pages(self) -> u32 {
        self.0 >> PAGE_SHIFT
    }

    pub(super) fn add_pages(&mut self, pages: u32) {
        debug_assert!(self.pages() + pages < 1 << (32 - PAGE_SHIFT), "more than a queue may have");
        self.0 += pages << PAGE_SHIFT;
    }

    pub(super) fn take_pages(&mut self, pages: u32) {
        debug_assert!(self.pages() >= pages, "more pages were freed than were charged");
        self.0 -= pages << PAGE_SHIFT;
    }

    /// Nothing is set, and no page is charged.
    pub(super) fn is_new(self) -> bool {
        self == Marks::default()
    }
}
