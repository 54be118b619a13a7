//! Notes of the program's that wait for their sessions, at one port.
//!
//! Each session has a queue; all queues of a port lie in one list of nodes, which is the bound and is used again. So in
//! steady state a note costs no allocation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::session::SessionId;
use crate::sync::Mutex;

/// What a note takes beside itself, if its session has no other. Lists grow by doubling.
pub(crate) const NOTE_BYTES: usize = 96;

/// For so many notes memory is kept when none waits.
const AT_REST_MAX: usize = 1024;
/// The end of a queue, or of the list of unused nodes.
const END: u32 = u32::MAX;

/// How many notes may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotesMax {
    /// For one session.
    pub(crate) session: u32,
    /// At one port.
    pub(crate) port: u32,
}

/// A note finds no room.
#[derive(Debug)]
pub(crate) struct NoRoom<N> {
    pub(crate) note: N,
    /// So many wait, of at most so many: for the session, or at its port.
    pub(crate) waiting: u32,
    pub(crate) max: u32,
}

#[derive(Debug)]
pub(crate) struct Notes<N>(Mutex<Queues<N>>);

#[derive(Debug)]
struct Queues<N> {
    nodes: Vec<Node<N>>,
    /// The first unused node. Unused nodes are linked by `next`.
    free: u32,
    waiting: u32,
    of: HashMap<SessionId, Queue, BuildHasherDefault<DefaultHasher>>,
}

#[derive(Debug)]
struct Node<N> {
    next: u32,
    /// `None`: the node is unused.
    note: Option<Waiting<N>>,
}

/// A note that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting<N> {
    pub(crate) note: N,
    /// A job has given it, which holds a place until the session is told.
    pub(crate) is_of_job: bool,
}

#[derive(Debug)]
struct Queue {
    first: u32,
    last: u32,
    len: u32,
}

impl<N> Default for Notes<N> {
    fn default() -> Self {
        let (nodes, of) = (Vec::new(), HashMap::default());
        Notes(Mutex::new(Queues { nodes, free: END, waiting: 0, of }))
    }
}

impl<N> Notes<N> {
    /// Queues a note. The caller holds a count of the session.
    pub(crate) fn push(&self, id: SessionId, note: N, max: NotesMax) -> Result<(), NoRoom<N>> {
        let mut queues = self.0.lock();
        let waiting = queues.of.get(&id).map_or(0, |queue| queue.len);
        if waiting >= max.session {
            return Err(NoRoom { note, waiting, max: max.session });
        }
        if queues.waiting >= max.port {
            return Err(NoRoom { note, waiting: queues.waiting, max: max.port });
        }
        queues.push(id, Waiting { note, is_of_job: false });
        Ok(())
    }

    /// Queues what a job has given, whose place is its bound. The caller holds a count of the session.
    pub(crate) fn push_of_job(&self, id: SessionId, note: N) {
        self.0.lock().push(id, Waiting { note, is_of_job: true });
    }

    /// The session's oldest note.
    pub(crate) fn pop(&self, id: SessionId) -> Option<Waiting<N>> {
        let mut queues = self.0.lock();
        let queues = &mut *queues;
        let Entry::Occupied(mut queue) = queues.of.entry(id) else { return None };
        let (index, len) = (queue.get().first, queue.get().len);
        let node = &mut queues.nodes[index as usize];
        let note = node.note.take();
        debug_assert!(note.is_some(), "a note is told once");
        if len == 1 {
            queue.remove();
        } else {
            let queue = queue.get_mut();
            (queue.first, queue.len) = (node.next, len - 1);
        }
        node.next = std::mem::replace(&mut queues.free, index);
        queues.waiting -= 1;
        if queues.waiting == 0 && queues.nodes.capacity() > AT_REST_MAX {
            (queues.nodes, queues.free) = (Vec::new(), END);
            queues.of.shrink_to(AT_REST_MAX);
        }
        note
    }
}

impl<N> Queues<N> {
    fn push(&mut self, id: SessionId, note: Waiting<N>) {
        let node = self.take_node(note);
        let Queues { nodes, of, waiting, .. } = self;
        *waiting += 1;
        match of.entry(id) {
            Entry::Occupied(mut queue) => {
                let queue = queue.get_mut();
                nodes[queue.last as usize].next = node;
                queue.last = node;
                queue.len += 1;
            }
            Entry::Vacant(none) => {
                none.insert(Queue { first: node, last: node, len: 1 });
            }
        }
    }

    fn take_node(&mut self, note: Waiting<N>) -> u32 {
        let index = self.free;
        if index == END {
            self.nodes.push(Node { next: END, note: Some(note) });
            return self.nodes.len() as u32 - 1; // at most as many as may wait
        }
        let node = &mut self.nodes[index as usize];
        self.free = std::mem::replace(&mut node.next, END);
        node.note = Some(note);
        index
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn id(bits: u64) -> SessionId {
        SessionId::from_bits(bits)
    }

    #[test]
    fn notes_of_many_sessions_come_in_order_within_both_bounds() {
        let (notes, max) = (Notes::default(), NotesMax { session: 5, port: 12 });
        let mut oracle: [VecDeque<u32>; 4] = Default::default();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % end
        };
        let steps = if cfg!(miri) { 300 } else { 20_000 };
        let (mut at_session_bound, mut at_port_bound) = (0, 0);
        for number in 0..steps {
            let of = below(4);
            let waiting: usize = oracle.iter().map(VecDeque::len).sum();
            let queue = &mut oracle[of as usize];
            if below(5) < 3 {
                let pushed = notes.push(id(of), number, max);
                match pushed {
                    Ok(()) => queue.push_back(number),
                    Err(NoRoom { note, waiting: 5, max: 5 }) => {
                        assert_eq!((note, queue.len()), (number, 5));
                        at_session_bound += 1;
                    }
                    Err(refused) => {
                        assert_eq!((refused.note, refused.waiting, refused.max), (number, 12, 12));
                        assert_eq!(waiting, 12);
                        at_port_bound += 1;
                    }
                }
            } else {
                let note = notes.pop(id(of)).map(|waiting| waiting.note);
                assert_eq!(note, queue.pop_front());
            }
            assert!(notes.0.lock().nodes.len() <= 12, "a node is used again");
        }
        assert!(cfg!(miri) || at_session_bound > 100 && at_port_bound > 100);
    }

    #[test]
    fn the_memory_of_many_notes_is_given_back() {
        let (notes, max) = (Notes::default(), NotesMax { session: 5, port: 10_000 });
        for _ in 0..3 {
            for number in 0..4_000 {
                notes.push(id(number / 2), number, max).unwrap();
            }
            for number in 0..4_000 {
                let waiting = notes.pop(id(number / 2));
                assert_eq!(waiting, Some(Waiting { note: number, is_of_job: false }));
            }
            let queues = notes.0.lock();
            assert!(queues.nodes.capacity() <= AT_REST_MAX);
            assert!(queues.of.capacity() <= 2 * AT_REST_MAX);
        }
    }
}
