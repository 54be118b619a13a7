//! Sessions that have echoed once and sit: what does each cost the server in memory?

use std::thread::sleep;

use crate::echo::{Echo, Echoes, bring_up};
use crate::fleet::Fleet;
use crate::messages::Messages;
use crate::report::Figures;
use crate::window::wait_for;
use crate::{Arguments, Failure};
use protocol::process::memory_bytes;

pub(crate) fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    match arguments.form {
        None => measure(arguments, Echo::new(arguments.bytes)),
        Some(form) => measure(arguments, Messages::new(form, arguments.bytes)),
    }
}

/// The slope between a tenth of the sessions and all: nothing that the server has once counts.
fn measure<C: Echoes>(arguments: &Arguments, mut echo: C) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(arguments.target)?;
    let few = arguments.sessions.div_ceil(10);
    bring_up(&mut fleet, &mut echo, few)?;
    sleep(arguments.warm_up());
    let before = memory_bytes(arguments.server, "RssAnon")?;
    bring_up(&mut fleet, &mut echo, arguments.sessions)?;
    sleep(arguments.warm_up());
    let after = memory_bytes(arguments.server, "RssAnon")?;

    // They must still be there.
    echo.send_each(&mut fleet.out);
    wait_for(&mut fleet, &mut echo, "the second replies", C::is_finished)?;
    let more = (arguments.sessions - few).max(1);
    Ok(Figures {
        operations: arguments.sessions as u64,
        memory_bytes_per_session: Some(after.saturating_sub(before) as f64 / more as f64),
        ..Figures::default()
    })
}
