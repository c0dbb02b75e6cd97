//! Transports that stand still or fail.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use ssh_io_std::{
    Channel, Client, Error, Handler, HostKeys, OsEntropy, Question, ServerConnection, Split, Transport,
};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthRequest, ChannelRequestKind, CloseReason, DisconnectCode, ExitStatus, KeyPair, Limits, ServerConfig,
    TimeoutReason,
};

use crate::pipe::{Hold, Side, pair};
use crate::support::{
    Echo, PASSWORD, PATIENCE, client_config, comes_back, configs, logged_in_as, logged_in_over,
    server_config, server_config_with,
};

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
        limits.write_stall = Duration::from_secs(1);
        limits.linger = Duration::from_millis(200);
    });
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(config.build().unwrap(), theirs, handler).unwrap();
    let stop = Arc::new((Mutex::new(false), Condvar::new()));
    let (writer, control) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let split = Split {
        reader: Stoppable(ours, Arc::clone(&stop)),
        writer,
        unblock: Box::new(move |how| drop(control.shutdown(how))),
    };
    let client = logged_in_as(client_config(|_| {}), split);
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
    let split = Split {
        reader: ours,
        writer: Breakable(writer, Arc::clone(&broken)),
        unblock: Box::new(move |how| drop(control.shutdown(how))),
    };
    let client = logged_in_as(client_config(|limits| limits.max_channels = 1), split);
    let mut channel = client.open_session().unwrap();
    // The server's end stays: a channel that is closed would not even try to write.
    channel.exec("both and stay").unwrap();
    broken.store(true, Ordering::SeqCst);
    // What is written while another thread is not back from its write yet is left to that one.
    let writing = channel.clone();
    let write = move || (0..).find_map(|_| (&writing).write(b"lost").err()).unwrap();
    assert_eq!(comes_back("the writes", write).kind(), ErrorKind::BrokenPipe);
    // Whoever goes on without looking is told too, also where a call does not write itself.
    channel.set_write_timeout(Some(PATIENCE));
    assert_eq!(channel.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    for late in [channel.signal("TERM"), channel.exec("more"), channel.finish_input()] {
        assert!(matches!(&late, Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe), "{late:?}");
    }
    // These would be told otherwise: there is no more room for a channel, and there was a login.
    let late = [client.open_session().map(drop), client.auth_password("me", PASSWORD)];
    for late in late {
        assert!(matches!(&late, Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe), "{late:?}");
    }
    let mut got = String::new();
    let _ = channel.read_to_string(&mut got);
    assert_eq!(got, "out 0\nout 1\nout 2\n");
    assert_eq!(channel.exit_status(), Some(ExitStatus::Code(0)));
}

/// Keeps what it is asked, and answers nothing.
struct Ponders(Sender<Question<AuthRequest>>);

impl Handler for Ponders {
    fn auth(&mut self, question: Question<AuthRequest>) {
        self.0.send(question).unwrap();
    }
}

#[test]
fn deadlines_run_though_a_write_failed_and_a_question_holds_up_the_input() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = theirs.split().unwrap();
    let broken = Arc::<AtomicBool>::default();
    let split = Split { reader, writer: Breakable(writer, Arc::clone(&broken)), unblock };
    // Behind the time that what is still to be read has.
    let (config, _) = server_config_with(|limits| limits.login_timeout = Duration::from_secs(5));
    let (sender, questions) = channel();
    let server = ServerConnection::start(config, split, Ponders(sender)).unwrap();
    let logging_in = thread::spawn(move || {
        let builder = Client::with_config(client_config(|_| {})).host_keys(HostKeys::DangerousAcceptAny);
        builder.connect_over("test", 22, ours)?.auth_password("me", PASSWORD)
    });
    let question = questions.recv_timeout(PATIENCE).unwrap();
    broken.store(true, Ordering::SeqCst);
    // If the answer to what was asked before has left: else that is the write that fails.
    let _ = server.banner("which does not leave");
    server.join(PATIENCE);
    assert!(server.is_finished(), "it waits for the answer");
    assert_eq!(server.close_reason(), Some(CloseReason::TimedOut(TimeoutReason::Login)));
    assert!(comes_back("the login", move || logging_in.join().unwrap()).is_err());
    drop(question);
}

/// Little time for the last words.
fn in_haste(limits: &mut Limits) {
    limits.linger = Duration::from_millis(50);
}

/// Ends a connection whose peer is silent, but none whose peer comes to its turn late.
fn seldom_kept_alive(limits: &mut Limits) {
    limits.keepalive_interval = Some(Duration::from_secs(1));
    limits.keepalive_misses = 1;
}

/// A client over a transport of memory, with a session that echoes; its end and its limits.
fn held(change: impl FnOnce(&mut Limits)) -> (Side, Client, Channel, ServerConnection) {
    let (ours, theirs) = pair();
    let (client, server, _closed) =
        logged_in_over((client_config(change), server_config_with(in_haste).0), ours.split(), theirs.split());
    let session = client.open_session().unwrap();
    session.exec("echo").unwrap();
    (ours, client, session, server)
}

/// Holds writes back, and brings the writer thread into one.
fn stick_the_writer_thread(side: &Side, session: &Channel, hold: Hold) {
    side.outgoing.hold(hold);
    session.env("A", "b").unwrap();
    assert_eq!(side.outgoing.stuck().name(), Some("ssh-write"));
}

/// A call that is to fail.
type Call = Box<dyn FnOnce(Client, Channel) -> Error + Send>;

#[test]
fn deadlines_run_and_all_waiting_calls_return_while_the_writer_thread_is_stuck() {
    for reason in [TimeoutReason::Keepalive, TimeoutReason::WriteStall] {
        let (ours, client, session, _server) = held(|limits| {
            in_haste(limits);
            if reason == TimeoutReason::Keepalive {
                seldom_kept_alive(limits);
            } else {
                limits.write_stall = Duration::from_secs(1);
            }
        });
        stick_the_writer_thread(&ours, &session, Hold::TimeOut);
        let calls: [(&str, Call); 5] = [
            ("a read", Box::new(|_, session| (&session).read(&mut [0; 1]).unwrap_err().into())),
            ("a write", Box::new(|_, session| (&session).write_all(&[0; 1 << 20]).unwrap_err().into())),
            ("a wait", Box::new(|_, session| session.wait().unwrap_err())),
            (
                "a request",
                Box::new(|_, session| session.request(&ChannelRequestKind::env("A", "b")).unwrap_err()),
            ),
            ("an open", Box::new(|client, _| client.open_session().unwrap_err())),
        ];
        let calls = calls.map(|(what, call)| {
            let (client, session) = (client.clone(), session.clone());
            (what, thread::spawn(move || call(client, session)))
        });
        for (what, call) in calls {
            let error = comes_back(what, move || call.join().unwrap());
            let error = match error {
                Error::Io(error) => *error.into_inner().unwrap().downcast::<Error>().unwrap(),
                error => error,
            };
            match error {
                Error::Closed(why) => assert_eq!(why, CloseReason::TimedOut(reason), "{what}"),
                error => panic!("{what}: {error:?}"),
            }
        }
        // The last words are given up as well.
        assert!(ours.incoming.is_let_go() && ours.outgoing.is_let_go());
    }
}

#[test]
fn ad_01_deadlines_run_while_writes_make_little_way() {
    let (ours, theirs) = pair();
    let mut server = theirs.split();
    server.writer.write_all(b"SSH-2.0-test\r\n").unwrap();
    ours.outgoing.hold(Hold::Trickle);
    let config = client_config(|limits| {
        in_haste(limits);
        limits.kex_timeout = Duration::from_millis(50);
    });
    let builder = Client::with_config(config).host_keys(HostKeys::DangerousAcceptAny);
    let split = ours.split();
    let result = comes_back("the client", move || builder.connect_over("test", 22, split));
    match result.unwrap_err() {
        Error::Closed(why) => assert_eq!(why, CloseReason::TimedOut(TimeoutReason::Kex)),
        other => panic!("{other:?}"),
    }
    drop(server);
    assert!(ours.outgoing.is_let_go());
    // Its proposal alone is much more than it has time for.
    assert!(ours.outgoing.writes() < 100, "{}", ours.outgoing.writes());
}

#[test]
fn a_writer_that_does_not_wait_by_itself_is_not_asked_again_at_once() {
    let (ours, theirs) = pair();
    let server = theirs.split();
    ours.outgoing.hold(Hold::Refuse);
    let config = client_config(|limits| {
        in_haste(limits);
        limits.ident_timeout = Duration::from_millis(50);
    });
    let builder = Client::with_config(config).host_keys(HostKeys::DangerousAcceptAny);
    let split = ours.split();
    let result = comes_back("the client", move || builder.connect_over("test", 22, split));
    assert!(matches!(result, Err(Error::Closed(CloseReason::TimedOut(TimeoutReason::Ident)))), "{result:?}");
    drop(server);
    assert!(ours.outgoing.is_let_go());
    assert!(ours.outgoing.writes() < 100, "{}", ours.outgoing.writes());
}

#[test]
fn whatever_keeps_a_write_the_end_comes_in_time_and_takes_the_transport_along() {
    #[derive(Clone, Copy, PartialEq)]
    enum How {
        Close,
        Drop,
        /// The connection ends by itself.
        Idle,
    }
    let end = |hold, before: bool, how| {
        let (ours, client, session, server) = held(|limits| {
            in_haste(limits);
            limits.idle_timeout = (how == How::Idle).then_some(Duration::from_secs(3));
        });
        match before {
            true => stick_the_writer_thread(&ours, &session, hold),
            // The first that is held back is what the close leaves to be said.
            false => {
                ours.outgoing.hold(hold);
                assert!(!session.is_closed(), "it ended too soon");
            }
        }
        match how {
            How::Close => comes_back("the close", move || client.close()),
            How::Drop => drop(client),
            How::Idle => drop(comes_back("the end", move || client.closed())),
        }
        assert!(ours.incoming.is_let_go() && ours.outgoing.is_let_go());
        assert!(session.is_closed());
        server.join(PATIENCE);
        assert!(server.is_finished());
    };
    thread::scope(|scope| {
        for hold in [Hold::TimeOut, Hold::ForEver] {
            for how in [How::Close, How::Drop, How::Idle] {
                scope.spawn(move || end(hold, false, how));
            }
            // Deadlines run only between writes.
            for how in [How::Close, How::Drop] {
                scope.spawn(move || end(hold, true, how));
            }
        }
    });
}

#[test]
fn an_end_by_a_deadline_between_two_writes_comes_though_the_next_write_stays() {
    let (ours, client, session, _server) = held(|limits| {
        limits.linger = Duration::from_secs(3);
        seldom_kept_alive(limits);
    });
    stick_the_writer_thread(&ours, &session, Hold::TimeOut);
    let error = comes_back("a read", move || (&session).read(&mut [0]).unwrap_err());
    assert!(error.to_string().contains("keepalive"), "{error}");
    // The last words have time left, and the writer thread has none for deadlines any more.
    ours.outgoing.hold(Hold::ForEver);
    let reason = comes_back("the end", move || client.closed());
    assert_eq!(reason, CloseReason::TimedOut(TimeoutReason::Keepalive));
    assert!(ours.incoming.is_let_go() && ours.outgoing.is_let_go());
}

#[test]
fn a_server_that_is_closed_while_its_writer_thread_is_stuck_lets_go() {
    let end = |hold, peer_leaves: bool| {
        let (ours, theirs) = pair();
        // What the client says of its end is to be read.
        let configs = (client_config(|_| {}), server_config_with(in_haste).0);
        let (client, server, closed) = logged_in_over(configs, ours.split(), theirs.split());
        theirs.outgoing.hold(hold);
        let opening = client.clone();
        let opening = thread::spawn(move || opening.open_session().map(drop));
        assert_eq!(theirs.outgoing.stuck().name(), Some("ssh-write"));
        match peer_leaves {
            true => comes_back("the close", move || client.close()),
            false => server.close(),
        }
        server.join(PATIENCE);
        assert!(server.is_finished());
        match closed.recv_timeout(PATIENCE).unwrap() {
            CloseReason::PeerDisconnected { .. } => assert!(peer_leaves),
            reason => assert_eq!(reason, CloseReason::Local(DisconnectCode::BY_APPLICATION)),
        }
        assert!(comes_back("the open", move || opening.join().unwrap()).is_err());
        assert!(theirs.incoming.is_let_go() && theirs.outgoing.is_let_go());
    };
    thread::scope(|scope| {
        for hold in [Hold::TimeOut, Hold::ForEver] {
            scope.spawn(move || end(hold, true));
            scope.spawn(move || end(hold, false));
        }
    });
}

#[test]
fn the_reader_never_writes_and_the_writer_never_reads() {
    let (ours, theirs) = pair();
    let (client, server, _closed) = logged_in_over(configs(|_| {}), ours.split(), theirs.split());
    let session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    session.exec("echo").unwrap();
    let (mut reader, mut writer) = session.split();
    let writing = thread::spawn(move || writer.write_all(&[7; 1 << 20]).unwrap());
    client.rekey();
    let mut back = Vec::new();
    reader.read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), 1 << 20);
    assert!(client.rekeys() > 0);
    writing.join().unwrap();
    client.close();
    server.join(PATIENCE);
    for side in [&ours, &theirs] {
        let (readers, _) = side.incoming.users();
        let (_, writers) = side.outgoing.users();
        assert_eq!(readers.len(), 1, "one thread reads");
        assert!(readers.is_disjoint(&writers), "and it does not write");
    }
}

/// A writer that keeps what it is given until it is flushed, and takes its time for that.
struct Buffering<W> {
    inner: W,
    kept: Vec<u8>,
    patience: u32,
}

impl<W: Write> Write for Buffering<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        assert!(self.kept.is_empty(), "written to while it is being flushed");
        self.kept.extend(src);
        Ok(src.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.patience = (self.patience + 1) % 3;
        match self.patience {
            0 => self.inner.write_all(&std::mem::take(&mut self.kept)),
            1 => Err(std::io::ErrorKind::TimedOut.into()),
            _ => Err(std::io::ErrorKind::Interrupted.into()),
        }
    }
}

#[test]
fn a_flush_that_takes_longer_sends_nothing_twice() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    let writer = Buffering { inner: writer, kept: Vec::new(), patience: 0 };
    let (client, _server, _closed) =
        logged_in_over(configs(|_| {}), Split { reader, writer, unblock }, theirs);
    assert_eq!(client.exec("both").unwrap().stdout, b"out 0\nout 1\nout 2\n");
    client.close();
}

/// A writer during whose writes, when a user's thread makes them, another channel is written to.
struct Meanwhile<W> {
    inner: W,
    other: Arc<Mutex<Option<Channel>>>,
    writes: Arc<AtomicUsize>,
}

impl<W: Write> Write for Meanwhile<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        let own = thread::current().name().is_some_and(|name| name.starts_with("ssh-"));
        if !own && let Some(mut other) = self.other.lock().unwrap().as_ref() {
            // Enough to see that there is no end to it.
            if self.writes.fetch_add(1, Ordering::SeqCst) < 100 {
                other.write_all(&[7; 1000]).unwrap();
                // So that the writer thread can look, find the writer away, and wait again.
                (0..1000).for_each(|_| thread::yield_now());
            }
        }
        self.inner.write(src)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_write_comes_back_though_others_go_on_writing() {
    let (ours, theirs) = pair();
    let Split { reader, writer, unblock } = ours.split();
    let (other, writes) = <(Arc<Mutex<Option<Channel>>>, Arc<AtomicUsize>)>::default();
    let writer = Meanwhile { inner: writer, other: Arc::clone(&other), writes: Arc::clone(&writes) };
    let split = Split { reader, writer, unblock };
    let (client, _server, _closed) = logged_in_over(configs(|_| {}), split, theirs.split());
    let [session, mut another] = ["sink", "echo"].map(|command| {
        let session = client.open_session().unwrap();
        session.exec(command).unwrap();
        session
    });
    // With a timeout it leaves its bytes to whoever is writing.
    another.set_timeout(Some(PATIENCE));
    *other.lock().unwrap() = Some(another.clone());
    let writing = session.clone();
    let written = comes_back("a write", move || {
        // Sooner or later nobody else is at it.
        while writes.load(Ordering::SeqCst) == 0 {
            (&writing).write_all(b"x").unwrap();
        }
        writes.load(Ordering::SeqCst)
    });
    assert_eq!(written, 1, "it took its own bytes to the transport, and not those of others");
    *other.lock().unwrap() = None;
    // The writer thread sends those, though nothing else happens.
    another.read_exact(&mut [0; 1000]).unwrap();
    drop(session);
}

#[test]
fn a_reader_that_times_out_is_asked_again() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let split = ours.split().unwrap();
    split.reader.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (client, server, _closed) = logged_in_over(configs(|_| {}), split, theirs);
    let session = client.open_session().unwrap();
    session.exec("echo").unwrap();
    // The server has nothing to say, for many times as long.
    session.set_read_timeout(Some(Duration::from_millis(100)));
    let error = (&session).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(client.exec("both").unwrap().stdout, b"out 0\nout 1\nout 2\n");
    comes_back("the close", move || client.close());
    server.join(PATIENCE);
    assert!(server.is_finished());
}

/// A reader that never waits for long, also when nothing can come any more: it does not look whether its
/// transport is ended.
struct Polls<R> {
    inner: R,
    ended: Arc<AtomicBool>,
    reads_behind_the_end: Arc<AtomicUsize>,
}

impl<R: Read> Read for Polls<R> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        if self.ended.load(Ordering::SeqCst) {
            self.reads_behind_the_end.fetch_add(1, Ordering::SeqCst);
        }
        match self.inner.read(dst) {
            // That is all its peer's end is to it.
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            read => read,
        }
    }
}

#[test]
fn a_reader_that_times_out_by_itself_is_not_asked_again_when_its_transport_is_ended() {
    for broken in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        reader.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (ended, reads, breaks) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let reader =
            Polls { inner: reader, ended: Arc::clone(&ended), reads_behind_the_end: Arc::clone(&reads) };
        let split = Split {
            reader,
            writer: Breakable(writer, Arc::clone(&breaks)),
            unblock: Box::new(move |how| {
                unblock(how);
                ended.fetch_or(how == Shutdown::Both, Ordering::SeqCst);
            }),
        };
        let (client, server, _closed) = logged_in_over(configs(|_| {}), split, theirs);
        if broken {
            breaks.store(true, Ordering::SeqCst);
            // Nothing else is to end it.
            let _ = client.open_session();
            let ending = client.clone();
            comes_back("the end", move || ending.closed());
        }
        comes_back("the close", move || client.close());
        server.join(PATIENCE);
        assert!(server.is_finished());
        // Some may begin before the word of it is there. While the end waits for the reader, there would be many more.
        assert!(reads.load(Ordering::SeqCst) < 50, "{broken}: {reads:?}");
    }
}

/// A reader whose waits are short, and that is told at one of them, from when it is to, that the peer does not answer
/// TCP any more.
struct Unanswered<R>(R, Arc<AtomicBool>);

impl<R: Read> Read for Unanswered<R> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(dst) {
            Err(_) if self.1.load(Ordering::SeqCst) => Err(Errno::TIMEDOUT.into()),
            read => read,
        }
    }
}

#[test]
fn a_peer_that_does_not_answer_tcp_any_more_is_lost_and_not_asked_again() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let silent = Arc::<AtomicBool>::default();
    let reader = Unanswered(reader, Arc::clone(&silent));
    let (client, _server, _closed) =
        logged_in_over(configs(|_| {}), Split { reader, writer, unblock }, theirs);
    let session = client.open_session().unwrap();
    session.exec("hold").unwrap();
    silent.store(true, Ordering::SeqCst);
    let waiting = session.clone();
    let error = comes_back("a read", move || (&waiting).read(&mut [0]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let system = std::io::Error::from(Errno::TIMEDOUT).to_string();
    assert!(error.to_string().contains(&system), "it is the system's: {error}");
    assert!(session.is_closed());
    comes_back("the end", move || client.closed());
}

/// A writer that looks at its own connection when it is dropped.
struct LooksBack<W>(W, Arc<Mutex<Option<Client>>>);

impl<W: Write> Write for LooksBack<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        self.0.write(src)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl<W> Drop for LooksBack<W> {
    fn drop(&mut self) {
        if let Some(client) = self.1.lock().unwrap().take() {
            assert!(client.is_closed());
        }
    }
}

#[test]
fn a_writer_is_dropped_with_nothing_locked() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    let own = Arc::<Mutex<Option<Client>>>::default();
    let split = Split { reader, writer: LooksBack(writer, Arc::clone(&own)), unblock };
    let (client, server, _closed) = logged_in_over(configs(|_| {}), split, theirs);
    *own.lock().unwrap() = Some(client.clone());
    server.close();
    comes_back("the end", move || client.closed());
    assert!(own.lock().unwrap().is_none(), "it was dropped");
}
