//! Connecting and logging in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Client, Error, Handler, HostKeys, OsEntropy, Question, ServerConnection};
use ssh_proto::crypto::rustcrypto::Ed25519Signer;
use ssh_proto::keys::HostKeyRejection;
use ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, CloseReason, DisconnectCode, Entropy, KeyPair,
    KeyProbe, PeerMisbehaved, PublicKey, ServerConfig, SignRefused, Signature, Signer, ToSign,
};
use ssh_tests::verifying;

use crate::support::{
    Echo, PASSWORD, PATIENCE, client_config, comes_back, connect, connected, server_config,
};

#[test]
fn two_threads_that_log_in_at_once_both_get_an_answer() {
    for _ in 0..50 {
        let (client, _closed) = connect();
        let threads = [(); 2].map(|()| {
            let client = client.clone();
            thread::spawn(move || client.auth_password("me", PASSWORD))
        });
        let results = threads.map(|thread| thread.join().unwrap().is_ok());
        assert!(results.contains(&true) && results.contains(&false), "{results:?}");
    }
}

/// Signs with zeros.
struct Forger {
    quick: bool,
}

impl Signer for Forger {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        Ok(Signature::new(what.algorithm(), [0; 64]))
    }

    fn needs_check(&self) -> bool {
        false
    }

    fn is_quick(&self) -> bool {
        self.quick
    }
}

#[test]
fn a_refusal_that_no_handler_makes_leaves_when_its_delay_is_over() {
    for quick in [true, false] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let config = ServerConfig::builder(&verifying::PROVIDER).host_key(key.clone()).build().unwrap();
        let handler = Echo { channels: Vec::new(), closed: channel().0 };
        let _server = ServerConnection::start(config, theirs, handler).unwrap();
        let client = connected(client_config(|_| {}), ours);
        let forged = KeyPair::new(key.public, Arc::new(Forger { quick }));
        // Nothing but the delay's end brings the server's writer thread to send it: without that the login's own
        // time limit ends the connection.
        let refused = comes_back("the login", move || client.auth_key("me", forged));
        assert!(matches!(refused, Err(Error::AuthFailed { .. })), "{refused:?}");
        assert_eq!(verifying::verifications(), 1, "the server refused");
    }
}

/// A directory of this test's own, removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ssh-io-std-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A listening server; its port and key.
fn listen() -> (u16, PublicKey) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, key) = server_config();
    thread::spawn(move || {
        ssh_io_std::Server::new(config)
            .serve(&listener, |_, _| Echo { channels: Vec::new(), closed: channel().0 })
    });
    (port, key)
}

fn try_connect(port: u16, host_keys: HostKeys) -> Result<Client, Error> {
    Client::builder().host_keys(host_keys).connect_timeout(PATIENCE).connect("127.0.0.1", port)
}

#[test]
fn host_keys_are_judged_by_file_fingerprint_or_closure() {
    let scratch = Scratch::new("host-keys");
    let file = scratch.0.join("known_hosts");
    let ((port, key), (other_port, _)) = (listen(), listen());

    let strict = || HostKeys::KnownHosts(file.clone());
    let accept_new = |hash| HostKeys::AcceptNew { file: file.clone(), hash };
    assert!(matches!(try_connect(port, strict()), Err(Error::HostKey(HostKeyRejection::Unknown))));
    try_connect(port, accept_new(true)).unwrap();
    try_connect(port, strict()).unwrap();
    try_connect(port, accept_new(false)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1, "recorded once, hashed");

    // Another key under the recorded name.
    let recorded =
        ssh_proto::keys::KnownHosts::line("127.0.0.1", other_port, &key, ssh_proto::keys::LineFormat::Plain);
    std::fs::write(&file, recorded.unwrap() + "\n").unwrap();
    let changed = try_connect(other_port, accept_new(false));
    assert!(matches!(changed, Err(Error::HostKey(HostKeyRejection::Changed { .. }))), "{changed:?}");

    try_connect(port, HostKeys::Fingerprint(key.fingerprint())).unwrap();
    let wrong = try_connect(other_port, HostKeys::Fingerprint(key.fingerprint()));
    assert!(matches!(wrong, Err(Error::HostKey(HostKeyRejection::FingerprintDiffers))));

    let seen = Arc::new(Mutex::new(None));
    let asked = Arc::clone(&seen);
    let ask = HostKeys::ask(move |question| {
        *asked.lock().unwrap() = Some((question.host.to_owned(), question.port, question.key.clone()));
        true
    });
    try_connect(port, ask).unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(("127.0.0.1".to_owned(), port, key)));
    assert!(matches!(try_connect(port, HostKeys::ask(|_| false)), Err(Error::HostKeyRefused)));
    assert!(Client::builder().connect("127.0.0.1", port).is_err(), "without a policy no key is accepted");
    try_connect(port, HostKeys::DangerousAcceptAny).unwrap();
}

#[test]
fn a_silent_server_is_given_up_on_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let result = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(Duration::from_millis(50))
        .connect("127.0.0.1", port);
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
}

#[test]
fn a_process_that_carried_a_connection_is_killed_and_reaped_with_it() {
    // It says nothing, and takes no input either.
    let sleep = Command::new("sleep").arg("1000").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let sleep = sleep.unwrap();
    let there = PathBuf::from(format!("/proc/{}", sleep.id()));
    let result = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(Duration::from_millis(50))
        .connect_over("silence", 22, sleep);
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
    comes_back("the process", move || {
        while there.exists() {
            thread::yield_now();
        }
    });
}

#[test]
fn ad_21_our_own_bytes_reflected_never_log_anybody_in() {
    let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let result = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect_over("mirror", 22, cat);
    match result {
        Err(Error::Closed(CloseReason::PeerMisbehaved { rule, .. })) => {
            assert_eq!(rule, PeerMisbehaved::UnexpectedMessage);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ad_21_a_peer_of_another_protocol_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-1.5-old\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let result = try_connect(port, HostKeys::DangerousAcceptAny);
    assert!(matches!(result, Err(Error::Closed(CloseReason::PeerIncompatible(_)))), "{result:?}");
    // And a client that is none.
    let (port, _) = listen();
    let mut http = TcpStream::connect(("127.0.0.1", port)).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    http.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"SSH-2.0-"));
}

/// Lets one key in.
struct OneKey(PublicKey);

impl Handler for OneKey {
    fn probe(&mut self, probe: Question<KeyProbe>) {
        let listed = *probe.key() == self.0;
        probe.reply(listed).unwrap();
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
        let listed = matches!(request.proof(), AuthProof::PublicKey { key, .. } if *key == self.0);
        let next = AuthMethods::PUBLICKEY;
        let verdict = if listed { AuthVerdict::Accept } else { AuthVerdict::Reject { next } };
        request.reply(verdict).unwrap();
    }
}

#[test]
fn a_signature_that_takes_time_is_asked_for_when_its_key_would_do_and_the_connection_lives_on_meanwhile() {
    let [ours, other] = [(); 2].map(|()| Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair());
    let (near, far) = UnixStream::pair().unwrap();
    let server = ServerConnection::start(server_config().0, far, OneKey(ours.public.clone())).unwrap();
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let client = builder.connect_over("test", 22, near).unwrap();
    let unwanted = client.auth_key_with("me", other.public, |_| panic!("this key would not do"));
    assert!(matches!(unwanted, Err(Error::AuthFailed { .. })), "{unwanted:?}");
    let refused = client.auth_key_with("me", ours.public.clone(), |_| Err(SignRefused));
    assert!(matches!(refused, Err(Error::AuthFailed { .. })), "{refused:?}");
    let signer = ours.signer.unwrap();
    let looking = client.clone();
    let signed = client.auth_key_with("me", ours.public, |what| {
        comes_back("a look at the connection", move || looking.negotiated()).unwrap();
        signer.sign(&what, &mut OsEntropy)
    });
    signed.unwrap();
    assert_eq!(server.idents().0, client.idents().1.to_string());
    assert_eq!(server.memory_usage().channels, 0);
    assert!(client.session_id().is_some());
    assert_eq!(client.session_id(), server.session_id());
    assert!(!server.is_closed() && client.close_reason().is_none());
    let waiting = client.clone();
    server.close();
    let told = comes_back("the client's end", move || waiting.closed());
    assert!(matches!(told, CloseReason::PeerDisconnected { .. }), "{told:?}");
    let ended = comes_back("the server's end", move || {
        let ended = server.closed();
        assert!(server.is_closed());
        ended
    });
    assert_eq!(ended, CloseReason::Local(DisconnectCode::BY_APPLICATION));
    assert_eq!(client.close_reason(), Some(told));
}

#[test]
fn the_time_of_a_signer_is_not_taken_from_the_waits_behind_it() {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let (near, far) = UnixStream::pair().unwrap();
    let _server = ServerConnection::start(server_config().0, far, OneKey(key.public.clone())).unwrap();
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let client = builder.connect_over("test", 22, near).unwrap();
    let timeout = Duration::from_secs(1);
    client.set_timeout(Some(timeout));
    let (signer, (_person, thinks)) = (key.signer.unwrap(), channel::<()>());
    let signed = client.auth_key_with("me", key.public, |what| {
        assert!(thinks.recv_timeout(timeout).is_err());
        client.set_timeout(Some(PATIENCE));
        signer.sign(&what, &mut OsEntropy)
    });
    assert!(signed.is_ok(), "{signed:?}");
}
