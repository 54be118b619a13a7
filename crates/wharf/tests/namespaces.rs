//! What depends on the machine's network and hosts file: each test runs once more, in namespaces of its own
//! (unshare(1)), where it may set both as it likes. Where the system does not allow that, it says so and is
//! passed over, unless `WHARF_TEST_NAMESPACES=required`.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::error::Error as _;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, Connector, Error, Framing, Options, Server};

/// Set inside.
const INSIDE: &str = "WHARF_TEST_INSIDE";

/// Turns IPv6 off, as Docker does for its containers.
const NO_IPV6: &str = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Has the system take its ports from four.
const FEW_PORTS: &str = "echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range";

/// A hosts file.
const NO_NAMES: &str = "";

/// Makes each a test that runs once more in namespaces of its own, and there on every backend. First a
/// shell sets them up; the loopback device is up already, and the lines are those of the hosts file.
macro_rules! in_namespaces {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($backend:ident) with $setup:expr, $hosts:expr => $body:block
    )*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                fn on($backend: Backend) $body

                if std::env::var_os(INSIDE).is_none() {
                    return run_inside(stringify!($name), $setup, $hosts);
                }
                if uring_is_there() {
                    on(Backend::Uring);
                }
                on(Backend::Readiness);
            }
        )*
    };
}

/// What runs this script in namespaces of its own.
fn unshare(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("ip link set lo up; {script}");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-ec", &script]);
    command
}

fn run_inside(test: &str, setup: &str, hosts: &str) {
    let refusal = match unshare("mount --bind /etc/hosts /etc/hosts").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(refusal) = refusal {
        let required = std::env::var_os("WHARF_TEST_NAMESPACES").is_some_and(|v| v == "required");
        assert!(!required, "{refusal}");
        return eprintln!("passed over: no namespaces can be made here: {refusal}");
    }
    let hosts_file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.hosts"));
    fs::write(&hosts_file, hosts).unwrap();
    let run = "exec \"$1\" --exact \"$2\" --nocapture";
    let mut inside = unshare(&format!("mount --bind \"$0\" /etc/hosts; {setup}; {run}"));
    inside.arg(&hosts_file).arg(std::env::current_exe().unwrap()).arg(test);
    let status = inside.env(INSIDE, "1").stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "it failed there");
    fs::remove_file(hosts_file).unwrap();
}

fn two_workers() -> Options {
    Options::default().workers(2)
}

fn served_at(harness: &Harness, ip: impl Into<IpAddr>, port: u16) {
    let address = SocketAddr::new(ip.into(), port);
    let peers: Vec<_> = (0..41).map(|_| connect(address)).collect();
    peers.iter().for_each(|peer| round_trip(peer, b"here"));
    drop(peers);
    harness.settle();
}

in_namespaces! {
    /// One stands there twice, as on some distributions.
    fn localhost_is_listened_on_where_the_hosts_file_has_ipv6_and_the_machine_has_not(backend)
        with NO_IPV6, "::1 localhost\n127.0.0.1 localhost\n127.0.0.1 localhost\n"
    => {
        let builder = Server::builder().listen("localhost:7000").options(two_workers());
        let harness = start_builder(backend, builder, Behaviour::echo());
        assert_eq!(harness.server.addresses(), [(Ipv4Addr::LOCALHOST, 7_000).into()]);
        let [failure] = harness.server.listen_errors() else {
            panic!("{:?}", harness.server.listen_errors());
        };
        assert_eq!(failure.address.as_tcp(), Some((Ipv6Addr::LOCALHOST, 7_000).into()));
        assert!(failure.to_string().contains("no IPv6"), "{failure}");
        served_at(&harness, Ipv4Addr::LOCALHOST, 7_000);
        harness.finish();
    }

    fn a_name_of_addresses_that_the_machine_has_not_is_an_error_with_each_cause(backend)
        with NO_IPV6, "::1 nowhere\n192.0.2.1 nowhere\n"
    => {
        let builder = Server::builder().listen("nowhere:7000").options(two_workers());
        let error = builder.backend(backend).start(Nobody).unwrap_err();
        let Error::Listen { failures, .. } = &error else { panic!("{error}") };
        assert_eq!(failures.len(), 2, "{error}");
        let kinds: Vec<_> = failures.iter().map(|failure| failure.source.kind()).collect();
        assert_eq!(kinds, [ErrorKind::AddrNotAvailable; 2], "{error}");

        let error = Server::builder().listen("unknown:7000").start(Nobody).unwrap_err();
        assert!(matches!(error, Error::Resolve { .. }), "{error:?}");
        assert!(error.source().is_some() && !error.to_string().contains("listen"), "{error}");
    }

    fn what_is_listed_for_ipv4_takes_it_and_the_unspecified_address_of_ipv6_does_not(backend)
        with ":", NO_NAMES
    => {
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7_000));
        for v4 in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
            let v4 = SocketAddr::from((v4, 7_000));
            for (first, second) in [(any_v6, v4), (v4, any_v6)] {
                let builder = Server::builder().listen(first).listen(second);
                let builder = builder.options(two_workers());
                let harness = start_builder(backend, builder, Behaviour::echo());
                assert_eq!(harness.server.addresses(), [first, second]);
                assert!(harness.server.listen_errors().is_empty());
                served_at(&harness, Ipv6Addr::LOCALHOST, 7_000);
                served_at(&harness, Ipv4Addr::LOCALHOST, 7_000);
                let elsewhere = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), 7_000));
                assert_eq!(elsewhere.is_ok(), v4.ip().is_unspecified());
                drop(elsewhere);
                harness.settle();
                harness.finish();
            }
        }
        // Another port's is another matter.
        let builder = Server::builder().listen(any_v6).listen((Ipv4Addr::LOCALHOST, 7_001));
        let harness = start_builder(backend, builder.options(two_workers()), Behaviour::echo());
        served_at(&harness, Ipv4Addr::LOCALHOST, 7_000);
        served_at(&harness, Ipv4Addr::LOCALHOST, 7_001);
        harness.finish();
    }

    /// The system takes its ports from so few that most of those who connect to one of them get that one.
    fn a_connect_to_a_free_port_of_the_systems_own_never_opens(backend)
        with FEW_PORTS, NO_NAMES
    => {
        const CONNECTS: usize = 400;
        let connector = Connector::builder().framing(Framing::raw()).options(two_workers());
        let harness = start_connector(backend, connector, Behaviour::echo());
        let started = Instant::now();
        for nth in 0..CONNECTS {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000 + nth as u16 % 4));
            harness.handle.connect(to).unwrap();
            // One at a time: the next finds all ports free.
            harness.log.wait("it comes to nothing", |ledger| {
                assert_eq!(ledger.ids.len(), 0, "it opened after {:?}", started.elapsed());
                (ledger.connects_failed.len() > nth).then_some(())
            });
        }
        harness.log.look(|ledger| {
            for (id, to, kind) in &ledger.connects_failed {
                assert_eq!(*kind, ErrorKind::ConnectionRefused, "{id} to {to}");
            }
        });
        assert_eq!(harness.finish().connect_failures, CONNECTS as u64);
    }

    /// A peer that is there is still reached from those ports.
    fn a_connect_to_a_port_of_the_systems_own_at_which_somebody_listens_opens(backend)
        with "echo 40000 40999 >/proc/sys/net/ipv4/ip_local_port_range", NO_NAMES
    => {
        let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 40_001)).options(two_workers());
        let harness = start_builder(backend, builder, Behaviour::silent());
        for _ in 0..100 {
            harness.handle.connect(harness.address()).unwrap();
        }
        harness.log.wait("both ends of all open", |ledger| (ledger.ids.len() == 200).then_some(()));
        harness.handle.drain(Duration::from_secs(5)).unwrap();
        harness.finish();
    }
}
