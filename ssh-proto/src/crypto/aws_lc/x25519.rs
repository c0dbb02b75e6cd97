//! `curve25519-sha256` (RFC 8731), and the X25519 step the hybrids share.

use alloc::boxed::Box;

use aws_lc_rs::agreement::{self, PrivateKey, X25519};
use zeroize::Zeroizing;

use super::{agree, private_key, share};
use crate::crypto::rustcrypto::Sha256;
use crate::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret,
};
use crate::entropy::{Entropy, EntropyError};

/// Bytes of a share.
const SHARE: usize = 32;

/// An ephemeral X25519 key.
pub(super) struct Ephemeral {
    secret: PrivateKey,
    share: agreement::PublicKey,
}

impl Ephemeral {
    pub(super) fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = private_key(&X25519, entropy)?;
        let share = share(&secret)?;
        Ok(Self { secret, share })
    }

    pub(super) fn share(&self) -> &[u8] {
        self.share.as_ref()
    }

    /// The raw shared secret. AWS-LC refuses shares of low order, which make it zero whatever our key (RFC 8731 §3).
    pub(super) fn agree(&self, peer_share: &[u8]) -> Result<Zeroizing<[u8; 32]>, KexError> {
        // AWS-LC would take an encoded key as well.
        if peer_share.len() != SHARE {
            return Err(KexError::BadShare);
        }
        agree(&self.secret, peer_share)
    }

    /// K, for which the secret's bytes are read as a big-endian number (RFC 8731 §3.1).
    fn mpint(&self, peer_share: &[u8]) -> Result<SharedSecret, KexError> {
        let secret = self.agree(peer_share)?;
        Ok(SharedSecret::new(Zeroizing::new(secret.to_vec()), SecretEncoding::Mpint))
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
        &Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Ephemeral::generate(entropy)?))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let ours = Ephemeral::generate(entropy)?;
        Ok(ServerShare { share: ours.share().to_vec(), secret: ours.mpint(client_share)? })
    }
}

impl ClientExchange for Ephemeral {
    fn share(&self) -> &[u8] {
        Ephemeral::share(self)
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        self.mpint(server_share)
    }
}
