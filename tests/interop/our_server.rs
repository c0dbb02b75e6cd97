//! Our server, with the same user and keys as the peers' servers. It runs commands.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ssh_io_std::ssh_proto::keys::AuthorizedKeys;
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest,
    ChannelRequestKind, KeyProbe, OpenRequest, ServerConfig,
};
use ssh_io_std::{Handler, Question, ServerChannel, ServerConnection};

use crate::peers::{PASSWORD, Rig, USER};
use crate::program;

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

/// What the server saw.
#[derive(Default)]
struct Seen {
    notes: Mutex<Vec<Note>>,
    connections: Mutex<Vec<ServerConnection>>,
}

/// A server on a free port, which ends with its connections when dropped.
pub(crate) struct OurServer {
    pub(crate) port: u16,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OurServer {
    pub(crate) fn start(config: Arc<ServerConfig>, rig: &Rig) -> Self {
        let keys = std::fs::read(rig.authorized_keys()).expect("the list of keys");
        let keys = Arc::new(AuthorizedKeys::parse(&keys));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let (for_handlers, stopped) = (seen.clone(), stop.clone());
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let handler =
                    Account { keys: keys.clone(), seen: for_handlers.clone(), sessions: HashMap::new() };
                let connection = ServerConnection::start(config.clone(), stream, handler);
                lock(&for_handlers.connections).push(connection.expect("start a connection"));
            }
        });
        Self { port, seen, stop, accepting: Some(accepting) }
    }

    /// What clients did so far.
    pub(crate) fn notes(&self) -> Vec<Note> {
        lock(&self.seen.notes).clone()
    }

    /// Forgets what clients did so far.
    pub(crate) fn forget(&self) {
        lock(&self.seen.notes).clear();
        lock(&self.seen.connections).clear();
    }

    /// The last connection since [`forget`](Self::forget).
    pub(crate) fn connection(&self) -> Option<ServerConnection> {
        lock(&self.seen.connections).last().cloned()
    }

    /// How the last connection ended and what the client did, for messages.
    pub(crate) fn story(&self) -> String {
        let end = self.connection().map(|connection| match connection.close_reason() {
            Some(reason) => reason.to_string(),
            None => "not over".to_owned(),
        });
        format!("our server: {}; {:?}", end.as_deref().unwrap_or("no connection"), self.notes())
    }
}

impl Drop for OurServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let connections = std::mem::take(&mut *lock(&self.seen.connections));
        for connection in &connections {
            connection.close();
        }
        for connection in connections {
            connection.join(Duration::from_secs(5));
        }
    }
}

/// A connection's handler.
struct Account {
    keys: Arc<AuthorizedKeys>,
    seen: Arc<Seen>,
    sessions: HashMap<ChannelId, ServerChannel>,
}

impl Account {
    fn note(&self, note: Note) {
        lock(&self.seen.notes).push(note);
    }
}

impl Handler for Account {
    fn probe(&mut self, probe: Question<KeyProbe>) {
        let listed = probe.user() == USER && self.keys.contains(probe.key());
        self.note(Note::Probe { listed });
        let _ = probe.reply(listed);
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
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

    fn open(&mut self, request: Question<OpenRequest>) {
        if matches!(request.kind(), ChannelKind::Session)
            && let Ok(channel) = request.accept(ChannelConfig::default())
        {
            self.sessions.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let ChannelRequestKind::Exec(command) = request.kind() else { return };
        let command = command.clone();
        let Some(channel) = self.sessions.remove(&request.channel()) else { return };
        self.note(Note::Exec(String::from_utf8_lossy(&command).into_owned()));
        // The answer goes first: a quick program's output must not overtake it.
        let _ = request.reply(true);
        if let Err(error) = program::start(channel.clone(), Some(&command), &[]) {
            self.note(Note::Exec(format!("failed: {error}")));
            channel.close();
        }
    }
}
