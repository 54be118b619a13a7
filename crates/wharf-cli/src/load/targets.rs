//! Where sessions connect. A name may have several addresses; they are tried in turn until one works.

use std::io;
use std::net::ToSocketAddrs;

use wharf::PeerAddress;

use super::connect_remedy;
use super::web_socket::Upgrade;
use crate::arguments::unix_path;

/// `ADDRESS:PORT`, `NAME:PORT` or `unix:PATH`: at least one address.
#[derive(Debug, Clone)]
pub(super) struct Target {
    addresses: Vec<PeerAddress>,
    /// As it was given, if that is a name or an address.
    name: Option<String>,
}

/// Looks the name up.
pub(super) fn target(text: &str) -> Result<Target, String> {
    if let Some(path) = unix_path(text) {
        return Ok(Target { addresses: vec![PeerAddress::unix(path)], name: None });
    }
    let found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    let addresses: Vec<_> = found.map(PeerAddress::from).collect();
    if addresses.is_empty() {
        Err("a name without an address".to_owned())
    } else {
        Ok(Target { addresses, name: Some(text.to_owned()) })
    }
}

/// Connections go round robin over the targets, by their numbers.
pub(super) struct Targets {
    ways: Vec<Way>,
    /// What each connect asks for, if it speaks WebSocket.
    upgrade: Option<Upgrade>,
}

struct Way {
    name: Option<String>,
    addresses: Vec<PeerAddress>,
    /// Which of them is in use.
    current: usize,
    /// Whether it was ever reached: then a connect that fails is an error, and no reason to try the next.
    is_reached: bool,
    /// Why those before it are not.
    given_up: Vec<String>,
}

impl Targets {
    pub(super) fn new(targets: &[Target], upgrade: Option<Upgrade>) -> Targets {
        let way = |target: &Target| Way {
            name: target.name.clone(),
            addresses: target.addresses.clone(),
            current: 0,
            is_reached: false,
            given_up: Vec::new(),
        };
        Targets { ways: targets.iter().map(way).collect(), upgrade }
    }

    /// Where this connection goes.
    pub(super) fn target_of(&self, connection: usize) -> wharf::Target {
        let way = &self.ways[connection % self.ways.len()];
        let target = wharf::Target::new(way.addresses[way.current].clone());
        match &self.upgrade {
            None => target,
            Some(upgrade) => upgrade.of(target, way.name.as_deref()),
        }
    }

    pub(super) fn reached(&mut self, connection: usize) {
        self.way(connection).is_reached = true;
    }

    /// This connection could not be had there. The error is what to tell if there is no other address to try:
    /// its kind, and the whole.
    pub(super) fn try_another(
        &mut self,
        connection: usize,
        address: &PeerAddress,
        error: &io::Error,
    ) -> Result<(), (String, String)> {
        let way = self.way(connection);
        if *address != way.addresses[way.current] {
            return Ok(()); // another was asked for since
        }
        let remedy = connect_remedy(error);
        let cause = format!("cannot connect to {address}: {error}{remedy}");
        if way.is_reached || way.current + 1 == way.addresses.len() {
            let causes = way.given_up.iter().chain([&cause]).map(String::as_str);
            let whole = causes.collect::<Vec<_>>().join("; ");
            return Err((format!("connect failed: {error}"), whole));
        }
        way.given_up.push(cause);
        way.current += 1;
        Ok(())
    }

    /// The addresses that are in use.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.ways.iter().map(|way| way.addresses[way.current].to_string()).collect()
    }

    /// Why others of the same names are not.
    pub(super) fn given_up(&self) -> Vec<String> {
        self.ways.iter().flat_map(|way| &way.given_up).cloned().collect()
    }

    fn way(&mut self, connection: usize) -> &mut Way {
        let count = self.ways.len();
        &mut self.ways[connection % count]
    }
}

#[cfg(test)]
impl Target {
    /// What a name with these addresses would be.
    pub(super) fn of(addresses: &[std::net::SocketAddr]) -> Target {
        let addresses = addresses.iter().map(|address| (*address).into()).collect();
        Target { addresses, name: None }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn_and_the_last_error_names_all() {
        let [first, second] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut targets = Targets::new(&[Target::of(&[first, second]), Target::of(&[first])], None);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        // Two of the same name's are on their way.
        assert!(targets.try_another(0, &first.into(), &refused).is_ok());
        assert!(targets.try_another(2, &first.into(), &refused).is_ok());
        assert_eq!(
            [targets.target_of(0).address, targets.target_of(1).address],
            [second, first].map(PeerAddress::from)
        );
        assert_eq!(targets.given_up().len(), 1);
        let (kind, whole) = targets.try_another(0, &second.into(), &refused).unwrap_err();
        assert!(kind.starts_with("connect failed: "), "{kind}");
        assert!(whole.contains("127.0.0.1:1") && whole.contains("127.0.0.1:2"), "{whole}");
    }

    #[test]
    fn an_address_that_was_reached_is_not_left_for_another() {
        let [first, second] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut targets = Targets::new(&[Target::of(&[first, second])], None);
        targets.reached(7);
        let full = io::Error::from(io::ErrorKind::AddrNotAvailable);
        assert!(
            targets.try_another(8, &first.into(), &full).is_err(),
            "a server that refuses is an error"
        );
        assert_eq!(targets.addresses(), [first.to_string()]);
    }

    #[test]
    fn a_text_without_a_port_or_an_address_is_no_target() {
        assert!(target("nowhere").is_err() && target("").is_err());
        assert_eq!(target("127.0.0.1:7").unwrap().addresses.len(), 1);
        let by_path = target("unix:/run/game.sock").unwrap().addresses;
        assert_eq!(by_path, [PeerAddress::unix("/run/game.sock")]);
    }
}
