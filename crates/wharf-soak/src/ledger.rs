//! Totals, of one run and of all runs in a file, so that they can be quoted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

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
        self.violations += u64::from(!outcome.violations.is_empty());
        for (reason, count) in stats.closed_by().filter(|(_, count)| *count > 0) {
            *self.closed.entry(reason.to_owned()).or_default() += count;
        }
        for violation in &outcome.violations {
            *self.broken.entry(format!("{:?}", violation.rule)).or_default() += 1;
        }
    }

    fn add(&mut self, other: &Totals) {
        self.seconds += other.seconds;
        self.rounds += other.rounds;
        self.sessions += other.sessions;
        self.refused += other.refused;
        self.connects_failed += other.connects_failed;
        self.frames += other.frames;
        self.panics += other.panics;
        self.violations += other.violations;
        for (sums, parts) in [(&mut self.closed, &other.closed), (&mut self.broken, &other.broken)]
        {
            for (name, count) in parts {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// Adds totals to those of a backend in the file, which is made if there is none.
///
/// # Errors
/// If the file cannot be read or written, or is no ledger.
pub(crate) fn add(path: &Path, backend: &str, totals: &Totals) -> io::Result<()> {
    let mut ledger: BTreeMap<String, Totals> = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    ledger.entry(backend.to_owned()).or_default().add(totals);
    // Whole or not at all: a ledger that was cut off would lose what went before.
    let aside = path.with_extension("new");
    fs::write(&aside, serde_json::to_string_pretty(&ledger)? + "\n")?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_added_up_by_backend() {
        let path = std::env::temp_dir().join(format!("wharf-soak-{}.json", std::process::id()));
        let closed = BTreeMap::from([("local".to_owned(), 2)]);
        let totals = Totals { seconds: 3, sessions: 5, closed, ..Totals::default() };
        for backend in ["uring", "readiness", "uring"] {
            add(&path, backend, &totals).unwrap();
        }
        let ledger: BTreeMap<String, Totals> =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(ledger["readiness"], totals);
        assert_eq!((ledger["uring"].seconds, ledger["uring"].closed["local"]), (6, 4));
    }
}
