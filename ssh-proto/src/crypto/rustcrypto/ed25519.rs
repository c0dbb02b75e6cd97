//! `ssh-ed25519` (RFC 8709).

use alloc::vec::Vec;

use ed25519_dalek::{Signature as RawSignature, Signer as _, SigningKey, VerifyingKey};

use super::{random, signer};
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::{PutSsh, decode};

pub(in crate::crypto) const NAME: &str = "ssh-ed25519";

/// The verifier. It is strict: the scalar S must be reduced, keys and R in their only canonical form and not of
/// small order, so that no signature has a second form and no key verifies more than its own.
pub(in crate::crypto) struct Ed25519;

impl SignatureAlgorithm for Ed25519 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key_type(&self) -> &'static str {
        NAME
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        verifying_key(key).map(|_| ())
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let key = verifying_key(key).map_err(|_| BadSignature)?;
        let signature = RawSignature::from_slice(signature).map_err(|_| BadSignature)?;
        key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

/// The point in a key's blob, not yet looked at.
pub(in crate::crypto) fn encoded_point(blob: &[u8]) -> Result<&[u8; 32], KeyError> {
    let (name, point) = decode::all(blob, |input| {
        let (input, name) = decode::string(input)?;
        let (input, point) = decode::string(input)?;
        Ok((input, (name, point)))
    })
    .map_err(|_| KeyError::Malformed)?;
    if name != NAME.as_bytes() {
        return Err(KeyError::Malformed);
    }
    point.try_into().map_err(|_| KeyError::Malformed)
}

fn verifying_key(blob: &[u8]) -> Result<VerifyingKey, KeyError> {
    let point = encoded_point(blob)?;
    if !is_sound(point) {
        return Err(KeyError::Malformed);
    }
    VerifyingKey::from_bytes(point).map_err(|_| KeyError::Malformed)
}

/// Whether an encoding is reduced and not that of a point of small order. It need not be on the curve.
pub(in crate::crypto) fn is_sound(point: &[u8; 32]) -> bool {
    // Little-endian; the sign of x in the top bit.
    let mut y = *point;
    if let Some(top) = y.last_mut() {
        *top &= 0x7f;
    }
    let reduced = y.iter().rev().lt(P.iter().rev());
    reduced && !SMALL_ORDER.contains(&y)
}

/// 2^255 - 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// The y of every point of small order, little-endian: 1 and -1, 0, and those of the points of order 8 ("Taming the
/// many EdDSAs", table 6).
const SMALL_ORDER: [[u8; 32]; 5] = {
    let (zero, mut one, mut minus_one) = ([0; 32], [0; 32], P);
    one[0] = 1;
    minus_one[0] = 0xec;
    [
        zero,
        one,
        minus_one,
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
    ]
};

/// The public key of an encoded point.
pub(in crate::crypto) fn public_key(point: &[u8]) -> Result<PublicKey, KeyError> {
    let mut blob = Vec::new();
    blob.put_string(NAME.as_bytes());
    blob.put_string(point);
    PublicKey::from_blob(&blob)
}

/// Signs with an Ed25519 key held in memory, wiped when dropped.
pub struct Ed25519Signer {
    secret: SigningKey,
    public: PublicKey,
}

signer!(Ed25519Signer);

impl Ed25519Signer {
    /// The key of a 32-byte seed ([RFC 8032 §5.1.5]), the first half of what OpenSSH's key files hold.
    ///
    /// # Errors
    /// None in fact: every seed is a key.
    ///
    /// [RFC 8032 §5.1.5]: https://www.rfc-editor.org/rfc/rfc8032#section-5.1.5
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_bytes(seed);
        let public = public_key(secret.verifying_key().as_bytes())?;
        Ok(Self { secret, public })
    }

    /// A new key, from 32 bytes of `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        Self::from_seed(&*random(entropy)?).map_err(|_| EntropyError)
    }
}

impl Signer for Ed25519Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature = self.secret.try_sign(what.message()).map_err(|_| SignRefused)?;
        Ok(Signature::new(NAME, signature.to_bytes()))
    }

    fn needs_check(&self) -> bool {
        // Computed here, over a hash that no peer can have signed twice, as a fault attack needs it: a second look
        // would only cost each handshake.
        false
    }

    fn is_quick(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(in crate::crypto) mod tests {
    use alloc::format;

    use hex_literal::hex;

    use super::super::testing::{FailsAt, Script, strings, to_sign};
    use super::super::vectors::SSHSIG_MESSAGE;
    use super::*;

    /// Seed, public key, message, signature.
    type Vector = ([u8; 32], [u8; 32], &'static [u8], [u8; 64]);

    // RFC 8032 §7.1, tests 1 to 3.
    const RFC_8032: [Vector; 3] = [
        (
            hex!("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
            hex!("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
            b"",
            hex!(
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            hex!("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
            hex!("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
            &hex!("72"),
            hex!(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
        (
            hex!("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"),
            hex!("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"),
            &hex!("af82"),
            hex!(
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ];

    /// The order of the base point, little-endian.
    const L: [u8; 32] = hex!("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");

    /// All encodings of points of small order, canonical and not ("Taming the many EdDSAs", table 6).
    pub(in crate::crypto) const SMALL_ORDER: [[u8; 32]; 14] = [
        hex!("0100000000000000000000000000000000000000000000000000000000000000"),
        hex!("0100000000000000000000000000000000000000000000000000000000000080"),
        hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
        hex!("0000000000000000000000000000000000000000000000000000000000000000"),
        hex!("0000000000000000000000000000000000000000000000000000000000000080"),
        hex!("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        hex!("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
        hex!("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        hex!("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
        hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
    ];

    fn blob(key: &[u8]) -> Vec<u8> {
        strings(&[b"ssh-ed25519", key])
    }

    #[test]
    fn keys_and_signatures_of_rfc_8032_section_7_1() {
        for (seed, key, message, signature) in RFC_8032 {
            let signer = Ed25519Signer::from_seed(&seed).unwrap();
            let public = signer.public_key();
            assert_eq!(public.as_blob(), blob(&key));
            // It needs no randomness.
            let made = signer.sign(&to_sign(&public, NAME, message), &mut FailsAt(0)).unwrap();
            assert_eq!((made.algorithm(), made.as_bytes()), (NAME, &signature[..]));
            assert_eq!(Ed25519.check_key(public.as_blob()), Ok(()));
            assert_eq!(Ed25519.verify(public.as_blob(), message, &signature), Ok(()));
            assert_eq!(Ed25519.verify(public.as_blob(), b"other", &signature), Err(BadSignature));
        }
    }

    #[test]
    fn a_signature_by_openssh() {
        let seed = hex!("f6952aa4fa1498a42d2976a9a1238c3d348881700327e6d1654eb2dfb81f9b37");
        let signature = hex!(
            "06f733daf78cf510be9519c4e81392637c27dc9a6aa350046e44d65daf7e7c7f"
            "d4a46dfb12539ea5e7856b6f3d1cf8c1ab8fab9ad4e559370ac8ada1c216a50d"
        );
        let public = Ed25519Signer::from_seed(&seed).unwrap().public_key();
        assert_eq!(
            public.as_blob(),
            blob(&hex!("3211e4c5a8954dfcbada5b5dcf25c7e0efef97d0a8817f52bbdc3efc268b4a87"))
        );
        assert_eq!(Ed25519.verify(public.as_blob(), SSHSIG_MESSAGE, &signature), Ok(()));
    }

    #[test]
    fn kx_19_s_must_be_reduced() {
        let (_, key, message, signature) = RFC_8032[2];
        for times in 1..16 {
            // S + times * L, which the equation of verification cannot tell from S.
            let mut carry = 0_u32;
            let mut forged = signature;
            for (byte, order) in forged[32..].iter_mut().zip(L) {
                carry += u32::from(*byte) + times * u32::from(order);
                *byte = carry as u8;
                carry >>= 8;
            }
            assert_eq!(carry, 0);
            assert_eq!(Ed25519.verify(&blob(&key), message, &forged), Err(BadSignature), "{times}");
        }
        for s in [[0xff; 32], L] {
            let mut forged = signature;
            forged[32..].copy_from_slice(&s);
            assert_eq!(Ed25519.verify(&blob(&key), message, &forged), Err(BadSignature));
        }
    }

    #[test]
    fn kx_19_keys_of_small_order_are_refused() {
        for key in SMALL_ORDER {
            assert_eq!(Ed25519.check_key(&blob(&key)), Err(KeyError::Malformed), "{key:x?}");
            // With S = 0, R is the key's multiple by the hash: an eighth of all messages verify loosely.
            for r in SMALL_ORDER {
                let signature = [r, [0; 32]].concat();
                for message in 0..16_u8 {
                    assert_eq!(Ed25519.verify(&blob(&key), &[message], &signature), Err(BadSignature));
                }
            }
        }
    }

    #[test]
    fn kx_19_r_of_small_order_is_refused() {
        let (_, key, message, signature) = RFC_8032[2];
        for r in SMALL_ORDER {
            let mut forged = signature;
            forged[..32].copy_from_slice(&r);
            assert_eq!(Ed25519.verify(&blob(&key), message, &forged), Err(BadSignature));
        }
    }

    #[test]
    fn kx_19_keys_that_are_not_reduced_are_refused() {
        // y = p + k for each k below 19 with a point of large order.
        for k in [3_u8, 4, 5, 6, 9, 10, 14, 15, 16, 18] {
            let mut reduced = [0; 32];
            reduced[0] = k;
            assert_eq!(Ed25519.check_key(&blob(&reduced)), Ok(()), "{k}");
            for top in [0x7f, 0xff] {
                let mut key = [0xff; 32];
                key[0] = 0xed + k;
                key[31] = top;
                assert_eq!(Ed25519.check_key(&blob(&key)), Err(KeyError::Malformed), "{k}");
            }
        }
    }

    #[test]
    fn kx_10_key_blobs_of_another_form_are_refused() {
        let (_, key, message, signature) = RFC_8032[0];
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        for bad in [
            strings(&[b"ssh-ed25519"]),
            blob(&key[..31]),
            blob(&[&key[..], &[0]].concat()),
            blob(&off_curve),
            strings(&[b"ssh-rsa", &key]),
            strings(&[b"ssh-ed25519", &key, b""]),
            [&blob(&key)[..], &[0]].concat(),
            blob(&key)[..50].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(Ed25519.check_key(&bad), Err(KeyError::Malformed));
            assert_eq!(Ed25519.verify(&bad, message, &signature), Err(BadSignature));
        }
        for signature in [&signature[..63], &[], &[&signature[..], &[0]].concat()] {
            assert_eq!(Ed25519.verify(&blob(&key), message, signature), Err(BadSignature));
        }
    }

    #[test]
    fn kx_14_a_signer_signs_for_its_own_key_and_algorithm_only() {
        let signer = Ed25519Signer::generate(&mut Script::new(1)).unwrap();
        let (own, other) =
            (signer.public_key(), Ed25519Signer::generate(&mut Script::new(2)).unwrap().public_key());
        assert_ne!(own, other);
        assert!(signer.sign(&to_sign(&own, NAME, b"m"), &mut Script::new(3)).is_ok());
        assert_eq!(signer.sign(&to_sign(&other, NAME, b"m"), &mut Script::new(3)), Err(SignRefused));
        assert_eq!(signer.sign(&to_sign(&own, "rsa-sha2-512", b"m"), &mut Script::new(3)), Err(SignRefused));
        assert!(Ed25519Signer::generate(&mut FailsAt(0)).is_err());
    }

    #[test]
    fn debug_shows_the_public_half_alone() {
        let signer = Ed25519Signer::from_seed(&RFC_8032[0].0).unwrap();
        let expected = format!("Ed25519Signer {{ public: {:?}, .. }}", signer.public_key());
        assert_eq!(format!("{signer:?}"), expected);
    }

    #[test]
    fn a_key_pair_signs_by_itself() {
        let pair = Ed25519Signer::generate(&mut Script::new(1)).unwrap().key_pair();
        let signature =
            pair.signer.unwrap().sign(&to_sign(&pair.public, NAME, b"m"), &mut Script::new(1)).unwrap();
        assert_eq!(Ed25519.verify(pair.public.as_blob(), b"m", signature.as_bytes()), Ok(()));
    }
}
