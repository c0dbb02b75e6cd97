//! The provider over [AWS-LC](https://github.com/aws/aws-lc): C and assembly, formally verified in part, with
//! signatures hardened against local timing.
//!
//! | algorithm | from |
//! |---|---|
//! | aes128-gcm, aes256-gcm, chacha20-poly1305 | AWS-LC |
//! | curve25519-sha256, ecdh-sha2-nistp256, mlkem768x25519-sha256 | AWS-LC; SHA-256 of [`rustcrypto`] |
//! | ssh-ed25519 | AWS-LC; whether a peer's key is one, [`rustcrypto`] |
//! | ecdsa-sha2-nistp256 | AWS-LC; the public key of a scalar, [`rustcrypto`] |
//! | rsa-sha2-256, rsa-sha2-512 | AWS-LC up to 8192 bits; above with feature `rsa`, from [`rustcrypto`] |
//! | aes128-ctr, aes256-ctr, hmac-sha2-256, hmac-sha2-512 | [`rustcrypto`] |
//!
//! CTR of [`rustcrypto`] works in place, and with it SHA-2 is what takes the time. SHA-256 is the processor's in either
//! where it has that. Where it has no SHA-512, AWS-LC's HMAC with it took 10 % less time for 32 KiB, as much for 1 KiB and
//! more for 64 bytes.
//!
//! The ephemeral keys of X25519 and P-256 come from the connection's [`Entropy`], those of ML-KEM, the nonces of
//! ECDSA and what blinds RSA from AWS-LC's own generator, which the operating system seeds; the provider is not
//! [`deterministic`](Provider::deterministic). Should that generator fail, AWS-LC aborts the process. Secrets inside
//! AWS-LC are wiped by it when they are freed.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::rsa_key::RsaSha2;
use super::{CipherAlgorithm, KexError, Provider, rustcrypto};
use crate::entropy::{Entropy, EntropyError};

mod chacha;
mod ecdsa;
mod ed25519;
mod gcm;
mod mlkem;
mod nistp;
mod rsa;
mod x25519;

#[cfg(test)]
mod tests;

pub use ecdsa::EcdsaP256Signer;
pub use ed25519::Ed25519Signer;
pub use rsa::RsaSigner;

/// Everything [`rustcrypto::PROVIDER`] has with feature `rsa`, in the same order of preference, from AWS-LC where it
/// has it.
pub static PROVIDER: Provider = Provider {
    name: "aws-lc-rs",
    deterministic: false,
    kex: &[
        &mlkem::MlKem768X25519,
        &x25519::Curve25519 { name: "curve25519-sha256" },
        &x25519::Curve25519 { name: "curve25519-sha256@libssh.org" },
        &nistp::EcdhP256,
    ],
    ciphers: if rustcrypto::has_fast_aes() { AES_FIRST } else { CHACHA_FIRST },
    macs: rustcrypto::PROVIDER.macs,
    signatures: &[
        &ed25519::Ed25519,
        &ecdsa::EcdsaP256,
        &rsa::Rsa(RsaSha2::Sha512),
        &rsa::Rsa(RsaSha2::Sha256),
    ],
};

type Ciphers = &'static [&'static dyn CipherAlgorithm];

const AES_FIRST: Ciphers = &[
    &gcm::AES128_GCM,
    &gcm::AES256_GCM,
    &chacha::ChaCha20Poly1305,
    &rustcrypto::AES128_CTR,
    &rustcrypto::AES256_CTR,
];

const CHACHA_FIRST: Ciphers = &[
    &chacha::ChaCha20Poly1305,
    &gcm::AES128_GCM,
    &gcm::AES256_GCM,
    &rustcrypto::AES128_CTR,
    &rustcrypto::AES256_CTR,
];

/// A private key of `algorithm`, uniform over all there are: bytes that are none are drawn again.
fn private_key(
    algorithm: &'static agreement::Algorithm,
    entropy: &mut dyn Entropy,
) -> Result<PrivateKey, EntropyError> {
    // One draw in 2^32 is out of range for P-256, none for X25519; this many in a row come from a source that is
    // stuck.
    for _ in 0..8 {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        if let Ok(key) = PrivateKey::from_private_key(algorithm, bytes.as_slice()) {
            return Ok(key);
        }
    }
    Err(EntropyError)
}

/// The share of a private key.
fn share(key: &PrivateKey) -> Result<agreement::PublicKey, EntropyError> {
    key.compute_public_key().map_err(|_| EntropyError)
}

/// The raw shared secret. A share that is no public key, or of low order, is refused.
fn agree(ours: &PrivateKey, peer_share: &[u8]) -> Result<Zeroizing<[u8; 32]>, KexError> {
    let peer_share = UnparsedPublicKey::new(ours.algorithm(), peer_share);
    agreement::agree(ours, peer_share, KexError::BadShare, |secret| {
        secret.try_into().map(Zeroizing::new).map_err(|_| KexError::BadShare)
    })
}
