//! A session that is behind: publications that it lacks wait outside its send queue.
//!
//! While it is behind, a completion refills the queue with a part of what the session lacks, so something is always
//! being sent. A send would overtake what it lacks: so it finds no room, or waits among the publications.

use super::super::policy::Policy;
use super::aside::{Aside, Lacks};
use super::pace::Pace;
use super::store::Store;
use super::{Pushed, Refusal, SendQueue};
use crate::buffer::{Frame, SharedFrame};

impl SendQueue {
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| aside.lacks.is_some())
    }

    fn refill_bytes(&self, policy: Policy, bytes_max: usize) -> usize {
        match self.aside.as_deref() {
            Some(aside) => refill_bytes(&aside.pace, policy, bytes_max),
            None => refill_bytes(&Pace::default(), policy, bytes_max),
        }
    }

    /// Whether a send must wait its turn among the publications.
    #[inline]
    pub(crate) fn has_sends_placed(&self) -> bool {
        let waits = |aside: &Aside| aside.lacks.is_some() || aside.placed_bytes > 0;
        self.aside.as_deref().is_some_and(waits)
    }

    /// Bytes of sends that wait their turn among the publications.
    #[inline]
    pub(crate) fn placed_bytes(&self) -> usize {
        self.aside.as_deref().map_or(0, |aside| aside.placed_bytes as usize)
    }

    /// Whether it still takes what was published before.
    fn takes_publication(&self) -> bool {
        !self.is_ending() || self.takes_published()
    }

    /// Queues a published frame. Without room for it, the session is behind, or misses it: what its policy says.
    #[inline]
    pub(crate) fn push_published(
        &mut self,
        frame: &SharedFrame,
        policy: Policy,
        bytes_max: usize,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        if policy == Policy::Close && !self.has_aside() {
            match self.push_now(Frame::Shared(frame), bytes_max, true, store) {
                Err(Refusal::Full { .. }) => {}
                pushed => return pushed,
            }
        }
        self.push_or_place(frame, policy, bytes_max, store)
    }

    #[inline(never)]
    fn push_or_place(
        &mut self,
        frame: &SharedFrame,
        policy: Policy,
        bytes_max: usize,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        if !self.takes_publication() {
            return Err(Refusal::Closing);
        }
        let queued_bytes = self.queued_bytes();
        if !self.is_behind() {
            let is_fresh = queued_bytes == 0
                || policy != Policy::KeepLatest
                || queued_bytes + frame.bytes() <= self.refill_bytes(policy, bytes_max);
            if is_fresh && queued_bytes + frame.bytes() <= bytes_max {
                match self.push_now(Frame::Shared(frame), bytes_max, true, store) {
                    Err(Refusal::Full { .. }) => {}
                    pushed => return pushed,
                }
            }
        }
        let is_behind = self.is_behind();
        let aside = self.aside.get_or_insert_default();
        if policy == Policy::Skip {
            aside.misses = true;
        } else if !is_behind {
            aside.pace.begins();
            let next_bytes = frame.bytes() as u32; // at most 1 GiB
            let refill_bytes = refill_bytes(&aside.pace, policy, bytes_max) as u32;
            aside.lacks = Some(Lacks { next_bytes, refill_bytes });
        }
        Err(Refusal::Behind { queued_bytes })
    }

    /// Queues a frame that the session lacks, if the queue is not filled far enough with it.
    pub(crate) fn push_lacked(
        &mut self,
        frame: &SharedFrame,
        policy: Policy,
        bytes_max: usize,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        if !self.takes_publication() {
            return Err(Refusal::Closing);
        }
        let (queued_bytes, refill_bytes) =
            (self.queued_bytes(), self.refill_bytes(policy, bytes_max));
        if queued_bytes > 0 && queued_bytes + frame.bytes() > refill_bytes {
            if let Some(lacks) = self.aside.as_mut().and_then(|aside| aside.lacks.as_mut()) {
                (lacks.next_bytes, lacks.refill_bytes) =
                    (frame.bytes() as u32, refill_bytes as u32);
            }
            return Err(Refusal::Behind { queued_bytes });
        }
        self.push_now(Frame::Shared(frame), usize::MAX, true, store)
    }

    /// Whether the queue has room for the next frame that the session lacks.
    #[inline]
    pub(crate) fn is_to_refill(&self) -> bool {
        self.aside.as_deref().and_then(|aside| aside.lacks.as_ref()).is_some_and(|lacks| {
            let queued_bytes = self.queued_bytes();
            // A session that closes without waiting for what it lacks gets no more.
            self.takes_publication()
                && !self.is_short()
                && (queued_bytes == 0
                    || queued_bytes + lacks.next_bytes as usize <= lacks.refill_bytes as usize)
        })
    }

    /// Whether the handler is to be told how many frames the session has missed: it has room for what follows.
    #[inline]
    pub(crate) fn has_missed(&self, bytes_max: usize) -> bool {
        self.aside.as_deref().is_some_and(|aside| {
            aside.misses
                && aside.lacks.is_none()
                && !self.is_ending()
                && self.queued_bytes() <= self.refill_bytes(Policy::Skip, bytes_max)
        })
    }

    /// Whether it has missed frames that it was not told of.
    pub(crate) fn misses(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| aside.misses)
    }

    /// The session misses nothing any more.
    pub(crate) fn misses_no_more(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.misses = false;
        }
    }

    /// Whether a frame of which only the newest is to leave may be queued now.
    pub(crate) fn takes_latest(&self, bytes: usize, bytes_max: usize) -> bool {
        let queued_bytes = self.queued_bytes();
        !self.is_ending()
            && !self.has_sends_placed()
            && (queued_bytes == 0
                || queued_bytes + bytes <= self.refill_bytes(Policy::KeepLatest, bytes_max))
    }

    /// A look at a session that is behind: how many bytes the OS holds for it. Returns how many have left. `None`: it
    /// is not behind.
    pub(crate) fn look(&mut self, unacknowledged_bytes: u64, now: u64) -> Option<u64> {
        let left_bytes = self.left_while_behind()?;
        let aside = self.aside.as_mut()?;
        aside.pace.look(left_bytes as i64 - unacknowledged_bytes as i64, now);
        Some(left_bytes)
    }

    /// The session lacks nothing any more.
    pub(crate) fn caught_up(&mut self, now: u64) {
        if let Some(aside) = &mut self.aside {
            aside.lacks = None;
            aside.pace.ends(now);
        }
    }

    /// Bytes that have left so far, of a session that is behind: how many there are more says what has left since an
    /// earlier look. `None`: it is not behind.
    pub(crate) fn left_while_behind(&self) -> Option<u64> {
        self.aside.as_deref().filter(|aside| aside.lacks.is_some()).map(|aside| aside.left_bytes)
    }

    pub(super) fn note_left(&mut self, bytes: usize) {
        if let Some(aside) = &mut self.aside {
            aside.left_bytes += bytes as u64;
        }
    }

    /// Whether a send of so many bytes may wait among the publications, as much as an empty queue takes. False also
    /// if it need not wait.
    pub(crate) fn may_place_send(&self, bytes: usize, bytes_max: usize) -> bool {
        !self.is_ending()
            && self.has_sends_placed()
            && bytes <= bytes_max.saturating_sub(self.placed_bytes())
    }

    pub(crate) fn send_is_placed(&mut self, bytes: usize) {
        self.aside.get_or_insert_default().placed_bytes += bytes as u32; // within the bound
    }

    /// A send that waited has had its turn.
    pub(crate) fn placed_send_came(&mut self, bytes: usize) {
        if let Some(aside) = &mut self.aside {
            debug_assert!(aside.placed_bytes as usize >= bytes, "a send came that was not placed");
            aside.placed_bytes = aside.placed_bytes.saturating_sub(bytes as u32);
        }
    }
}

/// How far a send queue is filled with what its session lacks. The rest of the queue is for sends.
fn refill_bytes(pace: &Pace, policy: Policy, bytes_max: usize) -> usize {
    match policy {
        Policy::KeepLatest => (bytes_max / 4).min(pace.bytes()),
        Policy::Close | Policy::Skip => bytes_max / 4,
    }
}
