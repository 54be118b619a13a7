//! How long does an id of four bytes last, and what happens then? And one of eight?
//!
//! Virtual time: sessions begin at 1,000 a second, each takes the place of a session that has been
//! there for some seconds, and both kinds of id are given out in the same run: a counter of 32 bits,
//! and wharf's slot and generation, whose slots are used again first in first out. On the first day
//! some senders remember the id of a session that was then live. They keep it. The run goes on until
//! the counter has wrapped and that first day has come again: whoever then sends to a remembered id
//! reaches a session that is live, and is not the one that was meant.

use instruments::{Numbers, Table, grouped, is_quick, verdict};
use wharf::SessionId;

const SESSIONS_PER_SECOND: u64 = 1_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// Sessions that are live at once; so one lives 2 seconds on average, and as many slots rest.
const LIVE: usize = 2_048;
const SLOTS: usize = 2 * LIVE;
/// One sender for each of so many sessions of the first day.
const SESSIONS_PER_SENDER: u64 = 100_000;
/// wharf's own numbers, as its documentation of `SessionId` has them.
const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 40;

/// An id of wharf's, by the text that it parses from, which is documented.
fn session_id(slot: u64, generation: u64) -> SessionId {
    format!("{slot}.{generation}").parse().expect("an id")
}

/// The same, fast enough for billions: checked against the text for each id that is remembered.
#[inline]
fn session_id_fast(slot: u64, generation: u64) -> SessionId {
    SessionId::from_bits(generation << SLOT_BITS | slot)
}

/// What both kinds of server did with the late frames.
#[derive(Default)]
struct Late {
    frames: u64,
    reached_stranger: [u64; 2],
}

struct Run {
    sessions: u64,
    wrapped_at: Option<u64>,
    late: Late,
    generation_max: u64,
}

/// Sessions begin until one day after the counter of so many bits has wrapped.
fn run(counter_bits: u32) -> Run {
    let day = SESSIONS_PER_SECOND * SECONDS_PER_DAY;
    let wrap = 1u64 << counter_bits;
    let sessions = wrap + day.min(wrap);
    let first_day = day.min(wrap);
    let mut numbers = Numbers::new(0x5EED);

    let mut generations = vec![0u64; SLOTS];
    let mut resting: Vec<u16> = (LIVE as u16..SLOTS as u16).collect(); // a ring: first in, first out
    let mut live: Vec<u16> = (0..LIVE as u16).collect();
    let mut front = 0;
    let mut remembered: Vec<(u32, SessionId)> = Vec::new();
    // For each slot, the remembered ids that were of it: none of them may come again.
    let mut remembered_of_slot: Vec<Vec<SessionId>> = vec![Vec::new(); SLOTS];
    let mut outcome = Run { sessions, wrapped_at: None, late: Late::default(), generation_max: 0 };

    let mut counter = 0u32;
    let mask = (wrap - 1) as u32;
    let mut next_sender = 0u64;
    for session in 0..sessions {
        // One session ends; its slot rests behind the others; the one that rested longest serves.
        let place = numbers.draw() as usize % LIVE;
        let slot = usize::from(std::mem::replace(&mut live[place], resting[front]));
        generations[slot] += 1;
        let slot = usize::from(std::mem::replace(&mut resting[front], slot as u16));
        front = (front + 1) % LIVE;
        let eight = session_id_fast(slot as u64, generations[slot]);
        let four = counter & mask;
        if session > 0 && four == 0 {
            outcome.wrapped_at = Some(session);
            next_sender = 0;
        }
        counter = counter.wrapping_add(1);

        if session < first_day {
            if session == next_sender {
                assert_eq!(eight, session_id(slot as u64, generations[slot]), "the layout");
                remembered.push((four, eight));
                remembered_of_slot[slot].push(eight);
                next_sender += SESSIONS_PER_SENDER;
            }
            continue;
        }
        // This session is a stranger to every sender. Has it a name that one of them remembers?
        outcome.late.reached_stranger[1] += u64::from(remembered_of_slot[slot].contains(&eight));
        if session >= wrap && session - wrap == next_sender {
            // The hour of the sender whose id is this one: it sends, by both kinds of name.
            let (by_four, by_eight) = remembered[(next_sender / SESSIONS_PER_SENDER) as usize];
            outcome.late.frames += 1;
            outcome.late.reached_stranger[0] += u64::from(by_four == four);
            let of = (by_eight.to_bits() & ((1 << SLOT_BITS) - 1)) as usize;
            let now = session_id_fast(of as u64, generations[of]);
            outcome.late.reached_stranger[1] += u64::from(now == by_eight);
            next_sender += SESSIONS_PER_SENDER;
        }
    }
    outcome.generation_max = generations.into_iter().max().unwrap_or_default();
    outcome
}

fn days(sessions: f64) -> f64 {
    sessions / (SESSIONS_PER_SECOND * SECONDS_PER_DAY) as f64
}

fn main() {
    // The short form wraps a counter of fewer bits, after days in place of weeks.
    let counter_bits = if is_quick() { 29 } else { 32 };
    let Run { sessions, wrapped_at, late, generation_max } = run(counter_bits);
    let wrapped_at = wrapped_at.expect("the run goes on beyond the wrap");
    println!(
        "{} sessions, {:.2} days at {SESSIONS_PER_SECOND} a second, {LIVE} live at once; the counter \
         of {counter_bits} bits wrapped after {:.2} days\n",
        grouped(sessions),
        days(sessions as f64),
        days(wrapped_at as f64),
    );
    let mut table = Table::new(["id", "late frames", "reached a stranger"]);
    for (name, strangers) in
        [format!("counter of {counter_bits} bits"), "slot and generation, 64 bits".to_owned()]
            .into_iter()
            .zip(late.reached_stranger)
    {
        table.row([name, grouped(late.frames), grouped(strangers)]);
    }
    println!("{table}");
    println!(
        "Each sender chose the hour when its id is given out again. At any other hour it reaches a \
         stranger once in {} times.\n",
        grouped((1 << counter_bits) / LIVE as u64)
    );

    let years = |sessions: f64| days(sessions) / 365.25;
    // A server begins somewhere in their lower half.
    let generations = 2f64.powi(GENERATION_BITS as i32 - 1);
    println!("The run has used {generation_max} generations of a slot, of {generations:.3e} at least.");
    println!("At {SESSIONS_PER_SECOND} sessions a second a counter wraps, or a table is used up:");
    let mut table = Table::new(["id", "after"]);
    table.row(["4 bytes, a counter".to_owned(), format!("{:.1} days", days(2f64.powi(32)))]);
    for (slots, name) in [
        (1.0, "8 bytes, one slot only".to_owned()),
        (SLOTS as f64, format!("8 bytes, {SLOTS} slots used in turn")),
        (2f64.powi(SLOT_BITS as i32), "8 bytes, every slot there can be".to_owned()),
    ] {
        table.row([name, format!("{} years", grouped(years(slots * generations) as u64))]);
    }
    println!("{table}");
    println!("A slot at its last generation is retired: the ids run out, they do not wrap.");

    let shown = late.frames > 0 && late.reached_stranger == [late.frames, 0];
    verdict(shown, "a counter that wraps names a stranger, slot and generation do not");
}
