//! A port on trial, and the ledger that judges its every completion.
//!
//! What holds for all operations is asserted here, whatever a test is about: a completion belongs to an
//! outstanding operation, only kinds that continue have `more`, and at the end every posted operation has had
//! its last.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use super::sockets::{BOUND, batch};
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{
    Accepted, Anywhere, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome,
    Registration, Sink, Socket, Token,
};

pub(in crate::port) const KINDS: [OperationKind; 4] =
    [OperationKind::Accept, OperationKind::Connect, OperationKind::Receive, OperationKind::Send];

pub(in crate::port) struct Trial<P> {
    pub(in crate::port) port: P,
    pub(in crate::port) ledger: Ledger,
    tokens: u64,
}

/// Everything that was ever registered, by token.
#[derive(Default)]
pub(in crate::port) struct Ledger {
    accounts: HashMap<Token, Account>,
    /// Ended without being done or cancelled: `turn` posts them again.
    again: Vec<(Token, Operation)>,
    /// How often a receive ended because no lent buffer was left.
    pub(in crate::port) exhausted: usize,
    /// What is done to lent bytes after they were checked.
    pub(in crate::port) writes_over: Option<fn(&mut [u8])>,
    completions: u64,
    anywhere: Option<Anywhere>,
}

/// One registration: what is outstanding, and what came.
#[derive(Debug, Default)]
pub(in crate::port) struct Account {
    /// The receive is not posted again automatically.
    receives_once: bool,
    registration: Option<Registration>,
    outstanding: [bool; 4],
    cancelled: [bool; 4],
    pub(in crate::port) accepted: Vec<Socket>,
    pub(in crate::port) received: Vec<u8>,
    pub(in crate::port) sent: usize,
    /// What is sent directly when something is received, and how much of it was taken.
    pub(in crate::port) reply: Vec<u8>,
    pub(in crate::port) taken: Option<usize>,
    /// The last completions in order, except those after which `turn` posts again.
    pub(in crate::port) lasts: Vec<Last>,
}

/// A last completion. `Received(Ok(()))` is the end of the stream.
#[derive(Debug)]
pub(in crate::port) enum Last {
    Accepted(Result<(), Failure>),
    Connected(Result<Option<SocketAddr>, Failure>),
    Received(Result<(), Failure>),
    ReceivedInto(Box<RingBuffer>, Result<usize, Failure>),
    Sent(Box<SendBatch>, Result<usize, Failure>),
}

impl Last {
    pub(in crate::port) fn failure(&self) -> Option<&Failure> {
        match self {
            Last::Accepted(Err(failure))
            | Last::Connected(Err(failure))
            | Last::Received(Err(failure))
            | Last::ReceivedInto(_, Err(failure))
            | Last::Sent(_, Err(failure)) => Some(failure),
            _ => None,
        }
    }

    pub(in crate::port) fn is_cancelled(&self) -> bool {
        matches!(self.failure(), Some(Failure::Cancelled))
    }

    /// The kind of error, if the OS reported one.
    pub(in crate::port) fn error_kind(&self) -> Option<std::io::ErrorKind> {
        match self.failure() {
            Some(Failure::Os(error)) => Some(error.kind()),
            _ => None,
        }
    }
}

impl Account {
    pub(in crate::port) fn is_outstanding(&self, kind: OperationKind) -> bool {
        self.outstanding[kind as usize]
    }

    pub(in crate::port) fn is_settled(&self) -> bool {
        self.outstanding == [false; 4]
    }
}

impl<P: CompletionPort> Trial<P> {
    pub(in crate::port) fn of(port: P) -> Self {
        let ledger = Ledger { anywhere: port.anywhere(), ..Ledger::default() };
        Trial { port, ledger, tokens: 0 }
    }

    /// Registers with a new token.
    pub(in crate::port) fn register(&mut self, socket: Socket) -> Token {
        self.tokens += 1;
        // Both halves of the eight bytes must come back.
        let token = Token(self.tokens << 32 | !self.tokens & 0xffff_ffff);
        let registration = self.port.register(socket, token).expect("registered");
        let account = Account { registration: Some(registration), ..Account::default() };
        assert!(self.ledger.accounts.insert(token, account).is_none());
        token
    }

    pub(in crate::port) fn deregister(&mut self, token: Token) -> Socket {
        let registration = self.registration(token);
        let socket = self.port.deregister(registration);
        self.ledger.account(token).registration = None;
        socket
    }

    pub(in crate::port) fn registration(&self, token: Token) -> Registration {
        self.ledger.accounts[&token].registration.expect("still registered")
    }

    pub(in crate::port) fn account(&mut self, token: Token) -> &mut Account {
        self.ledger.account(token)
    }

    /// Posts. If refused, takes completions and posts again.
    pub(in crate::port) fn post(&mut self, token: Token, mut operation: Operation) {
        let registration = self.registration(token);
        let kind = operation.kind();
        let once = matches!(operation, Operation::ReceiveOnce);
        let started = Instant::now();
        loop {
            match self.port.post(registration, operation) {
                Ok(()) => break,
                Err(refused) => {
                    assert!(started.elapsed() < BOUND, "refused for ever: {}", refused.error);
                    operation = refused.given_back;
                    assert_eq!(operation.kind(), kind, "what was refused comes back");
                }
            }
            self.port.wait(Some(Duration::ZERO), &mut self.ledger).expect("waited");
        }
        let account = self.ledger.account(token);
        account.outstanding[kind as usize] = true;
        account.cancelled[kind as usize] = false;
        if kind == OperationKind::Receive {
            account.receives_once = once;
        }
    }

    pub(in crate::port) fn send(&mut self, token: Token, bytes: &[u8]) {
        self.post(token, Operation::Send(batch(bytes)));
    }

    pub(in crate::port) fn cancel(&mut self, token: Token, kind: OperationKind) {
        self.port.cancel(self.registration(token), kind);
        self.ledger.account(token).cancelled[kind as usize] = true;
    }

    pub(in crate::port) fn shutdown(&mut self, token: Token, how: Shutdown) {
        self.port.shutdown(self.registration(token), how);
    }

    /// One `wait`. Then posts again what ended early.
    pub(in crate::port) fn turn(&mut self, timeout: Option<Duration>) {
        self.port.wait(timeout, &mut self.ledger).expect("waited");
        self.post_again();
    }

    /// Posts again what ended early.
    pub(in crate::port) fn post_again(&mut self) {
        for (token, operation) in std::mem::take(&mut self.ledger.again) {
            self.post(token, operation);
        }
    }

    /// Gives the port a few chances to misbehave.
    pub(in crate::port) fn idle_turns(&mut self) {
        for _ in 0..4 {
            self.turn(Some(Duration::ZERO));
        }
    }

    /// Waits repeatedly until the condition holds.
    pub(in crate::port) fn drive(&mut self, mut until: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + BOUND;
        while !until(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in {BOUND:?}; {}", self.ledger.summary());
            self.turn(Some(left));
        }
    }

    pub(in crate::port) fn drive_until_settled(&mut self, token: Token) {
        self.drive(|trial| trial.account(token).is_settled());
    }

    /// Checks that nothing comes twice, closes the port, and returns all results.
    pub(in crate::port) fn finish(mut self) -> Ledger {
        self.idle_turns();
        self.port.close(&mut self.ledger);
        for (token, account) in &self.ledger.accounts {
            assert!(account.is_settled(), "without a last completion: {token:?} {account:?}");
        }
        self.ledger
    }
}

impl Ledger {
    pub(in crate::port) fn account(&mut self, token: Token) -> &mut Account {
        self.accounts.get_mut(&token).expect("a token that was never registered")
    }

    fn summary(&self) -> String {
        let unsettled: Vec<_> =
            self.accounts.iter().filter(|(_, account)| !account.is_settled()).take(4).collect();
        format!("{} completions, outstanding (4 of them): {unsettled:?}", self.completions)
    }

    fn end(&mut self, token: Token, last: Last) {
        self.account(token).lasts.push(last);
    }
}

impl Sink for Ledger {
    fn take(&mut self, completion: Completion<'_>) {
        let Completion { token, outcome, more, direct } = completion;
        self.completions += 1;
        let (kind, writes_over) = (kind_of(&outcome), self.writes_over);
        let account = self.accounts.get_mut(&token).expect("a token that was never registered");
        let Some(registration) = account.registration else {
            panic!("after the deregistration: {outcome:?}")
        };
        assert!(account.is_outstanding(kind), "not outstanding: {outcome:?}");
        account.outstanding[kind as usize] = more;
        if direct {
            assert!(matches!(outcome, Outcome::Received(Ok(_))), "an answer to {outcome:?}");
            assert!(!account.is_outstanding(OperationKind::Send), "it would overtake a send");
            let reply = std::mem::take(&mut account.reply);
            let (first, second) = reply.split_at(reply.len().min(10));
            let Some(Anywhere::Sends(direct)) = &self.anywhere else { panic!("by which way?") };
            account.taken =
                Some(direct.send(registration.0, &[first, second].map(IoSlice::new)).unwrap_or(0));
        }
        let goes_on = !more && !account.cancelled[kind as usize];
        match outcome {
            Outcome::Accepted(Ok(accepted)) => {
                let Accepted { socket, peer_address } = accepted;
                // A peer that has reset since has no address any more.
                if let (Some(told), Some(asked)) = (peer_address, socket.peer().as_tcp()) {
                    assert_eq!(asked, told);
                }
                account.accepted.push(socket);
                if goes_on {
                    self.again.push((token, Operation::Accept));
                } else if !more {
                    self.end(token, Last::Accepted(Ok(())));
                }
            }
            Outcome::Accepted(Err(failure)) if more => {
                assert!(matches!(failure, Failure::Os(_)), "goes on after {failure:?}");
            }
            Outcome::Accepted(Err(failure)) => self.end(token, Last::Accepted(Err(failure))),
            Outcome::Received(Ok(bytes)) if !bytes.is_empty() => {
                account.received.extend_from_slice(bytes);
                if let Some(write_over) = writes_over {
                    write_over(bytes);
                }
                if goes_on && !account.receives_once {
                    self.again.push((token, Operation::Receive));
                } else if !more {
                    self.end(token, Last::Received(Ok(())));
                }
            }
            outcome if more => panic!("goes on after {outcome:?}"),
            Outcome::Received(Ok(_)) => self.end(token, Last::Received(Ok(()))),
            Outcome::Received(Err(Failure::BuffersExhausted)) if goes_on => {
                let once = account.receives_once;
                let again = if once { Operation::ReceiveOnce } else { Operation::Receive };
                self.exhausted += 1;
                self.again.push((token, again));
            }
            Outcome::Received(Err(failure)) => self.end(token, Last::Received(Err(failure))),
            Outcome::Connected(connected) => self.end(token, Last::Connected(connected)),
            Outcome::ReceivedInto(ring, received) => {
                self.end(token, Last::ReceivedInto(ring, received));
            }
            Outcome::Sent(batch, Ok(count)) => {
                account.sent += count;
                if goes_on && count > 0 && batch.bytes() > 0 {
                    self.again.push((token, Operation::Send(batch)));
                } else {
                    self.end(token, Last::Sent(batch, Ok(count)));
                }
            }
            Outcome::Sent(batch, Err(failure)) => self.end(token, Last::Sent(batch, Err(failure))),
        }
    }
}

fn kind_of(outcome: &Outcome<'_>) -> OperationKind {
    match outcome {
        Outcome::Accepted(_) => OperationKind::Accept,
        Outcome::Connected(_) => OperationKind::Connect,
        Outcome::Received(_) | Outcome::ReceivedInto(..) => OperationKind::Receive,
        Outcome::Sent(..) => OperationKind::Send,
    }
}
