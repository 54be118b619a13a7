//! wharf under simulation.
//!
//! A *case* is a scenario, a seed and a size. Running it starts the production engine on the simulated port,
//! plays peers and a program whose threads send and close, injects faults, and compares what is seen from
//! outside with what must be true (`truth`). Nothing here knows a queue, a count or an operation.
//!
//! - [`scenario`]: what is played, and how large.
//! - `driver`: plays the peers. `town`: the handler. `senders`: the program's other threads. `misbehaviour`:
//!   misbehaving user code.
//! - `gateway`: the scenario of that name, which has clients, targets, a handler and rules of its own.
//! - `framings`: the scenario of that name, with peers that speak several wire forms (`forms`).
//! - `web_socket`: WebSocket beside other framings, with peers that speak it by a stranger's codec.
//! - `rules`: what must hold. `truth`: compares what was seen with them; `publications`: the same for groups;
//!   `publishing`: what the program does with groups. `partings`: half-closes and farewells. `room`: who waits
//!   for room in a send queue, and who is paused. `notes`: notes and timers.
//! - [`campaign`]: many seeds, on every core. [`shrink`]: makes a failing case small. [`ledger`]: the totals
//!   of long runs. [`whole_file`]: how files are written.

#![forbid(unsafe_code)]

mod behind;
pub mod campaign;
mod driver;
mod forms;
mod frames;
mod framings;
mod gateway;
mod jobs;
pub mod ledger;
mod misbehaviour;
mod notes;
mod panics;
mod partings;
mod publications;
mod publishing;
mod room;
mod rules;
pub mod scenario;
mod senders;
mod sending;
pub mod shrink;
mod town;
mod truth;
mod web_socket;
pub mod whole_file;

pub use driver::{Outcome, run};
pub use rules::{Rule, Violation};
pub use scenario::{Case, Changes, Scenario, Size};
