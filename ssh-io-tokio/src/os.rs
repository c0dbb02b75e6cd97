//! What the state machine leaves to its surroundings: the time, and random bytes.

use ssh_proto::{Entropy, EntropyError, Instant};

/// The operating system's random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

/// The runtime's time, which stands still in tests that pause it, counted from the start of a connection: a
/// process may have several runtimes, and each its own time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_duration(tokio::time::Instant::now().saturating_duration_since(self.0))
    }

    /// A point of the machine's time as the runtime's. `None` for one that never comes.
    pub(crate) fn at(self, instant: Instant) -> Option<tokio::time::Instant> {
        self.0.checked_add(instant.as_duration())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_runtime_has_its_own_time() {
        for ahead in [1_000_000, 0, 1000] {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                tokio::time::advance(Duration::from_secs(ahead)).await;
                let clock = Clock::start();
                assert_eq!(clock.now(), Instant::ORIGIN);
                tokio::time::advance(Duration::from_secs(7)).await;
                assert_eq!(clock.now(), Instant::from_duration(Duration::from_secs(7)));
                assert_eq!(clock.at(clock.now()), Some(tokio::time::Instant::now()));
            });
        }
        assert_eq!(Clock::start().at(Instant::from_duration(Duration::MAX)), None);
    }
}
