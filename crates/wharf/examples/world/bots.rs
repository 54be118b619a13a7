//! Players by the thousand, on the connect side of the library. They go about, say something now and then, and measure:
//! how long a ping takes, how old the positions are, and whether anything is lost.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wharf::{
    CloseReason, Connector, FirstFrameTimeout, Handle, Handler, Options, Session, SessionId, Target,
};

use crate::protocol::{
    CHAT, LAST_WORD, LOGIN, MOVE, PING, POSITIONS, REFUSED, WELCOME, frame, number,
};
use crate::slow;

/// Of one bot each: keys of timers, and how often.
const PINGS: (u64, Duration) = (0, Duration::from_secs(1));
const MOVES: (u64, Duration) = (1, Duration::from_secs(2));
const SPEAKS: (u64, Duration) = (2, Duration::from_secs(60));
/// Guests log in, and leave so long afterwards.
const LEAVES: (u64, Duration) = (3, Duration::from_secs(1));
/// So many accounts the guests have, one after the other.
const GUEST_ACCOUNTS: u32 = 600;
const GUESTS_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) bots: u32,
    pub(crate) slow: u32,
    pub(crate) seconds: u64,
    /// Guests come in every second of two such times.
    pub(crate) phase_seconds: u64,
}

/// What all have seen together.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) newest_tick: AtomicU32,
    pub(crate) logged_in: AtomicU32,
    guests: AtomicU32,
    guests_in: AtomicU32,
    is_ending: AtomicBool,
    phase: AtomicU64,
    positions: AtomicU64,
    disorders: AtomicU64,
    pings: AtomicU64,
    pongs: AtomicU64,
    said: AtomicU64,
    heard: AtomicU64,
    refused: AtomicU64,
    ended: AtomicU64,
    first_end: Mutex<Option<String>>,
    /// In microseconds, of each phase.
    round_trips: Mutex<Vec<Vec<u32>>>,
    /// In ticks.
    ages: Mutex<Vec<u32>>,
}

impl Seen {
    pub(crate) fn ends(&self, why: String) {
        self.ended.fetch_add(1, Relaxed);
        self.first_end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Relaxed)
    }
}

/// Which bot a session is.
struct Who {
    account: u32,
    is_guest: bool,
}

struct Bots {
    seen: Arc<Seen>,
    start: Instant,
}

struct Bot {
    who: Arc<Who>,
    tick: u32,
    random: u32,
    last_word: Option<String>,
}

impl Bots {
    fn comes_in(&self, session: &Session, bot: &mut Bot) {
        if bot.who.is_guest {
            self.seen.guests_in.fetch_add(1, Relaxed);
            return again(session, LEAVES.0, LEAVES.1);
        }
        self.seen.logged_in.fetch_add(1, Relaxed);
        for (key, every) in [PINGS, MOVES, SPEAKS] {
            again(session, key, every.mul_f64(f64::from(bot.draws(1_000)) / 1_000.0));
        }
    }

    fn gets_positions(&self, bot: &mut Bot, tick: u32) {
        let newest = self.seen.newest_tick.fetch_max(tick, Relaxed).max(tick);
        if bot.who.is_guest {
            return;
        }
        let count = self.seen.positions.fetch_add(1, Relaxed);
        if tick <= std::mem::replace(&mut bot.tick, tick) {
            self.seen.disorders.fetch_add(1, Relaxed);
        }
        if count.is_multiple_of(61) {
            self.seen.ages.lock().unwrap_or_else(PoisonError::into_inner).push(newest - tick);
        }
    }

    fn gets_pong(&self, content: &[u8]) {
        let Some(sent_us) = number(content) else { return };
        self.seen.pongs.fetch_add(1, Relaxed);
        let took = (self.start.elapsed().as_micros() as u32).wrapping_sub(sent_us);
        let phase = self.seen.phase.load(Relaxed) as usize;
        let mut round_trips = self.seen.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phase) = round_trips.get_mut(phase) {
            phase.push(took);
        }
    }
}

fn again(session: &Session, key: u64, after: Duration) {
    let _ = session.set_timer(key, after); // it has few
}

impl Bot {
    /// A number below this.
    fn draws(&mut self, below: u32) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.random >> 16) % below
    }
}

impl Handler for Bots {
    type State = Option<Bot>;

    fn opened(&self, session: &Session) -> Option<Bot> {
        let who = session.context::<Who>()?;
        session.send(frame(LOGIN, format!("player-{}", who.account)));
        Some(Bot { random: who.account, who, tick: 0, last_word: None })
    }

    fn received(&self, session: &Session, bot: &mut Option<Bot>, said: &[u8]) {
        let Some(bot) = bot else { return };
        match said {
            [POSITIONS, rest @ ..] => self.gets_positions(bot, number(rest).unwrap_or(0)),
            [PING, rest @ ..] => self.gets_pong(rest),
            [WELCOME, ..] => self.comes_in(session, bot),
            [CHAT, rest @ ..] if number(rest) == Some(bot.who.account) => {
                self.seen.heard.fetch_add(1, Relaxed);
            }
            [REFUSED, ..] => drop(self.seen.refused.fetch_add(1, Relaxed)),
            [LAST_WORD, why @ ..] => bot.last_word = Some(String::from_utf8_lossy(why).into()),
            _ => {}
        }
    }

    fn timer(&self, session: &Session, bot: &mut Option<Bot>, key: u64) {
        let Some(bot) = bot else { return };
        if key == LEAVES.0 {
            return session.close(wharf::Close::Drain);
        }
        if self.seen.is_ending() {
            return;
        }
        if key == PINGS.0 {
            self.seen.pings.fetch_add(1, Relaxed);
            let now_us = self.start.elapsed().as_micros() as u32;
            session.send(frame(PING, now_us.to_be_bytes()));
            again(session, PINGS.0, PINGS.1);
        } else if key == MOVES.0 {
            let speed = [bot.draws(5), bot.draws(5)].map(|speed| (speed as i8 - 2) as u8);
            session.send(frame(MOVE, speed));
            again(session, MOVES.0, MOVES.1);
        } else {
            self.seen.said.fetch_add(1, Relaxed);
            session.send(frame(CHAT, "is anybody here?"));
            again(session, SPEAKS.0, SPEAKS.1);
        }
    }

    fn closed(&self, _: &Session, bot: Option<Bot>, reason: CloseReason) {
        let is_guest = bot.as_ref().is_some_and(|bot| bot.who.is_guest);
        let last_word = bot.and_then(|bot| bot.last_word).unwrap_or_default();
        // On a slow machine the next with its account may come before a guest has left.
        let leaves = matches!(reason, CloseReason::Local) || last_word.contains("elsewhere");
        let is_expected = self.seen.is_ending() || is_guest && leaves;
        if !is_expected {
            self.seen.ends(format!("{reason}; {last_word}"));
        }
    }

    fn connect_failed(&self, _: SessionId, _: &Target, error: &std::io::Error) {
        self.seen.ends(error.to_string());
    }
}

fn connect(handle: &Handle, wanted: &Wanted, account: u32, is_guest: bool) {
    let target = Target::new(wanted.address).context(Who { account, is_guest });
    drop(handle.connect(target)); // they are fewer than there may be
}

/// Lets them play for so long, and says what they have seen. Returns whether all went well.
pub(crate) fn run(wanted: Wanted, json: Option<&str>) -> Result<bool, Box<dyn std::error::Error>> {
    let seen = Arc::new(Seen::default());
    let options = Options::default().workers(1).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
    });
    let bots = Bots { seen: seen.clone(), start: Instant::now() };
    let connector = Connector::builder().framing(crate::framing()).options(options).start(bots)?;
    let handle = connector.handle();
    let fast = wanted.bots - wanted.slow;
    for account in wanted.slow..wanted.bots {
        connect(&handle, &wanted, account, false);
        thread::sleep(Duration::from_millis(1)); // not all at one moment
    }
    all_are_in(&seen, fast);
    // These come last, so that what their sockets hold is of the size that it will have.
    let slow = {
        let seen = seen.clone();
        thread::spawn(move || slow::play(&wanted, &seen))
    };
    all_are_in(&seen, wanted.bots);
    plays(&handle, &wanted, &seen);
    seen.is_ending.store(true, Relaxed);
    let slow = slow.join().map_err(|_| "the slow bots have panicked")??;
    thread::sleep(Duration::from_secs(1)); // what was said last is answered
    let is_well = says(&wanted, &seen, &slow, json)?;
    connector.handle().stop();
    connector.wait()?;
    Ok(is_well)
}

/// Waits until so many have logged in, but not for ever: the report says how many there are.
fn all_are_in(seen: &Seen, count: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.logged_in.load(Relaxed) < count && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
}

/// In every second phase guests come and go.
fn plays(handle: &Handle, wanted: &Wanted, seen: &Seen) {
    let phases = (wanted.seconds / wanted.phase_seconds.max(1)).max(1);
    seen.round_trips
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .resize_with(phases as usize, Vec::new);
    for phase in 0..phases {
        // What belongs to the phase before is not counted: none of both for a second.
        seen.phase.store(u64::MAX, Relaxed);
        let end = Instant::now() + Duration::from_secs(wanted.phase_seconds.max(1));
        let counts_from = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if Instant::now() >= counts_from {
                seen.phase.store(phase, Relaxed);
            }
            if phase % 2 == 1 {
                let guest = seen.guests.fetch_add(1, Relaxed) % GUEST_ACCOUNTS;
                connect(handle, wanted, wanted.bots + guest, true);
            }
            thread::sleep(GUESTS_EVERY);
        }
        let of = |count: &AtomicU64| count.load(Relaxed);
        println!(
            "phase {phase}: {} of {} in, {} guests, tick {}, {} positions, {} pings, {} pongs, {} ended",
            seen.logged_in.load(Relaxed),
            wanted.bots,
            seen.guests_in.load(Relaxed),
            seen.newest_tick.load(Relaxed),
            of(&seen.positions),
            of(&seen.pings),
            of(&seen.pongs),
            of(&seen.ended),
        );
    }
}

/// The value that this part does not exceed.
fn quantile(values: &[u32], part: f64) -> u32 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn says(
    wanted: &Wanted,
    seen: &Seen,
    slow: &slow::Report,
    json: Option<&str>,
) -> std::io::Result<bool> {
    let of = |count: &AtomicU64| count.load(Relaxed);
    let round_trips = seen.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
    let p99s: Vec<u32> = round_trips.iter().map(|phase| quantile(phase, 0.99)).collect();
    let of_phases =
        |which| p99s.iter().skip(which).step_by(2).map(u32::to_string).collect::<Vec<_>>();
    let (without, with) = (of_phases(0), of_phases(1));
    let mut ratios: Vec<f64> =
        p99s.chunks_exact(2).map(|pair| f64::from(pair[1]) / f64::from(pair[0].max(1))).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
    let ages = seen.ages.lock().unwrap_or_else(PoisonError::into_inner);
    let report = format!(
        "{{\"bots\": {{\"wanted\": {}, \"logged_in\": {}, \"ended\": {}, \"guests\": {}, \"guests_in\": {}, \
         \"positions\": {}, \"disorders\": {}, \"pings\": {}, \"pongs\": {}, \"said\": {}, \"heard\": {}, \
         \"refused\": {}, \"age_ticks_p99\": {}, \"without_us\": [{}], \"with_us\": [{}], \"ratio\": {ratio:.2}}}, \"slow\": {}}}",
        wanted.bots,
        seen.logged_in.load(Relaxed),
        of(&seen.ended),
        seen.guests.load(Relaxed),
        seen.guests_in.load(Relaxed),
        of(&seen.positions),
        of(&seen.disorders),
        of(&seen.pings),
        of(&seen.pongs),
        of(&seen.said),
        of(&seen.heard),
        of(&seen.refused),
        quantile(&ages, 0.99),
        without.join(", "),
        with.join(", "),
        slow.json(quantile),
    );
    println!("{report}");
    if let Some(why) = &*seen.first_end.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("the first that ended: {why}");
    }
    if let Some(file) = json {
        std::fs::write(file, &report)?;
    }
    let all_in = seen.logged_in.load(Relaxed) == wanted.bots;
    let is_lost =
        of(&seen.pings) > of(&seen.pongs) || of(&seen.said) > of(&seen.heard) + of(&seen.refused);
    Ok(all_in && !is_lost && of(&seen.ended) == 0 && of(&seen.disorders) == 0)
}
