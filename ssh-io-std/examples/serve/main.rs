//! A small SSH server for OpenSSH's `ssh`: it runs commands and plain shells as the user it runs as.
//!
//! `serve --port 2222 --authorized-keys ~/.ssh/authorized_keys [--host-key FILE]`

#[path = "../common/program.rs"]
mod program;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ssh_io_std::ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::keys::AuthorizedKeys;
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest,
    ChannelRequestKind, KeyProbe, OpenFailure, OpenFailureCode, OpenRequest, ServerConfig,
};
use ssh_io_std::{Handler, OsEntropy, Question, Server, ServerChannel, read_key_file};

/// Serves shells and commands to the holders of listed keys, on loopback.
#[derive(Parser)]
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

/// A session: its channel, the environment asked for, and the program once it runs.
struct Session {
    channel: ServerChannel,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    program: Option<program::Running>,
}

struct Shell {
    keys: Arc<AuthorizedKeys>,
    sessions: HashMap<ChannelId, Session>,
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
        if let Ok(channel) = request.accept(ChannelConfig::default()) {
            self.sessions.insert(channel.id(), Session { channel, env: Vec::new(), program: None });
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let Some(session) = self.sessions.get_mut(&request.channel()) else { return };
        let ok = match request.kind() {
            ChannelRequestKind::Env { name, value } if plain_variable(name) => {
                session.env.push((name.clone(), value.clone()));
                true
            }
            ChannelRequestKind::Exec(_) | ChannelRequestKind::Shell => {
                let command = match request.kind() {
                    ChannelRequestKind::Exec(command) => Some(command.clone()),
                    _ => None,
                };
                // The answer goes first: a quick program's output must not overtake it.
                let channel = session.channel.clone();
                let env = session.env.clone();
                let _ = request.reply(true);
                match program::start(channel, command.as_deref(), &env) {
                    Ok(running) => session.program = Some(running),
                    Err(_) => session.channel.close(),
                }
                return;
            }
            ChannelRequestKind::Signal(name) => {
                if let Some(program) = &session.program {
                    program.signal(name);
                }
                true
            }
            _ => false,
        };
        let _ = request.reply(ok);
    }

    fn channel_closed(&mut self, id: ChannelId) {
        self.sessions.remove(&id);
    }
}

/// Locale and colour settings, nothing that could change which code runs.
fn plain_variable(name: &[u8]) -> bool {
    name == b"LANG" || name == b"TERM" || name.starts_with(b"LC_")
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let keys = Arc::new(AuthorizedKeys::parse(&std::fs::read(&args.authorized_keys)?));
    for skipped in keys.skipped() {
        eprintln!(
            "{}: line {} is not used: {}",
            args.authorized_keys.display(),
            skipped.line,
            skipped.reason
        );
    }
    let mut config = ServerConfig::builder(&PROVIDER).auth_methods(AuthMethods::PUBLICKEY);
    for file in &args.host_key {
        config = config.host_key(read_key_file(file, None)?);
    }
    if args.host_key.is_empty() {
        config = config.host_key(Ed25519Signer::generate(&mut OsEntropy)?.key_pair());
    }
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    println!("listening on {}", listener.local_addr()?);
    let server = Server::new(config.build()?);
    server.serve(&listener, |_| Shell { keys: Arc::clone(&keys), sessions: HashMap::new() })?;
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve: {error}");
            ExitCode::FAILURE
        }
    }
}
