//! How many members a group has, and who they are: what was answered, against who joined, left and ended.
//!
//! What a call answers is true of some moment between its begin and its return. Who joined before and neither
//! left nor ended until after must be counted; who left or ended before must not.

use std::collections::HashSet;

use wharf::SessionId;

use super::{Membership, Publications};

/// Answers that are remembered, of the first there are.
const ANSWERS_MAX: usize = 400;

/// How many members a group had.
#[derive(Debug)]
pub(super) struct Answer {
    group: u64,
    began: u64,
    returned: u64,
    count: usize,
    /// It was leaving, and so was not counted.
    except: Option<SessionId>,
}

impl Publications {
    /// A callback of the session runs: what it is in, it has not ended to be in.
    pub(crate) fn is_alive(&mut self, id: SessionId) {
        let now = self.now();
        self.alive.insert(id, now);
    }

    /// Its `closed` begins: it counts no more.
    pub(crate) fn session_ends(&mut self, id: SessionId) {
        let now = self.now();
        self.ended.entry(id).or_insert(now);
    }

    /// So many members were said to be in the group since `began`. What is wrong with that.
    pub(crate) fn counted(
        &mut self,
        group: u64,
        began: u64,
        count: usize,
        except: Option<SessionId>,
    ) -> Option<String> {
        let returned = self.now();
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push(Answer { group, began, returned, count, except });
        }
        let others = self.memberships.keys().filter(|id| Some(**id) != except);
        let max = others.filter(|id| self.may_be_member(**id, group, began)).count();
        (count > max).then(|| format!("group {group} has {count} members, of at most {max}"))
    }

    /// These were said to be in the group.
    pub(crate) fn named(&mut self, group: u64, began: u64, ids: &[SessionId]) -> Option<String> {
        let wrong = ids.iter().find(|id| !self.may_be_member(**id, group, began));
        let wrong = wrong.map(|id| format!("{id} is said to be in group {group}, and is not"));
        let twice = ids.iter().collect::<HashSet<_>>().len() < ids.len();
        let twice = twice.then(|| format!("a member of group {group} is named twice"));
        let counted = self.counted(group, began, ids.len(), None);
        wrong.or(twice).or(counted)
    }

    /// An answer that left somebody out, as is known by now.
    pub(crate) fn left_out(&self) -> Option<String> {
        self.answers.iter().find_map(|answer| {
            let Answer { group, began, returned, count, except } = *answer;
            let others = self.memberships.keys().filter(|id| Some(**id) != except);
            let min = others.filter(|id| self.must_be_member(**id, group, began, returned)).count();
            let what = || format!("group {group} had {count} members, of at least {min}");
            (count < min).then(what)
        })
    }

    /// Who is in the group, if nothing happens: of these sessions, which have not ended.
    pub(crate) fn members(
        &self,
        group: u64,
        has_ended: impl Fn(SessionId) -> bool,
    ) -> HashSet<SessionId> {
        let is_in = |of: &Membership| of.group == group && of.leaves.is_none();
        let members = self.memberships.iter().filter(|(_, of)| of.iter().any(is_in));
        members.map(|(id, _)| *id).filter(|id| !has_ended(*id)).collect()
    }

    fn may_be_member(&self, id: SessionId, group: u64, began: u64) -> bool {
        let may_be = |of: &Membership| of.group == group && of.left.is_none_or(|left| left > began);
        self.ended.get(&id).is_none_or(|ended| *ended > began)
            && self.memberships.get(&id).into_iter().flatten().any(may_be)
    }

    fn must_be_member(&self, id: SessionId, group: u64, began: u64, returned: u64) -> bool {
        let must_be = |of: &Membership| {
            of.group == group
                && of.joined.is_some_and(|joined| joined < began)
                && of.leaves.is_none_or(|leaves| leaves > returned)
        };
        self.alive.get(&id).is_some_and(|alive| *alive > returned)
            && self.memberships.get(&id).into_iter().flatten().any(must_be)
    }
}
