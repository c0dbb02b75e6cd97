//! `ssh-ed25519` (RFC 8709).

use alloc::vec::Vec;

use ed25519_dalek::{Signature as RawSignature, Signer as _, SigningKey, VerifyingKey};

use super::{random, signer};
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::{PutSsh, decode};

const NAME: &str = "ssh-ed25519";

/// The verifier. It is strict: the scalar S must be reduced, keys and R in their only canonical form and not of
/// small order, so that no signature has a second form and no key verifies more than its own.
pub(super) struct Ed25519;

impl SignatureAlgorithm for Ed25519 {
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
        let signature = RawSignature::from_slice(signature).map_err(|_| BadSignature)?;
        key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

fn verifying_key(blob: &[u8]) -> Result<VerifyingKey, KeyError> {
    let (name, key) = decode::all(blob, |input| {
        let (input, name) = decode::string(input)?;
        let (input, key) = decode::string(input)?;
        Ok((input, (name, key)))
    })
    .map_err(|_| KeyError::Malformed)?;
    let bytes = key.try_into().map_err(|_| KeyError::Malformed)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Malformed)?;
    let canonical = key.to_edwards().compress().as_bytes() == bytes;
    if name != NAME.as_bytes() || !canonical || key.is_weak() {
        return Err(KeyError::Malformed);
    }
    Ok(key)
}

/// Signs with an Ed25519 key held in memory, wiped when dropped.
pub struct Ed25519Signer {
    secret: SigningKey,
    public: PublicKey,
}

signer!(Ed25519Signer);

impl Ed25519Signer {
    /// The key of a 32-byte seed ([RFC 8032 §5.1.5]), which is the first half of what OpenSSH's key files hold.
    ///
    /// # Errors
    /// None in fact: every seed is a key.
    ///
    /// [RFC 8032 §5.1.5]: https://www.rfc-editor.org/rfc/rfc8032#section-5.1.5
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_bytes(seed);
        let mut blob = Vec::new();
        blob.put_string(NAME.as_bytes());
        blob.put_string(secret.verifying_key().as_bytes());
        Ok(Self { secret, public: PublicKey::from_blob(&blob)? })
    }

    /// A new key, from 32 bytes of `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        Self::from_seed(&*random(entropy)?).map_err(|_| EntropyError)
    }
}

impl Signer for Ed25519Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature = self.secret.try_sign(what.message()).map_err(|_| SignRefused)?;
        Ok(Signature::new(NAME, signature.to_bytes()))
    }
}
