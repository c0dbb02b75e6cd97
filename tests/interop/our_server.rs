//! Our servers, with the same user and keys as the peers' servers. They run commands.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ssh_io_std::ssh_proto::adapter::{Answering, Question};
use ssh_io_std::ssh_proto::keys::AuthorizedKeys;
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest,
    ChannelRequestKind, CloseReason, KeyProbe, Negotiated, OpenRequest, ServerConfig,
};
use ssh_io_tokio::Asked;
use tokio::runtime::{Builder, Runtime};

use crate::peers::{PASSWORD, Rig, USER};
use crate::support::WAIT;
use crate::{program, tokio_program};

/// Something a client did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// It asked whether a key would do.
    Probe {
        listed: bool,
    },
    /// It tried to log in, with a password or a signature by the algorithm.
    LogIn {
        with: &'static str,
        accepted: bool,
    },
    Exec(String),
}

/// What a server saw.
pub(crate) struct Seen<C> {
    notes: Mutex<Vec<Note>>,
    connections: Mutex<Vec<C>>,
}

impl<C> Default for Seen<C> {
    fn default() -> Self {
        Self { notes: Mutex::default(), connections: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's connection to a server of ours.
pub(crate) trait Connection: Clone {
    fn negotiated(&self) -> Option<Negotiated>;

    /// How often keys were renewed.
    fn rekeys(&self) -> u64;

    fn close_reason(&self) -> Option<CloseReason>;
}

/// A server on a free port, which ends with its connections when dropped.
pub(crate) trait OurServer: Sized {
    /// The crate it is from.
    const CRATE: &str;
    type Connection: Connection;

    fn start(config: Arc<ServerConfig>, rig: &Rig) -> Self;

    fn port(&self) -> u16;

    fn seen(&self) -> &Seen<Self::Connection>;

    /// What clients did so far.
    fn notes(&self) -> Vec<Note> {
        lock(&self.seen().notes).clone()
    }

    /// Forgets what clients did so far.
    fn forget(&self) {
        lock(&self.seen().notes).clear();
        lock(&self.seen().connections).clear();
    }

    /// The last connection since [`forget`](Self::forget).
    fn connection(&self) -> Option<Self::Connection> {
        lock(&self.seen().connections).last().cloned()
    }

    /// How the last connection ended and what the client did, for messages.
    fn story(&self) -> String {
        let end = self.connection().map(|connection| match connection.close_reason() {
            Some(reason) => reason.to_string(),
            None => "not over".to_owned(),
        });
        format!("our server: {}; {:?}", end.as_deref().unwrap_or("no connection"), self.notes())
    }
}

/// A channel that a program may get.
trait Session: Sized {
    fn id(&self) -> ChannelId;
    fn run(&self, command: &[u8]) -> io::Result<()>;
    fn close(&self);
}

/// Answers for a connection.
struct Account<A: Answering, C> {
    keys: Arc<AuthorizedKeys>,
    seen: Arc<Seen<C>>,
    sessions: HashMap<ChannelId, A::Channel>,
}

fn authorized_keys(rig: &Rig) -> Arc<AuthorizedKeys> {
    let keys = std::fs::read(rig.authorized_keys()).expect("the list of keys");
    Arc::new(AuthorizedKeys::parse(&keys))
}

impl<A: Answering<Channel: Session>, C> Account<A, C> {
    fn new(keys: &Arc<AuthorizedKeys>, seen: &Arc<Seen<C>>) -> Self {
        Self { keys: Arc::clone(keys), seen: Arc::clone(seen), sessions: HashMap::new() }
    }

    fn note(&self, note: Note) {
        lock(&self.seen.notes).push(note);
    }

    fn probe(&self, probe: Question<KeyProbe, A>) {
        let listed = probe.user() == USER && self.keys.contains(probe.key());
        self.note(Note::Probe { listed });
        let _ = probe.reply(listed);
    }

    fn auth(&self, request: Question<AuthRequest, A>) {
        let (with, right) = match request.proof() {
            AuthProof::Password(password) => ("password", password.expose() == PASSWORD),
            AuthProof::PublicKey { key, algorithm } => (*algorithm, self.keys.contains(key)),
            AuthProof::None => ("none", false),
            _ => ("something else", false),
        };
        let accepted = right && request.user() == USER;
        self.note(Note::LogIn { with, accepted });
        let next = AuthMethods::PUBLICKEY.and(AuthMethods::PASSWORD);
        let _ = request.reply(if accepted { AuthVerdict::Accept } else { AuthVerdict::Reject { next } });
    }

    fn open(&mut self, request: Question<OpenRequest, A>) {
        if matches!(request.kind(), ChannelKind::Session)
            && let Ok(channel) = request.accept(ChannelConfig::default())
        {
            self.sessions.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest, A>) {
        let ChannelRequestKind::Exec(command) = request.kind() else { return };
        let command = command.clone();
        let Some(channel) = self.sessions.remove(&request.channel()) else { return };
        self.note(Note::Exec(String::from_utf8_lossy(&command).into_owned()));
        // The answer goes first: a quick program's output must not overtake it.
        let _ = request.reply(true);
        if let Err(error) = channel.run(&command) {
            self.note(Note::Exec(format!("failed: {error}")));
            channel.close();
        }
    }
}

macro_rules! adapter {
    ($crate_:ident, $run:expr) => {
        impl Session for $crate_::ServerChannel {
            fn id(&self) -> ChannelId {
                self.id()
            }

            fn run(&self, command: &[u8]) -> io::Result<()> {
                $run(self.clone(), command)
            }

            fn close(&self) {
                self.close();
            }
        }

        impl Connection for $crate_::ServerConnection {
            fn negotiated(&self) -> Option<Negotiated> {
                self.negotiated()
            }

            fn rekeys(&self) -> u64 {
                self.rekeys()
            }

            fn close_reason(&self) -> Option<CloseReason> {
                self.close_reason()
            }
        }
    };
}

adapter!(ssh_io_std, |channel, command| program::start(channel, Some(command), &[]).map(drop));
adapter!(ssh_io_tokio, tokio_program::start);

/// A server of `ssh-io-std`.
pub(crate) struct StdServer {
    port: u16,
    seen: Arc<Seen<ssh_io_std::ServerConnection>>,
    server: ssh_io_std::Server,
    accepting: Option<JoinHandle<()>>,
}

impl OurServer for StdServer {
    const CRATE: &str = "ssh-io-std";
    type Connection = ssh_io_std::ServerConnection;

    fn start(config: Arc<ServerConfig>, rig: &Rig) -> Self {
        let keys = authorized_keys(rig);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let (server, seen) = (ssh_io_std::Server::new(config), Arc::<Seen<_>>::default());
        let (serving, for_handlers) = (server.clone(), Arc::clone(&seen));
        let accepting = thread::spawn(move || {
            let begin = |connection, _| {
                lock(&for_handlers.connections).push(connection);
                Account::new(&keys, &for_handlers)
            };
            serving.serve(&listener, begin).expect("a listener that works");
        });
        Self { port, seen, server, accepting: Some(accepting) }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn seen(&self) -> &Seen<Self::Connection> {
        &self.seen
    }
}

impl Drop for StdServer {
    fn drop(&mut self) {
        self.server.shutdown(Duration::ZERO);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl ssh_io_std::Handler for Account<ssh_io_std::Back, ssh_io_std::ServerConnection> {
    fn probe(&mut self, probe: ssh_io_std::Question<KeyProbe>) {
        Self::probe(self, probe);
    }

    fn auth(&mut self, request: ssh_io_std::Question<AuthRequest>) {
        Self::auth(self, request);
    }

    fn open(&mut self, request: ssh_io_std::Question<OpenRequest>) {
        Self::open(self, request);
    }

    fn request(&mut self, request: ssh_io_std::Question<ChannelRequest>) {
        Self::request(self, request);
    }
}

/// A server of `ssh-io-tokio` and what it runs on.
pub(crate) struct TokioServer {
    port: u16,
    seen: Arc<Seen<ssh_io_tokio::ServerConnection>>,
    server: ssh_io_tokio::Server,
    runtime: Runtime,
}

impl OurServer for TokioServer {
    const CRATE: &str = "ssh-io-tokio";
    type Connection = ssh_io_tokio::ServerConnection;

    fn start(config: Arc<ServerConfig>, rig: &Rig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(listener).expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let (server, seen) = (ssh_io_tokio::Server::new(config), Arc::<Seen<_>>::default());
        let (accepting, for_tasks, keys) = (server.clone(), Arc::clone(&seen), authorized_keys(rig));
        runtime.spawn(async move {
            let begin = |connection: Self::Connection, _| {
                lock(&for_tasks.connections).push(connection.clone());
                answer(Account::new(&keys, &for_tasks), connection)
            };
            accepting.serve(listener, begin).await.expect("a listener that works");
        });
        Self { port, seen, server, runtime }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn seen(&self) -> &Seen<Self::Connection> {
        &self.seen
    }
}

impl Drop for TokioServer {
    fn drop(&mut self) {
        let shutdown = self.server.shutdown(Duration::ZERO);
        let _ = self.runtime.block_on(async { tokio::time::timeout(WAIT, shutdown).await });
    }
}

async fn answer(
    mut account: Account<ssh_io_tokio::Back, ssh_io_tokio::ServerConnection>,
    connection: ssh_io_tokio::ServerConnection,
) {
    while let Some(asked) = connection.asked().await {
        match asked {
            Asked::Probe(probe) => account.probe(probe),
            Asked::Auth(request) => account.auth(request),
            Asked::Open(request) => account.open(request),
            Asked::Request(request) => account.request(request),
            _ => {}
        }
    }
}
