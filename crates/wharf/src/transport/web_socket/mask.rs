//! Masking (RFC 6455, 5.3): byte n of a payload is combined with byte n mod 4 of the key.

/// Masks or unmasks, in place, bytes of a payload; the first of them meets the first byte of the key.
#[inline]
pub(crate) fn apply(bytes: &mut [u8], key: [u8; 4]) {
    let word = u64::from(u32::from_ne_bytes(key));
    let wide = word << 32 | word;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_meets_its_own_of_the_key_wherever_the_payload_is_divided() {
        let key = [1, 2, 4, 128];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(n, byte)| byte ^ key[n % 4]).collect();
        for at in 0..=plain.len() {
            let (mut bytes, mut further) = (plain.clone(), key);
            let (front, back) = bytes.split_at_mut(at);
            apply(front, key);
            further.rotate_left(at % 4);
            apply(back, further);
            assert_eq!(bytes, masked, "{at}");
        }
    }
}
