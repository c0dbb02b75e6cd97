//! Base64 of what is public: fingerprints and key lines.
//!
//! Key files, whose text is secret, go through a constant-time codec behind the feature `keys`; a build without
//! it needs no codec but this.

use alloc::string::String;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes with padding ([RFC 4648 §4]).
///
/// [RFC 4648 §4]: https://www.rfc-editor.org/rfc/rfc4648#section-4
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = (bits >> shift & 63) as usize;
            let digit = ALPHABET.get(digit).copied().unwrap_or(b'=');
            // A group of n bytes has n + 1 digits.
            text.push(char::from(if i <= group.len() { digit } else { b'=' }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encode;

    // RFC 4648 §10.
    #[test]
    fn rfc_4648_vectors() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in pairs {
            assert_eq!(encode(plain.as_bytes()), text);
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[cfg(feature = "keys")]
    #[test]
    fn agrees_with_the_codec_of_key_files() {
        use base64ct::{Base64, Encoding};
        let bytes: alloc::vec::Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            assert_eq!(encode(&bytes[..len]), Base64::encode_string(&bytes[..len]));
        }
    }
}
