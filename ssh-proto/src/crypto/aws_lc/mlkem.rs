//! `mlkem768x25519-sha256`, as in [`rustcrypto`](crate::crypto::rustcrypto).

use alloc::boxed::Box;
use alloc::vec::Vec;

use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768};

use super::x25519::Ephemeral;
use crate::crypto::rustcrypto::{self, CIPHERTEXT, ENCAPSULATION_KEY, Sha256};
use crate::crypto::{ClientExchange, Hash, KexAlgorithm, KexError, ServerShare, SharedSecret};
use crate::entropy::Entropy;

/// The hybrid. ML-KEM's keys and messages come from AWS-LC's own generator: it takes no other.
pub(super) struct MlKem768X25519;

impl KexAlgorithm for MlKem768X25519 {
    fn name(&self) -> &'static str {
        "mlkem768x25519-sha256"
    }

    fn hash(&self) -> &'static dyn Hash {
        &Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        let classic = Ephemeral::generate(entropy)?;
        let kem = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| KexError::Entropy)?;
        let public =
            kem.encapsulation_key().and_then(|key| key.key_bytes()).map_err(|_| KexError::Entropy)?;
        let share = [public.as_ref(), classic.share()].concat();
        Ok(Box::new(Client { kem, classic, share }))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let (kem, classic) = rustcrypto::split_hybrid(client_share, ENCAPSULATION_KEY)?;
        // Refuses coefficients that are not reduced, as FIPS 203 §7.2 asks.
        let kem = EncapsulationKey::new(&ML_KEM_768, kem).map_err(|_| KexError::BadShare)?;
        let ours = Ephemeral::generate(entropy)?;
        let classic_secret = ours.agree(classic)?;
        let (ciphertext, kem_secret) = kem.encapsulate().map_err(|_| KexError::BadShare)?;
        let share = [ciphertext.as_ref(), ours.share()].concat();
        Ok(ServerShare { share, secret: rustcrypto::combine_hybrid(kem_secret.as_ref(), &classic_secret) })
    }
}

struct Client {
    kem: DecapsulationKey,
    classic: Ephemeral,
    share: Vec<u8>,
}

impl ClientExchange for Client {
    fn share(&self) -> &[u8] {
        &self.share
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        let (ciphertext, classic) = rustcrypto::split_hybrid(server_share, CIPHERTEXT)?;
        let classic_secret = self.classic.agree(classic)?;
        // A ciphertext that was tampered with gives a secret nobody else has, not an error: the host key's
        // signature then fails.
        let kem_secret = self.kem.decapsulate(ciphertext.into()).map_err(|_| KexError::BadShare)?;
        Ok(rustcrypto::combine_hybrid(kem_secret.as_ref(), &classic_secret))
    }
}
