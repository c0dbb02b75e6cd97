//! A channel as a reader and a writer.

mod halves;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ssh_proto::adapter::{self, AdapterRole, Replies};
use ssh_proto::{
    ChannelId, ChannelRequestKind, Client, ExitStatus, ReadError, RequestError, StderrMode, Stream,
    TerminalModes, WindowSize, WriteError,
};

pub use self::halves::{ReadHalfOf, Stderr, StderrOf, WriteHalfOf};
use crate::engine::{Guard, STREAMS, Shared, Signal};
use crate::error::Error;
use crate::os::after;
use crate::transport::{Split, Transport, WRITE_TIMEOUT};

/// The channel of the last handle on it: dropped, it closes.
pub(crate) struct ChannelCore<R: AdapterRole> {
    pub(crate) shared: Arc<Shared<R>>,
    pub(crate) id: ChannelId,
    pub(crate) wake: Arc<Signal>,
    timeouts: Mutex<Timeouts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl<R: AdapterRole> Drop for ChannelCore<R> {
    fn drop(&mut self) {
        let mut guard = self.shared.lock();
        guard.channels.remove(self.id);
        guard.contain(&self.shared, |state| {
            if let Some(mut channel) = state.channel(self.id) {
                // What was written leaves first; what the peer still sends is nobody's.
                channel.close();
                channel.release();
            }
        });
    }
}

/// A channel of a connection whose role does not matter to its user.
///
/// It reads the data stream and writes data; a read gives 0 at the stream's end, also when the peer closed
/// the channel without saying so first. [`stderr`](Self::stderr) reads, or at a server writes, the other one. It may
/// be used from many threads at once; clones are handles on the same channel, which closes when the last one
/// is dropped. `flush` waits until the transport took and flushed what was written, asked and said before, by whatever
/// handle on the channel, and at most the write timeout. Requests that wait for the end of a key exchange, or for room,
/// are waited for first: what other handles go on asking meanwhile, without a pause, holds up a flush for as long. One
/// that is first called behind the end of the connection fails: what has left by then is not known.
pub struct ChannelOf<R: AdapterRole> {
    pub(crate) core: Arc<ChannelCore<R>>,
}

/// A client's channel.
pub type Channel = ChannelOf<Client>;

impl<R: AdapterRole> Clone for ChannelOf<R> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<R: AdapterRole> fmt::Debug for ChannelOf<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.core.id).finish()
    }
}

/// Waits for the answer to an open.
pub(crate) fn wait_opened(channel: Channel, timeout: Option<Duration>) -> Result<Channel, Error> {
    channel
        .wait_for(timeout, |guard, id| guard.channels.get_mut(id)?.opened.take())?
        .map_err(Error::OpenFailed)?;
    Ok(channel)
}

impl<R: AdapterRole> ChannelOf<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>, id: ChannelId, wake: Arc<Signal>) -> Self {
        Self { core: Arc::new(ChannelCore { shared, id, wake, timeouts: Mutex::default() }) }
    }

    /// The channel's id.
    pub fn id(&self) -> ChannelId {
        self.core.id
    }

    fn timeouts(&self) -> Timeouts {
        *self.core.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how long a read may wait, here and for stderr, and a [`wait`](Self::wait) for the program's end.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.core.timeouts.lock().unwrap_or_else(PoisonError::into_inner).read = timeout;
    }

    /// Sets how long a write may wait, a flush, and a request: for room, and together with that for its answer.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.core.timeouts.lock().unwrap_or_else(PoisonError::into_inner).write = timeout;
    }

    /// Sets both.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.set_read_timeout(timeout);
        self.set_write_timeout(timeout);
    }

    /// Waits until `take` finds what it looks for.
    fn wait_for<T>(
        &self,
        timeout: Option<Duration>,
        take: impl FnMut(&mut Guard<'_, R>, ChannelId) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait_until(timeout.and_then(after), take)
    }

    /// The same, at most until `deadline`.
    fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut Guard<'_, R>, ChannelId) -> Option<T>,
    ) -> Result<T, Error> {
        let core = &*self.core;
        let _watch = core.shared.watch();
        let mut guard = core.shared.lock();
        loop {
            if let Some(found) = take(&mut guard, core.id) {
                return Ok(found);
            }
            if guard.closed.is_some() {
                return Err(guard.gone());
            }
            guard = core.shared.wait(guard, &core.wake, deadline).map_err(|(_, error)| error)?;
        }
    }

    /// Reads from a stream; 0 at its end.
    pub(crate) fn read_stream(&self, stream: Stream, dst: &mut [u8]) -> Result<usize, Error> {
        match dst.is_empty() {
            true => Ok(0),
            false => Ok(self.take(|channel| channel.read_into(stream, dst))?.unwrap_or(0)),
        }
    }

    fn read_piece(&self, stream: Stream, max: usize) -> Result<Option<Bytes>, Error> {
        match max {
            0 => Ok(Some(Bytes::new())),
            _ => self.take(|channel| channel.read(stream, max)),
        }
    }

    /// Takes received data; `None` at the stream's end.
    fn take<T>(
        &self,
        mut take: impl FnMut(&mut ssh_proto::Channel<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, Error> {
        let shared = &self.core.shared;
        self.wait_for(self.timeouts().read, |guard, id| {
            if guard.is_cut(id) {
                return Some(Ok(None));
            }
            let conn = match guard.machine() {
                Ok(conn) => conn,
                Err(error) => return Some(Err(error)),
            };
            let before = conn.unsent();
            let Ok(mut channel) = conn.channel(id) else { return Some(Ok(None)) };
            match take(&mut channel) {
                Ok(taken) => {
                    // The peer gets its window back; that is for the writer thread.
                    if conn.unsent() > before {
                        shared.poke(guard);
                    }
                    Some(Ok(Some(taken)))
                }
                Err(ReadError::Blocked) => None,
                Err(ReadError::Eof | ReadError::Reset) => Some(Ok(None)),
                Err(_) => Some(Err(guard.gone())),
            }
        })?
    }

    /// Writes to a stream as much as there is room for, waiting for some.
    pub(crate) fn write_stream(&self, stream: Stream, src: &[u8]) -> Result<usize, Error> {
        let deadline = self.timeouts().write.and_then(after);
        let core = &*self.core;
        let _watch = core.shared.watch();
        let mut guard = core.shared.lock();
        loop {
            if guard.is_mute() {
                return Err(guard.gone());
            }
            let result = match guard.machine()?.channel(core.id) {
                Ok(mut channel) => channel.write(stream, src),
                Err(_) => Err(WriteError::Closed),
            };
            if result.is_ok() {
                guard.count_said(core.id);
            }
            match result {
                Ok(n) if deadline.is_none() => {
                    guard = core.shared.flush(guard);
                    return if guard.broken.is_some() { Err(guard.gone()) } else { Ok(n) };
                }
                // Writing could block for longer than this call may.
                Ok(n) => {
                    core.shared.poke(&mut guard);
                    return Ok(n);
                }
                Err(WriteError::Blocked) => {
                    guard = core.shared.wait(guard, &core.wake, deadline).map_err(|(_, error)| error)?;
                }
                Err(_) => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            }
        }
    }

    /// Waits until the transport took what was said on the channel.
    pub(crate) fn flush_output(&self) -> Result<(), Error> {
        let deadline = self.timeouts().write.and_then(after);
        let core = &*self.core;
        let _watch = core.shared.watch();
        let mut guard = core.shared.lock();
        // Known before this thread writes: the peer may say goodbye upon that.
        let mut mark = guard.progress(core.id).1;
        match deadline {
            None => guard = core.shared.flush(guard),
            // Writing could block for longer than this call may.
            Some(_) => core.shared.poke(&mut guard),
        }
        loop {
            let (sent, all) = guard.progress(core.id);
            mark = mark.or(all);
            if mark.is_some_and(|mark| sent >= mark) {
                return Ok(());
            }
            if guard.is_mute() && !(mark.is_some() && guard.may_be_leaving()) {
                return Err(guard.gone());
            }
            if guard.is_cut(core.id) {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
            }
            guard = core.shared.wait(guard, &core.shared.taken, deadline).map_err(|(_, error)| error)?;
        }
    }

    /// Makes a request, waiting for room. The answer, if one is wanted, goes by unseen:
    /// [`request`](Self::request) waits for it.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::TimedOut`], [`Error::Closed`], [`Error::Io`].
    pub fn send_request(&self, kind: &ChannelRequestKind, want_reply: bool) -> Result<(), Error> {
        let unseen = |replies: &mut Replies| {
            if want_reply {
                replies.expect_unseen()
            }
        };
        self.ask(kind, want_reply, self.timeouts().write.and_then(after), unseen)
    }

    /// Makes a request, waiting for room, and says who waits for the answer.
    fn ask<T>(
        &self,
        kind: &ChannelRequestKind,
        want_reply: bool,
        deadline: Option<Instant>,
        expect: impl Fn(&mut Replies) -> T,
    ) -> Result<T, Error> {
        let shared = &self.core.shared;
        self.wait_until(deadline, |guard, id| {
            if guard.is_mute() {
                return Some(Err(guard.gone()));
            }
            let result = match guard.channel(id) {
                Some(mut channel) => channel.request(kind, want_reply),
                None => Err(RequestError::Closed),
            };
            let asked = match result {
                Err(RequestError::Full) => return None,
                Err(error) => Err(error.into()),
                Ok(()) => match guard.channels.get_mut(id) {
                    Some(news) => Ok(expect(&mut news.replies)),
                    None => Err(RequestError::Closed.into()),
                },
            };
            if asked.is_ok() {
                guard.count_said(id);
            }
            shared.poke(guard);
            Some(asked)
        })?
    }

    /// Makes a request and waits for its answer.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request), and [`Error::RequestRefused`].
    pub fn request(&self, kind: &ChannelRequestKind) -> Result<(), Error> {
        let deadline = self.timeouts().write.and_then(after);
        let asker = self.ask(kind, true, deadline, Replies::expect)?;
        let answer = self.wait_until(deadline, |guard, id| {
            let news = guard.channels.get_mut(id)?;
            news.replies.take(asker).or_else(|| news.closed.then_some(false))
        });
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::RequestRefused),
            Err(error) => {
                if let Some(news) = self.core.shared.lock().channels.get_mut(self.core.id) {
                    news.replies.give_up(asker);
                }
                Err(error)
            }
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn exec(&self, command: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(&ChannelRequestKind::exec(command))
    }

    /// Starts the user's shell.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn shell(&self) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Shell)
    }

    /// Starts a subsystem, such as `sftp`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn subsystem(&self, name: &str) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Subsystem(name.into()))
    }

    /// Asks for a terminal.
    ///
    /// Who does not need the answer saves its round trip: [`send_request`](Self::send_request) with
    /// [`ChannelRequestKind::Pty`], and the program's request behind it in the same flight.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_pty(&self, term: &str, size: WindowSize, modes: TerminalModes) -> Result<(), Error> {
        self.request(&ChannelRequestKind::Pty { term: term.into(), size, modes })
    }

    /// Sets a variable for the program to come. Servers often refuse; nothing is waited for but room.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub fn env(&self, name: &str, value: &str) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::env(name, value), false)
    }

    /// Tells the terminal's new size.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub fn window_change(&self, size: WindowSize) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::WindowChange(size), false)
    }

    /// Sends the program a signal, such as `TERM`.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::Signal(name.into()), false)
    }

    /// Sets how stderr is delivered from now on.
    pub fn set_stderr(&self, how: StderrMode) {
        // What waits may go another way, or have its window given back.
        self.core.shared.lock().contain(&self.core.shared, |state| {
            if let Some(mut channel) = state.channel(self.core.id) {
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
        let mut guard = self.core.shared.lock();
        if guard.is_mute() {
            return Err(guard.gone());
        }
        guard.contain(&self.core.shared, |state| {
            if let Some(mut channel) = state.channel(self.core.id) {
                let _ = channel.eof();
            }
            state.count_said(self.core.id);
        });
        Ok(())
    }

    /// Closes the channel: nothing more is sent but what was written, and what was not read can still be.
    pub fn close(&self) {
        let mut guard = self.core.shared.lock();
        guard.contain(&self.core.shared, |state| {
            if let Some(mut channel) = state.channel(self.core.id) {
                channel.close();
            }
            state.count_said(self.core.id);
        });
    }

    /// Closes the channel under whoever uses it: a read ends, a write fails.
    fn cut(&self) {
        self.close();
        if let Some(news) = self.core.shared.lock().channels.get_mut(self.core.id) {
            news.cut = true;
            news.wake.notify();
            self.core.shared.taken.notify();
        }
    }

    /// Waits until the peer closed the channel, and tells how the program ended, if the peer said so. Output
    /// that nobody reads can keep a program from ending, and a program left behind with the same output keeps
    /// the channel open: [`wait_exit`](Self::wait_exit) does not wait for that.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Closed`] for a connection lost before either was said, [`Error::Io`] where its
    /// transport failed.
    pub fn wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.wait_for(self.timeouts().read, |guard, id| {
            let news = guard.channels.get(id)?;
            // Of a connection that is over nothing else is to come.
            let over = guard.closed.is_some() && news.exit.is_some();
            (news.closed || over).then(|| news.exit.clone())
        })
    }

    /// Waits until the peer says how the program ended, or closed the channel without saying it (`None`). Its
    /// output may still be coming, as that of a program it left behind.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_exit(&self) -> Result<Option<ExitStatus>, Error> {
        self.wait_for(self.timeouts().read, |guard, id| {
            let news = guard.channels.get(id)?;
            (news.exit.is_some() || news.closed).then(|| news.exit.clone())
        })
    }

    /// Whether the peer closed the channel.
    pub fn is_closed(&self) -> bool {
        let guard = self.core.shared.lock();
        guard.closed.is_some() || guard.channels.get(self.core.id).is_none_or(|news| news.closed)
    }

    /// How the program ended, if that is known by now.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.core.shared.lock().channels.get(self.core.id)?.exit.clone()
    }

    /// Reads both streams to their ends.
    pub(crate) fn read_both(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut out = (Vec::new(), Vec::new());
        loop {
            let shared = &self.core.shared;
            let open = self.wait_for(self.timeouts().read, |guard, id| {
                let (mut moved, mut ended) = (false, 0);
                for (stream, to) in STREAMS.into_iter().zip([&mut out.0, &mut out.1]) {
                    // What it holds is out of reach then: the wait says why.
                    let Ok(conn) = guard.machine() else { return None };
                    let Ok(mut channel) = conn.channel(id) else { return Some(false) };
                    loop {
                        match channel.read(stream, usize::MAX) {
                            Ok(bytes) => {
                                to.reserve(bytes.len());
                                adapter::append(to, &bytes);
                                moved = true;
                            }
                            Err(ReadError::Blocked) => break,
                            Err(ReadError::Eof | ReadError::Reset) => {
                                ended += 1;
                                break;
                            }
                            Err(_) => return None,
                        }
                    }
                }
                if moved && guard.has_output() {
                    shared.poke(guard);
                }
                if ended == 2 { Some(false) } else { moved.then_some(true) }
            })?;
            if !open {
                return Ok(out);
            }
        }
    }

    /// The two directions as handles of their own. The channel closes when both are dropped; dropping the
    /// writing half ends the input.
    pub fn split(self) -> (ReadHalfOf<R>, WriteHalfOf<R>) {
        (ReadHalfOf { channel: self.clone() }, WriteHalfOf { channel: self })
    }

    fn this(&self) -> &Self {
        self
    }
}

/// Over a channel another connection may run: this one is then its jump host. The channel's timeouts are set anew.
impl<R: AdapterRole> Transport for ChannelOf<R> {
    type Reader = ReadHalfOf<R>;
    type Writer = WriteHalfOf<R>;

    fn split(self) -> io::Result<Split<ReadHalfOf<R>, WriteHalfOf<R>>> {
        self.set_read_timeout(None);
        self.set_write_timeout(Some(WRITE_TIMEOUT));
        let control = self.clone();
        let unblock = Box::new(move |how| match how {
            Shutdown::Both => control.cut(),
            Shutdown::Write => drop(control.finish_input()),
            Shutdown::Read => {}
        });
        let (reader, writer) = Self::split(self);
        Ok(Split { reader, writer, unblock })
    }
}
