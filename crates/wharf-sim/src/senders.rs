//! The program's other threads: they send to session ids, live or long gone, publish, and close some.

use std::sync::Arc;
use std::time::Duration;

use oorandom::Rand64;
use wharf::simulation::{Fault, fires};
use wharf::{Close, Handle, Mailer, SessionId};

use crate::behind::Behind;
use crate::frames::GROUPS;
use crate::jobs::offload;
use crate::notes::{Note, tell};
use crate::partings::{FAREWELL_BYTES, finish, kick};
use crate::publications::{PUBLISHING_THREADS, To};
use crate::publishing::{look, publish, publish_keyed, wait_to_publish};
use crate::room::{ask_for_room, pause};
use crate::scenario::Plan;
use crate::sending::{send, send_latest};
use crate::truth::{LATEST, SharedTruth};

/// Sender numbers of threads begin here.
const THREADS: u32 = 1;

/// Finishes a session, closes it with a farewell, asks for room in its queue, pauses or resumes it.
pub(crate) fn part(
    truth: &SharedTruth,
    handle: &Handle,
    plan: &Plan,
    id: SessionId,
    what: u64,
    bytes: usize,
) {
    match what {
        0 if plan.halves => finish(truth, handle, id, None),
        1 if plan.farewells => kick(truth, handle, id, bytes % FAREWELL_BYTES as usize, None),
        2..12 if plan.room => ask_for_room(truth, handle, id, bytes),
        12..22 if plan.room => pause(truth, handle, id, true, None),
        22.. if plan.room => pause(truth, handle, id, false, None),
        _ => {}
    }
}

/// Publishes much at once, or sends frames of which only the newest are of use.
fn burst(
    truth: &Arc<SharedTruth>,
    handle: &Handle,
    index: u32,
    random: &mut Rand64,
    (behind, bytes_max, id): (&Behind, usize, Option<SessionId>),
) {
    let group = random.rand_range(0..GROUPS);
    let (is_to_all, has_keys) = (random.rand_range(0..6) == 0, random.rand_range(0..2) == 0);
    let to = if is_to_all { To::All } else { To::Members(group) };
    let latest = id.filter(|_| random.rand_range(0..3) == 0);
    for _ in 0..1 + random.rand_range(0..behind.burst) {
        let bytes = random.rand_range(0..bytes_max as u64) as usize;
        if let Some(id) = latest {
            send_latest(truth, handle, id, LATEST + index, bytes);
            continue;
        }
        let key = has_keys.then(|| random.rand_range(0..4)).filter(|key| *key < 3);
        if publish_keyed(truth, handle, PUBLISHING_THREADS + index, (to, key), bytes) {
            continue;
        }
        if !behind.waits_to_publish || !wait_to_publish(truth, handle) {
            break;
        }
    }
}

pub(crate) fn run(
    truth: &Arc<SharedTruth>,
    (handle, mailer): (&Handle, &Mailer<Note>),
    index: u32,
    seed: u64,
    plan: &Plan,
) {
    let mut random = Rand64::new(u128::from(seed) << 32 | u128::from(index) | 0x5e4d << 16);
    let gap_ns = u64::try_from((plan.gap * 8).as_nanos()).unwrap_or(u64::MAX).max(1);
    let bytes_max = plan.request_bytes;
    loop {
        let (id, ends) = {
            let truth = truth.lock();
            // Mostly to those that came last.
            let among = if random.rand_range(0..8) == 0 { truth.ids.len() } else { 32 };
            let back = random.rand_range(0..among.min(truth.ids.len()).max(1) as u64) as usize;
            (truth.ids.iter().rev().nth(back).copied(), truth.senders_end)
        };
        if ends {
            break;
        }
        if let Some(behind) = &plan.behind
            && random.rand_range(0..3) == 0
        {
            burst(truth, handle, index, &mut random, (behind, bytes_max, id));
        } else if plan.notes
            && random.rand_range(0..3) == 0
            && let Some(id) = id
        {
            let many = if random.rand_range(0..16) == 0 { 200 } else { 3 };
            for _ in 0..1 + random.rand_range(0..many) {
                if random.rand_range(0..3) == 0 {
                    let argument = random.rand_range(0..1 << 20);
                    offload(truth, mailer, (id, false), THREADS + index, argument);
                } else {
                    tell(truth, mailer, id, THREADS + index);
                }
            }
        } else if plan.has_parting()
            && random.rand_range(0..4) == 0
            && let Some(id) = id
        {
            let (what, bytes) = (random.rand_range(0..32), random.rand_range(0..1 << 16));
            part(truth, handle, plan, id, what, bytes as usize);
        } else if random.rand_range(0..3) == 0 && plan.publishes {
            let to = match random.rand_range(0..GROUPS + plan.broadcasts) {
                group @ 0..GROUPS => To::Members(group),
                _ => To::All,
            };
            for _ in 0..1 + random.rand_range(0..4) {
                let bytes = random.rand_range(0..bytes_max as u64) as usize;
                publish(truth, handle, PUBLISHING_THREADS + index, to, bytes);
                if bytes % 8 == 5 {
                    look(truth, handle, to.group() % GROUPS);
                }
            }
        } else if let Some(id) = id {
            let many = if random.rand_range(0..16) == 0 { 40 } else { 1 };
            for _ in 0..1 + random.rand_range(0..many) {
                let bytes = random.rand_range(0..bytes_max as u64) as usize;
                send(truth, handle, id, THREADS + index, bytes, None);
            }
            if fires(Fault::LocalClose) {
                let how = if random.rand_range(0..2) == 0 { Close::Stop } else { Close::Drain };
                truth.lock().asks_to_close(id, how);
                handle.close(id, how);
            }
        }
        let ns = random.rand_range(0..gap_ns.saturating_mul(2));
        wharf::simulation::sleep(Duration::from_nanos(ns));
    }
    truth.lock().senders -= 1;
}
