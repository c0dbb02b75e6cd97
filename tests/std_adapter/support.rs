//! The server of these tests, and clients of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use ssh_io_std::{
    Client, Handler, HostKeys, OsEntropy, Question, ServerChannel, ServerConnection, Transport,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind,
    ClientConfig, CloseReason, ExitStatus, KeyPair, Limits, OpenRequest, PublicKey, ServerConfig,
};

/// How long anything may take before a test gives up: a bound on failure, not a measure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const PASSWORD: &str = "correct horse";

/// What goes there and back at once.
pub(crate) const PIECE: usize = 32 * 1024;

/// A window for a channel whose user wants it full soon.
pub(crate) const WINDOW: usize = 64 * 1024;

/// A server that echoes, talks to both streams, and reports how connections end.
pub(crate) struct Echo {
    pub(crate) channels: Vec<ServerChannel>,
    pub(crate) closed: Sender<CloseReason>,
}

impl Handler for Echo {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let ok = matches!(request.proof(), AuthProof::Password(password) if password.matches(PASSWORD));
        let verdict = match ok {
            true => AuthVerdict::Accept,
            false => AuthVerdict::Reject { next: AuthMethods::PASSWORD },
        };
        // From another thread, later: questions do not mind.
        thread::spawn(move || request.reply(verdict)).join().unwrap().unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channels.push(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let at = self.channels.iter().position(|channel| channel.id() == request.channel());
        let command = match request.kind() {
            ChannelRequestKind::Exec(command) => String::from_utf8(command.clone()).unwrap(),
            _ => return,
        };
        match &command[..] {
            "refuse" => return,
            "panic" => panic!("a handler panics, as the test asks it to"),
            _ => request.reply(true).unwrap(),
        }
        let channel = self.channels.swap_remove(at.unwrap());
        thread::spawn(move || run(&command, &channel));
    }

    fn closed(&mut self, reason: &CloseReason) {
        let _ = self.closed.send(reason.clone());
    }
}

pub(crate) fn run(command: &str, channel: &ServerChannel) {
    let mut io = channel;
    match command {
        "echo" => {
            let mut buffer = vec![0; 40_000];
            while let Ok(n @ 1..) = io.read(&mut buffer) {
                io.write_all(&buffer[..n]).unwrap();
            }
            let _ = channel.exit(ExitStatus::Code(3));
        }
        "both" | "both and stay" => {
            for round in 0..3 {
                writeln!(io, "out {round}").unwrap();
                writeln!(channel.stderr(), "err {round}").unwrap();
            }
            channel.exit(ExitStatus::Code(0)).unwrap();
            if command != "both" {
                drop(channel.wait());
            }
        }
        // Each piece comes back as it is, and turned over on the other stream.
        "both ways" => {
            let mut piece = vec![0; PIECE];
            while io.read_exact(&mut piece).is_ok() {
                io.write_all(&piece).unwrap();
                piece.iter_mut().for_each(|byte| *byte = !*byte);
                channel.stderr().write_all(&piece).unwrap();
            }
            channel.exit(ExitStatus::Code(4)).unwrap();
        }
        // More on stderr than goes unread.
        "errors first" => {
            channel.stderr().write_all(&[b'e'; WINDOW + 1]).unwrap();
            io.write_all(b"done").unwrap();
            channel.exit(ExitStatus::Code(5)).unwrap();
        }
        "sink" => while io.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {},
        "flood" => while io.write_all(&[0; 100_000]).is_ok() {},
        // Waits for the client to be gone.
        _ => drop(channel.wait()),
    }
}

/// A key for tests, and a configuration with it.
pub(crate) fn server_config() -> (Arc<ServerConfig>, PublicKey) {
    server_config_with(|_| {})
}

/// The same with other limits.
pub(crate) fn server_config_with(change: impl FnOnce(&mut Limits)) -> (Arc<ServerConfig>, PublicKey) {
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let public = key.public.clone();
    (ServerConfig::builder(&PROVIDER).host_key(key).with_limits(change).build().unwrap(), public)
}

/// A client's configuration with other limits.
pub(crate) fn client_config(change: impl FnOnce(&mut Limits)) -> Arc<ClientConfig> {
    ClientConfig::builder(&PROVIDER).with_limits(change).build().unwrap()
}

/// Both configurations, with the same limits.
pub(crate) fn configs(change: impl Fn(&mut Limits)) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (client_config(&change), server_config_with(&change).0)
}

/// A client and its server over a transport of the test's own, logged in.
pub(crate) fn logged_in_over(
    (config, server): (Arc<ClientConfig>, Arc<ServerConfig>),
    ours: impl Transport,
    theirs: impl Transport,
) -> (Client, ServerConnection, Receiver<CloseReason>) {
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(server, theirs, handler).unwrap();
    (logged_in_as(config, ours), server, closed)
}

/// A client of whatever answers there, not logged in.
pub(crate) fn connected(config: Arc<ClientConfig>, transport: impl Transport) -> Client {
    Client::with_config(config)
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, transport)
        .unwrap()
}

/// A client of whatever answers there, logged in.
pub(crate) fn logged_in_as(config: Arc<ClientConfig>, transport: impl Transport) -> Client {
    let client = connected(config, transport);
    client.auth_password("me", PASSWORD).unwrap();
    client
}

/// A client of this handler over a socket pair, logged in, and the handler's side.
pub(crate) fn client_of(handler: impl Handler) -> (Client, ServerConnection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
    (logged_in_as(client_config(|_| {}), ours), server)
}

/// Runs this on a thread of its own; a panic when it does not come back.
pub(crate) fn comes_back<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = channel();
    let thread = thread::spawn(move || sender.send(run()));
    match done.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what} does not come back"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it ended without a result"),
        },
    }
}

/// One connection of a client over a socket pair; what the server says of its end.
pub(crate) fn connect() -> (Client, Receiver<CloseReason>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (config, key) = server_config();
    let (sender, receiver) = channel();
    ServerConnection::start(config, theirs, Echo { channels: Vec::new(), closed: sender }).unwrap();
    let client = Client::builder()
        .host_keys(HostKeys::Fingerprint(key.fingerprint()))
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, ours)
        .unwrap();
    (client, receiver)
}

pub(crate) fn logged_in() -> (Client, Receiver<CloseReason>) {
    let (client, closed) = connect();
    client.auth_password("me", PASSWORD).unwrap();
    (client, closed)
}
