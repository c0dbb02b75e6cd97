//! The server: an accept loop, and connections that say what their clients ask.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ssh_proto::adapter::{Answering, Error, HostSigners, Startup, Startups, sign};
use ssh_proto::{
    AnswerError, ChannelConfig, CloseReason, Connection, MemoryUsage, Negotiated, OpenRequest, PeerText,
    Server as ServerRole, ServerConfig, SessionId,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::channel::ServerChannel;
use crate::driver::{DRAIN_TIME, Driver, Look};
use crate::os::OsEntropy;
use crate::shared::{Shared, State};

/// How long to let others finish when accepting fails.
const BACK_OFF: Duration = Duration::from_millis(50);
/// What drivers may take to end, whatever the clients do, beyond the linger and the drain.
const END_MARGIN: Duration = Duration::from_secs(1);
/// A grace as long as nobody waits.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// The way back to the connection that asked.
#[derive(Clone)]
pub struct Back(Arc<Shared<ServerRole>>);

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Back").finish_non_exhaustive()
    }
}

impl Answering for Back {
    type Channel = ServerChannel;

    fn answer<T>(
        &self,
        answer: impl FnOnce(&mut Connection<ServerRole>) -> Result<T, AnswerError>,
    ) -> Result<T, AnswerError> {
        let mut state = self.0.lock();
        // A panic left the machine in no state to be called.
        let result = if state.collapsed { Err(AnswerError::Gone) } else { answer(&mut state.conn) };
        drop(state);
        self.0.work.notify_one();
        result
    }

    fn accept(&self, request: OpenRequest, config: ChannelConfig) -> Result<ServerChannel, AnswerError> {
        let mut state = self.0.lock();
        if state.collapsed {
            return Err(AnswerError::Gone);
        }
        let id = state.conn.accept_channel(request, config)?;
        state.hear_of(id);
        drop(state);
        self.0.work.notify_one();
        Ok(ServerChannel::new(Arc::clone(&self.0), id))
    }

    fn dropped(&self) {
        self.0.work.notify_one();
    }
}

/// A question of a client.
pub type Question<T> = ssh_proto::adapter::Question<T, Back>;
/// What a client asks, or what whoever serves it should know.
pub type Asked = ssh_proto::adapter::Asked<Back>;

/// Ends the connection when the last handle on it is dropped.
struct Handle(Arc<Shared<ServerRole>>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A client's connection. Clones share it; when the last one is dropped it ends, and its channels with it.
#[derive(Clone)]
pub struct ServerConnection {
    handle: Arc<Handle>,
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").finish_non_exhaustive()
    }
}

impl ServerConnection {
    /// Begins with a client over any transport: gives the driver to spawn, for which the transport is to be `Send`. A TCP
    /// stream is best without [Nagle's delay](tokio::net::TcpStream::set_nodelay).
    ///
    /// A host key's signer that is not [quick](ssh_proto::Signer::is_quick) is called on a thread of the runtime for what
    /// blocks, with nothing locked. The end of the runtime waits for it, unless that is by [`shutdown_background`](tokio::runtime::Runtime::shutdown_background).
    pub fn start<T: AsyncRead + AsyncWrite>(
        config: Arc<ServerConfig>,
        transport: T,
    ) -> (Self, Driver<T, ServerRole>) {
        let (connection, driver, _place) = Self::start_counted(&HostSigners::new(&config), transport, None);
        (connection, driver)
    }

    fn start_counted<T: AsyncRead + AsyncWrite>(
        signers: &HostSigners,
        transport: T,
        startup: Option<Startup>,
    ) -> (Self, Driver<T, ServerRole>, Arc<FreeOnDrop>) {
        let shared = Arc::new(Shared::<ServerRole>::new(Arc::clone(signers.config())));
        shared.lock().kept.startup = startup;
        let place = Arc::new(FreeOnDrop(Arc::clone(&shared)));
        let look = signing(signers.clone(), Arc::downgrade(&place));
        let driver = Driver::new(Arc::clone(&shared), transport, look);
        (Self { handle: Arc::new(Handle(shared)) }, driver, place)
    }

    fn shared(&self) -> &Arc<Shared<ServerRole>> {
        &self.handle.0
    }

    /// Waits for what the client asks next; `None` when the connection is over.
    ///
    /// A question may be kept, moved to another task and answered later. Authentication stands still until it
    /// is answered; channels do not. As many questions wait to be taken as the [`Limits`](ssh_proto::Limits) let a
    /// client have open at once, and at least 256; together they may say 64 KiB for each channel of `max_channels`. What
    /// the client asks beyond that is refused.
    ///
    /// Cancel-safe: what it did not hand out is handed out to the next call. Answers are given without waiting.
    pub async fn asked(&self) -> Option<Asked> {
        let shared = self.shared();
        let back = Back(Arc::clone(shared));
        let next = |state: &mut State<ServerRole>| {
            let questions = &mut state.kept.questions;
            std::iter::from_fn(|| questions.pop_front()).find_map(|event| Asked::new(event, &back))
        };
        shared.wait_for(next).await.ok()
    }

    /// Sends the client a text to show before it is logged in. It may be sent at once, and waits until logging in
    /// begins (RFC 4252 §5.4).
    ///
    /// # Errors
    /// [`Error::Misuse`] when the client is logged in and beyond [`Limits::banners`](ssh_proto::Limits) and
    /// `banner_bytes`, [`Error::Closed`], [`Error::Io`].
    pub fn banner(&self, text: &str) -> Result<(), Error> {
        let shared = self.shared();
        let mut state = shared.lock();
        if state.is_mute() {
            return Err(state.gone());
        }
        state.conn.banner(text)?;
        drop(state);
        shared.work.notify_one();
        Ok(())
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        self.shared().command(|state, _| state.conn.rekey());
    }

    /// How often keys were renewed.
    pub fn rekeys(&self) -> u64 {
        self.shared().lock().kept.rekeys
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.shared().lock().conn.negotiated().cloned()
    }

    /// What names this connection, to both sides alike (RFC 4253 §7.2); `None` before the first key exchange is done.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared().lock().conn.session_id().cloned()
    }

    /// Our identification line, and the client's.
    pub fn idents(&self) -> (String, PeerText) {
        let state = self.shared().lock();
        (state.conn.local_ident(), state.conn.peer_ident().unwrap_or_default())
    }

    /// What the connection holds.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.shared().lock().conn.memory_usage()
    }

    /// Ends the connection: what was written still leaves. Its driver then finishes, for which
    /// [`closed`](Self::closed) waits.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Waits until the connection is over and its driver done with the transport, and tells why.
    ///
    /// Cancel-safe: it can be called again.
    pub async fn closed(&self) -> CloseReason {
        self.shared().finished().await
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared().lock().closed.is_some()
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared().lock().closed.clone()
    }
}

/// Serves clients of a listener. Clones are handles on the same server.
///
/// The end of the runtime waits for a host key's signer at work, as at [`ServerConnection::start`].
#[derive(Debug, Clone)]
pub struct Server {
    signers: HostSigners,
    startups: Startups,
    /// Until when clients may stay, once the server is shut down.
    stop: watch::Sender<Option<Instant>>,
}

impl Server {
    /// A server with this configuration, and the [default](Startups::default) bounds on clients that have not
    /// logged in.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let signers = HostSigners::new(&config);
        Self { signers, startups: Startups::default(), stop: watch::Sender::new(None) }
    }

    /// Sets how many clients may be connected without having logged in. One that is too many is hung up on.
    #[must_use]
    pub fn startups(self, startups: Startups) -> Self {
        Self { startups, ..self }
    }

    /// Accepts clients until [`shutdown`](Self::shutdown), and has `serve` answer what each asks, on a task of
    /// its own. A client's connection ends when its future does, also by a panic, and by one of `serve` itself, which
    /// is called again for the next client. The client reads that it ends, and the others stay. When this is ready, all
    /// connections are over.
    ///
    /// A failure to accept one client, for want of descriptors, is waited out.
    ///
    /// Not cancel-safe: dropped, it ends all its connections at once, along with the futures that answer them, and
    /// clients do not read why. The server can serve another listener then. To end in order there is
    /// [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// [`io::Error`] when the listener itself fails. Connections are ended before, and clients read that they are.
    pub async fn serve<F>(
        &self,
        listener: TcpListener,
        mut serve: impl FnMut(ServerConnection, SocketAddr) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stop = self.stop.subscribe();
        let mut connections = Connections::default();
        let result = loop {
            select! {
                // Behind a shutdown nobody is accepted, also not who waits already.
                biased;
                () = stopped(&mut stop) => break Ok(()),
                Some(_) = connections.tasks.join_next() => connections.tidy(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let Ok(startup) = self.startups.begin(Some(from.ip())) else { continue };
                        // Packets are already coalesced; Nagle's delay would only cost time.
                        let _ = stream.set_nodelay(true);
                        let (connection, place) = connections.begin(&self.signers, stream, startup);
                        // Also when clones of the connection live on.
                        let end = CloseOnDrop(Arc::clone(connection.shared()));
                        let begin = AssertUnwindSafe(|| serve(connection, from));
                        // The others are not to go with this one.
                        let Ok(answering) = catch_unwind(begin) else { continue };
                        connections.tasks.spawn(async move {
                            let _held = (place, end);
                            answering.await;
                        });
                    }
                    Err(error) if is_listener_fault(&error) => break Err(error),
                    Err(_) => sleep(BACK_OFF).await,
                },
            }
        };
        drop(listener);
        connections.end(stop, self.end_limit()).await;
        result
    }

    /// How long drivers may take to end.
    fn end_limit(&self) -> Duration {
        self.signers.config().limits().linger.saturating_add(DRAIN_TIME + END_MARGIN)
    }

    /// Accepts no more clients, waits for those there are to leave, at most `grace`, and then ends their
    /// connections; they read why. When this is ready, all are over, and [`serve`](Self::serve) is too. Of
    /// several calls the one whose grace ends first counts.
    ///
    /// It waits for `serve` and does not do its work: `serve` must be polled meanwhile, on a task of its own or
    /// in a `join!` with this. One that is kept and not polled is waited for without end. What has not ended
    /// [`Limits::linger`](ssh_proto::Limits) and three seconds after the clients were told is aborted, also the
    /// futures that answer them.
    ///
    /// Cancel-safe: once it was polled the server shuts down, also when this is dropped. It can be called again.
    pub async fn shutdown(&self, grace: Duration) {
        let until = Instant::now() + grace.min(FOREVER);
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|earlier| until < earlier);
            if sooner {
                *stop = Some(until);
            }
            sooner
        });
        self.stop.closed().await;
    }
}

/// Has our own keys sign, where it holds nobody up. Other questions go their way.
fn signing(signers: HostSigners, place: Weak<FreeOnDrop>) -> Look<ServerRole> {
    Box::new(move |shared, kept| {
        let (event, signer) = signers.take(kept)?;
        let (back, place) = (Back(Arc::clone(shared)), place.upgrade());
        // Dropped unanswered, also by a runtime that ends, it ends the connection.
        let Some(Asked::Sign(question)) = Asked::new(event, &back) else { return None };
        Some(Box::new(move || {
            let _place = place;
            let signature = sign(&*signer, &question.to_sign(), &mut OsEntropy);
            // It may be gone with the connection.
            let _ = question.reply(signature);
        }))
    })
}

/// Frees a client's place among those that have not logged in. Its driver, who answers it and a signer at work for it
/// share this: while one of them is left, the client costs what the place stands for.
struct FreeOnDrop(Arc<Shared<ServerRole>>);

impl Drop for FreeOnDrop {
    fn drop(&mut self) {
        self.0.lock().kept.startup = None;
    }
}

/// Ends the connection.
struct CloseOnDrop(Arc<Shared<ServerRole>>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Waits for the shutdown. Cancel-safe.
async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) {
    // It does not fail: there is always somebody who could shut it down, the server itself.
    let _ = stop.wait_for(Option::is_some).await;
}

/// The connections of a server, each with two tasks: its driver, and who answers.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    live: Vec<Weak<Handle>>,
}

impl Connections {
    fn begin(
        &mut self,
        signers: &HostSigners,
        transport: impl AsyncRead + AsyncWrite + Send + 'static,
        startup: Startup,
    ) -> (ServerConnection, Arc<FreeOnDrop>) {
        let (connection, driver, place) = ServerConnection::start_counted(signers, transport, Some(startup));
        self.live.push(Arc::downgrade(&connection.handle));
        let held = Arc::clone(&place);
        self.tasks.spawn(async {
            let _held = held;
            drop(driver.run().await);
        });
        (connection, place)
    }

    /// Forgets those that are gone, now and then.
    fn tidy(&mut self) {
        if self.live.len() > self.tasks.len() {
            self.live.retain(|connection| connection.strong_count() > 0);
        }
    }

    /// Waits until all have left, or may not stay any longer: then they are told, and given `limit` to end.
    async fn end(mut self, mut stop: watch::Receiver<Option<Instant>>, limit: Duration) {
        loop {
            let until = *stop.borrow_and_update();
            let until = until.unwrap_or_else(Instant::now);
            select! {
                left = self.left(until) => match left {
                    true => return,
                    false => break,
                },
                // Somebody has less patience.
                Ok(()) = stop.changed() => {}
            }
        }
        self.live.iter().filter_map(Weak::upgrade).for_each(|handle| handle.0.close());
        if timeout(limit, self.all_over()).await.is_err() {
            // Who answers goes on although there is nothing more to answer.
            self.tasks.shutdown().await;
        }
    }

    /// Whether all are over by then. Cancel-safe.
    async fn left(&mut self, until: Instant) -> bool {
        timeout_at(until, self.all_over()).await.is_ok()
    }

    async fn all_over(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whether an accept error is about the listener, not about one client or a passing shortage.
fn is_listener_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::Unsupported
    )
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests {
    use ssh_proto::adapter::Startups;
    use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
    use tokio::io::duplex;

    use super::*;

    const LINGER: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_told_has_the_time_to_linger_that_the_limits_give() {
        let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let config = ServerConfig::builder(&PROVIDER).host_key(key);
        let server = Server::new(config.with_limits(|limits| limits.linger = LINGER).build().unwrap());
        let mut connections = Connections::default();
        // It takes one byte of our first line, and no more.
        let (ours, _theirs) = duplex(1);
        let startup = Startups::default().begin(None).unwrap();
        let _held = connections.begin(&server.signers, ours, startup);
        tokio::task::yield_now().await;
        let stop = server.stop.subscribe();
        server.stop.send_replace(Some(Instant::now()));
        let began = Instant::now();
        connections.end(stop, server.end_limit()).await;
        assert!(began.elapsed() >= LINGER, "{:?}", began.elapsed());
    }
}
