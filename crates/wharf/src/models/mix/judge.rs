//! What is checked after a schedule.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::port::{Drawing, FRAME_BYTES};
use super::{Notes, PUBLISHED, PUBLISHERS, Recorder, Totals};
use crate::CloseReason;
use crate::clock::Moment;
use crate::close::Close;
use crate::engine::{Engine, Share};
use crate::session::SessionId;

/// A publication, by its publisher and its number.
type Name = (u8, u8);

pub(super) fn judge(
    engine: &Engine,
    begun: &[SessionId],
    recorder: &Recorder,
    drawings: &[Arc<Drawing>],
    ends_amid: bool,
    totals: &Totals,
) {
    let stats = engine.stats();
    assert_eq!((stats.live, stats.queued_bytes, stats.stale_completions), (0, 0, 0));
    assert_eq!(stats.handler_panics, 0, "a callback has found a fault");
    assert!(engine.ports.iter().all(|port| port.assigned_sessions() == 0), "a slot is left");
    assert!(engine.take_error().is_none());
    assert_eq!(format!("{:?}", engine.contexts), "Contexts(0)", "one has outlived its session");
    for port in &engine.ports {
        port.groups.work_off(Share::everything(), Moment::default(), Duration::from_secs(5), |_| 1); // ended sessions may still have requests here
        assert!(port.groups.has_no_members(), "a member has outlived its session");
    }
    let wire: HashMap<_, _> = drawings.iter().flat_map(|port| port.take_wire()).collect();
    recorder.note(|notes| {
        assert_eq!(begun.iter().collect::<HashSet<_>>().len(), begun.len(), "an id came twice");
        for id in begun {
            let opened = notes.opened.contains(id);
            assert_eq!(notes.closed.contains_key(id), opened, "{id}");
            assert!(opened != notes.connects_failed.contains(id), "{id} has not one end");
        }
        totals.opened.fetch_add(notes.opened.len(), Ordering::Relaxed);
        let mut one_order = HashSet::new();
        for (id, reason) in &notes.closed {
            let wire = wire.get(&id.to_bits()).map_or(&[][..], Vec::as_slice);
            let frames: Vec<_> = wire.chunks_exact(FRAME_BYTES).map(|f| (f[0], f[1])).collect();
            totals.frames_left.fetch_add(frames.len(), Ordering::Relaxed);
            let is_published =
                |frame: &&Name| PUBLISHERS.contains(&frame.0.wrapping_sub(PUBLISHED));
            let (published, pushed): (Vec<_>, Vec<_>) =
                frames.iter().partition(|frame| is_published(frame));
            let published: Vec<_> =
                published.into_iter().map(|(of, at)| (of - PUBLISHED, at)).collect();
            let has_all = has_drained(notes, *id, *reason);
            if *reason == CloseReason::Drained {
                totals.drained.fetch_add(1, Ordering::Relaxed);
            }
            judge_pushed(notes, *id, &pushed, has_all);
            judge_published(notes, *id, &published, &mut one_order);
            for name in awaited(notes, *id, *reason, ends_amid) {
                totals.publications_awaited.fetch_add(1, Ordering::Relaxed);
                assert!(
                    published.contains(&name),
                    "{id}: {name:?} is lost: {published:?} {notes:?}"
                );
            }
        }
    });
}

/// Whether all queued frames have left.
fn has_drained(notes: &Notes, id: SessionId, reason: CloseReason) -> bool {
    let closes = notes.closes.get(&id).map_or(&[][..], Vec::as_slice);
    let was_stopped = closes.iter().any(|(_, how, _)| *how == Close::Stop);
    reason == CloseReason::Drained || reason == CloseReason::Local && !was_stopped
}

/// Publications that a session must have got: it was not cut, and it was closed by the publisher later, or by
/// the server's end after all users had ended.
fn awaited(notes: &Notes, id: SessionId, reason: CloseReason, ends_amid: bool) -> Vec<Name> {
    let closes = notes.closes.get(&id).map_or(&[][..], Vec::as_slice);
    let (closer, until) = match (reason, closes) {
        (CloseReason::Drained, []) if !ends_amid => (None, usize::MAX),
        (CloseReason::Local, [(closer, Close::Drain, until)]) => (Some(*closer), *until),
        _ => return Vec::new(),
    };
    let of = |publisher: u8| {
        let published = notes.published.get(&publisher).into_iter().flatten();
        let awaited = published.enumerate().take(until).filter(|(_, p)| p.awaited_by.contains(&id));
        awaited.map(move |(at, _)| (publisher, at as u8)).collect::<Vec<_>>()
    };
    let later = |publisher: &u8| closer.is_none_or(|closer| closer == *publisher);
    PUBLISHERS.into_iter().filter(later).flat_map(of).collect()
}

fn judge_pushed(notes: &Notes, id: SessionId, pushed: &[Name], has_all: bool) {
    let mut next: HashMap<u8, u8> = HashMap::new();
    for (sender, at) in pushed {
        let next = next.entry(*sender).or_default();
        assert_eq!(at, next, "{id}: out of order: {pushed:?}");
        *next += 1;
    }
    let of_session =
        |((of, sender), frames): (&(SessionId, u8), &u8)| (*of == id).then_some((*sender, *frames));
    let queued: HashMap<_, _> = notes.queued.iter().filter_map(of_session).collect();
    assert!(!has_all || next == queued, "{id}: it has drained, and not all has left: {notes:?}");
}

/// Each once, in one order for all sessions, and only at the sessions it was for.
fn judge_published(
    notes: &Notes,
    id: SessionId,
    published: &[Name],
    one_order: &mut HashSet<(Name, Name)>,
) {
    for (index, name @ (publisher, at)) in published.iter().enumerate() {
        let publication = &notes.published[publisher][usize::from(*at)];
        let concerns = publication.is_for_all || publication.awaited_by.contains(&id);
        assert!(concerns && publication.except != Some(id), "{id}: {name:?} was not for it");
        let closes = notes.closes.get(&id).into_iter().flatten();
        let mut closed_before =
            closes.filter(|(of, _, until)| of == publisher && usize::from(*at) >= *until);
        assert!(closed_before.next().is_none(), "{id}: {name:?} was published after its close");
        for earlier in &published[..index] {
            let is_in_order = earlier.0 != *publisher || earlier.1 < *at;
            assert!(is_in_order, "{id}: out of order: {published:?}");
            one_order.insert((*earlier, *name));
            assert!(
                !one_order.contains(&(*name, *earlier)),
                "two orders of {earlier:?} and {name:?}"
            );
        }
    }
}
