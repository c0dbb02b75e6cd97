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
use crate::crypto::{BadSignature, Digest, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::{PutSsh, decode};

const KEY_TYPE: &str = "ssh-rsa";
const MIN_BITS: usize = 2048;
const MAX_BITS: usize = 16384;

/// The verifiers, by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RsaSha2 {
    Sha256,
    Sha512,
}

impl RsaSha2 {
    fn by_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
    }

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
        match self {
            Self::Sha256 => "rsa-sha2-256",
            Self::Sha512 => "rsa-sha2-512",
        }
    }

    fn key_type(&self) -> &'static str {
        KEY_TYPE
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        Parts::of_blob(key).map(|_| ())
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let parts = Parts::of_blob(key).map_err(|_| BadSignature)?;
        // Some signers drop leading zeros, and OpenSSH accepts that.
        let missing = parts.n.len().checked_sub(signature.len()).ok_or(BadSignature)?;
        let mut padded = vec![0; missing];
        padded.extend_from_slice(signature);
        let key = parts.public_key().map_err(|_| BadSignature)?;
        let digest = self.digest(message);
        key.verify(self.padding(), digest.as_bytes(), &padded).map_err(|_| BadSignature)
    }
}

/// A public key's numbers, big-endian without leading zeros, of acceptable size. Checked without any
/// arithmetic, so that a hostile key costs nothing.
struct Parts<'a> {
    e: u64,
    n: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of_blob(blob: &'a [u8]) -> Result<Self, KeyError> {
        let (name, e, n) = decode::all(blob, |input| {
            let (input, name) = decode::string(input)?;
            let (input, e) = decode::mpint(input)?;
            let (input, n) = decode::mpint(input)?;
            Ok((input, (name, e, n)))
        })
        .map_err(|_| KeyError::Malformed)?;
        if name != KEY_TYPE.as_bytes() {
            return Err(KeyError::Malformed);
        }
        Self::new(e, n)
    }

    fn new(e: &[u8], n: &'a [u8]) -> Result<Self, KeyError> {
        let (e, n) = (without_zeros(e), without_zeros(n));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(MIN_BITS..=MAX_BITS).contains(&bits) || e.len() > 8 {
            return Err(KeyError::WeakOrHuge);
        }
        let e = e.iter().fold(0, |e, &byte| e << 8 | u64::from(byte));
        if e < 3 || e % 2 == 0 {
            return Err(KeyError::WeakOrHuge);
        }
        if n.last().is_none_or(|last| last % 2 == 0) {
            return Err(KeyError::Malformed);
        }
        Ok(Self { e, n })
    }

    fn public_key(&self) -> Result<RsaPublicKey, KeyError> {
        // Unchecked as to the limits of that crate; `new` has checked ours, and that n is odd.
        Ok(RsaPublicKey::new_unchecked(number(self.n)?, self.e.into()))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn number(bytes: &[u8]) -> Result<BoxedUint, KeyError> {
    let bytes = without_zeros(bytes);
    let bits = u32::try_from(bytes.len() * 8).map_err(|_| KeyError::WeakOrHuge)?;
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
        let secret = RsaPrivateKey::from_components(n, parts.e.into(), number(d)?, primes)
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
