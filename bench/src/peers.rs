//! Who is compared.

use crate::workloads::Face;

/// What wharf is named here, and what others' figures are divided by.
pub(crate) const WHARF: &str = "wharf-uring";
pub(crate) const RING: &str = "ring";
/// The limit of the WebSocket servers.
pub(crate) const WS_EPOLL: &str = "ws-epoll";
pub(crate) const TOKIO: &str = "tokio-ct";

/// How a server comes about.
pub(crate) enum Build {
    /// A package of this workspace, of which the binary has the same name.
    Cargo(&'static str),
    /// Another compiler, if it and the file that it needs are here.
    Command {
        needs: &'static str,
        package: &'static str,
        source: &'static str,
        binary: &'static str,
        command: &'static [&'static str],
    },
}

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) build: Build,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) faces: &'static [Face],
}

impl Peer {
    pub(crate) fn binary(&self) -> &'static str {
        match self.build {
            Build::Cargo(package) => package,
            Build::Command { binary, .. } => binary,
        }
    }

    /// Arguments of the load besides the workload's.
    pub(crate) fn load(&self) -> &'static [&'static str] {
        if self.arguments.contains(&PLAIN) { &["--form", "length"] } else { &[] }
    }
}

/// What wharf is told that is to do without a WebSocket what others do with one.
const PLAIN: &str = "--length-prefixed";

/// wharf, once for each port.
pub(crate) fn wharf() -> impl Iterator<Item = &'static Peer> {
    ALL.iter().filter(|peer| peer.name.starts_with("wharf-"))
}

const ECHO: &[Face] = &[Face::Echo];
const ON_TWO_CORES: &[Face] = &[Face::Echo, Face::EchoOnTwoCores];
const ALL_FACES: &[Face] = &[Face::Echo, Face::Broadcast, Face::SendById];
const WHARF_FACES: &[Face] = &[
    Face::Echo,
    Face::EchoOnTwoCores,
    Face::Broadcast,
    Face::SendById,
    Face::WsEcho,
    Face::WsBroadcast,
];
const WS_FACES: &[Face] = &[Face::WsEcho, Face::WsBroadcast];

pub(crate) static ALL: &[Peer] = &[
    Peer {
        name: WHARF,
        what: "wharf on io_uring, one worker",
        build: Build::Cargo("peer-wharf"),
        arguments: &["--backend", "uring"],
        faces: WHARF_FACES,
    },
    Peer {
        name: "wharf-readiness",
        what: "wharf on epoll, one worker",
        build: Build::Cargo("peer-wharf"),
        arguments: &["--backend", "readiness"],
        faces: WHARF_FACES,
    },
    Peer {
        name: RING,
        what: "io_uring by hand: the limit",
        build: Build::Cargo("peer-ring"),
        arguments: &[],
        faces: ALL_FACES,
    },
    Peer {
        name: TOKIO,
        what: "tokio, current-thread runtime",
        build: Build::Cargo("peer-tokio"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "tokio-mt",
        what: "tokio, multi-thread runtime as it comes",
        build: Build::Cargo("peer-tokio"),
        arguments: &["--threads"],
        faces: ON_TWO_CORES,
    },
    Peer {
        name: "tokio-lean",
        what: "tokio, current-thread runtime, one read buffer for all",
        build: Build::Cargo("peer-tokio"),
        arguments: &["--lean"],
        faces: ECHO,
    },
    Peer {
        name: "mio",
        what: "mio, edge-triggered",
        build: Build::Cargo("peer-mio"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "epoll",
        what: "epoll by hand, level-triggered",
        build: Build::Cargo("peer-epoll"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "compio",
        what: "compio on io_uring",
        build: Build::Cargo("peer-compio"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "monoio",
        what: "monoio on io_uring",
        build: Build::Cargo("peer-monoio"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "message-io",
        what: "message-io",
        build: Build::Cargo("peer-message-io"),
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "asio",
        what: "Boost.Asio, one thread",
        build: Build::Command {
            needs: "/usr/include/boost/asio.hpp",
            package: "g++ libboost-dev",
            source: "peers/asio/main.cpp",
            binary: "peer-asio",
            command: &[
                "g++",
                "-std=c++17",
                "-O3",
                "-DNDEBUG",
                "-pthread",
                "-o",
                "BINARY",
                "SOURCE",
            ],
        },
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "libuv",
        what: "libuv",
        build: Build::Command {
            needs: "/usr/include/uv.h",
            package: "gcc libuv1-dev",
            source: "peers/libuv/main.c",
            binary: "peer-libuv",
            command: &["gcc", "-std=gnu11", "-O3", "-o", "BINARY", "SOURCE", "-luv"],
        },
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "go",
        what: "Go's net, a goroutine for each session",
        build: Build::Command {
            needs: "/usr/bin/go",
            package: "golang-go",
            source: "peers/go/main.go",
            binary: "peer-go",
            command: &["go", "build", "-o", "BINARY", "SOURCE"],
        },
        arguments: &[],
        faces: ECHO,
    },
    Peer {
        name: "tokio-sessions-usual",
        what: "tokio: a task and a channel for each session, a write for each frame",
        build: Build::Cargo("peer-tokio-sessions"),
        arguments: &["--usual"],
        faces: &[Face::Broadcast, Face::SendById],
    },
    Peer {
        name: "tokio-sessions-careful",
        what: "the same, with what waits drained into one write",
        build: Build::Cargo("peer-tokio-sessions"),
        arguments: &["--careful"],
        faces: &[Face::Broadcast, Face::SendById],
    },
    Peer {
        name: "wharf-plain-uring",
        what: "in WebSocket workloads: wharf on io_uring without one, a length before each frame",
        build: Build::Cargo("peer-wharf"),
        arguments: &["--backend", "uring", PLAIN],
        faces: WS_FACES,
    },
    Peer {
        name: "wharf-plain-readiness",
        what: "the same on epoll",
        build: Build::Cargo("peer-wharf"),
        arguments: &["--backend", "readiness", PLAIN],
        faces: WS_FACES,
    },
    Peer {
        name: WS_EPOLL,
        what: "WebSocket on epoll by hand: the limit",
        build: Build::Cargo("peer-ws-epoll"),
        arguments: &[],
        faces: WS_FACES,
    },
    Peer {
        name: "tokio-tungstenite",
        what: "tokio-tungstenite, current-thread runtime",
        build: Build::Cargo("peer-tokio-tungstenite"),
        arguments: &[],
        faces: WS_FACES,
    },
    Peer {
        name: "fastwebsockets",
        what: "fastwebsockets on tokio, current-thread runtime",
        build: Build::Cargo("peer-fastwebsockets"),
        arguments: &[],
        faces: &[Face::WsEcho],
    },
    Peer {
        name: "uwebsockets",
        what: "uWebSockets on libuv, one thread",
        build: Build::Command {
            needs: "/usr/include/uv.h",
            package: "gcc libuv1-dev python3-pip",
            source: "peers/uwebsockets/main.c",
            binary: "peer-uwebsockets",
            command: &["bash", "peers/uwebsockets/build.sh", "SOURCE", "BINARY"],
        },
        arguments: &[],
        faces: WS_FACES,
    },
    Peer {
        name: "beast",
        what: "Boost.Beast, one thread",
        build: Build::Command {
            needs: "/usr/include/boost/beast/websocket.hpp",
            package: "g++ libboost-dev",
            source: "peers/beast/main.cpp",
            binary: "peer-beast",
            command: &[
                "g++",
                "-std=c++17",
                "-O3",
                "-DNDEBUG",
                "-pthread",
                "-o",
                "BINARY",
                "SOURCE",
            ],
        },
        arguments: &[],
        faces: WS_FACES,
    },
];
