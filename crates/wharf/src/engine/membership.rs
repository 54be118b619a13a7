//! What threads ask of the groups of the sessions.

use super::engine::Engine;
use super::groups::Taken;
use super::mailbox::Mail;
use super::members::Group;
use super::share::{Follows, PortShare};
use crate::error::JoinError;
use crate::session::{Policy, SessionId};

impl Engine {
    pub(crate) fn join(
        &self,
        id: SessionId,
        group: Group,
        policy: Policy,
    ) -> Result<bool, JoinError> {
        let groups = self.options.sessions.groups_max;
        let bytes = self.options.sending.publications_bytes_max;
        let joined = self.with_session(id, |slot| {
            if slot.count.is_closing() {
                return (Err(JoinError::Gone), Follows::default());
            }
            let port = self.port_of(slot);
            let taken = port.groups.join(id, slot, group, policy, groups, bytes);
            (taken.map(|taken| tell(port, taken)), Follows::default())
        });
        joined.unwrap_or(Err(JoinError::Gone))
    }

    /// How many members are left; `None`: it was none.
    pub(crate) fn leave(&self, id: SessionId, group: Group) -> Option<usize> {
        let left = self.with_session(id, |slot| {
            let port = self.port_of(slot);
            (tell(port, port.groups.leave(id, slot, group)), Follows::default())
        });
        // Counted when it has left: of several that leave, the last to count finds none.
        left.unwrap_or(false).then(|| self.member_count(group))
    }

    pub(crate) fn member_count(&self, group: Group) -> usize {
        self.ports.iter().map(|port| port.groups.member_count(group)).sum()
    }

    pub(crate) fn has_members(&self, group: Group) -> bool {
        self.ports.iter().any(|port| port.groups.member_count(group) > 0)
    }

    pub(crate) fn members(&self, group: Group) -> Vec<SessionId> {
        self.ports.iter().flat_map(|port| port.groups.members(group)).collect()
    }
}

fn tell(port: &PortShare, taken: Taken) -> bool {
    if taken.tell {
        let _ = port.mailbox.post(Mail::Groups); // has it ended, so have its sessions
    }
    taken.changed
}
