//! The reader and the writer thread of a connection.

use std::io::{self, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use bytes::Buf;
use ssh_proto::InputPool;
use ssh_proto::adapter::{self, AdapterRole, MAX_WRITE, drain_bytes};

use super::{Guard, Shared, State, Writer};
use crate::os::{now, until};

/// Behind the close, so long is still read so that the peer can read our last words.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(2);
/// What the threads need to end behind the linger: a write's timeout and the drain.
pub(super) const END_TIME: Duration = Duration::from_secs(3);
/// What an idle connection reads into.
const IDLE_BUFFER: usize = 4 * 1024;
/// A larger buffer is worth giving back. One for a keepalive is not.
pub(super) const SMALL_BUFFER: usize = 1024;
/// What a read takes at most.
const MAX_CHUNK: usize = 256 * 1024;
/// Between two reads or writes of which the first came to nothing, for a transport that does not wait by itself.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// So many writes in a row may come to nothing before the first pause: most have their turn soon.
const HASTY_TRIES: u32 = 32;
/// After so much time without a byte, and at most twice as much, large buffers are given back.
const IDLE_TIME: Duration = Duration::from_secs(1);

impl<R: AdapterRole> State<R> {
    /// How long until the next look at whether large buffers are still in use; none when there are none. Not
    /// a packet is touched for it: between two looks, bytes only leave a mark.
    fn cooling(&mut self, look: &mut Option<StdInstant>) -> Option<Duration> {
        let now = StdInstant::now();
        if !self.warm {
            *look = None;
        } else if look.is_none_or(|at| at <= now) {
            if look.is_some() && !self.busy && !self.dead && self.conn.unsent() == 0 {
                self.cool_down();
                *look = None;
            } else {
                self.busy = false;
                *look = Some(now + IDLE_TIME);
            }
        }
        look.map(|at| at.saturating_duration_since(now))
    }
}

impl<R: AdapterRole> Shared<R> {
    /// Writes until nothing is left, at most so many outputs, unless another thread does so already.
    pub(super) fn write_out<'a>(&'a self, mut guard: Guard<'a, R>, outputs: usize) -> Guard<'a, R> {
        if guard.dead {
            return guard;
        }
        if guard.broken.is_some() {
            guard.discard_output();
            return guard;
        }
        let Some(writer) = guard.take_writer() else { return guard };
        let lost = LoseWriter(self);
        let guard = self.write_with(writer, guard, outputs);
        mem::forget(lost);
        guard
    }

    fn write_with<'a>(
        &'a self,
        mut writer: Box<dyn Write + Send>,
        mut guard: Guard<'a, R>,
        outputs: usize,
    ) -> Guard<'a, R> {
        for _ in 0..outputs {
            if guard.broken.is_some() || !guard.has_output() {
                break;
            }
            let mut out = mem::take(&mut guard.spare);
            guard.conn.swap_output(&mut out);
            self.heat(&mut guard, out.capacity());
            let (mut unflushed, mut refused) = (0, 0);
            while !out.is_empty() {
                drop(guard);
                let (now, _) = out.split_at(out.len().min(MAX_WRITE));
                let result = write_some(&mut *writer, now, &mut unflushed);
                refused = if result.as_ref().is_err_and(is_timeout) { refused + 1 } else { 0 };
                if refused > HASTY_TRIES {
                    refused = HASTY_TRIES;
                    thread::sleep(RETRY_PAUSE);
                }
                guard = self.lock();
                match result {
                    Ok(n) => {
                        out.advance(n);
                        if !guard.dead {
                            guard.conn.consume_output(n);
                            guard.sent = guard.sent.saturating_add(n as u64);
                            self.taken.notify();
                        }
                    }
                    Err(error) if is_timeout(&error) => {}
                    Err(error) => {
                        out.clear();
                        guard.fail(self, error);
                    }
                }
                // Also behind one that made a little way: it may be one of many.
                guard.tick(self);
                if guard.gave_up_output() && !out.is_empty() {
                    out.clear();
                    guard.broken.get_or_insert(StdInstant::now());
                }
            }
            guard.spare = out;
        }
        guard.writer = Writer::Home(writer);
        if guard.closed.is_some() {
            self.changed.notify();
            self.taken.notify();
        }
        guard
    }

    /// The writer thread.
    pub(super) fn run_writer(&self) {
        let _finished = Finished(self);
        let ran = catch_unwind(AssertUnwindSafe(|| self.write_loop()));
        if ran.is_err() {
            self.end_after_panic();
        }
        self.finish();
    }

    /// The reader thread.
    pub(super) fn run_reader(&self, reader: impl Read) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.read_loop(reader)));
        if ran.is_err() {
            self.end_after_panic();
        }
        // Its half of the transport is gone by now.
        let mut guard = self.lock();
        guard.reader_done = true;
        self.ended.notify();
    }

    /// A thread that panics takes its connection along, and nobody waits for it.
    fn end_after_panic(&self) {
        let mut guard = self.lock();
        guard.end_after_panic(self);
        self.work.notify();
    }

    fn write_loop(&self) {
        let mut look = None;
        // When the transport was ended last.
        let mut ended: Option<StdInstant> = None;
        let mut guard = self.lock();
        loop {
            // A user's thread lost it in a panic, and left the rest to this one.
            if matches!(guard.writer, Writer::Gone) && !guard.is_over() {
                guard.end(self);
            }
            guard = self.write_out(guard, usize::MAX);
            let closed = guard.is_over();
            if closed && guard.is_written_out() {
                return;
            }
            // When what is still blocked in the transport has had its time: a read behind a failed write, or a write
            // behind the close. Where the end of the transport does not help it is ended again, now and then.
            let now = StdInstant::now();
            let due = if closed && guard.gave_up_output() { Some(now) } else { guard.broken };
            let due = due.map(|due| ended.map_or(due, |at| due.max(at + DRAIN_TIME)));
            if due.is_some_and(|due| due <= now) {
                drop(guard);
                self.unblock(Shutdown::Both);
                ended = Some(StdInstant::now());
                guard = self.lock();
                continue;
            }
            guard.alarm = guard.deadline();
            let (due, cooling) = (due.map(|due| due - now), guard.cooling(&mut look));
            let left = guard.alarm.map(until).into_iter().chain(due).chain(cooling).min();
            if left.is_none_or(|left| !left.is_zero()) {
                guard = self.wait_for(guard, &self.work, left);
            }
            guard.tick(self);
        }
    }

    /// Ends the transport so that the peer reads our last words: closing a socket with unread input would
    /// reset it.
    fn finish(&self) {
        let mut guard = self.lock();
        let writer = mem::replace(&mut guard.writer, Writer::Gone);
        self.wanted.notify();
        // A peer that takes nothing any more has no words of ours to read.
        let said = guard.broken.is_none();
        drop(guard);
        // It is the embedder's: it may look back at its connection, and panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(writer)));
        if said {
            self.unblock(Shutdown::Write);
            self.wait_until(DRAIN_TIME, |state| state.reader_done);
        }
        self.unblock(Shutdown::Both);
        self.wait_until(DRAIN_TIME, |state| state.reader_done);
    }

    fn read_loop(&self, mut reader: impl Read) {
        let mut chunk = Chunk::new();
        let mut drained = 0;
        loop {
            let mut guard = self.lock();
            while guard.closed.is_none() && !guard.conn.wants_input() {
                guard.reader_waits = true;
                guard = self.wait_for(guard, &self.wanted, None);
            }
            guard.reader_waits = false;
            let closing = guard.closed.is_some();
            let max = if guard.authenticated { MAX_CHUNK } else { InputPool::MAX_PRE_AUTH };
            let (limit, drain) =
                (guard.pool.read_limit(), drain_bytes(guard.conn.limits(), guard.authenticated));
            chunk.trade(&mut guard.chunk);
            drop(guard);
            match chunk.read(&mut reader, max, limit) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A reader's own timeout says nothing of the peer, unless nothing can come any more.
                Err(error) if is_timeout(&error) => {
                    let guard = self.wait_for(self.lock(), &self.wanted, Some(RETRY_PAUSE));
                    if guard.unblocked {
                        break self.read_end(guard, None);
                    }
                }
                Ok(bytes) if closing => {
                    drained += bytes.len();
                    if bytes.is_empty() || drained > drain {
                        break;
                    }
                }
                Ok(bytes) if !bytes.is_empty() => {
                    let mut guard = self.lock();
                    append(&mut guard.pool, bytes);
                    let held = guard.pool.capacity().max(chunk.large.len());
                    self.heat(&mut guard, held);
                    guard.process(self);
                    // Input moves deadlines too: a refusal of the machine's own leaves behind a delay.
                    self.wake_writer(&guard);
                }
                end => break self.read_end(self.lock(), end.err()),
            }
        }
    }

    /// Nothing more can be read.
    fn read_end<'a>(&'a self, mut guard: Guard<'a, R>, error: Option<io::Error>) {
        if guard.closed.is_none() && guard.io_error.is_none() {
            guard.io_error = error;
        }
        if !guard.dead {
            guard.conn.handle_eof(now());
        }
        guard.process(self);
        self.work.notify();
        // Input may be held up by a question; the close comes when it is answered.
        while guard.closed.is_none() {
            guard.reader_waits = true;
            guard = self.wait_for(guard, &self.wanted, None);
        }
    }
}

/// Dropped when the writer thread is done, in whatever way: nobody waits for the connection any more.
pub(super) struct Finished<'a, R: AdapterRole>(pub(super) &'a Shared<R>);

impl<R: AdapterRole> Drop for Finished<'_, R> {
    fn drop(&mut self) {
        let unblock = self.0.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It is the embedder's, as the writer.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unblock)));
        let mut guard = self.0.lock();
        (self.0.role.let_go)(&mut guard.kept);
        // A handle may be kept for long.
        guard.pool = InputPool::new();
        if !guard.dead {
            guard.cool_down();
        }
        self.0.finished.store(true, Ordering::SeqCst);
        self.0.changed.notify();
        self.0.ended.notify();
    }
}

/// What the reader reads into. It waits with little at hand. Only behind a read that filled its buffer, so
/// that more is there, it takes a larger one, which lies ready in between: an idle connection does without it.
struct Chunk {
    small: Vec<u8>,
    /// In hand or empty.
    large: Vec<u8>,
    /// The last read filled its buffer.
    filled: bool,
    /// That was the large one.
    grow: bool,
}

impl Chunk {
    fn new() -> Self {
        Self { small: vec![0; IDLE_BUFFER], large: Vec::new(), filled: false, grow: false }
    }

    /// Takes up the large buffer, or lays it down.
    fn trade(&mut self, at_rest: &mut Vec<u8>) {
        if self.filled == self.large.is_empty() {
            mem::swap(&mut self.large, at_rest);
        }
    }

    /// Reads once, at most `limit` bytes, into a buffer of at most `max`.
    fn read(&mut self, reader: &mut impl Read, max: usize, limit: usize) -> io::Result<&[u8]> {
        let wanted = if self.grow { self.large.len() * 2 } else { 2 * IDLE_BUFFER };
        if self.filled && self.large.len() < wanted.min(max) {
            self.large = vec![0; wanted.min(max)];
        }
        let buffer = if self.filled { &mut self.large } else { &mut self.small };
        let most = buffer.len().min(limit);
        let (buffer, _) = buffer.split_at_mut(most);
        let n = reader.read(buffer)?;
        self.grow = self.filled && n == buffer.len();
        self.filled = n == buffer.len();
        Ok(buffer.get(..n).unwrap_or_default())
    }
}

/// Appends to the input; the one copy of this adapter.
fn append(pool: &mut InputPool, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = pool.reserve();
        let (now, later) = bytes.split_at(bytes.len().min(room));
        adapter::append(pool.buffer(), now);
        pool.filled(now.len(), room);
        bytes = later;
    }
}

/// Writes once, something, and hands it on: how much. What was written and could not be handed on yet is not
/// written again.
fn write_some(writer: &mut (impl Write + ?Sized), bytes: &[u8], unflushed: &mut usize) -> io::Result<usize> {
    let result = match *unflushed {
        0 => writer.write(bytes),
        n => Ok(n),
    };
    let result = result.and_then(|n| {
        *unflushed = n;
        writer.flush()
    });
    match result {
        Ok(()) if *unflushed == 0 => Err(io::ErrorKind::WriteZero.into()),
        Ok(()) => Ok(mem::take(unflushed)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether a read or a write only took too long for its transport's timeout. On Unix a socket says `WouldBlock`
/// then; `TimedOut` of the system is a peer that does not answer TCP any more.
fn is_timeout(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::WouldBlock => true,
        io::ErrorKind::TimedOut => cfg!(windows) || error.raw_os_error().is_none(),
        _ => false,
    }
}

/// Dropped when a panic, of the writer or behind it, takes the writer away, whoever called it. The thread may be
/// one that panics anyway and writes meanwhile: that is no reason.
///
/// A second panic would abort the process, so that here nothing is called that could: the writer thread ends the
/// connection, and whoever locks next sees to a poisoned lock.
struct LoseWriter<'a, R: AdapterRole>(&'a Shared<R>);

impl<R: AdapterRole> Drop for LoseWriter<'_, R> {
    fn drop(&mut self) {
        let mut guard = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        guard.writer = Writer::Gone;
        guard.break_off(self.0, io::Error::other("the transport's writer panicked"));
        self.0.work.notify();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Reads give so many bytes each, or less where the buffer is smaller.
    struct Script<I>(I);

    impl<I: Iterator<Item = usize>> Read for Script<I> {
        fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
            Ok(self.0.next().unwrap_or(0).min(dst.len()))
        }
    }

    #[test]
    fn a_chunk_grows_while_reads_fill_it_and_an_idle_one_is_small() {
        let (mut chunk, mut at_rest) = (Chunk::new(), Vec::new());
        let mut sizes = Vec::new();
        let reads = [1, 100, usize::MAX, usize::MAX, usize::MAX, usize::MAX, usize::MAX, 500, 100, 1];
        let mut reader = Script(reads.into_iter());
        for _ in reads {
            chunk.trade(&mut at_rest);
            chunk.read(&mut reader, 32 * 1024, MAX_CHUNK).unwrap();
            sizes.push((if chunk.large.is_empty() { &chunk.small } else { &chunk.large }).len() / 1024);
        }
        assert_eq!(sizes, [4, 4, 4, 8, 16, 32, 32, 32, 4, 4]);
        assert_eq!(at_rest.len(), 32 * 1024, "ready for more, and free to be given back");
        chunk.trade(&mut at_rest);
        assert!(chunk.large.is_empty(), "it is not taken along into a wait");
    }

    #[test]
    fn a_stream_in_pieces_keeps_its_large_buffer() {
        let (mut chunk, mut at_rest) = (Chunk::new(), vec![0; MAX_CHUNK]);
        let place = at_rest.as_ptr();
        let mut reader = Script([usize::MAX, 28 * 1024].into_iter().cycle());
        for _ in 0..10 {
            chunk.trade(&mut at_rest);
            assert_eq!(chunk.read(&mut reader, MAX_CHUNK, MAX_CHUNK).unwrap().len(), IDLE_BUFFER);
            chunk.trade(&mut at_rest);
            assert_eq!(chunk.read(&mut reader, MAX_CHUNK, MAX_CHUNK).unwrap().len(), 28 * 1024);
            assert_eq!(chunk.large.as_ptr(), place);
        }
    }
}
