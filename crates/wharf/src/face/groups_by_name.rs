//! Groups by names of the program's.
//!
//! No code of a name's runs under the lock (invariant 8): a name is hashed before it, compared and dropped outside of
//! it. So names stand in trees, by their hashes and by their numbers, and whoever looks for one takes one candidate
//! after the other. A number is never given out twice, so what was compared stays true, and what is new stands behind it.
//!
//! A join and the look for whether a group is empty happen under that lock. So what is seen to be empty stays so until
//! its name is forgotten, and a join afterwards is to a new number.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Bound;
use std::sync::Arc;

use super::as_frame::AsFrame;
use super::handle::Handle;
use crate::engine::Group;
use crate::error::{JoinError, PublishError};
use crate::session::{Policy, SessionId};
use crate::sync::Mutex;

/// The upper half is the names'.
const FIRST_NUMBER: u64 = 1 << 63;
/// Names that are looked at when a group gets its first member. With fewer than three no number of names would be
/// enough: [`Groups`] says what four are.
const LOOKS: usize = 4;
/// Names that a walk takes at once.
const NAMES_AT_ONCE: usize = 64;

/// Groups that have names: rooms, topics, matches. A value of the program's, which gives each name a [`Group`] while the
/// group has members, and forgets it afterwards. All calls may come from any thread and from callbacks.
///
/// ```
/// use wharf::{Groups, Handler, PublishError, Session};
///
/// #[derive(Default)]
/// struct Rooms(Groups<String>);
///
/// impl Handler for Rooms {
///     type State = String;
///
///     fn opened(&self, session: &Session) -> String {
///         let _ = self.0.join(session.handle(), session.id(), "lobby"); // unless it is over already
///         "lobby".to_owned()
///     }
///
///     fn received(&self, session: &Session, room: &mut String, frame: &[u8]) {
///         if let Err(PublishError::Full { .. }) = self.0.publish(session.handle(), room.as_str(), frame) {
///             session.send("too much is being said");
///         }
///     }
///     // No `closed`: a session that ends leaves its groups.
/// }
/// ```
///
/// The names of one value belong to one server: give it that server's [`Handle`] in each call.
///
/// # What is forgotten when
///
/// A name is forgotten at once when its last member [leaves](Self::leave). Sessions leave their groups when they end, and
/// no call tells of it; so whenever a group gets its first member, four other names are looked at, and those without
/// members are forgotten. At most twice as many names are held as ever had members at one time, and eight more, whatever
/// sessions do. A join that comes as the last member leaves is never lost: what is published by this name after the join
/// reaches the session.
///
/// # Numbers
///
/// The groups of [`new`](Self::new) have numbers from 2⁶³ on, and none is given out twice. A program that uses numbers of
/// its own too takes them from below, and [`numbered_from`](Self::numbered_from) is for a second value.
///
/// # Patterns
///
/// Which names a pattern matches is up to the program. It walks over the [`names`](Self::names) and publishes to the
/// groups that it finds; or it has an index of its own.
pub struct Groups<K> {
    hasher: RandomState,
    names: Mutex<Names<K>>,
}

/// What is held. Forgetting returns the name, because its destructor is not to run under the lock.
struct Names<K> {
    /// By hash and number.
    by_hash: BTreeMap<(u64, u64), Arc<K>>,
    /// With their hashes.
    by_number: BTreeMap<u64, (u64, Arc<K>)>,
    /// The number of the next name. `None`: all are used up.
    next: Option<u64>,
    /// The number from which on names are looked at next.
    looked_until: u64,
}

/// A search for a name: behind which candidates it goes on.
struct Search {
    hash: u64,
    after: Bound<(u64, u64)>,
}

impl<K> Groups<K> {
    /// Without any names. Its numbers begin at 2⁶³.
    pub fn new() -> Self {
        Self::numbered_from(FIRST_NUMBER)
    }

    /// The same with numbers from `first` on. It takes one for each name that is new or was forgotten. After
    /// `u64::MAX` there is none, and a join to a new name is refused.
    pub fn numbered_from(first: u64) -> Self {
        let (by_hash, by_number) = (BTreeMap::new(), BTreeMap::new());
        let names = Names { by_hash, by_number, next: Some(first), looked_until: 0 };
        Groups { hasher: RandomState::new(), names: Mutex::new(names) }
    }

    /// How many names are held: those whose groups have members, and some that are empty and not forgotten yet.
    pub fn len(&self) -> usize {
        self.names.lock().by_number.len()
    }

    /// Whether no name is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Walks over the names and their groups, from the one that was first joined to the newest. The program may do
    /// what it likes meanwhile: no lock is held between two. A name that is held all the while comes once; of others it
    /// may or may not come. A group may be empty.
    ///
    /// ```
    /// use wharf::{Groups, Handle, PublishError};
    ///
    /// /// To all rooms of a house: `cellar/wine`, `cellar/coal`.
    /// fn to_house(rooms: &Groups<String>, handle: &Handle, house: &str, line: &str) {
    ///     let Ok(frame) = handle.encode(line) else { return };
    ///     for (name, group) in rooms.names() {
    ///         if name.split('/').next() == Some(house) {
    ///             let _ = handle.publish(group, frame.clone());
    ///         }
    ///     }
    /// }
    /// ```
    pub fn names(&self) -> impl Iterator<Item = (Arc<K>, Group)> + '_ {
        let (mut from, mut taken) = (Some(0), Vec::new().into_iter());
        std::iter::from_fn(move || {
            if taken.len() == 0 {
                let next: Vec<_> = {
                    let names = self.names.lock();
                    let next = names.by_number.range(from?..).take(NAMES_AT_ONCE);
                    next.map(|(number, (_, name))| (name.clone(), Group(*number))).collect()
                };
                from = next.last().and_then(|(_, last)| last.0.checked_add(1));
                taken = next.into_iter();
            }
            taken.next()
        })
    }

    /// Forgets a name if its group is empty.
    fn forget_if_empty(&self, handle: &Handle, group: Group) {
        let _forgotten = {
            let mut names = self.names.lock();
            if handle.has_members(group) { None } else { names.forget(group.0) }
        };
    }
}

impl<K: Hash + Eq> Groups<K> {
    /// Makes a session a member of the group of this name. Returns `true` if it was not one before. As
    /// [`Handle::join`].
    ///
    /// # Errors
    /// As of [`Handle::join`]; and [`JoinError::NoNumberLeft`].
    pub fn join<Q>(&self, handle: &Handle, id: SessionId, name: &Q) -> Result<bool, JoinError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.join_with(handle, id, name, Policy::default())
    }

    /// The same with a policy, as [`Handle::join_with`].
    ///
    /// # Errors
    /// As of [`join`](Self::join).
    pub fn join_with<Q>(
        &self,
        handle: &Handle,
        id: SessionId,
        name: &Q,
        policy: Policy,
    ) -> Result<bool, JoinError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut search = self.search(name);
        loop {
            let found = self.find(&mut search, name);
            let new = found.is_none().then(|| Arc::new(name.to_owned()));
            let mut forgotten = Vec::new(); // dropped after the lock
            let mut names = self.names.lock();
            // Meanwhile what was found may have been forgotten, and what was not found may have come.
            let is_so = match found {
                Some(group) => names.by_number.contains_key(&group.0),
                None => names.candidate(&search).is_none(),
            };
            if is_so {
                let new = new.as_ref().map(|name| (search.hash, name));
                return names.join(handle, id, found, new, policy, &mut forgotten);
            }
        }
    }

    /// Ends a session's membership of the group of this name. Returns how many members are left, or `None` if it was no
    /// member; as [`Handle::leave`].
    pub fn leave<Q>(&self, handle: &Handle, id: SessionId, name: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let group = self.group(name)?;
        let left = handle.leave(id, group)?;
        if left == 0 {
            self.forget_if_empty(handle, group);
        }
        Some(left)
    }

    /// The group of this name, for calls of [`Handle`] that have no counterpart here. `None`: no session has joined it
    /// since it was forgotten. Its number means this name as long as the group has members; so a session joins by name.
    pub fn group<Q>(&self, name: &Q) -> Option<Group>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find(&mut self.search(name), name)
    }

    /// Publishes a frame to the members of the group of this name, as [`Handle::publish`]. If there is none, nobody gets
    /// it, and that is no error.
    ///
    /// # Errors
    /// As of [`Handle::publish`].
    pub fn publish<Q, F>(&self, handle: &Handle, name: &Q, frame: F) -> Result<(), PublishError<F>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        F: AsFrame,
    {
        self.group(name).map_or(Ok(()), |group| handle.publish(group, frame))
    }

    /// The same with a key, as [`Handle::publish_keyed`].
    ///
    /// # Errors
    /// As of [`Handle::publish`].
    pub fn publish_keyed<Q, F>(
        &self,
        handle: &Handle,
        name: &Q,
        key: u64,
        frame: F,
    ) -> Result<(), PublishError<F>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        F: AsFrame,
    {
        self.group(name).map_or(Ok(()), |group| handle.publish_keyed(group, key, frame))
    }

    /// The same to all members except one, as [`Handle::publish_except`].
    ///
    /// # Errors
    /// As of [`Handle::publish`].
    pub fn publish_except<Q, F>(
        &self,
        handle: &Handle,
        name: &Q,
        except: SessionId,
        frame: F,
    ) -> Result<(), PublishError<F>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        F: AsFrame,
    {
        self.group(name).map_or(Ok(()), |group| handle.publish_except(group, except, frame))
    }

    /// How many members the group of this name has, as [`Handle::member_count`].
    pub fn member_count<Q>(&self, handle: &Handle, name: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.group(name).map_or(0, |group| handle.member_count(group))
    }

    /// The members of the group of this name, as [`Handle::members`].
    pub fn members<Q>(&self, handle: &Handle, name: &Q) -> Vec<SessionId>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.group(name).map_or_else(Vec::new, |group| handle.members(group))
    }

    fn search<Q: Hash + ?Sized>(&self, name: &Q) -> Search {
        let hash = self.hasher.hash_one(name);
        Search { hash, after: Bound::Included((hash, 0)) }
    }

    /// The next candidate that has this name. Of those that it has passed by none has it.
    fn find<Q>(&self, search: &mut Search, name: &Q) -> Option<Group>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        loop {
            let (number, candidate) = self.names.lock().candidate(search)?;
            search.after = Bound::Excluded((search.hash, number));
            if (*candidate).borrow() == name {
                return Some(Group(number));
            }
        }
    }
}

impl<K> Names<K> {
    fn candidate(&self, search: &Search) -> Option<(u64, Arc<K>)> {
        let mut candidates =
            self.by_hash.range((search.after, Bound::Included((search.hash, u64::MAX))));
        candidates.next().map(|((_, number), name)| (*number, name.clone()))
    }

    /// To the group that was found, or to one for a new name.
    fn join(
        &mut self,
        handle: &Handle,
        id: SessionId,
        found: Option<Group>,
        new: Option<(u64, &Arc<K>)>,
        policy: Policy,
        forgotten: &mut Vec<Arc<K>>,
    ) -> Result<bool, JoinError> {
        let group = found.or(self.next.map(Group)).ok_or(JoinError::NoNumberLeft)?;
        let was_empty = found.is_none_or(|group| !handle.has_members(group));
        let joined = handle.join_with(id, group, policy);
        if joined.is_ok() {
            if let Some((hash, name)) = new {
                self.by_hash.insert((hash, group.0), name.clone());
                self.by_number.insert(group.0, (hash, name.clone()));
                self.next = group.0.checked_add(1);
            }
            if was_empty {
                forgotten.extend((0..LOOKS).filter_map(|_| self.look(handle)));
            }
        } else if was_empty {
            forgotten.extend(self.forget(group.0));
        }
        joined
    }

    /// Looks at the next name, and forgets it if its group is empty.
    fn look(&mut self, handle: &Handle) -> Option<Arc<K>> {
        let next = self.by_number.range(self.looked_until..).next();
        let number = *next.or_else(|| self.by_number.first_key_value())?.0;
        self.looked_until = number.wrapping_add(1);
        if handle.has_members(Group(number)) { None } else { self.forget(number) }
    }

    fn forget(&mut self, number: u64) -> Option<Arc<K>> {
        let (hash, name) = self.by_number.remove(&number)?;
        self.by_hash.remove(&(hash, number));
        Some(name)
    }
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// In a line, without the names.
impl<K> fmt::Debug for Groups<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("names", &self.len()).finish_non_exhaustive()
    }
}
