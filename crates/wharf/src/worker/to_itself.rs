//! Tests: connects that reach themselves. A connect to an unused port of this machine may get that port as
//! its own. Here the socket is bound to it beforehand, so each connect does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use crate::engine::Mail;
use crate::face::Handler;
use crate::framing::Framing;
use crate::options::Options;
#[cfg(windows)]
use crate::port::iocp::{IocpPort, SharedPort};
#[cfg(unix)]
use crate::port::readiness::ReadinessPort;
#[cfg(target_os = "linux")]
use crate::port::uring::{UringPort, UringSizes};
use crate::port::{CompletionPort, Socket};
use crate::server::{Plan, serve_on};
use crate::session::SessionId;

const CONNECTS: usize = 41;
const BOUND: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Noting {
    opened: AtomicUsize,
    failed: Mutex<Vec<(SessionId, SocketAddr, io::ErrorKind)>>,
}

impl Handler for Noting {
    type State = ();

    fn opened(&self, _: &crate::Session) {
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn received(&self, _: &crate::Session, (): &mut (), _: &[u8]) {}

    fn connect_failed(&self, id: SessionId, target: &crate::Target, error: &io::Error) {
        self.failed.lock().unwrap().push((id, target.address.as_tcp().unwrap(), error.kind()));
    }
}

/// A socket that is bound to an address. `None`: this machine has no such addresses.
fn bound(ip: IpAddr) -> Option<(Socket, SocketAddr)> {
    let address = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
    socket.bind(&address.into()).ok()?;
    let socket = Socket::from(socket);
    let address = socket.local_address()?;
    Some((socket, address))
}

/// `to`: the address to connect to, if it is another name of their own.
fn none_of_them_opens<P>(
    make_port: impl Fn(usize) -> io::Result<P> + Clone + Send + 'static,
    ip: impl Into<IpAddr>,
    to: Option<IpAddr>,
) where
    P: CompletionPort + 'static,
{
    let ip = ip.into();
    if bound(ip).is_none() {
        return eprintln!("passed over: this machine does not have {ip}");
    }
    let options = Options::default().workers(2).with(|options| {
        options.sessions.max = CONNECTS as u32;
    });
    let handler = Arc::new(Noting::default());
    let plan = Plan::new(Framing::raw(), &options);
    let running = serve_on(make_port, plan, Vec::new(), &handler).unwrap();
    let engine = running.engine();
    // Twice as many as places, so places must come back.
    for round in 1..=2 {
        for _ in 0..CONNECTS {
            let (socket, own) = bound(ip).unwrap();
            let to = SocketAddr::new(to.unwrap_or(ip), own.port());
            let id = engine.admit(None, 0).unwrap();
            let port = engine.port_of(engine.table.held(id).unwrap());
            port.mailbox.post(Mail::Connect(id, socket, to.into())).unwrap();
        }
        let started = Instant::now();
        while engine.ports.iter().any(|port| port.assigned_sessions() > 0) {
            let opened = handler.opened.load(Ordering::SeqCst);
            assert_eq!(opened, 0, "of {CONNECTS} that are connected to themselves");
            assert!(started.elapsed() < BOUND, "{:?}", handler.failed.lock().unwrap());
            std::thread::yield_now();
        }
        let failed = handler.failed.lock().unwrap();
        assert_eq!(failed.len(), round * CONNECTS);
        // The port is free for a real listener.
        for (_, to, _) in &failed[(round - 1) * CONNECTS..] {
            let socket =
                socket2::Socket::new(Domain::for_address(*to), Type::STREAM, None).unwrap();
            socket.bind(&(*to).into()).unwrap();
        }
        let refused = |(_, _, kind): &&(_, _, _)| *kind == io::ErrorKind::ConnectionRefused;
        assert_eq!(failed.iter().filter(refused).count(), round * CONNECTS, "{failed:?}");
    }
    engine.stop();
    assert!(engine.wait_ended(Some(BOUND)));
    let stats = engine.stats();
    assert_eq!((stats.opened, stats.connect_failures), (0, 2 * CONNECTS as u64));
}

fn on<P: CompletionPort + 'static, M>(make: impl Fn() -> M)
where
    M: Fn(usize) -> io::Result<P> + Clone + Send + 'static,
{
    none_of_them_opens(make(), Ipv4Addr::LOCALHOST, None);
    none_of_them_opens(make(), Ipv4Addr::new(127, 9, 8, 7), None);
    none_of_them_opens(make(), Ipv6Addr::LOCALHOST, None);
    // Windows refuses to connect to it.
    if cfg!(unix) {
        none_of_them_opens(make(), Ipv4Addr::LOCALHOST, Some(Ipv4Addr::UNSPECIFIED.into()));
    }
}

#[cfg(unix)]
#[test]
fn a_connect_that_reaches_itself_fails_as_refused_on_readiness() {
    on(|| |_| ReadinessPort::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_connect_that_reaches_itself_fails_as_refused_on_uring() {
    on(|| |_| UringPort::new(UringSizes::new(16, 4_096)));
}

#[cfg(windows)]
#[test]
fn a_connect_that_reaches_itself_fails_as_refused_on_iocp() {
    on(|| {
        let shared = SharedPort::for_test();
        move |_| IocpPort::join(shared.clone())
    });
}
