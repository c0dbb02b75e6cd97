//! The server: an accept loop, and a handler per connection that answers questions.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ssh_proto::adapter::{Answering, HostSigners, ServerKept, Startup, Startups};
use ssh_proto::{
    AnswerError, AuthIdentity, AuthRequest, ChannelConfig, ChannelId, ChannelRequest, ChannelRequestKind,
    CloseReason, Connection, ExitStatus, GlobalRequest, KeyProbe, MemoryUsage, Negotiated, OpenRequest,
    PeerText, Server as ServerRole, ServerConfig, SessionId, SignRequest,
};

use crate::channel::ChannelOf;
use crate::engine::{Look, RoleCalls, Shared};
use crate::error::Error;
use crate::os::{OsEntropy, after, now};
use crate::transport::Transport;

/// A server's channel.
pub type ServerChannel = ChannelOf<ServerRole>;

/// The way back to the connection that asked: what a [`Question`] carries. It is named where code is to work with the
/// questions of several adapters.
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
        let _watch = self.0.watch();
        let mut guard = self.0.lock();
        let result = guard.machine().map_err(|_| AnswerError::Gone).and_then(answer);
        self.0.poke(&mut guard);
        result
    }

    fn accept(&self, request: OpenRequest, config: ChannelConfig) -> Result<ServerChannel, AnswerError> {
        let _watch = self.0.watch();
        let mut guard = self.0.lock();
        let id = guard.machine().map_err(|_| AnswerError::Gone)?.accept_channel(request, config)?;
        let wake = Arc::clone(&guard.channels.entry(id).or_default().wake);
        self.0.poke(&mut guard);
        drop(guard);
        Ok(ChannelOf::new(Arc::clone(&self.0), id, wake))
    }
}

/// A question of a client.
pub type Question<T> = ssh_proto::adapter::Question<T, Back>;
/// What a client asks, or what whoever serves it should know.
pub(crate) type Asked = ssh_proto::adapter::Asked<Back>;

/// Answers the questions of one client, on a thread of its own. What is not overridden refuses.
///
/// A question may be kept, moved to another thread and answered later. Authentication stands still until it
/// is answered; channels do not. While a method takes its time, up to 256 questions wait for it; what the client
/// asks beyond that is refused.
pub trait Handler: Send + 'static {
    /// Sign a key exchange with a host key whose [`KeyPair`](ssh_proto::KeyPair) has no signer.
    fn sign(&mut self, request: Question<SignRequest>) {
        drop(request);
    }

    /// Would a signature by this key do?
    fn probe(&mut self, probe: Question<KeyProbe>) {
        drop(probe);
    }

    /// May this user in?
    fn auth(&mut self, request: Question<AuthRequest>);

    /// The client is logged in.
    fn authenticated(&mut self, who: AuthIdentity) {
        let _ = who;
    }

    /// May the client open this channel? Keep what [`Question::accept`] gives: dropped, it closes.
    fn open(&mut self, request: Question<OpenRequest>) {
        drop(request);
    }

    /// A request on a channel.
    fn request(&mut self, request: Question<ChannelRequest>) {
        drop(request);
    }

    /// The client closed this channel. As long as a handle on it is left it takes the place of another; what
    /// came before can still be read from it.
    fn channel_closed(&mut self, id: ChannelId) {
        let _ = id;
    }

    /// A request to the connection as a whole.
    fn global(&mut self, request: Question<GlobalRequest>) {
        drop(request);
    }

    /// The connection is over.
    fn closed(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// A client's connection. Clones share it. Dropping them does not end it: it lives as long as the client stays and its
/// [`Handler`] does not panic, until it is [closed](Self::close).
#[derive(Clone)]
pub struct ServerConnection {
    shared: Arc<Shared<ServerRole>>,
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").finish_non_exhaustive()
    }
}

impl ServerConnection {
    /// Serves one client over any transport, on threads of its own. A host key's signer is called on one that
    /// lives for this, with nothing locked.
    ///
    /// # Errors
    /// [`Error::Io`] when the transport cannot be split or a thread not be started.
    pub fn start(
        config: Arc<ServerConfig>,
        transport: impl Transport,
        handler: impl Handler,
    ) -> Result<Self, Error> {
        Self::start_with(config, transport, |_| handler)
    }

    /// As [`start`](Self::start), with a handler that is made for the connection and may keep it: to end it, to ask for
    /// new keys, to look at it.
    ///
    /// # Errors
    /// As [`start`](Self::start); no handler is made then.
    pub fn start_with<H: Handler>(
        config: Arc<ServerConfig>,
        transport: impl Transport,
        handler: impl FnOnce(Self) -> H,
    ) -> Result<Self, Error> {
        Self::start_counted(&HostSigners::new(&config), transport, handler, None)
    }

    fn start_counted<H: Handler>(
        config: &HostSigners,
        transport: impl Transport,
        handler: impl FnOnce(Self) -> H,
        startup: Option<Startup>,
    ) -> Result<Self, Error> {
        // First the one that is waited for by nobody: where there is no thread for it, nothing has begun.
        let ((give, given), (made, handler_made)) = (sync_channel(1), sync_channel(1));
        let place = Arc::<Place>::default();
        let (for_end, for_signers) = (Arc::downgrade(&place), Arc::downgrade(&place));
        let handle = move || {
            if let Ok(shared) = given.recv() {
                handle(&shared, &handler_made);
            }
            drop(place);
        };
        thread::Builder::new().name("ssh-handler".into()).spawn(handle)?;
        let conn = Connection::new(Arc::clone(config.config()), Box::new(OsEntropy), now());
        let kept = ServerKept { startup, ..ServerKept::default() };
        // Until its threads and descriptors are gone too, a client takes up the place it had.
        let let_go = Box::new(move |kept: &mut ServerKept| {
            let startup = kept.startup.take();
            if let Some(place) = for_end.upgrade() {
                *lock(&place.0) = startup;
            }
        });
        let look = signing(config, for_signers);
        let shared = Shared::start(conn, transport, kept, RoleCalls { look, let_go })?;
        // It waits for this.
        let _ = give.send(Arc::clone(&shared));
        let connection = Self { shared };
        let _ = made.send(handler(connection.clone()));
        Ok(connection)
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Waits for what the client asks next; `None` when the connection is over.
    fn asked(&self) -> Option<Asked> {
        let shared = &self.shared;
        let mut guard = shared.lock();
        loop {
            while let Some(event) = guard.kept.questions.pop_front() {
                if let Some(asked) = Asked::new(event, &Back(Arc::clone(shared))) {
                    return Some(asked);
                }
            }
            if guard.closed.is_some() {
                return None;
            }
            guard = match shared.wait(guard, &shared.changed, None) {
                Ok(guard) | Err((guard, _)) => guard,
            };
        }
    }

    /// Sends the client a text to show before it is logged in. It may be sent at once, and waits until logging in
    /// begins (RFC 4252 §5.4).
    ///
    /// # Errors
    /// [`Error::Misuse`] when the client is logged in and beyond [`Limits::banners`](ssh_proto::Limits) and
    /// `banner_bytes`, [`Error::Closed`].
    pub fn banner(&self, text: &str) -> Result<(), Error> {
        let _watch = self.shared.watch();
        let mut guard = self.shared.lock();
        if guard.is_mute() {
            return Err(guard.gone());
        }
        guard.machine()?.banner(text)?;
        self.shared.poke(&mut guard);
        Ok(())
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        let _watch = self.shared.watch();
        let mut guard = self.shared.lock();
        if let Ok(conn) = guard.machine() {
            conn.rekey();
            self.shared.poke(&mut guard);
        }
    }

    /// How often keys were renewed.
    pub fn rekeys(&self) -> u64 {
        self.shared.lock().kept.rekeys
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.shared.lock().seen().negotiated().cloned()
    }

    /// What names this connection, to both sides alike (RFC 4253 §7.2); `None` before the first key exchange is done.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.lock().seen().session_id().cloned()
    }

    /// Our identification line, and the client's.
    pub fn idents(&self) -> (String, PeerText) {
        let guard = self.shared.lock();
        (guard.seen().local_ident(), guard.seen().peer_ident().unwrap_or_default())
    }

    /// What the connection holds.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.shared.lock().seen().memory_usage()
    }

    /// Waits until the connection is over and its transport let go, and tells why.
    pub fn closed(&self) -> CloseReason {
        self.shared.ended()
    }

    /// Waits until the connection is over and its transport let go, at most so long.
    pub fn join(&self, limit: Duration) {
        self.shared.join(limit);
    }

    /// Whether the connection is over and its transport let go.
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed.is_some()
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.lock().closed.clone()
    }
}

/// Where the place of a client that did not log in goes when its connection is over: it is free when the last
/// thread that works for it is done too, which may be one that waits for a directory or a token.
#[derive(Default)]
struct Place(Mutex<Option<Startup>>);

/// Has our own keys sign, on a thread for it: whoever took the question in may hold the lock, or be needed
/// elsewhere. Other questions go their way.
fn signing(signers: &HostSigners, place: Weak<Place>) -> Look<ServerRole> {
    let signers = signers.clone();
    Box::new(move |shared, kept| {
        let Some(shared) = shared.upgrade() else { return };
        let Some((event, signer)) = signers.take(kept) else { return };
        let place = place.upgrade();
        // Dropped unanswered, for want of a thread, it ends the connection.
        let sign = move || {
            let _place = place;
            if let Some(Asked::Sign(question)) = Asked::new(event, &Back(shared)) {
                let signature = signer.sign(&question.to_sign(), &mut OsEntropy);
                // It may be gone with the connection.
                let _ = question.reply(signature);
            }
        };
        let _ = thread::Builder::new().name("ssh-sign".into()).spawn(sign);
    })
}

/// Ends the connection when the handler is done, also by a panic.
struct CloseOnDrop<'a>(&'a Arc<Shared<ServerRole>>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().kept.questions.clear();
    }
}

fn handle(shared: &Arc<Shared<ServerRole>>, made: &Receiver<impl Handler>) {
    let _end = CloseOnDrop(shared);
    // Nobody answers when making one panicked.
    let Ok(mut handler) = made.recv() else { return };
    let connection = ServerConnection { shared: Arc::clone(shared) };
    while let Some(asked) = connection.asked() {
        match asked {
            Asked::Sign(question) => handler.sign(question),
            Asked::Probe(question) => handler.probe(question),
            Asked::Auth(question) => handler.auth(question),
            Asked::Authenticated(who) => handler.authenticated(who),
            Asked::Open(question) => handler.open(question),
            Asked::Request(question) => handler.request(question),
            Asked::ChannelClosed(id) => handler.channel_closed(id),
            Asked::Global(question) => handler.global(question),
            // Dropped, and so refused.
            _ => {}
        }
    }
    let reason = shared.lock().closed.clone();
    handler.closed(&reason.unwrap_or(CloseReason::Eof));
}

/// Serves clients of a listener. Clones are handles on the same server.
#[derive(Debug, Clone)]
pub struct Server {
    config: HostSigners,
    startups: Startups,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    /// Set once, and nothing is added from then on.
    stopped: bool,
    /// Where listeners are that wait for clients now, each in a call that is to be woken.
    waiting: Vec<SocketAddr>,
    /// Those that are not finished, and some that are.
    connections: Vec<ServerConnection>,
}

impl Server {
    /// A server with this configuration, and the [default](Startups::default) bounds on clients that have not
    /// logged in.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config: HostSigners::new(&config), startups: Startups::default(), running: Arc::default() }
    }

    /// Sets how many clients may be connected without having logged in. One that is too many is hung up on.
    #[must_use]
    pub fn startups(self, startups: Startups) -> Self {
        Self { startups, ..self }
    }

    /// Accepts clients, each with a handler from `handler`, until [`shutdown`](Self::shutdown), also one before. A
    /// handler may keep its connection: it ends with the client, with the [`shutdown`](Self::shutdown), when it is
    /// [closed](ServerConnection::close), and by a panic of the handler.
    ///
    /// A failure to accept one client, for want of descriptors or threads, is waited out.
    ///
    /// # Errors
    /// [`io::Error`] when the listener itself fails.
    pub fn serve<H: Handler>(
        &self,
        listener: &TcpListener,
        mut handler: impl FnMut(ServerConnection, SocketAddr) -> H,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        loop {
            {
                // Under one lock: a shutdown finds the address, or is found here.
                let mut running = lock(&self.running);
                if running.stopped {
                    return Ok(());
                }
                running.waiting.push(address);
            }
            let accepted = listener.accept();
            {
                let mut running = lock(&self.running);
                if let Some(at) = running.waiting.iter().position(|waiting| *waiting == address) {
                    running.waiting.swap_remove(at);
                }
                if running.stopped {
                    return Ok(());
                }
            }
            match accepted {
                Ok((stream, from)) => {
                    if let Ok(startup) = self.startups.begin(Some(from.ip()))
                        && self.begin(stream, startup, |connection| handler(connection, from)).is_err()
                    {
                        thread::sleep(BACK_OFF);
                    }
                }
                Err(error) if is_listener_fault(&error) => return Err(error),
                Err(_) => thread::sleep(BACK_OFF),
            }
        }
    }

    fn begin<H: Handler>(
        &self,
        stream: TcpStream,
        startup: Startup,
        handler: impl FnOnce(ServerConnection) -> H,
    ) -> Result<(), Error> {
        // Locked until it is in the list: a shutdown must not miss it.
        let mut running = lock(&self.running);
        if running.stopped {
            return Ok(());
        }
        let connection = ServerConnection::start_counted(&self.config, stream, handler, Some(startup))?;
        running.connections.retain(|connection| !connection.is_finished());
        running.connections.push(connection);
        Ok(())
    }

    /// A connection that is not finished; `None` when all are.
    fn unfinished(&self) -> Option<ServerConnection> {
        let mut running = lock(&self.running);
        running.connections.retain(|connection| !connection.is_finished());
        running.connections.last().cloned()
    }

    /// Accepts no more clients, waits for those there are to leave, at most `grace`, and then ends their
    /// connections; they read why. When this returns, all are over and their transports let go; a handler or a signer
    /// may still be at its last call. Of two calls at once the shorter grace counts.
    pub fn shutdown(&self, grace: Duration) {
        let deadline = after(grace);
        lock(&self.running).stopped = true;
        let mut woken = self.wake_listeners();
        // They stay in the list until they are finished: another call waits for them too, and may end them earlier.
        while let Some(connection) = self.unfinished() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            connection.join(if woken { left } else { left.min(BACK_OFF) });
            woken = woken || self.wake_listeners();
        }
        let rest = lock(&self.running).connections.clone();
        rest.iter().for_each(ServerConnection::close);
        while let Some(connection) = self.unfinished() {
            connection.join(Duration::MAX);
        }
        while !woken {
            thread::sleep(BACK_OFF);
            woken = self.wake_listeners();
        }
    }

    /// Has those that wait for clients see that this is over; false when it is to be tried again.
    fn wake_listeners(&self) -> bool {
        let waiting = lock(&self.running).waiting.clone();
        // All of them, also behind one that failed.
        waiting.into_iter().filter(|at| !wake(*at)).count() == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a listener's `accept` return: nothing else does so everywhere. False when this failed for a reason that
/// passes, such as a want of descriptors.
fn wake(listener: SocketAddr) -> bool {
    let here = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match TcpStream::connect_timeout(&SocketAddr::new(here, listener.port()), BACK_OFF) {
        Ok(_) => true,
        Err(error) => is_unreachable(&error),
    }
}

/// Whether an error to connect is about the way to the listener, so that another try would fail too. That no address
/// is available says of a way over the own host that all ports are taken, which passes.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}

/// How long to let others finish when accepting fails.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Whether an accept error is about the listener, not about one client or a passing shortage.
fn is_listener_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::Unsupported
    )
}

impl ServerChannel {
    /// Tells the client how its program ended.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Closed`].
    pub fn exit(&self, status: ExitStatus) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::Exit(status), false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read, sink};
    use std::net::Shutdown;
    use std::sync::mpsc::channel;

    use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};

    use super::*;
    use crate::transport::Split;

    /// A client that says this, and then nothing until its transport is ended.
    struct Says(&'static [u8], Receiver<()>);

    impl Read for Says {
        fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                let _ = self.1.recv();
            }
            self.0.read(dst)
        }
    }

    struct Refuses;

    impl Handler for Refuses {
        fn auth(&mut self, request: Question<AuthRequest>) {
            drop(request);
        }
    }

    #[test]
    fn a_want_of_ports_passes_and_a_way_that_is_not_there_does_not() {
        assert!(!is_unreachable(&io::ErrorKind::AddrNotAvailable.into()));
        assert!(is_unreachable(&io::ErrorKind::ConnectionRefused.into()));
    }

    #[test]
    fn a_client_is_let_in_while_the_connection_of_another_is_locked() {
        let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let server = Server::new(ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let serving = server.clone();
        let serving = thread::spawn(move || serving.serve(&listener, |_, _| Refuses));
        let greeted = || {
            let mut client = TcpStream::connect(at).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            client.read_exact(&mut [0; 8]).map(|()| client)
        };
        let first = greeted().unwrap();
        let connection = server.unfinished().unwrap();
        let locked = connection.shared.lock();
        // One may be greeted before the others are looked at.
        let others = [greeted(), greeted()];
        drop(locked);
        drop((first, others.map(Result::unwrap)));
        server.shutdown(Duration::ZERO);
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_that_is_refused_keeps_its_place_until_its_transport_is_let_go() {
        let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
        let startups = Startups::new(1, 1);
        let startup = startups.begin(None).unwrap();
        let (end, ended) = channel();
        let (counts, counted) = channel();
        let (end, counting) = (Mutex::new(Some(end)), startups.clone());
        let transport = Split {
            reader: Says(b"SSH-1.0-bad\r\n", ended),
            writer: sink(),
            unblock: Box::new(move |how| {
                counts.send(counting.count()).unwrap();
                if how == Shutdown::Both {
                    *lock(&end) = None;
                }
            }),
        };
        let config = HostSigners::new(&config);
        let connection =
            ServerConnection::start_counted(&config, transport, |_| Refuses, Some(startup)).unwrap();
        connection.join(Duration::MAX);
        assert!(connection.close_reason().is_some());
        assert_eq!(counted.iter().collect::<Vec<_>>(), [1, 1], "it lingered, and was there all the time");
        drop(connection);
        // The handler hears of it, and is done.
        while startups.count() > 0 {
            thread::yield_now();
        }
    }
}
