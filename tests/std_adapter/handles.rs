//! Handles that are dropped, and what they leave behind.

use std::any::Any;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use ssh_io_std::{Channel, Client, Error, Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest, ChannelRequestKind, OpenRequest,
    ServerConfig,
};

use crate::support::{PATIENCE, client_config, client_of, comes_back, logged_in_as, server_config};

/// What a session of [`Reports`] saw of its client, in this order.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    /// The end of the input, behind so many bytes; each was its place's number.
    End(usize),
    /// Its answer of this size, as far as it was taken, and how that ended.
    Answered(Result<(), ErrorKind>),
    Close,
}

/// Reads what it gets, answers with as many bytes as the command says, and reports.
struct Reports {
    open: HashMap<ChannelId, ServerChannel>,
    reports: Sender<Saw>,
}

impl Handler for Reports {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        let channel = request.accept(ChannelConfig::default()).unwrap();
        self.open.insert(channel.id(), channel);
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let channel = self.open.remove(&request.channel()).unwrap();
        let ChannelRequestKind::Exec(answer) = request.kind() else { return };
        let answer = String::from_utf8(answer.clone()).unwrap().parse().unwrap();
        request.reply(true).unwrap();
        let reports = self.reports.clone();
        thread::spawn(move || {
            let mut input = Vec::new();
            let result = (&channel).read_to_end(&mut input);
            if result.is_ok() && input == numbers(input.len()) {
                let _ = reports.send(Saw::End(input.len()));
            }
            let result = (&channel).write_all(&numbers(answer)).map_err(|error| error.kind());
            let _ = reports.send(Saw::Answered(result));
            if channel.wait().is_ok() {
                let _ = reports.send(Saw::Close);
            }
        });
    }
}

/// Bytes that can be told from others.
fn numbers(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(u32::to_be_bytes).take(count).collect()
}

fn reported() -> (Client, ServerConnection, Receiver<Saw>) {
    let (sender, reports) = channel();
    let (client, server) = client_of(Reports { open: HashMap::new(), reports: sender });
    (client, server, reports)
}

const MUCH: usize = 3_000_000;

#[test]
fn a_dropped_channel_closes_behind_everything_that_was_written() {
    let (client, _server, reports) = reported();
    let next = || reports.recv_timeout(PATIENCE).unwrap();
    for size in [0, 1, MUCH] {
        let session = client.open_session().unwrap();
        session.exec("0").unwrap();
        (&session).write_all(&numbers(size)).unwrap();
        drop(session);
        assert_eq!([next(), next(), next()], [Saw::End(size), Saw::Answered(Ok(())), Saw::Close]);
    }
}

#[test]
fn ad_10_a_channel_dropped_under_its_peers_flood_ends_that_alone() {
    let (client, _server, reports) = reported();
    let next = || reports.recv_timeout(PATIENCE).unwrap();
    let session = client.open_session().unwrap();
    // More than its window takes.
    session.exec("100000000").unwrap();
    session.finish_input().unwrap();
    (&session).read_exact(&mut [0; 1000]).unwrap();
    drop(session);
    assert_eq!(
        [next(), next(), next()],
        [Saw::End(0), Saw::Answered(Err(ErrorKind::BrokenPipe)), Saw::Close]
    );
    let session = client.open_session().unwrap();
    session.exec("0").unwrap();
    drop(session);
    assert_eq!([next(), next(), next()], [Saw::End(0), Saw::Answered(Ok(())), Saw::Close]);
}

#[test]
fn a_dropped_writing_half_ends_the_input_and_the_channel_goes_with_the_other() {
    let (client, _server, reports) = reported();
    let next = || reports.recv_timeout(PATIENCE).unwrap();
    let halves = || {
        let session = client.open_session().unwrap();
        session.set_timeout(Some(PATIENCE));
        session.exec("1000000").unwrap();
        session.split()
    };
    let (mut reader, mut writer) = halves();
    writer.write_all(&numbers(MUCH)).unwrap();
    drop(writer);
    assert_eq!(next(), Saw::End(MUCH));
    let mut answer = vec![0; 1_000_000];
    reader.read_exact(&mut answer).unwrap();
    assert!(answer == numbers(1_000_000));
    assert_eq!(next(), Saw::Answered(Ok(())));
    drop(reader);
    assert_eq!(next(), Saw::Close);
    // The reading half alone ends nothing.
    let (reader, mut writer) = halves();
    drop(reader);
    writer.write_all(&numbers(MUCH)).unwrap();
    drop(writer);
    assert_eq!(next(), Saw::End(MUCH));
    assert!(matches!(next(), Saw::Answered(_)), "nobody reads it");
    assert_eq!(next(), Saw::Close);
}

#[test]
fn ad_11_a_dropped_client_takes_its_channels_along_but_not_what_they_received() {
    let (client, server, reports) = reported();
    let session = client.open_session().unwrap();
    session.exec("1000").unwrap();
    session.finish_input().unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Saw::End(0));
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Saw::Answered(Ok(())));
    // The first byte is there when the rest of the packet is.
    let mut answer = vec![0; 1000];
    (&session).read_exact(&mut answer[..1]).unwrap();
    let another = client.open_session().unwrap();
    let waiting = thread::spawn(move || another.wait());
    let clone = client.clone();
    drop(client);
    assert!(!session.is_closed(), "a clone is left");
    drop(clone);
    assert!(matches!(comes_back("a wait", move || waiting.join().unwrap()), Err(Error::Closed(_))));
    (&session).read_exact(&mut answer[1..]).unwrap();
    assert!(answer == numbers(1000));
    assert!((&session).read(&mut [0; 1]).is_err() && (&session).write(b"x").is_err());
    server.join(PATIENCE);
    assert!(server.is_finished());
}

/// Threads and descriptors of this process.
fn held() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"].map(|of| std::fs::read_dir(of).unwrap().count())
}

/// Says who the second run of a test is.
pub(crate) const ALONE: &str = "SSH_TESTS_ALONE";

#[test]
fn connections_however_they_end_leave_no_thread_and_no_descriptor() {
    // Others' threads would be counted as well: this test runs once more, in a process of its own.
    if std::env::var_os(ALONE).is_none() {
        let name = "handles::connections_however_they_end_leave_no_thread_and_no_descriptor";
        let mut run = Command::new(std::env::current_exe().unwrap());
        let status = run.args(["--exact", name, "--nocapture"]).env(ALONE, "1").status().unwrap();
        assert!(status.success());
        return;
    }
    let (config, _) = server_config();
    let before = held();
    for round in 0..8 {
        let ends: [End; 5] = [closed, dropped, closed_by_the_server, lost, never_logged_in];
        for (at, end) in ends.into_iter().enumerate() {
            // Nor does a handle that is left keep any.
            let _left = end(&config);
            let patience = Instant::now() + PATIENCE;
            while held() != before {
                assert!(Instant::now() < patience, "round {round}, end {at}: {:?}, {before:?}", held());
                thread::yield_now();
            }
        }
    }
}

/// How a connection ends; the handles that are left.
type End = fn(&Arc<ServerConfig>) -> Box<dyn Any>;

fn over_tcp(config: &Arc<ServerConfig>) -> (TcpStream, ServerConnection, Receiver<Saw>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (sender, reports) = channel();
    let handler = Reports { open: HashMap::new(), reports: sender };
    let server = ServerConnection::start(Arc::clone(config), listener.accept().unwrap().0, handler).unwrap();
    (ours, server, reports)
}

/// A client with a session that waits, and its server.
fn with_session(config: &Arc<ServerConfig>) -> (Client, Channel, ServerConnection) {
    let (ours, server, _) = over_tcp(config);
    let client = logged_in_as(client_config(|_| {}), ours);
    let session = client.open_session().unwrap();
    session.exec("0").unwrap();
    (client, session, server)
}

fn is_over(server: &ServerConnection) {
    server.join(PATIENCE);
    assert!(server.is_finished());
}

fn closed(config: &Arc<ServerConfig>) -> Box<dyn Any> {
    let (client, session, server) = with_session(config);
    client.close();
    is_over(&server);
    Box::new((session, server))
}

fn dropped(config: &Arc<ServerConfig>) -> Box<dyn Any> {
    let (client, session, server) = with_session(config);
    drop(client);
    is_over(&server);
    Box::new((session, server))
}

fn closed_by_the_server(config: &Arc<ServerConfig>) -> Box<dyn Any> {
    let (client, session, server) = with_session(config);
    server.close();
    is_over(&server);
    assert!(session.wait().is_err());
    Box::new((client, session, server))
}

fn lost(config: &Arc<ServerConfig>) -> Box<dyn Any> {
    let (ours, server, _) = over_tcp(config);
    let other = ours.try_clone().unwrap();
    let client =
        Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_over("test", 22, ours).unwrap();
    other.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(client.auth_password("me", "x").is_err());
    is_over(&server);
    Box::new((client, server))
}

fn never_logged_in(config: &Arc<ServerConfig>) -> Box<dyn Any> {
    let (ours, server, _) = over_tcp(config);
    let refused = Client::builder().host_keys(HostKeys::ask(|_| false)).connect_over("test", 22, ours);
    assert!(matches!(refused, Err(Error::HostKeyRefused)));
    is_over(&server);
    Box::new(server)
}
