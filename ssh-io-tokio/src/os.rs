//! What the state machine leaves to its surroundings: the time, and random bytes.

use std::sync::OnceLock;

use ssh_proto::{Entropy, EntropyError, Instant};

/// The operating system's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

fn origin() -> tokio::time::Instant {
    static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(tokio::time::Instant::now)
}

/// The runtime's time, which stands still in tests that pause it.
pub(crate) fn now() -> Instant {
    Instant::from_duration(tokio::time::Instant::now().saturating_duration_since(origin()))
}

/// A point of the machine's time as the runtime's.
pub(crate) fn at(instant: Instant) -> tokio::time::Instant {
    origin() + instant.as_duration()
}
