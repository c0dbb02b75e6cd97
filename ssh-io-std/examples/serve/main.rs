//! A small SSH server for OpenSSH's `ssh`: it runs commands and plain shells as the user it runs as.
//!
//! `serve --port 2222 --authorized-keys ~/.ssh/authorized_keys [--host-key FILE]`

#[path = "../common/leader.rs"]
mod leader;
#[path = "../common/program.rs"]
mod program;

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use ssh_io_std::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::keys::AuthorizedKeys;
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest,
    ChannelRequestKind, CloseReason, KeyProbe, OpenFailure, OpenFailureCode, OpenRequest, ServerConfig,
};
use ssh_io_std::{Handler, OsEntropy, Question, Server, ServerChannel, read_key_file};

/// Serves shells and commands to the holders of listed keys, on loopback.
///
/// A client's end, and a signal that ends the server, kill the process groups of the commands; what left its group
/// lives on.
#[derive(Parser)]
#[command(name = "serve")]
struct Args {
    /// The port to listen on, on 127.0.0.1; 0 for any that is free.
    #[arg(long)]
    port: u16,
    /// The keys that are let in, one per line; lines with options are not used.
    #[arg(long)]
    authorized_keys: PathBuf,
    /// The host key, an openssh-key-v1 file; without it one is made for this run. May be repeated.
    #[arg(long)]
    host_key: Vec<PathBuf>,
}

/// A session of a client.
enum Session {
    /// Without a program so far, with the environment asked for.
    Waiting { channel: ServerChannel, env: Vec<(Vec<u8>, Vec<u8>)> },
    /// Its program is being started.
    Starting,
    /// Its program owns the channel.
    Running(program::Program),
}

/// The sessions of all clients.
#[derive(Default)]
struct AllSessions {
    /// By connection and channel. Each goes when its channel closed.
    by_id: Mutex<HashMap<(u64, ChannelId), Session>>,
    /// Read while a program starts, and so is not among them yet.
    starts: RwLock<()>,
}

type Sessions = Arc<AllSessions>;

fn lock(sessions: &Sessions) -> MutexGuard<'_, HashMap<(u64, ChannelId), Session>> {
    sessions.by_id.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client.
struct Shell {
    connection: u64,
    keys: Arc<AuthorizedKeys>,
    sessions: Sessions,
}

impl Handler for Shell {
    fn probe(&mut self, probe: Question<KeyProbe>) {
        let listed = self.keys.contains(probe.key());
        let _ = probe.reply(listed);
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
        let verdict = match request.proof() {
            AuthProof::PublicKey { key, .. } if self.keys.contains(key) => AuthVerdict::Accept,
            _ => AuthVerdict::Reject { next: AuthMethods::PUBLICKEY },
        };
        let _ = request.reply(verdict);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        if !matches!(request.kind(), ChannelKind::Session) {
            let code = OpenFailureCode::ADMINISTRATIVELY_PROHIBITED;
            let _ = request.reject(OpenFailure::new(code, "only sessions here"));
            return;
        }
        let Ok(channel) = request.accept(ChannelConfig::default()) else { return };
        let id = (self.connection, channel.id());
        lock(&self.sessions).insert(id, Session::Waiting { channel, env: Vec::new() });
    }

    // A handle that is kept keeps the channel, and a client may have only so many.
    fn channel_closed(&mut self, id: ChannelId) {
        lock(&self.sessions).remove(&(self.connection, id));
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        // A start takes its time: other clients do not wait for it, and only the end of this process does, which
        // takes its locks in this order too.
        let starts = self.sessions.starts.read().unwrap_or_else(PoisonError::into_inner);
        let mut sessions = lock(&self.sessions);
        let id = (self.connection, request.channel());
        let Some(session) = sessions.get_mut(&id) else { return };
        let ok = match (request.kind(), &mut *session) {
            (ChannelRequestKind::Env { name, value }, Session::Waiting { env, .. })
                if plain_variable(name) && has_room(env, name, value) =>
            {
                env.push((name.clone(), value.clone()));
                true
            }
            // No argument of a program can hold it.
            (ChannelRequestKind::Exec(command), _) if command.contains(&0) => false,
            (
                kind @ (ChannelRequestKind::Exec(_) | ChannelRequestKind::Shell),
                Session::Waiting { channel, env },
            ) => {
                let command = match kind {
                    ChannelRequestKind::Exec(command) => Some(command.clone()),
                    _ => None,
                };
                let (channel, env) = (channel.clone(), mem::take(env));
                *session = Session::Starting;
                drop(sessions);
                // The answer goes first: a quick program's output must not overtake it.
                let _ = request.reply(true);
                match program::start(channel.clone(), command.as_deref(), &env) {
                    Ok(program) => drop(lock(&self.sessions).insert(id, Session::Running(program))),
                    Err(_) => channel.close(),
                }
                drop(starts);
                return;
            }
            (ChannelRequestKind::Signal(name), Session::Running(program)) => {
                program.running.signal(name.as_str());
                true
            }
            // The client's reader is gone.
            (ChannelRequestKind::Other { name, .. }, Session::Running(program))
                if name == "eow@openssh.com" =>
            {
                program.lose_reader();
                true
            }
            _ => false,
        };
        let _ = request.reply(ok);
    }

    fn closed(&mut self, _: &CloseReason) {
        lock(&self.sessions).retain(|(connection, _), _| *connection != self.connection);
    }
}

/// Locale and colour settings, nothing that could change which code runs.
fn plain_variable(name: &[u8]) -> bool {
    name == b"LANG" || name == b"TERM" || name.starts_with(b"LC_")
}

/// Variables a session may set, and how much their names and values take up together.
const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE_BYTES: usize = 8 * 1024;

/// Whether one more fits: a client may ask as often as it likes.
fn has_room(env: &[(Vec<u8>, Vec<u8>)], name: &[u8], value: &[u8]) -> bool {
    let held: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    env.len() < MAX_VARIABLES && held + name.len() + value.len() <= MAX_VARIABLE_BYTES
}

/// Has a signal that ends this process end the programs first.
fn kill_programs_on_exit(sessions: Sessions) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    thread::Builder::new().spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Kept to the end: no program starts any more.
            let _starts = sessions.starts.write().unwrap_or_else(PoisonError::into_inner);
            let sessions = lock(&sessions);
            for session in sessions.values() {
                if let Session::Running(program) = session {
                    program.running.kill();
                }
            }
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

fn run(args: &Args) -> Result<(), String> {
    let keys = fs::read(&args.authorized_keys).map_err(|error| about(&args.authorized_keys, error))?;
    let keys = Arc::new(AuthorizedKeys::parse(&keys));
    for skipped in keys.skipped() {
        let why = format!("line {} is not used: {}", skipped.line, skipped.reason);
        say(io::stderr(), &about(&args.authorized_keys, why));
    }
    let mut config = ServerConfig::builder(&PROVIDER).auth_methods(AuthMethods::PUBLICKEY);
    for file in &args.host_key {
        config = config.host_key(read_key_file(file, None).map_err(|error| about(file, error))?);
    }
    if args.host_key.is_empty() {
        config = config.host_key(Ed25519Signer::generate(&mut OsEntropy).map_err(text)?.key_pair());
    }
    let server = Server::new(config.build().map_err(text)?);
    let sessions = Sessions::default();
    kill_programs_on_exit(Arc::clone(&sessions)).map_err(text)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    say(io::stdout(), &format!("listening on {}", listener.local_addr().map_err(text)?));
    let mut connections = 0..;
    let handler = |_, _| Shell {
        connection: connections.next().unwrap_or_default(),
        keys: Arc::clone(&keys),
        sessions: Arc::clone(&sessions),
    };
    server.serve(&listener, handler).map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn about(file: &Path, what: impl Display) -> String {
    format!("{}: {what}", file.display())
}

/// Writes a line. Whether anybody reads it is no concern of the server.
fn say(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(io::stderr(), &format!("serve: {error}"));
            ExitCode::FAILURE
        }
    }
}
