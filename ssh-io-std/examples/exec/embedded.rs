//! Against a server of our own: fresh keys, a loopback port, and figures.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write, stdout};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ssh_io_std::ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest,
    ChannelRequestKind, ExitStatus, OpenRequest, PublicKey, ServerConfig,
};
use ssh_io_std::{Client, Handler, HostKeys, OsEntropy, Question, Server, ServerChannel};

use crate::{program, remote};

const COMMAND: &str = "echo hello from the other end; echo and a word aside >&2; exit 7";
const BULK: u64 = 256 << 20;
/// What the server answers to with the SHA-256 of its input.
const HASH: &[u8] = b"sha256";

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

/// Bytes that do not repeat within a window: a counter, multiplied.
fn fill(buffer: &mut [u8], counter: &mut u64) {
    for chunk in buffer.chunks_mut(8) {
        *counter = counter.wrapping_add(1);
        let word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let n = chunk.len();
        chunk.copy_from_slice(&word[..n]);
    }
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
        Server::new(config).serve(&listener, |_| Demo { key: key.clone(), waiting: HashMap::new() })
    });

    let client =
        Client::builder().host_keys(HostKeys::Fingerprint(fingerprint)).connect("127.0.0.1", port)?;
    let mut out = stdout();
    remote::describe(&client, &mut out)?;
    client.auth_key("demo", user_key)?;
    writeln!(out, "logged in with a public key\n\n$ {COMMAND}")?;

    let output = client.exec(COMMAND)?;
    write!(out, "stdout: {}", String::from_utf8_lossy(&output.stdout))?;
    write!(out, "stderr: {}", String::from_utf8_lossy(&output.stderr))?;
    writeln!(out, "status: {:?}\n", output.status)?;
    if output.status != Some(ExitStatus::Code(7)) || output.stdout.is_empty() || output.stderr.is_empty() {
        return Err("the command did not run as expected".into());
    }
    send_bulk(&client)?;
    client.close();
    Ok(())
}

/// One channel, one direction, hashed at both ends.
fn send_bulk(client: &Client) -> Result<(), Box<dyn Error>> {
    let channel = client.open_session()?;
    channel.exec(HASH)?;
    let bar = ProgressBar::new(BULK)
        .with_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}")?);
    let (mut to, mut hash, mut buffer, mut counter) = (&channel, Sha256::new(), vec![0; 256 * 1024], 0);
    let begin = Instant::now();
    for _ in 0..BULK / buffer.len() as u64 {
        fill(&mut buffer, &mut counter);
        hash.update(&buffer);
        to.write_all(&buffer)?;
        bar.inc(buffer.len() as u64);
    }
    channel.finish_input()?;
    let mut theirs = Vec::new();
    to.read_to_end(&mut theirs)?;
    let seconds = begin.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let ours = hash.finalize();
    let agree = theirs == ours[..];
    let mut out = stdout();
    writeln!(
        out,
        "{} MiB through one channel in {seconds:.2} s: {:.0} MB/s, hashed at both ends on the way",
        BULK >> 20,
        BULK as f64 / 1e6 / seconds,
    )?;
    writeln!(out, "SHA-256 {}: {}", hex(&ours), if agree { "agrees" } else { "DIFFERS" })?;
    if agree { Ok(()) } else { Err("the digests differ".into()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
