//! `ecdsa-sha2-nistp256` (RFC 5656 §3).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
};
use zeroize::Zeroizing;

use crate::crypto::rustcrypto::ecdsa::{self as rustcrypto, NAME, encoded_point, halves, public_key};
use crate::crypto::rustcrypto::signer;
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};

/// The verifier. Both halves of a signature lie between 1 and the order; a high S is accepted, as everywhere
/// in SSH.
pub(super) struct EcdsaP256;

impl SignatureAlgorithm for EcdsaP256 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key_type(&self) -> &'static str {
        NAME
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        verifying_key(key).map(|_| ())
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let key = verifying_key(key).map_err(|_| BadSignature)?;
        let (r, s) = halves(signature)?;
        key.verify_sig(message, [r, s].as_flattened()).map_err(|_| BadSignature)
    }
}

fn verifying_key(blob: &[u8]) -> Result<ParsedPublicKey, KeyError> {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, encoded_point(blob)?).map_err(|_| KeyError::Malformed)
}

/// Signs with a P-256 key held in memory, wiped when dropped. Nonces come from AWS-LC's own generator.
pub struct EcdsaP256Signer {
    secret: EcdsaKeyPair,
    public: PublicKey,
}

signer!(EcdsaP256Signer);

impl EcdsaP256Signer {
    /// The key of a private scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for zero and for numbers not below the curve's order.
    pub fn from_scalar(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        // AWS-LC takes a scalar only together with its point.
        let point = rustcrypto::EcdsaP256Signer::from_scalar(scalar)?.public_key();
        let point = encoded_point(point.as_blob())?;
        let secret =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, scalar, point)
                .map_err(|_| KeyError::Malformed)?;
        let public = public_key(secret.public_key().as_ref())?;
        Ok(Self { secret, public })
    }

    /// A new key, from `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed or is stuck.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        // One draw in 2^32 is out of range.
        for _ in 0..8 {
            let mut scalar = Zeroizing::new([0; 32]);
            entropy.fill(scalar.as_mut_slice())?;
            if let Ok(signer) = Self::from_scalar(&scalar) {
                return Ok(signer);
            }
        }
        Err(EntropyError)
    }
}

impl Signer for EcdsaP256Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature = self.secret.sign(&SystemRandom::new(), what.message()).map_err(|_| SignRefused)?;
        let (r, s) = signature.as_ref().split_at_checked(32).ok_or(SignRefused)?;
        Ok(rustcrypto::signature(r, s))
    }

    fn needs_check(&self) -> bool {
        // Computed here, over a hash that no peer can have signed twice, as a fault attack needs it: a second look
        // would only cost each handshake.
        false
    }

    fn is_quick(&self) -> bool {
        true
    }
}
