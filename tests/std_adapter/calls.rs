//! What calls say when they cannot do what they should, and how long they take to say it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{
    Client, Error, Handler, HostKeys, OsEntropy, Question, ServerChannel, ServerConnection, Split, Transport,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, CloseReason, Disconnect, DisconnectCode,
    Entropy, ExitStatus, KeyPair, OpenRequest, ServerConfig, SignRefused, SignRequest, Signature, Signer,
    ToSign,
};

use crate::support::{
    Echo, PASSWORD, PATIENCE, client_config, client_of, comes_back, configs, connect, connected, logged_in,
    logged_in_as, logged_in_over, server_config,
};

/// Keeps what it is asked, so that nothing is answered until the test says so.
#[derive(Clone, Default)]
struct Silent {
    logins: Arc<Mutex<Vec<Question<AuthRequest>>>>,
    opens: Arc<Mutex<Vec<Question<OpenRequest>>>>,
}

impl Handler for Silent {
    fn auth(&mut self, request: Question<AuthRequest>) {
        self.logins.lock().unwrap().push(request);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.opens.lock().unwrap().push(request);
    }
}

fn silent() -> (Client, ServerConnection, Silent) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Silent::default();
    let server = ServerConnection::start(server_config().0, theirs, handler.clone()).unwrap();
    (connected(client_config(|_| {}), ours), server, handler)
}

#[test]
fn a_login_times_out_and_the_next_one_waits_for_what_comes_of_it() {
    let (client, _server, handler) = silent();
    client.set_timeout(Some(Duration::from_millis(20)));
    let result = client.auth_password("me", PASSWORD);
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
    // Still undecided: the next attempt has no turn.
    let result = client.auth_password("me", PASSWORD);
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
    client.set_timeout(None);
    let next = {
        let client = client.clone();
        thread::spawn(move || client.auth_password("me", PASSWORD))
    };
    let (mut seen, handler) = (0, handler.logins);
    let outcome = comes_back("the login", move || {
        while seen < 2 {
            if let Some(question) = handler.lock().unwrap().pop() {
                seen += 1;
                // The first one fails; that must not be taken for what comes of the second.
                let next = ssh_proto::AuthMethods::PASSWORD;
                let verdict = if seen == 1 { AuthVerdict::Reject { next } } else { AuthVerdict::Accept };
                question.reply(verdict).unwrap();
            }
            thread::yield_now();
        }
        next.join().unwrap()
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn opening_a_channel_times_out() {
    let (client, _server, handler) = silent();
    let login = {
        let client = client.clone();
        thread::spawn(move || client.auth_password("me", PASSWORD))
    };
    comes_back("the question", move || {
        loop {
            if let Some(question) = handler.logins.lock().unwrap().pop() {
                return question.reply(AuthVerdict::Accept).unwrap();
            }
            thread::yield_now();
        }
    });
    login.join().unwrap().unwrap();
    client.set_timeout(Some(Duration::from_millis(20)));
    let result = client.open_session();
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
    let result = client.exec("true");
    assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
}

#[test]
fn the_longest_timeout_there_is_does_not_end_the_program() {
    let (client, _closed) = connect();
    client.set_timeout(Some(Duration::MAX));
    client.auth_password("me", PASSWORD).unwrap();
    let channel = client.open_session().unwrap();
    channel.set_timeout(Some(Duration::MAX));
    channel.exec("echo").unwrap();
    (&channel).write_all(b"x").unwrap();
    (&channel).read_exact(&mut [0]).unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    drop(_theirs);
    let builder = Client::builder().connect_timeout(Duration::MAX);
    assert!(builder.connect_over("test", 22, ours).is_err());
}

#[test]
fn every_call_on_a_dead_connection_says_why_it_is_dead() {
    let (client, closed) = logged_in();
    let channel = client.open_session().unwrap();
    client.clone().close();
    closed.recv_timeout(PATIENCE).unwrap();
    let errors = [
        channel.exec("echo").unwrap_err(),
        channel.send_request(&ssh_proto::ChannelRequestKind::Shell, true).unwrap_err(),
        channel.wait().unwrap_err(),
        channel.wait_exit().unwrap_err(),
        channel.finish_input().unwrap_err(),
        client.open_session().unwrap_err(),
        client.exec("echo").unwrap_err(),
    ];
    for error in errors {
        let expected = CloseReason::Local(DisconnectCode::BY_APPLICATION);
        assert!(matches!(&error, Error::Closed(reason) if *reason == expected), "{error:?}");
    }
}

/// Fails every write once `broken`.
struct Breaks {
    stream: UnixStream,
    broken: Arc<Mutex<bool>>,
}

impl Write for Breaks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match *self.broken.lock().unwrap() {
            true => Err(std::io::ErrorKind::BrokenPipe.into()),
            false => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_peer_said_of_the_end_counts_more_than_a_failed_write() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, _closed) = channel();
    let handler = crate::support::Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
    let broken = Arc::new(Mutex::new(false));
    let control = ours.try_clone().unwrap();
    let split = ssh_io_std::Split {
        reader: ours.try_clone().unwrap(),
        writer: Breaks { stream: ours, broken: broken.clone() },
        unblock: Box::new(move |how| drop(control.shutdown(how))),
    };
    let client = logged_in_as(client_config(|_| {}), split);
    let channel = client.open_session().unwrap();
    *broken.lock().unwrap() = true;
    // Fails; the connection is still read for what the server may have to say.
    client.rekey();
    server.close();
    let error = comes_back("the wait", move || channel.wait()).unwrap_err();
    let expected = Disconnect::by_application();
    assert!(
        matches!(&error, Error::Closed(CloseReason::PeerDisconnected { code, .. }) if *code == expected.code),
        "{error:?}"
    );
}

/// Starts a program that goes on talking after it has said how it ended.
struct Lingers(Option<ServerChannel>, std::sync::mpsc::Sender<ServerChannel>);

impl Handler for Lingers {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.0 = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        request.reply(true).unwrap();
        let channel = self.0.take().unwrap();
        channel.exit(ExitStatus::Code(4)).unwrap();
        self.1.send(channel).unwrap();
    }
}

#[test]
fn an_exit_status_is_known_while_the_channel_goes_on() {
    let (sender, channels) = channel();
    let (client, _server) = client_of(Lingers(None, sender));
    let channel = client.open_session().unwrap();
    channel.exec("x").unwrap();
    let theirs = channels.recv_timeout(PATIENCE).unwrap();
    assert_eq!(channel.wait_exit().unwrap(), Some(ExitStatus::Code(4)));
    channel.set_read_timeout(Some(Duration::from_millis(20)));
    assert!(matches!(channel.wait(), Err(Error::TimedOut)));
    (&theirs).write_all(b"late").unwrap();
    drop(theirs);
    channel.set_read_timeout(Some(PATIENCE));
    let mut late = String::new();
    (&channel).read_to_string(&mut late).unwrap();
    assert_eq!(late, "late");
    assert_eq!(channel.wait().unwrap(), Some(ExitStatus::Code(4)));
}

#[test]
fn a_child_is_killed_and_reaped_when_connecting_does_not_even_begin() {
    let spawn =
        |stdin| Command::new("sleep").arg("1000").stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
    for (policy, stdin) in [
        // A file that cannot be read.
        (HostKeys::KnownHosts("/".into()), Stdio::piped()),
        // A transport that cannot be split.
        (HostKeys::DangerousAcceptAny, Stdio::null()),
    ] {
        let child = spawn(stdin);
        let id = child.id();
        let result = Client::builder().host_keys(policy).connect_over("test", 22, child);
        assert!(matches!(result, Err(Error::Io(_))), "{result:?}");
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}

#[test]
fn a_write_to_a_process_that_does_not_read_times_out_and_fails_when_it_is_killed() {
    let mut sleep = Command::new("sleep");
    let child = sleep.arg("1000").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let Split { mut writer, unblock, reader: _reader } = child.split().unwrap();
    let (mut writer, stuck) = comes_back("a write", move || {
        let error = loop {
            if let Err(error) = writer.write(&[0; 64 * 1024]) {
                break error;
            }
        };
        (writer, error.kind())
    });
    assert_eq!(stuck, ErrorKind::TimedOut);
    assert_eq!(writer.flush().unwrap_err().kind(), ErrorKind::TimedOut, "it is not there yet");
    unblock(Shutdown::Both);
    let end = comes_back("the end", move || {
        loop {
            match writer.flush() {
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                other => return other,
            }
        }
    });
    assert_eq!(end.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// Signs host keys on another thread, as an agent would.
struct Agent(Arc<KeyPair>);

impl Handler for Agent {
    fn sign(&mut self, request: Question<SignRequest>) {
        let key = self.0.clone();
        thread::spawn(move || {
            let signature = key.signer.as_ref().unwrap().sign(&request.to_sign(), &mut OsEntropy);
            request.reply(signature).unwrap();
        });
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }
}

#[test]
fn a_host_key_may_be_held_elsewhere() {
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let external = KeyPair::external(key.public.clone());
    let fingerprint = key.public.fingerprint();
    let config = ServerConfig::builder(&PROVIDER).host_key(external).build().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _server = ServerConnection::start(config, theirs, Agent(Arc::new(key))).unwrap();
    let client = Client::with_config(client_config(|_| {}))
        .host_keys(HostKeys::Fingerprint(fingerprint))
        .connect_over("test", 22, ours)
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
}

/// Signs when it is told to.
struct Slow(KeyPair, Mutex<Receiver<()>>, Sender<()>);

impl Signer for Slow {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.2.send(()).unwrap();
        self.1.lock().unwrap().recv_timeout(PATIENCE).map_err(|_| SignRefused)?;
        self.0.signer.as_ref().unwrap().sign(what, entropy)
    }
}

#[test]
fn the_signer_of_a_host_key_locks_nobody_out_while_it_signs() {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let public = key.public.clone();
    let (go, told) = channel();
    let (asked, asks) = channel();
    let slow = KeyPair::new(public.clone(), Arc::new(Slow(key, Mutex::new(told), asked)));
    let config = ServerConfig::builder(&PROVIDER).host_key(slow).build().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Echo { channels: Vec::new(), closed: channel().0 };
    let server = ServerConnection::start(config, theirs, handler).unwrap();
    let client = thread::spawn(move || {
        Client::builder()
            .host_keys(HostKeys::Fingerprint(public.fingerprint()))
            .connect_timeout(PATIENCE)
            .connect_over("test", 22, ours)
    });
    asks.recv_timeout(PATIENCE).unwrap();
    let (answered, answer) = channel();
    let looking = server.clone();
    thread::spawn(move || answered.send(looking.negotiated()));
    answer.recv_timeout(PATIENCE / 2).expect("the connection is not locked");
    go.send(()).unwrap();
    let client = comes_back("the client", move || client.join().unwrap().unwrap());
    // It is asked again for each exchange, also behind a login.
    client.auth_password("me", PASSWORD).unwrap();
    client.rekey();
    asks.recv_timeout(PATIENCE).unwrap();
    go.send(()).unwrap();
    assert_eq!(client.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
    client.close();
}

#[test]
fn the_longest_linger_there_is_does_not_end_the_program() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let configs = configs(|limits| limits.linger = Duration::MAX);
    let (client, server, _closed) = logged_in_over(configs, ours, theirs);
    comes_back("the close", move || client.close());
    server.join(PATIENCE);
    assert!(server.is_finished());
}

/// Answers no request.
#[derive(Default)]
struct Unanswered(Vec<ServerChannel>, Vec<Question<ChannelRequest>>);

impl Handler for Unanswered {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.0.push(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        self.1.push(request);
    }
}

#[test]
fn the_write_timeout_bounds_a_request_with_its_answer() {
    let (client, _server) = client_of(Unanswered::default());
    let channel = client.open_session().unwrap();
    channel.set_write_timeout(Some(Duration::from_millis(20)));
    let asked = comes_back("the request", move || channel.exec("x"));
    assert!(matches!(asked, Err(Error::TimedOut)), "{asked:?}");
}
