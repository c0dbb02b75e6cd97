//! `ecdh-sha2-nistp256` (RFC 5656 §4), and what ECDSA needs of the curve as well.

use alloc::boxed::Box;
use alloc::vec::Vec;

use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{hash, random};
use crate::crypto::{ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret};
use crate::entropy::{Entropy, EntropyError};

/// Bytes of an uncompressed point: a format byte and two coordinates.
const POINT: usize = 1 + 2 * 32;
/// The format byte of uncompressed points (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A point of the curve in the only form SSH uses, the uncompressed one.
pub(super) fn point(bytes: &[u8]) -> Option<PublicKey> {
    if bytes.len() != POINT || bytes.first() != Some(&UNCOMPRESSED) {
        return None;
    }
    PublicKey::from_sec1_bytes(bytes).ok()
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
