//! Randomness as an argument: the machine owns a source its embedder gave it, and no other.

use core::fmt;

/// A source of cryptographically secure random bytes.
///
/// It is a constructor argument of [`Connection`](crate::Connection); the crate reads no operating system
/// generator. The same seed and the same calls give the same bytes on the wire, for providers that
/// declare themselves [`deterministic`](crate::crypto::Provider::deterministic).
pub trait Entropy {
    /// Fills the whole of `out`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed. `out` is then not used: the connection ends with
    /// [`CloseReason::Entropy`](crate::CloseReason::Entropy) instead of going on with predictable bytes.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError>;
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(out)
    }
}

/// The random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntropyError;

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the random source failed")
    }
}

impl core::error::Error for EntropyError {}
