//! What RSA is in SSH (RFC 8332), whoever computes it: names, and the form and size of public keys.

use alloc::vec;
use alloc::vec::Vec;

use super::BadSignature;
use crate::key::KeyError;
use crate::wire::decode;

pub(super) const KEY_TYPE: &str = "ssh-rsa";
pub(super) const MIN_BITS: usize = 2048;
pub(super) const MAX_BITS: usize = 16384;

/// The signature algorithms, by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RsaSha2 {
    Sha256,
    Sha512,
}

impl RsaSha2 {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.algorithm() == name)
    }

    /// The algorithm's name.
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::Sha256 => "rsa-sha2-256",
            Self::Sha512 => "rsa-sha2-512",
        }
    }
}

/// A public key's numbers, big-endian without leading zeros, of acceptable size. Checked without any
/// arithmetic, so that a hostile key costs nothing.
pub(super) struct Parts<'a> {
    pub(super) e: &'a [u8],
    pub(super) n: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn of_blob(blob: &'a [u8]) -> Result<Self, KeyError> {
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

    pub(super) fn new(e: &'a [u8], n: &'a [u8]) -> Result<Self, KeyError> {
        let (e, n) = (without_zeros(e), without_zeros(n));
        let bits = n
            .first()
            .map_or(0, |first| n.len().saturating_mul(8).saturating_sub(first.leading_zeros() as usize));
        if !(MIN_BITS..=MAX_BITS).contains(&bits) || e.len() > 8 {
            return Err(KeyError::WeakOrHuge);
        }
        let parts = Self { e, n };
        let e = parts.exponent();
        if e < 3 || e.is_multiple_of(2) {
            return Err(KeyError::WeakOrHuge);
        }
        if n.last().is_none_or(|last| last % 2 == 0) {
            return Err(KeyError::Malformed);
        }
        Ok(parts)
    }

    pub(super) fn exponent(&self) -> u64 {
        self.e.iter().fold(0, |e, &byte| e << 8 | u64::from(byte))
    }

    /// A signature as long as the modulus: some signers drop leading zeros, and OpenSSH accepts that.
    pub(super) fn padded(&self, signature: &[u8]) -> Result<Vec<u8>, BadSignature> {
        let missing = self.n.len().checked_sub(signature.len()).ok_or(BadSignature)?;
        let mut padded = vec![0; missing];
        padded.extend_from_slice(signature);
        Ok(padded)
    }
}

pub(super) fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
