//! A simulated network, clock and scheduler, to test handlers with (feature `simulation`).
//!
//! A server in a [`Simulation`] is the one that runs in production, with its workers, timers and queues. But one
//! number, the *seed*, decides everything around it: the network, the time, and the order in which threads run.
//! So a test plays hours of virtual time in milliseconds. It meets slow peers, bytes that come one by one,
//! operations that complete in any order, and threads that stand still, in another way for each seed. And a seed
//! that fails, fails again.
//!
//! This tests a protocol of length-prefixed frames under a thousand networks:
//!
//! ```
//! use std::time::Duration;
//!
//! use wharf::simulation::{FramedPeer, PeerEnd, Simulation, check};
//! use wharf::{Close, Framing, Handler, LengthPrefix, Server, Session};
//!
//! /// Each frame is a number of 8 bytes. The answer is the sum of all numbers of the session so far.
//! struct Sums;
//!
//! impl Handler for Sums {
//!     type State = u64;
//!
//!     fn opened(&self, _: &Session) -> u64 {
//!         0
//!     }
//!
//!     fn received(&self, session: &Session, sum: &mut u64, frame: &[u8]) {
//!         match frame.try_into() {
//!             Ok(number) => {
//!                 *sum = sum.wrapping_add(u64::from_be_bytes(number));
//!                 session.send(sum.to_be_bytes());
//!             }
//!             Err(_) => session.close(Close::Drain), // after the answers to what came before
//!         }
//!     }
//! }
//!
//! const LONG: Duration = Duration::from_secs(600); // of virtual time
//!
//! fn every_number_is_answered(simulation: Simulation) {
//!     let framing = Framing::length_prefixed(LengthPrefix::default());
//!     let builder = Server::builder().listen("10.0.0.1:7000").framing(framing.clone());
//!     let server = simulation.start(builder, Sums).unwrap();
//!     let connect = || simulation.connect(server.addresses()[0]).unwrap().framed(framing.clone());
//!     let mut peers: Vec<FramedPeer> = (0..4).map(|_| connect()).collect();
//!     for peer in &peers {
//!         (1..=20_u64).for_each(|number| peer.send(number.to_be_bytes()));
//!         peer.send(b"no number");
//!     }
//!     for peer in &mut peers {
//!         let mut sum = 0;
//!         for number in 1..=20_u64 {
//!             sum += number;
//!             assert_eq!(peer.next_frame(LONG).as_deref(), Some(&sum.to_be_bytes()[..]));
//!         }
//!         assert_eq!((peer.next_frame(LONG), peer.end()), (None, Some(PeerEnd::Closed)));
//!     }
//! }
//!
//! // #[test]
//! fn under_a_thousand_networks() {
//!     check(0..1_000, every_number_is_answered);
//! }
//! # check(0..20, every_number_is_answered);
//! ```
//!
//! `tests/chat_simulated.rs` in this crate's sources is a larger test: a small chat, and what must hold for it.
//!
//! # A seed that fails
//!
//! [`check`] makes a failing seed small: it leaves out faults as long as the test panics at the same place. Then
//! it prints what is left and the end of the trace:
//!
//! ```text
//! seed 17 failed
//!   again   WHARF_SEED=17 cargo test every_line_comes
//!   faults  receive-in-part (23 runs tried)
//!   panic   only [104, 101] came back
//!   at      tests/lines.rs:31:9
//! the last 9 of 9 lines of its trace:
//!       0.000000 s  driver    peer 1 connects 0
//!       ...
//! ```
//!
//! A line of the trace has the virtual time, the thread and what it did. A session is named by its
//! [`SessionId`](crate::SessionId), a peer by its [`key`](Peer::key). [`note`] and [`Simulation::note`] add lines
//! of your own.
//!
//! `check([17], test)` keeps such a seed as a test of its own. It stands for the same run only until wharf or
//! the test changes.
//!
//! # What a test may do
//!
//! The thread that makes the simulation is its *driver*. Only one thread runs at a time. While the driver runs,
//! nothing else does; while it lets time pass ([`Simulation::sleep`], [`Simulation::run_until`],
//! [`Simulation::next_news`], [`FramedPeer::next_frame`]), the workers run, in an order that the seed decides. The
//! driver plays the [`Peer`]s, and may call the server's [`Handle`](crate::Handle) like any thread.
//! [`Simulation::spawn`] starts more threads of the program.
//!
//! - A test must not wait for another thread in any other way (a channel, a join): this thread would never run.
//! - A lock may be held as long as no time passes. A handler may also hold a lock while it calls a
//!   [`Handle`](crate::Handle), as a chat does that tells all members of a room: threads do not switch in such a
//!   call, unless [`Simulation::switch_in_calls`] says so.
//!
//! # Faults
//!
//! [`Faults`] says what goes wrong. By default it is what neither peers nor handlers can notice except by the
//! time that things take ([`Faults::unnoticed`]), and of this another half in each seed ([`Faults::swarm`]). So the
//! outcome of a test is the same with faults as without. [`Faults::all`] adds failures that end sessions, or the
//! server. [`Simulation::faults`] sets them.
//!
//! Time passes by these faults, up to 10 s at once. So a time-out of the options may come, as with a machine that
//! stands still: a peer that is silent for 10 s ends by
//! [`time.first_frame_timeout`](field@crate::options::Time::first_frame_timeout). Set it to `Never` where that is
//! not what the test is about.
//!
//! # Steps
//!
//! In a build with debug assertions each access of the library to an atomic or a lock is a *step*.
//! [`Fault::ThreadPreempted`] lets other threads run between two steps. So a test meets orders that no call and no
//! completion decides. Workers have steps, except in callbacks. With [`Simulation::switch_in_calls`] all threads
//! have steps everywhere. A build without debug assertions has no steps, and they cost it nothing.
//!
//! # Determinism
//!
//! The same seed gives the same run on every machine, as long as the handler is deterministic too: it reads no
//! other clock than [`now`], starts no threads, and iterates over no hash map of the standard library.
//! [`Simulation::hash`] is a number over everything that happened. Testing that a seed gives it twice is worth the
//! few lines.

mod check;
#[doc(hidden)]
pub mod for_wharf_sim;
mod framed_peer;
mod inside;
mod shrink;
#[allow(clippy::module_inception, reason = "the room's one type")]
mod simulation;

pub use self::check::check;
pub use self::framed_peer::{FramedPeer, PeerEnd};
pub use self::inside::{fires, may_switch, note, now, sleep};
pub use self::simulation::{Ports, Simulation};
pub use crate::port::simulated::{Fault, Faults, Figures, Peer, PeerListener};
