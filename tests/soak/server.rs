//! The server under attack: one password, one command, which hashes its input.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ssh_io_std::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest,
    ChannelRequestKind, ExitStatus, OpenRequest, ServerConfig,
};
use ssh_io_std::{Handler, OsEntropy, Question, Server, ServerChannel};
use ssh_io_tokio::Asked;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{HASH, Outcome, PASSWORD, USER};

/// What clients have left to end in, when the server does.
const GRACE: Duration = Duration::from_secs(5);

/// The server's configuration, and what it says of itself on its output when it listens.
fn config() -> Outcome<(Arc<ServerConfig>, impl Fn(SocketAddr))> {
    let host_key = Ed25519Signer::generate(&mut OsEntropy)?.key_pair();
    let fingerprint = host_key.public.fingerprint();
    let config = ServerConfig::builder(&PROVIDER).host_key(host_key).build()?;
    Ok((config, move |at: SocketAddr| println!("{} {fingerprint}", at.port())))
}

fn verdict(request: &AuthRequest) -> AuthVerdict {
    let right = matches!(request.proof(), AuthProof::Password(given) if given.matches(PASSWORD));
    match right && *request.user() == *USER {
        true => AuthVerdict::Accept,
        false => AuthVerdict::Reject { next: AuthMethods::PASSWORD },
    }
}

fn is_hash(request: &ChannelRequest) -> bool {
    matches!(request.kind(), ChannelRequestKind::Exec(command) if command == HASH.as_bytes())
}

/// Waits for the end of our input.
fn wait_for_end() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

#[derive(Default)]
struct Hasher {
    opened: HashMap<ChannelId, ServerChannel>,
}

impl Handler for Hasher {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let verdict = verdict(&request);
        let _ = request.reply(verdict);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        if let Ok(channel) = request.accept(ChannelConfig::default()) {
            self.opened.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        if !is_hash(&request) {
            return;
        }
        let Some(channel) = self.opened.remove(&request.channel()) else { return };
        let _ = request.reply(true);
        thread::spawn(move || {
            let (mut from, mut hash, mut buffer) = (&channel, Sha256::new(), vec![0; 128 * 1024]);
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                hash.update(&buffer[..n]);
            }
            let _ = from.write_all(&hash.finalize());
            let _ = channel.exit(ExitStatus::Code(0));
            channel.close();
        });
    }

    fn channel_closed(&mut self, id: ChannelId) {
        self.opened.remove(&id);
    }
}

pub(crate) fn serve_std() -> Outcome<()> {
    let (config, announce) = config()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?);
    let server = Server::new(config);
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&listener, |_, _| Hasher::default()));
        wait_for_end();
        server.shutdown(GRACE);
        serving.join().map_err(|_| "the server panicked")?.map_err(Into::into)
    })
}

pub(crate) fn serve_tokio() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (config, announce) = config()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        let server = ssh_io_tokio::Server::new(config);
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener, |connection, _| answer(connection)).await }
        });
        tokio::task::spawn_blocking(wait_for_end).await?;
        server.shutdown(GRACE).await;
        serving.await?.map_err(Into::into)
    })
}

async fn answer(connection: ssh_io_tokio::ServerConnection) {
    let mut opened = HashMap::new();
    while let Some(asked) = connection.asked().await {
        match asked {
            Asked::Auth(request) => {
                let verdict = verdict(&request);
                let _ = request.reply(verdict);
            }
            Asked::Open(request) => {
                opened
                    .extend(request.accept(ChannelConfig::default()).map(|channel| (channel.id(), channel)));
            }
            Asked::ChannelClosed(id) => {
                opened.remove(&id);
            }
            Asked::Request(request) if is_hash(&request) => {
                let Some(mut channel) = opened.remove(&request.channel()) else { continue };
                let _ = request.reply(true);
                tokio::spawn(async move {
                    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 * 1024]);
                    while let Ok(n @ 1..) = channel.read(&mut buffer).await {
                        hash.update(&buffer[..n]);
                    }
                    let _ = channel.write_all(&hash.finalize()).await;
                    let _ = channel.exit(ExitStatus::Code(0)).await;
                    channel.close();
                });
            }
            // Dropped, it is refused.
            _ => {}
        }
    }
}
