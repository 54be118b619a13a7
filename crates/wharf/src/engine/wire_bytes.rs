//! What room a frame needs: tests of the ways into a send queue.

use std::io::IoSlice;

use super::engine::Engine;
use super::frame::Content;
use super::push::AtOnce;
use crate::error::SendError;
use crate::framing::{
    CustomFraming, Cut, Envelope, Framing, FramingError, Framings, LengthPrefix, Lines, Parts,
    VarintPrefix,
};
use crate::options::Options;
use crate::port::Sockets;

/// A magic byte before a frame, and two of a sum behind it.
struct Framed;

impl CustomFraming for Framed {
    fn wire_frame_bytes_max(&self) -> usize {
        100
    }

    fn cut(&self, _: &[u8], _: usize) -> Cut {
        Cut::More { bytes_min: 1, scanned: 0 }
    }

    fn envelope(&self, _: Parts<'_>) -> Result<Envelope, FramingError> {
        Envelope::new(b"M", b"ss")
    }
}

#[test]
fn a_frame_needs_the_room_that_it_takes_whoever_has_encoded_it() {
    let framings = || {
        Framings::of(&[
            Framing::raw(),
            Framing::length_prefixed(LengthPrefix::default()),
            Framing::lines(Lines::default()),
            Framing::varint(VarintPrefix::default()),
            Framing::custom(Framed),
        ])
    };
    let options = || Options::default().workers(1);
    let engine = Engine::new(false, framings(), options(), Sockets::Os);
    let another = Engine::new(false, framings(), options(), Sockets::Os);
    for (framing, around) in [(0, 0), (1, 4), (2, 1), (3, 1), (4, 3)] {
        let bytes = [b'x'; 40];
        let (own, others) =
            [&engine, &another].map(|it| it.encode(Content::Plain(&bytes)).unwrap()).into();
        let pieces = [&bytes[..7], &bytes[7..]].map(IoSlice::new);
        for content in [
            Content::Plain(&bytes),
            Content::Parts(Parts(&pieces)),
            Content::Encoded(&own),
            Content::Encoded(&others),
        ] {
            let id = engine.admit(None, framing).unwrap();
            let slot = engine.table.held(id).unwrap();
            let needed = engine.wire_bytes(slot, content);
            engine.push(slot, content, AtOnce::No).0.unwrap();
            let queued = slot.send_queue.lock().queued_bytes();
            assert_eq!((needed, queued), (40 + around, 40 + around), "{framing}: {content:?}");
            engine.abandon(id);
        }
    }
    // What is received is held to 100 bytes, what is sent to the send queue.
    let slot = engine.table.held(engine.admit(None, 4).unwrap()).unwrap();
    let sent = |bytes: usize| engine.push(slot, Content::Plain(&vec![b'x'; bytes]), AtOnce::No).0;
    let Err(SendError::TooLarge { max, .. }) = sent(2 << 20) else { panic!("it is sent") };
    assert_eq!(max, engine.options.sending.queue_bytes_max - 3);
    assert!(sent(max).is_ok());
}
