//! Program threads that use every function of the server's handle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf::{Close, ConnectError, Handle, Mailer, SessionId};

use crate::actor::{Actor, GROUPS_OF_A_THREAD, THREADS};
use crate::deeds::{TOWN, To};
use crate::due::{Note, Teller};
use crate::handler::farewell_bytes;
use crate::odd_frames::{OddFrame, Way};
use crate::panics;
use crate::plan::Plan;
use crate::random::Random;
use crate::rules::Rule;
use crate::truth::{Target, Truth, lock};

/// Where connects go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) listener: SocketAddr,
    pub(crate) mute: SocketAddr,
    pub(crate) refused: SocketAddr,
}

pub(crate) struct Sender {
    plan: Arc<Plan>,
    truth: Arc<Truth>,
    handle: Handle,
    targets: Targets,
    actor: Actor,
    teller: Teller,
    random: Random,
    /// Sessions that it has paused, and when it resumes each.
    paused: Vec<(Instant, SessionId)>,
}

impl Sender {
    pub(crate) fn new(
        plan: &Arc<Plan>,
        truth: &Arc<Truth>,
        handle: &Handle,
        targets: Targets,
        mailer: &Mailer<Note>,
        thread: u64,
    ) -> Sender {
        let actor = Actor::of_round(THREADS + thread, plan);
        let random = Random::new(plan.seed, (3 << 32) + thread);
        let teller = Teller::new(thread, mailer);
        let (plan, truth, handle) = (plan.clone(), truth.clone(), handle.clone());
        Sender { plan, truth, handle, targets, actor, teller, random, paused: Vec::new() }
    }

    /// Until it is told to end.
    pub(crate) fn run(mut self, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            self.resume();
            let recent = self.truth.recent();
            if recent.is_empty() || self.truth.is_quiet() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let id = self.random.pick(&recent);
            if self.random.one_in(self.plan.close_one_in) {
                self.close(id);
            } else if self.random.one_in(self.plan.publish_one_in) {
                self.publish(id);
            } else {
                self.act(id);
            }
            if self.plan.rest_micros > 0 {
                let micros = self.random.below(self.plan.rest_micros);
                std::thread::sleep(Duration::from_micros(micros));
            }
        }
        lock(&self.truth.deeds).push(self.actor.deeds);
    }

    fn publish(&mut self, id: SessionId) {
        let Sender { truth, handle, actor, random, .. } = self;
        let to = match random.below(5) {
            0 => To::All,
            1 => To::Members(TOWN),
            2 => To::MembersBut(TOWN, id),
            3 => To::Members(actor.own_group(random.below(GROUPS_OF_A_THREAD))),
            _ => To::MembersBut(actor.own_group(random.below(GROUPS_OF_A_THREAD)), id),
        };
        let bytes = random.frame_bytes().min(4_000);
        actor.publish(truth, handle, to, bytes);
    }

    fn act(&mut self, id: SessionId) {
        let Sender { truth, handle, actor, random, .. } = self;
        let group = actor.own_group(random.below(GROUPS_OF_A_THREAD));
        match random.below(100) {
            0..40 => self.send(id, 1),
            40..50 => {
                let times = self.random.within(2..30);
                self.send(id, times);
            }
            50..62 => actor.join(truth, handle, id, group),
            62..68 => actor.leave(truth, handle, id, group),
            68..74 => self.connect(),
            74..75 => self.look(),
            75..80 if self.plan.hazards.odd_frames() => self.send_odd(id),
            80..84 if self.plan.hazards.pauses => self.pause(id),
            84..88 => {
                truth.asks_for_room(id);
                handle.notify_writable(id, random.pick(&[1, 5_000, usize::MAX]));
            }
            88..94 if self.plan.hazards.due => {
                self.teller.tell(&self.truth, id, self.random.within(1..20));
            }
            _ => std::thread::yield_now(),
        }
    }

    fn close(&mut self, id: SessionId) {
        let Sender { truth, handle, actor, random, .. } = self;
        let hazards = &self.plan.hazards;
        match random.below(8) {
            0..2 => actor.close(truth, handle, id, Close::Drain),
            2..4 => actor.close(truth, handle, id, Close::Stop),
            4 if hazards.half_closes => {
                actor.finish_by(truth, id, || handle.finish(id));
                if hazards.farewells && random.one_in(2) {
                    // Perhaps at the moment at which its worker ends our direction.
                    std::thread::sleep(Duration::from_micros(random.below(100)));
                    self.kick(id);
                }
            }
            5 if hazards.farewells => self.kick(id),
            _ if hazards.last_publications => self.publish_and_drain(id),
            _ => actor.close(truth, handle, id, Close::Drain),
        }
    }

    /// Closes with a farewell, behind a full queue or not.
    fn kick(&mut self, id: SessionId) {
        if self.random.one_in(3) {
            self.send(id, 200);
        }
        let Sender { truth, handle, actor, random, .. } = self;
        let bytes = farewell_bytes(random);
        actor.kick_by(truth, id, bytes, |farewell| handle.close_with(id, farewell));
    }

    fn pause(&mut self, id: SessionId) {
        if self.truth.may_pause(id) {
            self.handle.pause_receiving(id);
            self.truth.pause_returned(id);
            self.paused.push((Instant::now() + self.random.millis(0..60), id));
        }
    }

    /// Resumes whom it has paused long enough, and who have paused themselves.
    fn resume(&mut self) {
        let (now, is_quiet) = (Instant::now(), self.truth.is_quiet());
        let due = self.paused.extract_if(.., |(until, _)| is_quiet || *until <= now);
        let mut ids: Vec<_> = due.map(|(_, id)| id).collect();
        if is_quiet || self.random.one_in(20) {
            ids.append(&mut lock(&self.truth.to_resume));
        }
        for id in ids {
            self.truth.resume(id, || self.handle.resume_receiving(id));
        }
    }

    fn send(&mut self, id: SessionId, times: u64) {
        let Sender { truth, handle, actor, random, .. } = self;
        for _ in 0..times {
            let bytes = random.frame_bytes();
            if !actor.send(truth, id, bytes, |frame| handle.try_send(id, frame)) {
                break;
            }
        }
    }

    /// All that was asked before a close that drains still comes.
    fn publish_and_drain(&mut self, id: SessionId) {
        let Sender { truth, handle, actor, random, .. } = self;
        let group = actor.own_group(random.below(GROUPS_OF_A_THREAD));
        actor.join(truth, handle, id, group);
        actor.send(truth, id, 60, |frame| handle.send(id, frame).map_err(Into::into));
        for _ in 0..random.below(3) {
            actor.publish(truth, handle, To::Members(group), 60);
        }
        actor.close(truth, handle, id, Close::Drain);
        actor.send(truth, id, 60, |frame| handle.send(id, frame).map_err(Into::into));
    }

    fn connect(&mut self) {
        let Sender { truth, handle, actor, random, targets, plan, .. } = self;
        let (target, address) = match random.below(8) {
            0 => (Target::Refused, targets.refused),
            1 => (Target::Mute, targets.mute),
            _ => (Target::Listener, targets.listener),
        };
        let id = match handle.connect(address) {
            Ok(id) => id,
            Err(ConnectError::Ending) if !truth.is_ending() => {
                let what = "a connect was refused: the server is ending".to_owned();
                return truth.broken(Rule::RefusalsAreTrue, what);
            }
            Err(_) => return,
        };
        truth.connects(id, target);
        if random.one_in(2) {
            actor.send(truth, id, 60, |frame| handle.send(id, frame).map_err(Into::into));
        }
        if plan.hazards.half_closes && target == Target::Listener && random.one_in(6) {
            actor.finish_by(truth, id, || handle.finish(id));
        }
        // What never stands would hold a place for ever.
        let closes = if target == Target::Mute { !random.one_in(8) } else { random.one_in(3) };
        if closes {
            let drains = plan.hazards.drained_connects && !random.one_in(3);
            let how = if drains { Close::Drain } else { Close::Stop };
            actor.close(truth, handle, id, how);
        }
    }

    /// Whatever moment it is, the figures add up.
    fn look(&mut self) {
        let stats = self.handle.stats();
        let by_reason: u64 = stats.closed_by().map(|(_, count)| count).sum();
        if stats.opened.wrapping_sub(stats.closed) != stats.live || by_reason != stats.closed {
            let what = format!("the figures do not add up: {stats:?}");
            self.truth.broken(Rule::CountsAreBalanced, what);
        }
    }

    fn send_odd(&mut self, id: SessionId) {
        let Sender { truth, handle, actor, random, plan, .. } = self;
        let way = random.pick(&[Way::Session, Way::Session, Way::Town, Way::All]);
        let is_raw = actor.is_raw;
        let drawn = panics::expected(|| {
            OddFrame::draw(truth, &plan.hazards, is_raw, handle, id, way, random)
        });
        if let Some(Some(odd)) = drawn {
            odd.send(handle, id, way);
        }
    }
}
