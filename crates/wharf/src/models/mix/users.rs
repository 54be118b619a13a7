//! The actions of user threads.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{CONNECTS, CONTEXT, PUBLISHED, PUBLISHERS_STEPS, PUSHER, PUSHES, Published, Recorder};
use crate::close::Close;
use crate::engine::{Audience, Content, Group, Publication};
use crate::error::JoinError;
use crate::face::Handle;
use crate::options::Target;
use crate::session::SessionId;

/// The sessions that were begun, for other threads to pick from.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<std::sync::Mutex<Vec<SessionId>>>);

impl Begun {
    pub(super) fn all(&self) -> Vec<SessionId> {
        self.0.lock().expect("no thread has failed").clone()
    }

    /// Picks one, after some time. `None`: none was begun even then.
    fn pick(&self) -> Option<SessionId> {
        dawdle(100);
        let all = self.all();
        all.get(thread_rng().gen_range(0..all.len().max(1))).copied()
    }

    pub(super) fn connect(&self, handle: &Handle) {
        for _ in 0..CONNECTS {
            dawdle(50);
            let target = Target::new(SocketAddr::from(([127, 0, 0, 1], 9))).context(CONTEXT);
            if let Ok(id) = handle.connect(target) {
                self.0.lock().expect("no thread has failed").push(id);
            }
        }
    }
}

/// Lets others go first, for a random time.
pub(super) fn dawdle(turns_max: usize) {
    for _ in 0..thread_rng().gen_range(0..turns_max) {
        thread::yield_now();
    }
}

/// Frames to sessions, numbered per session.
#[derive(Default)]
struct Pushing(HashMap<SessionId, u8>);

impl Pushing {
    /// Returns whether it was queued.
    fn push(&mut self, sender: u8, id: SessionId, handle: &Handle, recorder: &Recorder) -> bool {
        let next = self.0.entry(id).or_default();
        let frame = [sender, *next];
        // Every other one may end the session.
        let queued = match next.is_multiple_of(2) {
            true => handle.send(id, frame).is_ok(),
            false => handle.try_send(id, frame).is_ok(),
        };
        if queued {
            *next += 1;
            recorder.queued(id, sender);
        }
        queued
    }
}

pub(super) fn push(handle: &Handle, begun: &Begun, recorder: &Recorder) {
    let mut pushing = Pushing::default();
    for _ in 0..PUSHES {
        if let Some(id) = begun.pick() {
            pushing.push(PUSHER, id, handle, recorder);
        }
    }
}

pub(super) fn close(handle: &Handle, begun: &Begun, recorder: &Recorder) {
    if let Some(id) = begun.pick() {
        let how = if thread_rng().gen_bool(0.5) { Close::Drain } else { Close::Stop };
        recorder.closes(id, 0, how, 0);
        handle.close(id, how);
    }
}

pub(super) fn look(handle: &Handle) {
    for _ in 0..2 {
        dawdle(100);
        let stats = handle.stats();
        assert_eq!(stats.opened.wrapping_sub(stats.closed), stats.live, "{stats:?}");
    }
}

/// A thread that does everything, and alone knows its group.
pub(super) struct Publishing<'a> {
    number: u8,
    handle: &'a Handle,
    recorder: &'a Recorder,
    members: HashSet<SessionId>,
    closed: HashSet<SessionId>,
    /// It has left these, which were over by then.
    ending: HashSet<SessionId>,
    pushing: Pushing,
    published: usize,
}

pub(super) fn publish(mut publishing: Publishing<'_>, begun: &Begun) {
    for _ in 0..PUBLISHERS_STEPS {
        let Some(id) = begun.pick() else { continue };
        match thread_rng().gen_range(0..15) {
            0..4 => publishing.join(id),
            4..7 => publishing.publish(false, None),
            7 => publishing.publish(false, Some(id)),
            8 => publishing.publish(true, None),
            9 => publishing.publish(true, Some(id)),
            10 => publishing.push(id),
            11 => publishing.leave(id),
            12 => publishing.look(),
            _ => publishing.close(id),
        }
    }
}

impl<'a> Publishing<'a> {
    pub(super) fn new(number: u8, handle: &'a Handle, recorder: &'a Recorder) -> Self {
        let (members, closed, ending) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (pushing, published) = (Pushing::default(), 0);
        Publishing { number, handle, recorder, members, closed, ending, pushing, published }
    }

    fn group(&self) -> Group {
        Group(self.number.into())
    }

    fn join(&mut self, id: SessionId) {
        let joined = self.handle.join(id, self.group());
        match joined {
            _ if self.closed.contains(&id) => assert_eq!(joined, Err(JoinError::Gone), "{id}"),
            Ok(is_new) => assert_eq!(is_new, self.members.insert(id), "{id}"),
            Err(error) => assert_eq!(error, JoinError::Gone),
        }
    }

    fn leave(&mut self, id: SessionId) {
        let left = self.handle.leave(id, self.group());
        // An ended session has left by itself, and only this thread knows the group.
        let was_member = self.members.remove(&id);
        assert!(was_member || left.is_none(), "{id} was no member");
        if was_member && left.is_none() {
            self.ending.insert(id); // it can be asked for no more, and is listed until its `closed` begins
        }
        let most = self.members.len() + self.ending.len();
        assert!(left.is_none_or(|left| left <= most), "{left:?} {:?}", self.members);
    }

    /// Who is a member, and how many.
    fn look(&self) {
        let members = self.handle.members(self.group());
        let is_known = |id| self.members.contains(id) || self.ending.contains(id);
        assert!(members.iter().all(is_known), "{members:?}");
        // Between the questions some may end.
        assert!(self.handle.member_count(self.group()) <= members.len());
    }

    fn push(&mut self, id: SessionId) {
        let queued = self.pushing.push(self.number, id, self.handle, self.recorder);
        assert!(!(queued && self.closed.contains(&id)), "{id} takes a frame after its close");
    }

    fn publish(&mut self, is_for_all: bool, except: Option<SessionId>) {
        let (number, frame) = (self.number, [self.number + PUBLISHED, self.published as u8]);
        self.recorder.note(|notes| {
            let awaited_by = if is_for_all { &notes.opened } else { &self.members };
            let awaited_by = awaited_by.iter().copied().filter(|id| Some(*id) != except).collect();
            let published = Published { is_for_all, awaited_by, except };
            notes.published.entry(number).or_default().push(published);
        });
        let group = self.group();
        let is_taken = match (is_for_all, except) {
            (false, None) => self.handle.publish(group, frame).is_ok(),
            (false, Some(id)) => self.handle.publish_except(group, id, frame).is_ok(),
            (true, None) => self.handle.broadcast(frame).is_ok(),
            (true, Some(_)) => self.broadcast_except(except, frame),
        };
        if is_taken {
            self.published += 1;
        } else {
            self.recorder.note(|notes| notes.published.get_mut(&number).map(Vec::pop));
        }
    }

    /// Only workers can do this; handles cannot yet.
    fn broadcast_except(&self, except: Option<SessionId>, frame: [u8; 2]) -> bool {
        let engine = self.handle.engine();
        let frame = engine.encode(Content::Plain(&frame)).expect("it is short");
        engine.publish(&Publication { to: Audience::All, except, key: None, frame }).is_ok()
    }

    fn close(&mut self, id: SessionId) {
        let how = if thread_rng().gen_bool(0.8) { Close::Drain } else { Close::Stop };
        self.recorder.closes(id, self.number, how, self.published);
        self.handle.close(id, how);
        self.closed.insert(id);
    }
}
