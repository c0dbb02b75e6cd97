//! The sweeps: one session, broken at every byte, and under every fault that leaves it whole.

use std::io::ErrorKind;

use ssh_io_tokio::Error;

use crate::line::{Cut, Faults, Step};
use crate::session::{Ended, RECV_BUDGET};
use crate::tally::survived;

/// Messages that the client sends behind the last one the server needs: the channel's close and the disconnect.
const FAREWELL: usize = 200;
/// A session whose bytes move in pieces writes and flushes so often, at least: with fewer there is little to fail.
const LEAST_CALLS: usize = 8;

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
    for n in [1, 7, 64, usize::MAX] {
        let writes = vec![Step::Take(n)];
        let held_back = Faults { writes, holds_back: true, ..Faults::default() };
        all.push(held_back.clone());
        for hitch in [Step::Later(3), Step::Interrupted] {
            all.push(Faults { flushes: vec![hitch, Step::Take(usize::MAX)], ..held_back.clone() });
        }
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
    let ended = run(sessions.clone());
    assert_eq!((ended.len(), sessions.len()), (sessions.len(), 3 * all.len()));
    for (ended, faults) in ended.iter().zip(&sessions) {
        assert_eq!(ended.carried, carried, "{faults:?}: {ended:?}");
        ended.check_whole();
    }
    // Whatever follows the end changes nothing. It is read, so that the peer can read our last words, but not
    // without a bound.
    let lengths = [1, 3000, MUCH];
    let garbage = |length| Faults { garbage: vec![b'S'; length], ..Faults::default() };
    let strewn = run(lengths.iter().map(|length| [garbage(*length), garbage(*length)]).collect());
    assert_eq!(strewn.len(), lengths.len());
    for (ended, length) in strewn.iter().zip(lengths) {
        assert_eq!(ended.carried, carried, "{length}: {ended:?}");
        ended.check_whole();
        for unread in ended.unread {
            match length {
                MUCH => assert!((1..=MUCH - DRAINED).contains(&unread), "{ended:?}"),
                _ => assert_eq!(unread, 0, "{ended:?}"),
            }
        }
    }
    let tried = ended.len() + strewn.len();
    survived(
        adapter,
        "short, late and interrupted calls, output held back, and garbage behind the end",
        tried,
    );
}

/// What is read behind the end, at least: all that windows may have let through; and more than that, and all buffers.
const DRAINED: usize = 4 * RECV_BUDGET;
const MUCH: usize = 6 * RECV_BUDGET;

/// Every write moves nothing once, or fails once, and every flush fails once, at either end.
pub(crate) fn every_failure(adapter: &'static str, run: impl Fn(Vec<[Faults; 2]>) -> Vec<Ended>) {
    // The same pieces each time, however they come.
    let plain = || Faults { writes: vec![Step::Take(60)], ..Faults::default() };
    let Ended { calls, carried, .. } = run(vec![[plain(), plain()]]).remove(0);
    let fail = Step::Fail(ErrorKind::StorageFull);
    let write = |n, step| Faults { write: Some((n, step)), ..plain() };
    let flush = |n| Faults { flush: Some((n, fail)), ..plain() };
    let mut tried = 0;
    for (side, calls) in calls.into_iter().enumerate() {
        let zeros = (0..calls.writes).map(|n| write(n, Step::Zero)).collect();
        let writes = (0..calls.writes).map(|n| write(n, fail)).collect();
        let flushes = (0..calls.flushes).map(flush).collect();
        for (what, all, kind) in [
            ("a write that moves nothing", zeros, ErrorKind::WriteZero),
            ("a failed write", writes, ErrorKind::StorageFull),
            ("a failed flush", flushes, ErrorKind::StorageFull),
        ] {
            let all: Vec<Faults> = all;
            assert!(all.len() >= LEAST_CALLS, "{what} of {side}: {calls:?}");
            let sessions = all.into_iter().map(|faults| {
                let mut both = [plain(), plain()];
                both[side] = faults;
                both
            });
            let ended = run(sessions.collect());
            let mut failed = 0;
            for (n, ended) in ended.iter().enumerate() {
                let struck = ended.calls[side].struck;
                if ended.is_whole() {
                    // It came with the last words, or behind them where they were fewer.
                    let late = struck.is_none_or(|at| at > carried[side] - FAREWELL);
                    assert!(late, "{what} of {side}, number {n}, is overlooked: {ended:?}");
                    continue;
                }
                assert!(struck.is_some(), "{what} of {side}, number {n}: {ended:?}");
                failed += 1;
                let right = match ended.client.as_ref().unwrap_err() {
                    Error::Io(error) => side == 0 && error.kind() == kind,
                    // The side that fails hangs up, and the other reads that.
                    Error::Closed(_) => side == 1,
                    _ => false,
                };
                assert!(right, "{what} of {side}, number {n}: {ended:?}");
            }
            assert!(2 * failed > ended.len(), "{what} of {side}: {failed} of {}", ended.len());
            tried += ended.len();
        }
    }
    survived(adapter, "writes that move nothing, failed writes and flushes", tried);
}
