//! wharf under simulation.
//!
//! A *case* is a scenario, a seed and a size. Running it starts the production engine on the simulated
//! port, plays peers and a program that sends and closes from threads of its own, lets faults happen,
//! and compares what is seen from outside with what must be (`truth`): nothing here knows a queue, a
//! count or an operation.
//!
//! - [`scenario`]: what is played, and how large.
//! - `driver`: plays the peers. `town`: the handler. `senders`: the program's other threads.
//!   `misbehaviour`: what all of the user's code does that it should not.
//! - `rules`: what must hold. `truth`: what was seen, held against them; `publications`: the same of
//!   groups; `publishing`: what the program does with these.
//! - [`campaign`]: many seeds, on every core. [`shrink`]: a failing case made small.
//!   [`ledger`]: the totals of long runs. [`whole_file`]: how files are written.

#![forbid(unsafe_code)]

pub mod campaign;
mod driver;
mod frames;
pub mod ledger;
mod misbehaviour;
mod panics;
mod publications;
mod publishing;
mod rules;
pub mod scenario;
mod senders;
pub mod shrink;
mod town;
mod truth;
pub mod whole_file;

pub use driver::{Outcome, run};
pub use rules::{Rule, Violation};
pub use scenario::{Case, Changes, Scenario, Size};
