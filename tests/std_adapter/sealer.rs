//! A cipher that panics: that of a token that was pulled out.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ssh_io_std::{Client, HostKeys, OsEntropy, Server};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::crypto::{CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, Provider, SealPacket};
use ssh_proto::{ClientConfig, ServerConfig};

use crate::support::{Echo, PASSWORD, PATIENCE, comes_back, logged_in_over, server_config};

/// A cipher whose sealers panic for good from when they seal while `gone`.
struct Token {
    inner: &'static dyn CipherAlgorithm,
    gone: Arc<AtomicBool>,
}

struct Sealer {
    inner: Box<dyn SealPacket>,
    gone: Arc<AtomicBool>,
    failed: bool,
}

impl CipherAlgorithm for Token {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn key_len(&self) -> usize {
        self.inner.key_len()
    }

    fn iv_len(&self) -> usize {
        self.inner.iv_len()
    }

    fn is_aead(&self) -> bool {
        self.inner.is_aead()
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        Box::new(Sealer { inner: self.inner.sealer(keys), gone: Arc::clone(&self.gone), failed: false })
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        self.inner.opener(keys)
    }
}

impl SealPacket for Sealer {
    fn shape(&self) -> PacketShape {
        self.inner.shape()
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        self.failed |= self.gone.load(Ordering::SeqCst);
        assert!(!self.failed, "a sealer panics, as the test asks it to");
        self.inner.seal(seq, packet);
    }
}

/// A provider with that one cipher, and what takes the token away.
fn token() -> (&'static Provider, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let name = "aes128-gcm@openssh.com";
    let inner = *PROVIDER.ciphers.iter().find(|cipher| cipher.name() == name).unwrap();
    let cipher: &'static dyn CipherAlgorithm = Box::leak(Box::new(Token { inner, gone: Arc::clone(&gone) }));
    let provider = Provider {
        name: "token",
        deterministic: false,
        kex: PROVIDER.kex,
        ciphers: Box::leak(Box::new([cipher])),
        macs: PROVIDER.macs,
        signatures: PROVIDER.signatures,
    };
    (Box::leak(Box::new(provider)), gone)
}

#[test]
fn ad_12_a_cipher_that_panics_ends_its_connection_and_every_call() {
    let (provider, gone) = token();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let config = ClientConfig::builder(provider).build().unwrap();
    let (client, server, _closed) = logged_in_over((config, server_config().0), ours, theirs);
    let session = client.open_session().unwrap();
    session.exec("echo").unwrap();
    let reading = session.clone();
    let reading = thread::spawn(move || (&reading).read(&mut [0]));
    gone.store(true, Ordering::SeqCst);
    let opening = client.clone();
    // It is their cipher: a panic is theirs too.
    let opened = thread::spawn(move || opening.open_session().map(drop));
    assert!(!matches!(comes_back("the open", move || opened.join()), Ok(Ok(()))));
    assert!(comes_back("a waiting read", move || reading.join().unwrap()).is_err());
    let waiting = client.clone();
    comes_back("the end", move || waiting.closed());
    assert!(client.is_closed() && client.open_session().is_err() && session.wait().is_err());
    comes_back("the last handles", move || {
        drop(session);
        client.close();
    });
    server.join(PATIENCE);
    assert!(server.is_finished());
}

#[test]
fn ad_12_a_server_outlives_a_cipher_that_panics() {
    let (provider, gone) = token();
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let server = Server::new(ServerConfig::builder(provider).host_key(key).build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = server.clone();
    let serving = thread::spawn(move || {
        serving.serve(&listener, |_| Echo { channels: Vec::new(), closed: channel().0 })
    });
    let connect = || {
        let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
        builder.connect("127.0.0.1", port).unwrap()
    };
    let first = connect();
    gone.store(true, Ordering::SeqCst);
    let login = first.clone();
    assert!(comes_back("the login", move || login.auth_password("me", PASSWORD)).is_err());
    gone.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        connect().auth_password("me", PASSWORD).unwrap();
    }
    comes_back("the end", move || first.closed());
    comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
    comes_back("serve", move || serving.join().unwrap()).unwrap();
}
