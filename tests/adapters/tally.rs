//! How many positions were tried, and whose turn it is.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
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

/// What was tried, and in how many tests, of which all passed.
#[derive(Debug)]
struct Tally {
    adapters: BTreeMap<&'static str, Tried>,
    passed: usize,
}

static TALLY: Mutex<Tally> = Mutex::new(Tally { adapters: BTreeMap::new(), passed: 0 });
static TURN: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test's turn. The last one that passes prints what was tried in all.
pub(crate) struct Turn {
    _held: MutexGuard<'static, ()>,
}

/// One test at a time: what is counted belongs to the process.
pub(crate) fn turn() -> Turn {
    Turn { _held: lock(&TURN) }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let mut tally = lock(&TALLY);
        tally.passed += 1;
        if tally.passed != of_this_run() {
            return;
        }
        for (adapter, Tried { faults, cancellations }) in &tally.adapters {
            println!(
                "{adapter}: in all {} tests {faults} fault positions and {cancellations} cancellation points \
                 tried, all survived",
                tally.passed
            );
        }
    }
}

/// How many tests this run is of: this program tells, asked for the list under the arguments it was given.
fn of_this_run() -> usize {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let listed = list.args(std::env::args_os().skip(1)).arg("--list").output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    names.lines().filter(|line| line.ends_with(": test")).count()
}

fn tried(adapter: &'static str, what: &str, more: Tried) {
    let mut tally = lock(&TALLY);
    let sum = tally.adapters.entry(adapter).or_default();
    sum.faults += more.faults;
    sum.cancellations += more.cancellations;
    let n = more.faults + more.cancellations;
    println!("{adapter}: {what}: {n} tried, {n} survived");
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
