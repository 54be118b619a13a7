//! An accepted session arrives at its worker, or a connect begins.

use std::io;
use std::net::SocketAddr;

use super::floor::Floor;
use super::held::{AtPort, Held};
use crate::clock::Clock;
use crate::close::CloseReason;
use crate::face::Handler;
use crate::peer_address::{Peer, PeerAddress};
use crate::port::{CompletionPort, Operation, Socket, Token};
use crate::session::{Phase, SessionId, Slot};

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Opens an accepted session. The acceptor's count becomes the session's own, until closing begins.
    pub(super) fn arrive<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        peer_address: Option<SocketAddr>,
    ) {
        self.with_hold(id, |floor, slot| {
            let mut held = floor.hands.take(id, slot);
            assert!(
                held.half.is_new(),
                "invariant 4: something is left of the slot's last session"
            );
            held.half.peer = peer_address.map_or_else(|| socket.peer(), Peer::of_accepted);
            let registered = port.register(socket, Token(id.to_bits()));
            if let Ok(registration) = registered {
                slot.set_registration(Some(registration.0));
            }
            floor.stands_or_begins(&mut held);
            if let Err(refused) = registered {
                slot.ask_to_stop(CloseReason::of_io(&refused.error));
                #[cfg(feature = "websocket")]
                if held.half.life.phase() == Phase::Establishing {
                    floor.give_up_establishing(&mut held);
                }
                floor.begin_closing(None::<&mut AtPort<'_, P>>, &mut held);
            }
            floor.give_back(held);
        });
    }

    /// The connection stands. Opens the session, unless its transport is to be established first.
    pub(super) fn stands_or_begins(&mut self, held: &mut Held<'e, H::State>) {
        #[cfg(feature = "websocket")]
        if self.has_web_socket(held.slot) {
            return self.begin_establishing(held);
        }
        self.open(held);
    }

    /// Begins a connect that another thread asked for.
    pub(super) fn connect<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        to: PeerAddress,
    ) {
        self.with_hold(id, |floor, slot| {
            if let Err((mut held, error)) = floor.post_connect(port, id, slot, socket, to) {
                floor.connect_failed(&mut held, error);
                floor.give_back(held);
                return;
            }
            if let Some((reason, how)) = floor.engine.ending() {
                floor.engine.ask_to_close(id, slot, reason, how);
            }
            // Who asked it to close before there was a registration could do no more than ask.
            floor.session.desk.attend_later(id);
        });
    }

    fn post_connect<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &'e Slot,
        socket: Socket,
        to: PeerAddress,
    ) -> Result<(), (Held<'e, H::State>, io::Error)> {
        let mut held = self.hands.take(id, slot);
        assert!(held.half.is_new(), "invariant 4: something is left of the slot's last session");
        held.half.life.enter(Phase::Connecting);
        // Not the turn's moment: the turn may be long, and a shared port has no record of its length.
        held.half.phase_since = self.clock.now();
        held.half.peer = Peer::from(&to);
        let options = &self.engine.options;
        socket.prepare(options, &options.time, false);
        let registration = match port.register(socket, Token(id.to_bits())) {
            Ok(registration) => registration,
            Err(refused) => return Err((held, refused.error)),
        };
        self.arm_timer(&mut held);
        slot.count.raise(); // before the post (invariant 3)
        slot.send_queue.lock().hold_back(true);
        let mut at = AtPort { port, registration };
        let lent = match at.lend(held) {
            Ok(lent) => lent,
            // Cannot happen: no worker attends to a session without a registration.
            Err(_) => panic!("invariant 2: the half of {id} was asked for before it had a socket"),
        };
        slot.set_registration(Some(registration.0));
        let Err(refused) = at.post(Operation::Connect(Box::new(to))) else {
            return Ok(());
        };
        let last = slot.count.lower();
        debug_assert!(!last, "the session's own count is there");
        Err((self.hands.take_back(lent), refused.error))
    }

    /// Gives up the session's own count. The release tells the handler.
    pub(super) fn connect_failed(&mut self, held: &mut Held<'e, H::State>, error: io::Error) {
        held.half.life.enter(Phase::Closing);
        held.half.connect_error = Some(error);
        held.slot.count.ask_to_close();
        if held.slot.count.lower() {
            self.to_release.push(held.id);
        }
    }
}
