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
use crate::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, SecretEncoding, ServerShare, SharedSecret,
};
use crate::entropy::Entropy;

/// Bytes of an encapsulation key (FIPS 203 §8, table 3).
pub(in crate::crypto) const ENCAPSULATION_KEY: usize = 1184;
/// Bytes of a ciphertext.
pub(in crate::crypto) const CIPHERTEXT: usize = 1088;

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
        let (kem, classic) = split_hybrid(client_share, ENCAPSULATION_KEY)?;
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
        let (ciphertext, classic) = split_hybrid(server_share, CIPHERTEXT)?;
        let ciphertext: &Ciphertext = ciphertext.try_into().map_err(|_| KexError::BadShare)?;
        let classic_secret = self.classic.agree(classic)?;
        // A ciphertext that was tampered with gives a secret nobody else has, not an error: the host key's
        // signature then fails.
        Ok(combine(self.kem.decapsulate(ciphertext), &classic_secret))
    }
}

/// A share's two parts. The length is exact.
pub(in crate::crypto) fn split_hybrid(share: &[u8], kem: usize) -> Result<(&[u8], &[u8]), KexError> {
    match share.split_at_checked(kem) {
        Some((kem, classic)) if classic.len() == x25519::SHARE => Ok((kem, classic)),
        _ => Err(KexError::BadShare),
    }
}

/// K, and the end of the KEM's secret.
fn combine(mut kem_secret: ml_kem::SharedKey, classic_secret: &[u8; 32]) -> SharedSecret {
    let secret = combine_hybrid(&kem_secret, classic_secret);
    kem_secret.as_mut_slice().zeroize();
    secret
}

/// K, from both raw secrets.
pub(in crate::crypto) fn combine_hybrid(kem_secret: &[u8], classic_secret: &[u8; 32]) -> SharedSecret {
    let mut digest = hash::Sha256.digest(&[kem_secret, classic_secret]);
    let secret = Zeroizing::new(digest.as_bytes().to_vec());
    digest.zeroize();
    SharedSecret::new(secret, SecretEncoding::String)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use sha2::{Digest, Sha256};

    use super::super::testing::Script;
    use super::super::vectors::mlkem as cctv;
    use super::*;

    /// `N` bytes counting up from `first`.
    fn counting<const N: usize>(first: u8) -> [u8; N] {
        core::array::from_fn(|i| first + i as u8)
    }

    fn client() -> Box<dyn ClientExchange> {
        let entropy = [&counting::<64>(0)[..], &counting::<32>(0x40)].concat();
        MlKem768X25519.start(&mut Script::starting_with(&entropy)).unwrap()
    }

    fn respond(client_share: &[u8]) -> Result<ServerShare, KexError> {
        let entropy = [&counting::<32>(0x80)[..], &counting::<32>(0xc0)].concat();
        MlKem768X25519.respond(client_share, &mut Script::starting_with(&entropy))
    }

    #[test]
    fn the_exchange_as_independent_implementations_compute_it() {
        // kyber-py 1.2.0 for ML-KEM (d ‖ z = 00…3f, m = c0…df), cryptography 50.0.2 for X25519.
        let k = hex!("c73ea076b60b1169b83d64e0163bf6e406d7f65b3052b23df57c748e9ca1f428");
        let client = client();
        assert_eq!(client.share().len(), 1216);
        assert_eq!(
            Sha256::digest(client.share())[..],
            hex!("d99e4496af749b54ee4a2d270c8057450624ecc5dc0866295ffc504a26134ad4")
        );
        let server = respond(client.share()).unwrap();
        assert_eq!(server.share.len(), 1120);
        assert_eq!(
            Sha256::digest(&server.share)[..],
            hex!("6ba1738bc8eef904af13a02fe632f682ad96190cc6f6ac37ac40883dfa2d429b")
        );
        assert_eq!(server.secret.as_bytes(), k);
        assert_eq!(client.complete(&server.share).unwrap().as_bytes(), k);
    }

    #[test]
    fn kx_07_k_is_a_string() {
        let client = client();
        let server = respond(client.share()).unwrap();
        assert_eq!(server.secret.encoding(), SecretEncoding::String);
        assert_eq!(client.complete(&server.share).unwrap().encoding(), SecretEncoding::String);
    }

    #[test]
    fn kx_06_lengths_are_exact() {
        let client_share = client().share().to_vec();
        let server_share = respond(&client_share).unwrap().share;
        for len in [0, 32, 1088, 1119, 1120, 1121, 1183, 1184, 1215, 1217, 1300] {
            let mut share = client_share.clone();
            share.resize(len, 9);
            assert_eq!(respond(&share).err(), Some(KexError::BadShare), "{len}");
        }
        for len in [0, 32, 1087, 1088, 1119, 1121, 1184, 1216, 1300] {
            let mut share = server_share.clone();
            share.resize(len, 9);
            assert_eq!(client().complete(&share).err(), Some(KexError::BadShare), "{len}");
        }
    }

    #[test]
    fn kx_06_coefficients_not_below_q_are_refused() {
        // Twelve bits a coefficient, the first in the low bits of the first two bytes; q is 3329.
        let good = client().share().to_vec();
        for coefficient in [3329_u16, 3330, 4095] {
            for pair in [0, 191, 383] {
                let [low, high] = coefficient.to_le_bytes();
                let mut first = good.clone();
                first[3 * pair] = low;
                first[3 * pair + 1] = first[3 * pair + 1] & 0xf0 | high;
                assert_eq!(respond(&first).err(), Some(KexError::BadShare));
                let mut second = good.clone();
                second[3 * pair + 1] = second[3 * pair + 1] & 0x0f | low << 4;
                second[3 * pair + 2] = low >> 4 | high << 4;
                assert_eq!(respond(&second).err(), Some(KexError::BadShare));
            }
        }
        let mut reduced = good;
        reduced[0] = 0;
        reduced[1] = reduced[1] & 0xf0 | 0x0d;
        assert!(respond(&reduced).is_ok(), "3328 is the largest coefficient there is");
    }

    #[test]
    fn kx_06_a_flipped_bit_of_the_ciphertext_gives_another_secret_and_no_error() {
        let server = respond(client().share()).unwrap();
        let mut share = server.share.clone();
        share[0] ^= 1;
        // From kyber-py and cryptography, as above.
        let k = hex!("d9ce564e62f2a96bc9ad2b358664a986a8dfd2c055d363929b7575af6b5e4ca4");
        assert_eq!(client().complete(&share).unwrap().as_bytes(), k);
        for byte in (0..1088).step_by(64) {
            let mut share = server.share.clone();
            share[byte] ^= 0x10;
            assert_ne!(client().complete(&share).unwrap().as_bytes(), server.secret.as_bytes());
        }
    }

    #[test]
    fn kx_06_the_ciphertext_is_compared_to_its_end() {
        let server = Ephemeral::generate(&mut Script::starting_with(&counting::<32>(0x80))).unwrap();
        let classic = Ephemeral::generate(&mut Script::starting_with(&counting::<32>(0x40))).unwrap();
        let x25519 = server.agree(classic.share()).unwrap();
        let entropy = [&cctv::SEED[..], &counting::<32>(0x40)].concat();
        let client = MlKem768X25519.start(&mut Script::starting_with(&entropy)).unwrap();
        let share = [&cctv::CIPHERTEXT[..], server.share()].concat();
        let expected = Sha256::digest([&cctv::SECRET[..], &*x25519].concat());
        assert_eq!(client.complete(&share).unwrap().as_bytes(), &expected[..]);
    }

    #[test]
    fn kx_05_low_order_points_are_refused_in_the_hybrid_too() {
        let client_share = client().share().to_vec();
        let server_share = respond(&client_share).unwrap().share;
        for point in x25519::tests::low_order() {
            let share = [&client_share[..ENCAPSULATION_KEY], &point].concat();
            assert_eq!(respond(&share).err(), Some(KexError::BadShare), "{point:x?}");
            let share = [&server_share[..CIPHERTEXT], &point].concat();
            assert_eq!(client().complete(&share).err(), Some(KexError::BadShare), "{point:x?}");
        }
    }
}
