//! Sessions that have echoed once and sit: what does each cost the server in memory?

use std::thread::sleep;

use crate::echo::{Echo, bring_up};
use crate::fleet::Fleet;
use crate::report::Figures;
use crate::window::{Measured, wait_for};
use crate::{Arguments, Failure};
use protocol::process::memory_bytes;

/// The slope between a tenth of the sessions and all: nothing that the server has once counts.
pub(crate) fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(arguments.target)?;
    let mut echo = Echo::new(arguments.bytes);
    let few = arguments.sessions.div_ceil(10);
    bring_up(&mut fleet, &mut echo, few)?;
    sleep(arguments.warm_up());
    let before = memory_bytes(arguments.server, "RssAnon")?;
    bring_up(&mut fleet, &mut echo, arguments.sessions)?;
    sleep(arguments.warm_up());
    let after = memory_bytes(arguments.server, "RssAnon")?;

    // They must still be there.
    echo.send_each(&mut fleet.out);
    wait_for(&mut fleet, &mut echo, "the second replies", Echo::is_finished)?;
    let more = (arguments.sessions - few).max(1);
    Ok(Figures {
        operations: arguments.sessions as u64,
        memory_bytes_per_session: Some(after.saturating_sub(before) as f64 / more as f64),
        ..Figures::default()
    })
}
