//! The program's other threads: they send to sessions by their ids, living or long gone, publish, and
//! close some.

use std::sync::Arc;
use std::time::Duration;

use oorandom::Rand64;
use wharf::simulation::{Fault, fires};
use wharf::{Close, Handle};

use crate::frames::GROUPS;
use crate::publications::{PUBLISHING_THREADS, To};
use crate::publishing::publish;
use crate::scenario::Plan;
use crate::town::send;
use crate::truth::SharedTruth;

/// Sender numbers of threads begin here.
const THREADS: u32 = 1;

pub(crate) fn run(truth: &Arc<SharedTruth>, handle: &Handle, index: u32, seed: u64, plan: &Plan) {
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
        if random.rand_range(0..3) == 0 {
            let to = match random.rand_range(0..GROUPS + plan.broadcasts) {
                group @ 0..GROUPS => To::Members(group),
                _ => To::All,
            };
            for _ in 0..1 + random.rand_range(0..4) {
                let bytes = random.rand_range(0..bytes_max as u64) as usize;
                publish(truth, handle, PUBLISHING_THREADS + index, to, bytes);
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
