//! The table of members: for each group a row to walk, and each member's place in it, so that joining
//! and leaving take the same time however many there are.

use std::collections::HashMap;

use crate::session::SessionId;

/// A group of sessions, by a number of the program's: a room, a topic, a match. It exists while it has
/// members, and costs nothing otherwise. Who has names for groups keeps a map from them to numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// Who is in which group, as far as the queue was worked off.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Group, List>);

/// The members of a group: in a row, for the fan-out, and each one's place in it.
#[derive(Debug, Default)]
struct List {
    ids: Vec<SessionId>,
    places: HashMap<SessionId, usize>,
}

impl Members {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, group: Group) -> &[SessionId] {
        self.0.get(&group).map_or(&[], |list| &list.ids)
    }

    pub(super) fn add(&mut self, id: SessionId, group: Group) {
        let list = self.0.entry(group).or_default();
        let before = list.places.insert(id, list.ids.len());
        debug_assert!(before.is_none(), "{id} is in {group:?} twice");
        list.ids.push(id);
    }

    pub(super) fn remove(&mut self, id: SessionId, group: Group) {
        let Some(list) = self.0.get_mut(&group) else { return };
        let Some(place) = list.places.remove(&id) else { return };
        list.ids.swap_remove(place);
        if let Some(moved) = list.ids.get(place) {
            list.places.insert(*moved, place);
        }
        if list.ids.is_empty() {
            self.0.remove(&group);
        } else if list.ids.len() < list.ids.capacity() / 4 {
            list.ids.shrink_to(2 * list.ids.len());
            list.places.shrink_to(2 * list.ids.len());
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
                members.add(id(index), group);
            }
            members.remove(id(99), group);
            let mut of: Vec<_> = members.of(group).iter().map(|id| id.index()).collect();
            of.sort_unstable();
            let expected: Vec<_> =
                plain.iter().filter(|(of, _)| *of == group).map(|(_, index)| *index).collect();
            assert_eq!(of, expected);
        }
    }
}
