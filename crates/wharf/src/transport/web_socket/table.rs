//! What peers send, and what must become of it: the cases by which WebSocket servers are judged, in our words.
//!
//! Each is sent whole, a byte at a time, and in parts drawn from a seed, as a client and as a server.

use super::cut::{Cutter, Found};
use super::head::{HEAD_BYTES_MAX, Head, Opcode};
use super::mask;
use super::rules::codes::{GOING_AWAY, NO_CODE, NORMAL};
use super::rules::{EMPTY_FRAGMENTS_MAX, Role, Violation};

/// What was found, with its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    Refused(Violation),
}

use Heard::{Binary, Close, Ping, Pong, Refused, Text};

const MESSAGE_BYTES_MAX: u32 = 70_000;

/// A frame as a peer of this role's sends it.
fn frame(role: Role, opcode: Opcode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let key = (role == Role::Server).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut out = [0; HEAD_BYTES_MAX];
    let head =
        Head { is_last, opcode, is_deflated: false, key, payload_bytes: payload.len() as u64 };
    let end = head.write(&mut out);
    let mut masked = payload.to_vec();
    if let Some(key) = key {
        mask::apply(&mut masked, key);
    }
    [&out[..end], &masked].concat()
}

/// What a session hears of these bytes, in parts of such sizes.
fn hear(role: Role, bytes: &[u8], mut part: impl FnMut() -> usize) -> Vec<Heard> {
    hear_as_wanted(role, bytes, |_| part())
}

/// The same. The sizes may depend on what the cutter wants.
fn hear_as_wanted(role: Role, bytes: &[u8], mut part: impl FnMut(usize) -> usize) -> Vec<Heard> {
    let (mut cutter, mut heard, mut waiting) =
        (Cutter::new(role, MESSAGE_BYTES_MAX), Vec::new(), Vec::new());
    let (mut at, mut wanted) = (0, cutter.wants(b""));
    while at < bytes.len() {
        let end = at.saturating_add(part(wanted).max(1)).min(bytes.len());
        waiting.extend_from_slice(&bytes[at..end]);
        at = end;
        let mut pass = cutter.pass(&mut waiting);
        while !pass.is_done() {
            let found = cutter.next(&mut pass);
            let copy = |range: std::ops::Range<usize>| pass.bytes[range].to_vec();
            let text = |range| String::from_utf8(copy(range)).expect("it was looked at");
            heard.push(match found {
                Ok(Found::Nothing) => break,
                Ok(Found::Message { is_text: true, bytes, .. }) => Text(text(bytes)),
                Ok(Found::Message { is_text: false, bytes, .. }) => Binary(copy(bytes)),
                Ok(Found::Ping(bytes)) => Ping(copy(bytes)),
                Ok(Found::Pong(bytes)) => Pong(copy(bytes)),
                Ok(Found::Close { code, reason }) => Close(code, text(reason)),
                Err(violation) => {
                    heard.push(Refused(violation));
                    return heard;
                }
            });
        }
        let kept = cutter.end(pass);
        waiting.truncate(kept.end);
        waiting.drain(..kept.start);
        wanted = cutter.wants(&waiting);
    }
    heard
}

/// Frames, each of an opcode, whether it is its message's last, and what is in it.
type Sent<'a> = &'a [(Opcode, bool, &'a [u8])];

#[track_caller]
fn check(sent: Sent<'_>, expected: &[Heard]) {
    for role in [Role::Server, Role::Client] {
        let frames =
            sent.iter().flat_map(|(opcode, last, payload)| frame(role, *opcode, *last, payload));
        check_bytes(role, &frames.collect::<Vec<_>>(), expected);
    }
}

#[track_caller]
fn check_bytes(role: Role, bytes: &[u8], expected: &[Heard]) {
    assert_eq!(hear(role, bytes, || usize::MAX), expected, "whole");
    assert_eq!(hear(role, bytes, || 1), expected, "a byte at a time");
    let as_wanted = |wanted| {
        assert!(wanted > 0, "it was looked at");
        wanted
    };
    assert_eq!(hear_as_wanted(role, bytes, as_wanted), expected, "as it is wanted");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for most in [3, 10, 200] {
        let part = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % most
        };
        assert_eq!(hear(role, bytes, part), expected, "in parts of up to {most}");
    }
}

use Opcode::{Close as CLOSE, Continuation as MORE, Ping as PING, Pong as PONG, Text as TEXT};
const BINARY: Opcode = Opcode::Binary;

#[test]
fn messages_of_every_length_come_as_they_were_sent() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 70_000] {
        let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let text = "*".repeat(length as usize);
        check(
            &[(BINARY, true, &bytes), (TEXT, true, text.as_bytes()), (BINARY, true, b"next")],
            &[Binary(bytes.clone()), Text(text.clone()), Binary(b"next".to_vec())],
        );
    }
}

#[test]
fn control_frames_come_at_once_also_between_fragments() {
    check(
        &[
            (PING, true, b""),
            (PING, true, &[0xfe; 125]),
            (PONG, true, b"unasked"),
            (TEXT, false, b"frag"),
            (PING, true, b"between"),
            (MORE, false, b""),
            (PONG, true, b""),
            (MORE, true, b"ments"),
            (TEXT, true, b"after"),
        ],
        &[
            Ping(Vec::new()),
            Ping(vec![0xfe; 125]),
            Pong(b"unasked".to_vec()),
            Ping(b"between".to_vec()),
            Pong(Vec::new()),
            Text("fragments".to_owned()),
            Text("after".to_owned()),
        ],
    );
}

#[test]
fn what_was_valid_before_a_violation_comes_and_nothing_after_it() {
    let first = || Text("first".to_owned());
    check(
        &[(TEXT, true, b"first"), (MORE, true, b"of nothing"), (TEXT, true, b"late")],
        &[first(), Refused(Violation::Continuation)],
    );
    check(
        &[(TEXT, true, b"first"), (TEXT, false, b"a"), (BINARY, true, b"b")],
        &[first(), Refused(Violation::Interleaved)],
    );
    for role in [Role::Server, Role::Client] {
        let mut bytes = frame(role, TEXT, true, b"first");
        bytes.push(0xc2);
        bytes.extend_from_slice(b"anything");
        check_bytes(role, &bytes, &[first(), Refused(Violation::ReservedBit)]);
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_by_its_head_also_if_all_of_it_has_come() {
    let refused = |bytes| Refused(Violation::TooLong { bytes, max: 70_000 });
    for role in [Role::Server, Role::Client] {
        let key = (role == Role::Server).then_some([1, 2, 3, 4]);
        let mut out = [0; HEAD_BYTES_MAX];
        let head =
            Head { is_last: true, opcode: BINARY, is_deflated: false, key, payload_bytes: 70_001 };
        let end = head.write(&mut out);
        check_bytes(role, &out[..end], &[refused(70_001)]);
    }
    check(&[(BINARY, true, &[7; 70_001])], &[refused(70_001)]);
    check(&[(BINARY, false, &[7; 40_000]), (MORE, true, &[7; 30_001])], &[refused(70_001)]);
}

#[test]
fn endless_empty_fragments_are_refused_and_control_frames_are_not() {
    let empty: Vec<_> = std::iter::once((TEXT, false, &b""[..]))
        .chain(vec![(MORE, false, &b""[..]); EMPTY_FRAGMENTS_MAX.into()])
        .collect();
    check(&empty[..EMPTY_FRAGMENTS_MAX.into()], &[]);
    check(&empty, &[Refused(Violation::EmptyFragments)]);
    // A peer that only listens answers pings for years.
    let pongs = vec![(PONG, true, &b"!"[..]); 2_000];
    check(&pongs, &vec![Pong(b"!".to_vec()); pongs.len()]);
}

#[test]
fn text_is_utf_8_and_what_cannot_become_it_is_refused_at_its_first_byte() {
    let greek = "κόσμε \u{10ffff} \u{d7ff}\u{e000} 🌍";
    let all = greek.as_bytes();
    for at in 0..=all.len() {
        let (front, back) = all.split_at(at);
        check(&[(TEXT, false, front), (MORE, true, back)], &[Text(greek.to_owned())]);
    }
    let invalid: [&[u8]; 9] = [
        b"\xc0\xaf",         // longer than it needs to be
        b"\xed\xa0\x80",     // half of a pair
        b"\xf4\x90\x80\x80", // beyond the last
        b"\xff",
        b"\x80",
        b"\xe0\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"ok\xce(",
        b"\xf0\x9f\x8c(",
    ];
    for bytes in invalid {
        check(&[(TEXT, true, bytes), (TEXT, true, b"late")], &[Refused(Violation::NotUtf8)]);
        // Before the message ends.
        check(&[(TEXT, false, bytes)], &[Refused(Violation::NotUtf8)]);
        check(&[(BINARY, true, bytes)], &[Binary(bytes.to_vec())]);
    }
    check(&[(TEXT, true, b"cut \xf0\x9f\x8c")], &[Refused(Violation::NotUtf8)]);
    check(&[(TEXT, false, b"not cut \xf0\x9f\x8c")], &[]);
    // Within a frame of which more is to come.
    let frame = frame(Role::Server, TEXT, true, b"\xce\xba\xf4\x90 and more");
    assert_eq!(hear(Role::Server, &frame[..10], || 1), [Refused(Violation::NotUtf8)]);
}

#[test]
fn nothing_comes_after_a_close() {
    check(
        &[(CLOSE, true, b""), (TEXT, true, b"late"), (PING, true, b"")],
        &[Close(NO_CODE, String::new())],
    );
    let goodbye = [&NORMAL.to_be_bytes()[..], "good bye €".as_bytes()].concat();
    check(
        &[(TEXT, false, b"unfinished"), (CLOSE, true, &goodbye), (MORE, true, b"")],
        &[Close(NORMAL, "good bye €".to_owned())],
    );
    check(&[(CLOSE, true, &GOING_AWAY.to_be_bytes())], &[Close(GOING_AWAY, String::new())]);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&[(CLOSE, true, &code.to_be_bytes())], &[Refused(Violation::CloseCode)]);
    }
    check(&[(CLOSE, true, b"\x03")], &[Refused(Violation::CloseCode)]);
    check(&[(CLOSE, true, b"\x03\xe8\xce")], &[Refused(Violation::NotUtf8)]);
}

#[test]
fn what_is_wanted_is_a_head_then_all_of_a_frame_and_no_byte_of_the_next() {
    let sent: Sent<'_> = &[
        (TEXT, false, &[b'x'; 300]),
        (PING, true, &[1; 100]),
        (MORE, true, &[b'y'; 66_000]),
        (BINARY, true, b"z"),
    ];
    let mut frames: Vec<Vec<u8>> = Vec::new();
    frames.extend(
        sent.iter().map(|(opcode, last, payload)| frame(Role::Server, *opcode, *last, payload)),
    );
    let mut looks = Vec::new();
    let heard = hear_as_wanted(Role::Server, &frames.concat(), |wanted| {
        looks.push(wanted);
        wanted
    });
    assert_eq!(heard.len(), 3);
    // Of each the 2 bytes that tell its form, the rest of its head, and its payload; of a control frame all behind the 2.
    assert_eq!(looks, [2, 6, 300, 2, 104, 2, 12, 66_000, 2, 4, 1]);
}

#[test]
fn a_look_is_done_with_its_last_byte_and_not_before() {
    let (first, rest) = (frame(Role::Client, BINARY, true, b"a"), [0x89]);
    for (bytes, is_done) in [(first.clone(), true), ([&first[..], &rest].concat(), false)] {
        let (mut cutter, mut bytes) = (Cutter::new(Role::Client, MESSAGE_BYTES_MAX), bytes);
        let mut pass = cutter.pass(&mut bytes);
        assert!(!pass.is_done());
        assert_eq!(
            cutter.next(&mut pass),
            Ok(Found::Message { is_text: false, is_deflated: false, bytes: 2..3 })
        );
        assert_eq!(pass.is_done(), is_done);
    }
}
