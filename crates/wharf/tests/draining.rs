//! `Handler::draining`: told once, before any session ends, and nobody is held up by it.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use support::*;
use wharf::{
    Backend, CloseReason, Connector, DrainReport, Error, Group, Handle, Handler, Options, Server,
    Session,
};

const CROWD: usize = 41;
const WORKERS: usize = 3;
const ROOM: Group = Group(3);
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
/// Far enough to be never reached, and soon.
const LATE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Told,
    /// The callback has returned, or panics.
    Tells,
    Closed(CloseReason),
}

type Act = Box<dyn Fn(&Handle) + Send + Sync>;

/// What happens, in order; and what `draining` does. Whoever gets a byte stands still until all are released.
struct Notes {
    events: Mutex<Vec<Event>>,
    handle: OnceLock<Handle>,
    draining: Act,
    standing: Mutex<usize>,
    released: Mutex<bool>,
    are_released: Condvar,
}

impl Notes {
    fn new(draining: impl Fn(&Handle) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Notes {
            events: Mutex::default(),
            handle: OnceLock::new(),
            draining: Box::new(draining),
            standing: Mutex::default(),
            released: Mutex::default(),
            are_released: Condvar::new(),
        })
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn count(&self, holds: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| holds(event)).count()
    }

    fn told(&self) -> usize {
        self.count(|event| *event == Event::Told)
    }

    /// Told, once, and it was over before any session was ended by the drain.
    #[track_caller]
    fn assert_told_first(&self) {
        let events = self.events.lock().unwrap();
        assert_eq!(events[..2], [Event::Told, Event::Tells]);
        assert_eq!(events.iter().filter(|event| **event == Event::Told).count(), 1);
    }
}

impl Handler for Notes {
    type State = ();

    fn opened(&self, session: &Session) {
        session.join(ROOM).unwrap();
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {
        *self.standing.lock().unwrap() += 1;
        let released = self.released.lock().unwrap();
        drop(self.are_released.wait_while(released, |released| !*released).unwrap());
    }

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        self.note(Event::Closed(reason));
    }

    fn draining(&self) {
        /// Also when it panics.
        struct Tells<'a>(&'a Notes);
        impl Drop for Tells<'_> {
            fn drop(&mut self) {
                self.0.note(Event::Tells);
            }
        }
        self.note(Event::Told);
        let _tells = Tells(self);
        (self.draining)(self.handle.get().unwrap());
    }
}

fn start_server(backend: Backend, notes: &Arc<Notes>) -> Server {
    let options = Options::default().workers(WORKERS);
    let builder = Server::builder().listen(HERE).options(options).backend(backend);
    let prepared = builder.prepare(notes.clone()).unwrap();
    let _ = notes.handle.set(prepared.handle());
    prepared.start()
}

/// Peers whose sessions are open.
fn crowd(server: &Server) -> Vec<TcpStream> {
    let peers = (0..CROWD).map(|_| connect(server.addresses()[0])).collect();
    let handle = server.handle();
    eventually("they are open", || handle.stats().opened == CROWD as u64);
    peers
}

/// Every worker stands still in a callback.
fn block_all(peers: &[TcpStream], notes: &Notes) {
    peers.iter().for_each(|peer| write(peer, b"!"));
    eventually("all workers stand still", || *notes.standing.lock().unwrap() == WORKERS);
}

fn release_all(notes: &Notes) {
    *notes.released.lock().unwrap() = true;
    notes.are_released.notify_all();
}

/// Peers that end when the server does.
fn until_the_end(peers: &[TcpStream]) -> Vec<Vec<u8>> {
    peers.iter().map(read_to_end).collect()
}

/// A callback that stands still between two such waits.
fn standing_still() -> (Arc<Barrier>, impl Fn(&Handle) + Send + Sync + 'static) {
    let gate = Arc::new(Barrier::new(2));
    let in_callback = gate.clone();
    let stand = move |_: &Handle| {
        in_callback.wait();
        in_callback.wait();
    };
    (gate, stand)
}

on_every_backend! {
    fn it_is_told_once_before_any_session_ends_and_what_it_says_arrives_at_all(backend) {
        let notes = Notes::new(|handle| {
            let members = handle.members(ROOM);
            assert_eq!((members.len(), handle.member_count(ROOM)), (CROWD, CROWD));
            handle.publish(ROOM, b"good").unwrap();
            handle.broadcast(b"bye").unwrap();
            assert!(members.iter().all(|id| handle.is_open(*id)), "none was asked to end");
        });
        let server = start_server(backend, &notes);
        let (handle, peers) = (server.handle(), crowd(&server));
        let report = thread::scope(|scope| {
            // Two at once: each drains, and it is told once.
            let drains = [(); 2].map(|()| scope.spawn(|| handle.drain(LATE).unwrap()));
            assert!(until_the_end(&peers).iter().all(|said| said == b"goodbye"));
            peers.iter().for_each(|peer| drop(peer.shutdown(std::net::Shutdown::Both)));
            let [one, other] = drains.map(|drain| drain.join().unwrap());
            assert_eq!(one, other);
            one
        });
        let expected = (CROWD as u64, CROWD as u64, 0, 0);
        assert_eq!((report.live, report.flushed, report.ended, report.workers_blocked), expected);
        server.wait().unwrap();
        notes.assert_told_first();
        let drained = |event: &Event| *event == Event::Closed(CloseReason::Drained);
        assert_eq!(notes.count(drained), CROWD);
        handle.drain(LATE).unwrap();
        assert_eq!(notes.told(), 1, "once more says nothing");
    }

    fn what_it_sends_to_each_arrives_as_well(backend) {
        let notes = Notes::new(|handle| {
            let members = handle.members(ROOM);
            assert_eq!(handle.send_many(&members, vec![7; 100_000]), Ok(CROWD));
            members.iter().for_each(|id| handle.send(*id, b"bye").unwrap());
        });
        let server = start_server(backend, &notes);
        let (handle, peers) = (server.handle(), crowd(&server));
        thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(LATE).unwrap());
            let expected = [vec![7; 100_000], b"bye".to_vec()].concat();
            for said in until_the_end(&peers) {
                assert_same(&said, &expected);
            }
            drop(peers);
            assert_eq!(drain.join().unwrap().flushed, CROWD as u64);
        });
        server.wait().unwrap();
        notes.assert_told_first();
    }

    fn one_that_panics_stops_no_drain(backend) {
        let notes = Notes::new(|_| panic_dreadfully());
        let server = start_server(backend, &notes);
        let (handle, peers) = (server.handle(), crowd(&server));
        thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(LATE).unwrap());
            assert!(until_the_end(&peers).iter().all(Vec::is_empty));
            drop(peers);
            assert_eq!(drain.join().unwrap().flushed, CROWD as u64);
        });
        assert_eq!(handle.stats().handler_panics, 1);
        server.wait().unwrap();
        notes.assert_told_first();
    }

    fn a_call_that_waits_is_refused_in_it(backend) {
        let notes = Notes::new(|handle| {
            let refused = handle.drain(LATE);
            assert!(matches!(refused, Err(Error::InCallback { call: "Handle::drain" })));
        });
        let server = start_server(backend, &notes);
        let handle = server.handle();
        assert_eq!(handle.drain(LATE).unwrap(), DrainReport::default());
        assert_eq!(handle.stats().handler_panics, 0);
        server.wait().unwrap();
        assert_eq!(notes.told(), 1);
    }

    fn one_that_blocks_holds_up_no_deadline_and_no_stop(backend) {
        let (gate, stand) = standing_still();
        let notes = Notes::new(stand);
        let server = start_server(backend, &notes);
        let (handle, peers) = (server.handle(), crowd(&server));
        let report = thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(SOON).unwrap());
            gate.wait();
            assert!(!drain.is_finished(), "it drains, and nothing has ended");
            assert_eq!(handle.stats().live, CROWD as u64);
            drain.join().unwrap()
        });
        assert!((1..=WORKERS as u64).contains(&report.workers_blocked), "{report:?}");
        assert_eq!(report.live, report.cut_off + report.ended + report.unfinished, "{report:?}");
        assert_eq!((report.live, report.flushed), (CROWD as u64, 0));
        assert_eq!(notes.count(|event| *event == Event::Tells), 0, "it still stands");
        gate.wait();
        server.wait().unwrap();
        peers.iter().for_each(wait_ended);
        assert_eq!(notes.told(), 1);
        let stopped = |event: &Event| *event == Event::Closed(CloseReason::Stopped);
        assert_eq!(notes.count(stopped), CROWD);
    }

    fn a_stop_ends_at_once_what_waits_for_it(backend) {
        let (gate, stand) = standing_still();
        let notes = Notes::new(stand);
        let server = start_server(backend, &notes);
        let (handle, peers) = (server.handle(), crowd(&server));
        thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(LATE).unwrap());
            gate.wait();
            handle.stop();
            if !cfg!(windows) {
                // The other workers' sessions end meanwhile. (A shared port's wait for its last worker.)
                let stopped = |event: &Event| *event == Event::Closed(CloseReason::Stopped);
                eventually("others end", || notes.count(stopped) > 0);
            }
            gate.wait();
            let report = drain.join().unwrap();
            assert_eq!((report.live, report.cut_off), (CROWD as u64, CROWD as u64));
        });
        server.wait().unwrap();
        peers.iter().for_each(wait_ended);
        assert_eq!(notes.told(), 1);
    }

    fn a_stop_and_a_drop_tell_nobody(backend) {
        for by_drop in [false, true] {
            let notes = Notes::new(|_| {});
            let server = start_server(backend, &notes);
            let (handle, peers) = (server.handle(), crowd(&server));
            if by_drop {
                drop(server);
            } else {
                handle.stop();
                handle.drain(LATE).unwrap();
                server.wait().unwrap();
            }
            peers.iter().for_each(wait_ended);
            handle.drain(LATE).unwrap();
            assert_eq!(notes.told(), 0);
            assert_eq!(notes.count(|_| true), CROWD);
        }
    }

    fn with_all_workers_blocked_the_deadline_holds_and_one_is_told_when_it_goes_on(backend) {
        for deadline in [SOON, LATE] {
            let notes = Notes::new(|_| {});
            let server = start_server(backend, &notes);
            let (handle, peers) = (server.handle(), crowd(&server));
            block_all(&peers, &notes);
            thread::scope(|scope| {
                let drain = scope.spawn(|| handle.drain(deadline).unwrap());
                if deadline == SOON {
                    eventually("the deadline comes", || drain.is_finished());
                    assert_eq!(notes.told(), 0);
                }
                release_all(&notes);
                peers.iter().for_each(|peer| drop(peer.shutdown(std::net::Shutdown::Write)));
                peers.iter().for_each(wait_ended);
                let report = drain.join().unwrap();
                if deadline == SOON {
                    let expected = [CROWD, CROWD, WORKERS].map(|count| count as u64);
                    let DrainReport { live, unfinished, workers_blocked, .. } = report;
                    assert_eq!([live, unfinished, workers_blocked], expected, "{report:?}");
                } else {
                    // Whose peer has left before its worker has learned of the drain counts not.
                    assert_eq!(report.live, report.flushed + report.ended, "{report:?}");
                    assert_eq!(report.workers_blocked, 0);
                }
            });
            server.wait().unwrap();
            if deadline == LATE {
                assert_eq!(notes.told(), 1);
                let told = notes.events.lock().unwrap().iter().position(|event| *event == Event::Told);
                let drained = Event::Closed(CloseReason::Drained);
                let first = notes.events.lock().unwrap().iter().position(|event| *event == drained);
                assert!(first.is_none_or(|first| told < Some(first)));
            } else {
                assert_eq!(notes.told(), 0, "it was stopped by then");
            }
        }
    }

    fn a_connectors_is_told_too(backend) {
        let notes = Notes::new(|handle| handle.broadcast(b"bye").unwrap());
        let builder = Connector::builder().workers(WORKERS).backend(backend);
        let connector = builder.start(notes.clone()).unwrap();
        let handle = connector.handle();
        let _ = notes.handle.set(handle.clone());
        let listener = TcpListener::bind(HERE).unwrap();
        let peers: Vec<_> = (0..CROWD).map(|_| {
            handle.connect(listener.local_addr().unwrap()).unwrap();
            listener.accept().unwrap().0
        }).collect();
        eventually("they are open", || handle.stats().opened == CROWD as u64);
        thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(LATE).unwrap());
            assert!(until_the_end(&peers).iter().all(|said| said == b"bye"));
            drop(peers);
            assert_eq!(drain.join().unwrap().flushed, CROWD as u64);
        });
        connector.wait().unwrap();
        notes.assert_told_first();
    }
}
