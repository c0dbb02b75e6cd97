//! The engine under a connection: one state machine behind one lock, a reader and a writer thread.
//!
//! The reader thread never writes, the writer thread never reads, and no lock is held across a system call.
//! Bytes leave by one thread at a time: whoever finds the writer at home takes it along, trades the output for
//! an empty buffer, unlocks, writes, locks, and goes on until nothing is left. A thread that writes does this
//! for its own bytes; for all else the writer thread does. Deadlines are kept by the writer thread: while it
//! waits, and between its writes, which a socket's write timeout keeps short.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use bytes::{Buf, BytesMut};
use ssh_proto::{
    ChannelEvent, ChannelId, CloseReason, Connection, Disconnect, ExitStatus, InputPool, OpenFailure, Role,
    Stream,
};

use crate::error::Error;
use crate::os::{now, until};
use crate::transport::{Split, Transport, Unblock};

/// Behind the close, so much is still read so that the peer can read our last words.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The reader's chunk: what a read takes at most, grown while reads fill it.
const MIN_CHUNK: usize = 4 * 1024;
const MAX_CHUNK: usize = 256 * 1024;

/// What happened to a channel that its users wait for.
#[derive(Debug, Default)]
pub(crate) struct ChannelNews {
    pub(crate) opened: Option<Result<(), OpenFailure>>,
    pub(crate) replies: VecDeque<bool>,
    /// Answers still to come whose askers gave up.
    pub(crate) unclaimed: usize,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) eof: bool,
    pub(crate) closed: bool,
    pub(crate) wake: Arc<Condvar>,
}

/// An event, sorted into what the engine handles itself and what its role does.
pub(crate) enum News {
    Opened(ChannelId),
    OpenFailed(ChannelId, OpenFailure),
    Channel(ChannelId, ChannelEvent),
    Ready,
    Closed(CloseReason),
    /// The role took it.
    Taken,
    /// The role took it, and the peer is authenticated.
    Authenticated,
}

/// What the engine needs of a role.
pub(crate) trait EngineRole: Role {
    /// The role's part of the shared state.
    type Extra: Send + Default;

    /// Takes the next event. `None` when there is none, or when the role has no place for more.
    fn next(conn: &mut Connection<Self>, extra: &mut Self::Extra) -> Option<News>;
}

pub(crate) struct State<R: EngineRole> {
    pub(crate) conn: Connection<R>,
    pub(crate) extra: R::Extra,
    pub(crate) channels: HashMap<ChannelId, ChannelNews>,
    pub(crate) closed: Option<CloseReason>,
    pool: InputPool,
    /// What a read takes at most: little, until the peer is authenticated.
    max_chunk: usize,
    /// At home when nobody writes.
    writer: Option<Box<dyn Write + Send>>,
    spare: BytesMut,
    /// The transport failed; what the machine then says is only `Eof`.
    io_error: Option<io::Error>,
    /// Nothing can be written any more; so long what is still coming is read.
    broken: Option<StdInstant>,
    reader_waits: bool,
    reader_done: bool,
    finished: bool,
}

pub(crate) struct Shared<R: EngineRole> {
    state: Mutex<State<R>>,
    /// For the writer thread: output, deadlines, the end.
    work: Condvar,
    /// For the reader thread: input is wanted again.
    wanted: Condvar,
    /// For those who wait for the connection as a whole.
    pub(crate) changed: Condvar,
    /// Gone when the threads are done with the transport, so that handles do not keep it open.
    control: Mutex<Option<Unblock>>,
}

pub(crate) type Guard<'a, R> = MutexGuard<'a, State<R>>;

impl<R: EngineRole> State<R> {
    /// Takes in what is there, and hands out what happened, until both are exhausted.
    fn process(&mut self, shared: &Shared<R>) {
        loop {
            self.conn.handle_input(now(), self.pool.buffer());
            let mut any = false;
            while let Some(news) = R::next(&mut self.conn, &mut self.extra) {
                any = true;
                self.sort(shared, news);
            }
            if !any {
                break;
            }
        }
        if self.reader_waits && (self.conn.wants_input() || self.conn.is_closed()) {
            shared.wanted.notify_one();
        }
    }

    fn sort(&mut self, shared: &Shared<R>, news: News) {
        match news {
            News::Opened(id) => self.tell(id, |news| news.opened = Some(Ok(()))),
            News::OpenFailed(id, why) => self.tell(id, |news| news.opened = Some(Err(why))),
            News::Channel(id, event) => self.tell(id, |news| match event {
                ChannelEvent::Readable(_) | ChannelEvent::Writable => {}
                ChannelEvent::Reply(_) if news.unclaimed > 0 => news.unclaimed -= 1,
                ChannelEvent::Reply(ok) => news.replies.push_back(ok),
                ChannelEvent::Exit(status) => news.exit = Some(status),
                ChannelEvent::Eof => news.eof = true,
                ChannelEvent::Closed => news.closed = true,
                // Nobody here can grant it; dropping the ticket refuses.
                ChannelEvent::Request(request) => drop(request),
            }),
            News::Ready => self.channels.values().for_each(|news| news.wake.notify_all()),
            News::Closed(reason) => {
                self.closed = Some(reason);
                self.channels.values().for_each(|news| news.wake.notify_all());
                shared.work.notify_one();
                shared.changed.notify_all();
            }
            News::Taken => shared.changed.notify_all(),
            News::Authenticated => {
                self.max_chunk = MAX_CHUNK;
                self.pool.set_max(InputPool::MAX);
                shared.changed.notify_all();
            }
        }
    }

    fn tell(&mut self, id: ChannelId, change: impl FnOnce(&mut ChannelNews)) {
        if let Some(news) = self.channels.get_mut(&id) {
            change(news);
            news.wake.notify_all();
        }
    }

    /// Does what is due.
    fn tick(&mut self, shared: &Shared<R>) {
        if self.conn.poll_timeout().is_some_and(|at| until(at).is_zero()) {
            self.conn.handle_timeout(now());
        }
        self.process(shared);
    }

    /// Nothing can be written any more. What the peer said before is still read.
    fn fail(&mut self, error: io::Error) {
        if self.io_error.is_none() && self.closed.is_none() {
            self.io_error = Some(error);
        }
        self.broken = Some(StdInstant::now() + DRAIN_TIME);
        self.discard_output();
    }

    fn discard_output(&mut self) {
        let unsent = self.conn.memory_usage().output;
        self.conn.consume_output(unsent);
    }

    /// Whether the connection is closed and its last words are not worth more time.
    fn gave_up_output(&self) -> bool {
        self.conn.is_closed() && self.conn.memory_usage().output == 0
    }

    /// Why nothing works any more.
    pub(crate) fn gone(&mut self) -> Error {
        match (self.io_error.take(), &self.closed) {
            (Some(error), _) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.io_error = Some(error);
                Error::Io(copy)
            }
            (None, Some(reason)) => Error::Closed(reason.clone()),
            (None, None) => Error::Closed(CloseReason::Eof),
        }
    }
}

impl<R: EngineRole> Shared<R> {
    /// Starts both threads.
    pub(crate) fn start(
        conn: Connection<R>,
        transport: impl Transport,
        extra: R::Extra,
    ) -> io::Result<Arc<Self>> {
        let Split { reader, writer, unblock } = transport.split()?;
        let mut pool = InputPool::new();
        pool.set_max(InputPool::MAX_PRE_AUTH);
        let state = State {
            conn,
            extra,
            channels: HashMap::new(),
            closed: None,
            pool,
            max_chunk: InputPool::MAX_PRE_AUTH,
            writer: Some(Box::new(writer)),
            spare: BytesMut::new(),
            io_error: None,
            broken: None,
            reader_waits: false,
            reader_done: false,
            finished: false,
        };
        let shared = Arc::new(Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            wanted: Condvar::new(),
            changed: Condvar::new(),
            control: Mutex::new(Some(unblock)),
        });
        let (for_reader, for_writer) = (shared.clone(), shared.clone());
        thread::Builder::new().name("ssh-read".into()).spawn(move || for_reader.read_loop(reader))?;
        let spawned = thread::Builder::new().name("ssh-write".into()).spawn(move || for_writer.write_loop());
        if let Err(error) = spawned {
            shared.unblock(Shutdown::Both);
            return Err(error);
        }
        Ok(shared)
    }

    /// Locks the state. A panic of another thread while it held the lock ends the connection, not this one.
    pub(crate) fn lock(&self) -> Guard<'_, R> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits on `wake`, at most until `deadline`; an error when that has passed.
    pub(crate) fn wait<'a>(
        &self,
        guard: Guard<'a, R>,
        wake: &Condvar,
        deadline: Option<StdInstant>,
    ) -> Result<Guard<'a, R>, (Guard<'a, R>, Error)> {
        let Some(deadline) = deadline else {
            return Ok(wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(StdInstant::now());
        if left.is_zero() {
            return Err((guard, Error::TimedOut));
        }
        Ok(wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// After a command: lets the machine go on and has its output sent by the writer thread.
    pub(crate) fn poke(&self, guard: &mut Guard<'_, R>) {
        guard.process(self);
        self.work.notify_one();
    }

    /// After a command: lets the machine go on and sends its output from this thread, unless another one is
    /// at it.
    pub(crate) fn flush<'a>(&'a self, mut guard: Guard<'a, R>) -> Guard<'a, R> {
        guard.process(self);
        guard = self.write_out(guard);
        // Deadlines may have moved, or output may be left to whoever is writing.
        self.work.notify_one();
        guard
    }

    /// Ends halves of the transport. Not to be called with the state locked: it may take its time.
    fn unblock(&self, how: Shutdown) {
        if let Some(unblock) = &*self.control.lock().unwrap_or_else(PoisonError::into_inner) {
            unblock(how);
        }
    }

    /// Writes until nothing is left, unless another thread does so already.
    fn write_out<'a>(&'a self, mut guard: Guard<'a, R>) -> Guard<'a, R> {
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

    fn write_loop(&self) {
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
            let left = guard.conn.poll_timeout().map(until).into_iter().chain(broken).min();
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

    fn read_loop(&self, mut reader: impl Read) {
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
                    if !guard.conn.output().is_empty() {
                        self.work.notify_one();
                    }
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

    /// Whether the threads are done with the transport.
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// Waits until the threads are done with the transport, at most so long.
    pub(crate) fn join(&self, limit: Duration) {
        let deadline = Some(StdInstant::now() + limit);
        let mut guard = self.lock();
        while !guard.finished {
            match self.wait(guard, &self.changed, deadline) {
                Ok(next) => guard = next,
                Err(_) => return,
            }
        }
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

/// The streams of a channel, for loops over both.
pub(crate) const STREAMS: [Stream; 2] = [Stream::Data, Stream::Stderr];
