//! Totals of one run, and of all runs in a file, so that they can be quoted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::round::Outcome;

/// What can be added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) seconds: u64,
    pub(crate) rounds: u64,
    pub(crate) sessions: u64,
    /// Sessions refused because there were as many as may be.
    pub(crate) refused: u64,
    pub(crate) connects_failed: u64,
    /// Frames that the peers and the handler have got, and looked at.
    pub(crate) frames: u64,
    /// Callbacks that panicked.
    pub(crate) panics: u64,
    /// Notes that sessions were told, and timers of theirs that fired.
    #[serde(default)]
    pub(crate) notes: u64,
    #[serde(default)]
    pub(crate) timers: u64,
    /// Rounds that broke a rule.
    pub(crate) violations: u64,
    /// Sessions by the reason of their end.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Violations by their rule.
    pub(crate) broken: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        let stats = &outcome.stats;
        self.rounds += 1;
        self.sessions += stats.opened;
        self.refused += stats.refused;
        self.connects_failed += stats.connect_failures;
        self.frames += outcome.frames;
        self.panics += outcome.panics;
        self.notes += stats.told_notes;
        self.timers += outcome.timers;
        self.violations += u64::from(!outcome.violations.is_empty());
        for (reason, count) in stats.closed_by().filter(|(_, count)| *count > 0) {
            *self.closed.entry(reason.to_owned()).or_default() += count;
        }
        for violation in &outcome.violations {
            *self.broken.entry(format!("{:?}", violation.rule)).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Totals) {
        self.seconds += other.seconds;
        self.rounds += other.rounds;
        self.sessions += other.sessions;
        self.refused += other.refused;
        self.connects_failed += other.connects_failed;
        self.frames += other.frames;
        self.panics += other.panics;
        self.notes += other.notes;
        self.timers += other.timers;
        self.violations += other.violations;
        for (sums, parts) in [(&mut self.closed, &other.closed), (&mut self.broken, &other.broken)]
        {
            for (name, count) in parts {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// The totals of all runs, by backend.
pub(crate) type Ledger = BTreeMap<String, Totals>;

#[cfg(test)]
mod tests {
    use std::fs;

    use wharf_sim::ledger::LedgerFile;

    use super::*;

    #[test]
    fn runs_are_added_up_by_backend_and_no_other_file_is_touched() {
        let folder = std::env::temp_dir().join(format!("wharf-soak-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("x.json"), folder.join("x.new"));
        fs::write(&other, "another's").unwrap();
        let closed = BTreeMap::from([("local".to_owned(), 2)]);
        let totals = Totals { seconds: 3, sessions: 5, closed, ..Totals::default() };
        let file = LedgerFile::<Ledger>::at(&path).unwrap();
        for backend in ["uring", "readiness", "uring"] {
            let add = |ledger: &mut Ledger| {
                ledger.entry(backend.to_owned()).or_default().add(&totals);
            };
            file.change(add).unwrap();
        }
        let ledger: Ledger = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"another's");
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(ledger["readiness"], totals);
        assert_eq!((ledger["uring"].seconds, ledger["uring"].closed["local"]), (6, 4));
    }
}
