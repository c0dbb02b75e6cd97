//! `ssh-io-std` over real loopback sockets: its own client against its own server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{
    Client, Error, Handler, HostKeys, OsEntropy, Question, ServerChannel, ServerConnection, Split,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::keys::HostKeyRejection;
use ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind,
    CloseReason, DisconnectCode, Entropy, ExitStatus, KeyPair, OpenFailureCode, OpenRequest, PeerMisbehaved,
    PublicKey, ServerConfig, SignRefused, Signature, Signer, Stderr, TimeoutReason, ToSign,
};

/// How long anything may take before a test gives up: a bound on failure, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse";

/// A server that echoes, talks to both streams, and reports how connections end.
struct Echo {
    channels: Vec<ServerChannel>,
    closed: Sender<CloseReason>,
}

impl Handler for Echo {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let ok = matches!(request.proof(), AuthProof::Password(password) if password.expose() == PASSWORD);
        let verdict = match ok {
            true => AuthVerdict::Accept,
            false => AuthVerdict::Reject { next: AuthMethods::PASSWORD },
        };
        // From another thread, later: questions do not mind.
        thread::spawn(move || request.reply(verdict)).join().unwrap().unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channels.push(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let at = self.channels.iter().position(|channel| channel.id() == request.channel()).unwrap();
        let command = match request.kind() {
            ChannelRequestKind::Exec(command) => String::from_utf8(command.clone()).unwrap(),
            _ => return,
        };
        match &command[..] {
            "refuse" => return,
            "panic" => panic!("a handler panics, as the test asks it to"),
            _ => request.reply(true).unwrap(),
        }
        let channel = self.channels.swap_remove(at);
        thread::spawn(move || run(&command, &channel));
    }

    fn closed(&mut self, reason: &CloseReason) {
        let _ = self.closed.send(reason.clone());
    }
}

fn run(command: &str, channel: &ServerChannel) {
    let mut io = channel;
    match command {
        "echo" => {
            let mut buffer = vec![0; 40_000];
            while let Ok(n @ 1..) = io.read(&mut buffer) {
                io.write_all(&buffer[..n]).unwrap();
            }
            channel.exit(ExitStatus::Code(3)).unwrap();
        }
        "both" => {
            for round in 0..3 {
                writeln!(io, "out {round}").unwrap();
                writeln!(channel.stderr(), "err {round}").unwrap();
            }
            channel.exit(ExitStatus::Code(0)).unwrap();
        }
        "flood" => while io.write_all(&[0; 100_000]).is_ok() {},
        // Waits for the client to be gone.
        _ => drop(channel.wait()),
    }
}

/// A key for tests, and a configuration with it.
fn server_config() -> (Arc<ServerConfig>, PublicKey) {
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let public = key.public.clone();
    (ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap(), public)
}

/// One connection of a client over a socket pair; what the server says of its end.
fn connect() -> (Client, Receiver<CloseReason>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (config, key) = server_config();
    let (sender, receiver) = channel();
    ServerConnection::start(config, theirs, Echo { channels: Vec::new(), closed: sender }).unwrap();
    let client = Client::builder()
        .host_keys(HostKeys::Fingerprint(key.fingerprint()))
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, ours)
        .unwrap();
    (client, receiver)
}

fn logged_in() -> (Client, Receiver<CloseReason>) {
    let (client, closed) = connect();
    client.auth_password("me", PASSWORD).unwrap();
    (client, closed)
}

#[test]
fn many_threads_use_many_channels_of_one_connection_at_once() {
    let (client, _closed) = logged_in();
    let threads: Vec<_> = (0..8u8)
        .map(|seed| {
            let client = client.clone();
            thread::spawn(move || {
                let channel = client.open_session().unwrap();
                channel.set_timeout(Some(PATIENCE));
                channel.exec("echo").unwrap();
                let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i as u8).wrapping_mul(seed | 1)).collect();
                let (mut reader, mut writer) = channel.split();
                let expected = sent.clone();
                let sending = thread::spawn(move || writer.write_all(&sent).unwrap());
                let mut got = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                sending.join().unwrap();
                assert!(got == expected, "channel {seed}");
                assert_eq!(reader.channel().wait().unwrap(), Some(ExitStatus::Code(3)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    client.close();
}

#[test]
fn a_read_that_times_out_leaves_the_channel_usable() {
    let (client, _closed) = logged_in();
    let mut channel = client.open_session().unwrap();
    channel.exec("echo").unwrap();
    channel.set_read_timeout(Some(Duration::from_millis(1)));
    let error = channel.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    channel.set_read_timeout(Some(PATIENCE));
    channel.write_all(b"still here").unwrap();
    let mut got = [0; 10];
    channel.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
}

#[test]
fn stderr_is_separate_combined_or_discarded() {
    let (client, _closed) = logged_in();
    let output = client.exec("both").unwrap();
    assert_eq!(output.stdout, b"out 0\nout 1\nout 2\n");
    assert_eq!(output.stderr, b"err 0\nerr 1\nerr 2\n");
    assert_eq!(output.status, Some(ExitStatus::Code(0)));
    for (how, expected) in [
        (Stderr::Combined, &b"out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n"[..]),
        (Stderr::Discard, b"out 0\nout 1\nout 2\n"),
    ] {
        let mut channel = client.open_session().unwrap();
        channel.set_timeout(Some(PATIENCE));
        channel.set_stderr(how);
        channel.exec("both").unwrap();
        let mut got = Vec::new();
        channel.read_to_end(&mut got).unwrap();
        assert_eq!(got, expected, "{how:?}");
        assert_eq!(channel.stderr().read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn refusals_are_errors_and_cost_only_their_request() {
    let (client, _closed) = connect();
    match client.auth_password("me", "wrong") {
        Err(Error::AuthFailed { remaining, partial: false }) => assert_eq!(remaining, ["password"]),
        other => panic!("{other:?}"),
    }
    client.auth_password("me", PASSWORD).unwrap();
    let channel = client.open_session().unwrap();
    channel.set_timeout(Some(PATIENCE));
    assert!(matches!(channel.exec("refuse"), Err(Error::RequestRefused)));
    channel.exec("echo").unwrap();
    assert!(matches!(channel.shell(), Err(Error::RequestRefused)), "one program per session");
}

#[test]
fn dropping_the_client_ends_the_connection_in_order() {
    let (client, closed) = logged_in();
    let mut channel = client.open_session().unwrap();
    channel.exec("wait").unwrap();
    drop(client);
    match closed.recv_timeout(PATIENCE).unwrap() {
        CloseReason::PeerDisconnected { code, .. } => assert_eq!(code, DisconnectCode::BY_APPLICATION),
        other => panic!("{other:?}"),
    }
    assert!(channel.read(&mut [0; 1]).is_err());
    assert!(matches!(channel.wait(), Err(Error::Closed(_))));
}

#[test]
fn dropping_a_channel_closes_it_and_frees_its_place() {
    let (client, _closed) = logged_in();
    // Far more than there are places for at once. The server's places are free when its threads let go of
    // them, which this waits for by asking again.
    let mut served = 0;
    while served < 200 {
        match client.open_session() {
            Ok(channel) => {
                channel.exec("echo").unwrap();
                served += 1;
            }
            Err(Error::OpenFailed(why)) => {
                assert_eq!(why.code, OpenFailureCode::RESOURCE_SHORTAGE);
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    while let Err(error) = client.open_session() {
        assert!(matches!(error, Error::OpenFailed(_)), "{error}");
    }
    assert_eq!(client.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
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

/// A reader that stands still while it is told to, as a peer does that takes nothing any more.
struct Stoppable<R>(R, Arc<(Mutex<bool>, Condvar)>);

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        let (stopped, wake) = &*self.1;
        drop(wake.wait_while(stopped.lock().unwrap(), |stopped| *stopped).unwrap());
        self.0.read(dst)
    }
}

/// A writer that fails once it is told to.
struct Breakable<W>(W, Arc<AtomicBool>);

impl<W: Write> Write for Breakable<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::BrokenPipe.into()),
            false => self.0.write(src),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn ad_07_a_peer_that_never_reads_is_given_up_on_while_a_thread_is_stuck_writing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let config = ServerConfig::builder(&PROVIDER).host_key(key).with_limits(|limits| {
        limits.write_stall = Duration::from_millis(200);
        limits.linger = Duration::from_millis(200);
    });
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(config.build().unwrap(), theirs, handler).unwrap();
    let stop = Arc::new((Mutex::new(false), Condvar::new()));
    let (writer, control) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_over(
            "test",
            22,
            Split {
                reader: Stoppable(ours, Arc::clone(&stop)),
                writer,
                unblock: Box::new(move |how| drop(control.shutdown(how))),
            },
        )
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    let channel = client.open_session().unwrap();
    channel.exec("flood").unwrap();
    *stop.0.lock().unwrap() = true;
    let reason = closed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reason, CloseReason::TimedOut(TimeoutReason::WriteStall));
    server.join(PATIENCE);
    assert!(server.is_finished(), "the stuck thread came home, and the transport is gone");
    *stop.0.lock().unwrap() = false;
    stop.1.notify_all();
}

#[test]
fn what_came_before_a_failed_write_is_still_read() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (config, _) = server_config();
    let handler = Echo { channels: Vec::new(), closed: channel().0 };
    let _server = ServerConnection::start(config, theirs, handler).unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let (writer, control) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_over(
            "test",
            22,
            Split {
                reader: ours,
                writer: Breakable(writer, Arc::clone(&broken)),
                unblock: Box::new(move |how| drop(control.shutdown(how))),
            },
        )
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    let mut channel = client.open_session().unwrap();
    channel.exec("both").unwrap();
    broken.store(true, Ordering::SeqCst);
    let _ = channel.write(b"lost");
    let mut got = String::new();
    let _ = channel.read_to_string(&mut got);
    assert_eq!(got, "out 0\nout 1\nout 2\n");
    assert_eq!(channel.exit_status(), Some(ExitStatus::Code(0)));
}

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

/// A directory of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
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
            .serve(&listener, |_| Echo { channels: Vec::new(), closed: channel().0 })
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
