//! What is measured.

/// Which of a server's faces a workload needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    Echo,
    /// The same, with two threads on both cores.
    EchoOnTwoCores,
    Broadcast,
    SendById,
    WsEcho,
    WsBroadcast,
}

impl Face {
    /// What the servers call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Face::Echo | Face::EchoOnTwoCores => "echo",
            Face::Broadcast => "broadcast",
            Face::SendById => "send-by-id",
            Face::WsEcho => "ws-echo",
            Face::WsBroadcast => "ws-broadcast",
        }
    }
}

/// The one figure that a workload compares by. Less is better in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU time of the server for each operation.
    Cpu,
    /// The server's own memory for each session.
    Memory,
    /// Time that goes by for each operation, as many as are done at once: the rate turned over.
    Time,
    /// The 99th percentile of latency.
    P99,
    /// The same with stalled readers, divided by that without.
    P99Ratio,
}

impl Measure {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Measure::Cpu => "CPU us",
            Measure::Memory => "bytes",
            Measure::Time => "us",
            Measure::P99 => "p99 us",
            Measure::P99Ratio => "p99 ratio",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Measure::Cpu => "CPU time of the server for each operation, microseconds",
            Measure::Memory => "memory of the server for each idle session, bytes",
            Measure::Time => "time for each operation (1 / rate), microseconds",
            Measure::P99 => "99th percentile of latency, microseconds",
            Measure::P99Ratio => "99th percentile of latency beside stalled readers : without",
        }
    }
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) face: Face,
    pub(crate) measure: Measure,
    /// One of these is an operation.
    pub(crate) operation: &'static str,
    /// Arguments of the load.
    pub(crate) load: &'static str,
    /// Arguments of the server, besides its face.
    pub(crate) server: &'static str,
}

impl Workload {
    /// Its name's first word: `echo` is all of echo.
    pub(crate) fn group(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }
}

const ECHO: Workload = Workload {
    name: "",
    what: "",
    face: Face::Echo,
    measure: Measure::Cpu,
    operation: "message",
    load: "",
    server: "",
};
const TWO_CORES: Workload = Workload {
    face: Face::EchoOnTwoCores,
    measure: Measure::Time,
    server: "--two-workers",
    ..ECHO
};
const BROADCAST: Workload = Workload { face: Face::Broadcast, operation: "delivery", ..ECHO };
const SEND: Workload = Workload { face: Face::SendById, operation: "delivery", ..ECHO };
const WS_ECHO: Workload = Workload { face: Face::WsEcho, ..ECHO };
const WS_BROADCAST: Workload = Workload { face: Face::WsBroadcast, operation: "delivery", ..ECHO };

pub(crate) static ALL: &[Workload] = &[
    Workload {
        name: "echo-64x1",
        what: "one session, 64 B, one message on its way: the round trip",
        load: "--sessions 1",
        ..ECHO
    },
    Workload {
        name: "echo-64x50",
        what: "50 sessions, 64 B, one message on its way for each",
        load: "--sessions 50",
        ..ECHO
    },
    Workload {
        name: "echo-64x1000",
        what: "1,000 sessions, 64 B, one message on its way for each",
        load: "--sessions 1000",
        ..ECHO
    },
    Workload {
        name: "echo-64x10000",
        what: "10,000 sessions, 64 B, one message on its way for each",
        load: "--sessions 10000",
        ..ECHO
    },
    Workload {
        name: "deep-64x50",
        what: "50 sessions, 64 B, 16 messages on their way for each",
        load: "--sessions 50 --depth 16",
        ..ECHO
    },
    Workload {
        name: "echo-1x50",
        what: "50 sessions, 1 B, one message on its way for each",
        load: "--sessions 50 --bytes 1",
        ..ECHO
    },
    Workload {
        name: "echo-4096x50",
        what: "50 sessions, 4 KiB, one message on its way for each",
        load: "--sessions 50 --bytes 4096",
        ..ECHO
    },
    Workload {
        name: "echo-4097x50",
        what: "50 sessions, 4 KiB and a byte, one message on its way for each",
        load: "--sessions 50 --bytes 4097",
        ..ECHO
    },
    Workload {
        name: "echo-16384x50",
        what: "50 sessions, 16 KiB, one message on its way for each",
        load: "--sessions 50 --bytes 16384",
        ..ECHO
    },
    Workload {
        name: "echo-16385x50",
        what: "50 sessions, 16 KiB and a byte, one message on its way for each",
        load: "--sessions 50 --bytes 16385",
        ..ECHO
    },
    Workload {
        name: "echo-65536x50",
        what: "50 sessions, 64 KiB, one message on its way for each",
        load: "--sessions 50 --bytes 65536",
        ..ECHO
    },
    Workload {
        name: "echo-262144x50",
        what: "50 sessions, 256 KiB, one message on its way for each",
        load: "--sessions 50 --bytes 262144",
        ..ECHO
    },
    Workload {
        name: "echo-1048576x10",
        what: "10 sessions, 1 MiB, one message on its way for each",
        load: "--sessions 10 --bytes 1048576",
        ..ECHO
    },
    Workload {
        name: "bulk-65536x50",
        what: "50 sessions, 64 KiB, two messages on their way for each",
        load: "--sessions 50 --bytes 65536 --depth 2",
        ..ECHO
    },
    Workload {
        name: "churn",
        what: "64 at a time: connect, one message of 64 B, its reply, both ends, close",
        operation: "session",
        load: "--workload churn --sessions 64",
        ..ECHO
    },
    Workload {
        name: "two-echo-64x50",
        what: "50 sessions, 64 B, two workers on both cores, the load on one of them",
        load: "--sessions 50",
        ..TWO_CORES
    },
    Workload {
        name: "two-churn",
        what: "churn, two workers on both cores, the load on one of them",
        operation: "session",
        load: "--workload churn --sessions 64",
        ..TWO_CORES
    },
    Workload {
        name: "idle",
        what: "10,000 sessions that have each echoed once: memory of the server for each",
        operation: "session",
        measure: Measure::Memory,
        load: "--workload idle --sessions 10000",
        ..ECHO
    },
    Workload {
        name: "mixed",
        what: "1,000 sessions that echo 64 B beside 10 that send and never read",
        measure: Measure::P99Ratio,
        load: "--sessions 1000 --stalled 10",
        ..ECHO
    },
    Workload {
        name: "broadcast-500",
        what: "64 B to each of 500 members, 8 frames waiting at any time",
        load: "--workload broadcast --sessions 500 --depth 8",
        ..BROADCAST
    },
    Workload {
        name: "broadcast-5000",
        what: "64 B to each of 5,000 members, 8 frames waiting at any time",
        load: "--workload broadcast --sessions 5000 --depth 8",
        ..BROADCAST
    },
    Workload {
        name: "broadcast-paced",
        what: "64 B to each of 500 members, 200 frames a second",
        measure: Measure::P99,
        load: "--workload broadcast --sessions 500 --rate 200",
        ..BROADCAST
    },
    Workload {
        name: "send-1",
        what: "a thread sends 64 B to random sessions of 1,000 as fast as it goes",
        load: "--workload send-by-id --sessions 1000",
        server: "--sessions 1000 --senders 1",
        ..SEND
    },
    Workload {
        name: "send-2",
        what: "two threads send 64 B to random sessions of 1,000 as fast as it goes",
        load: "--workload send-by-id --sessions 1000",
        server: "--sessions 1000 --senders 2",
        ..SEND
    },
    Workload {
        name: "send-50k",
        what: "a thread sends 64 B to random sessions of 1,000, 50,000 frames a second",
        load: "--workload send-by-id --sessions 1000",
        server: "--sessions 1000 --senders 1 --rate 50000",
        ..SEND
    },
    Workload {
        name: "send-200k",
        what: "a thread sends 64 B to random sessions of 1,000, 200,000 frames a second",
        load: "--workload send-by-id --sessions 1000",
        server: "--sessions 1000 --senders 1 --rate 200000",
        ..SEND
    },
    Workload {
        name: "send-400k",
        what: "a thread sends 64 B to random sessions of 1,000, 400,000 frames a second",
        load: "--workload send-by-id --sessions 1000",
        server: "--sessions 1000 --senders 1 --rate 400000",
        ..SEND
    },
    Workload {
        name: "ws-64x50",
        what: "WebSocket: 50 sessions, 64 B, one message on its way for each",
        load: "--form web-socket --sessions 50",
        ..WS_ECHO
    },
    Workload {
        name: "ws-64x1000",
        what: "WebSocket: 1,000 sessions, 64 B, one message on its way for each",
        load: "--form web-socket --sessions 1000",
        ..WS_ECHO
    },
    Workload {
        name: "ws-16k",
        what: "WebSocket: 50 sessions, 16 KiB, one message on its way for each",
        load: "--form web-socket --sessions 50 --bytes 16384",
        ..WS_ECHO
    },
    Workload {
        name: "ws-broadcast-500",
        what: "WebSocket: 64 B to each of 500 members, 8 messages waiting at any time",
        load: "--form web-socket --workload broadcast --sessions 500 --depth 8",
        ..WS_BROADCAST
    },
    Workload {
        name: "ws-broadcast-500x1",
        what: "WebSocket: 64 B to each of 500 members, one message at a time",
        load: "--form web-socket --workload broadcast --sessions 500 --depth 1",
        ..WS_BROADCAST
    },
    Workload {
        name: "ws-idle",
        what: "WebSocket: 10,000 sessions that have each echoed once: memory of the server for each",
        operation: "session",
        measure: Measure::Memory,
        load: "--form web-socket --workload idle --sessions 10000",
        ..WS_ECHO
    },
];
