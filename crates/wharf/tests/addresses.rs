//! Which addresses a name stands for, and which of them are listened on.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use support::*;
use wharf::{Backend, Builder, Error, Options, Server};

/// Of no machine (RFC 5737).
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ANY_V6: (Ipv6Addr, u16) = (Ipv6Addr::UNSPECIFIED, 0);

/// With two workers: what is listened on is listened on by each.
fn bind(backend: Backend, addresses: &[SocketAddr]) -> Builder {
    let options = Options::default().workers(2).backend(backend);
    Server::builder().listen(addresses).options(options)
}

/// Peers that connect to this address are served, and known by one of this family.
#[track_caller]
fn is_served(harness: &Harness, address: impl Into<IpAddr>, port: u16) {
    let address = SocketAddr::new(address.into(), port);
    let peers: Vec<_> = (0..41).map(|_| connect(address)).collect();
    for peer in &peers {
        round_trip(peer, b"here");
        let own = peer.local_addr().unwrap();
        harness.log.look(|ledger| {
            let mut records = ledger.records.values();
            assert!(records.any(|record| record.peer_address == Some(own)), "{own}");
        });
    }
}

/// Whether this machine has IPv6; if not, says so.
fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("passed over: this machine has no ::1");
    }
    has
}

on_every_backend! {
    fn of_several_addresses_those_that_can_be_had_are_listened_on_and_the_others_told(backend) {
        let (here, nowhere) = ((Ipv4Addr::LOCALHOST, 0).into(), (NOWHERE, 7_000).into());
        for addresses in [[nowhere, here], [here, nowhere]] {
            let harness = start_builder(backend, bind(backend, &addresses), Behaviour::echo());
            let [address] = harness.server.addresses() else {
                panic!("{:?}", harness.server.addresses());
            };
            is_served(&harness, address.ip(), address.port());
            let [failure] = harness.server.listen_errors() else {
                panic!("{:?}", harness.server.listen_errors());
            };
            assert_eq!(failure.address.as_tcp(), Some(nowhere));
            assert_eq!(failure.source.kind(), ErrorKind::AddrNotAvailable);
            let told = failure.to_string();
            assert!(told.contains("this system has no such address"), "{told}");
            harness.settle();
            harness.finish();
        }
    }

    fn a_name_of_which_no_address_can_be_had_is_an_error_with_the_cause_of_each(backend) {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = taken.local_addr().unwrap();
        let (nowhere, here) = ((NOWHERE, 7_000).into(), (Ipv4Addr::LOCALHOST, 0));
        let builder = bind(backend, &[nowhere, taken]).listen(here);
        let error = builder.start(Nobody).unwrap_err();
        let Error::Listen { failures, .. } = &error else { panic!("{error}") };
        let causes: Vec<_> = failures.iter().map(|f| (f.address.as_tcp().unwrap(), f.source.kind())).collect();
        let expected =
            [(nowhere, ErrorKind::AddrNotAvailable), (taken, ErrorKind::AddrInUse)];
        assert_eq!(causes, expected);
        let told = error.to_string();
        for failure in failures {
            let cause = failure.source().unwrap().to_string();
            assert!(told.contains(&failure.to_string()) && told.contains(&cause), "{told}");
        }
        // Who starts it again too soon after it was killed is told so.
        assert!(told.contains("io_uring keeps the port"), "{told}");
    }

    fn the_unspecified_address_of_ipv6_takes_both_families(backend) {
        if !has_ipv6() {
            return;
        }
        let builder = bind(backend, &[ANY_V6.into()]);
        let harness = start_builder(backend, builder, Behaviour::echo());
        let port = harness.address().port();
        is_served(&harness, Ipv6Addr::LOCALHOST, port);
        is_served(&harness, Ipv4Addr::LOCALHOST, port);
        harness.settle();
        harness.finish();
    }

    fn the_unspecified_address_of_ipv6_takes_ipv6_alone_if_that_is_asked_for(backend) {
        if !has_ipv6() {
            return;
        }
        let options = Options::default().workers(2).with(|options| {
options.listening.ipv6_only = true;
});
        let builder = Server::builder().listen(ANY_V6).options(options);
        let harness = start_builder(backend, builder, Behaviour::echo());
        let port = harness.address().port();
        is_served(&harness, Ipv6Addr::LOCALHOST, port);
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        harness.settle();
        harness.finish();
    }
}

#[test]
fn what_is_no_address_is_not_said_to_be_one_that_cannot_be_listened_on() {
    let none: &[SocketAddr] = &[];
    let errors = [
        (Server::builder().listen("nowhere").start(Nobody).unwrap_err(), "HOST:PORT"),
        (Server::builder().listen("1.2.3.4").start(Nobody).unwrap_err(), "HOST:PORT"),
        (
            Server::builder().listen(none).start(Nobody).unwrap_err(),
            "cannot find the address of []",
        ),
    ];
    for (error, says) in errors {
        assert!(matches!(error, Error::Resolve { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(says) && !told.contains("listen"), "{told}");
        assert!(error.source().is_some(), "{error:?}");
    }
}
