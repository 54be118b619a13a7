//! Memory stays within what a server announces, however much is pushed at it from both sides.

use std::time::Duration;

use peak_alloc::PeakAlloc;
use wharf::simulation::{Ports, check};
use wharf::{Backpressure, Framing, Handler, LengthPrefix, Options, Server, Session, SessionId};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Answers each frame with a hundred, of which most find the queue full.
struct Pushes;

impl Handler for Pushes {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        for _ in 0..100 {
            let _ = session.try_send(frame);
        }
    }
}

const PEERS: usize = 24;
const FRAME_BYTES: usize = 8_000;
/// What the simulated network may hold of each stream: two windows of at most 64 KiB, which double when
/// they grow, and what the test itself writes; and the simulation besides.
const NETWORK_BYTES: usize = PEERS * (2 * 2 * 64 * 1024 + 40 * FRAME_BYTES) + (2 << 20);

#[test]
fn peers_that_never_read_and_frames_that_never_end_cost_no_more_than_was_announced() {
    let (mut largest, mut most_queued) = (0, 0);
    check(0..40, |simulation| {
        let before = ALLOCATED.current_usage();
        let is_even = simulation.seed().is_multiple_of(2);
        let simulation = simulation.ports(if is_even { Ports::OneEach } else { Ports::OneShared });
        let options = Options::default().workers(2).with(|options| {
            options.sessions.max = PEERS as u32;
            options.sending.queue_bytes_max = 64 * 1024;
            options.receiving.queues_bytes_max = Some(256 * 1024);
            options.receiving.backpressure = Backpressure::PauseReceive;
            options.time.send_stall_timeout = None;
        });
        // On a shared port each receive may have a ring of its own; that is announced on Windows.
        let rings = 2 * 16 * 1024 * PEERS;
        let announced = options.memory().total_bytes_max as usize + rings;
        let prefix = LengthPrefix::default().frame_bytes_max(FRAME_BYTES);
        let framing = Framing::length_prefixed(prefix);
        let builder = Server::builder().listen("10.0.0.1:1").framing(framing).options(options);
        let server = simulation.start(builder, Pushes).unwrap();
        let connect = || simulation.connect(server.addresses()[0]).unwrap();
        let peers: Vec<_> = (0..PEERS).map(|_| connect()).collect();
        let mut most = 0;
        for round in 0..30 {
            for peer in &peers {
                peer.stall(true);
                if peer.unsent_bytes() < 20 * FRAME_BYTES {
                    peer.send(&(FRAME_BYTES as u32).to_be_bytes());
                    // Every third frame stays without its end for a round.
                    let bytes = if round % 3 == 0 { FRAME_BYTES / 2 } else { FRAME_BYTES };
                    peer.send(&vec![7; bytes]);
                    if round % 3 == 1 {
                        peer.send(&vec![7; FRAME_BYTES / 2]);
                    }
                }
            }
            simulation.sleep(Duration::from_millis(200));
            most = most.max(ALLOCATED.current_usage().saturating_sub(before));
            // Somebody else sends too, to all of them and to nobody.
            for id in 0..PEERS as u64 {
                let id = SessionId::from_bits(id);
                for _ in 0..10 {
                    let _ = server.handle().send(id, vec![1; FRAME_BYTES]);
                }
            }
        }
        let queued = server.handle().stats().queued_bytes as usize;
        assert!(most < announced + NETWORK_BYTES, "{most} bytes of {announced} announced");
        (largest, most_queued) = (largest.max(most), most_queued.max(queued));
    });
    assert!(most_queued > PEERS * 32 * 1024, "they were not pushed at: {most_queued}");
    println!("at most {largest} bytes, the simulated network's included");
}
