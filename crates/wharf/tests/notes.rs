//! Notes: what other threads tell the sessions of a server.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use support::*;
use wharf::{
    Backend, Builder, Close, Connector, Error, Handler, Mailer, Options, Server, Session,
    SessionId, TellError, Told,
};

const PEERS: usize = 41;
const TELLERS: u32 = 4;

fn builder() -> Builder {
    Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).workers(3)
}

fn note(from: u32, number: u32) -> Note {
    Note { from, number }
}

/// Holds a session's worker in a callback until it is dropped.
struct Gate {
    _open: mpsc::Sender<()>,
}

/// A behaviour that holds the worker when a frame comes; and what opens it.
fn held_at_frame() -> (Behaviour, Gate) {
    let (open, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let behaviour = Behaviour::silent().on_received(move |_, _| {
        let _ = lock(&opened).recv();
    });
    (behaviour, Gate { _open: open })
}

on_every_backend! {
    fn notes_of_many_threads_come_to_each_session_in_the_order_of_each_thread_and_none_is_lost(backend) {
        let (mailer, count) = (Mailer::new(), 2_000);
        let harness = start_told(backend, builder(), Behaviour::echo(), &mailer);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        std::thread::scope(|scope| {
            for from in 0..TELLERS {
                let (mailer, peers) = (&mailer, &peers);
                scope.spawn(move || {
                    for number in 0..count {
                        for (peer, id) in peers {
                            let mut told = mailer.tell(*id, note(from, number));
                            while let Err(TellError::Full { note, .. }) = told {
                                std::thread::yield_now();
                                told = mailer.tell(*id, note);
                            }
                            told.unwrap();
                            if from == 0 && number % 500 == 0 {
                                write(peer, b"something to do");
                            }
                        }
                    }
                });
            }
        });
        for (_, id) in &peers {
            let all = (TELLERS * count) as usize;
            let notes = harness.log.wait("all are told", |ledger| {
                let notes = &ledger.records.get(id)?.notes;
                (notes.len() == all).then(|| notes.clone())
            });
            for from in 0..TELLERS {
                let of_one = notes.iter().filter(|note| note.from == from).map(|note| note.number);
                assert!(of_one.eq(0..count), "what {from} has told came in another order");
            }
        }
        drop(peers);
        harness.settle();
        let stats = harness.finish();
        assert_eq!(stats.told_notes, PEERS as u64 * u64::from(TELLERS * count));
        assert_eq!(stats.untold_notes, 0);
    }

    fn a_note_for_a_session_that_ends_is_told_or_dropped_and_counted(backend) {
        let mailer = Mailer::new();
        const LAST: u32 = 20;
        let behaviour = Behaviour::silent().on_told(|session, note| {
            if note.number == LAST {
                session.close(Close::Stop);
            }
        });
        let harness = start_told(backend, builder(), behaviour, &mailer);
        let (accepted, ends) = (AtomicU32::new(0), AtomicBool::new(false));
        let ids: Mutex<Vec<SessionId>> = Mutex::default();
        let mut gone = 0;
        std::thread::scope(|scope| {
            let ends_on_drop = SetOnDrop(&ends);
            for from in 0..2 {
                let (mailer, ids, accepted, ends) = (&mailer, &ids, &accepted, &ends);
                scope.spawn(move || {
                    let mut numbers = HashMap::<SessionId, u32>::new();
                    while !ends.load(Ordering::SeqCst) {
                        let all = lock(ids).clone();
                        for id in all {
                            let number = numbers.entry(id).or_default();
                            match mailer.tell(id, note(from, *number % (LAST + 1))) {
                                Ok(()) => {
                                    accepted.fetch_add(1, Ordering::SeqCst);
                                    *number += 1;
                                }
                                Err(TellError::Gone(_) | TellError::Full { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                });
            }
            for _ in 0..5 {
                let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
                *lock(&ids) = peers.iter().map(|(_, id)| *id).collect();
                for (_, id) in &peers {
                    harness.log.closed(*id);
                }
                gone += peers.iter().filter(|(_, id)| mailer.tell(*id, note(0, 0)).is_err()).count();
            }
            drop(ends_on_drop);
        });
        assert_eq!(gone, 5 * PEERS);
        harness.settle();
        let is_told_after_its_close = |record: &Record| {
            let last = record.notes.iter().position(|note| note.number == LAST);
            last.is_none_or(|last| last + 1 < record.notes.len())
        };
        assert_eq!(harness.log.look(|ledger| ledger.count(is_told_after_its_close)), 0);
        let told: usize =
            harness.log.look(|ledger| ledger.records.values().map(|record| record.notes.len()).sum());
        let stats = harness.finish();
        assert_eq!(stats.told_notes, told as u64);
        assert_eq!(stats.told_notes + stats.untold_notes, u64::from(accepted.into_inner()));
    }

    fn at_each_bound_a_note_comes_back_with_the_facts(backend) {
        let mailer = Mailer::new();
        assert!(matches!(
            mailer.tell(SessionId::from_bits(7), note(0, 0)),
            Err(TellError::NotStarted(Note { .. }))
        ));
        let options = Options::default().workers(1).with(|options| {
            options.sessions.notes_max = 10;
            options.sessions.notes_of_port_max = 25;
        });
        let (behaviour, gate) = held_at_frame();
        let harness = start_told(backend, builder().options(options).workers(1), behaviour, &mailer);
        let peers: Vec<_> = (0..3).map(|_| harness.connect_known()).collect();
        write(&peers[0].0, b"wait");
        harness.log.wait("it waits", |ledger| (ledger.count(|record| record.inside) > 0).then_some(()));
        let fill = |(_, id): &(_, SessionId)| {
            (0..).find_map(|number| mailer.tell(*id, note(1, number)).err()).unwrap()
        };
        for (peer, [waiting, most]) in peers.iter().zip([[10, 10], [10, 10], [25, 25]]) {
            match fill(peer) {
                TellError::Full { note: Note { .. }, waiting: there, max } => {
                    assert_eq!([there, max], [waiting, most]);
                }
                error => panic!("{error}"),
            }
        }
        drop(gate);
        for ((_, id), count) in peers.iter().zip([10, 10, 5]) {
            harness.log.wait("they come", |ledger| {
                let numbers = ledger.records.get(id)?.notes.iter().map(|note| note.number);
                numbers.eq(0..count).then_some(())
            });
        }
        // There is room again, also for one that has been told too much.
        mailer.tell(peers[0].1, note(2, 0)).unwrap();
        harness.log.wait("it comes", |ledger| {
            (ledger.records.get(&peers[0].1)?.notes.last() == Some(&note(2, 0))).then_some(())
        });
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_session_that_tells_itself_for_ever_delays_no_other(backend) {
        let mailer = Mailer::new();
        let again = mailer.clone();
        let behaviour = Behaviour::echo().on_told(move |session, note| {
            // Two for each, so that its queue is always full.
            let _ = again.tell(session.id(), Note { from: 1, ..note });
            let _ = again.tell(session.id(), Note { from: 2, ..note });
        });
        let harness = start_told(backend, builder().workers(1), behaviour, &mailer);
        let (busy, id) = harness.connect_known();
        mailer.tell(id, note(0, 0)).unwrap();
        let others: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for round in 0..10_u8 {
            for (peer, _) in &others {
                write(peer, &[round; 100]);
                assert_eq!(read(peer, 100), [round; 100]);
            }
        }
        harness.log.wait("it goes on", |ledger| (ledger.records[&id].notes.len() > 1_000).then_some(()));
        write(&busy, b"and itself is served");
        assert_eq!(read(&busy, 20), b"and itself is served");
        drop((busy, others));
        harness.settle();
        harness.finish();
    }

    fn sessions_that_tell_each_other_for_ever_end_no_turn_but_their_own(backend) {
        let mailer = Mailer::new();
        let (again, pair) = (mailer.clone(), Arc::new(Mutex::new([None; 2])));
        let others = pair.clone();
        let behaviour = Behaviour::echo().on_told(move |session, note| {
            let [one, other] = *lock(&others);
            let to = if one == Some(session.id()) { other } else { one };
            let _ = again.tell(to.unwrap(), note);
            session.set_idle_timeout(None); // it is to be attended to
        });
        let harness = start_told(backend, builder().workers(1), behaviour, &mailer);
        let two = [(); 2].map(|()| harness.connect_known());
        *lock(&pair) = two.each_ref().map(|(_, id)| Some(*id));
        for number in 0..10 {
            for (_, id) in &two {
                mailer.tell(*id, note(0, number)).unwrap();
            }
        }
        for round in 0..10_u8 {
            let (peer, _) = harness.connect_known();
            write(&peer, &[round; 100]);
            assert_eq!(read(&peer, 100), [round; 100]);
        }
        for (_, id) in &two {
            harness.log.wait("it goes on", |ledger| (ledger.records[id].notes.len() > 100).then_some(()));
        }
        drop(two);
        harness.settle();
        harness.finish();
    }

    fn what_panics_when_it_is_told_or_dropped_ends_its_session_and_no_other(backend) {
        let mailer = Mailer::<Dreadful>::new();
        let server = builder().backend(backend).start(mailer.with(Bold)).unwrap();
        let (handle, peers) = (server.handle(), [(); PEERS].map(|()| connect(server.addresses()[0])));
        eventually("all are there", || handle.stats().live == PEERS as u64);
        for peer in &peers {
            write(peer, b"id");
        }
        let ids = peers.each_ref().map(|peer| {
            let bits = read(peer, 8);
            SessionId::from_bits(u64::from_be_bytes(bits.try_into().unwrap()))
        });
        for id in &ids[..PEERS / 2] {
            for _ in 0..3 {
                let _ = mailer.tell(*id, Dreadful).map_err(std::mem::forget);
            }
        }
        eventually("they end", || handle.stats().live == (PEERS - PEERS / 2) as u64);
        for peer in &peers[PEERS / 2..] {
            write(peer, b"id");
            read(peer, 8);
        }
        let stats = handle.stats();
        assert_eq!(stats.handler_panics, (PEERS / 2) as u64);
        handle.stop();
        server.wait().unwrap();
    }

    fn a_session_that_is_being_connected_is_told_once_it_has_opened(backend) {
        let target = start(backend, wharf::Framing::raw(), one_worker(), Behaviour::echo());
        let mailer = Mailer::new();
        let connector = Connector::builder().workers(2).backend(backend).start(mailer.with(Large)).unwrap();
        let handle = connector.handle();
        let (told, tells) = mpsc::channel();
        for number in 0..PEERS {
            let id = handle.connect(target.address()).unwrap();
            mailer.tell(id, (number, told.clone())).unwrap();
        }
        drop(told);
        let mut numbers: Vec<usize> = tells.iter().collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..PEERS));
        handle.stop();
        connector.wait().unwrap();
        target.settle();
        target.finish();
    }

    fn a_mailer_is_of_one_server(backend) {
        let mailer = Mailer::<Note>::new();
        let handler = Arc::new(Silent);
        let first = builder().backend(backend).start(mailer.with(handler.clone())).unwrap();
        match builder().backend(backend).start(mailer.with(handler)) {
            Err(Error::MailerInUse) => {}
            other => panic!("{other:?}"),
        }
        drop(first);
        let gone = mailer.tell(SessionId::from_bits(1), note(0, 0));
        assert!(matches!(gone, Err(TellError::Gone(Note { .. }))));
    }
}

/// Says its id, and panics at every note, whose destructor panics too.
struct Bold;

impl Handler for Bold {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, (): &mut (), _: &[u8]) {
        session.send(session.id().to_bits().to_be_bytes());
    }
}

impl Told<Dreadful> for Bold {
    fn told(&self, _: &Session, (): &mut (), note: Dreadful) {
        std::mem::forget(note);
        panic_on_purpose();
    }
}

/// Has a state that needs an allocation of its own.
struct Large;

impl Handler for Large {
    type State = [usize; 100];

    fn opened(&self, _: &Session) -> Self::State {
        [7; 100]
    }

    fn received(&self, _: &Session, _: &mut Self::State, _: &[u8]) {}
}

impl Told<(usize, mpsc::Sender<usize>)> for Large {
    fn told(
        &self,
        _: &Session,
        state: &mut Self::State,
        (number, told): (usize, mpsc::Sender<usize>),
    ) {
        assert!(state.iter().all(|word| *word == 7));
        told.send(number).unwrap();
    }
}

struct Silent;

impl Handler for Silent {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}
}

impl Told<Note> for Silent {
    fn told(&self, _: &Session, (): &mut (), _: Note) {}
}
