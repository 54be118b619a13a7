//! The plan of a round, drawn from its seed.

use std::time::Duration;

use wharf::{Backend, Backpressure, EndOfStream, FirstFrameTimeout, Framing, Options};

use crate::random::Random;
use crate::wires::Wire;

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Drain(Duration),
    Stop,
    /// The `Server` is dropped.
    Drop,
}

/// What goes wrong on purpose in a round, each with how often: once in so many times, 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hazards {
    /// Callbacks that panic.
    pub(crate) panics: u64,
    /// Whether some of them do so with a payload whose destructor panics.
    pub(crate) payload_bombs: bool,
    /// States whose destructor panics.
    pub(crate) state_bombs: u64,
    /// Callbacks that block for some milliseconds.
    pub(crate) blocks: u64,
    /// Callbacks that block for longer than time-outs take.
    pub(crate) long_blocks: u64,
    /// The whole process is stopped once, and continued.
    pub(crate) stop: Option<Duration>,
    /// Peers that send a byte of urgent data.
    pub(crate) urgent_data: bool,
    /// Peers that read little at a time.
    pub(crate) slow_readers: bool,
    /// Peers that send thousands of requests at once.
    pub(crate) flooders: bool,
    /// Frames whose `as_ref` panics.
    pub(crate) as_ref_panics: bool,
    /// Frames whose `as_ref` calls the handle.
    pub(crate) as_ref_calls: bool,
    /// Frames whose `as_ref` returns other bytes each time.
    pub(crate) as_ref_changes: bool,
    /// Frames whose destructor panics.
    pub(crate) frame_bombs: bool,
    /// Publications just before a close that drains.
    pub(crate) last_publications: bool,
    /// Closes with a farewell.
    pub(crate) farewells: bool,
    /// Directions that the program ends by themselves.
    pub(crate) half_closes: bool,
    /// Sessions that the program pauses, and resumes.
    pub(crate) pauses: bool,
    /// A gateway before the server, to which some of the peers connect.
    pub(crate) gateway: bool,
    /// Nobody asks for more, once: then nothing may be left waiting.
    pub(crate) quiet: bool,
    /// Connects that are asked to drain before they stand.
    pub(crate) drained_connects: bool,
    /// Peers that announce a frame that is too large.
    pub(crate) announcements: bool,
    /// Threads tell sessions notes, and sessions set timers and cancel them.
    pub(crate) due: bool,
}

impl Hazards {
    /// Frames that are not plain bytes.
    pub(crate) fn odd_frames(&self) -> bool {
        self.as_ref_panics || self.as_ref_calls || self.as_ref_changes || self.frame_bombs
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) is_raw: bool,
    /// There is a listener for each wire form.
    pub(crate) is_mixed: bool,
    pub(crate) options: Options,
    pub(crate) hazards: Hazards,
    pub(crate) crowd: u64,
    pub(crate) senders: u64,
    /// The longest rest of a sender between two calls, in microseconds; 0: none.
    pub(crate) rest_micros: u64,
    /// One in so many calls of a sender goes to all or to many; 0: none.
    pub(crate) publish_one_in: u64,
    /// One in so many calls asks a session to close.
    pub(crate) close_one_in: u64,
    pub(crate) runs_for: Duration,
    pub(crate) ending: Ending,
    /// Whether a time-out is so short that a slow machine may meet it.
    pub(crate) has_short_stall: bool,
}

/// A peer that reads to the end closes at once; this is only met if it does not.
const CLOSE_LINGER: Duration = Duration::from_secs(10);

/// The kernel's own buffers, where they are not the system's to choose.
const KERNEL_BYTES: usize = 64 * 1024;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const SHORT_DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

impl Plan {
    /// Whether a session that drains may be cut by its time.
    pub(crate) fn has_short_drain(&self) -> bool {
        self.options.time.drain_timeout == Some(SHORT_DRAIN_TIMEOUT)
    }

    /// Whether the end of a peer's stream is told, and does not end its session.
    pub(crate) fn tells_ends(&self) -> bool {
        self.options.receiving.end_of_stream == EndOfStream::Told
    }

    pub(crate) fn draw(backend: Backend, seed: u64) -> Plan {
        let random = &mut Random::new(seed, u64::MAX);
        let is_raw = random.one_in(3);
        let has_short_stall = random.one_in(4);
        let options = options(backend, is_raw, has_short_stall, random);
        let deadline = random.millis(50..2_000);
        // A sequence of its own: the rounds of before stay what they were.
        let is_mixed = !is_raw && Random::new(seed, u64::MAX - 1).one_in(2);
        let due = Random::new(seed, u64::MAX - 2).one_in(2);
        Plan {
            seed,
            is_raw,
            is_mixed,
            options,
            hazards: Hazards { due, ..hazards(random) },
            crowd: random.within(16..65),
            senders: random.within(2..5),
            rest_micros: random.pick(&[0, 50, 200, 200, 1_000]),
            publish_one_in: random.pick(&[0, 3, 10, 10]),
            close_one_in: random.pick(&[30, 200, 1_000]),
            runs_for: random.millis(300..3_000),
            ending: random.pick(&[
                Ending::Drain(deadline),
                Ending::Drain(deadline),
                Ending::Stop,
                Ending::Drop,
            ]),
            has_short_stall,
        }
    }

    /// How frames come to the peers of each listener.
    pub(crate) fn wires(&self) -> &'static [Wire] {
        if self.is_mixed { &Wire::ALL } else { &Wire::ALL[..1] }
    }

    pub(crate) fn framing(&self) -> Framing {
        if self.is_raw { Framing::raw() } else { Wire::Length.framing() }
    }
}

fn options(backend: Backend, is_raw: bool, has_short_stall: bool, random: &mut Random) -> Options {
    let short = |random: &mut Random| random.one_in(5).then(|| random.millis(100..500));
    let first_frame_timeout = match short(random) {
        Some(limit) => FirstFrameTimeout::After(limit),
        None => FirstFrameTimeout::ByFraming,
    };
    let stall = if has_short_stall { random.millis(100..400) } else { Duration::from_secs(60) };
    let pauses = random.one_in(3);
    let large_queue = random.pick(&[160 * 1024, 1024 * 1024]);
    let small_queue = random.pick(&[8 * 1024, 32 * 1024, 160 * 1024, 1024 * 1024]);
    Options::default().workers(random.within(1..5) as usize).backend(backend).with(|options| {
        options.sessions.max = random.within(8..65) as u32;
        // With pauses it must hold two of the largest frames.
        options.sending.queue_bytes_max = if pauses { large_queue } else { small_queue };
        options.receiving.backpressure =
            if pauses { Backpressure::PauseReceive } else { Backpressure::default() };
        options.time.idle_timeout = short(random);
        options.time.first_frame_timeout = first_frame_timeout;
        options.time.send_stall_timeout = Some(stall);
        options.time.drain_timeout =
            Some(random.pick(&[DRAIN_TIMEOUT, DRAIN_TIMEOUT, SHORT_DRAIN_TIMEOUT]));
        options.time.close_linger = CLOSE_LINGER;
        options.sessions.groups_max = random.pick(&[3, 64]);
        options.sending.publications_bytes_max = random.pick(&[64 * 1024, 16 * 1024 * 1024]);
        options.uring.receive_buffers = random.pick(&[8, 256]);
        options.uring.receive_buffer_bytes = random.pick(&[1024, 16 * 1024]);
        options.sending.no_delay = is_raw || !random.one_in(4);
        options.receiving.end_of_stream =
            if random.one_in(2) { EndOfStream::Told } else { EndOfStream::Closes };
        options.sending.kernel_bytes = random.one_in(4).then_some(KERNEL_BYTES);
        options.receiving.kernel_bytes = random.one_in(6).then_some(KERNEL_BYTES);
        options.sending.kernel_unsent_bytes =
            (cfg!(target_os = "linux") && random.one_in(4)).then_some(16 * 1024);
    })
}

fn hazards(random: &mut Random) -> Hazards {
    let mut hazards = Hazards::default();
    if random.one_in(2) {
        hazards.panics = random.pick(&[20, 200]);
        hazards.payload_bombs = random.one_in(4);
    }
    if random.one_in(4) {
        hazards.state_bombs = 8;
    }
    if random.one_in(3) {
        hazards.blocks = random.pick(&[50, 500]);
    }
    if random.one_in(5) {
        hazards.long_blocks = 5_000;
    }
    hazards.stop = random.one_in(6).then(|| random.millis(100..900));
    hazards.urgent_data = random.one_in(2);
    hazards.slow_readers = random.one_in(3);
    hazards.flooders = random.one_in(3);
    hazards.as_ref_panics = random.one_in(6);
    hazards.as_ref_calls = random.one_in(6);
    hazards.as_ref_changes = random.one_in(6);
    hazards.frame_bombs = random.one_in(6);
    hazards.last_publications = random.one_in(2);
    hazards.farewells = random.one_in(2);
    hazards.half_closes = random.one_in(2);
    hazards.pauses = random.one_in(2);
    hazards.gateway = random.one_in(3);
    hazards.quiet = random.one_in(2);
    hazards.drained_connects = random.one_in(2);
    hazards.announcements = !random.one_in(3);
    hazards
}
