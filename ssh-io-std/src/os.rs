//! What the state machine leaves to the operating system: the time, and random bytes.

use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant};

use ssh_proto::{Entropy, EntropyError, Instant};

/// The operating system's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

/// The monotonic time since the first call in this process.
pub(crate) fn now() -> Instant {
    static ORIGIN: OnceLock<StdInstant> = OnceLock::new();
    Instant::from_duration(ORIGIN.get_or_init(StdInstant::now).elapsed())
}

/// When `timeout` will have passed; `None` when that is too far away to ever be.
pub(crate) fn after(timeout: Duration) -> Option<StdInstant> {
    StdInstant::now().checked_add(timeout)
}

/// How long to wait until `at`.
pub(crate) fn until(at: Instant) -> Duration {
    at.saturating_since(now())
}
