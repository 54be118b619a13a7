//! The table of members: for each group a row to walk, and each member's place in it, so that joining
//! and leaving take the same time however many there are.

use std::collections::HashMap;

use crate::session::{Policy, SessionId};

/// A group of sessions, named by a number that the program chooses: a room, a topic, a match. A group exists
/// while it has members, and takes no memory otherwise. [`Groups`](crate::Groups) have
/// names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

impl From<u64> for Group {
    fn from(number: u64) -> Self {
        Group(number)
    }
}

/// Who is in which group, as far as the queue was worked off.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Group, Lists>);

/// The members of a group, by their policies.
#[derive(Debug, Default)]
struct Lists {
    close: List,
    /// `Skip` and `KeepLatest`: in most groups there are none.
    others: Option<Box<[List; 2]>>,
}

/// Members of a group: in a row, for the fan-out, and each one's place in it.
#[derive(Debug, Default)]
struct List {
    /// First those to whom a publication is handed, then those that are behind in this group.
    ids: Vec<SessionId>,
    /// How many are not behind.
    current: usize,
    places: HashMap<SessionId, usize>,
}

impl Members {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All members.
    pub(super) fn of(&self, group: Group) -> impl Iterator<Item = SessionId> {
        self.0.get(&group).into_iter().flat_map(Lists::all).flat_map(|(_, list)| &list.ids).copied()
    }

    /// The members that are not behind in this group, by their policies.
    pub(super) fn current(&self, group: Group) -> impl Iterator<Item = (Policy, &[SessionId])> {
        let lists = self.0.get(&group).into_iter().flat_map(Lists::all);
        lists.map(|(policy, list)| (policy, &list.ids[..list.current]))
    }

    pub(super) fn add(&mut self, id: SessionId, group: Group, policy: Policy) {
        let list = self.0.entry(group).or_default().with(policy);
        let before = list.places.insert(id, list.ids.len());
        debug_assert!(before.is_none(), "{id} is in {group:?} twice");
        list.ids.push(id);
        list.set_current(id);
    }

    pub(super) fn remove(&mut self, id: SessionId, group: Group) {
        let Some(lists) = self.0.get_mut(&group) else { return };
        lists.all_mut().for_each(|list| list.remove(id));
        if lists.all().all(|(_, list)| list.ids.is_empty()) {
            self.0.remove(&group);
        }
    }

    pub(super) fn set_behind(&mut self, id: SessionId, group: Group, policy: Policy) {
        if let Some(lists) = self.0.get_mut(&group) {
            lists.with(policy).set_behind(id);
        }
    }

    pub(super) fn set_current(&mut self, id: SessionId, group: Group, policy: Policy) {
        if let Some(lists) = self.0.get_mut(&group) {
            lists.with(policy).set_current(id);
        }
    }
}

impl Lists {
    fn all(&self) -> impl Iterator<Item = (Policy, &List)> {
        let others = self.others.as_deref().into_iter().flatten();
        let policies = [Policy::Close, Policy::Skip, Policy::KeepLatest];
        policies.into_iter().zip(std::iter::once(&self.close).chain(others))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut List> {
        std::iter::once(&mut self.close).chain(self.others.as_deref_mut().into_iter().flatten())
    }

    fn with(&mut self, policy: Policy) -> &mut List {
        match policy {
            Policy::Close => &mut self.close,
            Policy::Skip => &mut self.others.get_or_insert_default()[0],
            Policy::KeepLatest => &mut self.others.get_or_insert_default()[1],
        }
    }
}

impl List {
    fn remove(&mut self, id: SessionId) {
        self.set_behind(id);
        let Some(place) = self.places.remove(&id) else { return };
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(*moved, place);
        }
        if self.ids.len() < self.ids.capacity() / 4 {
            self.ids.shrink_to(2 * self.ids.len());
            self.places.shrink_to(2 * self.ids.len());
        }
    }

    fn set_behind(&mut self, id: SessionId) {
        if let Some(place) = self.places.get(&id).copied()
            && place < self.current
        {
            self.current -= 1;
            self.swap(place, self.current);
        }
    }

    fn set_current(&mut self, id: SessionId) {
        if let Some(place) = self.places.get(&id).copied()
            && place >= self.current
        {
            self.swap(place, self.current);
            self.current += 1;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.ids.swap(one, other);
        for place in [one, other] {
            self.places.insert(self.ids[place], place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId::new(index, 3)
    }

    #[test]
    fn members_come_and_go_as_in_a_plain_set() {
        let mut members = Members::default();
        let mut plain = std::collections::BTreeSet::new();
        let mut random = 1u32;
        for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (index, group) = (random >> 16 & 63, Group(u64::from(random >> 24 & 3)));
            if plain.remove(&(group, index)) {
                members.remove(id(index), group);
            } else {
                plain.insert((group, index));
                members.add(id(index), group, Policy::Close);
            }
            members.remove(id(99), group);
            let mut of: Vec<_> = members.of(group).map(|id| id.index()).collect();
            of.sort_unstable();
            let expected: Vec<_> =
                plain.iter().filter(|(of, _)| *of == group).map(|(_, index)| *index).collect();
            assert_eq!(of, expected);
        }
    }
}
