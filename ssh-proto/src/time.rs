//! Time as an argument: a point on a clock the embedder chose.

use core::ops::Add;
use core::time::Duration;

/// A point in time, as the duration since an origin the embedder chooses.
///
/// Only differences matter. It must never run backwards; a value smaller than one seen before is
/// treated as if no time had passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(Duration);

impl Instant {
    /// The origin of the embedder's clock.
    pub const ORIGIN: Self = Self(Duration::ZERO);

    /// The point `since_origin` after the origin.
    pub const fn from_duration(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time passed since the origin.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The point `by` later, or the last there is.
    #[must_use]
    pub const fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// The time from `earlier` to `self`, or zero when `earlier` is the later one.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        self.saturating_add(by)
    }
}
