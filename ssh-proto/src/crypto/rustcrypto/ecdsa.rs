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

const NAME: &str = "ecdsa-sha2-nistp256";
const CURVE: &str = "nistp256";

/// The verifier. Both halves of a signature lie between 1 and the order; a high S is accepted, as everywhere
/// in SSH.
pub(super) struct EcdsaP256;

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
        let (r, s) = decode::all(signature, |input| {
            let (input, r) = decode::mpint(input)?;
            let (input, s) = decode::mpint(input)?;
            Ok((input, (r, s)))
        })
        .map_err(|_| BadSignature)?;
        let (r, s) = (scalar(r).ok_or(BadSignature)?, scalar(s).ok_or(BadSignature)?);
        let signature = RawSignature::from_scalars(r, s).map_err(|_| BadSignature)?;
        key.verify(message, &signature).map_err(|_| BadSignature)
    }
}

/// A number of at most 32 bytes, at its full width.
fn scalar(number: &[u8]) -> Option<[u8; 32]> {
    let mut wide = [0; 32];
    wide.get_mut(32_usize.checked_sub(number.len())?..)?.copy_from_slice(number);
    Some(wide)
}

fn verifying_key(blob: &[u8]) -> Result<VerifyingKey, KeyError> {
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
    nistp::point(point).map(VerifyingKey::from).ok_or(KeyError::Malformed)
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
        let mut blob = Vec::new();
        blob.put_string(NAME.as_bytes());
        blob.put_string(CURVE.as_bytes());
        blob.put_string(&nistp::point_bytes(&secret.public_key()));
        Ok(Self { secret: secret.into(), public: PublicKey::from_blob(&blob)? })
    }
}

impl Signer for EcdsaP256Signer {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        if what.algorithm() != NAME || what.key() != &self.public {
            return Err(SignRefused);
        }
        let signature: RawSignature = self.secret.try_sign(what.message()).map_err(|_| SignRefused)?;
        let (r, s) = signature.split_bytes();
        let mut bytes = Vec::new();
        bytes.put_mpint(&r);
        bytes.put_mpint(&s);
        Ok(Signature::new(NAME, bytes))
    }
}
