//! `ecdh-sha2-nistp256` (RFC 5656 §4), and what ECDSA needs of the curve as well.

use alloc::boxed::Box;
use alloc::vec::Vec;

use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{hash, random};
use crate::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret,
};
use crate::entropy::{Entropy, EntropyError};

/// Bytes of an uncompressed point: a format byte and two coordinates.
const POINT: usize = 1 + 2 * 32;
/// The format byte of uncompressed points (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A point of the curve in the only form SSH uses, the uncompressed one.
pub(super) fn point(bytes: &[u8]) -> Option<PublicKey> {
    if !is_uncompressed_point(bytes) {
        return None;
    }
    PublicKey::from_sec1_bytes(bytes).ok()
}

/// Whether bytes have the length and the first byte of an uncompressed point. They need not be one of the curve.
pub(in crate::crypto) fn is_uncompressed_point(bytes: &[u8]) -> bool {
    bytes.len() == POINT && bytes.first() == Some(&UNCOMPRESSED)
}

/// The uncompressed form of a point.
pub(super) fn point_bytes(point: &PublicKey) -> Vec<u8> {
    point.to_sec1_point(false).as_bytes().to_vec()
}

/// A private key, uniform over all there are: bytes that are no scalar are drawn again.
pub(super) fn private_key(entropy: &mut dyn Entropy) -> Result<SecretKey, EntropyError> {
    // One draw in 2^32 is out of range; this many in a row come from a source that is stuck.
    for _ in 0..8 {
        if let Ok(key) = SecretKey::from_slice(random::<32>(entropy)?.as_slice()) {
            return Ok(key);
        }
    }
    Err(EntropyError)
}

/// ECDH on P-256 with SHA-256.
pub(super) struct EcdhP256;

impl KexAlgorithm for EcdhP256 {
    fn name(&self) -> &'static str {
        "ecdh-sha2-nistp256"
    }

    fn hash(&self) -> &'static dyn Hash {
        &hash::Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Ephemeral::generate(entropy)?))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let ours = Ephemeral::generate(entropy)?;
        let secret = ours.agree(client_share)?;
        Ok(ServerShare { share: ours.share, secret })
    }
}

struct Ephemeral {
    secret: SecretKey,
    share: Vec<u8>,
}

impl Ephemeral {
    fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = private_key(entropy)?;
        let share = point_bytes(&secret.public_key());
        Ok(Self { secret, share })
    }

    fn agree(&self, peer_share: &[u8]) -> Result<SharedSecret, KexError> {
        let peer = point(peer_share).ok_or(KexError::BadShare)?;
        let secret = p256::ecdh::diffie_hellman(self.secret.to_nonzero_scalar(), peer.as_affine());
        let x = Zeroizing::new(secret.raw_secret_bytes().to_vec());
        Ok(SharedSecret::new(x, SecretEncoding::Mpint))
    }
}

impl ClientExchange for Ephemeral {
    fn share(&self) -> &[u8] {
        &self.share
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        self.agree(server_share)
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::super::testing::Script;
    use super::*;

    // RFC 5903 §8.1.
    const I: [u8; 32] = hex!("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433");
    const R: [u8; 32] = hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53");
    const G_I: [u8; 65] = hex!(
        "04dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    );
    const G_R: [u8; 65] = hex!(
        "04d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
    );
    const G_IR: [u8; 32] = hex!("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de");
    // The field's prime and the curve's order.
    const P: [u8; 32] = hex!("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    const N: [u8; 32] = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");

    #[test]
    fn the_exchange_of_rfc_5903_section_8_1() {
        let client = EcdhP256.start(&mut Script::starting_with(&I)).unwrap();
        assert_eq!(client.share(), G_I);
        let server = EcdhP256.respond(client.share(), &mut Script::starting_with(&R)).unwrap();
        assert_eq!(server.share, G_R);
        assert_eq!(server.secret.as_bytes(), G_IR);
        let secret = client.complete(&server.share).unwrap();
        assert_eq!(secret.as_bytes(), G_IR);
        assert_eq!(secret.encoding(), SecretEncoding::Mpint);
    }

    #[test]
    fn bytes_that_are_no_scalar_are_drawn_again() {
        let draws = [[0; 32], N, [0xff; 32], I].concat();
        assert_eq!(private_key(&mut Script::starting_with(&draws)).unwrap().to_bytes()[..], I);
    }

    #[test]
    fn kx_04_bad_points_are_refused_in_both_roles() {
        let refused = |share: &[u8]| {
            let client = EcdhP256.start(&mut Script::new(1)).unwrap();
            assert_eq!(client.complete(share).err(), Some(KexError::BadShare), "{share:x?}");
            let server = EcdhP256.respond(share, &mut Script::new(1));
            assert_eq!(server.err(), Some(KexError::BadShare), "{share:x?}");
        };
        // Lengths, infinity, the compressed, hybrid and unknown forms.
        refused(&[]);
        refused(&[0]);
        refused(&[0; 65]);
        refused(&G_I[..64]);
        refused(&[&G_I[..], &[0]].concat());
        for form in [0, 1, 2, 3, 5, 6, 7, 0x84, 0xff] {
            let mut share = G_I;
            share[0] = form;
            refused(&share);
            refused(&share[..33]);
        }
        refused(&G_I[..33]);
        // Off the curve; coordinates not below p, in which a reduced point hides.
        let mut share = G_I;
        share[64] ^= 1;
        refused(&share);
        refused(&[&[4], &[0; 64][..]].concat());
        refused(&[&[4], &P[..], &G_I[33..]].concat());
        refused(&[&[4], &G_I[1..33], &P[..]].concat());
        refused(&[&[4], &[0xff; 64][..]].concat());
        // x = p, which stands for the x = 0 of a point of the curve.
        let sqrt_b = hex!("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4");
        assert!(point(&[&[4], &[0; 32][..], &sqrt_b].concat()).is_some());
        refused(&[&[4], &P[..], &sqrt_b].concat());
    }

    proptest! {
        #[test]
        fn kx_04_random_bytes_are_no_points(share in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(point(&share).is_none());
        }
    }
}
