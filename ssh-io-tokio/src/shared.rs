//! One state machine and its waiters behind one lock, which is never held across an await, nor while anybody
//! is woken.

use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::panicking;

use bytes::BytesMut;
use ssh_proto::adapter::{AdapterRole, ByChannel, Error, News, Replies};
use ssh_proto::{
    ChannelEvent, ChannelId, CloseReason, Connection, Disconnect, DisconnectCode, ExitStatus, OpenFailure,
    Stream,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::os::{Clock, OsEntropy};
use crate::waiters::{ChannelWaiters, Waiter, Waiters, Wakers};

/// What happened to a channel, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct ChannelNews {
    pub(crate) opened: Option<Result<(), OpenFailure>>,
    pub(crate) replies: Replies,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) closed: bool,
    /// How often handles had something to say: what they wrote, asked, and said of the end.
    said: u64,
    pub(crate) waiters: ChannelWaiters,
}

/// What the driver does behind a write.
pub(crate) enum Next {
    /// It writes on.
    Write,
    /// It hands on what was written: nothing more is there.
    Flush,
    /// It gives the machine its turn: somebody waits for a flush of no more than this, there is new output to fetch, or
    /// nothing more is to leave.
    Turn,
}

pub(crate) struct State<R: AdapterRole> {
    pub(crate) clock: Clock,
    pub(crate) conn: Connection<R>,
    pub(crate) kept: R::Kept,
    pub(crate) channels: ByChannel<ChannelNews>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) authenticated: bool,
    /// The last words have left, or had their time.
    said_all: bool,
    /// The driver is gone: nothing happens any more.
    pub(crate) finished: bool,
    /// Somebody's code panicked in the middle of the machine, which is not called any more.
    pub(crate) collapsed: bool,
    /// How many bytes the transport took, and how many of them it was flushed behind: it may be a channel of another
    /// connection, or hold back what it took.
    sent: u64,
    flushed: u64,
    /// When the transport has taken so many, there is a flush that waits for nothing else but that it hands them on.
    flush_at: u64,
    /// The transport failed: nothing can be sent any more, and what the machine will say is only `Eof`.
    io_error: Option<(io::ErrorKind, String)>,
    /// Who waits for the connection as a whole.
    pub(crate) waiters: Waiters,
    /// Who waits for its end alone: whatever happens before is nothing to them.
    pub(crate) enders: Waiters,
    /// Who waits for the transport to take bytes, and to hand them on.
    pub(crate) flushers: Waiters,
}

impl<R: AdapterRole> State<R> {
    fn new(config: Arc<R::Config>) -> Self {
        let clock = Clock::start();
        Self {
            conn: Connection::new(config, Box::new(OsEntropy), clock.now()),
            clock,
            kept: R::Kept::default(),
            channels: ByChannel::default(),
            closed: None,
            authenticated: false,
            said_all: false,
            finished: false,
            collapsed: false,
            sent: 0,
            flushed: 0,
            flush_at: u64::MAX,
            io_error: None,
            waiters: Waiters::default(),
            enders: Waiters::default(),
            flushers: Waiters::default(),
        }
    }

    /// Takes in what is there, and hands out what happened, until both are exhausted. Those in `woken` are to
    /// be woken when the lock is open.
    pub(crate) fn process(&mut self, input: &mut BytesMut, woken: &mut Wakers) {
        let now = self.clock.now();
        loop {
            self.conn.handle_input(now, input);
            let mut any = false;
            while let Some(news) = R::take_event(&mut self.conn, &mut self.kept) {
                any = true;
                self.sort(news, woken);
            }
            if !any {
                break;
            }
        }
    }

    fn sort(&mut self, news: News, woken: &mut Wakers) {
        match news {
            News::Channel(id, event) => {
                // One that is closed also frees a place, and is news for who answers questions.
                if matches!(event, ChannelEvent::Closed) {
                    self.waiters.wake(woken);
                }
                self.sort_channel(id, event, woken);
            }
            News::Opened(id) => self.tell(id, woken, |news| news.opened = Some(Ok(()))),
            News::OpenFailed(id, why) => self.tell(id, woken, |news| news.opened = Some(Err(why))),
            News::Ready => self.channels.values_mut().for_each(|news| news.waiters.wake(woken)),
            News::Closed(reason) => {
                self.closed = Some(reason);
                self.wake_all(woken);
            }
            News::Taken => self.waiters.wake(woken),
            News::Authenticated => {
                self.authenticated = true;
                self.waiters.wake(woken);
            }
        }
    }

    fn wake_all(&mut self, woken: &mut Wakers) {
        self.channels.values_mut().for_each(|news| news.waiters.wake(woken));
        self.flushers.wake(woken);
        self.waiters.wake(woken);
    }

    /// The last words have left, or had their time.
    pub(crate) fn said_all(&mut self, woken: &mut Wakers) {
        self.said_all = true;
        self.flushers.wake(woken);
        self.enders.wake(woken);
    }

    /// Nobody drives the connection any more.
    pub(crate) fn finish(&mut self, woken: &mut Wakers) {
        self.finished = true;
        self.flushers.wake(woken);
        self.waiters.wake(woken);
        self.enders.wake(woken);
    }

    /// Ends the connection for all who wait, without the machine: a panic may have left it anyhow, and a second
    /// panic on the way out of a first one would end the process.
    pub(crate) fn collapse(&mut self, woken: &mut Wakers) {
        self.collapsed = true;
        self.closed.get_or_insert(CloseReason::Local(DisconnectCode::BY_APPLICATION));
        self.wake_all(woken);
    }

    fn sort_channel(&mut self, id: ChannelId, event: ChannelEvent, woken: &mut Wakers) {
        let Some(news) = self.channels.get_mut(id) else { return };
        let [data, stderr] = &mut news.waiters.readers;
        match event {
            ChannelEvent::Readable(Stream::Data) => return data.wake(woken),
            ChannelEvent::Readable(Stream::Stderr) => return stderr.wake(woken),
            ChannelEvent::Writable => return news.waiters.writers.wake(woken),
            ChannelEvent::Reply(ok) => news.replies.answer(ok),
            ChannelEvent::Exit(status) => news.exit = Some(status),
            ChannelEvent::Closed => news.closed = true,
            ChannelEvent::Eof => {}
            // Nobody here can grant it; dropping the ticket refuses.
            ChannelEvent::Request(request) => drop(request),
        }
        news.waiters.wake(woken);
    }

    /// From now on there is news of a channel.
    pub(crate) fn hear_of(&mut self, id: ChannelId) {
        self.channels.insert(id, ChannelNews::default());
    }

    fn tell(&mut self, id: ChannelId, woken: &mut Wakers, change: impl FnOnce(&mut ChannelNews)) {
        if let Some(news) = self.channels.get_mut(id) {
            change(news);
            news.waiters.wake(woken);
        }
    }

    /// The transport took so many bytes, and the driver `holds` more of them or not. Says what comes next.
    pub(crate) fn took(&mut self, n: usize, holds: bool) -> Next {
        if !self.collapsed {
            self.conn.consume_output(n);
            self.sent += n as u64;
        }
        match holds {
            true if !self.collapsed && !self.wants_flush() => Next::Write,
            false if self.collapsed || self.conn.output().is_empty() => Next::Flush,
            _ => Next::Turn,
        }
    }

    /// The transport handed on all that it took.
    pub(crate) fn flushed(&mut self, woken: &mut Wakers) {
        self.flushed = self.sent;
        self.flush_at = u64::MAX;
        if !self.flushers.is_empty() {
            self.flushers.wake(woken);
        }
    }

    /// How many bytes the transport handed on, and will have handed on when all that is there now has left.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.flushed, self.sent + self.conn.unsent() as u64)
    }

    /// Somebody waits until so many bytes are handed on. Says whether the transport has them, so that a flush is due.
    pub(crate) fn await_flush(&mut self, mark: u64) -> bool {
        self.flush_at = self.flush_at.min(mark);
        mark <= self.sent
    }

    /// Whether a flush of the transport would end somebody's wait.
    pub(crate) fn wants_flush(&self) -> bool {
        self.flush_at <= self.sent
    }

    /// Whether so many bytes, which the peer may have said goodbye upon, are still being handed on, or not yet counted.
    pub(crate) fn may_be_leaving(&self, mark: u64) -> bool {
        let by_peer = matches!(self.closed, Some(CloseReason::PeerDisconnected { .. } | CloseReason::Eof));
        let ended = self.said_all || self.finished || self.collapsed || self.io_error.is_some();
        by_peer && !ended && mark <= self.sent
    }

    /// A handle had something to say on a channel. A flush that was given up before does not cover it.
    pub(crate) fn count_said(&mut self, id: ChannelId) {
        if let Some(news) = self.channels.get_mut(id) {
            news.said += 1;
        }
    }

    /// How often that was so.
    pub(crate) fn said(&self, id: ChannelId) -> Option<u64> {
        self.channels.get(id).map(|news| news.said)
    }

    /// The transport has ended.
    pub(crate) fn end(&mut self) {
        if !self.collapsed {
            self.conn.handle_eof(self.clock.now());
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        if !self.collapsed {
            self.conn.handle_timeout(self.clock.now());
        }
    }

    /// The transport failed. Who wants something to leave need not wait any longer, be it bytes, a request or a login.
    pub(crate) fn fail(&mut self, error: &io::Error, woken: &mut Wakers) {
        if self.io_error.is_none() && self.closed.is_none() {
            self.io_error = Some((error.kind(), error.to_string()));
            self.wake_all(woken);
        }
    }

    /// Whether nothing can be sent any more. What was received, and is still coming, can be read.
    pub(crate) fn is_mute(&self) -> bool {
        self.closed.is_some() || self.io_error.is_some()
    }

    /// Why nothing works any more.
    pub(crate) fn gone(&self) -> Error {
        match (&self.closed, &self.io_error) {
            // What the peer said of the end counts more. What we said of it came later.
            (None | Some(CloseReason::Eof | CloseReason::Local(_)), Some((kind, text))) => {
                Error::Io(io::Error::new(*kind, text.clone()))
            }
            (Some(reason), _) => Error::Closed(reason.clone()),
            (None, None) => Error::Closed(CloseReason::Eof),
        }
    }
}

/// The state, locked. A panic that passes it ends the connection, and wakes all who wait once the lock is open.
pub(crate) struct Guard<'a, R: AdapterRole> {
    /// The lock was taken on the way out of a panic that is nothing to the state.
    panicking: bool,
    // Fields are dropped in this order.
    state: MutexGuard<'a, State<R>>,
    woken: Wakers,
    work: WorkOnDrop<'a>,
}

/// Wakes the driver when dropped, if that is due.
struct WorkOnDrop<'a> {
    work: &'a Notify,
    due: bool,
}

impl Drop for WorkOnDrop<'_> {
    fn drop(&mut self) {
        if self.due {
            self.work.notify_one();
        }
    }
}

impl<R: AdapterRole> Drop for Guard<'_, R> {
    fn drop(&mut self) {
        if panicking() && !self.panicking {
            self.state.collapse(&mut self.woken);
            self.work.due = true;
        }
    }
}

impl<R: AdapterRole> Deref for Guard<'_, R> {
    type Target = State<R>;

    fn deref(&self) -> &State<R> {
        &self.state
    }
}

impl<R: AdapterRole> DerefMut for Guard<'_, R> {
    fn deref_mut(&mut self) -> &mut State<R> {
        &mut self.state
    }
}

pub(crate) struct Shared<R: AdapterRole> {
    state: Mutex<State<R>>,
    numbers: AtomicU64,
    /// For the driver: a handle wrote, answered or closed something.
    pub(crate) work: Notify,
    /// Where the driver runs, while it does.
    runtime: Mutex<Option<Handle>>,
}

impl<R: AdapterRole> Shared<R> {
    pub(crate) fn new(config: Arc<R::Config>) -> Self {
        let state = Mutex::new(State::new(config));
        Self { state, numbers: AtomicU64::new(0), work: Notify::new(), runtime: Mutex::default() }
    }

    /// The driver runs on the runtime at hand.
    pub(crate) fn driven_here(&self) {
        *self.lock_runtime() = Handle::try_current().ok();
    }

    /// The driver is gone, and its runtime may be going.
    pub(crate) fn driven_no_more(&self) {
        let runtime = self.lock_runtime().take();
        drop(runtime);
    }

    fn lock_runtime(&self) -> MutexGuard<'_, Option<Handle>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime of the driver, for what blocks: a handle may be used where there is none.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.lock_runtime().clone()
    }

    pub(crate) fn lock(&self) -> Guard<'_, R> {
        // What a panic left behind is taken care of by the guard it passed.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let work = WorkOnDrop { work: &self.work, due: false };
        Guard { panicking: panicking(), state, woken: Wakers::default(), work }
    }

    /// Has the machine do something that cannot fail, and the driver go on.
    ///
    /// A panic ends the connection and goes no further: commands are also given by what is dropped, which may be on
    /// the way out of another panic, and two at once would end the process.
    pub(crate) fn command(&self, command: impl FnOnce(&mut State<R>, &mut Wakers)) {
        // Dropped behind the guard, as it is declared before it.
        let mut woken = Wakers::default();
        let mut state = self.lock();
        if !state.collapsed {
            let run = AssertUnwindSafe(|| command(&mut state, &mut woken));
            if catch_unwind(run).is_err() {
                state.collapse(&mut woken);
            }
        }
        drop(state);
        self.work.notify_one();
    }

    /// Ends the connection. Whoever waits, or calls next, is told why without waiting for the driver.
    pub(crate) fn close(&self) {
        self.command(|state, woken| {
            state.conn.close(Disconnect::by_application());
            state.process(&mut BytesMut::new(), woken);
        });
    }

    /// Waits until the driver is done, and tells why the connection ended.
    pub(crate) async fn finished(self: &Arc<Self>) -> CloseReason {
        self.wait_for_end(|state| state.finished).await;
        self.lock().closed.clone().unwrap_or(CloseReason::Eof)
    }

    /// Waits for the end, and until the last words left or had their time. Who hears of the end, and has nothing else to
    /// wait for, may end the runtime or the process.
    pub(crate) async fn said_all(self: &Arc<Self>) {
        self.wait_for_end(|state| state.said_all || state.finished).await;
    }

    async fn wait_for_end(self: &Arc<Self>, is_over: impl Fn(&State<R>) -> bool) {
        let waiter = Waiter::new(self, None);
        poll_fn(|cx| {
            // Dropped behind the guard, as it is declared before it.
            let _stale;
            let mut state = self.lock();
            if is_over(&state) {
                return Poll::Ready(());
            }
            _stale = state.enders.add(&waiter, cx);
            Poll::Pending
        })
        .await;
    }

    /// A number nobody else who waits has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until `take` finds what it looks for, looking whenever something happens to the connection as a
    /// whole.
    pub(crate) async fn wait_for<T>(
        self: &Arc<Self>,
        take: impl FnMut(&mut State<R>) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait(None, take).await
    }

    /// The same, looking whenever something happens to a channel, or to all of them.
    pub(crate) async fn wait_for_channel<T>(
        self: &Arc<Self>,
        id: ChannelId,
        take: impl FnMut(&mut State<R>) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait(Some(id), take).await
    }

    async fn wait<T>(
        self: &Arc<Self>,
        channel: Option<ChannelId>,
        mut take: impl FnMut(&mut State<R>) -> Option<T>,
    ) -> Result<T, Error> {
        let waiter = Waiter::new(self, channel);
        poll_fn(|cx| {
            // Dropped behind the guard, as it is declared before it.
            let _stale;
            let mut state = self.lock();
            if let Some(found) = take(&mut state) {
                return Poll::Ready(Ok(found));
            }
            if state.closed.is_some() {
                return Poll::Ready(Err(state.gone()));
            }
            let state = &mut *state;
            let waiters = match channel {
                None => &mut state.waiters,
                Some(id) => match state.channels.get_mut(id) {
                    Some(news) => &mut news.waiters.others,
                    None => return Poll::Ready(Err(state.gone())),
                },
            };
            _stale = waiters.add(&waiter, cx);
            Poll::Pending
        })
        .await
    }
}
