//! Base64 (RFC 4648, 4), as far as keys need it.

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 16 bytes in base64: 22 characters, of which the last has 4 bits of nothing, and `==`.
pub(super) fn is_16_bytes(text: &[u8]) -> bool {
    let [characters @ .., b'=', b'='] = text else { return false };
    characters.len() == 22
        && characters.iter().all(|one| CHARACTERS.contains(one))
        && b"AQgw".contains(&characters[21])
}

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= three.len() { char::from(CHARACTERS[six]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remainder_has_its_base64() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_made_of_16_bytes_is_known_as_that_and_nothing_else() {
        for byte in 0..=255 {
            assert!(is_16_bytes(encode(&[byte; 16]).as_bytes()));
        }
        for other in ["", "==", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZR=="] {
            assert!(!is_16_bytes(other.as_bytes()), "{other}");
        }
        assert!(!is_16_bytes(encode(&[0; 15]).as_bytes()));
        assert!(!is_16_bytes(encode(&[0; 17]).as_bytes()));
    }
}
