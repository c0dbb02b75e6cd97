//! From the shared secret to the keys of both directions, [RFC 4253 §7.2].
//!
//! [RFC 4253 §7.2]: https://www.rfc-editor.org/rfc/rfc4253#section-7.2

use alloc::boxed::Box;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::crypto::{
    CipherAlgorithm, Digest, Hash, MacAlgorithm, OpenPacket, PacketKeys, SealPacket, SecretEncoding,
    SharedSecret,
};
use crate::role::Side;
use crate::wire::PutSsh;

/// The cipher of a direction and, unless it is an AEAD, the MAC.
#[derive(Clone, Copy)]
pub(crate) struct DirectionAlgorithms {
    pub(crate) cipher: &'static dyn CipherAlgorithm,
    pub(crate) mac: Option<&'static dyn MacAlgorithm>,
}

/// The new halves of both directions, as this end sees them.
pub(crate) struct NewKeys {
    pub(crate) sealer: Box<dyn SealPacket>,
    pub(crate) opener: Box<dyn OpenPacket>,
}

/// K as it enters the exchange hash and the derivation.
pub(crate) fn encode_secret(secret: &SharedSecret) -> Zeroizing<Vec<u8>> {
    // Exactly large enough: growing would leave an unwiped copy behind.
    let mut encoded = Zeroizing::new(Vec::with_capacity(secret.as_bytes().len().saturating_add(5)));
    match secret.encoding() {
        SecretEncoding::Mpint => encoded.put_mpint(secret.as_bytes()),
        SecretEncoding::String => encoded.put_string(secret.as_bytes()),
    }
    encoded
}

/// The letters of RFC 4253 §7.2 for IV, key and MAC key of a direction.
const CLIENT_TO_SERVER: [u8; 3] = *b"ACE";
const SERVER_TO_CLIENT: [u8; 3] = *b"BDF";

/// What all derivations of one exchange share.
pub(crate) struct KeySource<'a> {
    pub(crate) hash: &'static dyn Hash,
    pub(crate) secret: &'a [u8],
    pub(crate) exchange_hash: &'a Digest,
    pub(crate) session_id: &'a [u8],
}

impl KeySource<'_> {
    /// `K1 ‖ K2 ‖ …`, cut to `len` bytes.
    fn derive(&self, letter: u8, len: usize) -> Zeroizing<Vec<u8>> {
        let h = self.exchange_hash.as_bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(crate::crypto::MAX_HASH)));
        while out.len() < len {
            let block = Zeroizing::new(match out.is_empty() {
                true => self.hash.digest(&[self.secret, h, &[letter], self.session_id]),
                false => self.hash.digest(&[self.secret, h, &out]),
            });
            if block.as_bytes().is_empty() {
                break;
            }
            out.extend_from_slice(block.as_bytes());
        }
        out.truncate(len);
        out
    }

    fn with_keys<T>(
        &self,
        letters: [u8; 3],
        algorithms: DirectionAlgorithms,
        make: impl FnOnce(&PacketKeys<'_>) -> T,
    ) -> T {
        let [iv, key, mac] = letters;
        let iv = self.derive(iv, algorithms.cipher.iv_len());
        let key = self.derive(key, algorithms.cipher.key_len());
        let mac_key = algorithms.mac.map(|algorithm| (algorithm, self.derive(mac, algorithm.key_len())));
        let mac = mac_key.as_ref().map(|(algorithm, key)| (*algorithm, key.as_slice()));
        make(&PacketKeys { key: &key, iv: &iv, mac })
    }

    /// The halves for `side`.
    pub(crate) fn new_keys(&self, side: Side, c2s: DirectionAlgorithms, s2c: DirectionAlgorithms) -> NewKeys {
        let (to_server, to_client) = ((CLIENT_TO_SERVER, c2s), (SERVER_TO_CLIENT, s2c));
        let (ours, theirs) = match side {
            Side::Client => (to_server, to_client),
            Side::Server => (to_client, to_server),
        };
        NewKeys {
            sealer: self.with_keys(ours.0, ours.1, |keys| ours.1.cipher.sealer(keys)),
            opener: self.with_keys(theirs.0, theirs.1, |keys| theirs.1.cipher.opener(keys)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    struct Sha;

    impl Hash for Sha {
        fn digest(&self, parts: &[&[u8]]) -> Digest {
            Digest::new(&Sha256::digest(parts.concat()))
        }
    }

    #[test]
    fn kx_25_key_material_is_extended_as_rfc_4253_section_7_2_says() {
        let exchange_hash = Digest::new(&[7; 32]);
        let source = KeySource { hash: &Sha, secret: b"K", exchange_hash: &exchange_hash, session_id: b"id" };
        let h = [7u8; 32];
        let k1 = Sha256::digest([b"K", &h[..], b"C", b"id"].concat());
        let k2 = Sha256::digest([b"K", &h[..], &k1].concat());
        assert_eq!(source.derive(b'C', 64)[..], [&k1[..], &k2[..]].concat());
        assert_eq!(source.derive(b'C', 12)[..], k1[..12]);
        assert_eq!(source.derive(b'C', 0)[..], []);
    }

    #[test]
    fn kx_07_hybrid_secrets_are_strings_and_others_mpints() {
        for (first, mpint_len) in [(0x00u8, 31), (0x7f, 32), (0x80, 33)] {
            let bytes = [&[first][..], &[1; 31]].concat();
            let of = |encoding| encode_secret(&SharedSecret::new(Zeroizing::new(bytes.clone()), encoding));
            assert_eq!(of(SecretEncoding::String)[..4], [0, 0, 0, 32]);
            assert_eq!(of(SecretEncoding::String)[4..], bytes);
            assert_eq!(of(SecretEncoding::Mpint)[..4], [0, 0, 0, mpint_len]);
        }
    }
}
