//! A window of time in which is counted, and what goes before and after it.

use std::time::Duration;

use protocol::now_ns;

use crate::fleet::{Client, Fleet, Outbox};
use crate::report::{Figures, Tally};
use crate::{Arguments, Failure};
use protocol::process::{Softirq, cpu_secs, machine_cpu_secs, own_cpu_secs};

/// How long what is outstanding may take to come.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A client that can be measured.
pub(crate) trait Measured: Client {
    fn tally(&mut self) -> &mut Tally;

    /// Does what is due, and says when more will be.
    fn act(&mut self, _out: &mut Outbox) -> Option<u64> {
        None
    }

    /// From now on nothing new is begun.
    fn finish(&mut self) {}

    /// Whether nothing is outstanding; after [`Measured::finish`].
    fn is_finished(&self) -> bool;
}

/// Warms up, counts, and waits until everything that was begun is answered.
pub(crate) fn measure<C: Measured>(
    arguments: &Arguments,
    fleet: &mut Fleet,
    client: &mut C,
) -> Result<Figures, Failure> {
    measure_over(arguments, fleet, client, |_, _| Ok(()))
}

/// The same, with `after_turn` after each batch of completions.
pub(crate) fn measure_over<C: Measured>(
    arguments: &Arguments,
    fleet: &mut Fleet,
    client: &mut C,
    mut after_turn: impl FnMut(&mut Fleet, &mut C) -> Result<(), Failure>,
) -> Result<Figures, Failure> {
    let mut until = |fleet: &mut Fleet, client: &mut C, end_ns: u64, operations: u64| {
        while fleet.out.now_ns < end_ns && client.tally().operations < operations {
            let due_ns = client.act(&mut fleet.out).map_or(end_ns, |due_ns| due_ns.min(end_ns));
            let patience = due_ns.saturating_sub(now_ns());
            fleet.turn(Some(Duration::from_nanos(patience)), client)?;
            after_turn(fleet, client)?;
        }
        Ok::<(), Failure>(())
    };
    // Before the warm-up: to look for them takes longer than a batch.
    let own_pid = std::process::id();
    let server_softirq = Softirq::of(arguments.server, Some(own_pid))?;
    let load_softirq = Softirq::of(own_pid, None)?;
    until(fleet, client, now_ns() + arguments.warm_up().as_nanos() as u64, u64::MAX)?;

    client.tally().clear();
    let machine = machine_cpu_secs()?;
    let softirq = (server_softirq.cpu_secs()?, load_softirq.cpu_secs()?);
    let (start_ns, server, load) = (now_ns(), cpu_secs(arguments.server)?, own_cpu_secs()?);
    let operations = arguments.operations.unwrap_or(u64::MAX);
    until(fleet, client, start_ns + arguments.duration().as_nanos() as u64, operations)?;
    let (server, load) = (cpu_secs(arguments.server)? - server, own_cpu_secs()? - load);
    let (server_softirq, load_softirq) =
        (server_softirq.cpu_secs()? - softirq.0, load_softirq.cpu_secs()? - softirq.1);
    let machine = machine_cpu_secs()? - machine;
    let counted = server + load + server_softirq + load_softirq;
    let figures = Figures {
        operations: client.tally().operations,
        secs: (now_ns() - start_ns) as f64 / 1e9,
        server_cpu_s: server,
        load_cpu_s: load,
        server_softirq_cpu_s: server_softirq,
        load_softirq_cpu_s: load_softirq,
        others_cpu_s: (machine - counted).max(0.0),
        latency_us: client.tally().latency(),
        ..Figures::default()
    };

    client.finish();
    wait_for(fleet, client, "answers", |client| client.is_finished())?;
    if figures.operations < arguments.operations.unwrap_or(1) {
        return Err(format!("only {} operations in {} s", figures.operations, figures.secs).into());
    }
    Ok(figures)
}

/// Takes completions until it is so, but not for ever.
pub(crate) fn wait_for<C: Client>(
    fleet: &mut Fleet,
    client: &mut C,
    what: &str,
    is_so: impl Fn(&C) -> bool,
) -> Result<(), Failure> {
    let deadline_ns = now_ns() + GRACE.as_nanos() as u64;
    while !is_so(client) {
        if now_ns() > deadline_ns {
            return Err(format!("{what} did not come within {} s", GRACE.as_secs()).into());
        }
        fleet.turn(Some(Duration::from_millis(100)), client)?;
    }
    Ok(())
}
