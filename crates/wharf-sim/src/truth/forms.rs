//! In which form frames come to a peer whose session changes its framing: the one in force when they were accepted.
//!
//! A peer counts the changes that it has seen. Those that were over before a frame was given are among them; those that
//! began after it was accepted are not.

use std::collections::{BTreeMap, HashMap};

use wharf::SessionId;

use super::Truth;
use crate::forms::Form;
use crate::frames::HEADER_BYTES;
use crate::rules::Rule;

#[derive(Debug, Default)]
pub(crate) struct FormsOf {
    changes: HashMap<SessionId, Vec<Change>>,
    /// When each frame was given, by its session, its sender and its number.
    given: HashMap<SessionId, BTreeMap<u32, Vec<u64>>>,
}

/// From when until when a session's framing changed.
#[derive(Debug, Clone, Copy)]
struct Change {
    began: u64,
    returned: u64,
}

impl Truth {
    /// A session was opened that came by the listener of this form, or was connected.
    pub(crate) fn opens_in_form(&mut self, id: SessionId, form: Option<Form>, is_accepted: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.form = form;
        self.web.opened += u64::from(form.is_some_and(Form::is_web));
        let peer = session.peer.filter(|_| is_accepted);
        let came_by = peer.and_then(|peer| self.peers[peer as usize].form);
        if form.is_none() || came_by.is_some_and(|came_by| Some(came_by) != form) {
            let what =
                format!("{id} came by the listener of {came_by:?}, and has that of {form:?}");
            self.broken(Rule::FramesHaveTheirForm, vec![id.to_bits()], what);
        }
    }

    pub(crate) fn form_of(&self, id: SessionId) -> Option<Form> {
        self.sessions.get(&id).and_then(|session| session.form)
    }

    /// What came to a peer that hears this form is its frames, or is none.
    pub(crate) fn hears(&mut self, peer: u32, form: Form, is_right: bool) {
        if !is_right {
            let about = self.peers[peer as usize].session.map(SessionId::to_bits);
            let what = format!("peer {peer} got what is no frame, as {form:?}");
            self.broken(Rule::FramesHaveTheirForm, about.into_iter().collect(), what);
        }
    }

    /// How many bytes stand around a frame of the session's.
    pub(crate) fn envelope_bytes(&self, id: SessionId, frame_bytes: usize) -> usize {
        self.form_of(id).map_or(HEADER_BYTES, |form| form.envelope_bytes(frame_bytes))
    }

    pub(crate) fn begins_to_change_form(&mut self, id: SessionId) {
        let change = Change { began: self.publications.now(), returned: u64::MAX };
        self.forms.changes.entry(id).or_default().push(change);
    }

    /// It has changed, or not.
    pub(crate) fn has_changed_form(&mut self, id: SessionId, changed_to: Option<Form>) {
        let has_changed = changed_to.is_some();
        let now = self.publications.now();
        let changes = self.forms.changes.entry(id).or_default();
        if has_changed {
            changes.last_mut().into_iter().for_each(|last| last.returned = now);
        } else {
            changes.pop();
        }
        // Where nothing can wait aside, it closes.
        if !has_changed && !self.may_be_behind(id) {
            self.is_gone(id);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.waits_to_change = !has_changed;
            session.form = changed_to.or(session.form);
        }
    }

    /// A frame of this number is about to be given.
    pub(super) fn gives(&mut self, id: SessionId, sender: u32, number: u32) {
        if !self.shape.is_text() {
            return;
        }
        let now = self.publications.now();
        let ticks = self.forms.given.entry(id).or_default().entry(sender).or_default();
        ticks.resize(number as usize, 0);
        ticks.push(now);
    }

    /// A frame came to the peer of a session, which has seen so many changes.
    pub(super) fn check_form(&mut self, id: SessionId, (sender, number): (u32, u32), seen: usize) {
        let of = |ticks: Option<&BTreeMap<u32, Vec<u64>>>| {
            ticks.and_then(|of| of.get(&sender)?.get(number as usize).copied())
        };
        let began = self.publications.began((sender, number));
        let given = began.or_else(|| of(self.forms.given.get(&id))).unwrap_or(0);
        // What is published is accepted for a session when it gets there.
        let accepted = of(self.sent.get(&id)).filter(|_| began.is_none()).unwrap_or(u64::MAX);
        let nothing = Vec::new();
        let changes = self.forms.changes.get(&id).unwrap_or(&nothing);
        let least = changes.iter().filter(|change| change.returned < given).count();
        let most = changes.iter().filter(|change| change.began < accepted).count();
        if !(least..=most).contains(&seen) {
            let what = format!(
                "frame {number} of {sender} came to {id} after {seen} changes of framing, not {least} to {most}"
            );
            self.broken(Rule::FramesHaveTheirForm, vec![id.to_bits()], what);
        }
    }
}
