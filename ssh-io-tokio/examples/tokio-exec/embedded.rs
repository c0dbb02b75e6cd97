//! Against a server of our own: fresh keys, a loopback port, and figures.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Write, stdout};

use sha2::{Digest, Sha256};
use ssh_io_tokio::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_tokio::ssh_proto::{
    AuthMethods, AuthProof, AuthVerdict, ChannelConfig, ChannelRequestKind, ExitStatus, PublicKey,
    ServerConfig,
};
use ssh_io_tokio::{Asked, Client, HostKeys, OsEntropy, Server, ServerChannel, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::figures::{Bulk, COMMAND, HASH, describe, show};
use crate::program;

/// Lets one key in, runs commands, and hashes.
async fn answer(connection: ServerConnection, known: PublicKey) {
    // Channels without a program; who runs it owns the channel, so that it is gone with the program.
    let mut waiting = HashMap::new();
    while let Some(asked) = connection.asked().await {
        match asked {
            Asked::Auth(request) => {
                let right = matches!(request.proof(), AuthProof::PublicKey { key, .. } if *key == known);
                let verdict = match right {
                    true => AuthVerdict::Accept,
                    false => AuthVerdict::Reject { next: AuthMethods::PUBLICKEY },
                };
                let _ = request.reply(verdict);
            }
            Asked::Open(request) => {
                if let Ok(channel) = request.accept(ChannelConfig::default()) {
                    waiting.insert(channel.id(), channel);
                }
            }
            Asked::Request(request) => {
                let ChannelRequestKind::Exec(command) = request.kind() else { continue };
                let command = command.clone();
                let Some(channel) = waiting.remove(&request.channel()) else { continue };
                let _ = request.reply(true);
                if command == HASH {
                    tokio::spawn(hash_input(channel));
                } else if program::start(channel.clone(), &command).is_err() {
                    channel.close();
                }
            }
            _ => {}
        }
    }
}

/// Reads to the end, answers with the digest.
async fn hash_input(mut channel: ServerChannel) {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    while let Ok(n @ 1..) = channel.read(&mut buffer).await {
        hash.update(&buffer[..n]);
    }
    let _ = channel.write_all(&hash.finalize()).await;
    let _ = channel.exit(ExitStatus::Code(0)).await;
    channel.close();
}

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let (host_key, user_key) = (
        Ed25519Signer::generate(&mut OsEntropy)?.key_pair(),
        Ed25519Signer::generate(&mut OsEntropy)?.key_pair(),
    );
    let fingerprint = host_key.public.fingerprint();
    let server = Server::new(ServerConfig::builder(&PROVIDER).host_key(host_key).build()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let known = user_key.public.clone();
    tokio::spawn(
        async move { server.serve(listener, |connection, _| answer(connection, known.clone())).await },
    );

    let builder = Client::builder().host_keys(HostKeys::Fingerprint(fingerprint));
    let client = builder.connect("127.0.0.1", port).await?;
    let mut out = stdout();
    describe(&mut out, client.idents(), client.negotiated())?;
    client.auth_key("demo", user_key).await?;
    writeln!(out, "logged in with a public key\n\n$ {COMMAND}")?;

    show(&client.exec(COMMAND).await?)?;
    send_bulk(&client).await?;
    client.close();
    client.closed().await;
    Ok(())
}

/// One channel, one direction, hashed at both ends.
async fn send_bulk(client: &Client) -> Result<(), Box<dyn Error>> {
    let mut channel = client.open_session().await?;
    channel.exec(HASH).await?;
    let (mut bulk, mut theirs) = (Bulk::begin()?, Vec::new());
    while let Some(piece) = bulk.next() {
        channel.write_all(piece).await?;
    }
    channel.finish_input()?;
    channel.read_to_end(&mut theirs).await?;
    bulk.finish(&theirs)
}
