//! `ecdsa-sha2-nistp256` (RFC 5656 §3).

use alloc::vec::Vec;

use p256::SecretKey;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature as RawSignature, SigningKey, VerifyingKey};

use super::{nistp, signer};
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::{PutSsh, decode};

pub(in crate::crypto) const NAME: &str = "ecdsa-sha2-nistp256";
const CURVE: &str = "nistp256";

/// The verifier. Both halves of a signature lie between 1 and the order; a high S is accepted, as everywhere
/// in SSH.
pub(in crate::crypto) struct EcdsaP256;

impl SignatureAlgorithm for EcdsaP256 {
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
        let (r, s) = halves(signature)?;
        let signature = RawSignature::from_scalars(r, s).map_err(|_| BadSignature)?;
        key.verify(message, &signature).map_err(|_| BadSignature)
    }
}

/// Both halves of a signature, which may still be zero or beyond the order.
pub(in crate::crypto) fn halves(signature: &[u8]) -> Result<([u8; 32], [u8; 32]), BadSignature> {
    let (r, s) = decode::all(signature, |input| {
        let (input, r) = decode::mpint(input)?;
        let (input, s) = decode::mpint(input)?;
        Ok((input, (r, s)))
    })
    .map_err(|_| BadSignature)?;
    Ok((scalar(r).ok_or(BadSignature)?, scalar(s).ok_or(BadSignature)?))
}

/// A signature from its halves.
pub(in crate::crypto) fn signature(r: &[u8], s: &[u8]) -> Signature {
    let mut bytes = Vec::new();
    bytes.put_mpint(r);
    bytes.put_mpint(s);
    Signature::new(NAME, bytes)
}

/// A number of at most 32 bytes, at its full width.
fn scalar(number: &[u8]) -> Option<[u8; 32]> {
    let mut wide = [0; 32];
    wide.get_mut(32_usize.checked_sub(number.len())?..)?.copy_from_slice(number);
    Some(wide)
}

/// The point in a key's blob: of the right form, but perhaps not on the curve.
pub(in crate::crypto) fn encoded_point(blob: &[u8]) -> Result<&[u8], KeyError> {
    let (name, curve, point) = decode::all(blob, |input| {
        let (input, name) = decode::string(input)?;
        let (input, curve) = decode::string(input)?;
        let (input, point) = decode::string(input)?;
        Ok((input, (name, curve, point)))
    })
    .map_err(|_| KeyError::Malformed)?;
    if name != NAME.as_bytes() || curve != CURVE.as_bytes() {
        return Err(KeyError::Malformed);
    }
    if nistp::is_uncompressed_point(point) { Ok(point) } else { Err(KeyError::Malformed) }
}

fn verifying_key(blob: &[u8]) -> Result<VerifyingKey, KeyError> {
    nistp::point(encoded_point(blob)?).map(VerifyingKey::from).ok_or(KeyError::Malformed)
}

/// The public key of an uncompressed point.
pub(in crate::crypto) fn public_key(point: &[u8]) -> Result<PublicKey, KeyError> {
    let mut blob = Vec::new();
    blob.put_string(NAME.as_bytes());
    blob.put_string(CURVE.as_bytes());
    blob.put_string(point);
    PublicKey::from_blob(&blob)
}

/// Signs with a P-256 key held in memory, wiped when dropped. Nonces are those of RFC 6979.
pub struct EcdsaP256Signer {
    secret: SigningKey,
    public: PublicKey,
}

signer!(EcdsaP256Signer);

impl EcdsaP256Signer {
    /// The key of a private scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for zero and for numbers not below the curve's order.
    pub fn from_scalar(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        Self::new(SecretKey::from_slice(scalar).map_err(|_| KeyError::Malformed)?)
    }

    /// A new key, from `entropy`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed or is stuck.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        Self::new(nistp::private_key(entropy)?).map_err(|_| EntropyError)
    }

    fn new(secret: SecretKey) -> Result<Self, KeyError> {
        let public = public_key(&nistp::point_bytes(&secret.public_key()))?;
        Ok(Self { secret: secret.into(), public })
    }
}

impl Signer for EcdsaP256Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature: RawSignature = self.secret.try_sign(what.message()).map_err(|_| SignRefused)?;
        let (r, s) = signature.split_bytes();
        Ok(self::signature(&r, &s))
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
mod tests {
    use alloc::collections::BTreeSet;

    use hex_literal::hex;
    use sha2::{Digest, Sha256};

    use super::super::testing::{FailsAt, Script, strings, to_sign};
    use super::super::vectors::SSHSIG_MESSAGE;
    use super::*;

    const N: [u8; 32] = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    const N_MINUS_1: [u8; 32] = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550");

    // RFC 6979 §A.2.5, with SHA-256 and the message "sample".
    const SCALAR: [u8; 32] = hex!("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    const R: [u8; 32] = hex!("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716");
    const S: [u8; 32] = hex!("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8");

    fn mpints(numbers: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for number in numbers {
            out.put_mpint(number);
        }
        out
    }

    #[test]
    fn kx_15_nonces_are_spread_over_all_their_bits_and_none_comes_twice() {
        use p256::elliptic_curve::ops::Reduce;
        use p256::elliptic_curve::point::AffineCoordinates;
        use p256::{FieldBytes, ProjectivePoint, Scalar};

        // CVE-2024-31497: nonces whose top bits are zero give the key away. Who knows the key knows them.
        const SIGNATURES: u32 = 1000;
        let reduced = |bytes: [u8; 32]| <Scalar as Reduce<FieldBytes>>::reduce(&FieldBytes::from(bytes));
        let key = reduced(SCALAR);
        let signer = EcdsaP256Signer::from_scalar(&SCALAR).unwrap();
        let mut seen = BTreeSet::new();
        let mut ones = [0u32; 256];
        for number in 0..SIGNATURES {
            let message = number.to_be_bytes();
            let signature = signer.sign(&to_sign(&signer.public, NAME, &message), &mut FailsAt(0)).unwrap();
            let (rest, r) = decode::mpint(signature.as_bytes()).unwrap();
            let (_, s) = decode::mpint(rest).unwrap();
            let scalar = |bytes: &[u8]| {
                let mut padded = [0; 32];
                padded[32 - bytes.len()..].copy_from_slice(bytes);
                reduced(padded)
            };
            let hash = reduced(Sha256::digest(message).into());
            let nonce = (hash + scalar(r) * key) * scalar(s).invert().unwrap();
            let point = (ProjectivePoint::GENERATOR * nonce).to_affine();
            assert_eq!(reduced(point.x().into()), scalar(r), "this is the nonce");
            let nonce: [u8; 32] = nonce.to_bytes().into();
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(nonce[bit / 8] >> (7 - bit % 8) & 1);
            }
            assert!(seen.insert(nonce));
        }
        // Six standard deviations around the half.
        for (bit, ones) in ones.iter().enumerate() {
            assert!((405..=595).contains(ones), "bit {bit}: {ones} of {SIGNATURES}");
        }
    }

    #[test]
    fn the_signature_of_rfc_6979_section_a_2_5() {
        let signer = EcdsaP256Signer::from_scalar(&SCALAR).unwrap();
        let public = signer.public_key();
        assert_eq!(
            public.as_blob(),
            strings(&[
                b"ecdsa-sha2-nistp256",
                b"nistp256",
                &hex!(
                    "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
                    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
                ),
            ])
        );
        let signature = signer.sign(&to_sign(&public, NAME, b"sample"), &mut FailsAt(0)).unwrap();
        assert_eq!(signature.algorithm(), NAME);
        assert_eq!(signature.as_bytes(), mpints(&[&R, &S]));
        assert_eq!(EcdsaP256.verify(public.as_blob(), b"sample", signature.as_bytes()), Ok(()));
        assert_eq!(EcdsaP256.verify(public.as_blob(), b"Sample", signature.as_bytes()), Err(BadSignature));
    }

    #[test]
    fn a_signature_by_openssh() {
        let scalar = hex!("9f92f803fe1d5bb0e0103b4520c5e86099094aef4ea37a9d2cb67eb6101dfbfd");
        let public = EcdsaP256Signer::from_scalar(&scalar).unwrap().public_key();
        assert_eq!(
            public.as_blob(),
            hex!(
                "0000001365636473612d736861322d6e69737470323536000000086e6973747032353600000041"
                "04090a7d9d9a9b4890f50405fa404271f1772425e5594d5957c1ac078406e371"
                "7744724d65f94995bcfc7e5d9bdd46a60bfb6f28131dc3ceafba6f5636c4539e93"
            )
        );
        let signature = hex!(
            "0000002100a85b4d870e5bd898139118588da710ee4d865d10e6cf6215a204e88c59ce94fc"
            "0000002100d8fd4f5dd2b27c461b515e1c3869bbdc81f16152e3fa8ac4fbc3719ad75f7304"
        );
        assert_eq!(EcdsaP256.verify(public.as_blob(), SSHSIG_MESSAGE, &signature), Ok(()));
    }

    #[test]
    fn kx_20_r_and_s_between_1_and_the_order_in_canonical_form() {
        let public = EcdsaP256Signer::from_scalar(&SCALAR).unwrap().public_key();
        let verify = |signature: &[u8]| EcdsaP256.verify(public.as_blob(), b"sample", signature);
        let good = mpints(&[&R, &S]);
        assert_eq!(verify(&good), Ok(()));
        let over_long = [&[1][..], &[0; 32]].concat();
        for number in [&[][..], &N, &[0xff; 32], &over_long, &N_MINUS_1, &[1]] {
            assert_eq!(verify(&mpints(&[number, &S])), Err(BadSignature), "r {number:x?}");
            assert_eq!(verify(&mpints(&[&R, number])), Err(BadSignature), "s {number:x?}");
        }
        // Negative, with needless zeros, zero as a byte.
        let (padded_r, padded_s) = ([&[0, 0], &R[..]].concat(), [&[0, 0], &S[..]].concat());
        for bad in [
            strings(&[&R, &[&[0], &S[..]].concat()]),
            strings(&[&[&[0], &R[..]].concat(), &S]),
            strings(&[&padded_r, &[&[0], &S[..]].concat()]),
            strings(&[&[&[0], &R[..]].concat(), &padded_s]),
            strings(&[&[0], &[0]]),
            [&good[..], &[0]].concat(),
            mpints(&[&R, &S, &S]),
            mpints(&[&R]),
            good[..good.len() - 1].to_vec(),
            [&R[..], &S].concat(),
            Vec::new(),
        ] {
            assert_eq!(verify(&bad), Err(BadSignature), "{bad:x?}");
        }
    }

    #[test]
    fn kx_20_a_high_or_low_s_is_as_good() {
        // OpenSSH makes both. n - s for the s above.
        let low = hex!("0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9");
        let public = EcdsaP256Signer::from_scalar(&SCALAR).unwrap().public_key();
        assert_eq!(EcdsaP256.verify(public.as_blob(), b"sample", &mpints(&[&R, &low])), Ok(()));
    }

    #[test]
    fn kx_10_key_blobs_of_another_form_are_refused() {
        let public = EcdsaP256Signer::from_scalar(&SCALAR).unwrap().public_key();
        let point = &public.as_blob()[public.as_blob().len() - 65..];
        let mut compressed = point[..33].to_vec();
        compressed[0] = 2 + (point[64] & 1);
        for bad in [
            strings(&[b"ecdsa-sha2-nistp256", b"nistp384", point]),
            strings(&[b"ecdsa-sha2-nistp384", b"nistp256", point]),
            strings(&[b"ssh-ed25519", b"nistp256", point]),
            strings(&[b"ecdsa-sha2-nistp256", point]),
            strings(&[b"ecdsa-sha2-nistp256", b"nistp256", &compressed]),
            strings(&[b"ecdsa-sha2-nistp256", b"nistp256", &[0]]),
            strings(&[b"ecdsa-sha2-nistp256", b"nistp256", point, b""]),
            [public.as_blob(), &[0]].concat(),
            Vec::new(),
        ] {
            assert_eq!(EcdsaP256.check_key(&bad), Err(KeyError::Malformed), "{bad:x?}");
        }
        assert_eq!(EcdsaP256.check_key(public.as_blob()), Ok(()));
    }

    #[test]
    fn scalars_that_are_no_key_are_refused() {
        for scalar in [[0; 32], N, [0xff; 32]] {
            assert_eq!(EcdsaP256Signer::from_scalar(&scalar).err(), Some(KeyError::Malformed));
        }
        assert!(EcdsaP256Signer::from_scalar(&N_MINUS_1).is_ok());
    }

    #[test]
    fn kx_14_a_signer_signs_for_its_own_key_and_algorithm_only() {
        let signer = EcdsaP256Signer::generate(&mut Script::new(1)).unwrap();
        let (own, other) =
            (signer.public_key(), EcdsaP256Signer::generate(&mut Script::new(2)).unwrap().public_key());
        assert_ne!(own, other);
        let signature = signer.sign(&to_sign(&own, NAME, b"m"), &mut Script::new(3)).unwrap();
        assert_eq!(EcdsaP256.verify(own.as_blob(), b"m", signature.as_bytes()), Ok(()));
        assert_eq!(EcdsaP256.verify(other.as_blob(), b"m", signature.as_bytes()), Err(BadSignature));
        assert_eq!(signer.sign(&to_sign(&other, NAME, b"m"), &mut Script::new(3)), Err(SignRefused));
        assert_eq!(signer.sign(&to_sign(&own, "ssh-ed25519", b"m"), &mut Script::new(3)), Err(SignRefused));
    }
}
