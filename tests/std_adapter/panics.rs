//! Embedders' code that panics.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ssh_io_std::{
    Channel, Client, Error, Handler, HostKeys, OsEntropy, Question, ServerChannel, ServerConnection, Split,
    Transport,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthIdentity, AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, CloseReason, Credential,
    DisconnectCode, Entropy, ExitStatus, KeyPair, KeyProbe, OpenRequest, ServerConfig, SignRefused,
    Signature, Signer, ToSign,
};

use crate::pipe::{Hold, pair};
use crate::support::{
    Echo, PASSWORD, PATIENCE, client_config, comes_back, configs, connect, connected, logged_in,
    logged_in_over, server_config,
};

/// What is asked of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Probe,
    Auth,
    Authenticated,
    Open,
    Request,
    Closed,
}

/// Says yes to all, and panics when it comes to this.
struct PanicsAt(Asked, Option<ServerChannel>);

impl PanicsAt {
    fn come_to(&self, here: Asked) {
        assert!(self.0 != here, "a handler panics, as the test asks it to");
    }
}

impl Handler for PanicsAt {
    fn probe(&mut self, probe: Question<KeyProbe>) {
        self.come_to(Asked::Probe);
        probe.reply(true).unwrap();
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
        self.come_to(Asked::Auth);
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn authenticated(&mut self, _: AuthIdentity) {
        self.come_to(Asked::Authenticated);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.come_to(Asked::Open);
        self.1 = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        self.come_to(Asked::Request);
        request.reply(true).unwrap();
    }

    fn closed(&mut self, _: &CloseReason) {
        self.come_to(Asked::Closed);
    }
}

/// Whether an end was told of by the other side, in order.
#[track_caller]
fn assert_disconnected(error: &Error) {
    match error {
        Error::Closed(CloseReason::PeerDisconnected { code, .. }) => {
            assert_eq!(*code, DisconnectCode::BY_APPLICATION);
        }
        other => panic!("{other:?}"),
    }
}

/// Why the connection is over, once it is.
fn end(client: &Client) -> Error {
    loop {
        match client.open_session() {
            Err(error @ (Error::Closed(_) | Error::Io(_))) => return error,
            _ => thread::yield_now(),
        }
    }
}

#[test]
fn ad_12_a_panic_of_a_handler_wherever_it_is_ends_its_connection_with_a_disconnect() {
    for at in [Asked::Probe, Asked::Auth, Asked::Authenticated, Asked::Open, Asked::Request, Asked::Closed] {
        println!("{at:?}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = ServerConnection::start(server_config().0, theirs, PanicsAt(at, None)).unwrap();
        let client = connected(client_config(|_| {}), ours);
        let other = client.clone();
        let result = comes_back("the client", move || {
            let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
            other.authenticate("me", Credential::PublicKey { key, probe: true })?;
            other.open_session()?.exec("anything")
        });
        if at == Asked::Closed {
            result.unwrap();
        } else {
            // A question that was dropped may have been refused before the end.
            assert!(result.is_err(), "{at:?}");
            let other = client.clone();
            assert_disconnected(&comes_back("the end", move || end(&other)));
        }
        client.close();
        server.join(PATIENCE);
        assert!(server.is_finished(), "{at:?}");
    }
}

#[test]
fn a_panic_of_a_handler_ends_its_connection_only() {
    let (first, closed) = logged_in();
    let (second, _closed) = logged_in();
    let channel = first.open_session().unwrap();
    channel.set_timeout(Some(PATIENCE));
    assert!(channel.exec("panic").is_err());
    assert!(closed.recv_timeout(PATIENCE).is_err(), "the handler is gone, and with it its sender");
    assert!(first.open_session().is_err());
    assert_eq!(second.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
}

#[test]
fn ad_12_a_panic_of_the_judge_of_host_keys_ends_the_connection_with_a_disconnect() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
    let panics = HostKeys::ask(|_| panic!("a judge panics, as the test asks it to"));
    let connecting =
        thread::spawn(move || Client::builder().host_keys(panics).connect_over("test", 22, ours).map(drop));
    assert!(connecting.join().is_err());
    match closed.recv_timeout(PATIENCE).unwrap() {
        CloseReason::PeerDisconnected { code, .. } => {
            assert_eq!(code, DisconnectCode::BY_APPLICATION);
        }
        other => panic!("{other:?}"),
    }
    server.join(PATIENCE);
    assert!(server.is_finished());
}

/// Does not come back.
struct Panics;

impl Signer for Panics {
    fn sign(&self, _: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        panic!("a signer panics, as the test asks it to")
    }
}

#[test]
fn ad_12_a_panic_of_a_host_keys_signer_ends_the_connection_with_a_disconnect() {
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let key = KeyPair::new(key.public, Arc::new(Panics));
    let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(config, theirs, handler).unwrap();
    let result = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, ours);
    match result.unwrap_err() {
        Error::Closed(CloseReason::PeerDisconnected { code, .. }) => {
            assert_eq!(code, DisconnectCode::KEY_EXCHANGE_FAILED);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), CloseReason::SignatureRefused);
    server.join(PATIENCE);
    assert!(server.is_finished());
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a part of a transport panics, as the test asks it to");
    }
}

/// A half of a transport with what is dropped along with it.
struct With<T> {
    half: T,
    _part: Option<Bomb>,
}

impl<T: Read> Read for With<T> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        self.half.read(dst)
    }
}

impl<T: Write> Write for With<T> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        self.half.write(src)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.half.flush()
    }
}

#[test]
fn ad_12_a_part_of_the_transport_that_panics_when_it_is_dropped_keeps_nobody_from_the_end() {
    for part in 0..3 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let bomb = |at| (part == at).then(|| Bomb);
        let held = bomb(2);
        let split = Split {
            reader: With { half: reader, _part: bomb(0) },
            writer: With { half: writer, _part: bomb(1) },
            unblock: Box::new(move |how| {
                let _held = &held;
                unblock(how);
            }),
        };
        let (client, _server, _closed) = logged_in_over(configs(|_| {}), split, theirs);
        let other = client.clone();
        comes_back("the close", move || client.close());
        let reason = comes_back("the end", move || other.closed());
        assert_eq!(reason, CloseReason::Local(DisconnectCode::BY_APPLICATION), "{part}");
    }
}

/// A half of a transport that panics once it is told to, and what counts the parts that are left.
struct PanicsOnce<T> {
    half: T,
    panics: Arc<AtomicBool>,
    _part: Arc<()>,
    /// It does so to a user's thread, not to one of the connection's own.
    users: bool,
}

impl<T> PanicsOnce<T> {
    fn look(&self) {
        let own = thread::current().name().is_some_and(|name| name.starts_with("ssh-"));
        let panics = self.panics.load(Ordering::SeqCst) && own != self.users;
        assert!(!panics, "a transport panics, as the test asks it to");
    }
}

impl<T: Read> Read for PanicsOnce<T> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        let n = self.half.read(dst)?;
        self.look();
        Ok(n)
    }
}

impl<T: Write> Write for PanicsOnce<T> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        self.look();
        self.half.write(src)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.half.flush()
    }
}

/// Where a transport's panic hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    Reader,
    WriterThread,
    UsersWrite,
}

#[test]
fn ad_12_a_panic_of_the_transport_ends_the_connection_and_leaves_nothing_behind() {
    for hit in [Hit::Reader, Hit::WriterThread, Hit::UsersWrite] {
        println!("{hit:?}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reads, writes, parts) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<()>)>::default();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let part = Arc::clone(&parts);
        let users = hit == Hit::UsersWrite;
        let (panics, _part) = (Arc::clone(&reads), Arc::clone(&parts));
        let reader = PanicsOnce { half: reader, panics, _part, users };
        let (panics, _part) = (Arc::clone(&writes), Arc::clone(&parts));
        let split = Split {
            reader,
            writer: PanicsOnce { half: writer, panics, _part, users },
            unblock: Box::new(move |how| {
                let _ = &part;
                unblock(how);
            }),
        };
        let (client, _server, closed) = logged_in_over(configs(|_| {}), split, theirs);
        let channel = client.open_session().unwrap();
        channel.exec("echo").unwrap();
        let waiting = channel.clone();
        let waiting = thread::spawn(move || (&waiting).read_to_end(&mut Vec::new()));
        match hit {
            Hit::Reader => {
                reads.store(true, Ordering::SeqCst);
                // The answer is what it reads.
                let _ = client.open_session().map(drop);
            }
            Hit::WriterThread => {
                writes.store(true, Ordering::SeqCst);
                let _ = client.open_session().map(drop);
            }
            Hit::UsersWrite => {
                writes.store(true, Ordering::SeqCst);
                let writing = channel.clone();
                // Sooner or later it is at home when the user writes.
                let writing = thread::spawn(move || while (&writing).write(b"x").is_ok() {});
                assert!(comes_back("the writes", move || writing.join()).is_err(), "it is their transport");
            }
        }
        assert!(comes_back("a waiting read", move || waiting.join().unwrap()).is_err(), "{hit:?}");
        let reason = closed.recv_timeout(PATIENCE).unwrap();
        match hit {
            Hit::Reader => {
                assert!(matches!(reason, CloseReason::PeerDisconnected { .. }), "{reason:?}");
            }
            _ => assert_eq!(reason, CloseReason::Eof),
        }
        assert!(client.is_closed());
        comes_back("the close", move || client.close());
        // Nobody has hold of the transport, though the channel's handle is still there.
        assert_eq!(Arc::strong_count(&parts), 1, "{hit:?}");
        drop(channel);
    }
}

#[test]
fn ad_12_a_reader_that_panics_while_a_write_stays_takes_its_connection_along() {
    let (ours, theirs) = pair();
    let Split { reader, writer, unblock } = ours.split();
    let (panics, _part) = <(Arc<AtomicBool>, Arc<()>)>::default();
    let reader = PanicsOnce { half: reader, panics: Arc::clone(&panics), _part, users: false };
    let split = Split { reader, writer, unblock };
    let (client, _server, _closed) =
        logged_in_over(configs(|limits| limits.linger = Duration::from_millis(50)), split, theirs.split());
    let mut session = client.open_session().unwrap();
    session.exec("echo").unwrap();
    theirs.outgoing.hold(Hold::ForEver);
    session.write_all(b"x").unwrap();
    theirs.outgoing.stuck();
    ours.outgoing.hold(Hold::ForEver);
    session.env("A", "b").unwrap();
    assert_eq!(ours.outgoing.stuck().name(), Some("ssh-write"));
    panics.store(true, Ordering::SeqCst);
    // The echo is what it reads, and the server stays.
    theirs.outgoing.release();
    assert!(comes_back("a read", move || session.read_to_end(&mut Vec::new())).is_err());
    comes_back("the end", move || client.closed());
    assert!(ours.incoming.is_let_go() && ours.outgoing.is_let_go());
}

/// Writes a last word, as a buffer does, also while its thread panics.
struct LastWord(Channel);

impl Drop for LastWord {
    fn drop(&mut self) {
        let _ = self.0.write_all(b"bye");
    }
}

#[test]
fn a_write_of_a_thread_that_panics_is_a_write_like_any_other() {
    let (client, _closed) = logged_in();
    let mut session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    session.exec("echo").unwrap();
    // Without a timeout it brings its bytes to the transport itself.
    session.set_write_timeout(None);
    for _ in 0..10 {
        let last = LastWord(session.clone());
        let panicking = thread::spawn(move || {
            let _last = last;
            panic!("a thread panics, as the test asks it to");
        });
        assert!(panicking.join().is_err());
        let mut word = [0; 3];
        session.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"bye");
    }
}

/// Signs while it uses the client, as one that asks over the connection would; or does not come back.
struct Busy {
    inner: KeyPair,
    client: Client,
    panics: bool,
}

impl Signer for Busy {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        assert!(!self.panics, "a signer panics, as the test asks it to");
        assert!(self.client.negotiated().is_some());
        self.inner.signer.as_ref().unwrap().sign(what, entropy)
    }
}

#[test]
fn a_signer_is_called_with_nothing_locked_and_may_panic() {
    let (client, _closed) = connect();
    let inner: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let busy = |panics| {
        let signer = Busy { inner: inner.clone(), client: client.clone(), panics };
        KeyPair::new(inner.public.clone(), Arc::new(signer))
    };
    let (panicking, other) = (busy(true), client.clone());
    assert!(thread::spawn(move || other.auth_key("me", panicking)).join().is_err());
    // The server takes passwords only; what counts is that there is an answer.
    let refused = client.auth_key("me", busy(false));
    assert!(matches!(refused, Err(Error::AuthFailed { .. } | Error::Auth(_))), "{refused:?}");
    client.auth_password("me", PASSWORD).unwrap();
}
