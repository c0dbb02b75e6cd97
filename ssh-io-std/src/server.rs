//! The server: an accept loop, and a handler per connection that answers questions.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ssh_proto::adapter::ServerKept;
use ssh_proto::{
    AuthIdentity, AuthRequest, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelRequest,
    ChannelRequestKind, CloseReason, Connection, ExitStatus, GlobalReply, GlobalRequest, KeyProbe,
    Negotiated, OpenFailure, OpenRequest, Server as ServerRole, ServerConfig, ServerEvent, SignRefused,
    SignRequest, Signature,
};

use crate::channel::ChannelOf;
use crate::engine::Shared;
use crate::error::Error;
use crate::os::{OsEntropy, now};
use crate::transport::Transport;

/// A server's channel.
pub type ServerChannel = ChannelOf<ServerRole>;

/// Lets the machine see that a ticket was dropped.
struct Notify(Arc<Shared<ServerRole>>);

impl Drop for Notify {
    fn drop(&mut self) {
        let mut guard = self.0.lock();
        self.0.poke(&mut guard);
    }
}

/// A question of a client. It may be answered from any thread, at any time; dropping it refuses.
#[must_use = "dropping it refuses"]
pub struct Question<T> {
    // Dropped in this order: first the ticket, then word of it.
    ticket: T,
    notify: Notify,
}

impl<T> Question<T> {
    fn new(shared: &Arc<Shared<ServerRole>>, ticket: T) -> Self {
        Self { ticket, notify: Notify(Arc::clone(shared)) }
    }

    fn answer<U>(
        self,
        answer: impl FnOnce(&mut Connection<ServerRole>, T) -> Result<U, ssh_proto::AnswerError>,
    ) -> Result<U, Error> {
        let Self { ticket, notify } = self;
        let mut guard = notify.0.lock();
        let result = answer(&mut guard.conn, ticket);
        notify.0.poke(&mut guard);
        drop(guard);
        Ok(result?)
    }
}

impl<T> Deref for Question<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.ticket
    }
}

impl<T: fmt::Debug> fmt::Debug for Question<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Question").field(&self.ticket).finish()
    }
}

impl Question<SignRequest> {
    /// Gives the signature, or refuses to.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, signature: Result<Signature, SignRefused>) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.provide_signature(ticket, signature))
    }
}

impl Question<KeyProbe> {
    /// Says whether a signature by this key would do.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, acceptable: bool) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_probe(ticket, acceptable))
    }
}

impl Question<AuthRequest> {
    /// Decides.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, verdict: AuthVerdict) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_auth(ticket, verdict))
    }
}

impl Question<OpenRequest> {
    /// Opens the channel.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn accept(self, config: ChannelConfig) -> Result<ServerChannel, Error> {
        let shared = Arc::clone(&self.notify.0);
        let Self { ticket, notify } = self;
        let mut guard = notify.0.lock();
        let id = guard.conn.accept_channel(ticket, config)?;
        let wake = Arc::clone(&guard.channels.entry(id).or_default().wake);
        notify.0.poke(&mut guard);
        drop(guard);
        Ok(ChannelOf::new(shared, id, wake))
    }

    /// Refuses it.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reject(self, why: OpenFailure) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reject_channel(ticket, why))
    }
}

impl Question<ChannelRequest> {
    /// Grants or refuses it. For a request that wants no answer it does nothing.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, ok: bool) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_request(ticket, ok))
    }
}

impl Question<GlobalRequest> {
    /// Answers it. For a request that wants no answer it does nothing.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, reply: GlobalReply<'_>) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_global(ticket, reply))
    }
}

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

/// A client's connection, for whoever started it.
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
    /// Serves one client over any transport, on threads of its own.
    ///
    /// # Errors
    /// [`Error::Io`] when the transport cannot be split or a thread not be started.
    pub fn start(
        config: Arc<ServerConfig>,
        transport: impl Transport,
        handler: impl Handler,
    ) -> Result<Self, Error> {
        let conn = Connection::new(config, Box::new(OsEntropy), now());
        let shared = Shared::start(conn, transport, ServerKept::default())?;
        let for_handler = Arc::clone(&shared);
        let spawned =
            thread::Builder::new().name("ssh-handler".into()).spawn(move || handle(&for_handler, handler));
        let connection = Self { shared };
        if let Err(error) = spawned {
            connection.close();
            return Err(error.into());
        }
        Ok(connection)
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        let mut guard = self.shared.lock();
        guard.conn.rekey();
        self.shared.poke(&mut guard);
    }

    /// How often keys were renewed.
    pub fn rekeys(&self) -> u64 {
        self.shared.lock().kept.rekeys
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.shared.lock().conn.negotiated().cloned()
    }

    /// Waits until the connection is over and its transport let go, at most so long.
    pub fn join(&self, limit: Duration) {
        self.shared.join(limit);
    }

    /// Whether the connection is over and its transport let go.
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished()
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.lock().closed.clone()
    }
}

/// Ends the connection when the handler is done, also by a panic.
struct CloseOnDrop<'a>(&'a Arc<Shared<ServerRole>>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().kept.questions.clear();
    }
}

fn handle(shared: &Arc<Shared<ServerRole>>, mut handler: impl Handler) {
    let _end = CloseOnDrop(shared);
    loop {
        let mut guard = shared.lock();
        let event = loop {
            if let Some(event) = guard.kept.questions.pop_front() {
                // There is room again.
                shared.poke(&mut guard);
                break event;
            }
            if let Some(reason) = guard.closed.clone() {
                drop(guard);
                return handler.closed(&reason);
            }
            guard = match shared.wait(guard, &shared.changed, None) {
                Ok(guard) | Err((guard, _)) => guard,
            };
        };
        drop(guard);
        match event {
            ServerEvent::Sign(ticket) => handler.sign(Question::new(shared, ticket)),
            ServerEvent::Probe(ticket) => handler.probe(Question::new(shared, ticket)),
            ServerEvent::Auth(ticket) => handler.auth(Question::new(shared, ticket)),
            ServerEvent::Authenticated(who) => handler.authenticated(who),
            ServerEvent::Open(ticket) => handler.open(Question::new(shared, ticket)),
            ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => {
                handler.request(Question::new(shared, ticket));
            }
            ServerEvent::Channel(id, ChannelEvent::Closed) => handler.channel_closed(id),
            ServerEvent::Global(ticket) => handler.global(Question::new(shared, ticket)),
            _ => {}
        }
    }
}

/// Serves clients of a listener.
#[derive(Debug, Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
}

impl Server {
    /// A server with this configuration.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config }
    }

    /// Accepts clients for ever, each with a handler from `handler`.
    ///
    /// A failure to accept one client, for want of descriptors or threads, is waited out.
    ///
    /// # Errors
    /// [`io::Error`] when the listener itself fails.
    pub fn serve<H: Handler>(
        &self,
        listener: &TcpListener,
        mut handler: impl FnMut(SocketAddr) -> H,
    ) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, from)) => {
                    if ServerConnection::start(Arc::clone(&self.config), stream, handler(from)).is_err() {
                        thread::sleep(BACK_OFF);
                    }
                }
                Err(error) if is_listener_fault(&error) => return Err(error),
                Err(_) => thread::sleep(BACK_OFF),
            }
        }
    }
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
