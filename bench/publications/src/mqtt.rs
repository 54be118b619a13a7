//! As much of MQTT 3.1.1 as it takes to subscribe, and to publish with QoS 0.

use crate::Failure;

/// The one topic.
const TOPIC: u8 = b'f';
/// What precedes the payload of a PUBLISH behind the fixed header: the topic with its length.
const TOPIC_BYTES: usize = 3;

pub(crate) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
pub(crate) const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];

/// A clean session without keep-alive.
pub(crate) fn connect(number: u32) -> Vec<u8> {
    let client = format!("member{number}");
    let mut bytes = vec![0x10, (12 + client.len()) as u8];
    bytes.extend(b"\0\x04MQTT\x04\x02\0\0");
    bytes.extend([0, client.len() as u8]);
    bytes.extend(client.as_bytes());
    bytes
}

pub(crate) const SUBSCRIBE: [u8; 8] = [0x82, 6, 0, 1, 0, 1, TOPIC, 0];

/// Appends a PUBLISH and returns where its payload of so many bytes lies.
pub(crate) fn append_publish(bytes: usize, to: &mut Vec<u8>) -> std::ops::Range<usize> {
    to.push(0x30);
    let mut remaining = TOPIC_BYTES + bytes;
    while remaining > 127 {
        to.push((remaining & 127) as u8 | 128);
        remaining >>= 7;
    }
    to.push(remaining as u8);
    to.extend([0, 1, TOPIC]);
    let payload = to.len()..to.len() + bytes;
    to.resize(payload.end, 0);
    payload
}

/// The payload's place in the packet at the beginning of these bytes, and with it the packet's end. `None`: the
/// packet is not whole.
pub(crate) fn payload(bytes: &[u8]) -> Result<Option<std::ops::Range<usize>>, Failure> {
    let [first, lengths @ ..] = bytes else { return Ok(None) };
    if *first != 0x30 {
        return Err(format!("a packet that begins with {first:#x}").into());
    }
    let mut remaining = 0;
    for (at, byte) in lengths.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 127) << (7 * at);
        if byte & 128 == 0 {
            let (begin, end) = (2 + at + TOPIC_BYTES, 2 + at + remaining);
            return Ok((end <= bytes.len()).then_some(begin..end));
        }
    }
    if lengths.len() >= 4 { Err("a length of more than four bytes".into()) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_found_again_once_it_is_whole() {
        for bytes in [1, 64, 124, 125, 1024, 20_000] {
            let mut stream = Vec::new();
            let place = append_publish(bytes, &mut stream);
            assert_eq!(place.len(), bytes);
            assert_eq!(payload(&stream).unwrap(), Some(place));
            for cut in 0..stream.len() {
                assert_eq!(payload(&stream[..cut]).unwrap(), None);
            }
        }
        assert!(payload(&[0x40, 0]).is_err());
    }
}
