//! The sweeps: one session, broken at every byte, and under every fault that leaves it whole.

use std::io::ErrorKind;

use ssh_io_tokio::Error;

use crate::line::{Cut, Faults, Step};
use crate::session::Ended;
use crate::tally::survived;

/// Messages that the client sends behind the last one the server needs: the channel's close and the disconnect.
const FAREWELL: usize = 200;

/// Breaks the session at every byte: which of the two directions, at which end of it, how.
pub(crate) fn every_cut(adapter: &'static str, run: impl Fn(Vec<[Faults; 2]>) -> Vec<Ended>) {
    let unbroken = run(vec![Default::default(); 3]);
    unbroken.iter().for_each(Ended::check_whole);
    let lengths = unbroken[0].carried;
    assert!(unbroken.iter().all(|ended| ended.carried == lengths), "{unbroken:?}");
    // Three exchanges of keys, and what goes before, between and behind them.
    assert!(lengths.iter().all(|length| *length > 1200), "{lengths:?}");
    let mut positions = 0;
    for cut in [Cut::Eof, Cut::Reset] {
        for (from, length) in lengths.into_iter().enumerate() {
            // At the writer's end, and at the reader's.
            for at_reader in [false, true] {
                let faults = |at| {
                    let mut faults: [Faults; 2] = Default::default();
                    match at_reader {
                        false => faults[from].cut_out = Some((at, cut)),
                        true => faults[1 - from].cut_in = Some((at, cut)),
                    }
                    faults
                };
                let ended = run((0..length).map(faults).collect());
                assert_eq!(ended.len(), length);
                let whole: Vec<bool> = ended.iter().map(|ended| ended.check_cut(cut)).collect();
                let needed = whole.iter().position(|whole| *whole).unwrap_or(length);
                match from {
                    // Of what the client says, the server needs all but the end.
                    0 => {
                        let hole = (needed..length).find(|at| !whole[*at]);
                        assert!(hole.is_none(), "a hole behind {needed}: {:?}", hole.map(|at| &ended[at]));
                        assert!(needed < length && needed > length - FAREWELL, "{needed} of {length}");
                    }
                    // Of what the server says, the client needs all but perhaps the channel's close. Where that
                    // begins is not the same in each session: an adjust may come before it or behind.
                    _ => assert!(needed > length - FAREWELL, "{needed} of {length}"),
                }
                positions += ended.len();
            }
        }
    }
    assert_eq!(positions, 4 * (lengths[0] + lengths[1]));
    let [up, down] = lengths;
    survived(
        adapter,
        &format!("cut by EOF and by reset at each of {up} + {down} bytes, at both ends"),
        positions,
    );
}

/// Faults that a stream may have without breaking a session, at either end.
fn nuisances() -> Vec<Faults> {
    let mut all = Vec::new();
    for n in 1..=9 {
        let steps = vec![Step::Take(n)];
        all.push(Faults { reads: steps.clone(), ..Faults::default() });
        all.push(Faults { writes: steps.clone(), ..Faults::default() });
        all.push(Faults { reads: steps.clone(), writes: steps, ..Faults::default() });
    }
    for hitch in [Step::Later(1), Step::Later(7), Step::Interrupted] {
        for n in [1, 2, 64, usize::MAX] {
            let steps = vec![hitch, Step::Take(n)];
            all.push(Faults { reads: steps.clone(), ..Faults::default() });
            all.push(Faults { writes: steps.clone(), ..Faults::default() });
            all.push(Faults { flushes: steps.clone(), ..Faults::default() });
            let (reads, writes) = (steps.clone(), steps.clone());
            all.push(Faults { reads, writes, flushes: steps, ..Faults::default() });
        }
    }
    let mixed = |first: u32| {
        (0..23_u32).map(move |n| match (n + first) % 5 {
            0 => Step::Later(n % 3 + 1),
            1 => Step::Interrupted,
            n => Step::Take(n as usize * 5 + 1),
        })
    };
    for first in 0..5 {
        let (reads, writes) = (mixed(first).collect(), mixed(first + 2).collect());
        all.push(Faults { reads, writes, flushes: mixed(first + 3).collect(), ..Faults::default() });
    }
    all
}

/// Under faults that leave it whole, a session carries what it carries without.
pub(crate) fn every_nuisance(adapter: &'static str, run: impl Fn(Vec<[Faults; 2]>) -> Vec<Ended>) {
    let carried = run(vec![Default::default()])[0].carried;
    let (all, nothing) = (nuisances(), Faults::default());
    let mut sessions = Vec::new();
    for faults in &all {
        sessions.push([faults.clone(), nothing.clone()]);
        sessions.push([nothing.clone(), faults.clone()]);
        sessions.push([faults.clone(), faults.clone()]);
    }
    // Whatever follows the end changes nothing.
    for garbage in [vec![0; 1], vec![0xff; 3000], vec![b'S'; 100_000]] {
        let ended = Faults { garbage, ..Faults::default() };
        sessions.push([ended.clone(), ended]);
    }
    let ended = run(sessions.clone());
    assert_eq!((ended.len(), sessions.len()), (sessions.len(), 3 * all.len() + 3));
    for (ended, faults) in ended.iter().zip(&sessions) {
        assert_eq!(ended.carried, carried, "{faults:?}: {ended:?}");
        ended.check_whole();
    }
    survived(adapter, "short, late and interrupted calls, and garbage behind the end", ended.len());
}

/// Every write moves nothing once, or fails once, and every flush fails once, at either end.
pub(crate) fn every_failure(adapter: &'static str, run: impl Fn(Vec<[Faults; 2]>) -> Vec<Ended>) {
    // The same pieces each time, however they come.
    let plain = || Faults { writes: vec![Step::Take(60)], ..Faults::default() };
    let calls = run(vec![[plain(), plain()]])[0].calls;
    let mut sessions = Vec::new();
    for (side, calls) in calls.into_iter().enumerate() {
        let fail = Step::Fail(ErrorKind::StorageFull);
        let writes = (0..calls.writes).flat_map(|n| [(n, Step::Zero), (n, fail)]);
        let writes = writes.map(|write| Faults { write: Some(write), ..plain() });
        let flushes = (0..calls.flushes).map(|n| Faults { flush: Some((n, fail)), ..plain() });
        let all: Vec<Faults> = writes.chain(flushes).collect();
        assert!(all.len() > 20, "{calls:?}");
        for faults in all {
            let mut both = [plain(), plain()];
            both[side] = faults;
            sessions.push((side, both));
        }
    }
    let ended = run(sessions.iter().map(|(_, faults)| faults.clone()).collect());
    assert_eq!(ended.len(), sessions.len());
    let mut failed = [0; 2];
    for (ended, (side, faults)) in ended.iter().zip(&sessions) {
        if ended.is_whole() {
            continue;
        }
        failed[*side] += 1;
        let error = ended.client.as_ref().unwrap_err();
        let kind = match faults[*side].write {
            Some((_, Step::Zero)) => ErrorKind::WriteZero,
            _ => ErrorKind::StorageFull,
        };
        let right = match error {
            Error::Io(error) => *side == 0 && error.kind() == kind,
            // The side that fails hangs up, and the other reads that.
            Error::Closed(_) => *side == 1,
            _ => false,
        };
        assert!(right, "{faults:?}: {ended:?}");
    }
    // All but those of the last words.
    assert!(failed.iter().all(|n| *n > 20), "{failed:?}");
    survived(adapter, "writes that move nothing, failed writes and flushes", ended.len());
}
