//! A world in a loop of its own, with its ticks, in a hundred simulated networks.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{Fault, Faults, FramedPeer, PeerEnd, Simulation, check, sleep};
use wharf::{Event, Events, Framing, Handle, LengthPrefix, Server, SessionId, Ticker};

const LONG: Duration = Duration::from_secs(3_600);
const PERIOD: Duration = Duration::from_millis(33);
const FRAMES: u64 = 60;

/// What the loop has seen.
#[derive(Default)]
struct Seen {
    ticks: AtomicU64,
    closed: AtomicU64,
    is_over: AtomicBool,
    faults: Mutex<Vec<String>>,
}

/// Echoes each frame in the tick in which it takes it. Stands still at times.
fn run(mut events: Events, handle: &Handle, seen: &Seen) {
    let (mut ticker, mut sessions) = (Ticker::new(PERIOD).catch_up_max(0), HashMap::new());
    while !events.is_over() {
        let tick = ticker.wait();
        if tick.late >= PERIOD {
            seen.faults.lock().unwrap().push(format!("{tick:?}"));
        }
        if tick.number % 40 == 39 {
            sleep(Duration::from_secs(2));
        }
        seen.ticks.fetch_add(1, Ordering::Relaxed);
        let taken: Vec<Event> = events.drain().collect();
        handle.gather(|| {
            for event in taken {
                take(event, handle, &mut sessions, seen);
            }
        });
    }
    seen.is_over.store(true, Ordering::Relaxed);
}

/// The same, one event after the other, as soon as it comes.
fn run_at_once(mut events: Events, handle: &Handle, seen: &Seen) {
    let mut sessions = HashMap::new();
    while !events.is_over() {
        seen.ticks.fetch_add(1, Ordering::Relaxed);
        if let Some(event) = events.next_timeout(2 * LONG) {
            take(event, handle, &mut sessions, seen);
        }
    }
    seen.is_over.store(true, Ordering::Relaxed);
}

fn take(event: Event, handle: &Handle, sessions: &mut HashMap<SessionId, u64>, seen: &Seen) {
    let fault = |what: String| seen.faults.lock().unwrap().push(what);
    match event {
        Event::Opened { id, .. } => {
            if sessions.insert(id, 0).is_some() {
                fault(format!("{id} opened twice"));
            }
        }
        Event::Frame { id, bytes } => {
            match sessions.get_mut(&id) {
                Some(next) if bytes == next.to_be_bytes() => *next += 1,
                next => fault(format!("{id}: {bytes:?} instead of {next:?}")),
            }
            let _ = handle.send(id, bytes); // its peer may have gone
        }
        Event::Closed { id, .. } => {
            if sessions.remove(&id) != Some(FRAMES) {
                fault(format!("{id} closed before all had come"));
            }
            seen.closed.fetch_add(1, Ordering::Relaxed);
        }
        Event::Draining => {}
        event => fault(format!("{event:?}")),
    }
}

fn everyone_is_echoed(
    simulation: Simulation,
    (count, waiting_max): (usize, usize),
    run: fn(Events, &Handle, &Seen),
) {
    let framing = Framing::length_prefixed(LengthPrefix::default());
    let (handler, events) = wharf::events(waiting_max * 40); // of frames of 8 bytes
    let builder = Server::builder().listen("10.0.0.1:7000").framing(framing.clone());
    let server = simulation.start(builder, handler).unwrap();
    let (handle, seen) = (server.handle(), Arc::new(Seen::default()));
    {
        let (handle, seen) = (handle.clone(), seen.clone());
        simulation.spawn(move || run(events, &handle, &seen)).unwrap();
    }
    let connect = || simulation.connect(server.addresses()[0]).unwrap().framed(framing.clone());
    let mut peers: Vec<FramedPeer> = (0..count).map(|_| connect()).collect();
    for number in 0..FRAMES {
        for peer in &peers {
            peer.send(number.to_be_bytes());
        }
        simulation.sleep(Duration::from_micros(simulation.random(20_000)));
    }
    for peer in &mut peers {
        for number in 0..FRAMES {
            assert_eq!(peer.next_frame(LONG).as_deref(), Some(&number.to_be_bytes()[..]));
        }
        assert_eq!(peer.end(), None::<PeerEnd>);
    }
    drop(peers);
    let have_closed = || seen.closed.load(Ordering::Relaxed) == count as u64;
    assert!(simulation.run_until(LONG, have_closed), "{:?}", seen.faults.lock().unwrap());
    handle.stop();
    assert!(simulation.run_until(LONG, || seen.is_over.load(Ordering::Relaxed)));
    assert!(seen.faults.lock().unwrap().is_empty(), "{:?}", seen.faults.lock().unwrap());
    assert!(seen.ticks.load(Ordering::Relaxed) > 10);
}

#[test]
fn everyone_is_echoed_in_order_however_the_loop_stands_still() {
    check(0..100, |simulation| everyone_is_echoed(simulation, (7, 10), run));
}

#[test]
fn everyone_is_echoed_in_order_while_threads_change_at_every_step() {
    let preempted = Faults::none().with(Fault::ThreadPreempted, 1);
    check(0..200, |simulation| {
        everyone_is_echoed(simulation.faults(preempted.clone()), (1, 1), run_at_once)
    });
}
