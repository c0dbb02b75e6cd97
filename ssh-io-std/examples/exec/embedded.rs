//! Against a server of our own: fresh keys, a loopback port, and figures.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write, stdout};
use std::net::TcpListener;
use std::thread;

use sha2::{Digest, Sha256};
use ssh_io_std::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest,
    ChannelRequestKind, ExitStatus, OpenRequest, PublicKey, ServerConfig,
};
use ssh_io_std::{Client, Handler, HostKeys, OsEntropy, Question, Server, ServerChannel};

use crate::figures::{Bulk, COMMAND, HASH, describe, show};
use crate::program;

/// Lets one key in, runs commands, and hashes.
struct Demo {
    key: PublicKey,
    /// Channels without a program; who runs it owns the channel, so that it is gone with the program.
    waiting: HashMap<ChannelId, ServerChannel>,
}

impl Handler for Demo {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let known = matches!(request.proof(), AuthProof::PublicKey { key, .. } if *key == self.key);
        let verdict = match known {
            true => AuthVerdict::Accept,
            false => AuthVerdict::Reject { next: AuthMethods::PUBLICKEY },
        };
        let _ = request.reply(verdict);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        if let Ok(channel) = request.accept(ChannelConfig::default()) {
            self.waiting.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let ChannelRequestKind::Exec(command) = request.kind() else { return };
        let command = command.clone();
        let Some(channel) = self.waiting.remove(&request.channel()) else { return };
        let _ = request.reply(true);
        if command == HASH {
            thread::spawn(move || hash_input(&channel));
        } else if program::start(channel.clone(), Some(&command), &[]).is_err() {
            channel.close();
        }
    }
}

/// Reads to the end, answers with the digest.
fn hash_input(channel: &ServerChannel) {
    let (mut from, mut hash, mut buffer) = (channel, Sha256::new(), vec![0; 256 * 1024]);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        hash.update(&buffer[..n]);
    }
    let _ = from.write_all(&hash.finalize());
    let _ = channel.exit(ExitStatus::Code(0));
    channel.close();
}

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let (host_key, user_key) = (
        Ed25519Signer::generate(&mut OsEntropy)?.key_pair(),
        Ed25519Signer::generate(&mut OsEntropy)?.key_pair(),
    );
    let fingerprint = host_key.public.fingerprint();
    let config = ServerConfig::builder(&PROVIDER).host_key(host_key).build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let key = user_key.public.clone();
    thread::spawn(move || {
        Server::new(config).serve(&listener, |_, _| Demo { key: key.clone(), waiting: HashMap::new() })
    });

    let client =
        Client::builder().host_keys(HostKeys::Fingerprint(fingerprint)).connect("127.0.0.1", port)?;
    let mut out = stdout();
    describe(&mut out, client.idents(), client.negotiated())?;
    client.auth_key("demo", user_key)?;
    writeln!(out, "logged in with a public key\n\n$ {COMMAND}")?;

    let output = client.exec(COMMAND)?;
    show(&output)?;
    send_bulk(&client)?;
    client.close();
    Ok(())
}

/// One channel, one direction, hashed at both ends.
fn send_bulk(client: &Client) -> Result<(), Box<dyn Error>> {
    let channel = client.open_session()?;
    channel.exec(HASH)?;
    let (mut to, mut bulk, mut theirs) = (&channel, Bulk::begin()?, Vec::new());
    while let Some(piece) = bulk.next() {
        to.write_all(piece)?;
    }
    channel.finish_input()?;
    to.read_to_end(&mut theirs)?;
    bulk.finish(&theirs)
}
