//! Since when a session was owed publications.

use std::time::Duration;

use wharf::{Policy, SessionId};

use super::Publications;

impl Publications {
    /// Since when a session was owed something all the time, until now, by memberships of these policies. `None`: it
    /// has got everything.
    pub(crate) fn owed_since(
        &self,
        id: SessionId,
        peer: u32,
        policies: &[Policy],
    ) -> Option<Duration> {
        let nothing = (Vec::new(), Vec::new());
        let got = self.got.get(&peer).unwrap_or(&nothing.0);
        let got_at = self.got_at.get(&peer).unwrap_or(&nothing.1);
        // What was published later than something that has come, and has not come itself, will not come: from
        // each begin on, the first time at which something came that began then or later.
        let mut later: Vec<(u64, Duration)> = got
            .iter()
            .zip(got_at)
            .filter_map(|((sender, number), at)| Some((self.of(*sender, *number)?.began, *at)))
            .collect();
        later.sort_unstable();
        for index in (1..later.len()).rev() {
            later[index - 1].1 = later[index - 1].1.min(later[index].1);
        }
        let passed_at = |returned: u64| {
            let index = later.partition_point(|(began, _)| *began <= returned);
            later.get(index).map(|(_, at)| *at)
        };
        let came_at: std::collections::HashMap<_, _> = got.iter().zip(got_at).collect();
        let mut owed: Vec<(Duration, Option<Duration>)> = Vec::new();
        for (publisher, publications) in &self.by_publisher {
            for (number, publication) in publications.iter().enumerate() {
                if self.why_not(id, publication).is_some()
                    || !self.may_lack(id, publication, policies)
                {
                    continue;
                }
                let came = came_at.get(&(*publisher, number as u32)).copied().copied();
                let returned = publication.returned.map_or(u64::MAX, |(returned, _)| returned);
                owed.push((publication.began_at, came.or_else(|| passed_at(returned))));
            }
        }
        owed.sort_unstable();
        let (mut since, mut until) = (None, Some(Duration::ZERO));
        for (from, to) in owed {
            if until.is_some_and(|until| until < from) {
                since = None;
            }
            since.get_or_insert(from);
            until = until.and_then(|until| Some(until.max(to?)));
        }
        since.filter(|_| until.is_none())
    }

    /// Whether so many bytes can have waited at a port.
    pub(crate) fn may_have_held(&self, bytes_max: u64) -> bool {
        self.held_bytes >= bytes_max
    }
}
