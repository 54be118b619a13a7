//! Close frames: codes and reasons (RFC 6455, 5.5.1 and 7.4).

use super::rules::Violation;
use super::rules::codes::{GOING_AWAY, INTERNAL, NO_CODE, NORMAL, POLICY, TOO_LONG};
use crate::close::CloseReason;

/// The most bytes of a reason: a control frame has 125.
pub(crate) const REASON_BYTES_MAX: usize = 123;

/// Whether a peer may send this code: registered ones that are not reserved for saying that none came, those of
/// libraries and frameworks (3000 on), those of programs (4000 to 4999).
pub(crate) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The code that a peer is told. `None`: it is told nothing, since it hears nothing any more.
pub(crate) fn code_of(reason: CloseReason) -> Option<u16> {
    Some(match reason {
        CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. } | CloseReason::Reset => {
            return None;
        }
        CloseReason::PeerClosedWith { code } | CloseReason::ProtocolError { code, .. } => code,
        CloseReason::Drained
        | CloseReason::IdleTimeout
        | CloseReason::FirstFrameTimeout
        | CloseReason::PingTimeout => GOING_AWAY,
        CloseReason::FrameTooLarge { .. } => TOO_LONG,
        CloseReason::Kicked { code } => {
            u16::try_from(code).ok().filter(|code| may_be_sent(*code)).unwrap_or(POLICY)
        }
        CloseReason::SlowConsumer { .. } | CloseReason::ReceiveQueueFull { .. } => POLICY,
        CloseReason::Local => NORMAL,
        _ => INTERNAL,
    })
}

/// The code and the reason in the payload of a Close frame; [`NO_CODE`] if it is empty.
pub(crate) fn read(payload: &[u8]) -> Result<(u16, &str), Violation> {
    match payload {
        [] => Ok((NO_CODE, "")),
        [_] => Err(Violation::CloseCode),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCode);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok((code, reason))
        }
    }
}

/// The payload that says this, with as much of the reason as there is room for; empty for [`NO_CODE`].
pub(crate) fn payload(code: u16, reason: &str) -> Vec<u8> {
    if code == NO_CODE {
        return Vec::new();
    }
    let end =
        (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end.unwrap_or(0)]);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again_and_a_long_reason_is_cut_between_characters() {
        assert_eq!(read(&payload(NORMAL, "goodbye")), Ok((NORMAL, "goodbye")));
        assert_eq!(read(&payload(NO_CODE, "unsaid")), Ok((NO_CODE, "")));
        let long = "é".repeat(100);
        let cut = payload(GOING_AWAY, &long);
        assert_eq!(cut.len(), 2 + 122, "123 would be within a character");
        assert_eq!(read(&cut), Ok((GOING_AWAY, &long[..122])));
    }

    #[test]
    fn each_end_has_its_code_and_those_who_hear_nothing_any_more_are_told_nothing() {
        use CloseReason::*;
        for (reason, code) in [
            (PeerClosed, None),
            (PeerClosedInFrame { bytes: 1 }, None),
            (Reset, None),
            (PeerClosedWith { code: 4001 }, Some(4001)),
            (PeerClosedWith { code: NO_CODE }, Some(NO_CODE)),
            (ProtocolError { code: 1007, reason: "" }, Some(1007)),
            (Drained, Some(1001)),
            (IdleTimeout, Some(1001)),
            (FirstFrameTimeout, Some(1001)),
            (PingTimeout, Some(1001)),
            (FrameTooLarge { bytes: 2, max: 1 }, Some(1009)),
            (Kicked { code: 4001 }, Some(4001)),
            (Kicked { code: 1006 }, Some(1008)),
            (Kicked { code: 65_536 + 4001 }, Some(1008)),
            (SlowConsumer { queued: 1 }, Some(1008)),
            (ReceiveQueueFull { queued: 1 }, Some(1008)),
            (Local, Some(1000)),
            (HandlerPanicked, Some(1011)),
        ] {
            assert_eq!(code_of(reason), code, "{reason:?}");
        }
    }

    #[test]
    fn codes_that_no_peer_may_send_are_refused() {
        let refused = (0..=u16::MAX).filter(|code| read(&code.to_be_bytes()).is_err());
        let expected = (0..1000).chain(1004..=1006).chain(1015..3000).chain(5000..=u16::MAX);
        assert!(refused.eq(expected));
        assert_eq!(read(&[3]), Err(Violation::CloseCode));
        assert_eq!(read(&[0x03, 0xe8, 0xff]), Err(Violation::NotUtf8));
    }
}
