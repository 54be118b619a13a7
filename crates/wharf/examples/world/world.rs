//! The world: one thread that owns everything in it, thirty times a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wharf::{Event, Events, Farewell, Group, Handle, Policy, SessionId, Ticker};

use crate::figures::Figures;
use crate::gate::TAKEN_OVER;
use crate::protocol::{CHAT, LAST_WORD, MOVE, POSITIONS, REFUSED, WELCOME, frame, number};

pub(crate) const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// For so many ticks an avatar waits for its player.
const RESUME_TICKS: u64 = 30 * 30;
/// The world is a square of so many zones, each with so many places in a row.
const ZONES_IN_A_ROW: u16 = 8;
const ZONE_WIDTH: u16 = 128;
const WIDTH: u16 = ZONES_IN_A_ROW * ZONE_WIDTH;

type Account = u32;

struct Avatar {
    player: Option<SessionId>,
    /// Without a player it stays until this tick.
    stays_until: u64,
    at: [u16; 2],
    speed: [i8; 2],
    /// Where it was at the last tick.
    zone: Option<u64>,
    /// Which zone's positions its player gets.
    hears: Option<u64>,
}

impl Avatar {
    fn goes(&mut self) -> bool {
        for (at, speed) in self.at.iter_mut().zip(self.speed) {
            *at = at.wrapping_add_signed(speed.into()) % WIDTH; // which divides 2^16
        }
        self.speed != [0; 2]
    }

    fn is_in(&self) -> u64 {
        let [column, row] = self.at.map(|at| at / ZONE_WIDTH);
        u64::from(row * ZONES_IN_A_ROW + column)
    }
}

struct World<'h> {
    handle: &'h Handle,
    tick: u64,
    avatars: HashMap<Account, Avatar>,
    /// `None`: its first frame, which has its account, has not come yet.
    players: HashMap<SessionId, Option<Account>>,
    zones: Vec<Zone>,
}

#[derive(Default)]
struct Zone {
    /// What it is sent in this tick.
    positions: Vec<u8>,
    has_changed: bool,
}

/// Until the server ends.
pub(crate) fn run(mut events: Events, handle: &Handle, figures: &Figures) {
    let zones = (0..ZONES_IN_A_ROW * ZONES_IN_A_ROW).map(|_| Zone::default()).collect();
    let (avatars, players) = (HashMap::new(), HashMap::new());
    let mut world = World { handle, tick: 0, avatars, players, zones };
    let (start, mut ticker) = (Instant::now(), Ticker::new(PERIOD));
    while !events.is_over() {
        let tick = ticker.wait();
        figures.see(tick, start.elapsed());
        world.tick = tick.number;
        // All that a player is sent in this tick leaves in one send.
        handle.gather(|| {
            events.drain().for_each(|event| world.takes(event));
            world.goes_on();
            world.tells_positions();
        });
        if tick.number.is_multiple_of(30) {
            figures.see_more(&ticker, world.avatars.len());
        }
    }
}

impl World<'_> {
    fn takes(&mut self, event: Event) {
        match event {
            Event::Opened { id, .. } => drop(self.players.insert(id, None)),
            Event::Frame { id, bytes } => match self.players.get(&id) {
                Some(Some(account)) => self.obeys(id, *account, &bytes),
                Some(None) => self.welcomes(id, number(&bytes).unwrap_or_default()),
                None => {} // somebody else plays its avatar now
            },
            Event::Closed { id, .. } => self.loses(id),
            _ => {}
        }
    }

    /// The avatar is where it was left, or comes into the world.
    fn welcomes(&mut self, id: SessionId, account: Account) {
        let avatar = self.avatars.entry(account).or_insert_with(|| Avatar {
            player: None,
            stays_until: 0,
            at: [account.wrapping_mul(0x9e37_79b9), account.wrapping_mul(0x85eb_ca6b)]
                .map(|random| (random >> 16) as u16 % WIDTH),
            speed: [0; 2],
            zone: None,
            hears: None,
        });
        avatar.hears = None;
        if let Some(before) = avatar.player.replace(id) {
            self.players.remove(&before);
            let last_word = frame(LAST_WORD, "you have logged in elsewhere");
            let farewell = Farewell::new(TAKEN_OVER).frame(last_word);
            let _ = self.handle.close_with(before, farewell); // it is short, so it is not refused
        }
        self.players.insert(id, Some(account));
        let _ = self.handle.send(id, frame(WELCOME, account.to_be_bytes())); // it may have gone
    }

    fn obeys(&mut self, id: SessionId, account: Account, said: &[u8]) {
        let Some(avatar) = self.avatars.get_mut(&account) else { return };
        match *said {
            [MOVE, right, down] => avatar.speed = [right, down].map(|byte| byte as i8),
            [CHAT, ref line @ ..] => {
                let line = frame(CHAT, [&account.to_be_bytes(), line].concat());
                let is_heard = avatar.hears.map(|zone| self.handle.publish(Group(zone), line));
                if !matches!(is_heard, Some(Ok(()))) {
                    let _ = self.handle.send(id, frame(REFUSED, "nobody hears you now"));
                }
            }
            _ => {}
        }
    }

    fn loses(&mut self, id: SessionId) {
        let Some(Some(account)) = self.players.remove(&id) else { return };
        if let Some(avatar) = self.avatars.get_mut(&account) {
            (avatar.player, avatar.speed) = (None, [0; 2]);
            avatar.stays_until = self.tick + RESUME_TICKS;
        }
    }

    /// Everybody goes where it is going; whoever comes into another zone hears of that one.
    fn goes_on(&mut self) {
        let World { handle, tick, avatars, zones, .. } = self;
        for zone in zones.iter_mut() {
            zone.positions.clear();
            zone.positions.push(POSITIONS);
            zone.positions.extend((*tick as u32).to_be_bytes());
            zone.has_changed = false;
        }
        avatars.retain(|account, avatar| {
            let has_moved = avatar.goes();
            let is_here = avatar.player.is_some() || *tick < avatar.stays_until;
            let now = is_here.then(|| avatar.is_in());
            let before = std::mem::replace(&mut avatar.zone, now);
            let comes = avatar.player.filter(|_| avatar.hears != now);
            if has_moved || before != now || comes.is_some() {
                for zone in [before, now].into_iter().flatten() {
                    zones[zone as usize].has_changed = true;
                }
            }
            if let Some(zone) = now {
                let positions = &mut zones[zone as usize].positions;
                positions.extend(account.to_be_bytes());
                positions.extend(avatar.at.iter().flat_map(|at| at.to_be_bytes()));
            }
            if let Some(id) = comes {
                hears_another(handle, id, avatar, now);
            }
            is_here
        });
    }

    /// Where everybody is, for each zone in which somebody has moved. Who reads slowly gets the newest.
    fn tells_positions(&self) {
        let changed = (0_u64..).zip(&self.zones).filter(|(_, zone)| zone.has_changed);
        for (number, zone) in changed {
            // Too much waits, or the server ends: the next tick has newer ones.
            let _ = self.handle.publish_keyed(Group(number), 0, &zone.positions);
        }
    }
}

/// If it cannot join now, it is tried again at the next tick.
fn hears_another(handle: &Handle, id: SessionId, avatar: &mut Avatar, zone: Option<u64>) {
    if let Some(before) = avatar.hears.take() {
        handle.leave(id, Group(before));
    }
    let joins = |zone: &u64| handle.join_with(id, Group(*zone), Policy::KeepLatest).is_ok();
    avatar.hears = zone.filter(joins);
}
