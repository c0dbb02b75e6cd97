//! `ssh-ed25519` (RFC 8709).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};

use crate::crypto::rustcrypto::ed25519::{self as rustcrypto, NAME, encoded_point, is_sound, public_key};
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

    fn is_quick(&self) -> bool {
        true
    }
}
