//! Runs a test for many seeds. Makes a failing one small, and reports it.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::shrink::{Fired, shrink};
use super::simulation::Simulation;
use crate::guarded;
use crate::port::simulated::{CutShort, Fault, LeftOut, Trial, World, is_in_trial};

/// In the environment: the only seed to run.
const SEED: &str = "WHARF_SEED";
/// How many runs it takes at most to make a failing seed small, and how long.
const RUNS_MAX: u32 = 300;
const TIME_MAX: Duration = Duration::from_secs(20);
/// Lines of the trace that are shown, its last.
const TRACE_LINES: usize = 60;

/// Runs a test once for each of these seeds, each time in a new simulation.
///
/// When the test panics, its seed is made small: it runs again with fewer and fewer faults, as long as it panics
/// at the same place. This takes at most 300 runs and about 20 seconds. Then the seed, the faults that are left
/// and the end of the trace are printed to standard error, and `check` panics as the test did. No further seed
/// is run.
///
/// `WHARF_SEED=17` in the environment runs seed 17 alone, whatever `seeds` says.
///
/// ```
/// use wharf::simulation::{Faults, check};
///
/// check(0..100, |simulation| {
///     let faults = Faults::all().swarm(simulation.seed());
///     let simulation = simulation.faults(faults);
///     // Start a server, play its peers, and assert.
///     # let _ = simulation;
/// });
/// ```
///
/// The test must make no simulation of its own while it uses the one that it is given.
///
/// # Panics
/// As the test does, and if `WHARF_SEED` is set and is no number.
pub fn check(seeds: impl IntoIterator<Item = u64>, mut test: impl FnMut(Simulation)) {
    let mut check_one = |seed| {
        let run = || test(Simulation::new(seed));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let report = report(seed, &mut test);
            eprintln!("{report}");
            resume_unwind(panic);
        }
    };
    match std::env::var(SEED) {
        Ok(seed) => match seed.parse() {
            Ok(seed) => check_one(seed),
            Err(error) => panic!("{SEED}={seed} is no seed: {error}"),
        },
        Err(_) => seeds.into_iter().for_each(check_one),
    }
}

/// Runs a failing seed again and again. Says what is to be said of it.
fn report(seed: u64, test: &mut dyn FnMut(Simulation)) -> Report {
    quiet_trials();
    let (mut left_out, mut runs) = (LeftOut::default(), 0);
    let smallest = try_once(seed, &left_out, None, false, test).and_then(|whole| {
        let deadline = Instant::now() + TIME_MAX;
        shrink(&mut left_out, whole.fired, &mut |left_out| {
            if runs == RUNS_MAX || Instant::now() >= deadline {
                return None;
            }
            runs += 1;
            let failed = try_once(seed, left_out, Some(deadline), false, test)?;
            (failed.place == whole.place).then_some(failed.fired)
        });
        try_once(seed, &left_out, None, true, test)
    });
    Report { seed, runs, smallest }
}

/// A run in which the test has panicked.
struct Failed {
    /// Where.
    place: Option<String>,
    /// What it said, if it was a text.
    message: Option<String>,
    fired: Fired,
    world: World,
}

thread_local! {
    /// Where this thread has panicked last, since [`quiet_trials`].
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs the test with less. `None`: it does not fail, or is not over at the deadline.
fn try_once(
    seed: u64,
    left_out: &LeftOut,
    deadline: Option<Instant>,
    keeps_trace: bool,
    test: &mut dyn FnMut(Simulation),
) -> Option<Failed> {
    let simulation = Simulation::new(seed);
    let world = simulation.world.clone();
    world.be_trial(Trial { deadline });
    world.leave_out(left_out.clone());
    if keeps_trace {
        world.keep_trace();
    }
    PLACE.set(None);
    let panic = catch_unwind(AssertUnwindSafe(|| test(simulation))).err()?;
    let (place, message, is_cut_short) = (PLACE.take(), message(&*panic), panic.is::<CutShort>());
    guarded::end(panic);
    if is_cut_short {
        return None;
    }
    let fired = Fired::new(world.fired(), world.firings());
    Some(Failed { place, message, fired, world })
}

fn message(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
}

/// From now on panics in trials are not printed, and where a thread has panicked is kept. This changes the
/// process's panic hook, so it waits until a test has failed.
fn quiet_trials() {
    static QUIETED: Once = Once::new();
    QUIETED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            let _ = PLACE.try_with(|last| last.set(place));
            if !is_in_trial() {
                usual(panic);
            }
        }));
    });
}

/// What is said of a failing seed.
struct Report {
    seed: u64,
    runs: u32,
    /// `None`: it did not fail again.
    smallest: Option<Failed>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, runs, smallest } = self;
        writeln!(f, "\nseed {seed} failed")?;
        let thread = std::thread::current();
        let name = thread.name().filter(|name| *name != "main").unwrap_or_default();
        writeln!(f, "  again   {SEED}={seed} cargo test {name}")?;
        let Some(Failed { place, message, world, .. }) = smallest else {
            return writeln!(
                f,
                "  but it did not fail when it ran again: something besides the seed decides the run"
            );
        };
        let fired = world.fired().into_iter().filter(|(_, times)| *times > 0);
        let fired: Vec<String> = fired.map(said).collect();
        match &fired[..] {
            [] => writeln!(f, "  faults  none: it fails without any ({runs} runs tried)")?,
            left => writeln!(f, "  faults  {} ({runs} runs tried)", left.join(", "))?,
        }
        if let Some(message) = message {
            writeln!(f, "  panic   {}", message.replace('\n', "\n          "))?;
        }
        if let Some(place) = place {
            writeln!(f, "  at      {place}")?;
        }
        let trace = world.trace_of_deeds();
        let shown = &trace[trace.len().saturating_sub(TRACE_LINES)..];
        writeln!(f, "the last {} of {} lines of its trace:", shown.len(), trace.len())?;
        shown.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn said((fault, times): (Fault, u64)) -> String {
    match times {
        1 => fault.name().to_owned(),
        times => format!("{times} x {fault}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::simulated::Faults;

    #[test]
    fn a_run_that_fails_at_another_place_is_no_smaller_one() {
        let report = report(1, &mut |simulation| {
            let faults = Faults::none().with(Fault::PeerResets, 1).with(Fault::PeerStalls, 1);
            let simulation = simulation.faults(faults);
            simulation.fires(Fault::PeerStalls);
            if simulation.fires(Fault::PeerResets) {
                panic!("here");
            }
            panic!("elsewhere");
        });
        let smallest = report.smallest.unwrap();
        assert_eq!(smallest.message.as_deref(), Some("here"));
        assert_eq!(smallest.fired.faults, [Fault::PeerResets]);
    }

    #[test]
    fn a_trial_that_goes_on_for_ever_is_cut_short() {
        let (left_out, deadline) = (LeftOut::default(), Some(Instant::now()));
        let passes = |how: fn(&Simulation)| {
            let mut test = |simulation: Simulation| loop {
                how(&simulation);
            };
            try_once(1, &left_out, deadline, false, &mut test).is_none()
        };
        assert!(passes(|simulation| simulation.sleep(Duration::from_secs(1))));
        assert!(passes(|simulation| assert_eq!(simulation.next_news(None), None)));
        assert!(passes(|simulation| {
            simulation.run_until(Duration::from_secs(1), || false);
        }));
    }
}
