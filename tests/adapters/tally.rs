//! How many positions were tried, and whose turn it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anything may take in real time before a test gives up: a bound on failure, not a measure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const STD: &str = "ssh-io-std";
pub(crate) const TOKIO: &str = "ssh-io-tokio";

/// What was tried with one adapter.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    faults: usize,
    cancellations: usize,
}

static TRIED: Mutex<BTreeMap<&str, Tried>> = Mutex::new(BTreeMap::new());
static TURN: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test at a time: what is counted belongs to the process.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    lock(&TURN)
}

fn tried(adapter: &'static str, what: &str, more: Tried) {
    let mut all = lock(&TRIED);
    let sum = all.entry(adapter).or_default();
    sum.faults += more.faults;
    sum.cancellations += more.cancellations;
    let n = more.faults + more.cancellations;
    println!(
        "{adapter}: {what}: {n} tried, {n} survived (so far {} fault positions, {} cancellation points)",
        sum.faults, sum.cancellations
    );
}

/// So many faults were survived.
pub(crate) fn survived(adapter: &'static str, what: &str, faults: usize) {
    tried(adapter, what, Tried { faults, cancellations: 0 });
}

/// So many futures or handles were given up, and the connection went on.
pub(crate) fn given_up(adapter: &'static str, what: &str, cancellations: usize) {
    tried(adapter, what, Tried { faults: 0, cancellations });
}

/// Bytes that are on the heap.
pub(crate) fn live() -> usize {
    let stats = crate::GLOBAL.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
