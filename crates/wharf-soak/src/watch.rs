//! Ends the process when a round hangs, for example in a deadlock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{panics, process};

/// What takes longer than this is a hang.
const STAGE_TIME_MAX: Duration = Duration::from_secs(30);

type Report = Box<dyn Fn() -> String + Send>;

struct Stage {
    name: &'static str,
    began: Instant,
    time_max: Duration,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);
static REPORT: Mutex<Option<Report>> = Mutex::new(None);

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch. `report` says what there is to see.
pub(crate) fn begin(report: impl Fn() -> String + Send + 'static) {
    *lock(&REPORT) = Some(Box::new(report));
}

/// Says what is done now, and must be over in time, beside what it takes by itself.
pub(crate) fn stage(name: &'static str, takes: Duration) {
    let time_max = takes + STAGE_TIME_MAX;
    *lock(&STAGE) = Some(Stage { name, began: Instant::now(), time_max });
}

pub(crate) fn end() {
    *lock(&STAGE) = None;
    *lock(&REPORT) = None;
}

/// Looks from a thread of its own, for as long as the process lives.
pub(crate) fn start() -> std::io::Result<()> {
    let body = || {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let stage = lock(&STAGE);
            let Some(stage) = stage.as_ref().filter(|stage| stage.began.elapsed() > stage.time_max)
            else {
                continue;
            };
            let report = lock(&REPORT).as_ref().map_or(String::new(), |report| report());
            let said = panics::last().unwrap_or_else(|| "no worker has failed".to_owned());
            eprintln!("HANG: {} does not end in {:?}; {said}", stage.name, stage.time_max);
            eprintln!("{report}threads:\n{}", process::threads());
            std::process::exit(3);
        }
    };
    std::thread::Builder::new().name("soak-watch".to_owned()).spawn(body).map(drop)
}
