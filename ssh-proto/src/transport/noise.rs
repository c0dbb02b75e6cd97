//! The budget for messages without effect.
//!
//! DoS: IGNORE, DEBUG, unsolicited replies, empty data and the like are legal and free for the sender. A token
//! bucket lets honest use through (a keepalive made of IGNORE, say) and ends a flood.

use core::time::Duration;

use crate::error::PeerMisbehaved;
use crate::time::Instant;

/// Useful bytes that earn one token.
const BYTES_PER_TOKEN: usize = 4096;

#[derive(Debug)]
pub(crate) struct NoiseBudget {
    burst: u32,
    tokens: u32,
    useful: usize,
    refilled: Instant,
    unimplemented: u32,
    max_unimplemented: u32,
}

impl NoiseBudget {
    pub(crate) fn new(burst: u32, max_unimplemented: u32, now: Instant) -> Self {
        Self { burst, tokens: burst, useful: 0, refilled: now, unimplemented: 0, max_unimplemented }
    }

    /// One message without effect.
    pub(crate) fn spend(&mut self, now: Instant) -> Result<(), PeerMisbehaved> {
        let passed = now.saturating_since(self.refilled);
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.tokens = self.tokens.saturating_add(seconds).min(self.burst);
            let passed = Duration::from_secs(u64::from(seconds));
            self.refilled = self.refilled.saturating_add(passed);
        }
        self.tokens = self.tokens.checked_sub(1).ok_or(PeerMisbehaved::NoiseFlood)?;
        Ok(())
    }

    /// One message of an unknown number, about to be answered.
    pub(crate) fn spend_unimplemented(&mut self) -> Result<(), PeerMisbehaved> {
        self.unimplemented = self.unimplemented.saturating_add(1);
        match self.unimplemented > self.max_unimplemented {
            true => Err(PeerMisbehaved::UnimplementedFlood),
            false => Ok(()),
        }
    }

    /// A message with an effect, of this many bytes.
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.unimplemented = 0;
        self.useful = self.useful.saturating_add(bytes);
        if self.useful >= BYTES_PER_TOKEN {
            let earned = u32::try_from(self.useful / BYTES_PER_TOKEN).unwrap_or(u32::MAX);
            self.useful %= BYTES_PER_TOKEN;
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pk_13_a_flood_ends_and_honest_noise_goes_on() {
        let mut budget = NoiseBudget::new(4, 2, Instant::ORIGIN);
        for _ in 0..4 {
            assert_eq!(budget.spend(Instant::ORIGIN), Ok(()));
        }
        assert_eq!(budget.spend(Instant::ORIGIN), Err(PeerMisbehaved::NoiseFlood));
        budget.earn(2 * 4096);
        assert_eq!(budget.spend(Instant::ORIGIN), Ok(()));
        assert_eq!(budget.spend(Instant::ORIGIN), Ok(()));
        assert!(budget.spend(Instant::ORIGIN).is_err());
        for second in 1..1000 {
            assert_eq!(budget.spend(Instant::from_duration(Duration::from_secs(second))), Ok(()));
        }
    }

    #[test]
    fn sm_21_unknown_messages_are_answered_so_often_between_useful_ones() {
        let mut budget = NoiseBudget::new(4, 2, Instant::ORIGIN);
        assert_eq!([(); 3].map(|()| budget.spend_unimplemented().is_ok()), [true, true, false]);
        budget.earn(1);
        assert!(budget.spend_unimplemented().is_ok());
    }
}
