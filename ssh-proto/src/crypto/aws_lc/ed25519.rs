//! `ssh-ed25519` (RFC 8709).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};

use crate::crypto::rustcrypto::ed25519::{self as rustcrypto, NAME, encoded_point, public_key};
use crate::crypto::rustcrypto::signer;
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use zeroize::Zeroizing;

/// The verifier, as strict as that of [`rustcrypto`](crate::crypto::rustcrypto): AWS-LC looks at the scalar S, and
/// takes only one form of R; what it lets pass, keys not reduced and points of small order, is refused here.
pub(super) struct Ed25519;

impl SignatureAlgorithm for Ed25519 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key_type(&self) -> &'static str {
        NAME
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        rustcrypto::Ed25519.check_key(key)
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let key = encoded_point(key).map_err(|_| BadSignature)?;
        let r = signature.first_chunk().ok_or(BadSignature)?;
        if !is_sound(key) || !is_sound(r) {
            return Err(BadSignature);
        }
        let key = ParsedPublicKey::new(&ED25519, key).map_err(|_| BadSignature)?;
        key.verify_sig(message, signature).map_err(|_| BadSignature)
    }
}

/// Whether an encoding is reduced and not that of a point of small order. It need not be on the curve.
pub(super) fn is_sound(point: &[u8; 32]) -> bool {
    // Little-endian; the sign of x in the top bit.
    let mut y = *point;
    if let Some(top) = y.last_mut() {
        *top &= 0x7f;
    }
    let reduced = y.iter().rev().lt(P.iter().rev());
    reduced && !SMALL_ORDER.contains(&y)
}

/// 2^255 - 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// The y of every point of small order, little-endian: 1 and -1, 0, and those of the points of order 8 ("Taming the
/// many EdDSAs", table 6).
const SMALL_ORDER: [[u8; 32]; 5] = {
    let (zero, mut one, mut minus_one) = ([0; 32], [0; 32], P);
    one[0] = 1;
    minus_one[0] = 0xec;
    [
        zero,
        one,
        minus_one,
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
    ]
};

/// Signs with an Ed25519 key held in memory, wiped when dropped.
pub struct Ed25519Signer {
    secret: Ed25519KeyPair,
    public: PublicKey,
}

signer!(Ed25519Signer);

impl Ed25519Signer {
    /// The key of a 32-byte seed ([RFC 8032 §5.1.5]), the first half of what OpenSSH's key files hold.
    ///
    /// # Errors
    /// None in fact: every seed is a key.
    ///
    /// [RFC 8032 §5.1.5]: https://www.rfc-editor.org/rfc/rfc8032#section-5.1.5
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Malformed)?;
        let public = public_key(secret.public_key().as_ref())?;
        Ok(Self { secret, public })
    }

    /// A new key, from 32 bytes of `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut_slice())?;
        Self::from_seed(&seed).map_err(|_| EntropyError)
    }
}

impl Signer for Ed25519Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature = self.secret.try_sign(what.message()).map_err(|_| SignRefused)?;
        Ok(Signature::new(NAME, signature.as_ref()))
    }

    fn needs_check(&self) -> bool {
        // Computed here, over a hash that no peer can have signed twice, as a fault attack needs it: a second look
        // would only cost each handshake.
        false
    }
}
