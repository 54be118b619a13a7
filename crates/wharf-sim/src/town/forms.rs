//! Sessions of several framings: whose they are, requests that come without one, and changes.

use wharf::{Session, SessionId};

use super::{Known, Resident, Town};
use crate::forms::Form;
use crate::frames::TEXT_END;
use crate::rules::Rule;

impl Town {
    /// It was opened, with the framing of its listener.
    pub(super) fn notes_form(&self, session: &Session) {
        if let Some(framings) = &self.framings {
            let (listener, id) = (session.listener(), session.id());
            let known = session.context::<Known>().and_then(|known| known.form);
            let (form, is_accepted) = (known.or(framings.form_of(listener)), listener.is_some());
            self.check_establishment(session, form);
            self.truth.lock().opens_in_form(id, form, is_accepted);
        }
    }

    /// It keeps its listener, whatever framing it has.
    pub(super) fn check_listener(&self, session: &Session) {
        let Some(framings) = &self.framings else { return };
        // Not under the lock of the truth.
        let (listener, id) = (session.listener(), session.id());
        let listener = listener.and_then(|listener| framings.form_of(Some(listener)));
        let mut truth = self.truth.lock();
        let peer = truth.sessions.get(&id).and_then(|session| session.peer);
        let came_by = peer.and_then(|peer| truth.peers[peer as usize].form);
        if came_by.is_some() && came_by != listener {
            let what = format!("{id} came by {came_by:?}, and now has listener {listener:?}");
            truth.broken(Rule::FramesHaveTheirForm, vec![id.to_bits()], what);
        }
    }

    /// Whether there are frames that are too large for its framing.
    pub(super) fn has_bound(&self, id: SessionId) -> bool {
        let form = self.truth.lock().form_of(id);
        !form.is_some_and(|form| form == Form::Raw || form.is_web())
    }

    /// Bytes as they come: whole requests, and a part of one before them and behind.
    pub(super) fn receives_raw(&self, session: &Session, state: &mut Resident, bytes: &[u8]) {
        state.rest.extend(bytes);
        while let Some(last) = state.rest.iter().position(|byte| *byte == TEXT_END) {
            let request: Vec<u8> = state.rest.drain(..=last).collect();
            self.acts_on(session, state, &request);
            // In another framing nothing more would come.
            if self.truth.lock().has_closed_itself(session.id()) {
                break;
            }
        }
    }

    /// Changes the session's framing. If something waits for it in the old one, it receives nothing more before that has
    /// left.
    pub(super) fn change(&self, session: &Session, state: &mut Resident, place: usize) {
        if !self.changes_to(session, state, place) {
            session.pause_receiving();
            self.change_later(session, state, place);
        }
    }

    /// Changes it in a later callback. What comes before is no whole frame.
    pub(super) fn change_later(&self, session: &Session, state: &mut Resident, place: usize) {
        state.wants = Some(place);
        self.truth.lock().asks_for_room(session.id(), 1, true);
        session.notify_writable(1);
    }

    /// There is room: perhaps it can change.
    pub(super) fn goes_on_to_change(&self, session: &Session, state: &mut Resident) {
        let Some(place) = state.wants else { return };
        if self.changes_to(session, state, place) {
            session.resume_receiving();
        } else {
            self.change_later(session, state, place);
        }
    }

    fn changes_to(&self, session: &Session, state: &mut Resident, place: usize) -> bool {
        let id = session.id();
        let form = self.framings.as_ref().and_then(|framings| framings.forms.get(place).copied());
        self.truth.lock().begins_to_change_form(id);
        let has_changed = session.set_framing(place);
        self.truth.lock().has_changed_form(id, form.filter(|_| has_changed));
        if has_changed {
            state.wants = None;
            self.answer(session, 0); // the first in the new form
        }
        has_changed
    }
}
