//! The pure-Rust provider: `no_std`, no randomness of its own, and secrets wiped when dropped.
//!
//! The arithmetic is that of the RustCrypto and dalek crates. What is here is SSH's use of them: the
//! framing of packets, the encoding of shares, keys and signatures, and the checks on everything a peer
//! sends. AES and SHA-2 use the CPU's instructions where the crates below find them.

use zeroize::Zeroizing;

#[cfg(feature = "rsa")]
use super::rsa_key::RsaSha2;
use super::{CipherAlgorithm, Provider};
use crate::entropy::{Entropy, EntropyError};

mod chacha;
mod ctr;
pub(in crate::crypto) mod ecdsa;
pub(in crate::crypto) mod ed25519;
mod gcm;
mod hash;
mod mac;
mod mlkem;
mod nistp;
#[cfg(feature = "rsa")]
mod rsa;
pub(in crate::crypto) mod x25519;

#[cfg(test)]
mod packet_tests;
#[cfg(test)]
pub(in crate::crypto) mod testing;
#[cfg(test)]
pub(in crate::crypto) mod vectors;

pub use ecdsa::EcdsaP256Signer;
pub use ed25519::Ed25519Signer;
#[cfg(feature = "rsa")]
pub use rsa::{RsaGenerateError, RsaSigner};

/// Everything this module implements, in its order of preference.
///
/// Key exchange: the hybrid with ML-KEM-768 first, then X25519, then P-256. Ciphers: AES-GCM, then
/// ChaCha20-Poly1305, then AES-CTR with one of the MACs, encrypt-then-MAC first. For a CPU without AES
/// instructions (see [`has_fast_aes`]) ChaCha20-Poly1305 comes first.
pub static PROVIDER: Provider = Provider {
    name: "rustcrypto",
    deterministic: true,
    kex: &[
        &mlkem::MlKem768X25519,
        &x25519::Curve25519 { name: "curve25519-sha256" },
        &x25519::Curve25519 { name: "curve25519-sha256@libssh.org" },
        &nistp::EcdhP256,
    ],
    ciphers: if has_fast_aes() { AES_FIRST } else { CHACHA_FIRST },
    macs: &[&mac::SHA256_ETM, &mac::SHA512_ETM, &mac::SHA256, &mac::SHA512],
    signatures: &[
        &ed25519::Ed25519,
        &ecdsa::EcdsaP256,
        #[cfg(feature = "rsa")]
        &RsaSha2::Sha512,
        #[cfg(feature = "rsa")]
        &RsaSha2::Sha256,
    ],
};

type Ciphers = &'static [&'static dyn CipherAlgorithm];

const AES_FIRST: Ciphers =
    &[&gcm::AES128_GCM, &gcm::AES256_GCM, &chacha::ChaCha20Poly1305, &ctr::AES128_CTR, &ctr::AES256_CTR];

const CHACHA_FIRST: Ciphers =
    &[&chacha::ChaCha20Poly1305, &gcm::AES128_GCM, &gcm::AES256_GCM, &ctr::AES128_CTR, &ctr::AES256_CTR];

/// Whether AES is likely to be fast here: true for x86, x86-64 and AArch64, whose CPUs nearly all have
/// AES instructions, and for any target built with them.
///
/// A guess from the target, made without asking the CPU. Where it is false, AES runs in constant time in
/// software, several times slower than ChaCha20.
pub const fn has_fast_aes() -> bool {
    cfg!(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64", target_feature = "aes"))
}

/// `N` secret random bytes.
fn random<const N: usize>(entropy: &mut dyn Entropy) -> Result<Zeroizing<[u8; N]>, EntropyError> {
    let mut bytes = Zeroizing::new([0; N]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

// What the provider over AWS-LC takes from here.
#[cfg(feature = "aws-lc-rs")]
pub(in crate::crypto) use {
    ctr::{AES128_CTR, AES256_CTR},
    hash::Sha256,
    mlkem::{CIPHERTEXT, ENCAPSULATION_KEY, combine_hybrid, split_hybrid},
    nistp::is_uncompressed_point,
};

/// What all signers in memory share. Each has the fields `secret` and `public`.
macro_rules! signer {
    ($signer:ident) => {
        impl $signer {
            /// The public half.
            pub fn public_key(&self) -> $crate::key::PublicKey {
                self.public.clone()
            }

            /// The pair of the public half and this signer, as configurations take it.
            pub fn key_pair(self) -> $crate::key::KeyPair {
                $crate::key::KeyPair::new(self.public_key(), alloc::sync::Arc::new(self))
            }
        }

        impl core::fmt::Debug for $signer {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($signer)).field("public", &self.public).finish_non_exhaustive()
            }
        }
    };
}
pub(in crate::crypto) use signer;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::testing::{FailsAt, Script};
    use super::*;
    use crate::crypto::KexError;

    #[test]
    fn names_and_their_order() {
        let kex: Vec<_> = PROVIDER.kex.iter().map(|kex| kex.name()).collect();
        assert_eq!(
            kex,
            [
                "mlkem768x25519-sha256",
                "curve25519-sha256",
                "curve25519-sha256@libssh.org",
                "ecdh-sha2-nistp256"
            ]
        );
        let ciphers: Vec<_> = PROVIDER.ciphers.iter().map(|cipher| cipher.name()).collect();
        assert_eq!(
            ciphers,
            [
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "chacha20-poly1305@openssh.com",
                "aes128-ctr",
                "aes256-ctr"
            ]
        );
        let macs: Vec<_> = PROVIDER.macs.iter().map(|mac| mac.name()).collect();
        assert_eq!(
            macs,
            [
                "hmac-sha2-256-etm@openssh.com",
                "hmac-sha2-512-etm@openssh.com",
                "hmac-sha2-256",
                "hmac-sha2-512"
            ]
        );
        let signatures: Vec<_> =
            PROVIDER.signatures.iter().map(|algorithm| (algorithm.name(), algorithm.key_type())).collect();
        let expected: &[_] = &[
            ("ssh-ed25519", "ssh-ed25519"),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
            #[cfg(feature = "rsa")]
            ("rsa-sha2-512", "ssh-rsa"),
            #[cfg(feature = "rsa")]
            ("rsa-sha2-256", "ssh-rsa"),
        ];
        assert_eq!(signatures, expected);
    }

    #[test]
    fn both_sides_of_every_exchange_agree_and_the_same_entropy_repeats_it() {
        for kex in PROVIDER.kex {
            let run = |seed| {
                let mut entropy = Script::new(seed);
                let client = kex.start(&mut entropy).unwrap();
                let share = client.share().to_vec();
                let server = kex.respond(&share, &mut entropy).unwrap();
                let secret = client.complete(&server.share).unwrap();
                assert_eq!(secret.as_bytes(), server.secret.as_bytes(), "{}", kex.name());
                assert_eq!(secret.encoding(), server.secret.encoding());
                assert_eq!(secret.as_bytes().len(), 32);
                (share, server.share, secret.as_bytes().to_vec())
            };
            assert_eq!(run(7), run(7));
            assert_ne!(run(7).2, run(8).2);
        }
    }

    #[test]
    fn c3_a_failing_random_source_fails_every_exchange() {
        for kex in PROVIDER.kex {
            assert_eq!(kex.start(&mut FailsAt(0)).err(), Some(KexError::Entropy), "{}", kex.name());
            let client = kex.start(&mut Script::new(1)).unwrap();
            let mut calls = 0;
            loop {
                match kex.respond(client.share(), &mut FailsAt(calls)) {
                    Ok(_) => break,
                    Err(error) => assert_eq!(error, KexError::Entropy),
                }
                calls += 1;
            }
            assert!(calls > 0);
        }
    }

    #[test]
    fn c2_the_types_that_hold_secrets_wipe_them() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<x25519_dalek::StaticSecret>();
        wiped::<ml_kem::ml_kem_768::DecapsulationKey>();
        wiped::<p256::SecretKey>();
        wiped::<p256::ecdsa::SigningKey>();
        wiped::<ed25519_dalek::SigningKey>();
        wiped::<aes_gcm::Aes128Gcm>();
        wiped::<aes_gcm::Aes256Gcm>();
        wiped::<::ctr::Ctr128BE<aes::Aes128>>();
        wiped::<::ctr::Ctr128BE<aes::Aes256>>();
        wiped::<chacha20::ChaCha20Legacy>();
        // HMAC holds nothing but two states of its hash.
        wiped::<sha2::Sha256>();
        wiped::<sha2::Sha512>();
        #[cfg(feature = "rsa")]
        wiped::<::rsa::RsaPrivateKey>();
        #[cfg(feature = "rsa")]
        wiped::<chacha20::ChaCha20Rng>();
    }

    #[test]
    fn a_stuck_random_source_is_an_error_or_a_result_but_never_a_hang() {
        struct Stuck(u8);
        impl Entropy for Stuck {
            fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
                out.fill(self.0);
                Ok(())
            }
        }
        for byte in [0, 0xff] {
            for kex in PROVIDER.kex {
                let _ = kex.start(&mut Stuck(byte));
            }
            assert!(EcdsaP256Signer::generate(&mut Stuck(byte)).is_err());
        }
    }
}
