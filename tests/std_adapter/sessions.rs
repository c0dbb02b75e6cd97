//! Sessions and their requests, as a handler sees them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Channel, Client, Error, Handler, Question, ServerChannel, ServerConnection};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest, ChannelRequestKind, ExitStatus,
    OpenFailureCode, OpenRequest,
};

use crate::support::{PATIENCE, client_config, client_of, comes_back, logged_in_as, server_config};

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
        session.set_write_timeout(Some(Duration::from_millis(1)));
        let late = session.request(&ChannelRequestKind::env("A", "b"));
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        let late = requests.recv_timeout(PATIENCE).unwrap();
        session.set_write_timeout(Some(PATIENCE));
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

/// Keeps every channel until its client closes it, as a server of programs does, and tells of each handle that
/// is gone.
struct Keeps {
    sessions: HashMap<ChannelId, ServerChannel>,
    gone: Sender<()>,
}

impl Handler for Keeps {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        let channel = request.accept(ChannelConfig::default()).unwrap();
        self.sessions.insert(channel.id(), channel);
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let channel = self.sessions[&request.channel()].clone();
        request.reply(true).unwrap();
        let gone = self.gone.clone();
        thread::spawn(move || {
            let mut all = Vec::new();
            (&channel).read_to_end(&mut all).unwrap();
            (&channel).write_all(&all).unwrap();
            channel.exit(ExitStatus::Code(0)).unwrap();
            channel.finish_input().unwrap();
            // It is the client that closes it.
            drop(channel);
            gone.send(()).unwrap();
        });
    }

    fn channel_closed(&mut self, id: ChannelId) {
        self.sessions.remove(&id).unwrap();
        let _ = self.gone.send(());
    }
}

#[test]
fn places_for_channels_are_all_there_again_after_any_number_of_sessions() {
    const PLACES: usize = 32;
    let (gone, closed) = channel();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Keeps { sessions: HashMap::new(), gone };
    let _server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
    // The client has more of them, so that it is the server that says no.
    let client = logged_in_as(client_config(|limits| limits.max_channels = 4 * PLACES), ours);

    let closed = |count| (0..count).for_each(|_| closed.recv_timeout(PATIENCE).unwrap());
    for round in 0..3 * PLACES {
        let session = client.open_session().unwrap();
        session.set_timeout(Some(PATIENCE));
        session.exec("cat").unwrap();
        writeln!(&session, "session {round}").unwrap();
        session.finish_input().unwrap();
        let mut back = String::new();
        (&session).read_to_string(&mut back).unwrap();
        assert_eq!(back, format!("session {round}\n"));
        assert_eq!(session.exit_status(), Some(ExitStatus::Code(0)));
        drop(session);
        closed(2);
    }
    for _ in 0..3 {
        let open = || client.open_session();
        let sessions: Vec<_> = (0..PLACES).map(|_| open().unwrap()).collect();
        match open() {
            Err(Error::OpenFailed(why)) => assert_eq!(why.code, OpenFailureCode::RESOURCE_SHORTAGE),
            other => panic!("{other:?}"),
        }
        drop(sessions);
        closed(PLACES);
    }
}
