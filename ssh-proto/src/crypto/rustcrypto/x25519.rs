//! `curve25519-sha256` (RFC 8731), and the X25519 step the hybrids share.

use alloc::boxed::Box;

use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{hash, random};
use crate::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret,
};
use crate::entropy::{Entropy, EntropyError};

/// Bytes of a share.
pub(super) const SHARE: usize = 32;

/// An ephemeral X25519 key.
pub(super) struct Ephemeral {
    secret: StaticSecret,
    share: PublicKey,
}

impl Ephemeral {
    pub(super) fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = StaticSecret::from(*random(entropy)?);
        let share = PublicKey::from(&secret);
        Ok(Self { secret, share })
    }

    pub(super) fn share(&self) -> &[u8; SHARE] {
        self.share.as_bytes()
    }

    /// The raw shared secret. A share of low order, which makes it zero whatever our key, is refused
    /// (RFC 8731 §3), as is one of another length.
    pub(super) fn agree(&self, peer_share: &[u8]) -> Result<Zeroizing<[u8; 32]>, KexError> {
        let peer_share: [u8; SHARE] = peer_share.try_into().map_err(|_| KexError::BadShare)?;
        let secret = self.secret.diffie_hellman(&PublicKey::from(peer_share));
        if secret.as_bytes().ct_eq(&[0; 32]).into() {
            return Err(KexError::BadShare);
        }
        Ok(Zeroizing::new(secret.to_bytes()))
    }
}

/// X25519 with SHA-256, under either of its names.
pub(super) struct Curve25519 {
    pub(super) name: &'static str,
}

impl KexAlgorithm for Curve25519 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hash(&self) -> &'static dyn Hash {
        &hash::Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Ephemeral::generate(entropy)?))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let ours = Ephemeral::generate(entropy)?;
        Ok(ServerShare { share: ours.share().to_vec(), secret: mpint(&ours, client_share)? })
    }
}

impl ClientExchange for Ephemeral {
    fn share(&self) -> &[u8] {
        Ephemeral::share(self)
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        mpint(&self, server_share)
    }
}

/// K, for which the secret's bytes are read as a big-endian number (RFC 8731 §3.1).
fn mpint(ours: &Ephemeral, peer_share: &[u8]) -> Result<SharedSecret, KexError> {
    let secret = ours.agree(peer_share)?;
    Ok(SharedSecret::new(Zeroizing::new(secret.to_vec()), SecretEncoding::Mpint))
}

#[cfg(test)]
pub(in crate::crypto) mod tests {
    use hex_literal::hex;

    use super::super::testing::Script;
    use super::*;

    /// Every u-coordinate of low order, in every form that RFC 7748's decoding takes for it: the five numbers,
    /// two of them also unreduced (p and p + 1), and all of these again with the ignored top bit set.
    pub(in crate::crypto) fn low_order() -> impl Iterator<Item = [u8; 32]> {
        [
            hex!("0000000000000000000000000000000000000000000000000000000000000000"),
            hex!("0100000000000000000000000000000000000000000000000000000000000000"),
            hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
            hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ]
        .into_iter()
        .flat_map(|point| {
            let mut with_top_bit = point;
            with_top_bit[31] |= 0x80;
            [point, with_top_bit]
        })
    }

    const CURVE25519: Curve25519 = Curve25519 { name: "curve25519-sha256" };
    const ALICE: [u8; 32] = hex!("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    const BOB: [u8; 32] = hex!("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");

    #[test]
    fn the_exchange_of_rfc_7748_section_6_1() {
        let shared = hex!("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        let alice = CURVE25519.start(&mut Script::starting_with(&ALICE)).unwrap();
        assert_eq!(alice.share(), hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let bob = CURVE25519.respond(alice.share(), &mut Script::starting_with(&BOB)).unwrap();
        assert_eq!(bob.share, hex!("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(bob.secret.as_bytes(), shared);
        let secret = alice.complete(&bob.share).unwrap();
        assert_eq!(secret.as_bytes(), shared);
        assert_eq!(secret.encoding(), SecretEncoding::Mpint);
    }

    #[test]
    fn kx_05_low_order_points_are_refused_in_both_roles() {
        assert_eq!(low_order().count(), 14);
        for point in low_order() {
            let client = CURVE25519.start(&mut Script::new(1)).unwrap();
            assert_eq!(client.complete(&point).err(), Some(KexError::BadShare), "{point:x?}");
            let server = CURVE25519.respond(&point, &mut Script::new(1));
            assert_eq!(server.err(), Some(KexError::BadShare), "{point:x?}");
        }
    }

    #[test]
    fn kx_05_the_published_forms_that_overflow_255_bits_are_other_points() {
        // In the list at cr.yp.to/ecdh.html, for implementations that keep the top bit. Ours drops it, as
        // RFC 7748 §5 has it, which leaves points of large order.
        for point in [
            hex!("cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880"),
            hex!("4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7"),
            hex!("d9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            hex!("daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            hex!("dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
        ] {
            let secret = CURVE25519.respond(&point, &mut Script::new(1)).unwrap().secret;
            assert_ne!(secret.as_bytes(), [0; 32]);
            let mut masked = point;
            masked[31] &= 0x7f;
            let same = CURVE25519.respond(&masked, &mut Script::new(1)).unwrap().secret;
            assert_eq!(secret.as_bytes(), same.as_bytes());
        }
    }

    #[test]
    fn kx_04_shares_of_another_length_are_refused() {
        for len in [0, 1, 31, 33, 64, 65] {
            let client = CURVE25519.start(&mut Script::new(1)).unwrap();
            assert_eq!(client.complete(&[9; 65][..len]).err(), Some(KexError::BadShare));
            let server = CURVE25519.respond(&[9; 65][..len], &mut Script::new(1));
            assert_eq!(server.err(), Some(KexError::BadShare));
        }
    }
}
