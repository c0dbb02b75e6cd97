//! A transport in memory with faults, for both adapters.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Split, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a lane holds of what is not read yet.
const CAPACITY: usize = 16 * 1024;

/// How long a blocking write waits for room before it fails as one with a write timeout.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5);

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What was carried is read, then the end; writes fail.
    Eof,
    /// Nothing is read any more, what was carried included.
    Reset,
}

impl Cut {
    fn on_write(self) -> io::Error {
        match self {
            Self::Eof => ErrorKind::BrokenPipe.into(),
            Self::Reset => ErrorKind::ConnectionReset.into(),
        }
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It moves so many bytes at most.
    Take(usize),
    /// It is pending for so many polls. A blocking write is told `WouldBlock` so often, and a blocking read,
    /// which knows no such thing, gives its turn to others.
    Later(u32),
    /// `EINTR`.
    Interrupted,
    /// It moves nothing, and says so.
    Zero,
    /// It fails.
    Fail(ErrorKind),
}

/// What is wrong with one end of a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// What reads do, over and over; without any they take what there is.
    pub(crate) reads: Vec<Step>,
    /// What writes do.
    pub(crate) writes: Vec<Step>,
    /// What flushes do; without any they succeed.
    pub(crate) flushes: Vec<Step>,
    /// What the write of this number does instead.
    pub(crate) write: Option<(usize, Step)>,
    /// What the flush of this number does instead.
    pub(crate) flush: Option<(usize, Step)>,
    /// So many bytes are read; the next one breaks the connection.
    pub(crate) cut_in: Option<(usize, Cut)>,
    /// So many bytes are written; the next one breaks the connection.
    pub(crate) cut_out: Option<(usize, Cut)>,
    /// What is read behind the peer's end.
    pub(crate) garbage: Vec<u8>,
    /// Nothing that is written leaves before it is flushed.
    pub(crate) holds_back: bool,
}

/// What somebody on the way does, once, to what an end writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddling {
    /// Another bit of the next byte.
    Flipped,
    /// The next so many bytes come twice.
    Twice(usize),
    /// The next so many bytes change places with as many behind them.
    Swapped(usize),
}

impl Meddling {
    /// What it takes to do it.
    fn needs(self) -> usize {
        match self {
            Self::Flipped => 1,
            Self::Twice(n) => n,
            Self::Swapped(n) => 2 * n,
        }
    }

    fn meddle(self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Flipped => bytes.iter_mut().for_each(|byte| *byte ^= 1),
            Self::Twice(_) => bytes.extend_from_within(..),
            Self::Swapped(n) => bytes.rotate_left(n),
        }
        bytes
    }
}

#[derive(Debug, Default)]
struct Script {
    steps: Vec<Step>,
    at: usize,
    waited: u32,
}

impl Script {
    /// What to do now. A delay is counted, and others are [`done`](Self::done) when they are.
    fn step(&mut self) -> Step {
        for _ in 0..=self.steps.len() {
            match self.steps.get(self.at) {
                Some(Step::Later(polls)) if self.waited == *polls => self.done(),
                Some(step) => {
                    self.waited += u32::from(matches!(step, Step::Later(_)));
                    return *step;
                }
                None => return Step::Take(usize::MAX),
            }
        }
        panic!("nothing but delays");
    }

    fn done(&mut self) {
        self.waited = 0;
        self.at = (self.at + 1) % self.steps.len().max(1);
    }
}

/// One end's faults, and how far it is.
#[derive(Default)]
struct Plan {
    faults: Faults,
    reads: Script,
    writes: Script,
    flushes: Script,
    got: usize,
    put: usize,
    calls: Calls,
    /// What was written and not flushed, of an end that [holds it back](Faults::holds_back).
    unflushed: Vec<u8>,
    /// Reads wait, whatever there is.
    deaf: bool,
    /// What is done to the bytes behind those that still pass as they are, and what is held back for it.
    meddling: Option<(usize, Meddling, Vec<u8>)>,
}

impl Plan {
    /// What is carried of these bytes, and of those that were held back before.
    fn carried(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some((untouched, meddling, held)) = &mut self.meddling else { return bytes.to_vec() };
        let (pass, rest) = bytes.split_at(bytes.len().min(*untouched));
        *untouched -= pass.len();
        let (took, rest) = rest.split_at(rest.len().min(meddling.needs() - held.len()));
        held.extend(took);
        let mut carried = pass.to_vec();
        if held.len() == meddling.needs() {
            carried.extend(meddling.meddle(std::mem::take(held)));
            carried.extend(rest);
            self.meddling = None;
        }
        carried
    }
}

/// How often what was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) writes: usize,
    pub(crate) flushes: usize,
    /// How much had been written when the call of a number did what that one alone does.
    pub(crate) struck: Option<usize>,
}

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    /// No more follow.
    ended: bool,
    /// Nobody reads them any more.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct State {
    /// Each end writes the lane of its number, and reads the other.
    lanes: [Lane; 2],
    plans: [Plan; 2],
    broken: Option<Cut>,
}

impl State {
    /// Whoever waits looks again.
    fn wake(&mut self, changed: &Condvar) {
        changed.notify_all();
        for lane in &mut self.lanes {
            lane.reader.take().into_iter().chain(lane.writer.take()).for_each(Waker::wake);
        }
    }

    /// What an end wrote leaves.
    fn let_out(&mut self, side: usize) {
        self.lanes[side].bytes.extend(self.plans[side].unflushed.drain(..));
    }

    fn break_off(&mut self, cut: Cut) {
        self.broken = Some(cut);
        if cut == Cut::Reset {
            self.lanes.iter_mut().for_each(|lane| lane.bytes.clear());
        }
    }

    /// What a read gives; `None` when it has to wait for more.
    fn read(&mut self, side: usize, max: usize) -> Option<io::Result<Vec<u8>>> {
        let plan = &mut self.plans[side];
        let lane = &mut self.lanes[1 - side];
        if self.broken == Some(Cut::Reset) {
            return Some(Err(ErrorKind::ConnectionReset.into()));
        }
        if lane.unread {
            return Some(Ok(Vec::new()));
        }
        if plan.deaf {
            return None;
        }
        if lane.bytes.is_empty() {
            if !lane.ended && self.broken.is_none() {
                return None;
            }
            let garbage = &mut plan.faults.garbage;
            return Some(Ok(garbage.drain(..garbage.len().min(max)).collect()));
        }
        let mut most = max.min(lane.bytes.len());
        match plan.reads.step() {
            Step::Take(n) => most = most.min(n),
            Step::Later(_) => return Some(Err(ErrorKind::WouldBlock.into())),
            Step::Interrupted => {
                plan.reads.done();
                return Some(Err(ErrorKind::Interrupted.into()));
            }
            Step::Zero => return Some(Ok(Vec::new())),
            Step::Fail(kind) => return Some(Err(kind.into())),
        }
        if let Some((at, cut)) = plan.faults.cut_in {
            most = most.min(at - plan.got);
            if most == 0 {
                lane.bytes.clear();
                self.break_off(cut);
                return self.read(side, max);
            }
        }
        plan.reads.done();
        plan.got += most;
        Some(Ok(lane.bytes.drain(..most).collect()))
    }

    /// What a write gives; `None` when it has to wait for room.
    fn write(&mut self, side: usize, src: &[u8]) -> Option<io::Result<usize>> {
        let plan = &mut self.plans[side];
        let lane = &mut self.lanes[side];
        if let Some(cut) = self.broken {
            return Some(Err(cut.on_write()));
        }
        if lane.ended || lane.unread {
            return Some(Err(ErrorKind::BrokenPipe.into()));
        }
        let mut most = src.len().min(CAPACITY.saturating_sub(lane.bytes.len()));
        if most == 0 {
            return None;
        }
        let own = plan.faults.write.filter(|(at, _)| *at == plan.calls.writes);
        match own.map_or_else(|| plan.writes.step(), |(_, step)| step) {
            Step::Take(n) => most = most.min(n),
            Step::Later(_) => return Some(Err(ErrorKind::WouldBlock.into())),
            other => {
                plan.calls.writes += 1;
                plan.writes.done();
                plan.calls.struck = own.map(|_| plan.put).or(plan.calls.struck);
                return Some(other.fails(0));
            }
        }
        if let Some((at, cut)) = plan.faults.cut_out {
            most = most.min(at - plan.put);
            if most == 0 {
                self.break_off(cut);
                return Some(Err(cut.on_write()));
            }
        }
        plan.calls.writes += 1;
        plan.writes.done();
        plan.put += most;
        let carried = plan.carried(&src[..most]);
        match plan.faults.holds_back {
            true => plan.unflushed.extend(carried),
            false => lane.bytes.extend(carried),
        }
        Some(Ok(most))
    }

    fn flush(&mut self, side: usize) -> io::Result<()> {
        let plan = &mut self.plans[side];
        let own = plan.faults.flush.filter(|(at, _)| *at == plan.calls.flushes);
        let step = own.map_or_else(|| plan.flushes.step(), |(_, step)| step);
        if matches!(step, Step::Later(_)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        plan.calls.flushes += 1;
        plan.flushes.done();
        plan.calls.struck = own.map(|_| plan.put).or(plan.calls.struck);
        step.fails(())?;
        self.let_out(side);
        Ok(())
    }
}

impl Step {
    fn fails<T>(self, nothing: T) -> io::Result<T> {
        match self {
            Self::Interrupted => Err(ErrorKind::Interrupted.into()),
            Self::Fail(kind) => Err(kind.into()),
            _ => Ok(nothing),
        }
    }
}

/// A connection between two ends.
pub(crate) struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

impl Line {
    /// A client's end and a server's, with the faults of each.
    pub(crate) fn pair(faults: [Faults; 2]) -> (Arc<Self>, FaultyStream, FaultyStream) {
        let plans = faults.map(|faults| {
            let script = |steps: &Vec<Step>| Script { steps: steps.clone(), ..Script::default() };
            let (reads, writes) = (script(&faults.reads), script(&faults.writes));
            Plan { reads, writes, flushes: script(&faults.flushes), faults, ..Plan::default() }
        });
        let state = Mutex::new(State { plans, ..State::default() });
        let line = Arc::new(Self { state, changed: Condvar::new() });
        let end = |side| FaultyStream(Arc::new(End { line: Arc::clone(&line), side }));
        let (client, server) = (end(0), end(1));
        (line, client, server)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes each end wrote.
    pub(crate) fn carried(&self) -> [usize; 2] {
        let state = self.lock();
        [state.plans[0].put, state.plans[1].put]
    }

    /// How often each end was called.
    pub(crate) fn calls(&self) -> [Calls; 2] {
        let state = self.lock();
        [state.plans[0].calls, state.plans[1].calls]
    }

    /// How much of what is behind its peer's end each end did not read.
    pub(crate) fn unread(&self) -> [usize; 2] {
        let state = self.lock();
        [state.plans[0].faults.garbage.len(), state.plans[1].faults.garbage.len()]
    }

    /// Whether an end reads nothing, whatever there is.
    pub(crate) fn set_deaf(&self, side: usize, deaf: bool) {
        let mut state = self.lock();
        state.plans[side].deaf = deaf;
        state.wake(&self.changed);
    }

    /// Does this to what an end writes, behind so many bytes more.
    pub(crate) fn meddle(&self, side: usize, behind: usize, how: Meddling) {
        self.lock().plans[side].meddling = Some((behind, how, Vec::new()));
    }
}

/// One end, which ends when all its parts are dropped.
struct End {
    line: Arc<Line>,
    side: usize,
}

impl End {
    fn shut(&self, how: Shutdown) {
        let mut state = self.line.lock();
        if how != Shutdown::Read {
            state.lanes[self.side].ended = true;
        }
        if how != Shutdown::Write {
            state.lanes[1 - self.side].unread = true;
        }
        state.wake(&self.line.changed);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        // A socket that is closed with bytes unread resets its connection.
        if state.broken.is_none() && !state.lanes[1 - self.side].bytes.is_empty() {
            state.break_off(Cut::Reset);
        }
        drop(state);
        self.shut(Shutdown::Both);
    }
}

/// An end of a line with what is wrong with it.
pub(crate) struct FaultyStream(Arc<End>);

// ----- Blocking.

impl Transport for FaultyStream {
    type Reader = Self;
    type Writer = Self;

    fn split(self) -> io::Result<Split<Self, Self>> {
        let (writer, control) = (Self(Arc::clone(&self.0)), Arc::clone(&self.0));
        Ok(Split { reader: self, writer, unblock: Box::new(move |how| control.shut(how)) })
    }
}

impl Read for FaultyStream {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        let line = &self.0.line;
        let mut state = line.lock();
        loop {
            match state.read(self.0.side, dst.len()) {
                None => state = line.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    drop(state);
                    thread::yield_now();
                    state = line.lock();
                }
                Some(result) => {
                    state.wake(&line.changed);
                    let bytes = result?;
                    dst[..bytes.len()].copy_from_slice(&bytes);
                    return Ok(bytes.len());
                }
            }
        }
    }
}

impl Write for FaultyStream {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let line = &self.0.line;
        let mut state = line.lock();
        let mut waited = false;
        loop {
            match state.write(self.0.side, src) {
                Some(result) => {
                    state.wake(&line.changed);
                    return result;
                }
                None if waited => return Err(ErrorKind::TimedOut.into()),
                None => {
                    let result = line.changed.wait_timeout(state, WRITE_TIMEOUT);
                    let (guard, timeout) = result.unwrap_or_else(PoisonError::into_inner);
                    (state, waited) = (guard, timeout.timed_out());
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = &self.0.line;
        let mut state = line.lock();
        let result = state.flush(self.0.side);
        state.wake(&line.changed);
        result
    }
}

// ----- Asynchronous.

/// A delay is over at the next poll.
fn later<T>(result: io::Result<T>, cx: &Context<'_>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        result => Poll::Ready(result),
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.line.lock();
        match state.read(self.0.side, buf.remaining()) {
            Some(result) => {
                let result = later(result.map(|bytes| buf.put_slice(&bytes)), cx);
                if result.is_ready() {
                    state.wake(&self.0.line.changed);
                }
                result
            }
            None => {
                state.lanes[1 - self.0.side].reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.line.lock();
        match state.write(self.0.side, src) {
            Some(result) => {
                let result = later(result, cx);
                if result.is_ready() {
                    state.wake(&self.0.line.changed);
                }
                result
            }
            None => {
                state.lanes[self.0.side].writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.line.lock();
        let result = later(state.flush(self.0.side), cx);
        if result.is_ready() {
            state.wake(&self.0.line.changed);
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Which implies a flush.
        self.0.line.lock().let_out(self.0.side);
        self.0.shut(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
