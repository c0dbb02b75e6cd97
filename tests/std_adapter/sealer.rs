//! A cipher that panics: that of a token that was pulled out.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ssh_io_std::{
    Client, Error, Handler, HostKeys, OsEntropy, Question, Server, ServerChannel, ServerConnection,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::crypto::{BadTag, CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, Provider, SealPacket};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ClientConfig, Entropy, KeyPair, OpenRequest,
    ServerConfig, SignRefused, Signature, Signer, StderrMode, ToSign,
};

use crate::support::{Echo, PASSWORD, PATIENCE, comes_back, logged_in_over, server_config};

/// A cipher whose sealers panic for good from when they seal while `gone`, and whose openers panic while `deaf`.
struct Token {
    inner: &'static dyn CipherAlgorithm,
    gone: Arc<AtomicBool>,
    deaf: Arc<AtomicBool>,
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
        Box::new(Opener { inner: self.inner.opener(keys), deaf: Arc::clone(&self.deaf) })
    }
}

struct Opener {
    inner: Box<dyn OpenPacket>,
    deaf: Arc<AtomicBool>,
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

impl OpenPacket for Opener {
    fn shape(&self) -> PacketShape {
        self.inner.shape()
    }

    fn head_len(&self) -> usize {
        self.inner.head_len()
    }

    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32 {
        self.inner.packet_length(seq, head)
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        assert!(!self.deaf.load(Ordering::SeqCst), "an opener panics, as the test asks it to");
        self.inner.open(seq, packet)
    }
}

/// A provider with that one cipher, and what takes the token away: from its sealers, and from its openers.
fn token() -> (&'static Provider, Arc<AtomicBool>, Arc<AtomicBool>) {
    let [gone, deaf] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let name = "aes128-gcm@openssh.com";
    let inner = *PROVIDER.ciphers.iter().find(|cipher| cipher.name() == name).unwrap();
    let cipher: &'static dyn CipherAlgorithm =
        Box::leak(Box::new(Token { inner, gone: Arc::clone(&gone), deaf: Arc::clone(&deaf) }));
    let provider = Provider {
        name: "token",
        deterministic: false,
        kex: PROVIDER.kex,
        ciphers: Box::leak(Box::new([cipher])),
        macs: PROVIDER.macs,
        signatures: PROVIDER.signatures,
    };
    (Box::leak(Box::new(provider)), gone, deaf)
}

#[test]
fn ad_12_a_cipher_that_panics_ends_its_connection_and_every_call() {
    let (provider, gone, _deaf) = token();
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
fn ad_12_behind_a_collapse_every_call_gives_the_same_reason_and_leaves_the_machine_alone() {
    let (provider, gone, deaf) = token();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let config = ClientConfig::builder(provider).build().unwrap();
    let (client, server, _closed) = logged_in_over((config, server_config().0), ours, theirs);
    let session = client.open_session().unwrap();
    session.exec("flood").unwrap();
    // So much that to read it would grant more.
    let flooded = client.clone();
    comes_back("the flood", move || {
        while flooded.memory_usage().parked < 1 << 20 {
            thread::yield_now();
        }
    });
    gone.store(true, Ordering::SeqCst);
    deaf.store(true, Ordering::SeqCst);
    // What the reader hears next is a panic, and so is the end for that: nothing is left to go by.
    server.rekey();
    let waiting = client.clone();
    comes_back("the end", move || waiting.closed());
    let reason = client.open_session().unwrap_err().to_string();
    assert_eq!(reason, "the connection panicked");
    let mut all = vec![0; 1 << 20];
    for _ in 0..2 {
        let calls: [(&str, Result<(), Error>); 8] = [
            ("a read", (&session).read_exact(&mut all).map_err(Error::from)),
            ("a read of stderr", session.stderr().read(&mut all).map(drop).map_err(Error::from)),
            ("a write", (&session).write(b"x").map(drop).map_err(Error::from)),
            ("a request", session.exec("more")),
            ("an end of input", session.finish_input()),
            ("a wait", session.wait().map(drop)),
            ("a login", client.auth_password("me", PASSWORD)),
            ("an exec", client.exec("more").map(drop)),
        ];
        for (what, result) in calls {
            assert_eq!(result.map_err(|error| error.to_string()), Err(reason.clone()), "{what}");
        }
        // These give no result, and could panic.
        client.rekey();
        session.set_stderr(StderrMode::Combined);
        session.close();
    }
    comes_back("the last handles", move || {
        drop(session);
        client.close();
    });
    server.close();
    server.join(PATIENCE);
    assert!(server.is_finished());
}

#[test]
fn ad_12_a_server_outlives_a_cipher_that_panics() {
    let (provider, gone, _deaf) = token();
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let server = Server::new(ServerConfig::builder(provider).host_key(key).build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = server.clone();
    let serving = thread::spawn(move || {
        serving.serve(&listener, |_, _| Echo { channels: Vec::new(), closed: channel().0 })
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

/// A handler and a host key that panic over their question when they are asked while `armed`, with the token gone.
#[derive(Clone)]
struct GoesWithTheToken {
    gone: Arc<AtomicBool>,
    armed: Arc<AtomicBool>,
    key: KeyPair,
    channel: Option<ServerChannel>,
}

impl GoesWithTheToken {
    fn come_to_a_question(&self) {
        if self.armed.load(Ordering::SeqCst) {
            self.gone.store(true, Ordering::SeqCst);
            panic!("whoever is asked panics, as the test asks it to");
        }
    }
}

impl Handler for GoesWithTheToken {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channel = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, _question: Question<ChannelRequest>) {
        self.come_to_a_question();
    }
}

impl Signer for GoesWithTheToken {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.come_to_a_question();
        self.key.signer.as_ref().unwrap().sign(what, entropy)
    }
}

#[test]
fn ad_12_a_question_that_goes_in_a_panic_takes_its_connection_along_and_not_the_process() {
    for signs in [false, true] {
        let (provider, gone, _deaf) = token();
        let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let armed = Arc::<AtomicBool>::default();
        let panics = GoesWithTheToken { gone, armed: Arc::clone(&armed), key: key.clone(), channel: None };
        let key = KeyPair::new(key.public, Arc::new(panics.clone()));
        let config = ServerConfig::builder(provider).host_key(key).build().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = ServerConnection::start(config, theirs, panics).unwrap();
        let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
        let client = builder.connect_over("test", 22, ours).unwrap();
        client.auth_password("me", PASSWORD).unwrap();
        armed.store(true, Ordering::SeqCst);
        match signs {
            // What it refuses by being dropped is sealed.
            false => assert!(client.exec("anything").is_err()),
            true => client.rekey(),
        }
        comes_back("the end", move || server.closed());
        comes_back("the client's end", move || client.closed());
    }
}
