//! Deadlines, each with its reason.
//!
//! A deadline started by a command has no point in time yet, because commands carry none: it is armed by
//! the next `handle_*`. Deadlines of progress (write stall, keepalive, idle) are lazy: progress only leaves
//! a mark, and the deadline moves on when it is due, so that no packet touches a timer.

use core::fmt;
use core::time::Duration;

use crate::time::Instant;

/// What a deadline is for.
///
/// Of what the peer owes after authentication ([`Kex`](Self::Kex), [`OpenReply`](Self::OpenReply),
/// [`RequestReply`](Self::RequestReply)) none is missed while input stands still because of the embedder: when
/// the event queue is full or a question about the key exchange is unanswered at the time, or was so and input
/// was not offered since, the deadline starts again. [`Keepalive`](Self::Keepalive) counts no silence then. All
/// others run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutReason {
    /// The peer's identification line.
    Ident,
    /// A key exchange, initial or later.
    Kex,
    /// Authentication as a whole (the server's login grace), or the answer to one request (client).
    Login,
    /// A held-back authentication reply goes out.
    AuthDelay,
    /// The answer to a channel open.
    OpenReply,
    /// The answer to a channel or global request.
    RequestReply,
    /// Output that the transport does not take.
    WriteStall,
    /// A keepalive is due, or too many went unanswered.
    Keepalive,
    /// Nothing but keepalives for too long.
    Idle,
    /// A re-exchange is due.
    Rekey,
    /// The last output after the close.
    Linger,
}

const REASONS: [TimeoutReason; 11] = [
    TimeoutReason::Ident,
    TimeoutReason::Kex,
    TimeoutReason::Login,
    TimeoutReason::AuthDelay,
    TimeoutReason::OpenReply,
    TimeoutReason::RequestReply,
    TimeoutReason::WriteStall,
    TimeoutReason::Keepalive,
    TimeoutReason::Idle,
    TimeoutReason::Rekey,
    TimeoutReason::Linger,
];

impl TimeoutReason {
    /// Every reason, for tests that must provoke each.
    pub const ALL: &'static [Self] = &REASONS;
}

impl fmt::Display for TimeoutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ident => "waiting for the identification line",
            Self::Kex => "key exchange",
            Self::Login => "authentication",
            Self::AuthDelay => "authentication delay",
            Self::OpenReply => "waiting for the answer to a channel open",
            Self::RequestReply => "waiting for the answer to a request",
            Self::WriteStall => "the transport takes no output",
            Self::Keepalive => "the peer does not answer keepalives",
            Self::Idle => "idle",
            Self::Rekey => "key re-exchange",
            Self::Linger => "last output",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Deadline {
    #[default]
    Off,
    /// Started by a command; armed at the next `handle_*`.
    After(Duration),
    /// The same for a step of [`Timers::start_step`].
    Step {
        since: Instant,
        first: Duration,
    },
    At(Instant),
}

/// The deadlines that were taken in one call.
#[derive(Debug, Default)]
pub(crate) struct Taken([bool; REASONS.len()]);

/// All deadlines of a connection.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: [Deadline; REASONS.len()],
}

impl Timers {
    fn slot(&mut self, reason: TimeoutReason) -> Option<&mut Deadline> {
        self.deadlines.get_mut(reason as usize)
    }

    /// Starts (or restarts) a deadline `after` from the next `handle_*`; `None` turns it off.
    pub(crate) fn start(&mut self, reason: TimeoutReason, after: Option<Duration>) {
        if let Some(slot) = self.slot(reason) {
            *slot = after.map_or(Deadline::Off, Deadline::After);
        }
    }

    /// Starts a deadline at one of the points `first`, twice `first`, four times `first` ... after `since`: the
    /// first of them that is not over at the next `handle_*`.
    pub(crate) fn start_step(&mut self, reason: TimeoutReason, since: Instant, first: Duration) {
        if let Some(slot) = self.slot(reason) {
            *slot = Deadline::Step { since, first };
        }
    }

    /// Sets a deadline to a point in time.
    pub(crate) fn set(&mut self, reason: TimeoutReason, at: Instant) {
        if let Some(slot) = self.slot(reason) {
            *slot = Deadline::At(at);
        }
    }

    pub(crate) fn stop(&mut self, reason: TimeoutReason) {
        self.start(reason, None);
    }

    pub(crate) fn stop_all(&mut self) {
        self.deadlines = Default::default();
    }

    pub(crate) fn is_running(&self, reason: TimeoutReason) -> bool {
        self.deadlines.get(reason as usize).is_some_and(|deadline| *deadline != Deadline::Off)
    }

    /// Gives every started deadline its point in time.
    pub(crate) fn arm(&mut self, now: Instant) {
        for deadline in &mut self.deadlines {
            match *deadline {
                Deadline::After(after) => *deadline = Deadline::At(now.saturating_add(after)),
                Deadline::Step { since, first } => {
                    let passed = now.saturating_since(since);
                    *deadline = Deadline::At(since.saturating_add(step(first, passed)));
                }
                Deadline::Off | Deadline::At(_) => {}
            }
        }
    }

    /// The next deadline; one that is not armed yet is due at `now`, the last point in time seen.
    pub(crate) fn next(&self, now: Instant) -> Option<(Instant, TimeoutReason)> {
        let points = self.deadlines.iter().zip(REASONS).filter_map(|(deadline, reason)| match *deadline {
            Deadline::Off => None,
            Deadline::After(_) | Deadline::Step { .. } => Some((now, reason)),
            Deadline::At(at) => Some((at, reason)),
        });
        points.min_by_key(|(at, _)| *at)
    }

    /// Takes the earliest deadline that is due and not among those `taken`, turning it off.
    pub(crate) fn take_due(&mut self, now: Instant, taken: &mut Taken) -> Option<TimeoutReason> {
        let all = self.deadlines.iter_mut().zip(&mut taken.0).zip(REASONS);
        let due = all.filter_map(|((deadline, taken), reason)| match *deadline {
            Deadline::At(at) if at <= now && !*taken => Some((at, deadline, taken, reason)),
            _ => None,
        });
        due.min_by_key(|(at, ..)| *at).map(|(_, deadline, taken, reason)| {
            *deadline = Deadline::Off;
            *taken = true;
            reason
        })
    }
}

/// The longest that is waited for a doubling: behind it a person decided, not a function whose time tells
/// something, and is not to be kept waiting as long again. OpenSSH has the same bound.
const LONGEST_STEP: Duration = Duration::from_secs(5);

/// `first`, doubled until it is no shorter than what `passed`; just that when it is too long to double.
fn step(first: Duration, passed: Duration) -> Duration {
    if passed > LONGEST_STEP.max(first) {
        return passed;
    }
    let mut step = first;
    while step < passed && !step.is_zero() {
        step = step.saturating_mul(2);
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_duration(Duration::from_secs(secs))
    }

    #[test]
    fn the_reasons_stand_at_their_own_index() {
        for (index, reason) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn a_step_is_the_first_doubling_that_is_not_over() {
        let ms = Duration::from_millis;
        for (passed, due) in [(0, 10), (10, 10), (11, 20), (20, 20), (21, 40), (1_000, 1_280)] {
            assert_eq!(step(ms(10), ms(passed)), ms(due), "{passed}");
        }
        assert_eq!(step(Duration::ZERO, ms(1)), Duration::ZERO);
        assert_eq!((step(ms(10), ms(5_000)), step(ms(10), ms(5_001))), (ms(5_120), ms(5_001)));
        assert_eq!((step(ms(6_000), ms(5_001)), step(ms(6_000), ms(6_001))), (ms(6_000), ms(6_001)));
        assert_eq!(step(ms(1), Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_deadline_started_by_a_command_is_armed_by_the_next_call_that_knows_the_time() {
        let mut timers = Timers::default();
        timers.start(TimeoutReason::Kex, Some(Duration::from_secs(30)));
        assert_eq!(timers.next(at(5)), Some((at(5), TimeoutReason::Kex)));
        assert_eq!(timers.take_due(at(5), &mut Taken::default()), None);
        timers.arm(at(7));
        assert_eq!(timers.next(at(7)), Some((at(37), TimeoutReason::Kex)));
        assert_eq!(timers.take_due(at(36), &mut Taken::default()), None);
        assert_eq!(timers.take_due(at(37), &mut Taken::default()), Some(TimeoutReason::Kex));
        assert_eq!(timers.next(at(37)), None);
    }

    #[test]
    fn what_is_due_is_taken_in_the_order_of_time() {
        let mut timers = Timers::default();
        for (reason, secs) in [(TimeoutReason::Kex, 3), (TimeoutReason::Idle, 1), (TimeoutReason::Linger, 2)]
        {
            timers.set(reason, at(secs));
        }
        timers.set(TimeoutReason::Ident, at(9));
        for reason in [TimeoutReason::Idle, TimeoutReason::Linger, TimeoutReason::Kex] {
            assert_eq!(timers.next(at(8)).map(|(_, reason)| reason), Some(reason));
            assert_eq!(timers.take_due(at(8), &mut Taken::default()), Some(reason));
        }
        assert_eq!(timers.take_due(at(8), &mut Taken::default()), None);
    }
}
