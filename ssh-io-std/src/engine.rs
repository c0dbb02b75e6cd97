//! The engine under a connection: one state machine behind one lock, a reader and a writer thread.
//!
//! The reader thread never writes, the writer thread never reads, and no lock is held across a call that blocks.
//! Bytes leave by one thread at a time: whoever finds the writer at home takes it along, trades the output for
//! an empty buffer, unlocks, writes, locks. A thread that writes does this once, for its own bytes; for all else
//! the writer thread does, until nothing is left. Deadlines are kept by the writer thread: while it waits, and
//! between its writes, which a socket's write timeout keeps short. From the close on, while there is something to
//! write, somebody who does nothing else sees to it that the transport ends in time.

mod signal;
mod threads;

use std::io::{self, Write};
use std::mem;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use bytes::BytesMut;
use ssh_proto::adapter::{AdapterRole, ByChannel, News, Replies};
use ssh_proto::{
    ChannelEvent, ChannelId, CloseReason, Connection, Disconnect, ExitStatus, InputPool, Instant,
    OpenFailure, Stream,
};

pub(crate) use self::signal::Signal;
use self::threads::{DRAIN_TIME, END_TIME, Finished, SMALL_BUFFER};
use crate::error::Error;
use crate::os::{after, now, until};
use crate::transport::{Split, Transport, Unblock};

/// What happened to a channel that its users wait for.
#[derive(Debug, Default)]
pub(crate) struct ChannelNews {
    pub(crate) opened: Option<Result<(), OpenFailure>>,
    pub(crate) replies: Replies,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) eof: bool,
    pub(crate) closed: bool,
    /// It carried a connection that is over: nobody is to wait for it any more.
    pub(crate) cut: bool,
    /// How often handles had something to say: what they wrote, asked, and said of the end.
    said: u64,
    /// What a flush behind that waits for.
    mark: Option<Mark>,
    pub(crate) wake: Arc<Signal>,
}

impl ChannelNews {
    fn hear(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Readable(_) | ChannelEvent::Writable => {}
            ChannelEvent::Reply(ok) => self.replies.answer(ok),
            ChannelEvent::Exit(status) => self.exit = Some(status),
            ChannelEvent::Eof => self.eof = true,
            ChannelEvent::Closed => self.closed = true,
            // Nobody here can grant it; dropping the ticket refuses.
            ChannelEvent::Request(request) => drop(request),
        }
    }
}

/// What a flush waits for. Kept, so that one that is called again after it took too long waits for no more than that.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// So many bytes the transport must have taken,
    sent: u64,
    /// which cover what had been said so often.
    said: u64,
}

/// Where the writing half of the transport is.
enum Writer {
    Home(Box<dyn Write + Send>),
    /// With the thread that writes.
    Away,
    /// Dropped, at the end or by a panic.
    Gone,
}

pub(crate) struct State<R: AdapterRole> {
    /// For all others [`machine`](Self::machine).
    conn: Connection<R>,
    pub(crate) kept: R::Kept,
    pub(crate) channels: ByChannel<ChannelNews>,
    pub(crate) closed: Option<CloseReason>,
    pool: InputPool,
    /// From then on reads take more.
    authenticated: bool,
    /// What the reader reads a lot into, while it waits with less.
    chunk: Vec<u8>,
    /// More is held than an idle connection needs.
    warm: bool,
    /// Bytes came or left since the writer thread looked last.
    busy: bool,
    writer: Writer,
    spare: BytesMut,
    /// How many bytes the transport took, and handed on.
    sent: u64,
    /// When the writer thread wakes by itself, at the latest. It is to be woken for an earlier deadline.
    alarm: Option<Instant>,
    /// The transport failed. It is the reason of the end unless the machine has a better one.
    io_error: Option<io::Error>,
    /// Nothing can be written any more; so long what is still coming is read.
    pub(crate) broken: Option<StdInstant>,
    reader_waits: bool,
    reader_done: bool,
    /// The transport was ended both ways. A reader that times out by itself may not see it.
    unblocked: bool,
    /// Somebody sees to it that a closed connection ends.
    watched: bool,
    /// A call panicked, and the connection was ended for it.
    panicked: bool,
    /// One more did, or that end. The machine is not called by itself any more.
    dead: bool,
}

pub(crate) struct Shared<R: AdapterRole> {
    this: Weak<Self>,
    state: Mutex<State<R>>,
    /// For the writer thread: output, deadlines, the end.
    work: Signal,
    /// For the reader thread: input is wanted again.
    wanted: Signal,
    /// For those who wait for the connection as a whole.
    pub(crate) changed: Signal,
    /// For those who wait for the end of its threads alone.
    ended: Signal,
    /// For those who wait for the transport to take bytes.
    pub(crate) taken: Signal,
    /// Gone when the threads are done with the transport, so that handles do not keep it open.
    control: Mutex<Option<Arc<Unblock>>>,
    /// The threads are done with the transport. Set with the state locked, and read without: a server looks at all
    /// its connections, of which one may be at work.
    finished: AtomicBool,
    role: RoleCalls<R>,
}

/// What a role does at certain times, with the state locked.
pub(crate) struct RoleCalls<R: AdapterRole> {
    /// Looks at what its part just took in.
    pub(crate) look: Look<R>,
    /// Gives up what is kept for as long as there are threads and a transport.
    pub(crate) let_go: LetGo<R>,
}

/// Called with the connection whose part it is, and that part.
pub(crate) type Look<R> = Box<dyn Fn(&Weak<Shared<R>>, &mut <R as AdapterRole>::Kept) + Send + Sync>;

/// Called with that part.
pub(crate) type LetGo<R> = Box<dyn Fn(&mut <R as AdapterRole>::Kept) + Send + Sync>;

pub(crate) type Guard<'a, R> = MutexGuard<'a, State<R>>;

impl<R: AdapterRole> State<R> {
    /// The machine, to be called; the reason of the end when a panic left it in no state for that.
    pub(crate) fn machine(&mut self) -> Result<&mut Connection<R>, Error> {
        if self.dead { Err(self.gone()) } else { Ok(&mut self.conn) }
    }

    /// A channel of the machine, when both are there still.
    pub(crate) fn channel(&mut self, id: ChannelId) -> Option<ssh_proto::Channel<'_>> {
        self.machine().ok()?.channel(id).ok()
    }

    /// The machine, to look at what it knows: nothing of an embedder's is called for that.
    pub(crate) fn seen(&self) -> &Connection<R> {
        &self.conn
    }

    /// When the machine is to be called next by itself.
    fn deadline(&self) -> Option<Instant> {
        if self.dead { None } else { self.conn.poll_timeout() }
    }

    /// Whether the machine has something to send.
    pub(crate) fn has_output(&self) -> bool {
        !self.dead && !self.conn.output().is_empty()
    }

    /// Whether the machine told its end, or will not.
    fn is_over(&self) -> bool {
        self.dead || self.conn.is_closed()
    }

    /// Takes in what is there, and hands out what happened, until both are exhausted.
    fn process(&mut self, shared: &Shared<R>) {
        if self.dead {
            return;
        }
        let _wake = WakeOnPanic(shared);
        let now = now();
        loop {
            self.conn.handle_input(now, self.pool.buffer());
            let mut any = false;
            while let Some(news) = R::take_event(&mut self.conn, &mut self.kept) {
                any = true;
                self.sort(shared, news);
            }
            if !any {
                break;
            }
        }
        if self.reader_waits && self.conn.wants_input() {
            shared.wanted.notify();
        }
    }

    fn sort(&mut self, shared: &Shared<R>, news: News) {
        match news {
            News::Opened(id) => self.tell(id, |news| news.opened = Some(Ok(()))),
            News::OpenFailed(id, why) => self.tell(id, |news| news.opened = Some(Err(why))),
            News::Channel(id, event) => {
                if matches!(event, ChannelEvent::Closed) {
                    // For the server's handler.
                    shared.changed.notify();
                }
                self.tell(id, |news| news.hear(event));
            }
            News::Ready => self.channels.values().for_each(|news| news.wake.notify()),
            News::Closed(reason) => self.close(shared, reason),
            News::Taken => {
                (shared.role.look)(&shared.this, &mut self.kept);
                shared.changed.notify();
            }
            News::Authenticated => {
                self.authenticated = true;
                self.pool.set_max(InputPool::MAX);
                shared.changed.notify();
            }
        }
    }

    /// The connection is closed: everybody hears of it, and somebody sees to it that it ends.
    fn close(&mut self, shared: &Shared<R>, reason: CloseReason) {
        self.closed = Some(reason);
        self.channels.values().for_each(|news| news.wake.notify());
        shared.work.notify();
        shared.wanted.notify();
        shared.changed.notify();
        shared.taken.notify();
        // While a write does not come back nobody else keeps time.
        if !self.is_written_out() && !mem::replace(&mut self.watched, true) {
            shared.watch_end();
        }
    }

    /// From now on there is news of a channel. Gives what is notified of each.
    pub(crate) fn hear_of(&mut self, id: ChannelId) -> Arc<Signal> {
        let news = ChannelNews::default();
        let wake = Arc::clone(&news.wake);
        self.channels.insert(id, news);
        wake
    }

    fn tell(&mut self, id: ChannelId, change: impl FnOnce(&mut ChannelNews)) {
        if let Some(news) = self.channels.get_mut(id) {
            change(news);
            news.wake.notify();
        }
    }

    /// Does what is due.
    fn tick(&mut self, shared: &Shared<R>) {
        if self.deadline().is_some_and(|at| until(at).is_zero()) {
            self.conn.handle_timeout(now());
        }
        self.process(shared);
    }

    /// Nothing can be written any more. What the peer said before is still read.
    fn fail(&mut self, shared: &Shared<R>, error: io::Error) {
        self.break_off(shared, error);
        self.discard_output();
    }

    /// As [`fail`](Self::fail), without a call of the machine.
    fn break_off(&mut self, shared: &Shared<R>, error: io::Error) {
        if self.io_error.is_none() && self.closed.is_none() {
            self.io_error = Some(error);
        }
        self.broken = Some(StdInstant::now() + DRAIN_TIME);
        // Those who wait for room wait in vain.
        self.channels.values().for_each(|news| news.wake.notify());
        shared.taken.notify();
    }

    /// Whether nothing that is written leaves any more. What came before can still be read.
    pub(crate) fn is_mute(&self) -> bool {
        self.closed.is_some() || self.broken.is_some()
    }

    /// Whether nobody is to wait for this channel any more.
    pub(crate) fn is_cut(&self, id: ChannelId) -> bool {
        self.channels.get(id).is_some_and(|news| news.cut)
    }

    /// A handle had something to say on a channel.
    pub(crate) fn count_said(&mut self, id: ChannelId) {
        if let Some(news) = self.channels.get_mut(id) {
            news.said = news.said.wrapping_add(1);
        }
    }

    /// How many bytes the transport took, and how many it will have taken when all has left that was said on the
    /// channel; none while a key exchange holds back some of that, and none where it is asked for the first time when
    /// what was to leave may have been thrown away.
    pub(crate) fn progress(&mut self, id: ChannelId) -> (u64, Option<u64>) {
        let covers = |news: &ChannelNews| news.mark.filter(|mark| mark.said == news.said);
        if let Some(mark) = self.channels.get(id).and_then(covers) {
            return (self.sent, Some(mark.sent));
        }
        if self.is_mute() || self.channel(id).is_some_and(|channel| !channel.is_drained()) {
            return (self.sent, None);
        }
        let sent = self.sent.saturating_add(self.conn.unsent() as u64);
        if let Some(news) = self.channels.get_mut(id) {
            news.mark = Some(Mark { sent, said: news.said });
        }
        (self.sent, Some(sent))
    }

    /// Whether what the peer said goodbye upon may be with a thread that is not back from its write yet to count it.
    pub(crate) fn may_be_leaving(&self) -> bool {
        let by_peer = matches!(self.closed, Some(CloseReason::PeerDisconnected { .. } | CloseReason::Eof));
        let failed = self.broken.is_some() || self.io_error.is_some() || self.unblocked;
        by_peer && !failed && matches!(self.writer, Writer::Away)
    }

    /// Whether the writer thread has something to do that it does not know of while it waits.
    fn has_work(&self) -> bool {
        let earlier = |at| self.alarm.is_none_or(|alarm| at < alarm);
        let deadline = self.deadline().is_some_and(earlier);
        let output = matches!(self.writer, Writer::Home(_)) && self.has_output();
        deadline || output || self.closed.is_some() || self.broken.is_some()
    }

    /// Gives back what a busy connection needed.
    fn cool_down(&mut self) {
        self.chunk = Vec::new();
        self.pool.idle();
        self.spare = BytesMut::new();
        // The machine's own buffer, for one without room.
        self.conn.swap_output(&mut self.spare);
        self.spare = BytesMut::new();
        self.warm = false;
    }

    fn discard_output(&mut self) {
        if !self.dead {
            let unsent = self.conn.unsent();
            self.conn.consume_output(unsent);
        }
    }

    /// Whether nothing is left to write, or nothing can be, and nobody is at it.
    fn is_written_out(&self) -> bool {
        (self.broken.is_some() || !self.has_output()) && !matches!(self.writer, Writer::Away)
    }

    /// Takes the writer along, if it is at home.
    fn take_writer(&mut self) -> Option<Box<dyn Write + Send>> {
        match mem::replace(&mut self.writer, Writer::Away) {
            Writer::Home(writer) => Some(writer),
            elsewhere => {
                self.writer = elsewhere;
                None
            }
        }
    }

    /// How long a connection that is closed takes at most until its transport is let go.
    fn time_to_end(&self) -> Duration {
        self.deadline().map(until).unwrap_or_default().saturating_add(END_TIME)
    }

    /// Whether the connection is closed and its last words are not worth more time.
    fn gave_up_output(&self) -> bool {
        self.dead || (self.conn.is_closed() && self.conn.unsent() == 0)
    }

    /// Ends the connection, whatever comes of that: what seals the last words is the embedder's, and may panic.
    fn end(&mut self, shared: &Shared<R>) {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            if !self.dead {
                self.conn.close(Disconnect::by_application());
                self.process(shared);
            }
        }));
        if ended.is_err() {
            self.die(shared);
        }
    }

    /// Does what a handle that is dropped has to do: a panic ends the connection, not the thread, which may be
    /// one that panics already.
    pub(crate) fn contain(&mut self, shared: &Shared<R>, act: impl FnOnce(&mut Self)) {
        if self.dead {
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| {
            act(self);
            self.process(shared);
        }));
        if done.is_err() {
            self.end_after_panic(shared);
        }
        if self.has_work() {
            shared.work.notify();
        }
    }

    /// As [`end`](Self::end) after a panic. Where it is not the first one, the machine is left alone.
    fn end_after_panic(&mut self, shared: &Shared<R>) {
        match mem::replace(&mut self.panicked, true) {
            false => self.end(shared),
            true => self.die(shared),
        }
    }

    /// Ends the connection without the machine.
    fn die(&mut self, shared: &Shared<R>) {
        self.dead = true;
        self.break_off(shared, io::Error::other("the connection panicked"));
        let ours = CloseReason::Local(Disconnect::by_application().code);
        let reason = self.closed.take().unwrap_or(ours);
        self.close(shared, reason);
    }

    /// Why nothing works any more.
    pub(crate) fn gone(&self) -> Error {
        match (&self.closed, &self.io_error) {
            // What the peer said of the end counts more. What we said of it came later.
            (None | Some(CloseReason::Eof | CloseReason::Local(_)), Some(error)) => {
                Error::Io(io::Error::new(error.kind(), error.to_string()))
            }
            (Some(reason), _) => Error::Closed(reason.clone()),
            (None, None) => Error::Closed(CloseReason::Eof),
        }
    }
}

impl<R: AdapterRole> Shared<R> {
    /// Starts both threads.
    pub(crate) fn start(
        conn: Connection<R>,
        transport: impl Transport,
        kept: R::Kept,
        role: RoleCalls<R>,
    ) -> io::Result<Arc<Self>> {
        let Split { reader, writer, unblock } = transport.split()?;
        let mut pool = InputPool::new();
        pool.set_max(InputPool::MAX_PRE_AUTH);
        let state = State {
            conn,
            kept,
            channels: ByChannel::default(),
            closed: None,
            pool,
            authenticated: false,
            chunk: Vec::new(),
            warm: false,
            busy: false,
            writer: Writer::Home(Box::new(writer)),
            spare: BytesMut::new(),
            sent: 0,
            alarm: None,
            io_error: None,
            broken: None,
            reader_waits: false,
            reader_done: false,
            unblocked: false,
            watched: false,
            panicked: false,
            dead: false,
        };
        let shared = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            state: Mutex::new(state),
            work: Signal::default(),
            wanted: Signal::default(),
            changed: Signal::default(),
            ended: Signal::default(),
            taken: Signal::default(),
            control: Mutex::new(Some(Arc::new(unblock))),
            finished: AtomicBool::new(false),
            role,
        });
        let (for_reader, for_writer) = (shared.clone(), shared.clone());
        let (read, write) = (move || for_reader.run_reader(reader), move || for_writer.run_writer());
        let started = thread::Builder::new().name("ssh-read".into()).spawn(read);
        let started = started.and_then(|_| thread::Builder::new().name("ssh-write".into()).spawn(write));
        if let Err(error) = started {
            // The reader may be there, and nobody else is to end it.
            shared.close_watched();
            shared.unblock(Shutdown::Both);
            drop(Finished(&shared));
            return Err(error);
        }
        Ok(shared)
    }

    /// Locks the state.
    pub(crate) fn lock(&self) -> Guard<'_, R> {
        self.recover(self.state.lock())
    }

    /// To be held, by who calls what may panic, from before it locks: others then hear of it.
    pub(crate) fn watch(&self) -> impl Drop + '_ {
        WakeOnPanic(self)
    }

    /// A panic of another thread while it held the lock ends the connection, not this thread.
    fn recover<'a>(&'a self, result: LockResult<Guard<'a, R>>) -> Guard<'a, R> {
        result.unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut guard = poisoned.into_inner();
            guard.end_after_panic(self);
            // Whoever panicked may have left without a word.
            self.work.notify();
            guard
        })
    }

    /// Waits on `wake`, at most so long.
    fn wait_for<'a>(&'a self, guard: Guard<'a, R>, wake: &Signal, limit: Option<Duration>) -> Guard<'a, R> {
        self.recover(wake.wait(guard, limit))
    }

    /// Waits on `wake`, at most until `deadline`; an error when that has passed.
    pub(crate) fn wait<'a>(
        &'a self,
        guard: Guard<'a, R>,
        wake: &Signal,
        deadline: Option<StdInstant>,
    ) -> Result<Guard<'a, R>, (Guard<'a, R>, Error)> {
        let Some(deadline) = deadline else {
            return Ok(self.wait_for(guard, wake, None));
        };
        let left = deadline.saturating_duration_since(StdInstant::now());
        if left.is_zero() {
            return Err((guard, Error::TimedOut));
        }
        Ok(self.wait_for(guard, wake, Some(left)))
    }

    /// After a command: lets the machine go on and has its output sent by the writer thread.
    pub(crate) fn poke(&self, guard: &mut Guard<'_, R>) {
        guard.process(self);
        self.wake_writer(guard);
    }

    /// Bytes came or left, in a buffer of `held`.
    fn heat(&self, guard: &mut Guard<'_, R>, held: usize) {
        guard.busy = true;
        if held > SMALL_BUFFER && !guard.warm {
            guard.warm = true;
            // It is the one that sees when this is over.
            self.work.notify();
        }
    }

    /// Wakes the writer thread if it has something to do.
    fn wake_writer(&self, guard: &Guard<'_, R>) {
        if guard.has_work() {
            self.work.notify();
        }
    }

    /// After a command: lets the machine go on and sends its output from this thread, unless another one is
    /// at it.
    pub(crate) fn flush<'a>(&'a self, mut guard: Guard<'a, R>) -> Guard<'a, R> {
        guard.process(self);
        // What others add meanwhile is not this thread's to send: it would never come back.
        guard = self.write_out(guard, 1);
        self.wake_writer(&guard);
        guard
    }

    /// After a command that ends the connection, or behind its end: waits until the last words left or had their time,
    /// at most until `limit`. Who hears of the end, and has nothing else to wait for, may end the process.
    pub(crate) fn say_all<'a>(&'a self, mut guard: Guard<'a, R>, limit: Option<StdInstant>) -> Guard<'a, R> {
        self.poke(&mut guard);
        let deadline = after(guard.time_to_end()).into_iter().chain(limit).min();
        while !guard.is_written_out() && guard.broken.is_none() && !self.is_finished() {
            guard = match self.wait(guard, &self.changed, deadline) {
                Ok(guard) => guard,
                Err((guard, _)) => return guard,
            };
        }
        guard
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        let mut guard = self.lock();
        guard.end(self);
        self.wake_writer(&guard);
    }

    /// Ends the connection, for who sees to the end of the transport himself. Says how long that takes at most.
    pub(crate) fn close_watched(&self) -> Duration {
        let mut guard = self.lock();
        guard.watched = true;
        guard.end(self);
        self.wake_writer(&guard);
        guard.time_to_end()
    }

    /// Has a thread of its own see to the end of the transport. A system without threads left has only the writer thread
    /// for that.
    fn watch_end(&self) {
        let Some(shared) = self.this.upgrade() else { return };
        let end = move || {
            // The machine may be in the middle of its close, and knows how long it lingers when that is done: when
            // it is unlocked.
            let limit = shared.lock().time_to_end();
            shared.end_within(limit);
        };
        let _ = thread::Builder::new().name("ssh-end".into()).spawn(end);
    }

    /// Waits until the threads are done with the transport, and ends it under them when the time is over.
    pub(crate) fn end_within(&self, limit: Duration) {
        self.join(limit);
        if !self.is_finished() {
            self.unblock(Shutdown::Both);
            self.join(DRAIN_TIME);
        }
    }

    /// Ends halves of the transport. To be called with nothing locked: it may take its time.
    fn unblock(&self, how: Shutdown) {
        let unblock = self.control.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(unblock) = unblock {
            // It is the embedder's, its last handle may be this one, and the threads have more to do.
            let _ = catch_unwind(AssertUnwindSafe(move || unblock(how)));
        }
        if how == Shutdown::Both {
            let mut guard = self.lock();
            guard.unblocked = true;
            self.wanted.notify();
            self.taken.notify();
        }
    }

    /// Whether the threads are done with the transport.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    /// Waits until the threads are done with the transport, and tells why the connection is over.
    pub(crate) fn ended(&self) -> CloseReason {
        self.join(Duration::MAX);
        self.lock().closed.clone().unwrap_or(CloseReason::Eof)
    }

    /// Waits until the threads are done with the transport, at most so long.
    pub(crate) fn join(&self, limit: Duration) {
        self.wait_until(limit, |_| self.is_finished());
    }

    /// Waits until the threads are that far, at most so long.
    fn wait_until(&self, limit: Duration, done: impl Fn(&State<R>) -> bool) {
        let deadline = after(limit);
        let mut guard = self.lock();
        while !done(&guard) {
            match self.wait(guard, &self.ended, deadline) {
                Ok(next) => guard = next,
                Err(_) => return,
            }
        }
    }
}

/// The writer thread is to find a lock that a panic left behind, whoever it was.
struct WakeOnPanic<'a, R: AdapterRole>(&'a Shared<R>);

impl<R: AdapterRole> Drop for WakeOnPanic<'_, R> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.work.notify_anyhow();
        }
    }
}

/// The streams of a channel, for loops over both.
pub(crate) const STREAMS: [Stream; 2] = [Stream::Data, Stream::Stderr];
