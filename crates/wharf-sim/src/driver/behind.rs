//! Peers that read at a pace of their own.

use std::time::Duration;

use super::state::Driver;

impl Driver<'_> {
    /// When a peer that has a pace does something next.
    pub(super) fn next_pace(&self) -> Option<Duration> {
        self.plan.behind.as_ref()?;
        self.peers.iter().filter_map(|played| played.pace.as_ref()?.next_at()).min()
    }

    /// Those do what is due.
    pub(super) fn keep_paces(&mut self) {
        if self.plan.behind.is_none() {
            return;
        }
        let now = self.simulation.now();
        for index in 0..self.peers.len() {
            let played = &mut self.peers[index];
            let Some(pace) = &mut played.pace else { continue };
            if pace.next_at().is_none_or(|at| at > now) {
                continue;
            }
            let reads = pace.goes_on(&played.peer, &mut self.random, now);
            self.truth.lock().peers[played.number as usize].stalls(!reads);
        }
    }

    /// From now on everyone reads.
    pub(super) fn end_paces(&mut self) {
        self.peers.iter_mut().for_each(|played| played.pace = None);
    }
}
