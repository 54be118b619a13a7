//! What every public type promises whatever it does: which threads may have it.

use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};

use wharf::options::{Iocp, Listening, Receiving, Sending, Sessions, Time, Uring};
use wharf::{
    AcceptError, Backend, BackendChoice, BackendRefusal, Backpressure, Builder, Close, CloseReason,
    ConnectError, Connector, ConnectorBuilder, DrainReport, EncodeError, Error, FirstFrameTimeout,
    Frame, Framing, Gone, Group, Handle, Histogram, Histograms, JoinError, Keepalive, LengthPrefix,
    ListenError, Listener, Metric, Options, PeerAddress, Prepared, PublishError, SendError, Server,
    SessionId, Stats, Target,
};

fn is_for_any_thread<T: Send + Sync + Debug>() {}

/// It compiles, or it does not.
#[test]
fn everything_but_the_session_may_be_given_to_any_thread() {
    macro_rules! of {
        ($($type:ty),+ $(,)?) => { $(is_for_any_thread::<$type>();)+ };
    }
    of!(
        AcceptError,
        Backend,
        BackendChoice,
        BackendRefusal,
        Backpressure,
        Builder,
        Close,
        CloseReason,
        ConnectError,
        Connector,
        ConnectorBuilder,
        DrainReport,
        Error,
        FirstFrameTimeout,
        Frame,
        Framing,
        Gone<Vec<u8>>,
        Group,
        Handle,
        Histogram,
        Histograms,
        Iocp,
        JoinError,
        Keepalive,
        LengthPrefix,
        ListenError,
        Listener,
        Listening,
        Metric<'_>,
        Options,
        PeerAddress,
        Prepared,
        PublishError<Vec<u8>>,
        Receiving,
        SendError<Vec<u8>>,
        Sending,
        Server,
        SessionId,
        Sessions,
        Stats,
        Target,
        Time,
        EncodeError<Vec<u8>>,
        Uring,
    );
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
    is_error::<SendError<Vec<u8>>>();
    is_error::<PublishError<Vec<u8>>>();
    is_error::<Gone<Vec<u8>>>();
    is_error::<EncodeError<Vec<u8>>>();
    is_error::<JoinError>();
    is_error::<ConnectError>();
    is_error::<ListenError>();
    is_error::<AcceptError>();
    // A panic that a handle was in the middle of leaves it as it was.
    fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    is_unwind_safe::<SessionId>();
    is_unwind_safe::<Options>();
}
