//! `ecdh-sha2-nistp256` (RFC 5656 §4).

use alloc::boxed::Box;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey};
use zeroize::Zeroizing;

use super::{agree, private_key, share};
use crate::crypto::rustcrypto::{Sha256, is_uncompressed_point};
use crate::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret,
};
use crate::entropy::{Entropy, EntropyError};

/// ECDH on P-256 with SHA-256.
pub(super) struct EcdhP256;

impl KexAlgorithm for EcdhP256 {
    fn name(&self) -> &'static str {
        "ecdh-sha2-nistp256"
    }

    fn hash(&self) -> &'static dyn Hash {
        &Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Ephemeral::generate(entropy)?))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let ours = Ephemeral::generate(entropy)?;
        Ok(ServerShare { share: ours.share.as_ref().to_vec(), secret: ours.agree(client_share)? })
    }
}

struct Ephemeral {
    secret: PrivateKey,
    share: agreement::PublicKey,
}

impl Ephemeral {
    fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = private_key(&ECDH_P256, entropy)?;
        let share = share(&secret)?;
        Ok(Self { secret, share })
    }

    fn agree(&self, peer_share: &[u8]) -> Result<SharedSecret, KexError> {
        // AWS-LC would take other forms of a point and encoded keys as well.
        if !is_uncompressed_point(peer_share) {
            return Err(KexError::BadShare);
        }
        let x = agree(&self.secret, peer_share)?;
        Ok(SharedSecret::new(Zeroizing::new(x.to_vec()), SecretEncoding::Mpint))
    }
}

impl ClientExchange for Ephemeral {
    fn share(&self) -> &[u8] {
        self.share.as_ref()
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        self.agree(server_share)
    }
}
