//! Frames that are not plain bytes, but user code that panics, calls back or changes its answer.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf::{Close, Group, Handle, SessionId};

use crate::deeds::TOWN;
use crate::frames::{Frame, Kind};
use crate::panics;
use crate::plan::Hazards;
use crate::random::Random;
use crate::truth::Truth;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oddity {
    AsRefPanics,
    AsRefCalls,
    AsRefChanges,
    DropPanics,
}

/// Bytes of which each look may find others, and a destructor that may panic. Two frames of one number:
/// one of them arrives whole, or none.
pub(crate) struct OddFrame {
    oddity: Oddity,
    looks: AtomicUsize,
    bytes: [Vec<u8>; 2],
    calls: Option<Calls>,
}

struct Calls {
    handle: Handle,
    id: SessionId,
    inner: Vec<u8>,
    what: u64,
}

impl fmt::Debug for OddFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.oddity.fmt(f)
    }
}

impl AsRef<[u8]> for OddFrame {
    fn as_ref(&self) -> &[u8] {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        match (self.oddity, &self.calls) {
            (Oddity::AsRefPanics, _) => panics::on_purpose(),
            (Oddity::AsRefChanges, _) => &self.bytes[look % 2],
            (Oddity::AsRefCalls, Some(calls)) if look == 0 => {
                calls.call();
                &self.bytes[0]
            }
            _ => &self.bytes[0],
        }
    }
}

impl Drop for OddFrame {
    fn drop(&mut self) {
        if self.oddity == Oddity::DropPanics {
            panics::on_purpose_unless_panicking();
        }
    }
}

impl Calls {
    fn call(&self) {
        match self.what {
            0 => drop(self.handle.send(self.id, &self.inner)),
            1 => drop(self.handle.stats()),
            2 => drop(self.handle.publish(Group(TOWN), &self.inner)),
            _ => drop(self.handle.close(self.id, Close::Stop)),
        }
    }
}

/// How an odd frame is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Session,
    Town,
    All,
}

impl OddFrame {
    pub(crate) fn draw(
        truth: &Truth,
        hazards: &Hazards,
        is_raw: bool,
        handle: &Handle,
        id: SessionId,
        way: Way,
        random: &mut Random,
    ) -> Option<OddFrame> {
        let present = [
            hazards.as_ref_panics.then_some(Oddity::AsRefPanics),
            hazards.as_ref_calls.then_some(Oddity::AsRefCalls),
            hazards.as_ref_changes.then_some(Oddity::AsRefChanges),
            hazards.frame_bombs.then_some(Oddity::DropPanics),
        ];
        let present: Vec<_> = present.into_iter().flatten().collect();
        if present.is_empty() {
            return None;
        }
        let kind = if way == Way::Session { Kind::OnceDirect } else { Kind::OncePublished };
        let frame = Frame { kind, to: id.to_bits(), from: 0, number: truth.next_once() };
        let oddity = random.pick(&present);
        let calls = (oddity == Oddity::AsRefCalls).then(|| {
            let what = random.below(4);
            if what == 3 {
                truth.close_begins(id, Close::Stop);
            }
            let kind = if what == 2 { Kind::OncePublished } else { Kind::OnceDirect };
            let inner = Frame { kind, number: truth.next_once(), ..frame };
            Calls { handle: handle.clone(), id, inner: inner.write(0, is_raw), what }
        });
        let bytes = [random.below(100) as usize, 100 + random.frame_bytes()];
        let bytes = bytes.map(|bytes| frame.write(bytes, is_raw));
        Some(OddFrame { oddity, looks: AtomicUsize::new(0), bytes, calls })
    }

    /// Sends it from a thread of the user's, where it may panic.
    pub(crate) fn send(self, handle: &Handle, id: SessionId, way: Way) {
        // What comes back is dropped inside as well.
        let _ = panics::expected(|| match way {
            Way::Session => drop(handle.send(id, self)),
            Way::Town => drop(handle.publish(Group(TOWN), self)),
            Way::All => drop(handle.broadcast(self)),
        });
    }
}
