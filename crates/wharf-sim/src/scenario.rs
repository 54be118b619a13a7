//! What is played.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use oorandom::Rand64;
use wharf::options::{Offload, Sessions};
use wharf::simulation::for_wharf_sim::LeftOut;
use wharf::simulation::{Fault, Faults};
use wharf::{Backpressure, EndOfStream, FirstFrameTimeout, Options};

use crate::behind::{Behind, draw_budget, draw_slow_rule};
use crate::forms::Form;
use crate::frames::{FRAME_BYTES_MAX, GROUPS};
use crate::framings::Framings;

/// A scenario's name says what there is most of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Some of everything.
    Mixed,
    /// Peers that ask and are answered.
    Echo,
    /// Sessions that last for a few frames.
    Churn,
    /// Threads of the program that send to sessions by their ids, also to those that are over.
    Push,
    /// Sessions that join groups and leave them, and publish.
    Rooms,
    /// Small send queues, and peers that do not read.
    Slow,
    /// Sessions that the server connects.
    Connect,
    /// The server drains or stops in the middle of everything.
    Ends,
    /// A thousand sessions that say something every half minute.
    Idle,
    /// No fault at all: everything must be there, soon and in fairness.
    Calm,
    /// The directions of a stream end one by one.
    Halves,
    /// Sessions that are closed with a farewell.
    Farewells,
    /// Threads that ask for room in others' send queues, and pause and resume others.
    Room,
    /// A gateway between clients and targets, none of which is always well.
    Gateway,
    /// Members that cannot keep up with what is published, each in a way of its own.
    Behind,
    /// A listener for each of several framings, and sessions that change theirs.
    Framings,
    /// Notes that threads tell sessions, and timers that sessions set.
    Notes,
    /// Listeners and connects with WebSocket, beside others.
    WebSocket,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 18] = [
        Scenario::Mixed,
        Scenario::Echo,
        Scenario::Churn,
        Scenario::Push,
        Scenario::Rooms,
        Scenario::Slow,
        Scenario::Connect,
        Scenario::Ends,
        Scenario::Idle,
        Scenario::Calm,
        Scenario::Halves,
        Scenario::Farewells,
        Scenario::Room,
        Scenario::Gateway,
        Scenario::Behind,
        Scenario::Framings,
        Scenario::Notes,
        Scenario::WebSocket,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Mixed => "mixed",
            Scenario::Echo => "echo",
            Scenario::Churn => "churn",
            Scenario::Push => "push",
            Scenario::Rooms => "rooms",
            Scenario::Slow => "slow",
            Scenario::Connect => "connect",
            Scenario::Ends => "ends",
            Scenario::Idle => "idle",
            Scenario::Calm => "calm",
            Scenario::Halves => "halves",
            Scenario::Farewells => "farewells",
            Scenario::Room => "room",
            Scenario::Gateway => "gateway",
            Scenario::Behind => "behind",
            Scenario::Framings => "framings",
            Scenario::Notes => "notes",
            Scenario::WebSocket => "web-socket",
        }
    }

    /// Peers also leave and come many at once, and much is published to all: slots are used again while
    /// they are looked at.
    fn comes_in_crowds(self) -> bool {
        matches!(self, Scenario::Churn | Scenario::Push | Scenario::Rooms)
    }

    /// Whether the directions end one by one, there are farewells, threads ask for room, and anything is
    /// published.
    fn has_parting(self, case: &Case) -> [bool; 4] {
        let seed = case.seed;
        let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0003);
        let coins = [(); 4].map(|()| random.rand_range(0..2) == 1);
        match self {
            Scenario::Halves => [true, coins[1], coins[2], coins[3]],
            Scenario::Farewells => [coins[0], true, coins[2], true],
            Scenario::Room => [coins[0], coins[1], true, coins[3]],
            Scenario::Behind => [coins[0], coins[1], coins[2], true],
            // Who waits to change its framing is not resumed by others, nor finished.
            Scenario::Framings if Framings::change(case) => [false, coins[1], false, true],
            Scenario::Framings | Scenario::Notes => [coins[0], coins[1], coins[2], true],
            Scenario::WebSocket => [false, coins[1], coins[2], true],
            _ => [false, false, false, true],
        }
    }

    /// Whether sessions are told notes, and set timers.
    fn has_notes(self, seed: u64) -> bool {
        let of_some = matches!(
            self,
            Scenario::Mixed
                | Scenario::Churn
                | Scenario::Connect
                | Scenario::Ends
                | Scenario::Room
                | Scenario::WebSocket
        );
        let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0005);
        self == Scenario::Notes || of_some && random.rand_range(0..2) == 0
    }

    /// The size that it has if nothing else is said.
    pub fn size(self) -> Size {
        let (peers, steps, senders) = match self {
            Scenario::Mixed => (24, 1_500, 2),
            Scenario::Echo => (16, 1_500, 0),
            Scenario::Churn => (12, 3_000, 3),
            Scenario::Push => (12, 2_400, 3),
            Scenario::Rooms => (12, 2_400, 3),
            Scenario::Slow => (12, 1_200, 2),
            Scenario::Connect => (12, 1_000, 1),
            Scenario::Ends => (24, 300, 2),
            Scenario::Idle => (1_000, 4_000, 0),
            Scenario::Calm => (16, 1_000, 1),
            Scenario::Halves => (12, 2_000, 2),
            Scenario::Farewells => (12, 2_000, 3),
            Scenario::Room => (12, 2_000, 3),
            Scenario::Gateway => (12, 2_000, 0),
            Scenario::Behind => (12, 1_500, 3),
            Scenario::Framings => (16, 800, 3),
            Scenario::Notes => (12, 1_500, 3),
            Scenario::WebSocket => (16, 1_200, 3),
        };
        Size { peers, steps, senders, workers: 0 }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Scenario::name).join(", ");
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.ok_or_else(|| format!("no scenario is named {name}; there are {}", names()))
    }
}

/// How large a case is: what shrinking makes smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Peers at once.
    pub peers: u32,
    /// Things that the driver does.
    pub steps: u32,
    /// Threads of the program that send.
    pub senders: u32,
    /// Workers; 0: the seed says how many.
    pub workers: u32,
}

impl Size {
    /// So many peers need some gigabytes.
    pub const PEERS_MAX: u32 = 100_000;
    /// Each is a thread.
    pub const SENDERS_MAX: u32 = 256;
    /// Each is a thread.
    pub const WORKERS_MAX: u32 = 256;
}

/// All that decides a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is played.
    pub scenario: Scenario,
    /// What decides the rest.
    pub seed: u64,
    /// How much of it.
    pub size: Size,
    /// What does not happen, whatever the seed says.
    pub left_out: LeftOut,
}

/// What is to be otherwise than a scenario's own.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Instead of [`Size::peers`].
    pub peers: Option<u32>,
    /// Instead of [`Size::steps`].
    pub steps: Option<u32>,
    /// Instead of [`Size::senders`].
    pub senders: Option<u32>,
    /// Instead of [`Size::workers`].
    pub workers: Option<u32>,
    /// See [`Case::left_out`].
    pub left_out: LeftOut,
}

impl Case {
    /// The same with changes.
    pub fn changed(mut self, changes: &Changes) -> Case {
        let size = &mut self.size;
        for (value, change) in [
            (&mut size.peers, changes.peers),
            (&mut size.steps, changes.steps),
            (&mut size.senders, changes.senders),
            (&mut size.workers, changes.workers),
        ] {
            *value = change.unwrap_or(*value);
        }
        self.left_out.without.extend(&changes.left_out.without);
        self.left_out.muted.extend(changes.left_out.muted.iter().cloned());
        self
    }

    /// A scenario with a seed, in its own size.
    pub fn new(scenario: Scenario, seed: u64) -> Case {
        let size = scenario.size();
        Case { scenario, seed, size, left_out: LeftOut::default() }
    }

    /// The command that runs it, and nothing else.
    pub fn command(&self) -> String {
        let mut command =
            format!("wharf sim --scenario {} --from {} --seeds 1", self.scenario, self.seed);
        let own = self.scenario.size();
        for (name, value, usual) in [
            ("peers", self.size.peers, own.peers),
            ("steps", self.size.steps, own.steps),
            ("senders", self.size.senders, own.senders),
            ("workers", self.size.workers, own.workers),
        ] {
            if value != usual {
                command += &format!(" --{name} {value}");
            }
        }
        let LeftOut { without, muted } = &self.left_out;
        if !without.is_empty() {
            let names: Vec<_> = without.iter().map(|fault| fault.name()).collect();
            command += &format!(" --without {}", names.join(","));
        }
        if !muted.is_empty() {
            let ranges: Vec<_> =
                muted.iter().map(|range| format!("{}..{}", range.start, range.end)).collect();
            command += &format!(" --mute {}", ranges.join(","));
        }
        command
    }

    pub(crate) fn faults(&self) -> Faults {
        let mut faults = match self.scenario {
            Scenario::Calm => Faults::none(),
            Scenario::Behind if Behind::new(self).is_calm => Faults::none(),
            Scenario::Framings | Scenario::WebSocket
                if Framings::of(self).is_some_and(|framings| framings.is_calm) =>
            {
                Faults::none()
            }
            // Waiting for what happens every half minute would make each of these happen at once.
            Scenario::Idle => {
                let faults = Faults::all().without(Fault::PortFails);
                let faults = faults.without(Fault::AdmissionFaults);
                faults.without(Fault::WorkerFaults).swarm(self.seed)
            }
            Scenario::Ends => {
                let faults = Faults::all().with(Fault::PortFails, 20_000);
                let faults = faults.with(Fault::WorkerFaults, 50_000);
                let faults = faults.with(Fault::AdmissionFaults, 300);
                let faults = faults.with(Fault::ThreadStalls, 100).swarm(self.seed);
                faults.with(Fault::PortEndsUntold, 2) // of ports that fail, of which there are few
            }
            // Closes by other threads, while workers stand still in the midst of what they do.
            Scenario::Push
            | Scenario::Slow
            | Scenario::Halves
            | Scenario::Farewells
            | Scenario::Room
            | Scenario::Gateway
            | Scenario::Behind
            | Scenario::Framings
            | Scenario::Notes
            | Scenario::WebSocket => {
                let faults = Faults::all().with(Fault::LocalClose, 8);
                faults.with(Fault::ThreadStalls, 100).swarm(self.seed)
            }
            _ => Faults::all().swarm(self.seed),
        };
        let changes = self.scenario == Scenario::Framings && !Framings::new(self).is_calm;
        if self.scenario.comes_in_crowds() || changes || self.scenario == Scenario::Notes {
            // It needs all the others of its kind too, so it must be there in more than half of the seeds.
            faults = faults.with(Fault::ThreadPreempted, 1);
        }
        let without = self.left_out.without.iter();
        without.fold(faults, |faults, fault| faults.without(*fault))
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan::new(self)
    }
}

/// What the seed makes of a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    /// The usual time between two steps is below this, and sometimes far longer.
    pub(crate) gap: Duration,
    /// Bytes of most requests are below this.
    pub(crate) request_bytes: usize,
    /// Frames that a peer sends before it leaves, about; 0: it stays.
    pub(crate) lifetime_frames: u32,
    /// Peers also leave and come many at once.
    pub(crate) comes_in_crowds: bool,
    /// Each worker has a port of its own, whatever the seed says.
    pub(crate) has_own_ports: bool,
    /// How often threads publish to all, compared to each group.
    pub(crate) broadcasts: u64,
    /// The server connects sessions.
    pub(crate) connects: bool,
    /// Threads may change where the program calls in.
    pub(crate) switches_in_calls: bool,
    /// The end comes in the middle of everything.
    pub(crate) ends_early: bool,
    /// Peers do harm.
    pub(crate) is_rough: bool,
    /// The directions of a stream end one by one, and the handler is told.
    pub(crate) halves: bool,
    /// Sessions are closed with farewells.
    pub(crate) farewells: bool,
    /// Threads ask for room, pause and resume.
    pub(crate) room: bool,
    /// Anything is published.
    pub(crate) publishes: bool,
    /// Members are behind.
    pub(crate) behind: Option<Behind>,
    /// There are several framings.
    pub(crate) framings: Option<Framings>,
    /// Sessions are told notes, and set timers.
    pub(crate) notes: bool,
}

impl Plan {
    fn new(case: &Case) -> Plan {
        // A sequence of its own: what the plan is does not depend on what is drawn later.
        let mut random = Rand64::new(u128::from(case.seed) << 32 | 0x5eed_0001);
        let mut among =
            |choices: &[u64]| choices[random.rand_range(0..choices.len() as u64) as usize];
        let (scenario, peers) = (case.scenario, u64::from(case.size.peers));
        let comes_in_crowds = scenario.comes_in_crowds();
        let queue_choices: &[u64] = match scenario {
            Scenario::Slow
            | Scenario::Farewells
            | Scenario::Room
            | Scenario::Behind
            | Scenario::WebSocket
            | Scenario::Framings => &[2 * (FRAME_BYTES_MAX as u64 + 4), 64 << 10],
            _ => &[64 << 10, 256 << 10],
        };
        let seconds = |value: u64| (value > 0).then(|| Duration::from_secs(value));
        let first_frame = match among(&[0, 0, 1, 30]) {
            0 => FirstFrameTimeout::Never,
            limit => FirstFrameTimeout::After(Duration::from_secs(limit)),
        };
        let options = Options::default()
            .workers(match case.size.workers {
                0 if comes_in_crowds => among(&[1, 2, 2, 3, 3, 4]),
                workers => workers.into(),
            } as usize)
            .with(|options| {
                options.sessions.max = match scenario {
                    // Slots are used again at once, perhaps by another port.
                    _ if comes_in_crowds => among(&[peers, peers, 64]),
                    _ => among(&[peers, 64, 5_000]),
                }
                .max(2) as u32;
                options.sending.queue_bytes_max = among(queue_choices) as usize;
                options.receiving.backpressure = match among(&[0, 1]) {
                    0 => Backpressure::None,
                    _ => Backpressure::PauseReceive,
                };
                options.time.idle_timeout = seconds(among(&[0, 0, 0, 2, 100]));
                options.time.first_frame_timeout = first_frame;
                options.time.send_stall_timeout = seconds(among(&[0, 3, 60]));
                options.time.close_linger = Duration::from_secs(among(&[1, 60]));
                options.time.connect_timeout = seconds(among(&[3, 10, 100]));
                options.receiving.queues_bytes_max =
                    Some(among(&[FRAME_BYTES_MAX as u64 + 4, 1 << 18, 1 << 24]) as usize);
                options.listening.backlog = {
                    among(&[0, 1]); // of an option that is gone; so the plans of before stay what they were
                    among(&[1, 8, 1_024]) as u32
                };
                options.sessions.groups_max = among(&[2, 64]) as u32;
                options.sending.publications_bytes_max = among(&[32 << 10, 16 << 20]) as usize;
            });
        let options = match scenario {
            // Long silences are what it is about.
            Scenario::Idle => options.with(|options| {
                options.sessions.max = case.size.peers.saturating_add(8);
                options.time.idle_timeout = seconds(among(&[0, 3_600]));
                options.time.first_frame_timeout = FirstFrameTimeout::Never;
                options.listening.backlog = 1_024;
            }),
            Scenario::Calm => options.with(|options| {
                options.sessions.max = 5_000;
                options.time.idle_timeout = None;
                options.time.first_frame_timeout = FirstFrameTimeout::Never;
                options.time.send_stall_timeout = None;
                options.sending.queue_bytes_max = 256 << 10;
                options.receiving.queues_bytes_max = Some(1 << 24);
                options.time.close_linger = Duration::from_secs(60);
                options.listening.backlog = 1_024;
            }),
            // No limit is to end a session; and each client may have a target.
            Scenario::Gateway => options.with(|options| {
                let two_each = peers.saturating_mul(2);
                options.sessions.max = among(&[two_each, 64, 5_000]).max(two_each).max(2) as u32;
                options.sending.queue_bytes_max = among(&[128 << 10, 256 << 10, 1 << 20]) as usize;
                options.receiving.end_of_stream = EndOfStream::Told;
                options.receiving.backpressure = Backpressure::None;
                options.receiving.queues_bytes_max = Some(1 << 24);
                options.time.idle_timeout = None;
                options.time.first_frame_timeout = FirstFrameTimeout::Never;
                options.time.send_stall_timeout = None;
                options.time.close_linger = Duration::from_secs(60);
            }),
            _ => options,
        };
        // A sequence of its own too: the plans of before stay what they were.
        let mut random = Rand64::new(u128::from(case.seed) << 32 | 0x5eed_0002);
        let drain_seconds = [0, 2, 30][random.rand_range(0..3) as usize];
        let [halves, farewells, room, publishes] = scenario.has_parting(case);
        let options = options.with(|options| {
            let has_limit = scenario != Scenario::Gateway;
            options.time.drain_timeout = seconds(drain_seconds).filter(|_| has_limit);
            if halves {
                options.receiving.end_of_stream = EndOfStream::Told;
            }
        });
        let framings = Framings::of(case);
        let is_raw = framings.as_ref().is_some_and(|framings| framings.forms.contains(&Form::Raw));
        let options = options.with(|options| {
            if is_raw {
                options.receiving.backpressure = Backpressure::None; // it needs larger send queues
            }
            if let Some(web) = framings.as_ref().and_then(|framings| framings.web.as_ref()) {
                options.time.establish_timeout = web.establish_timeout;
                options.sessions.establishing_max = web.establishing_max;
                // With the longest head of a message; of two, where receiving pauses.
                let bytes_max = FRAME_BYTES_MAX + 14;
                let queues_bytes_max = &mut options.receiving.queues_bytes_max;
                *queues_bytes_max = queues_bytes_max.map(|max| max.max(bytes_max));
                let queue_bytes_max = &mut options.sending.queue_bytes_max;
                *queue_bytes_max = (*queue_bytes_max).max(2 * bytes_max);
            }
        });
        let has_slow = matches!(scenario, Scenario::Framings | Scenario::WebSocket);
        let is_behind = framings.as_ref().is_some_and(|framings| framings.is_behind && has_slow);
        let is_behind = is_behind || scenario == Scenario::Behind;
        let mut behind = is_behind.then(|| Behind::new(case));
        if let Some(behind) = behind.as_mut().filter(|_| scenario == Scenario::WebSocket) {
            behind.burst = behind.burst.min(40); // each peer's codec takes its time
        }
        let options = match scenario {
            Scenario::Calm | Scenario::Gateway => options,
            _ => options.with(|options| draw_slow_rule(&mut options.sending, case.seed)),
        };
        let options = match scenario {
            Scenario::Behind => {
                options.with(|options| draw_budget(&mut options.sending, case.seed))
            }
            _ => options,
        };
        let notes = scenario.has_notes(case.seed);
        let options = if notes {
            options.with(|options| {
                draw_notes(&mut options.sessions, case.seed);
                draw_jobs(&mut options.offload, case.seed);
            })
        } else {
            options.with(|options| options.offload.threads = 0)
        };
        let slow_after = options.sending.slow_after;
        Plan {
            options,
            gap: match scenario {
                // The slow rule has its time, more or less often.
                Scenario::Behind | Scenario::Framings | Scenario::WebSocket if is_behind => {
                    slow_after / [1_000, 200, 50][case.seed as usize / 3 % 3]
                }
                Scenario::Idle => Duration::from_secs(30) / case.size.peers.max(1),
                _ => Duration::from_nanos(among(&[1_000, 30_000, 1_000_000, 100_000_000])),
            },
            request_bytes: match scenario {
                Scenario::Idle => 100,
                _ => among(&[16, 100, 1_000, FRAME_BYTES_MAX as u64]) as usize,
            },
            lifetime_frames: match scenario {
                Scenario::Churn | Scenario::Connect => among(&[1, 3, 10]) as u32,
                Scenario::Rooms => among(&[0, 3, 10, 30]) as u32,
                Scenario::Push => among(&[0, 1, 10, 100]) as u32,
                Scenario::Idle | Scenario::Echo | Scenario::Calm => 0,
                _ => among(&[0, 10, 100]) as u32,
            },
            comes_in_crowds,
            has_own_ports: comes_in_crowds && among(&[0, 1]) == 1,
            broadcasts: if comes_in_crowds { 2 * GROUPS } else { 1 },
            connects: match scenario {
                Scenario::Connect => true,
                Scenario::Mixed
                | Scenario::Halves
                | Scenario::Farewells
                | Scenario::Room
                | Scenario::Framings
                | Scenario::Notes
                | Scenario::WebSocket => among(&[0, 1]) == 1,
                _ => false,
            },
            switches_in_calls: among(&[0, 1]) == 1,
            ends_early: scenario == Scenario::Ends
                || behind.as_ref().is_some_and(|behind| behind.ends_early),
            is_rough: !matches!(scenario, Scenario::Calm),
            halves,
            farewells,
            room,
            publishes,
            behind,
            framings,
            notes,
        }
    }

    /// Whether sessions part in any of the ways that not every scenario has.
    pub(crate) fn has_parting(&self) -> bool {
        self.halves || self.farewells || self.room
    }

    /// Whether no session is paused because its peer does not read.
    pub(crate) fn pauses_nobody(&self) -> bool {
        self.options.receiving.backpressure == Backpressure::None
    }

    /// Whether a session whose peer is silent ends in any case. (One that is paused does not.)
    pub(crate) fn ends_the_idle(&self) -> bool {
        let options = &self.options;
        options.time.idle_timeout.is_some() && options.receiving.backpressure == Backpressure::None
    }
}

/// How many notes may wait, and how many timers a session may have.
fn draw_notes(sessions: &mut Sessions, seed: u64) {
    let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0006);
    let mut among = |choices: &[u32]| choices[random.rand_range(0..choices.len() as u64) as usize];
    sessions.notes_max = among(&[1, 5, 1_024]);
    sessions.notes_of_port_max = among(&[10, 65_536]);
    sessions.timers_max = among(&[1, 3, 16]);
}

/// How many threads there are for jobs, and how many jobs there may be.
fn draw_jobs(offload: &mut Offload, seed: u64) {
    let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0007);
    let mut among = |choices: &[u32]| choices[random.rand_range(0..choices.len() as u64) as usize];
    offload.threads = among(&[1, 2, 4]) as usize;
    offload.jobs_max = among(&[3, 20, 1_024]);
    offload.jobs_of_session_max = among(&[1, 2, 16]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
        }
        assert!("nothing".parse::<Scenario>().is_err());
    }

    #[test]
    fn a_command_says_what_is_not_as_usual() {
        let mut case = Case::new(Scenario::Echo, 7);
        assert_eq!(case.command(), "wharf sim --scenario echo --from 7 --seeds 1");
        case.size.steps = 3;
        case.left_out.without.push(Fault::SendInPart);
        case.left_out.muted.push(4..9);
        let command = case.command();
        assert!(command.ends_with(" --steps 3 --without send-in-part --mute 4..9"), "{command}");
    }
}
