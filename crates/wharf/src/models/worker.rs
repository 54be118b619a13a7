//! A worker with its own port, reduced to what it does with shared state: its mail, the groups of its port,
//! and the queues and counts of its sessions. Sends complete at once.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use super::port::ModelPort;
use crate::clock::Moment;
use crate::engine::Mail;
use crate::engine::{Due, Publication, Share};
use crate::engine::{Engine, Frame, PortShare};
use crate::session::{Closing, Policy, SessionId, Slot};

pub(super) struct OwnWorker {
    engine: Arc<Engine>,
    port: Arc<ModelPort>,
    port_index: usize,
    to_attend: Vec<SessionId>,
    to_release: Vec<SessionId>,
    /// The session whose own count it has given up.
    ended: Option<SessionId>,
    /// What has left, one byte per frame.
    pub(super) wire: Vec<u8>,
}

impl OwnWorker {
    pub(super) fn new(engine: &Arc<Engine>, port: &Arc<ModelPort>, port_index: usize) -> Self {
        let (engine, port) = (engine.clone(), port.clone());
        let (to_attend, to_release, wire) = (Vec::new(), Vec::new(), Vec::new());
        OwnWorker { engine, port, port_index, to_attend, to_release, ended: None, wire }
    }

    fn share(&self) -> &PortShare {
        &self.engine.ports[self.port_index]
    }

    /// A session that this port has accepted and opened.
    pub(super) fn open(&self) -> SessionId {
        let id = self.engine.admit(Some(self.port_index), 0).expect("there is room");
        self.engine.table.held(id).expect("it has its own count").set_opened();
        id
    }

    /// Sleeps until there is mail.
    pub(super) fn mail(&self) -> Vec<Mail> {
        let (mailbox, mut mails) = (&self.share().mailbox, Vec::new());
        while mails.is_empty() {
            if mailbox.may_sleep() {
                self.port.wait();
            }
            mailbox.take(&mut mails);
        }
        mails
    }

    /// Takes turns until a session was released.
    pub(super) fn serve(&mut self) {
        loop {
            for mail in self.mail() {
                match mail {
                    // The smallest share.
                    Mail::Groups => self.work_off(Share::of_a_turn(4, 1)),
                    Mail::Attend(id) | Mail::End(id) => self.to_attend.push(id),
                    Mail::Release(id) => self.to_release.push(id),
                    other => panic!("{other:?}"),
                }
            }
            for id in std::mem::take(&mut self.to_attend) {
                self.attend(id);
            }
            let to_release = std::mem::take(&mut self.to_release);
            assert!(to_release.len() < 2, "invariant 4: released twice");
            if let [id] = to_release[..] {
                assert_eq!(self.ended, Some(id), "its own count is there");
                self.engine.release(id, self.port_index);
                return;
            }
        }
    }

    /// As `Floor::work_off_groups`.
    pub(super) fn work_off(&mut self, share: Share) {
        let engine = self.engine.clone();
        let groups = &engine.ports[self.port_index].groups;
        let left = groups.work_off(share, Moment::default(), Duration::from_secs(5), |due| {
            match due {
                Due::Publication(publication, to, _) => self.hand_over(publication, to.ids),
                Due::Close(id) => self.publications_end(id),
            }
            1
        });
        if left {
            self.share().mailbox.post(Mail::Groups).expect("it has not ended");
        }
    }

    pub(super) fn hand_over(&mut self, publication: &Publication, members: Option<&[SessionId]>) {
        let is_for_all = members.is_none();
        let to = match members {
            Some(members) => members.to_vec(),
            None => self.engine.table.sessions_of(self.port_index).collect(),
        };
        for id in to {
            self.hand_over_to(id, &publication.frame, is_for_all);
        }
    }

    /// As the floor's.
    pub(super) fn hand_over_to(&mut self, id: SessionId, frame: &Frame, if_opened: bool) {
        let Some(slot) = self.engine.table.held(id) else { return };
        if if_opened && !slot.is_opened() {
            return;
        }
        let form = |framing| self.engine.form_for(framing, frame);
        let handed_over = self.engine.push_published(slot, form, Policy::Close);
        assert!(handed_over.has_room, "`models/places` is for those that have none");
        if handed_over.is_to_attend {
            self.to_attend.push(id);
        }
    }

    fn publications_end(&mut self, id: SessionId) {
        let Some(slot) = self.engine.table.held(id) else { return };
        if slot.send_queue.lock().publications_end() {
            self.to_attend.push(id);
        }
    }

    /// As `Floor::attend_with` of an open session, with no peer to wait for.
    fn attend(&mut self, id: SessionId) {
        let engine = self.engine.clone();
        let Some(slot) = engine.table.held(id) else { return };
        if self.ended == Some(id) {
            return;
        }
        let closing = slot.closing();
        let mut has_drained = false;
        if !closing.is_some_and(Closing::is_stop) {
            self.send(slot);
            has_drained = closing.is_some() && slot.send_queue.lock().has_drained();
        }
        if has_drained || slot.closing().is_some_and(Closing::is_stop) {
            self.ended = Some(id);
            if slot.count.lower() {
                self.to_release.push(id);
            }
        }
    }

    /// Sends as long as something is queued.
    pub(super) fn send(&mut self, slot: &Slot) {
        while let Some(mut batch) = slot.begin_send(|| 0) {
            let (count, mut slices) = (batch.bytes(), [IoSlice::new(&[])]);
            assert_eq!(batch.gather(&mut slices), 1);
            self.wire.extend(&slices[0][..count]);
            batch.advance(count);
            slot.send_queue.lock().sent(batch, count, 0, 0);
            assert!(!slot.count.lower(), "the session's own count is there");
        }
    }
}
