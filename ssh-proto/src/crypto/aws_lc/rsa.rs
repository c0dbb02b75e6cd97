//! `rsa-sha2-512` and `rsa-sha2-256` (RFC 8332). Signatures with SHA-1, under the name `ssh-rsa`, are neither made
//! nor accepted.

use alloc::vec;
use alloc::vec::Vec;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding,
    RsaKeyPair, RsaParameters,
};
use crypto_bigint::{BoxedUint, NonZero, Odd};
use zeroize::Zeroizing;

use crate::crypto::rsa_key::{KEY_TYPE, Parts, RsaSha2, without_zeros};
use crate::crypto::rustcrypto::signer;
use crate::crypto::{BadSignature, SignatureAlgorithm};
use crate::entropy::Entropy;
use crate::key::{KeyError, PublicKey, SignRefused, Signature, Signer, ToSign};
use crate::wire::PutSsh;

/// Bytes of the longest modulus and exponent that AWS-LC takes.
const MAX_MODULUS: usize = 8192 / 8;
const MAX_EXPONENT: usize = 4;

/// Whether AWS-LC takes a key. RustCrypto sees to the others, if it is built with RSA.
fn takes(parts: &Parts<'_>) -> bool {
    parts.n.len() <= MAX_MODULUS && parts.e.len() <= MAX_EXPONENT
}

/// The verifiers, by hash.
pub(super) struct Rsa(pub(super) RsaSha2);

impl Rsa {
    fn parameters(&self) -> &'static RsaParameters {
        match self.0 {
            RsaSha2::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            RsaSha2::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        }
    }
}

impl SignatureAlgorithm for Rsa {
    fn name(&self) -> &'static str {
        self.0.algorithm()
    }

    fn key_type(&self) -> &'static str {
        KEY_TYPE
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        let parts = Parts::of_blob(key)?;
        if takes(&parts) || cfg!(feature = "rsa") { Ok(()) } else { Err(KeyError::WeakOrHuge) }
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let parts = Parts::of_blob(key).map_err(|_| BadSignature)?;
        if !takes(&parts) {
            #[cfg(feature = "rsa")]
            return self.0.verify(key, message, signature);
            #[cfg(not(feature = "rsa"))]
            return Err(BadSignature);
        }
        let signature = parts.padded(signature)?;
        let key = PublicKeyComponents { n: parts.n, e: parts.e };
        key.verify(self.parameters(), message, &signature).map_err(|_| BadSignature)
    }
}

/// Signs with an RSA key held in memory, wiped when dropped. While it is made, the inverse of one prime by the other
/// leaves some of its steps in memory that is given back.
///
/// The private operation is blinded and takes constant time; AWS-LC verifies what it computed before it is handed
/// out: a wrong signature would give the key away.
pub struct RsaSigner {
    secret: RsaKeyPair,
    public: PublicKey,
}

signer!(RsaSigner);

impl RsaSigner {
    /// The key of modulus `n`, public exponent `e`, private exponent `d` and primes `p` and `q`, big-endian.
    ///
    /// # Errors
    /// [`KeyError::WeakOrHuge`] for a modulus not of 2048 to 8192 bits or an exponent that is even, below
    /// 3 or beyond 32 bits; [`KeyError::Malformed`] when the numbers do not belong together.
    pub fn from_components(n: &[u8], e: &[u8], d: &[u8], p: &[u8], q: &[u8]) -> Result<Self, KeyError> {
        let parts = Parts::new(e, n)?;
        if !takes(&parts) {
            return Err(KeyError::WeakOrHuge);
        }
        // Key files do not tell what the Chinese remainder theorem wants of d; AWS-LC checks it all.
        let whole = Zeroizing::new(number(d)?);
        if without_zeros(d).len() > parts.n.len() {
            // AWS-LC would take it, and then not sign.
            return Err(KeyError::Malformed);
        }
        let (prime, other) = (odd(p)?, odd(q)?);
        let [dp, dq] = [&prime, &other].map(|prime| {
            let less_one = NonZero::new(prime.wrapping_sub(BoxedUint::one())).into_option()?;
            Some(bytes(rest(&whole, &Zeroizing::new(less_one))))
        });
        let other_mod_prime = Zeroizing::new(rest(&other, prime.as_nz_ref()));
        let qinv = other_mod_prime.invert_odd_mod(&prime).into_option().map(bytes);
        let secret = RsaKeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: parts.n, e: parts.e },
            d,
            p,
            q,
            dP: &dp.ok_or(KeyError::Malformed)?,
            dQ: &dq.ok_or(KeyError::Malformed)?,
            qInv: &qinv.ok_or(KeyError::Malformed)?,
        })
        .map_err(|_| KeyError::Malformed)?;
        let mut blob = Vec::new();
        blob.put_string(KEY_TYPE.as_bytes());
        blob.put_mpint(parts.e);
        blob.put_mpint(parts.n);
        Ok(Self { secret, public: PublicKey::from_blob(&blob)? })
    }
}

fn number(bytes: &[u8]) -> Result<BoxedUint, KeyError> {
    let bytes = without_zeros(bytes);
    if bytes.len() > MAX_MODULUS {
        return Err(KeyError::Malformed);
    }
    let bits = u32::try_from(bytes.len().saturating_mul(8)).map_err(|_| KeyError::Malformed)?;
    BoxedUint::from_be_slice(bytes, bits).map_err(|_| KeyError::Malformed)
}

fn odd(bytes: &[u8]) -> Result<Zeroizing<Odd<BoxedUint>>, KeyError> {
    Odd::new(number(bytes)?).into_option().map(Zeroizing::new).ok_or(KeyError::Malformed)
}

/// The quotient would tell of the private key too.
fn rest(number: &BoxedUint, by: &NonZero<BoxedUint>) -> BoxedUint {
    let (quotient, rest) = number.div_rem(by);
    drop(Zeroizing::new(quotient));
    rest
}

fn bytes(number: BoxedUint) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Zeroizing::new(number).to_be_bytes().into_vec())
}

impl Signer for RsaSigner {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        let algorithm = RsaSha2::by_name(what.algorithm()).ok_or(SignRefused)?;
        let encoding: &'static dyn RsaEncoding = match algorithm {
            RsaSha2::Sha256 => &RSA_PKCS1_SHA256,
            RsaSha2::Sha512 => &RSA_PKCS1_SHA512,
        };
        if what.key() != &self.public {
            return Err(SignRefused);
        }
        let mut signature = vec![0; self.secret.public_modulus_len()];
        self.secret
            .sign(encoding, &SystemRandom::new(), what.message(), &mut signature)
            .map_err(|_| SignRefused)?;
        Ok(Signature::new(algorithm.algorithm(), signature))
    }

    fn needs_check(&self) -> bool {
        // AWS-LC has done it.
        false
    }
}
