//! From a private key file's contents to somebody who signs.

use super::private::{PrivateKey, PrivateParts, RsaParts};
use crate::crypto::{EcdsaP256Signer, Ed25519Signer};
use crate::key::{KeyError, KeyPair};

impl PrivateKey {
    /// The key with a signer in memory.
    ///
    /// # Errors
    /// [`KeyError::UnknownType`] for RSA with neither feature `aws-lc-rs` nor `rsa`; otherwise what the signer says of the numbers.
    pub fn into_key_pair(self) -> Result<KeyPair, KeyError> {
        match self.parts {
            PrivateParts::Ed25519 { seed } => Ok(Ed25519Signer::from_seed(seed.expose())?.key_pair()),
            PrivateParts::EcdsaP256 { scalar } => {
                Ok(EcdsaP256Signer::from_scalar(scalar.expose())?.key_pair())
            }
            PrivateParts::Rsa(parts) => rsa(&parts),
        }
    }
}

/// What makes a signer of n, e, d, p and q.
type FromComponents = fn(&[u8], &[u8], &[u8], &[u8], &[u8]) -> Result<KeyPair, KeyError>;

/// Of the providers that are built in, the preferred one first. They differ in the sizes they take.
const RSA: &[FromComponents] = &[
    #[cfg(feature = "aws-lc-rs")]
    |n, e, d, p, q| Ok(crate::crypto::aws_lc::RsaSigner::from_components(n, e, d, p, q)?.key_pair()),
    #[cfg(feature = "rsa")]
    |n, e, d, p, q| Ok(crate::crypto::rustcrypto::RsaSigner::from_components(n, e, d, p, q)?.key_pair()),
];

fn rsa(parts: &RsaParts) -> Result<KeyPair, KeyError> {
    let (d, p, q) = (parts.d.expose(), parts.p.expose(), parts.q.expose());
    let mut made = Err(KeyError::UnknownType);
    for from_components in RSA {
        // Only for its size: who calls a key inconsistent is believed.
        if matches!(made, Err(KeyError::UnknownType | KeyError::WeakOrHuge)) {
            made = from_components(&parts.n, &parts.e, d, p, q);
        }
    }
    made
}
