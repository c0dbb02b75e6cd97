//! `rsa-sha2-512` and `rsa-sha2-256` (RFC 8332). Signatures with SHA-1, under the name `ssh-rsa`, are
//! neither made nor accepted.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest as _, Sha256, Sha512};

use super::{random, signer};
use crate::crypto::rsa_key::{KEY_TYPE, MAX_BITS, MIN_BITS, Parts, RsaSha2, without_zeros};
use crate::crypto::{BadSignature, Digest, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::PutSsh;

impl RsaSha2 {
    fn padding(self) -> Pkcs1v15Sign {
        match self {
            Self::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
            Self::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
        }
    }

    fn digest(self, message: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::new(&Sha256::digest(message)),
            Self::Sha512 => Digest::new(&Sha512::digest(message)),
        }
    }
}

impl SignatureAlgorithm for RsaSha2 {
    fn name(&self) -> &'static str {
        self.algorithm()
    }

    fn key_type(&self) -> &'static str {
        KEY_TYPE
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        Parts::of_blob(key).map(|_| ())
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let parts = Parts::of_blob(key).map_err(|_| BadSignature)?;
        let padded = parts.padded(signature)?;
        let key = public_key(&parts).map_err(|_| BadSignature)?;
        let digest = self.digest(message);
        key.verify(self.padding(), digest.as_bytes(), &padded).map_err(|_| BadSignature)
    }
}

fn public_key(parts: &Parts<'_>) -> Result<RsaPublicKey, KeyError> {
    // Unchecked as to the limits of that crate; `Parts` has checked ours, and that n is odd.
    Ok(RsaPublicKey::new_unchecked(number(parts.n)?, parts.exponent().into()))
}

fn number(bytes: &[u8]) -> Result<BoxedUint, KeyError> {
    let bytes = without_zeros(bytes);
    let bits = u32::try_from(bytes.len().saturating_mul(8)).map_err(|_| KeyError::WeakOrHuge)?;
    BoxedUint::from_be_slice(bytes, bits).map_err(|_| KeyError::Malformed)
}

/// The generator of blinding factors and primes, seeded from `entropy`. It can neither fail nor be stuck half
/// way, which the loops that draw from it could not bear.
fn generator(entropy: &mut dyn Entropy) -> Result<ChaCha20Rng, EntropyError> {
    Ok(ChaCha20Rng::from_seed(*random(entropy)?))
}

/// Signs with an RSA key held in memory, wiped when dropped.
///
/// The private operation is blinded, and every signature is verified before it is handed out: one computed
/// wrongly would give the key away.
pub struct RsaSigner {
    secret: RsaPrivateKey,
    public: PublicKey,
}

signer!(RsaSigner);

impl RsaSigner {
    /// The key of modulus `n`, public exponent `e`, private exponent `d` and primes `p` and `q`, big-endian.
    ///
    /// # Errors
    /// [`KeyError::WeakOrHuge`] for a modulus not of 2048 to 16384 bits or an exponent that is even, below
    /// 3 or beyond 64 bits; [`KeyError::Malformed`] when the numbers do not belong together.
    pub fn from_components(n: &[u8], e: &[u8], d: &[u8], p: &[u8], q: &[u8]) -> Result<Self, KeyError> {
        let parts = Parts::new(e, n)?;
        let (n, primes) = (number(parts.n)?, vec![number(p)?, number(q)?]);
        let secret = RsaPrivateKey::from_components(n, parts.exponent().into(), number(d)?, primes)
            .map_err(|_| KeyError::Malformed)?;
        Self::new(secret)
    }

    /// A new key with a modulus of `bits` bits and the public exponent 65537, from 32 bytes of `entropy`.
    ///
    /// It takes seconds and more, and time that differs from key to key.
    ///
    /// # Errors
    /// [`RsaGenerateError`].
    pub fn generate(bits: usize, entropy: &mut dyn Entropy) -> Result<Self, RsaGenerateError> {
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(RsaGenerateError::Size);
        }
        let mut generator = generator(entropy).map_err(|_| RsaGenerateError::Entropy)?;
        let secret = RsaPrivateKey::new(&mut generator, bits).map_err(|_| RsaGenerateError::Size)?;
        Self::new(secret).map_err(|_| RsaGenerateError::Size)
    }

    fn new(secret: RsaPrivateKey) -> Result<Self, KeyError> {
        let mut blob = Vec::new();
        blob.put_string(KEY_TYPE.as_bytes());
        blob.put_mpint(&secret.e().to_be_bytes());
        blob.put_mpint(&secret.n().to_be_bytes());
        let public = PublicKey::from_blob(&blob)?;
        Ok(Self { secret, public })
    }
}

impl Signer for RsaSigner {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        let algorithm = RsaSha2::by_name(what.algorithm()).ok_or(SignRefused)?;
        if what.key() != &self.public {
            return Err(SignRefused);
        }
        let mut blinding = generator(entropy).map_err(|_| SignRefused)?;
        let digest = algorithm.digest(what.message());
        let signature = self
            .secret
            .sign_with_rng(&mut blinding, algorithm.padding(), digest.as_bytes())
            .map_err(|_| SignRefused)?;
        algorithm.verify(self.public.as_blob(), what.message(), &signature).map_err(|_| SignRefused)?;
        Ok(Signature::new(algorithm.name(), signature))
    }

    fn needs_check(&self) -> bool {
        // Done above.
        false
    }
}

/// Why no RSA key was generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RsaGenerateError {
    /// The modulus asked for is not of 2048 to 16384 bits.
    Size,
    /// The random source failed.
    Entropy,
}

impl fmt::Display for RsaGenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "the modulus size is out of bounds",
            Self::Entropy => "the random source failed",
        })
    }
}

impl core::error::Error for RsaGenerateError {}

#[cfg(test)]
mod tests {
    use super::super::testing::{FailsAt, Script, strings, to_sign};
    use super::super::vectors::{SSHSIG_MESSAGE, rsa as key};
    use super::*;

    const BOTH: [(RsaSha2, &[u8]); 2] = [(RsaSha2::Sha256, key::SHA256), (RsaSha2::Sha512, key::SHA512)];

    fn signer() -> RsaSigner {
        RsaSigner::from_components(key::N, key::E, key::D, key::P, key::Q).unwrap()
    }

    fn blob(e: &[u8], n: &[u8]) -> Vec<u8> {
        let mut blob = strings(&[b"ssh-rsa"]);
        blob.put_mpint(e);
        blob.put_mpint(n);
        blob
    }

    /// An odd number of so many bits.
    fn odd(bits: usize) -> Vec<u8> {
        let mut number = vec![0x5a; bits.div_ceil(8)];
        number[0] = 1 << ((bits - 1) % 8);
        *number.last_mut().unwrap() |= 1;
        number
    }

    #[test]
    fn signatures_by_and_as_openssh_makes_them() {
        let signer = signer();
        let public = signer.public_key();
        assert_eq!(public.as_blob(), key::BLOB);
        for (algorithm, signature) in BOTH {
            let made = signer
                .sign(&to_sign(&public, algorithm.name(), SSHSIG_MESSAGE), &mut Script::new(1))
                .unwrap();
            assert_eq!((made.algorithm(), made.as_bytes()), (algorithm.name(), signature));
            assert_eq!(algorithm.check_key(key::BLOB), Ok(()));
            assert_eq!(algorithm.verify(key::BLOB, SSHSIG_MESSAGE, signature), Ok(()));
            assert_eq!(algorithm.verify(key::BLOB, b"other", signature), Err(BadSignature));
        }
    }

    #[test]
    fn kx_08_a_signature_with_the_other_hash_does_not_verify() {
        assert_eq!(RsaSha2::Sha256.verify(key::BLOB, SSHSIG_MESSAGE, key::SHA512), Err(BadSignature));
        assert_eq!(RsaSha2::Sha512.verify(key::BLOB, SSHSIG_MESSAGE, key::SHA256), Err(BadSignature));
    }

    #[test]
    fn signatures_without_their_leading_zeros_are_accepted_and_longer_ones_are_not() {
        let signer = signer();
        let public = signer.public_key();
        // One message in 256 has a signature that begins with a zero.
        let (message, signature) = (0_u32..)
            .map(|number| {
                let message = number.to_be_bytes();
                let what = to_sign(&public, "rsa-sha2-256", &message);
                let signature = signer.sign(&what, &mut Script::new(1)).unwrap();
                (message, signature.as_bytes().to_vec())
            })
            .find(|(_, signature)| signature[0] == 0)
            .unwrap();
        let verify = |signature: &[u8]| RsaSha2::Sha256.verify(key::BLOB, &message, signature);
        assert_eq!(verify(&signature), Ok(()));
        assert_eq!(verify(&signature[1..]), Ok(()));
        assert_eq!(verify(&[&[0], &signature[..]].concat()), Err(BadSignature));
        assert_eq!(verify(&signature[..255]), Err(BadSignature));
        assert_eq!(verify(&[]), Err(BadSignature));
        assert_eq!(verify(&[0; 256]), Err(BadSignature));
        // Not below the modulus.
        assert_eq!(verify(key::N), Err(BadSignature));
        assert_eq!(verify(&[0xff; 256]), Err(BadSignature));
    }

    #[test]
    fn kx_16_a_wrong_signature_is_not_handed_out() {
        let mut faulty = signer();
        // As if the private operation had gone wrong: it computes with another key than the one that verifies.
        let mut n = key::N.to_vec();
        n[100] ^= 1;
        faulty.public = PublicKey::from_blob(&blob(key::E, &n)).unwrap();
        let public = faulty.public_key();
        for (algorithm, _) in BOTH {
            let what = to_sign(&public, algorithm.name(), b"m");
            assert_eq!(faulty.sign(&what, &mut Script::new(1)), Err(SignRefused));
        }
    }

    #[test]
    fn kx_17_sizes_and_exponents_are_bounded() {
        let f4 = [1, 0, 1];
        let check = |e: &[u8], n: &[u8]| RsaSha2::Sha512.check_key(&blob(e, n));
        for bits in [2048, 2049, 3072, 4096, 16383, 16384] {
            assert_eq!(check(&f4, &odd(bits)), Ok(()), "{bits}");
        }
        for bits in [1, 8, 512, 1024, 2040, 2047] {
            assert_eq!(check(&f4, &odd(bits)), Err(KeyError::WeakOrHuge), "{bits}");
        }
        assert_eq!(check(&f4, &[]), Err(KeyError::WeakOrHuge));
        // What no decoder takes for an mpint.
        for bits in [16392, 65536, 1 << 20] {
            assert!(check(&f4, &odd(bits)).is_err(), "{bits}");
        }
        for e in [&[3][..], &f4, &[0xff; 8]] {
            assert_eq!(check(e, &odd(2048)), Ok(()), "{e:x?}");
        }
        for e in [&[][..], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 1], &[0xff; 256]] {
            assert_eq!(check(e, &odd(2048)), Err(KeyError::WeakOrHuge), "{e:x?}");
        }
        let mut even = odd(2048);
        even[255] ^= 1;
        assert_eq!(check(&f4, &even), Err(KeyError::Malformed));
    }

    #[test]
    fn kx_17_hostile_keys_verify_nothing_and_never_panic() {
        for (e, n) in [
            (&[3][..], odd(2048)),
            (&[0xff; 8], odd(2048)),
            (&[0xff; 8], odd(16384)),
            (&[1], odd(2048)),
            (&[2], odd(2048)),
            (&[3], vec![0xfe; 256]),
            (&[3], Vec::new()),
        ] {
            for signature in [&[][..], &[1], &[0xff; 256], &[0; 2048]] {
                let verdict = RsaSha2::Sha256.verify(&blob(e, &n), b"m", signature);
                assert_eq!(verdict, Err(BadSignature));
            }
        }
    }

    #[test]
    fn kx_10_and_kx_18_key_blobs_and_names_of_another_form_are_refused() {
        let signer = signer();
        let public = signer.public_key();
        let mut other_type = strings(&[b"ssh-dss"]);
        other_type.extend_from_slice(&key::BLOB[11..]);
        for bad in [other_type, [key::BLOB, &[0]].concat(), key::BLOB[..100].to_vec(), Vec::new()] {
            assert_eq!(RsaSha2::Sha512.check_key(&bad), Err(KeyError::Malformed));
        }
        for name in ["ssh-rsa", "ssh-ed25519", ""] {
            assert_eq!(signer.sign(&to_sign(&public, name, b"m"), &mut Script::new(1)), Err(SignRefused));
        }
        let other = PublicKey::from_blob(&blob(key::E, &odd(2048))).unwrap();
        assert_eq!(
            signer.sign(&to_sign(&other, "rsa-sha2-512", b"m"), &mut Script::new(1)),
            Err(SignRefused)
        );
        assert_eq!(signer.sign(&to_sign(&public, "rsa-sha2-512", b"m"), &mut FailsAt(0)), Err(SignRefused));
    }

    #[test]
    fn components_that_do_not_belong_together_are_refused() {
        let with = |n: &[u8], e: &[u8], d: &[u8], p: &[u8], q: &[u8]| {
            RsaSigner::from_components(n, e, d, p, q).err()
        };
        assert_eq!(with(key::N, key::E, key::D, key::Q, key::P), None);
        assert_eq!(with(&[&[0, 0], key::N].concat(), key::E, key::D, key::P, key::Q), None);
        let mut d = key::D.to_vec();
        d[200] ^= 4;
        assert_eq!(with(key::N, key::E, &d, key::P, key::Q), Some(KeyError::Malformed));
        assert_eq!(with(key::N, key::E, key::D, key::P, key::P), Some(KeyError::Malformed));
        assert_eq!(with(key::N, &[3], key::D, key::P, key::Q), Some(KeyError::Malformed));
        assert_eq!(with(key::N, key::E, &[], &[], &[]), Some(KeyError::Malformed));
        assert_eq!(with(key::N, key::E, key::D, &[1], key::N), Some(KeyError::Malformed));
        assert_eq!(with(key::P, key::E, key::D, key::P, &[1]), Some(KeyError::WeakOrHuge));
        assert_eq!(with(key::N, &[4], key::D, key::P, key::Q), Some(KeyError::WeakOrHuge));
    }

    #[test]
    fn a_generated_key_signs_and_the_same_entropy_gives_it_again() {
        let (one, two) = (RsaSigner::generate(2048, &mut Script::new(1)).unwrap(), {
            RsaSigner::generate(2048, &mut Script::new(1)).unwrap()
        });
        let public = one.public_key();
        assert_eq!(public, two.public_key());
        assert_eq!(RsaSha2::Sha512.check_key(public.as_blob()), Ok(()));
        assert!(one.sign(&to_sign(&public, "rsa-sha2-512", b"m"), &mut Script::new(2)).is_ok());
        assert_eq!(RsaSigner::generate(2047, &mut Script::new(1)).err(), Some(RsaGenerateError::Size));
        assert_eq!(RsaSigner::generate(2048, &mut FailsAt(0)).err(), Some(RsaGenerateError::Entropy));
    }
}
