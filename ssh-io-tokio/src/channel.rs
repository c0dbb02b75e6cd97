//! A channel as an asynchronous reader and writer.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ssh_proto::adapter::{Asker, Error, Replies};
use ssh_proto::{
    ChannelId, ChannelRequestKind, ExitStatus, ReadError, RequestError, Stderr as StderrMode, Stream,
    WriteError,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::shared::{Shared, State};
use crate::waiters::Waiter;

/// The channel of the last handle on it: dropped, it closes.
struct Core {
    shared: Arc<Shared>,
    id: ChannelId,
}

impl Drop for Core {
    fn drop(&mut self) {
        // Dropped behind the guard, as it is declared before it: there may be wakers in it.
        let _news;
        let mut state = self.shared.lock();
        _news = state.channels.remove(&self.id);
        if let Ok(mut channel) = state.conn.channel(self.id) {
            // What was written leaves first; what the peer still sends is nobody's.
            channel.close();
            channel.release();
        }
        drop(state);
        self.shared.work.notify_one();
    }
}

/// A channel. It reads the data stream and writes data; [`stderr`](Self::stderr) reads the other one.
///
/// Reads and writes are cancel-safe: what was not reported as read or written was not.
///
/// Any number of tasks may use it through a shared reference. A read or a write takes it whole, and wakes the
/// task of its last poll; [`tokio::io::split`] gives each direction to a task of its own.
pub struct Channel {
    waiter: Waiter,
    core: Arc<Core>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.core.id).finish()
    }
}

/// Somebody who waits for an answer, or gives up doing so.
struct Waiting<'a> {
    core: &'a Core,
    asker: Asker,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(news) = self.core.shared.lock().channels.get_mut(&self.core.id) {
            news.replies.give_up(self.asker);
        }
    }
}

/// The reading side of a channel's stderr.
///
/// There may be several of a channel. Each wakes its own reader, and a byte goes to whoever reads first.
#[derive(Debug)]
pub struct Stderr {
    channel: Channel,
}

impl Channel {
    pub(crate) fn new(shared: Arc<Shared>, id: ChannelId) -> Self {
        Self::of(Arc::new(Core { shared, id }))
    }

    /// One more handle on a channel.
    fn of(core: Arc<Core>) -> Self {
        Self { waiter: Waiter::new(&core.shared, Some(core.id)), core }
    }

    /// The channel's id.
    pub fn id(&self) -> ChannelId {
        self.core.id
    }

    /// Makes a request and waits for its answer. Several may wait at once; each gets its own.
    ///
    /// Cancel-safe: dropped, its answer goes by unseen.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::RequestRefused`], [`Error::Closed`].
    pub async fn request(&self, kind: &ChannelRequestKind) -> Result<(), Error> {
        let core = &*self.core;
        let asker = self.ask(kind, true, Replies::expect).await?;
        let _waiting = Waiting { core, asker };
        let answer = |state: &mut State| {
            let news = state.channels.get_mut(&core.id)?;
            news.replies.take(asker).or_else(|| news.closed.then_some(false))
        };
        if core.shared.wait_for_channel(core.id, answer).await? { Ok(()) } else { Err(Error::RequestRefused) }
    }

    /// Makes a request, waiting for room. An answer, if one is wanted, goes by unseen.
    ///
    /// Cancel-safe: dropped before it is ready, nothing was sent.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Closed`].
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
        let send = |state: &mut State| {
            if state.is_mute() {
                return Some(Err(state.gone()));
            }
            let State { conn, channels, .. } = state;
            let result = match conn.channel(*id) {
                Ok(mut channel) => channel.request(kind, want_reply),
                Err(_) => Err(RequestError::Closed),
            };
            Some(match (result, channels.get_mut(id)) {
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
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn exec(&self, command: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(&ChannelRequestKind::exec(command)).await
    }

    /// Starts the user's shell.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn shell(&self) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Shell).await
    }

    /// Starts a subsystem, such as `sftp`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn subsystem(&self, name: &str) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Subsystem(name.to_owned())).await
    }

    /// Sets how stderr is delivered from now on.
    pub fn set_stderr(&self, how: StderrMode) {
        if let Ok(mut channel) = self.core.shared.lock().conn.channel(self.core.id) {
            channel.set_stderr(how);
        }
    }

    /// A handle that reads the other stream.
    pub fn stderr(&self) -> Stderr {
        Stderr { channel: Self::of(Arc::clone(&self.core)) }
    }

    /// Says that no more input follows; everything written leaves before. Saying it again does nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] for a lost connection.
    pub fn finish_input(&self) -> Result<(), Error> {
        let mut state = self.core.shared.lock();
        if state.is_mute() {
            return Err(state.gone());
        }
        if let Ok(mut channel) = state.conn.channel(self.core.id) {
            let _ = channel.eof();
        }
        drop(state);
        self.core.shared.work.notify_one();
        Ok(())
    }

    /// Waits until the peer closed the channel, and tells how the program ended, if the peer said so. Output
    /// that nobody reads can keep a program from ending.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Closed`] for a lost connection.
    pub async fn wait(&self) -> Result<Option<ExitStatus>, Error> {
        let ended = |state: &mut State| {
            let news = state.channels.get(&self.core.id)?;
            news.closed.then(|| news.exit.clone())
        };
        self.core.shared.wait_for_channel(self.core.id, ended).await
    }

    /// Reads both streams to their ends.
    pub(crate) async fn read_both(&mut self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut out_open, mut err_open) = (true, true);
        poll_fn(|cx| {
            for (stream, to, open) in
                [(Stream::Data, &mut stdout, &mut out_open), (Stream::Stderr, &mut stderr, &mut err_open)]
            {
                while *open {
                    match self.poll_take(cx, stream, |channel| channel.read(stream, usize::MAX)) {
                        Poll::Ready(Ok(Some(bytes))) => to.extend_from_slice(&bytes),
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
        let Ok(mut channel) = state.conn.channel(*id) else { return Poll::Ready(Ok(None)) };
        match take(&mut channel) {
            Ok(taken) => {
                // The peer may get its window back.
                if !state.conn.output().is_empty() {
                    shared.work.notify_one();
                }
                Poll::Ready(Ok(Some(taken)))
            }
            Err(ReadError::Eof | ReadError::Reset) => Poll::Ready(Ok(None)),
            Err(ReadError::Blocked) => {
                let Some(news) = state.channels.get_mut(id) else {
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
        let room = buf.remaining();
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.poll_take(cx, stream, |channel| channel.read(stream, room)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(bytes)) => {
                buf.put_slice(&bytes.unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_stream(cx, Stream::Data, buf)
    }
}

impl AsyncRead for Stderr {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_read_stream(cx, Stream::Stderr, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let Core { shared, id } = &*self.core;
        // Dropped behind the guard, as it is declared before it.
        let _stale;
        let mut state = shared.lock();
        if state.is_mute() {
            return Poll::Ready(Err(state.gone().into()));
        }
        let result = match state.conn.channel(*id) {
            Ok(mut channel) => channel.write(Stream::Data, src),
            Err(_) => Err(WriteError::Closed),
        };
        match result {
            Ok(n) => {
                drop(state);
                shared.work.notify_one();
                Poll::Ready(Ok(n))
            }
            Err(WriteError::Blocked) => {
                let Some(news) = state.channels.get_mut(id) else {
                    return Poll::Ready(Err(state.gone().into()));
                };
                _stale = news.waiters.writers.add(&self.waiter, cx);
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    // The driver sends what was accepted, without being asked.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish_input().map_err(io::Error::from))
    }
}
