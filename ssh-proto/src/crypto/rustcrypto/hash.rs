//! The hash of every key exchange here: SHA-256.

use sha2::Digest as _;

use crate::crypto::{Digest, Hash};

/// SHA-256.
pub(in crate::crypto) struct Sha256;

impl Hash for Sha256 {
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut state = sha2::Sha256::new();
        for part in parts {
            state.update(part);
        }
        Digest::new(&state.finalize())
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn abc_of_fips_180_4_in_any_parts() {
        let abc = hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for parts in [&[&b"abc"[..]][..], &[b"a", b"", b"bc"], &[b"a", b"b", b"c"]] {
            assert_eq!(Sha256.digest(parts).as_bytes(), abc);
        }
    }
}
