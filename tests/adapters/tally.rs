//! How many positions were tried, and whose turn it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anything may take in real time before a test gives up: a bound on failure, not a measure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const STD: &str = "ssh-io-std";
pub(crate) const TOKIO: &str = "ssh-io-tokio";

/// How many faults each adapter survived.
static TRIED: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());
static TURN: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test at a time: what is counted belongs to the process.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    lock(&TURN)
}

/// So many faults were survived.
pub(crate) fn survived(adapter: &'static str, what: &str, faults: usize) {
    let mut all = lock(&TRIED);
    let sum = all.entry(adapter).or_default();
    *sum += faults;
    println!("{adapter}: {what}: {faults} tried, {faults} survived (so far {sum} fault positions)");
}
