//! A condition variable that is cheap to notify.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LockResult, MutexGuard, PoisonError};
use std::time::Duration;

/// What threads wait on that hold one lock. To notify it while nobody waits, as for most packets, costs no system call,
/// and neither does to notify it again before those who wait had their turn.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    condvar: Condvar,
    /// Written with that lock held. A wait that ended by its limit may leave it behind.
    waited_on: AtomicBool,
}

impl Signal {
    /// Wakes all who wait. To be called with the lock held: else it could come between the mark of who is about to wait
    /// and the wait itself, and would take the mark away, so that nobody woke him any more.
    pub(crate) fn notify(&self) {
        if self.waited_on.swap(false, Ordering::SeqCst) {
            self.condvar.notify_all();
        }
    }

    /// The same for who may hold the lock or not. It takes no mark away, and does not spare the system call.
    pub(crate) fn notify_anyhow(&self) {
        self.condvar.notify_all();
    }

    /// Waits at most so long, and now and then for nothing.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Option<Duration>,
    ) -> LockResult<MutexGuard<'a, T>> {
        self.waited_on.store(true, Ordering::SeqCst);
        match limit {
            None => self.condvar.wait(guard),
            Some(limit) => match self.condvar.wait_timeout(guard, limit) {
                Ok((guard, _)) => Ok(guard),
                Err(poisoned) => Err(PoisonError::new(poisoned.into_inner().0)),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_who_waits_is_overlooked() {
        const THREADS: usize = 3;
        const TURNS: usize = 3_000;
        let (turn, signal) = (Mutex::new(0), Signal::default());
        thread::scope(|scope| {
            for me in 0..THREADS {
                let (turn, signal) = (&turn, &signal);
                scope.spawn(move || {
                    for _ in 0..TURNS {
                        let mut guard = turn.lock().unwrap();
                        while *guard % THREADS != me {
                            // A limit leaves its mark behind, and without one nobody goes on who was overlooked.
                            let limit = (*guard % 5 == 0).then_some(Duration::from_micros(1));
                            guard = signal.wait(guard, limit).unwrap();
                        }
                        *guard += 1;
                        signal.notify();
                    }
                });
            }
        });
        assert_eq!(turn.into_inner().unwrap(), THREADS * TURNS);
    }

    #[test]
    fn who_is_not_waited_for_is_not_called() {
        let (lock, signal) = (Mutex::new(()), Signal::default());
        signal.notify();
        assert!(!signal.waited_on.load(Ordering::SeqCst));
        // Nothing comes, and what is left behind says so until the next one notifies.
        drop(signal.wait(lock.lock().unwrap(), Some(Duration::ZERO)).unwrap());
        assert!(signal.waited_on.load(Ordering::SeqCst));
        signal.notify();
        assert!(!signal.waited_on.load(Ordering::SeqCst));
    }
}
