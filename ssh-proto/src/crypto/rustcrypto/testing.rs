//! Random sources and shorthands for the tests of this module.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::entropy::{Entropy, EntropyError};
use crate::key::{PublicKey, SignPurpose, ToSign};
use crate::wire::PutSsh;

/// Repeatable random bytes: SHA-256 of a seed and a counter.
pub(in crate::crypto) struct Script {
    seed: u64,
    counter: u64,
    pool: Vec<u8>,
}

impl Script {
    pub(in crate::crypto) fn new(seed: u64) -> Self {
        Self { seed, counter: 0, pool: Vec::new() }
    }

    /// Hands out `bytes` first.
    pub(in crate::crypto) fn starting_with(bytes: &[u8]) -> Self {
        Self { seed: 0, counter: 0, pool: bytes.to_vec() }
    }
}

impl Entropy for Script {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        while self.pool.len() < out.len() {
            let block = [self.seed.to_be_bytes(), self.counter.to_be_bytes()].concat();
            self.pool.extend_from_slice(&Sha256::digest(block));
            self.counter += 1;
        }
        out.copy_from_slice(&self.pool[..out.len()]);
        self.pool.drain(..out.len());
        Ok(())
    }
}

/// Fails at the call of this number, counted from zero.
pub(in crate::crypto) struct FailsAt(pub(in crate::crypto) usize);

impl Entropy for FailsAt {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        self.0 = self.0.checked_sub(1).ok_or(EntropyError)?;
        Script::new(9).fill(out)
    }
}

pub(in crate::crypto) fn to_sign<'a>(
    key: &'a PublicKey,
    algorithm: &'a str,
    message: &'a [u8],
) -> ToSign<'a> {
    ToSign { purpose: SignPurpose::HostKey, key, algorithm, message }
}

/// Strings one after another, as key blobs are built.
pub(in crate::crypto) fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.put_string(part);
    }
    out
}
