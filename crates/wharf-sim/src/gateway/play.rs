//! Plays the clients and the targets of a gateway, and judges what they get.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use oorandom::Rand64;
use wharf::simulation::for_wharf_sim::left_registered;
use wharf::simulation::{Fault, Peer, PeerListener, Simulation};
use wharf::{CloseReason, Error, Framing, Handle, Server, SessionId};

use super::ends::End;
use super::handler::Gateway;
use super::{Facts, SharedFacts};
use crate::panics;
use crate::rules::Rule;
use crate::scenario::{Case, Plan};

const GATEWAY: ([u8; 4], u16) = ([10, 255, 0, 1], 7_000);
const TARGET: ([u8; 4], u16) = ([10, 254, 0, 1], 8_000);
/// By now everything must have arrived: far above every time that a fault can take.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);
/// What an end may have sent that has not left.
const UNSENT_BYTES_MAX: usize = 256 << 10;

struct Player<'a> {
    case: &'a Case,
    plan: &'a Plan,
    simulation: &'a Simulation,
    random: Rand64,
    facts: Arc<SharedFacts>,
    handle: Handle,
    targets: PeerListener,
    /// Clients and targets, each at its number.
    ends: Vec<End>,
    by_key: HashMap<u64, usize>,
}

/// Plays a case of a gateway. `Ok(Some(_))`: the system gave no thread.
pub(crate) fn play(
    case: &Case,
    plan: &Plan,
    simulation: &Simulation,
    facts: &Arc<SharedFacts>,
    stop: &AtomicBool,
) -> Result<Option<io::Error>, Error> {
    let gateway =
        Arc::new(Gateway { target: TARGET.into(), handle: OnceLock::new(), facts: facts.clone() });
    {
        let may_fail = [
            Fault::ReceiveFails,
            Fault::SendFails,
            Fault::PostRefused,
            Fault::RegisterRefused,
            Fault::PortFails,
            Fault::WorkerFaults,
            Fault::AdmissionFaults,
        ];
        facts.lock().fails = case.faults().present().any(|fault| may_fail.contains(&fault));
        let may_end = |fault: &Fault| may_fail[4..].contains(fault);
        facts.lock().ending = case.faults().present().any(|fault| may_end(&fault));
    }
    let Some(targets) = simulation.listen(TARGET.into()) else { return Ok(None) };
    let builder = Server::builder().listen(SocketAddr::from(GATEWAY)).framing(Framing::raw());
    let prepared = simulation.prepare(builder.options(plan.options.clone()), gateway.clone())?;
    let handle = prepared.handle();
    let _ = gateway.handle.set(handle.clone());
    let server = prepared.start();
    let mut player = Player {
        case,
        plan,
        simulation,
        random: Rand64::new(u128::from(case.seed) << 32 | 0xd2),
        facts: facts.clone(),
        handle,
        targets,
        ends: Vec::new(),
        by_key: HashMap::new(),
    };
    for _ in 0..case.size.steps {
        player.step();
        if stop.load(Ordering::Relaxed) || !facts.lock().violations.is_empty() {
            break;
        }
    }
    player.settle();
    player.settle_without_half_closes();
    Ok(player.end(server))
}

impl Player<'_> {
    fn below(&mut self, below: u64) -> u64 {
        self.random.rand_range(0..below.max(1))
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn step(&mut self) {
        let here = self.ends.iter().filter(|end| end.is_client() && end.peer.is_some()).count();
        if here < self.case.size.peers as usize
            && let Some(peer) = self.simulation.connect(GATEWAY.into())
        {
            let address = peer.address();
            self.add(peer, Some(address));
        }
        self.accept();
        if !self.ends.is_empty() {
            // Mostly one of those that came last.
            let among = if self.one_in(8) { self.ends.len() } else { self.ends.len().min(32) };
            let back = self.below(among as u64) as usize;
            self.act(self.ends.len() - 1 - back);
        }
        if self.one_in(16) {
            self.look_at_memory();
        }
        let usual = self.plan.gap.as_nanos() as u64;
        let gap = self.below(usual * 2);
        self.let_pass(Duration::from_nanos(gap));
    }

    fn add(&mut self, peer: Peer, address: Option<SocketAddr>) {
        self.by_key.insert(peer.key(), self.ends.len());
        self.ends.push(End::new(self.ends.len() as u32, peer, address));
    }

    fn accept(&mut self) {
        while let Some(peer) = self.targets.accept() {
            self.add(peer, None);
        }
    }

    /// A client or a target does something.
    fn act(&mut self, index: usize) {
        if self.does_harm(index) {
            return;
        }
        let most = [200, 5_000, 100_000][self.below(3) as usize];
        let (count, ends) = (1 + self.below(most), self.one_in(24));
        let end = &mut self.ends[index];
        let Some(peer) = &end.peer else { return };
        if peer.unsent_bytes() < UNSENT_BYTES_MAX {
            end.send(count);
        }
        let is_answered = end.got_end && ends; // it has heard all that there is
        if (ends || is_answered) && !end.has_ended {
            end.finish();
        }
    }

    fn does_harm(&mut self, index: usize) -> bool {
        let fires = |fault| self.simulation.fires(fault);
        let reads_on = self.random.rand_range(0..8) == 0;
        let end = &mut self.ends[index];
        let Some(peer) = &end.peer else { return false };
        if fires(Fault::PeerStalls) {
            end.stalls = true;
            peer.stall(true);
        } else if end.stalls && reads_on {
            end.stalls = false;
            peer.stall(false);
        }
        if fires(Fault::PeerHalfCloses) {
            end.finish();
            return true;
        }
        // Then it is known who is on its other side.
        if end.from().is_some() && peer.unsent_bytes() == 0 && fires(Fault::PeerVanishes) {
            peer.vanish();
            (end.has_vanished, end.peer) = (true, None);
            return true;
        }
        if fires(Fault::PeerResets) {
            peer.reset();
        } else if fires(Fault::PeerClosesUnread) {
            peer.close_now();
        } else {
            return false;
        }
        (end.is_cut, end.peer) = (true, None);
        true
    }

    fn let_pass(&mut self, gap: Duration) {
        let end = self.simulation.now() + gap;
        loop {
            let left = end.saturating_sub(self.simulation.now());
            match self.simulation.next_news(Some(left)) {
                Some(key) => self.take_news(key),
                None if self.simulation.now() >= end => break,
                None => {}
            }
        }
    }

    fn take_news(&mut self, key: u64) {
        let Some(index) = self.by_key.get(&key).copied() else { return };
        let wrong = self.ends[index].take();
        let end = &self.ends[index];
        let too_many = || {
            let from = self.ends.get(end.from()? as usize)?;
            let is_other = from.is_client() != end.is_client();
            let what = || {
                format!("{} got {} bytes of {}, of {}", end.number, end.got, from.number, from.sent)
            };
            (!is_other || end.got > from.sent).then(what)
        };
        if let Some(what) = wrong.or_else(too_many) {
            self.facts.lock().broken(Rule::GatewaysPassOn, vec![key], what);
        }
    }

    /// The gateway keeps no more than its queues may hold.
    fn look_at_memory(&self) {
        let stats = self.handle.stats();
        let max = stats.live.saturating_add(4) * self.plan.options.sending.queue_bytes_max as u64;
        if stats.queued_bytes > max {
            let what = format!("a gateway keeps {} bytes, of {max}", stats.queued_bytes);
            self.facts.lock().broken(Rule::GatewaysPassOn, Vec::new(), what);
        }
    }

    /// Nothing goes wrong any more, everyone reads, and says one thing more who still may.
    fn settle(&mut self) {
        self.simulation.be_quiet();
        for end in &mut self.ends {
            if let Some(peer) = &end.peer {
                peer.stall(false);
            }
            end.send(100);
        }
        self.wait_until_settled();
    }

    fn settle_without_half_closes(&mut self) {
        self.ends.iter_mut().filter(|end| !end.has_ended).for_each(End::finish);
        self.wait_until_settled();
    }

    fn wait_until_settled(&mut self) {
        let end = self.simulation.now() + PATIENCE;
        let mut step = Duration::from_millis(1);
        while self.facts.lock().violations.is_empty() && !self.has_failed() {
            self.let_pass(step);
            self.accept();
            step = (step * 2).min(Duration::from_secs(60));
            let Some((about, what)) = self.unsettled(&self.facts.lock()) else { break };
            if self.simulation.now() >= end {
                self.facts.lock().broken(Rule::GatewaysPassOn, about, what);
            }
        }
    }

    /// What has not come about yet, and must.
    fn unsettled(&self, facts: &Facts) -> Option<(Vec<u64>, String)> {
        let mut passed_on = vec![false; self.ends.len()];
        for client in self.ends.iter().filter(|end| end.is_client()) {
            let accepted = client.address.and_then(|address| facts.by_address.get(&address));
            let is_well = accepted.is_some_and(|accepted| self.is_well(client, *accepted, facts));
            let Some(accepted) = accepted.filter(|_| is_well) else { continue };
            let about = vec![accepted.to_bits(), client.key()];
            let target = self.ends.iter().find(|end| end.from() == Some(client.number));
            let Some(target) = target else {
                // One that was cut before it got anything is perhaps this one.
                if self.ends.iter().any(|end| end.is_cut && end.from().is_none()) {
                    passed_on[client.number as usize] = true;
                    continue;
                }
                return Some((about, format!("nothing of {} came to its target", client.number)));
            };
            if target.is_cut || target.has_vanished || target.was_reset {
                continue;
            }
            if let Some(what) =
                not_passed_on(client, target).or_else(|| not_passed_on(target, client))
            {
                return Some((about, what));
            }
            let sides = [Some(*accepted), facts.sides[accepted].other];
            let are_open = sides.into_iter().flatten().any(|id| facts.is_open(id));
            if client.has_ended && target.has_ended && are_open {
                return Some((about, format!("both {} and its target have ended", client.number)));
            }
            passed_on[client.number as usize] = true;
            passed_on[target.number as usize] = true;
        }
        // Of all others the end has come, unless who is on the other side has vanished.
        let is_left = |end: &&End| {
            let other = end.from().and_then(|from| self.ends.get(from as usize));
            let has_end = end.got_end || end.was_reset || end.is_cut || end.has_vanished;
            !(passed_on[end.number as usize] || has_end || other.is_some_and(|of| of.has_vanished))
        };
        let left = self.ends.iter().find(is_left)?;
        Some((vec![left.key()], format!("{} has a gateway without another side", left.number)))
    }

    /// Whether nothing has happened to a client and to its session that keeps bytes from its target. (What has
    /// happened to the target is looked at later: it may not be known yet who that is.)
    fn is_well(&self, client: &End, accepted: SessionId, facts: &Facts) -> bool {
        let ends_well = |id: SessionId| match facts.sides.get(&id).map(|side| side.closed) {
            Some(Some(CloseReason::PeerClosed | CloseReason::Local)) | Some(None) => true,
            Some(Some(_)) => false,
            None => true, // it is not open yet
        };
        let other = facts.sides.get(&accepted).and_then(|side| side.other);
        let is_lost = client.is_cut || client.has_vanished || client.was_reset;
        let has_target = !facts.without_target.contains(&accepted);
        !is_lost && has_target && ends_well(accepted) && other.is_some_and(ends_well)
    }

    fn has_failed(&self) -> bool {
        let ends = [Fault::PortFails, Fault::WorkerFaults, Fault::AdmissionFaults];
        self.simulation.fired().iter().any(|(fault, times)| ends.contains(fault) && *times > 0)
    }

    /// The server ends, and nothing is left. Why the system gave no thread, if it gave none.
    fn end(&mut self, server: Server) -> Option<io::Error> {
        self.facts.lock().ending = true;
        let (handle, drains) = (self.handle.clone(), self.one_in(2));
        let ended = Arc::new(OnceLock::new());
        let ends = ended.clone();
        let body = move || {
            if drains {
                let _ = handle.drain(Duration::from_secs(10));
            } else {
                handle.stop();
            }
            let _ = ends.set(server.wait());
        };
        if let Err(refused) = self.simulation.spawn(body) {
            return Some(refused);
        }
        let has_ended = self.simulation.run_until(PATIENCE, || ended.get().is_some());
        let stats = self.handle.stats();
        let left = (stats.live, stats.queued_bytes, left_registered(self.simulation));
        let wrong = match ended.get() {
            _ if self.has_failed() => None,
            Some(Ok(())) if left == (0, 0, 0) => None,
            Some(Ok(())) => Some((Rule::NothingIsLeft, format!("{left:?} are left"))),
            Some(Err(error)) => {
                let said = panics::take_last().unwrap_or_default();
                Some((Rule::WorkersDoNotFail, format!("{error:?}: {said}")))
            }
            None => Some((Rule::RunsEnd, format!("the server did not end: {has_ended}"))),
        };
        if let Some((rule, what)) = wrong {
            self.facts.lock().broken(rule, Vec::new(), what);
        }
        None
    }
}

/// What of one end's has not come to the other.
fn not_passed_on(from: &End, to: &End) -> Option<String> {
    if to.from().is_some_and(|number| number != from.number) {
        return Some(format!("{} got bytes of {:?}, not of {}", to.number, to.from(), from.number));
    }
    if to.got != from.sent {
        return Some(format!("{} of {} bytes of {} came", to.got, from.sent, from.number));
    }
    (from.has_ended != to.got_end).then(|| {
        format!(
            "{} has ended: {}, and {} was told: {}",
            from.number, from.has_ended, to.number, to.got_end
        )
    })
}
