//! One state machine and its waiters behind one lock, which is never held across an await, nor while anybody
//! is woken.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::BytesMut;
use ssh_proto::adapter::Error;
use ssh_proto::{
    ChannelEvent, ChannelId, ClientConfig, ClientConnection, ClientEvent, CloseReason, Connection,
    ExitStatus, HostKeyCheck, OpenFailure, PeerText, SignRequest, Stream,
};
use tokio::sync::Notify;

use crate::os::{Clock, OsEntropy};
use crate::waiters::{ChannelWaiters, Waiter, Waiters};

/// What happened to a channel, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct ChannelNews {
    pub(crate) opened: Option<Result<(), OpenFailure>>,
    /// Who waits for the answers still to come, in the order of the requests; nobody for some.
    pub(crate) asked: VecDeque<Option<u64>>,
    /// Answers to those who have not taken them yet.
    pub(crate) answers: Vec<(u64, bool)>,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) closed: bool,
    pub(crate) waiters: ChannelWaiters,
}

impl ChannelNews {
    /// The peer answered the oldest request.
    fn answer(&mut self, ok: bool) {
        if let Some(Some(who)) = self.asked.pop_front() {
            self.answers.push((who, ok));
        }
    }

    /// Takes the answer to `who`.
    pub(crate) fn take_answer(&mut self, who: u64) -> Option<bool> {
        let at = self.answers.iter().position(|(other, _)| *other == who)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// `who` does not wait any more: the answer, when it comes, must not be taken for another's.
    pub(crate) fn give_up(&mut self, who: u64) {
        self.take_answer(who);
        self.asked.iter_mut().filter(|asked| **asked == Some(who)).for_each(|asked| *asked = None);
    }
}

/// The attempt to log in that was made last.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// It is not decided yet.
    pub(crate) pending: bool,
    /// Who made it still waits. For nobody no signature is asked for, and no outcome kept.
    pub(crate) awaited: bool,
    pub(crate) sign: Option<SignRequest>,
    /// What came of it: what is missing, and whether this much was right.
    pub(crate) outcome: Option<Result<(), (Vec<String>, bool)>>,
}

impl Login {
    fn decide(&mut self, outcome: Result<(), (Vec<String>, bool)>) {
        self.pending = false;
        self.outcome = self.awaited.then_some(outcome);
    }
}

pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) conn: ClientConnection,
    pub(crate) channels: HashMap<ChannelId, ChannelNews>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) authenticated: bool,
    pub(crate) host_key: Option<HostKeyCheck>,
    pub(crate) login: Login,
    pub(crate) banners: Vec<PeerText>,
    pub(crate) rekeys: u64,
    /// The transport failed: nothing can be sent any more, and what the machine will say is only `Eof`.
    io_error: Option<(io::ErrorKind, String)>,
    pub(crate) waiters: Waiters,
}

impl State {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Self {
        let clock = Clock::start();
        Self {
            conn: Connection::new(config, Box::new(OsEntropy), clock.now()),
            clock,
            channels: HashMap::new(),
            closed: None,
            authenticated: false,
            host_key: None,
            login: Login::default(),
            banners: Vec::new(),
            rekeys: 0,
            io_error: None,
            waiters: Waiters::default(),
        }
    }

    /// Takes in what is there, and hands out what happened, until both are exhausted. Those in `woken` are to
    /// be woken when the lock is open.
    pub(crate) fn process(&mut self, input: &mut BytesMut, woken: &mut Vec<Waker>) {
        loop {
            self.conn.handle_input(self.clock.now(), input);
            let mut any = false;
            while let Some(event) = self.conn.poll_event() {
                any = true;
                self.sort(event, woken);
            }
            if !any {
                break;
            }
        }
    }

    fn sort(&mut self, event: ClientEvent, woken: &mut Vec<Waker>) {
        match event {
            ClientEvent::Channel(id, event) => return self.sort_channel(id, event, woken),
            ClientEvent::Opened(id) => return self.tell(id, woken, |news| news.opened = Some(Ok(()))),
            ClientEvent::OpenFailed(id, why) => {
                return self.tell(id, woken, |news| news.opened = Some(Err(why)));
            }
            ClientEvent::HostKey(check) => self.host_key = Some(check),
            ClientEvent::AuthFailed { remaining, partial } => self.login.decide(Err((remaining, partial))),
            ClientEvent::Authenticated => {
                self.authenticated = true;
                self.login.decide(Ok(()));
            }
            ClientEvent::Sign(request) if self.login.awaited => self.login.sign = Some(request),
            ClientEvent::Banner(text) => self.banners.push(text),
            ClientEvent::Rekeyed => self.rekeys += 1,
            ClientEvent::Closed(reason) => {
                self.closed = Some(reason);
                self.channels.values_mut().for_each(|news| news.waiters.wake(woken));
            }
            ClientEvent::Ready => self.channels.values_mut().for_each(|news| news.waiters.wake(woken)),
            // Refused by being dropped: nothing was asked for that a server may open or request.
            ClientEvent::Sign(_)
            | ClientEvent::Open(_)
            | ClientEvent::Global(_)
            | ClientEvent::GlobalReply(..) => {}
        }
        self.waiters.wake(woken);
    }

    fn sort_channel(&mut self, id: ChannelId, event: ChannelEvent, woken: &mut Vec<Waker>) {
        let Some(news) = self.channels.get_mut(&id) else { return };
        let [data, stderr] = &mut news.waiters.readers;
        match event {
            ChannelEvent::Readable(Stream::Data) => return data.wake(woken),
            ChannelEvent::Readable(Stream::Stderr) => return stderr.wake(woken),
            ChannelEvent::Writable => return news.waiters.writers.wake(woken),
            ChannelEvent::Reply(ok) => news.answer(ok),
            ChannelEvent::Exit(status) => news.exit = Some(status),
            ChannelEvent::Closed => news.closed = true,
            ChannelEvent::Eof => {}
            // Nobody here can grant it; dropping the ticket refuses.
            ChannelEvent::Request(request) => drop(request),
        }
        news.waiters.wake(woken);
    }

    fn tell(&mut self, id: ChannelId, woken: &mut Vec<Waker>, change: impl FnOnce(&mut ChannelNews)) {
        if let Some(news) = self.channels.get_mut(&id) {
            change(news);
            news.waiters.wake(woken);
        }
    }

    /// The transport has ended.
    pub(crate) fn end(&mut self) {
        self.conn.handle_eof(self.clock.now());
    }

    /// The transport failed. Who wants to write need not wait any longer.
    pub(crate) fn fail(&mut self, error: &io::Error, woken: &mut Vec<Waker>) {
        if self.io_error.is_none() && self.closed.is_none() {
            self.io_error = Some((error.kind(), error.to_string()));
            self.channels.values_mut().for_each(|news| news.waiters.writers.wake(woken));
        }
    }

    /// Whether nothing can be sent any more. What was received, and is still coming, can be read.
    pub(crate) fn is_mute(&self) -> bool {
        self.closed.is_some() || self.io_error.is_some()
    }

    /// Why nothing works any more.
    pub(crate) fn gone(&self) -> Error {
        match (&self.closed, &self.io_error) {
            // What the peer said of the end counts more.
            (None | Some(CloseReason::Eof), Some((kind, text))) => {
                Error::Io(io::Error::new(*kind, text.clone()))
            }
            (Some(reason), _) => Error::Closed(reason.clone()),
            (None, None) => Error::Closed(CloseReason::Eof),
        }
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    numbers: AtomicU64,
    /// For the driver: a handle wrote, answered or closed something.
    pub(crate) work: Notify,
}

impl Shared {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Self {
        Self { state: Mutex::new(State::new(config)), numbers: AtomicU64::new(0), work: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number nobody else who waits has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until `take` finds what it looks for, looking whenever something happens to the connection as a
    /// whole.
    pub(crate) async fn wait_for<T>(
        self: &Arc<Self>,
        take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait(None, take).await
    }

    /// The same, looking whenever something happens to a channel, or to all of them.
    pub(crate) async fn wait_for_channel<T>(
        self: &Arc<Self>,
        id: ChannelId,
        take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait(Some(id), take).await
    }

    async fn wait<T>(
        self: &Arc<Self>,
        channel: Option<ChannelId>,
        mut take: impl FnMut(&mut State) -> Option<T>,
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
                Some(id) => match state.channels.get_mut(&id) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_only_for_somebody_who_waits() {
        let mut news = ChannelNews::default();
        news.asked.extend([Some(1), None, Some(2), Some(3)]);
        news.give_up(2);
        (0..5).for_each(|_| news.answer(true));
        assert_eq!(news.answers, [(1, true), (3, true)]);
        news.give_up(3);
        assert_eq!(news.take_answer(1), Some(true));
        assert_eq!((news.take_answer(1), news.answers.len(), news.asked.len()), (None, 0, 0));
    }
}
