//! A gateway before the round's server, as examples/gateway.rs has it: a peer behind it must notice nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wharf::{
    Backend, Close, CloseReason, EndOfStream, Handle, Handler, Options, Server, Session, SessionId,
    Target,
};

use crate::rules::Rule;
use crate::truth::Truth;

/// The most bytes of a raw frame: with this much room the next one fits.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// So much room must come before the source of a side goes on.
const ROOM_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// Pairs that have not ended so long after all peers are gone will not end.
const PATIENCE: Duration = Duration::from_secs(10);

struct Pairs {
    target: SocketAddr,
    handle: OnceLock<Handle>,
    truth: Arc<Truth>,
}

/// The other half of a pair. `None`: it could not be had.
struct Pair(Option<SessionId>);

impl Handler for Pairs {
    type State = Pair;

    fn opened(&self, session: &Session) -> Pair {
        if let Some(accepted) = session.context::<SessionId>() {
            return Pair(Some(*accepted));
        }
        let target = Target::new(self.target).context(session.id());
        let connected = session.handle().connect(target).ok();
        if connected.is_none() {
            session.close(Close::Drain);
        }
        Pair(connected)
    }

    fn received(&self, session: &Session, Pair(other): &mut Pair, frame: &[u8]) {
        let Some(other) = *other else { return };
        if session.handle().send(other, frame).is_err() {
            return session.close(Close::Stop);
        }
        if session.handle().room(other).is_some_and(|room| room < FRAME_BYTES_MAX) {
            session.pause_receiving();
            session.handle().notify_writable(other, ROOM_BYTES);
        }
    }

    fn writable(&self, session: &Session, Pair(other): &mut Pair) {
        if session.room() < ROOM_BYTES {
            // Its source is paused, so nobody has taken any of it meanwhile.
            let (id, room) = (session.id(), session.room());
            let what = format!("writable of {id}, of a pair, runs when there is room for {room}");
            self.truth.broken(Rule::RoomIsTold, what);
        }
        if let Some(other) = *other {
            session.handle().resume_receiving(other);
        }
    }

    fn peer_finished(&self, session: &Session, Pair(other): &mut Pair) {
        if let Some(other) = *other {
            session.handle().finish(other);
        }
    }

    fn closed(&self, session: &Session, Pair(other): Pair, reason: CloseReason) {
        let Some(other) = other else { return };
        let how = match reason {
            CloseReason::PeerClosed | CloseReason::Local => Close::Drain,
            _ => Close::Stop,
        };
        session.handle().close(other, how);
    }

    fn connect_failed(&self, _: SessionId, target: &Target, _: &io::Error) {
        let accepted = target.context.as_deref().and_then(|context| context.downcast_ref());
        if let (Some(accepted), Some(handle)) = (accepted, self.handle.get()) {
            handle.close(*accepted, Close::Drain);
        }
    }
}

pub(crate) struct Gateway(Server);

impl Gateway {
    pub(crate) fn start(
        backend: Backend,
        target: SocketAddr,
        truth: &Arc<Truth>,
    ) -> wharf::Result<Gateway> {
        let options = Options::default().workers(2).backend(backend).with(|options| {
            options.receiving.end_of_stream = EndOfStream::Told;
        });
        let pairs = Arc::new(Pairs { target, handle: OnceLock::new(), truth: truth.clone() });
        let server = Server::builder().listen("127.0.0.1:0").options(options);
        let prepared = server.prepare(pairs.clone())?;
        let _ = pairs.handle.set(prepared.handle());
        Ok(Gateway(prepared.start()))
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.addresses().first().copied()
    }

    /// All peers and the server are gone, so every pair must end, for a reason that came from outside.
    pub(crate) fn end(self, truth: &Truth) {
        let (handle, until) = (self.0.handle(), Instant::now() + PATIENCE);
        while handle.stats().live > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let stats = handle.stats();
        if stats.live > 0 {
            let what = format!("{} sessions of pairs are left: {stats:?}", stats.live);
            truth.broken(Rule::GatewaysPassOn, what);
        }
        let of_outside = ["peer closed", "reset", "local"];
        for (reason, count) in stats.closed_by().filter(|(_, count)| *count > 0) {
            if !of_outside.contains(&reason) {
                let what = format!("{count} sessions of pairs closed as {reason}");
                truth.broken(Rule::GatewaysPassOn, what);
            }
        }
        if let Err(error) = handle.drain(Duration::ZERO).and_then(|_| self.0.wait()) {
            truth.broken(Rule::WorkersDoNotFail, format!("the gateway: {error}"));
        }
    }
}
