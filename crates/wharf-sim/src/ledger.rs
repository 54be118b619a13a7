//! The totals of long runs, kept in a file so that they can be quoted.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wharf::simulation::Fault;

use crate::campaign::Totals;
use crate::whole_file::WholeFile;

/// A file that holds a ledger, of whatever kind, as JSON.
#[derive(Debug)]
pub struct LedgerFile<T> {
    file: WholeFile,
    ledger: PhantomData<T>,
}

impl<T: Default + Serialize + DeserializeOwned> LedgerFile<T> {
    /// Checks that the file holds such a ledger, or is not there yet, and can be written. Nothing is changed.
    ///
    /// # Errors
    /// If not.
    pub fn at(path: &Path) -> io::Result<LedgerFile<T>> {
        let file = LedgerFile { file: WholeFile::at(path)?, ledger: PhantomData };
        file.read()?;
        Ok(file)
    }

    fn read(&self) -> io::Result<T> {
        let Some(bytes) = self.file.read()? else { return Ok(T::default()) };
        serde_json::from_slice(&bytes).map_err(|error| self.file.is_no("ledger", error))
    }

    /// Changes the ledger that is in the file now, or an empty one if there is no file.
    ///
    /// # Errors
    /// If the file can no longer be read or written, or is no such ledger any more.
    pub fn change(&self, change: impl FnOnce(&mut T)) -> io::Result<()> {
        let mut ledger = self.read()?;
        change(&mut ledger);
        let text = serde_json::to_string_pretty(&ledger)? + "\n";
        self.file.write(text.as_bytes())
    }
}

/// One entry for each run, oldest first, and the sums.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// All entries together.
    pub all: Sums,
    /// One for each run.
    pub runs: Vec<Entry>,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The day, in UTC.
    pub date: String,
    /// The commit that was run, as far as it is known.
    pub commit: String,
    /// The command.
    pub command: String,
    /// Rules that were broken.
    pub violations: u64,
    /// The rest.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What can be added up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sums {
    /// Seeds.
    pub seeds: u64,
    /// Operations that were posted, and completions that were taken.
    pub operations: u64,
    /// Sessions.
    pub sessions: u64,
    /// Frames that were received, on either side.
    pub frames: u64,
    /// Times that another thread went on.
    pub switches: u64,
    /// Virtual time.
    pub virtual_seconds: f64,
    /// Real time.
    pub real_seconds: f64,
    /// How often each fault happened.
    pub faults: BTreeMap<String, u64>,
}

impl Sums {
    /// The sums of a campaign.
    pub fn of(totals: &Totals) -> Sums {
        let fired = Fault::ALL.iter().zip(&totals.fired);
        Sums {
            seeds: totals.seeds,
            operations: totals.operations(),
            sessions: totals.sessions,
            frames: totals.frames,
            switches: totals.switches,
            virtual_seconds: totals.virtual_time.as_secs_f64().round(),
            real_seconds: totals.real_time.as_secs_f64().round(),
            faults: fired.map(|(fault, times)| (fault.name().to_owned(), *times)).collect(),
        }
    }

    fn add(&mut self, other: &Sums) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.sessions += other.sessions;
        self.frames += other.frames;
        self.switches += other.switches;
        self.virtual_seconds += other.virtual_seconds;
        self.real_seconds += other.real_seconds;
        for (fault, times) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
    }
}

impl Ledger {
    /// Adds a run.
    pub fn add(&mut self, entry: Entry) {
        self.all.add(&entry.sums);
        self.runs.push(entry);
    }
}
