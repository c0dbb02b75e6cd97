//! A channel as an asynchronous reader and writer.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ssh_proto::adapter::{self, AdapterRole, Asker, Error, Replies};
use ssh_proto::{
    ChannelId, ChannelRequestKind, Client, ExitStatus, ReadError, RequestError, Server, StderrMode, Stream,
    TerminalModes, WindowSize, WriteError,
};
use tokio::io::ReadBuf;
use tokio::task::coop::poll_proceed;

use crate::shared::{Shared, State};
use crate::waiters::Waiter;

mod halves;

pub use halves::{ReadHalfOf, Stderr, StderrOf, WriteHalfOf};

/// The channel of the last handle on it: dropped, it closes.
struct Core<R: AdapterRole> {
    shared: Arc<Shared<R>>,
    id: ChannelId,
}

impl<R: AdapterRole> Drop for Core<R> {
    fn drop(&mut self) {
        // There may be wakers in it, which are dropped when the lock is open.
        let news = self.shared.lock().channels.remove(self.id);
        drop(news);
        self.shared.command(|state, _| {
            if let Ok(mut channel) = state.conn.channel(self.id) {
                // What was written leaves first; what the peer still sends is nobody's.
                channel.close();
                channel.release();
            }
        });
    }
}

/// Lets the other tasks of the thread have their turn now and then: a stream that is always ready would keep them
/// waiting. One that is not costs nothing, so that a task may wait for any number of them. Outside tokio there is no
/// such count.
fn poll_in_turn<T>(cx: &mut Context<'_>, poll: impl FnOnce(&Context<'_>) -> Poll<T>) -> Poll<T> {
    let turn = ready!(poll_proceed(cx));
    let polled = poll(cx);
    if polled.is_ready() {
        turn.made_progress();
    }
    polled
}

/// A channel of a connection whose role does not matter to its user.
///
/// It reads the data stream and writes data; a read gives 0 at the stream's end, also when the peer closed
/// the channel without saying so first. [`stderr`](Self::stderr) is the other stream. Clones are handles on the
/// same channel, which closes when the last one is dropped: what was written leaves first.
///
/// Reads and writes are cancel-safe: what was not reported as read or written was not. That goes for each single
/// one, not for calls made of several, such as `read_exact` and `write_all`. `flush` waits until the transport took and flushed
/// what was written, asked and said before, by whatever handle on the channel; `shutdown` says that no more input
/// follows, and flushes. Both are cancel-safe: they can be called again, and the end of the input is said at the first
/// poll. Requests that wait for the end of a key exchange, or for room, are waited for first. A call cannot be told from
/// one that was given up and called again: what other handles go on writing and asking meanwhile, without a pause, holds
/// up a flush for as long. One that is first called behind the end of the connection fails: what has left by then is
/// not known.
///
/// Several tasks may wait on handles of their own. Each has its place, and a byte goes to whoever reads first.
pub struct ChannelOf<R: AdapterRole> {
    core: Arc<Core<R>>,
    waiter: Waiter<R>,
    /// What the flush under way, or one that was given up, waits for.
    mark: Option<Mark>,
    /// This handle has ended the input.
    shut: bool,
}

/// What a flush waits for.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// So many bytes the transport must have taken and flushed,
    sent: u64,
    /// which cover what had been said on the channel so often. Behind that there may be a later call, and it is not
    /// known if there is.
    said: Option<u64>,
}

/// A client's channel.
pub type Channel = ChannelOf<Client>;
/// A server's channel.
pub type ServerChannel = ChannelOf<Server>;

impl<R: AdapterRole> Clone for ChannelOf<R> {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.core))
    }
}

impl<R: AdapterRole> fmt::Debug for ChannelOf<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.core.id).finish()
    }
}

/// Somebody who waits for an answer, or gives up doing so.
struct Waiting<'a, R: AdapterRole> {
    core: &'a Core<R>,
    asker: Asker,
}

impl<R: AdapterRole> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        if let Some(news) = self.core.shared.lock().channels.get_mut(self.core.id) {
            news.replies.give_up(self.asker);
        }
    }
}

impl<R: AdapterRole> ChannelOf<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>, id: ChannelId) -> Self {
        Self::of(Arc::new(Core { shared, id }))
    }

    /// One more handle on a channel.
    fn of(core: Arc<Core<R>>) -> Self {
        Self { waiter: Waiter::new(&core.shared, Some(core.id)), core, mark: None, shut: false }
    }

    /// The channel's id.
    pub fn id(&self) -> ChannelId {
        self.core.id
    }

    /// Makes a request and waits for its answer. Several may wait at once; each gets its own.
    ///
    /// Cancel-safe: dropped while it waits for room, nothing was sent; later, the request is made all the same,
    /// and its answer goes by unseen.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::RequestRefused`], [`Error::Closed`], [`Error::Io`].
    pub async fn request(&self, kind: &ChannelRequestKind) -> Result<(), Error> {
        let core = &*self.core;
        let asker = self.ask(kind, true, Replies::expect).await?;
        let _waiting = Waiting { core, asker };
        let answer = |state: &mut State<R>| {
            let news = state.channels.get_mut(core.id)?;
            news.replies.take(asker).or_else(|| news.closed.then_some(false))
        };
        if core.shared.wait_for_channel(core.id, answer).await? { Ok(()) } else { Err(Error::RequestRefused) }
    }

    /// Makes a request, waiting for room. An answer, if one is wanted, goes by unseen.
    ///
    /// Cancel-safe: dropped before it is ready, nothing was sent. When it is ready, the request is on its way.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Closed`], [`Error::Io`].
    pub async fn send_request(&self, kind: &ChannelRequestKind, want_reply: bool) -> Result<(), Error> {
        self.ask(kind, want_reply, |replies| {
            if want_reply {
                replies.expect_unseen()
            }
        })
        .await
    }

    /// Makes a request, waiting for room, and says who waits for the answer.
    async fn ask<T>(
        &self,
        kind: &ChannelRequestKind,
        want_reply: bool,
        expect: impl Fn(&mut Replies) -> T,
    ) -> Result<T, Error> {
        let Core { shared, id } = &*self.core;
        let send = |state: &mut State<R>| {
            if state.is_mute() {
                return Some(Err(state.gone()));
            }
            let result = match state.conn.channel(*id) {
                Ok(mut channel) => channel.request(kind, want_reply),
                Err(_) => Err(RequestError::Closed),
            };
            if result.is_ok() {
                state.count_said(*id);
            }
            Some(match (result, state.channels.get_mut(*id)) {
                (Err(RequestError::Full), _) => return None,
                (Err(error), _) => Err(error.into()),
                (Ok(()), Some(news)) => Ok(expect(&mut news.replies)),
                (Ok(()), None) => Err(RequestError::Closed.into()),
            })
        };
        // `Ready` wakes all channels; an answer makes room too, and the channel's end ends the wait.
        let asked = shared.wait_for_channel(*id, send).await??;
        shared.work.notify_one();
        Ok(asked)
    }

    /// Runs a command.
    ///
    /// Cancel-safe as [`request`](Self::request): a command that was asked for may run.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn exec(&self, command: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(&ChannelRequestKind::exec(command)).await
    }

    /// Starts the user's shell.
    ///
    /// Cancel-safe as [`request`](Self::request).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn shell(&self) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Shell).await
    }

    /// Starts a subsystem, such as `sftp`.
    ///
    /// Cancel-safe as [`request`](Self::request).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn subsystem(&self, name: &str) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Subsystem(name.into())).await
    }

    /// Asks for a terminal.
    ///
    /// Who does not need the answer saves its round trip: [`send_request`](Self::send_request) with
    /// [`ChannelRequestKind::Pty`], and the program's request behind it in the same flight.
    ///
    /// Cancel-safe as [`request`](Self::request).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_pty(&self, term: &str, size: WindowSize, modes: TerminalModes) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Pty { term: term.into(), size, modes }).await
    }

    /// Sets a variable for the program to come. Servers often refuse; nothing is waited for but room.
    ///
    /// Cancel-safe as [`send_request`](Self::send_request).
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub async fn env(&self, name: &str, value: &str) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::env(name, value), false).await
    }

    /// Tells the terminal's new size.
    ///
    /// Cancel-safe as [`send_request`](Self::send_request).
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub async fn window_change(&self, size: WindowSize) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::WindowChange(size), false).await
    }

    /// Sends the program a signal, such as `TERM`.
    ///
    /// Cancel-safe as [`send_request`](Self::send_request).
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub async fn signal(&self, name: &str) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::Signal(name.into()), false).await
    }

    /// Sets how stderr is delivered from now on.
    pub fn set_stderr(&self, how: StderrMode) {
        // What waits may go another way, or have its window given back.
        self.core.shared.command(|state, _| {
            if let Ok(mut channel) = state.conn.channel(self.core.id) {
                channel.set_stderr(how);
            }
        });
    }

    /// A handle that reads, or at a server writes, the other stream.
    pub fn stderr(&self) -> StderrOf<R> {
        StderrOf { channel: self.clone() }
    }

    /// Says that no more input follows; everything written leaves before. Saying it again does nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] for a lost connection, [`Error::Io`] where its transport failed.
    pub fn finish_input(&self) -> Result<(), Error> {
        let shared = &self.core.shared;
        let mut said = false;
        shared.command(|state, _| {
            if !state.is_mute() {
                if let Ok(mut channel) = state.conn.channel(self.core.id) {
                    let _ = channel.eof();
                    state.count_said(self.core.id);
                }
                said = true;
            }
        });
        if said { Ok(()) } else { Err(shared.lock().gone()) }
    }

    /// Closes the channel: nothing more is sent but what was written, and what was not read can still be.
    pub fn close(&self) {
        self.core.shared.command(|state, _| {
            if let Ok(mut channel) = state.conn.channel(self.core.id) {
                channel.close();
                state.count_said(self.core.id);
            }
        });
    }

    /// Waits until the peer says how the program ended, or closed the channel without saying it (`None`). Its
    /// output may still be coming, as that of a program it left behind.
    ///
    /// Cancel-safe: it takes nothing away, and can be called again.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn wait_exit(&self) -> Result<Option<ExitStatus>, Error> {
        let ended = |state: &mut State<R>| {
            let news = state.channels.get(self.core.id)?;
            (news.exit.is_some() || news.closed).then(|| news.exit.clone())
        };
        self.core.shared.wait_for_channel(self.core.id, ended).await
    }

    /// Whether the peer closed the channel.
    pub fn is_closed(&self) -> bool {
        let state = self.core.shared.lock();
        state.closed.is_some() || state.channels.get(self.core.id).is_none_or(|news| news.closed)
    }

    /// How the program ended, if that is known by now.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.core.shared.lock().channels.get(self.core.id)?.exit.clone()
    }

    /// The two directions as handles of their own. The channel closes when both are dropped; dropping the
    /// writing half ends the input.
    pub fn split(self) -> (ReadHalfOf<R>, WriteHalfOf<R>) {
        (ReadHalfOf { channel: self.clone() }, WriteHalfOf { channel: self })
    }

    /// Waits until the peer closed the channel, and tells how the program ended, if the peer said so. Output
    /// that nobody reads can keep a program from ending, and a program left behind with the same output keeps
    /// the channel open: [`wait_exit`](Self::wait_exit) does not wait for that.
    ///
    /// Cancel-safe: it takes nothing away, and can be called again.
    ///
    /// # Errors
    /// [`Error::Closed`] for a connection lost before either was said, [`Error::Io`] where its
    /// transport failed.
    pub async fn wait(&self) -> Result<Option<ExitStatus>, Error> {
        let ended = |state: &mut State<R>| {
            let news = state.channels.get(self.core.id)?;
            // Of a connection that is over nothing else is to come.
            let over = state.closed.is_some() && news.exit.is_some();
            (news.closed || over).then(|| news.exit.clone())
        };
        self.core.shared.wait_for_channel(self.core.id, ended).await
    }

    /// Reads both streams to their ends.
    pub(crate) async fn read_both(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut out_open, mut err_open) = (true, true);
        poll_fn(|cx| {
            for (stream, to, open) in
                [(Stream::Data, &mut stdout, &mut out_open), (Stream::Stderr, &mut stderr, &mut err_open)]
            {
                while *open {
                    match self.poll_take(cx, stream, |channel| channel.read(stream, usize::MAX)) {
                        Poll::Ready(Ok(Some(bytes))) => {
                            to.reserve(bytes.len());
                            adapter::append(to, &bytes);
                        }
                        Poll::Ready(Ok(None)) => *open = false,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
            }
            if out_open || err_open { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await?;
        Ok((stdout, stderr))
    }

    /// Takes received data; `None` at the stream's end.
    fn poll_take<T>(
        &self,
        cx: &Context<'_>,
        stream: Stream,
        take: impl FnOnce(&mut ssh_proto::Channel<'_>) -> Result<T, ReadError>,
    ) -> Poll<Result<Option<T>, Error>> {
        let Core { shared, id } = &*self.core;
        // Dropped behind the guard, as it is declared before it.
        let _stale;
        let mut state = shared.lock();
        if state.collapsed {
            return Poll::Ready(Err(state.gone()));
        }
        let before = state.conn.unsent();
        let Ok(mut channel) = state.conn.channel(*id) else { return Poll::Ready(Ok(None)) };
        match take(&mut channel) {
            Ok(taken) => {
                let owed = state.conn.unsent() > before;
                drop(state);
                // The peer gets its window back.
                if owed {
                    shared.work.notify_one();
                }
                Poll::Ready(Ok(Some(taken)))
            }
            Err(ReadError::Eof | ReadError::Reset) => Poll::Ready(Ok(None)),
            Err(ReadError::Blocked) => {
                let Some(news) = state.channels.get_mut(*id) else {
                    return Poll::Ready(Err(state.gone()));
                };
                let [data, stderr] = &mut news.waiters.readers;
                let readers = if stream == Stream::Data { data } else { stderr };
                _stale = readers.add(&self.waiter, cx);
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(state.gone())),
        }
    }

    fn poll_read_stream(
        &self,
        cx: &Context<'_>,
        stream: Stream,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.poll_read_chunk(cx, stream, buf.remaining()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(bytes)) => {
                adapter::append(buf, &bytes.unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        }
    }

    fn poll_read_chunk(
        &self,
        cx: &Context<'_>,
        stream: Stream,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        if max == 0 {
            return Poll::Ready(Ok(Some(Bytes::new())));
        }
        self.poll_take(cx, stream, |channel| channel.read(stream, max))
    }

    fn poll_write_stream(&self, cx: &Context<'_>, stream: Stream, src: &[u8]) -> Poll<io::Result<usize>> {
        let Core { shared, id } = &*self.core;
        // Dropped behind the guard, as it is declared before it.
        let _stale;
        let mut state = shared.lock();
        if state.is_mute() {
            return Poll::Ready(Err(state.gone().into()));
        }
        let result = match state.conn.channel(*id) {
            Ok(mut channel) => channel.write(stream, src),
            Err(_) => Err(WriteError::Closed),
        };
        match result {
            Ok(n) => {
                state.count_said(*id);
                drop(state);
                shared.work.notify_one();
                Poll::Ready(Ok(n))
            }
            Err(WriteError::Blocked) => {
                let Some(news) = state.channels.get_mut(*id) else {
                    return Poll::Ready(Err(state.gone().into()));
                };
                _stale = news.waiters.writers.add(&self.waiter, cx);
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Waits until the transport took and flushed what was there at the first call, and what was said on the channel since.
    fn poll_flush_output(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        // Dropped behind the guard, as it is declared before it.
        let _stale;
        let mut state = self.core.shared.lock();
        let said = state.said(self.core.id);
        self.mark = self.mark.filter(|mark| mark.said == said);
        // What a key exchange holds back is not among the output yet. It will be, and whoever flushes is woken
        // when the transport takes some of that.
        if self.mark.is_none()
            && !state.is_mute()
            && state.conn.channel(self.core.id).is_ok_and(|channel| !channel.is_drained())
        {
            _stale = state.flushers.add(&self.waiter, cx);
            // By then there is more to see, whatever others write.
            let next = state.progress().1.saturating_add(1);
            state.await_flush(next);
            return Poll::Pending;
        }
        let (flushed, unsent) = state.progress();
        // What was to leave may be thrown away by now, so that nothing seems left to send.
        let fresh = self.mark.is_none();
        let mark = self.mark.get_or_insert(Mark { sent: unsent, said }).sent;
        let reached = flushed >= mark;
        if state.is_mute() && (fresh || !(reached || state.may_be_leaving(mark))) {
            self.mark = None;
            return Poll::Ready(Err(state.gone().into()));
        }
        if reached {
            self.mark = None;
            return Poll::Ready(Ok(()));
        }
        _stale = state.flushers.add(&self.waiter, cx);
        if state.await_flush(mark) {
            drop(state);
            self.core.shared.work.notify_one();
        }
        Poll::Pending
    }

    fn poll_end_input(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.finish_input()?;
            self.shut = true;
        }
        self.poll_flush_output(cx)
    }

    fn this(&mut self) -> &mut Self {
        self
    }
}

impl ServerChannel {
    /// Tells the client how its program ended.
    ///
    /// Cancel-safe as [`send_request`](Self::send_request).
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Closed`], [`Error::Io`].
    pub async fn exit(&self, status: ExitStatus) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::Exit(status), false).await
    }
}
