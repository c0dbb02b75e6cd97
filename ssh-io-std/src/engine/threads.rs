//! The reader and the writer thread of a connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use bytes::Buf;
use ssh_proto::{Disconnect, InputPool};

use super::{EngineRole, Guard, Shared};
use crate::os::{now, until};

/// Behind the close, so much is still read so that the peer can read our last words.
const DRAIN_BYTES: usize = 64 * 1024;
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The reader's chunk: what a read takes at most, grown while reads fill it.
const MIN_CHUNK: usize = 4 * 1024;
pub(super) const MAX_CHUNK: usize = 256 * 1024;

impl<R: EngineRole> Shared<R> {
    /// Writes until nothing is left, unless another thread does so already.
    pub(super) fn write_out<'a>(&'a self, mut guard: Guard<'a, R>) -> Guard<'a, R> {
        if guard.broken.is_some() {
            guard.discard_output();
            return guard;
        }
        let Some(mut writer) = guard.writer.take() else { return guard };
        while guard.broken.is_none() && !guard.conn.output().is_empty() {
            let mut out = std::mem::take(&mut guard.spare);
            guard.conn.swap_output(&mut out);
            while !out.is_empty() {
                drop(guard);
                let result = write_some(&mut *writer, &out);
                guard = self.lock();
                match result {
                    Ok(n) => {
                        out.advance(n);
                        guard.conn.consume_output(n);
                    }
                    Err(error) if is_timeout(&error) => guard.tick(self),
                    Err(error) => {
                        out.clear();
                        guard.fail(error);
                    }
                }
                if guard.gave_up_output() {
                    out.clear();
                }
            }
            guard.spare = out;
            guard.process(self);
        }
        guard.writer = Some(writer);
        guard
    }

    pub(super) fn write_loop(&self) {
        let _end = EndOnPanic(self);
        let mut guard = self.lock();
        loop {
            guard = self.write_out(guard);
            let closed = guard.conn.is_closed();
            if closed && guard.conn.output().is_empty() && guard.writer.is_some() {
                break;
            }
            let broken = guard.broken.map(|at| at.saturating_duration_since(StdInstant::now()));
            if broken.is_some_and(|left| left.is_zero()) || (closed && guard.gave_up_output()) {
                // What is still blocked in the transport has had its time: a read behind a failed write, or a
                // write behind the close.
                guard.broken = broken.map(|_| StdInstant::now() + DRAIN_TIME);
                drop(guard);
                self.unblock(Shutdown::Both);
                guard = self.wait_for_work(self.lock(), Some(DRAIN_TIME));
                continue;
            }
            guard.alarm = guard.conn.poll_timeout();
            let left = guard.alarm.map(until).into_iter().chain(broken).min();
            guard = self.wait_for_work(guard, left);
            guard.tick(self);
        }
        self.finish(guard);
    }

    fn wait_for_work<'a>(&self, guard: Guard<'a, R>, left: Option<Duration>) -> Guard<'a, R> {
        match left {
            Some(left) if left.is_zero() => guard,
            Some(left) => self.work.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(guard).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Ends the transport so that the peer reads our last words: closing a socket with unread input would
    /// reset it.
    fn finish(&self, mut guard: Guard<'_, R>) {
        guard.writer = None;
        self.wanted.notify_all();
        drop(guard);
        self.unblock(Shutdown::Write);
        let deadline = StdInstant::now() + DRAIN_TIME;
        let mut guard = self.lock();
        while !guard.reader_done {
            match self.wait(guard, &self.changed, Some(deadline)) {
                Ok(next) => guard = next,
                Err((next, _)) => {
                    guard = next;
                    break;
                }
            }
        }
        drop(guard);
        self.unblock(Shutdown::Both);
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.lock().finished = true;
        self.changed.notify_all();
    }

    pub(super) fn read_loop(&self, mut reader: impl Read) {
        let _end = EndOnPanic(self);
        let mut chunk = vec![0; MIN_CHUNK];
        let mut drained = 0;
        loop {
            let mut guard = self.lock();
            while !guard.conn.wants_input() && guard.closed.is_none() {
                guard.reader_waits = true;
                guard = self.wanted.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            guard.reader_waits = false;
            let closing = guard.closed.is_some();
            drop(guard);
            let result = reader.read(&mut chunk);
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(n) if closing => {
                    drained += n;
                    if n == 0 || drained > DRAIN_BYTES {
                        break;
                    }
                }
                Ok(n @ 1..) => {
                    let mut guard = self.lock();
                    append(&mut guard.pool, chunk.get(..n).unwrap_or_default());
                    guard.process(self);
                    // Input moves deadlines too: a refusal of the machine's own leaves behind a delay.
                    self.wake_writer(&guard);
                    let max = guard.max_chunk;
                    drop(guard);
                    if n == chunk.len() && n < max {
                        chunk = vec![0; n * 2];
                    }
                }
                end => {
                    let mut guard = self.lock();
                    if let Err(error) = end
                        && guard.closed.is_none()
                        && guard.io_error.is_none()
                    {
                        guard.io_error = Some(error);
                    }
                    guard.conn.handle_eof(now());
                    guard.process(self);
                    self.work.notify_one();
                    if guard.closed.is_some() {
                        break;
                    }
                    // Input is held up by a question; the close comes when it is answered.
                    while guard.closed.is_none() {
                        guard.reader_waits = true;
                        guard = self.wanted.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    }
                    break;
                }
            }
        }
        let mut guard = self.lock();
        guard.reader_done = true;
        self.changed.notify_all();
    }
}

/// Appends to the input; the one copy of this adapter.
fn append(pool: &mut InputPool, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = pool.reserve();
        let (now, later) = bytes.split_at(bytes.len().min(room));
        pool.buffer().extend_from_slice(now);
        pool.filled(now.len(), room);
        bytes = later;
    }
}

/// Writes once, something, and hands it on.
fn write_some(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> io::Result<usize> {
    match writer.write(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(n) => writer.flush().map(|()| n),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether a write only took too long for its socket's timeout.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A thread that panics takes its connection along, and nobody waits for it.
struct EndOnPanic<'a, R: EngineRole>(&'a Shared<R>);

impl<R: EngineRole> Drop for EndOnPanic<'_, R> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut guard = self.0.lock();
            guard.conn.close(Disconnect::by_application());
            guard.process(self.0);
            guard.reader_done = true;
            drop(guard);
            self.0.unblock(Shutdown::Both);
            self.0.work.notify_all();
            self.0.changed.notify_all();
        }
    }
}
