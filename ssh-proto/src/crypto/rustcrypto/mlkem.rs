//! `mlkem768x25519-sha256` (draft-ietf-sshm-mlkem-hybrid-kex): ML-KEM-768 of FIPS 203 and X25519 side by
//! side, so that the secret holds as long as either does.
//!
//! The client's share is an encapsulation key and an X25519 share, the server's a ciphertext and an
//! X25519 share. K is a `string`, the SHA-256 of both raw secrets, not an `mpint`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport};
use zeroize::{Zeroize, Zeroizing};

use super::x25519::{self, Ephemeral};
use super::{hash, random};
use crate::crypto::{ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret};
use crate::entropy::Entropy;

/// Bytes of an encapsulation key (FIPS 203 §8, table 3).
const ENCAPSULATION_KEY: usize = 1184;
/// Bytes of a ciphertext.
const CIPHERTEXT: usize = 1088;

/// The hybrid.
pub(super) struct MlKem768X25519;

impl KexAlgorithm for MlKem768X25519 {
    fn name(&self) -> &'static str {
        "mlkem768x25519-sha256"
    }

    fn hash(&self) -> &'static dyn Hash {
        &hash::Sha256
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        let kem = DecapsulationKey::from_seed((*random::<64>(entropy)?).into());
        let classic = Ephemeral::generate(entropy)?;
        let mut share = kem.encapsulation_key().to_bytes().to_vec();
        share.extend_from_slice(classic.share());
        Ok(Box::new(Client { kem, classic, share }))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        let (kem, classic) = split(client_share, ENCAPSULATION_KEY)?;
        let kem = kem.try_into().map_err(|_| KexError::BadShare)?;
        // Refuses coefficients that are not reduced, as FIPS 203 §7.2 asks.
        let kem = EncapsulationKey::new(kem).map_err(|_| KexError::BadShare)?;
        let ours = Ephemeral::generate(entropy)?;
        let classic_secret = ours.agree(classic)?;
        let (ciphertext, kem_secret) = kem.encapsulate_deterministic(&(*random::<32>(entropy)?).into());
        let mut share = Vec::with_capacity(CIPHERTEXT + x25519::SHARE);
        share.extend_from_slice(&ciphertext);
        share.extend_from_slice(ours.share());
        Ok(ServerShare { share, secret: combine(kem_secret, &classic_secret) })
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
        let (ciphertext, classic) = split(server_share, CIPHERTEXT)?;
        let ciphertext: &Ciphertext = ciphertext.try_into().map_err(|_| KexError::BadShare)?;
        let classic_secret = self.classic.agree(classic)?;
        // A ciphertext that was tampered with gives a secret nobody else has, not an error: the host key's
        // signature then fails.
        Ok(combine(self.kem.decapsulate(ciphertext), &classic_secret))
    }
}

/// A share's two parts. The length is exact.
fn split(share: &[u8], kem: usize) -> Result<(&[u8], &[u8]), KexError> {
    match share.split_at_checked(kem) {
        Some((kem, classic)) if classic.len() == x25519::SHARE => Ok((kem, classic)),
        _ => Err(KexError::BadShare),
    }
}

/// K, and the end of the KEM's secret.
fn combine(mut kem_secret: ml_kem::SharedKey, classic_secret: &[u8; 32]) -> SharedSecret {
    let mut digest = hash::Sha256.digest(&[&kem_secret, classic_secret]);
    let secret = Zeroizing::new(digest.as_bytes().to_vec());
    digest.zeroize();
    kem_secret.as_mut_slice().zeroize();
    SharedSecret::new(secret, SecretEncoding::String)
}
