//! One state machine and its waiters behind one lock, which is never held across an await.
//!
//! Whoever finds nothing to take leaves a waker under the same lock, so that no wake-up is lost. There is one
//! slot per channel, stream and direction: of two tasks that read the same stream, the last one is woken.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use ssh_proto::adapter::Error;
use ssh_proto::{
    ChannelEvent, ChannelId, ClientConnection, ClientEvent, CloseReason, ExitStatus, HostKeyCheck,
    OpenFailure, PeerText, Stream,
};
use tokio::sync::Notify;

use crate::os::now;

/// What happened to a channel, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct ChannelNews {
    pub(crate) opened: Option<Result<(), OpenFailure>>,
    pub(crate) replies: VecDeque<bool>,
    /// Answers still to come whose askers gave up.
    pub(crate) unclaimed: usize,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) closed: bool,
    readers: [Option<Waker>; 2],
    writer: Option<Waker>,
    waiters: Vec<Waker>,
}

impl ChannelNews {
    pub(crate) fn await_read(&mut self, stream: Stream, cx: &Context<'_>) {
        let [data, stderr] = &mut self.readers;
        let slot = if stream == Stream::Data { data } else { stderr };
        *slot = Some(cx.waker().clone());
    }

    pub(crate) fn await_write(&mut self, cx: &Context<'_>) {
        self.writer = Some(cx.waker().clone());
    }

    fn wake(&mut self) {
        self.readers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        self.writer.take().into_iter().chain(self.waiters.drain(..)).for_each(Waker::wake);
    }
}

pub(crate) struct State {
    pub(crate) conn: ClientConnection,
    pub(crate) channels: HashMap<ChannelId, ChannelNews>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) authenticated: bool,
    pub(crate) host_key: Option<HostKeyCheck>,
    pub(crate) auth: Option<Result<(), (Vec<String>, bool)>>,
    pub(crate) banners: Vec<PeerText>,
    pub(crate) rekeys: u64,
    pub(crate) io_error: Option<(io::ErrorKind, String)>,
    waiters: Vec<Waker>,
}

impl State {
    pub(crate) fn new(conn: ClientConnection) -> Self {
        Self {
            conn,
            channels: HashMap::new(),
            closed: None,
            authenticated: false,
            host_key: None,
            auth: None,
            banners: Vec::new(),
            rekeys: 0,
            io_error: None,
            waiters: Vec::new(),
        }
    }

    /// Takes in what is there, and hands out what happened, until both are exhausted.
    pub(crate) fn process(&mut self, input: &mut BytesMut) {
        loop {
            self.conn.handle_input(now(), input);
            let mut any = false;
            while let Some(event) = self.conn.poll_event() {
                any = true;
                self.sort(event);
            }
            if !any {
                break;
            }
        }
    }

    fn sort(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Channel(id, event) => return self.sort_channel(id, event),
            ClientEvent::Opened(id) => return self.tell(id, |news| news.opened = Some(Ok(()))),
            ClientEvent::OpenFailed(id, why) => return self.tell(id, |news| news.opened = Some(Err(why))),
            ClientEvent::HostKey(check) => self.host_key = Some(check),
            ClientEvent::AuthFailed { remaining, partial } => self.auth = Some(Err((remaining, partial))),
            ClientEvent::Authenticated => {
                self.authenticated = true;
                self.auth = Some(Ok(()));
            }
            ClientEvent::Banner(text) => self.banners.push(text),
            ClientEvent::Rekeyed => self.rekeys += 1,
            ClientEvent::Closed(reason) => {
                self.closed = Some(reason);
                self.channels.values_mut().for_each(ChannelNews::wake);
            }
            ClientEvent::Ready => self.channels.values_mut().for_each(ChannelNews::wake),
            // Refused by being dropped: nothing was asked for that a server may open or request.
            ClientEvent::Sign(_)
            | ClientEvent::Open(_)
            | ClientEvent::Global(_)
            | ClientEvent::GlobalReply(..) => {}
        }
        self.waiters.drain(..).for_each(Waker::wake);
    }

    fn sort_channel(&mut self, id: ChannelId, event: ChannelEvent) {
        let Some(news) = self.channels.get_mut(&id) else { return };
        let [data, stderr] = &mut news.readers;
        match event {
            ChannelEvent::Readable(Stream::Data) => return data.take().into_iter().for_each(Waker::wake),
            ChannelEvent::Readable(Stream::Stderr) => return stderr.take().into_iter().for_each(Waker::wake),
            ChannelEvent::Writable => return news.writer.take().into_iter().for_each(Waker::wake),
            ChannelEvent::Reply(_) if news.unclaimed > 0 => news.unclaimed -= 1,
            ChannelEvent::Reply(ok) => news.replies.push_back(ok),
            ChannelEvent::Exit(status) => news.exit = Some(status),
            ChannelEvent::Closed => news.closed = true,
            ChannelEvent::Eof => {}
            // Nobody here can grant it; dropping the ticket refuses.
            ChannelEvent::Request(request) => drop(request),
        }
        news.wake();
    }

    fn tell(&mut self, id: ChannelId, change: impl FnOnce(&mut ChannelNews)) {
        if let Some(news) = self.channels.get_mut(&id) {
            change(news);
            news.wake();
        }
    }

    /// Why nothing works any more.
    pub(crate) fn gone(&self) -> Error {
        match (&self.io_error, &self.closed) {
            (Some((kind, text)), _) => Error::Io(io::Error::new(*kind, text.clone())),
            (None, Some(reason)) => Error::Closed(reason.clone()),
            (None, None) => Error::Closed(CloseReason::Eof),
        }
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// For the driver: a handle wrote, answered or closed something.
    pub(crate) work: Notify,
}

impl Shared {
    pub(crate) fn new(conn: ClientConnection) -> Self {
        Self { state: Mutex::new(State::new(conn)), work: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `take` finds what it looks for in the connection.
    pub(crate) async fn wait_for<T>(
        &self,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Error> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(found) = take(&mut state) {
                return Poll::Ready(Ok(found));
            }
            if state.closed.is_some() {
                return Poll::Ready(Err(state.gone()));
            }
            push_waker(&mut state.waiters, cx);
            Poll::Pending
        })
        .await
    }

    /// Waits until `take` finds what it looks for in a channel's news.
    pub(crate) async fn wait_for_channel<T>(
        &self,
        id: ChannelId,
        mut take: impl FnMut(&mut ChannelNews) -> Option<T>,
    ) -> Result<T, Error> {
        poll_fn(|cx| {
            let mut state = self.lock();
            let state = &mut *state;
            if let Some(news) = state.channels.get_mut(&id) {
                if let Some(found) = take(news) {
                    return Poll::Ready(Ok(found));
                }
                if state.closed.is_none() {
                    push_waker(&mut news.waiters, cx);
                    return Poll::Pending;
                }
            }
            Poll::Ready(Err(state.gone()))
        })
        .await
    }
}

fn push_waker(waiters: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
        waiters.push(cx.waker().clone());
    }
}
