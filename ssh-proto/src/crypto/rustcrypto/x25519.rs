//! `curve25519-sha256` (RFC 8731), and the X25519 step the hybrids share.

use alloc::boxed::Box;

use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{hash, random};
use crate::crypto::{ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret};
use crate::entropy::{Entropy, EntropyError};

/// Bytes of a share.
pub(super) const SHARE: usize = 32;

/// An ephemeral X25519 key.
pub(super) struct Ephemeral {
    secret: StaticSecret,
    share: PublicKey,
}

impl Ephemeral {
    pub(super) fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = StaticSecret::from(*random(entropy)?);
        let share = PublicKey::from(&secret);
        Ok(Self { secret, share })
    }

    pub(super) fn share(&self) -> &[u8; SHARE] {
        self.share.as_bytes()
    }

    /// The raw shared secret. A share of low order, which makes it zero whatever our key, is refused
    /// (RFC 8731 §3), as is one of another length.
    pub(super) fn agree(&self, peer_share: &[u8]) -> Result<Zeroizing<[u8; 32]>, KexError> {
        let peer_share: [u8; SHARE] = peer_share.try_into().map_err(|_| KexError::BadShare)?;
        let secret = self.secret.diffie_hellman(&PublicKey::from(peer_share));
        if secret.as_bytes().ct_eq(&[0; 32]).into() {
            return Err(KexError::BadShare);
        }
        Ok(Zeroizing::new(secret.to_bytes()))
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
        &hash::Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Ephemeral::generate(entropy)?))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let ours = Ephemeral::generate(entropy)?;
        Ok(ServerShare { share: ours.share().to_vec(), secret: mpint(&ours, client_share)? })
    }
}

impl ClientExchange for Ephemeral {
    fn share(&self) -> &[u8] {
        Ephemeral::share(self)
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        mpint(&self, server_share)
    }
}

/// K, for which the secret's bytes are read as a big-endian number (RFC 8731 §3.1).
fn mpint(ours: &Ephemeral, peer_share: &[u8]) -> Result<SharedSecret, KexError> {
    let secret = ours.agree(peer_share)?;
    Ok(SharedSecret::new(Zeroizing::new(secret.to_vec()), SecretEncoding::Mpint))
}
