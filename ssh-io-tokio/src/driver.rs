//! The driver: the one task that reads and writes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::panicking;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ssh_proto::adapter::{AdapterRole, MAX_WRITE, drain_bytes};
use ssh_proto::{Client, CloseReason, InputPool};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::task::{consume_budget, spawn_blocking, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tokio::{join, select};

use crate::shared::{Next, Shared};
use crate::waiters::Wakers;

/// Behind the close, a transport has so long to shut down its writing, and is still read so that the peer can read our
/// last words.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Buffers are given back when for so long, at least, nothing was read or written; at most twice as long.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// What a role takes out of its part behind each turn, with the state locked: work that may take its time, and runs
/// where that holds nobody up.
pub(crate) type Look<R> = Box<dyn Fn(&Arc<Shared<R>>, &mut <R as AdapterRole>::Kept) -> Option<Work> + Send>;

/// Such work. Dropped, it is as good as refused.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// What is to be waited for, and until when.
struct Turn {
    deadline: Option<Instant>,
    wants_input: bool,
    /// Somebody waits for nothing but that what was written is flushed.
    flushes: bool,
    /// Only the last words are still to leave.
    closed: bool,
}

/// Drives one connection. It must be spawned or polled; dropped, it ends the connection.
#[must_use = "a connection does nothing unless its driver runs"]
pub struct Driver<T, R: AdapterRole = Client> {
    shared: Arc<Shared<R>>,
    reader: ReadHalf<T>,
    writer: WriteHalf<T>,
    pool: InputPool,
    output: BytesMut,
    /// Something was written that a buffering transport may hold back.
    unflushed: bool,
    /// Nothing can be written any more.
    broken: bool,
    /// So long what is still coming is read behind a failed write.
    read_until: Option<Instant>,
    /// When the machine was found closed, and how much is read from then on.
    closed_at: Option<Instant>,
    drain: usize,
    /// When to look if buffers can be given back, and whether there was traffic since the last look.
    tidy: Option<Instant>,
    traffic: bool,
    /// Kept, so that waking costs no allocation.
    woken: Wakers,
    look: Look<R>,
    /// Whoever waits hears of the end also when this is dropped, polled or not.
    _end: EndOnDrop<R>,
}

impl<T, R: AdapterRole> fmt::Debug for Driver<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl<T: AsyncRead + AsyncWrite, R: AdapterRole> Driver<T, R> {
    pub(crate) fn new(shared: Arc<Shared<R>>, transport: T, look: Look<R>) -> Self {
        let (reader, writer) = split(transport);
        let end = EndOnDrop(Arc::clone(&shared));
        let (mut pool, output) = (InputPool::new(), BytesMut::new());
        pool.set_max(InputPool::MAX_PRE_AUTH);
        Self {
            shared,
            reader,
            writer,
            pool,
            output,
            unflushed: false,
            broken: false,
            read_until: None,
            closed_at: None,
            drain: 0,
            tidy: None,
            traffic: false,
            woken: Wakers::default(),
            look,
            _end: end,
        }
    }

    /// Drives the connection to its end, and tells why it ended.
    ///
    /// Not cancel-safe: dropped, it ends the connection at once. What has not left by then is lost, the peer does not
    /// read why, and all who wait on a handle are told. To end it in order, close it by a handle and wait.
    pub fn run(self) -> impl Future<Output = CloseReason> + Send
    where
        T: Send,
    {
        self.drive()
    }

    async fn drive(mut self) -> CloseReason {
        self.shared.driven_here();
        // One timer, moved only when the deadline has moved.
        let sleep = sleep_until(Instant::now());
        tokio::pin!(sleep);
        loop {
            // A transport that is always ready must not keep the other tasks of its thread waiting.
            consume_budget().await;
            let turn = self.turn();
            let any = self.woken.wake();
            let Some(Turn { deadline, wants_input, flushes, closed }) = turn else { break };
            if any && !closed {
                // They go first: what they write leaves together, and what comes meanwhile is taken in at once. But who
                // hears of the end may end the runtime, before our last words have left.
                yield_now().await;
            }
            if let Some(deadline) = deadline
                && deadline != sleep.deadline()
            {
                sleep.as_mut().reset(deadline);
            }
            // Who gets no further with his writes may never come to read our last words.
            let drains = closed && self.drain > 0;
            if drains {
                self.pool.buffer().clear();
            }
            let room = if wants_input || drains { self.pool.reserve() } else { 0 };
            let flushes = flushes && self.unflushed;
            select! {
                result = send(&mut self.writer, &self.output, flushes), if self.unflushed || !self.output.is_empty() => {
                    self.on_write(result).await;
                }
                result = self.reader.read_buf(self.pool.buffer()), if wants_input || drains => match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result if drains => self.drain = left_of(self.drain, &result),
                    Ok(0) => self.shared.lock().end(),
                    Ok(n) => {
                        self.moved();
                        self.pool.filled(n, room);
                    }
                    Err(error) => {
                        self.lose(&error);
                        self.shared.lock().end();
                    }
                },
                () = &mut sleep, if deadline.is_some() => self.on_deadline(),
                () = self.shared.work.notified() => {}
            }
        }
        self.end().await;
        self.shared.lock().closed.clone().unwrap_or(CloseReason::Eof)
    }

    /// Behind the last words: sees to it that they leave and that the peer can read them, and tells who waits for that.
    async fn end(&mut self) {
        let Self { shared, reader, writer, pool, drain, .. } = self;
        // A transport may hold back what it took: that is not said yet, and has what is left of the linger, and a while at
        // least.
        if self.unflushed {
            let lingered = self.closed_at.map(|at| at.elapsed()).unwrap_or_default();
            let linger = shared.lock().conn.limits().linger.saturating_sub(lingered);
            let flushed = async {
                let (flushed, drained) =
                    (retried(writer, AsyncWrite::poll_flush), throw_away(reader, pool, drain));
                tokio::pin!(flushed);
                select! {
                    result = &mut flushed => result,
                    () = drained => flushed.await,
                }
            };
            if let Ok(Ok(())) = timeout(linger.max(DRAIN_TIME), flushed).await {
                shared.lock().flushed(&mut self.woken);
            }
        }
        shared.lock().said_all(&mut self.woken);
        self.woken.wake();
        // Closing a socket with unread input would reset it, and destroy our last words.
        let over =
            async { join!(retried(writer, AsyncWrite::poll_shutdown), throw_away(reader, pool, drain)) };
        let _ = timeout(DRAIN_TIME, over).await;
    }

    /// Lets the machine go on, and says until when and for what to wait; `None` at the end.
    fn turn(&mut self) -> Option<Turn> {
        // Dropped behind the guard, also by a panic, as it is declared before it: it may hold a client's place, whose
        // drop locks the state.
        let work;
        let mut state = self.shared.lock();
        if state.collapsed {
            self.drain = drain_bytes(state.conn.limits(), state.authenticated);
            return None;
        }
        let before = state.authenticated;
        state.process(self.pool.buffer(), &mut self.woken);
        work = (self.look)(&self.shared, &mut state.kept);
        if state.authenticated && !before {
            self.pool.set_max(InputPool::MAX);
        }
        if self.output.is_empty() {
            state.conn.swap_output(&mut self.output);
        }
        if self.broken || (state.conn.is_closed() && state.conn.unsent() == 0) {
            // Nothing can be written any more, or the last words had their time.
            // Not counted as sent: whoever flushes must not believe that it was.
            let unsent = state.conn.unsent();
            state.conn.consume_output(unsent);
            self.output.clear();
        }
        if state.closed.is_some() && self.closed_at.is_none() {
            self.closed_at = Some(Instant::now());
            self.drain = drain_bytes(state.conn.limits(), state.authenticated);
        }
        let over = state.conn.is_closed() && self.output.is_empty();
        let due = state.conn.poll_timeout().and_then(|at| state.clock.at(at));
        let deadline = [due, self.read_until, self.tidy].into_iter().flatten().min();
        let (wants_input, closed) = (state.conn.wants_input(), state.closed.is_some());
        let flushes = state.wants_flush();
        drop(state);
        // Also what becomes of it where there is no thread for it: dropped, it locks the state.
        drop(work.map(spawn_blocking));
        (!over).then_some(Turn { deadline, wants_input, flushes, closed })
    }

    fn on_deadline(&mut self) {
        let mut state = self.shared.lock();
        state.tick();
        if self.read_until.is_some_and(|at| at <= Instant::now()) {
            // Once: when a question holds up the input, the close comes with its answer.
            self.read_until = None;
            state.end();
        }
        if self.tidy.is_some_and(|at| at <= Instant::now()) {
            self.tidy = None;
            if std::mem::take(&mut self.traffic) {
                self.tidy = Some(Instant::now() + IDLE_TIME);
            } else {
                self.pool.idle();
                // The machine gave its own output buffer back just now.
                if self.output.is_empty() {
                    self.output = BytesMut::new();
                }
            }
        }
    }

    /// Goes on for as long as the transport takes more at once. A turn behind each write would wake those who wait for
    /// room, and look for input, for little.
    async fn on_write(&mut self, mut result: io::Result<Option<usize>>) {
        loop {
            match result {
                Ok(Some(n @ 1..)) => {
                    self.moved();
                    self.output.advance(n);
                    self.unflushed = true;
                    let next = self.shared.lock().took(n, !self.output.is_empty());
                    match next {
                        Next::Write => {}
                        Next::Flush => return self.flush_at_once().await,
                        Next::Turn => return,
                    }
                }
                Ok(None) => return self.flushed(Ok(())),
                Ok(Some(_)) => return self.lose(&io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
                Err(error) => return self.lose(&error),
            }
            consume_budget().await;
            let (writer, next) = (&mut self.writer, piece(&self.output));
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut *writer).poll_write(cx, next))).await {
                Poll::Ready(next) => result = next.map(Some),
                Poll::Pending => return,
            }
        }
    }

    /// Flushes if that takes no time, which saves a turn: mostly there is nothing to it.
    async fn flush_at_once(&mut self) {
        let flushed = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.writer).poll_flush(cx))).await;
        if let Poll::Ready(result) = flushed {
            self.flushed(result);
        }
    }

    fn flushed(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.unflushed = false;
                self.shared.lock().flushed(&mut self.woken);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.lose(&error),
        }
    }

    /// Bytes moved. The clock is asked only when nobody looks after the buffers yet.
    fn moved(&mut self) {
        self.traffic = true;
        if self.tidy.is_none() {
            self.tidy = Some(Instant::now() + IDLE_TIME);
        }
    }

    /// Nothing can be written any more. What the peer said before is still read, for a while.
    fn lose(&mut self, error: &io::Error) {
        self.shared.lock().fail(error, &mut self.woken);
        self.broken = true;
        self.read_until = Some(Instant::now() + DRAIN_TIME);
        self.unflushed = false;
    }
}

/// Writes once, or flushes (`None`) when there is nothing left to write. Where somebody waits for nothing else, it flushes
/// before: what others write, without a pause, is not waited for, and what does not flush holds nobody up. Cancel-safe, as
/// either is.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    output: &[u8],
    flushes: bool,
) -> io::Result<Option<usize>> {
    let now = piece(output);
    poll_fn(|cx| {
        if flushes || now.is_empty() {
            let flushed = Pin::new(&mut *writer).poll_flush(cx);
            if flushed.is_ready() || now.is_empty() {
                return flushed.map_ok(|()| None);
            }
        }
        Pin::new(&mut *writer).poll_write(cx, now).map_ok(Some)
    })
    .await
}

/// What is written at once.
fn piece(output: &[u8]) -> &[u8] {
    output.split_at(output.len().min(MAX_WRITE)).0
}

/// What is to be drained behind that read; nothing more behind the end.
fn left_of(drain: usize, read: &io::Result<usize>) -> usize {
    match read {
        Ok(n @ 1..) => drain.saturating_sub(*n),
        _ => 0,
    }
}

/// Reads and throws away so much. Cancel-safe.
async fn throw_away(reader: &mut (impl AsyncRead + Unpin), pool: &mut InputPool, drain: &mut usize) {
    while *drain > 0 {
        consume_budget().await;
        // Not an array of its own: it would be part of every driver's future.
        pool.buffer().clear();
        let room = pool.reserve();
        let read = reader.read_buf(pool.buffer()).await;
        if let Ok(n) = read {
            pool.filled(n, room);
        }
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            continue;
        }
        *drain = left_of(*drain, &read);
    }
}

/// Does that as often as it is interrupted.
async fn retried<W>(
    writer: &mut W,
    mut poll: impl FnMut(Pin<&mut W>, &mut Context<'_>) -> Poll<io::Result<()>>,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    loop {
        let result = poll_fn(|cx| poll(Pin::new(writer), cx)).await;
        if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            return result;
        }
        consume_budget().await;
    }
}

/// Ends the connection for its handles when nobody drives it any more.
struct EndOnDrop<R: AdapterRole>(Arc<Shared<R>>);

impl<R: AdapterRole> Drop for EndOnDrop<R> {
    fn drop(&mut self) {
        if !panicking() && self.0.lock().closed.is_none() {
            self.0.close();
        }
        self.0.driven_no_more();
        // Dropped behind the guard, as it is declared before it.
        let mut woken = Wakers::default();
        let mut state = self.0.lock();
        if panicking() {
            state.collapse(&mut woken);
        }
        state.finish(&mut woken);
        if !state.collapsed {
            // Nobody takes it any more, and a handle may be kept for long.
            let unsent = state.conn.unsent();
            state.conn.consume_output(unsent);
            state.conn.swap_output(&mut BytesMut::new());
        }
    }
}
