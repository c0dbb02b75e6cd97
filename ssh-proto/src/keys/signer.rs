//! From a private key file's contents to somebody who signs.

use super::private::{PrivateKey, PrivateParts};
use crate::crypto::rustcrypto::{EcdsaP256Signer, Ed25519Signer};
use crate::key::{KeyError, KeyPair};

impl PrivateKey {
    /// The key with a signer in memory.
    ///
    /// # Errors
    /// [`KeyError::UnknownType`] for RSA without feature `rsa`; otherwise what the signer says of the numbers.
    pub fn into_key_pair(self) -> Result<KeyPair, KeyError> {
        match self.parts {
            PrivateParts::Ed25519 { seed } => Ok(Ed25519Signer::from_seed(seed.expose())?.key_pair()),
            PrivateParts::EcdsaP256 { scalar } => {
                Ok(EcdsaP256Signer::from_scalar(scalar.expose())?.key_pair())
            }
            #[cfg(feature = "rsa")]
            PrivateParts::Rsa(parts) => {
                let (d, p, q) = (parts.d.expose(), parts.p.expose(), parts.q.expose());
                let signer =
                    crate::crypto::rustcrypto::RsaSigner::from_components(&parts.n, &parts.e, d, p, q)?;
                Ok(signer.key_pair())
            }
            #[cfg(not(feature = "rsa"))]
            PrivateParts::Rsa(_) => Err(KeyError::UnknownType),
        }
    }
}
