//! Unix-domain sockets: listening, connecting, who the peer is; sessions of all kinds in one server.

#![forbid(unsafe_code)]
#![cfg(unix)]

#[macro_use]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use support::*;
use wharf::{
    Backend, Backpressure, Close, CloseReason, Connector, Error, Framing, Group, Handler, Lines,
    Listener, Options, PeerAddress, Server, Session, SessionId, Target,
};

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const PEERS: usize = 41;

/// A directory of the test's, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("wharf-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn connect_to(path: &std::path::Path) -> UnixStream {
    let peer = UnixStream::connect(path).unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    peer
}

fn read_exactly(mut peer: impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

fn start_at(backend: Backend, listener: Listener, behaviour: Behaviour) -> Harness {
    start_builder(backend, Server::builder().listen(listener).workers(2), behaviour)
}

/// Either kind of peer.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

on_every_backend! {
    fn sessions_of_raw_lines_length_and_unix_listeners_are_in_one_group(backend) {
        const ALL: Group = Group(3);
        let directory = Directory::new();
        let builder = Server::builder()
            .listen(Listener::new(HERE).name("raw").framing(Framing::raw()))
            .listen(Listener::new(HERE).name("lines").framing(Framing::lines(Lines::default())))
            .listen(Listener::new(HERE).name("length").framing(length_framing()))
            .listen(
                Listener::unix(directory.socket()).name("unix").framing(Framing::lines(Lines::default())),
            )
            .workers(3);
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let name = &session.listener().unwrap().name;
            assert_eq!(frame, name.as_bytes(), "cut as that listener's");
            session.handle().join(session.id(), ALL).unwrap();
            session.send(frame);
        });
        let harness = start_builder(backend, builder, behaviour);
        let wire = |kind: usize, text: &[u8]| match kind {
            0 => text.to_vec(),
            2 => wire_default(text),
            _ => [text, b"\n"].concat(),
        };
        let names = ["raw", "lines", "length", "unix"];
        let mut peers: Vec<(usize, Box<dyn Stream>)> = Vec::new();
        for index in 0..4 * PEERS {
            let kind = index % 4;
            let mut peer: Box<dyn Stream> = match kind {
                3 => Box::new(connect_to(&directory.socket())),
                kind => Box::new(connect(harness.server.addresses()[kind])),
            };
            let said = wire(kind, names[kind].as_bytes());
            peer.write_all(&said).unwrap();
            let echoed = read_exactly(&mut peer, said.len());
            // What is sent to a peer of lines ends as lines of the framing do.
            assert_eq!(echoed, said);
            peers.push((kind, peer));
        }
        assert_eq!(harness.handle.member_count(ALL), 4 * PEERS);
        for number in 0..10 {
            harness.handle.publish(ALL, format!("to all {number}").as_bytes()).unwrap();
        }
        for (kind, peer) in &mut peers {
            for number in 0..10 {
                let expected = wire(*kind, format!("to all {number}").as_bytes());
                assert_eq!(read_exactly(&mut *peer, expected.len()), expected);
            }
        }
        drop(peers);
        harness.settle();
        harness.finish();
        assert!(!directory.socket().exists());
    }

    fn a_peer_of_a_unix_socket_is_known_by_its_credentials(backend) {
        let directory = Directory::new();
        let (tell, told) = channel();
        let behaviour = Behaviour::echo().on_opened(move |session| {
            tell.send((session.peer_address(), session.peer_credentials())).unwrap();
        });
        let listener = Listener::unix(directory.socket()).mode(0o600);
        let harness = start_at(backend, listener, behaviour);
        assert_eq!(harness.server.unix_paths(), [directory.socket()]);
        assert!(harness.server.addresses().is_empty());
        let found = std::fs::symlink_metadata(directory.socket()).unwrap();
        assert!(found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o600);
        let peer = connect_to(&directory.socket());
        let (address, credentials) = told.recv_timeout(BOUND).unwrap();
        assert_eq!(address, Some(PeerAddress::Unix(None)));
        let credentials = credentials.expect("the system tells them");
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        assert_eq!((credentials.user_id, credentials.group_id), (user.as_raw(), group.as_raw()));
        if cfg!(target_os = "linux") {
            assert_eq!(credentials.process_id, Some(std::process::id()));
        }
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_path_that_a_killed_server_left_is_taken_and_no_other(backend) {
        let directory = Directory::new();
        let path = directory.socket();
        let refused = || {
            let error = Server::builder().listen(Listener::unix(&path)).backend(backend).start(Nobody);
            let Error::Listen { failures, .. } = error.unwrap_err() else { panic!("it listens") };
            assert_eq!(failures[0].address, PeerAddress::unix(&path));
            failures[0].source.kind()
        };
        // A socket that is dropped without its path being removed is what kill -9 leaves.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let harness = start_at(backend, Listener::unix(&path), Behaviour::echo());
        let mut peer = connect_to(&path);
        peer.write_all(b"taken").unwrap();
        assert_eq!(read_exactly(&peer, 5), b"taken");
        assert_eq!(refused(), ErrorKind::AddrInUse);
        peer.write_all(b"still").unwrap();
        assert_eq!(read_exactly(&peer, 5), b"still", "who was refused has left it alone");
        // Another has replaced it: the end of this server leaves that one's path.
        std::fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(peer);
        harness.settle();
        harness.finish();
        assert!(path.exists());
        drop(other);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"a file").unwrap();
        assert_eq!(refused(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }

    /// The file system may give the new socket the inode's number of the old one.
    fn the_end_of_a_server_leaves_the_path_of_its_successor(backend) {
        let directory = Directory::new();
        let old = start_at(backend, Listener::unix(directory.socket()), Behaviour::echo());
        let probe = || UnixStream::connect(directory.socket()).is_err();
        old.handle.stop_accepting();
        eventually("nobody accepts there", probe);
        let new = start_at(backend, Listener::unix(directory.socket()), Behaviour::echo());
        old.settle();
        old.finish();
        let mut peer = connect_to(&directory.socket());
        peer.write_all(b"new").unwrap();
        assert_eq!(read_exactly(&peer, 3), b"new");
        drop(peer);
        new.settle();
        new.finish();
    }

    #[cfg(target_os = "linux")]
    fn what_the_kernel_may_hold_is_limited_for_accepted_sessions_too(backend) {
        let directory = Directory::new();
        let options = Options::default().workers(1).with(|options| {
            options.sending.kernel_bytes = Some(10_000);
            options.sending.kernel_unsent_bytes = Some(5_000); // of TCP alone
            options.sending.queue_bytes_max = 1_000;
        });
        let builder = Server::builder().listen(Listener::unix(directory.socket())).options(options);
        let harness = start_builder(backend, builder, Behaviour::silent());
        let peer = connect_to(&directory.socket());
        let (id, mut sent) = (harness.log.opened(0), 0);
        while harness.handle.send(id, [1; 500]).is_ok() {
            sent += 500;
        }
        // The kernel doubles what is asked for, and counts what it needs around it.
        assert!(sent < 60_000, "{sent}");
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_path_that_cannot_be_is_refused_with_a_reason(backend) {
        let directory = Directory::new();
        for (path, says) in [
            (directory.0.join("x".repeat(200)), "100 bytes"),
            (directory.0.join("nowhere/socket"), "directory"),
        ] {
            let started = Server::builder().listen(Listener::unix(path)).backend(backend).start(Nobody);
            let said = started.unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "Linux has it alone"))]
    fn a_name_of_the_abstract_namespace_is_listened_on(backend) {
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("wharf-{}-{backend:?}", std::process::id());
            let harness = start_at(backend, Listener::unix(format!("\0{name}")), Behaviour::echo());
            assert!(format!("{:?}", harness.server.unix_paths()).contains(&name));
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let mut peer = UnixStream::connect_addr(&address).unwrap();
            peer.write_all(b"hello").unwrap();
            assert_eq!(read_exactly(&peer, 5), b"hello");
            drop(peer);
            harness.settle();
            harness.finish();
        }
    }

    /// Megabytes in both directions, by peers that read late; resets; and a crowd.
    fn sessions_of_unix_sockets_are_as_any_other(backend) {
        const BYTES: usize = 3 << 20;
        let directory = Directory::new();
        let options = Options::default().workers(2).with(|options| {
            options.receiving.backpressure = Backpressure::PauseReceive;
        });
        let builder = Server::builder().listen(Listener::unix(directory.socket())).options(options);
        let harness = start_builder(backend, builder, Behaviour::echo());
        std::thread::scope(|scope| {
            for seed in 0..8 {
                let path = directory.socket();
                scope.spawn(move || {
                    let bytes = Random::new(seed).bytes(BYTES);
                    let peer = connect_to(&path);
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            (&peer).write_all(&bytes).unwrap();
                            peer.shutdown(std::net::Shutdown::Write).unwrap();
                        });
                        let mut came = Vec::new();
                        (&peer).read_to_end(&mut came).unwrap();
                        assert_same(&came, &bytes);
                    });
                });
            }
            for _ in 0..PEERS {
                let path = directory.socket();
                scope.spawn(move || {
                    let mut peer = connect_to(&path);
                    peer.write_all(&[7; 10_000]).unwrap();
                    // It leaves with bytes unread: a reset.
                    let _ = peer.read(&mut [0]).unwrap();
                });
            }
        });
        harness.settle();
        let ends = harness.log.look(|ledger| {
            ledger.records.values().map(|record| record.closed.unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(ends.len(), 8 + PEERS);
        let resets = ends.iter().filter(|reason| **reason == CloseReason::Reset).count();
        let ended = ends.iter().filter(|reason| **reason == CloseReason::PeerClosed).count();
        assert_eq!((resets + ended, ended >= 8), (8 + PEERS, true), "{ends:?}");
        harness.finish();
    }

    fn a_reader_that_never_reads_is_a_slow_consumer(backend) {
        let directory = Directory::new();
        let listener = Listener::unix(directory.socket());
        let harness = start_at(backend, listener, Behaviour::silent());
        let peer = connect_to(&directory.socket());
        let id = harness.log.opened(0);
        while harness.handle.send(id, [1; 50_000]).is_ok() {}
        let reason = harness.log.closed(id);
        assert!(matches!(reason, CloseReason::SlowConsumer { .. }), "{reason:?}");
        drop(peer);
        harness.settle();
        harness.finish();
    }

    /// All workers accept from one backlog, so one that does not come to it must not keep the others from it.
    fn while_a_callback_blocks_other_workers_accept(backend) {
        let directory = Directory::new();
        let (block, blocks) = std::sync::mpsc::channel::<()>();
        let blocks = std::sync::Mutex::new(blocks);
        let (tell, is_blocked) = channel();
        let behaviour = Behaviour::silent().on_received(move |session, frame| {
            if frame == b"block" {
                tell.send(()).unwrap();
                let _ = lock(&blocks).recv_timeout(BOUND);
            } else {
                session.send(frame);
            }
        });
        let harness = start_at(backend, Listener::unix(directory.socket()), behaviour);
        let mut blocking = connect_to(&directory.socket());
        blocking.write_all(b"block").unwrap();
        is_blocked.recv_timeout(BOUND).unwrap();
        for _ in 0..PEERS {
            // One of the two workers is left, which has all newcomers.
            let mut peer = connect_to(&directory.socket());
            peer.write_all(b"x").unwrap();
            assert_eq!(read_exactly(&peer, 1), b"x");
        }
        block.send(()).unwrap();
        drop(blocking);
        harness.settle();
        harness.finish();
    }

    fn a_session_is_begun_at_a_path(backend) {
        let directory = Directory::new();
        let harness = start_at(backend, Listener::unix(directory.socket()), Behaviour::echo());
        let (tell, told) = channel();
        let client = Client { tell };
        let connector = Connector::builder().backend(backend).workers(2).start(client).unwrap();
        let target = || Target::new(PeerAddress::unix(directory.socket())).context(7_u64);
        let ids: Vec<_> = (0..PEERS).map(|_| connector.handle().connect(target()).unwrap()).collect();
        for _ in &ids {
            let (id, happened) = told.recv_timeout(BOUND).unwrap();
            assert!(ids.contains(&id));
            assert_eq!(happened, Happened::Answered(Some(PeerAddress::unix(directory.socket()))));
        }
        // Nobody is there, or nobody listens.
        let left_over = directory.0.join("left over");
        drop(UnixListener::bind(&left_over).unwrap());
        for (path, kind) in [
            (directory.0.join("nowhere"), ErrorKind::NotFound),
            (left_over, ErrorKind::ConnectionRefused),
        ] {
            let address = PeerAddress::unix(path);
            let id = connector.handle().connect(address.clone()).unwrap();
            assert_eq!(told.recv_timeout(BOUND).unwrap(), (id, Happened::Failed(address, kind)));
        }
        for address in [PeerAddress::Unix(None), PeerAddress::unix("x".repeat(200))] {
            let error = connector.handle().connect(address).unwrap_err();
            assert!(error.to_string().contains("cannot make a socket"), "{error}");
        }
        connector.handle().stop();
        connector.wait().unwrap();
        harness.settle();
        harness.finish();
    }

    /// The kernel lets a connect wait while a backlog is full, and nothing but its cancel ends that.
    fn a_connect_that_waits_for_a_full_backlog_ends_in_time(backend) {
        let directory = Directory::new();
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(directory.socket()).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let (tell, told) = channel();
        let mut options = Options::default().workers(2);
        options.time.connect_timeout = Some(std::time::Duration::from_millis(100));
        let connector = Connector::builder().options(options).backend(backend).start(Client { tell }).unwrap();
        let target = || PeerAddress::unix(directory.socket());
        let ids: Vec<_> = (0..PEERS).map(|_| connector.handle().connect(target()).unwrap()).collect();
        let mut failed = 0;
        for _ in 0..PEERS - 1 {
            // One has its place in the backlog. Where the system lets none wait, they are refused at once.
            let (id, happened) = told.recv_timeout(BOUND).unwrap();
            let Happened::Failed(address, kind) = happened else { panic!("{happened:?}") };
            assert!(ids.contains(&id) && address == target());
            assert_in(kind, &[ErrorKind::TimedOut, ErrorKind::WouldBlock, ErrorKind::ConnectionRefused]);
            failed += 1;
        }
        assert_eq!(failed, PEERS - 1);
        connector.handle().stop();
        connector.wait().unwrap();
    }

    /// A server can be replaced by another process without a refusal: here it is this program, started again with the
    /// socket as its standard input.
    fn a_listener_is_handed_to_a_new_process_and_nobody_is_refused(backend) {
        let socket = std::net::TcpListener::bind(HERE).unwrap();
        let address = socket.local_addr().unwrap();
        let given = Listener::from_tcp(socket.try_clone().unwrap());
        let old = start_builder(backend, Server::builder().listen(given).workers(2), Behaviour::echo());
        let asked = std::sync::atomic::AtomicBool::new(true);
        let mut child = None;
        let (answered, cut) = std::thread::scope(|scope| {
            let comers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut answered, mut cut) = (0, 0);
                        while asked.load(Ordering::SeqCst) || answered == 0 {
                            // A refusal would panic here.
                            let peer = TcpStream::connect(address).unwrap();
                            peer.set_read_timeout(Some(BOUND)).unwrap();
                            let sent = (&peer).write_all(b"who is there?").is_ok();
                            let mut answer = [0; 13];
                            match (&peer).read_exact(&mut answer) {
                                Ok(()) if sent => answered += 1,
                                _ => cut += 1,
                            }
                        }
                        (answered, cut)
                    })
                })
                .collect();
            let mut new = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "serves_what_it_was_handed", "--nocapture"])
                .env("WHARF_TEST_HANDED", backend.to_string())
                .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(socket)))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            let mut lines = std::io::BufReader::new(new.stdout.take().unwrap());
            while !said.contains("serving") {
                said.clear();
                let read = std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
                assert!(read > 0, "the new process serves");
            }
            old.handle.stop_accepting();
            asked.store(false, Ordering::SeqCst);
            let sums = comers.into_iter().map(|comer| comer.join().unwrap());
            let sums = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            child = Some((new, lines));
            sums
        });
        assert_eq!((answered >= 4, cut), (true, 0), "{answered} are answered");
        let served = old.finish().opened;
        assert!(served <= answered as u64);
        let peer = connect(address);
        round_trip(&peer, b"by the new one alone");
        write(&peer, b"stop");
        let (mut new, _lines) = child.unwrap();
        assert!(new.wait().unwrap().success());
    }
}

/// The new process of that test; otherwise nothing.
#[test]
fn serves_what_it_was_handed() {
    let Ok(backend) = std::env::var("WHARF_TEST_HANDED") else { return };
    let socket = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
    struct Stops;
    impl Handler for Stops {
        type State = ();
        fn opened(&self, _: &Session) {}
        fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
            match frame {
                b"stop" => session.handle().stop(),
                _ => session.send(frame),
            }
        }
    }
    let backend: Backend = backend.parse().unwrap();
    let builder = Server::builder().listen(Listener::from_descriptor(socket)).backend(backend);
    let server = builder.workers(2).start(Stops).unwrap();
    println!("\nserving");
    server.wait().unwrap();
}

#[derive(Debug, PartialEq)]
enum Happened {
    /// With where the peer is.
    Answered(Option<PeerAddress>),
    Failed(PeerAddress, ErrorKind),
}

/// Asks once, and tells what came of it.
struct Client {
    tell: Sender<(SessionId, Happened)>,
}

impl Handler for Client {
    type State = ();

    fn opened(&self, session: &Session) {
        session.send(b"hello");
    }

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        assert_eq!(frame, b"hello");
        assert_eq!(session.context::<u64>(), Some(Arc::new(7)));
        assert_eq!(session.peer_credentials(), None);
        let _ = self.tell.send((session.id(), Happened::Answered(session.peer_address())));
        session.handle().close(session.id(), Close::Drain);
    }

    fn connect_failed(&self, id: SessionId, target: &Target, error: &std::io::Error) {
        let happened = Happened::Failed(target.address.clone(), error.kind());
        let _ = self.tell.send((id, happened));
    }
}
