//! The server: an accept loop, and a handler per connection that answers questions.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use ssh_proto::adapter::{Answering, HostSigners, ServerKept, Startup, sign};
use ssh_proto::{
    AnswerError, AuthIdentity, AuthRequest, ChannelConfig, ChannelId, ChannelRequest, ChannelRequestKind,
    CloseReason, Connection, ExitStatus, GlobalRequest, KeyProbe, MemoryUsage, Negotiated, OpenRequest,
    PeerText, Server as ServerRole, ServerConfig, SessionId, SignRequest,
};

use crate::channel::ChannelOf;
use crate::engine::{Look, RoleCalls, Shared};
use crate::error::Error;
use crate::os::{OsEntropy, now};
use crate::transport::Transport;

mod listen;

pub use listen::Server;
use listen::lock;

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
        let wake = guard.hear_of(id);
        self.0.poke(&mut guard);
        drop(guard);
        Ok(ChannelOf::new(Arc::clone(&self.0), id, wake))
    }

    fn dropped(&self) {
        self.0.lock().contain(&self.0, |_| {});
    }
}

/// A question of a client.
pub type Question<T> = ssh_proto::adapter::Question<T, Back>;
/// What a client asks, or what whoever serves it should know.
pub(crate) type Asked = ssh_proto::adapter::Asked<Back>;

/// Answers the questions of one client, on a thread of its own. What is not overridden refuses.
///
/// A question may be kept, moved to another thread and answered later. Authentication stands still until it
/// is answered; channels do not. While a method takes its time, as many questions wait for it as the
/// [`Limits`](ssh_proto::Limits) let a client have open at once, and at least 256; together they may say 64 KiB for each
/// channel of `max_channels`. What the client asks beyond that is refused.
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
    /// Serves one client over any transport, on threads of its own. A host key's signer that is not
    /// [quick](ssh_proto::Signer::is_quick) is called on one that lives for this, with nothing locked.
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
        let (connection, made) = Self::start_counted(&HostSigners::new(&config), transport, None)?;
        let _ = made.send(handler(connection.clone()));
        Ok(connection)
    }

    /// Starts a connection that waits for its handler. Without one it ends.
    fn start_counted<H: Handler>(
        config: &HostSigners,
        transport: impl Transport,
        startup: Option<Startup>,
    ) -> Result<(Self, SyncSender<H>), Error> {
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
        Ok((Self { shared }, made))
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
    /// `banner_bytes`, [`Error::Closed`], [`Error::Io`].
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
                let signature = sign(&*signer, &question.to_sign(), &mut OsEntropy);
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

impl ServerChannel {
    /// Tells the client how its program ended.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::TimedOut`], [`Error::Closed`], [`Error::Io`].
    pub fn exit(&self, status: ExitStatus) -> Result<(), Error> {
        self.send_request(&ChannelRequestKind::Exit(status), false)
    }
}

#[cfg(test)]
mod tests;
