//! Sessions and their requests, as a handler sees them.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Channel, Client, Error, Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::{AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind, OpenRequest};

use crate::support::{PATIENCE, comes_back, server_config};

/// Hands the requests of its one channel to the test.
struct Forwards {
    channel: Option<ServerChannel>,
    requests: Sender<Question<ChannelRequest>>,
}

impl Handler for Forwards {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channel = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        self.requests.send(request).unwrap();
    }
}

/// A client of this handler, logged in.
fn client_of(handler: impl Handler) -> (Client, ServerConnection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, ours)
        .unwrap();
    client.auth_password("me", "x").unwrap();
    (client, server)
}

/// A session whose requests the test answers.
fn forwarded() -> (Client, Channel, Receiver<Question<ChannelRequest>>) {
    let (sender, requests) = channel();
    let (client, _server) = client_of(Forwards { channel: None, requests: sender });
    let session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    (client, session, requests)
}

/// Makes a request on another thread; it and its question.
fn ask(
    session: &Channel,
    requests: &Receiver<Question<ChannelRequest>>,
) -> (thread::JoinHandle<Result<(), Error>>, Question<ChannelRequest>) {
    let session = session.clone();
    let asking = thread::spawn(move || session.request(&ChannelRequestKind::env("A", "b")));
    (asking, requests.recv_timeout(PATIENCE).unwrap())
}

fn answer(asking: thread::JoinHandle<Result<(), Error>>) -> bool {
    match comes_back("a request", move || asking.join().unwrap()) {
        Ok(()) => true,
        Err(Error::RequestRefused) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_the_next_request() {
    for (first, second) in [(true, false), (false, true)] {
        let (_client, session, requests) = forwarded();
        session.set_read_timeout(Some(Duration::from_millis(1)));
        let late = session.request(&ChannelRequestKind::env("A", "b"));
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        let late = requests.recv_timeout(PATIENCE).unwrap();
        session.set_read_timeout(Some(PATIENCE));
        let (asking, question) = ask(&session, &requests);
        late.reply(first).unwrap();
        question.reply(second).unwrap();
        assert_eq!(answer(asking), second);
        // Nothing is left of it either.
        let (asking, question) = ask(&session, &requests);
        question.reply(first).unwrap();
        assert_eq!(answer(asking), first);
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_not_taken_for_that_of_a_request() {
    let (_client, session, requests) = forwarded();
    let unheard = |ok| {
        session.send_request(&ChannelRequestKind::env("A", "b"), true).unwrap();
        requests.recv_timeout(PATIENCE).unwrap().reply(ok).unwrap();
    };
    unheard(false);
    let (asking, question) = ask(&session, &requests);
    question.reply(true).unwrap();
    assert!(answer(asking));
    // Also when it comes behind one that is waited for.
    let (asking, question) = ask(&session, &requests);
    unheard(true);
    question.reply(false).unwrap();
    assert!(!answer(asking));
    let (asking, question) = ask(&session, &requests);
    question.reply(false).unwrap();
    assert!(!answer(asking));
}

/// Reads its one channel to the end before it looks at another question.
struct Reads(Option<ServerChannel>);

impl Handler for Reads {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.0 = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        request.reply(true).unwrap();
        if let Some(mut channel) = self.0.take() {
            let _ = channel.read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn a_handler_that_waits_for_its_client_hears_of_the_end_whatever_is_asked_meanwhile() {
    let (client, server) = client_of(Reads(None));
    let session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    session.exec("anything").unwrap();
    (0..1000).for_each(|_| session.signal("USR1").unwrap());
    // Nobody has the time to answer.
    assert!(matches!(session.request(&ChannelRequestKind::env("A", "b")), Err(Error::RequestRefused)));
    assert!(server.close_reason().is_none());
    drop(client);
    server.join(PATIENCE);
    assert!(server.is_finished());
}
