//! Random sources: a seeded one, and one that fails.

use ssh_proto::{Entropy, EntropyError};

/// Repeatable bytes by splitmix64. As random source of a test it is good, of anything else it is none.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// A source that gives the same bytes for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// Bytes, `len` of them.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.put(&mut bytes);
        bytes
    }

    fn put(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.number().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        self.put(out);
        Ok(())
    }
}

/// A source whose call of this number, counted from zero, fails, and every later one.
#[derive(Debug, Clone)]
pub struct FailsAt {
    left: usize,
    source: Seeded,
}

impl FailsAt {
    /// Fails at the call of this number.
    pub fn call(number: usize) -> Self {
        Self { left: number, source: Seeded::new(0) }
    }
}

impl Entropy for FailsAt {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        self.left = self.left.checked_sub(1).ok_or(EntropyError)?;
        self.source.fill(out)
    }
}
