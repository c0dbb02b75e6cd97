//! Peers that do not read, readers that do not come, and crowds at the door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ssh_io_std as blocking;
use ssh_io_tokio::{Client, Error, HostKeys, ServerConnection};
use ssh_proto::{ChannelRequestKind, ClientConfig, CloseReason, Limits, ServerConfig, TimeoutReason};
use ssh_tests::null_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::given_up::{polled, until};
use crate::line::Line;
use crate::over_std::{self, Serves};
use crate::over_tokio::{self, runtime, serve};
use crate::session::{COMPLAINT, DATA, STATUS, configs, own};
use crate::tally::{PATIENCE, STD, TOKIO, given_up, live, survived, turn};

pub(crate) fn config(limits: impl FnOnce(&mut Limits)) -> Arc<ClientConfig> {
    null_client().with_limits(limits).build().unwrap()
}

/// A server and a client of the asynchronous adapter over a line without faults, logged in.
pub(crate) async fn logged_in(config: Arc<ClientConfig>) -> (Arc<Line>, Client, ServerConnection) {
    logged_in_by((config, configs().1)).await
}

/// The same by both configurations.
pub(crate) async fn logged_in_by(
    (config, server): (Arc<ClientConfig>, Arc<ServerConfig>),
) -> (Arc<Line>, Client, ServerConnection) {
    let (line, ours, theirs) = Line::pair(Default::default());
    let (server, driver) = ServerConnection::start(server, theirs);
    tokio::spawn(driver.run());
    tokio::spawn(serve(server.clone()));
    let builder = Client::with_config(config).host_keys(HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("test", 22, ours).await.unwrap();
    client.auth_password("me", "x").await.unwrap();
    (line, client, server)
}

/// The same of the blocking one.
pub(crate) fn blocking(
    config: Arc<ClientConfig>,
) -> (Arc<Line>, blocking::Client, blocking::ServerConnection) {
    blocking_by((config, configs().1))
}

/// The same by both configurations.
pub(crate) fn blocking_by(
    (config, server): (Arc<ClientConfig>, Arc<ServerConfig>),
) -> (Arc<Line>, blocking::Client, blocking::ServerConnection) {
    let (line, ours, theirs) = Line::pair(Default::default());
    let handler = Serves { channels: Vec::new(), closed: channel().0 };
    let server = blocking::ServerConnection::start(server, theirs, handler).unwrap();
    let client = blocking::Client::with_config(config)
        .host_keys(blocking::HostKeys::DangerousAcceptAny)
        .connect_over("test", 22, ours)
        .unwrap();
    client.auth_password("me", "x").unwrap();
    (line, client, server)
}

/// Waits for what has to come by itself, on threads of its own.
pub(crate) fn waits_until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < patience, "{what} does not come");
        thread::yield_now();
    }
}

/// Runs this on a thread of its own; a panic when it does not come back.
pub(crate) fn comes_back<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = channel();
    thread::spawn(move || sender.send(run()));
    done.recv_timeout(PATIENCE).expect("it hangs or panicked")
}

// ----- Those who do not read.

fn stalled(error: &Error) -> bool {
    matches!(error, Error::Closed(CloseReason::TimedOut(TimeoutReason::WriteStall)))
}

/// Output that may wait, and what was begun.
const MOST_OUTPUT: usize = 512 * 1024;

#[test]
fn ad_07_a_peer_that_never_reads() {
    let _turn = turn();
    runtime().block_on(async {
        let config = config(|limits| limits.write_stall = Duration::from_secs(10));
        let (line, client, _server) = logged_in(config).await;
        let mut channel = client.open_session().await.unwrap();
        channel.exec("program").await.unwrap();
        line.set_deaf(1, true);
        let writing = async {
            loop {
                if let Err(error) = channel.write_all(&[7; 50_000]).await {
                    return own(error);
                }
                assert!(client.memory_usage().output <= MOST_OUTPUT);
            }
        };
        let (error, opened) = tokio::join!(writing, client.open_session());
        let opened = opened.unwrap_err();
        assert!(stalled(&error) && stalled(&opened), "{error:?} {opened:?}");
        line.set_deaf(1, false);
    });
    survived(TOKIO, "a peer that never reads", 1);
    let config = config(|limits| limits.write_stall = Duration::from_millis(50));
    let (line, client, _server) = blocking(config);
    let channel = client.open_session().unwrap();
    channel.exec("program").unwrap();
    line.set_deaf(1, true);
    let (error, opened) = comes_back(move || {
        let error = loop {
            if let Err(error) = (&channel).write_all(&[7; 50_000]) {
                break own(error);
            }
            assert!(client.memory_usage().output <= MOST_OUTPUT);
        };
        (error, client.open_session().unwrap_err())
    });
    assert!(stalled(&error) && stalled(&opened), "{error:?} {opened:?}");
    line.set_deaf(1, false);
    survived(STD, "a peer that never reads", 1);
}

/// More than both windows of a channel that nobody reads, and all buffers.
const FLOOD: usize = 6 << 20;
/// What may be held for it: its window.
const WINDOW: usize = 2 << 20;
const OTHERS: usize = 20;

#[test]
fn ad_08_an_application_that_never_reads_one_channel() {
    let _turn = turn();
    runtime().block_on(async {
        let (_line, client, _server) = logged_in(configs().0).await;
        let (mut reader, mut writer) = client.open_session().await.unwrap().split();
        writer.channel().exec("program").await.unwrap();
        let flood = tokio::spawn(async move {
            AsyncWriteExt::write_all(&mut writer, &vec![7; FLOOD]).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        for _ in 0..OTHERS {
            let whole = over_tokio::talk(client.open_session().await.unwrap()).await.unwrap();
            assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
            let usage = client.memory_usage();
            assert!(usage.parked <= 2 * WINDOW, "{usage:?}");
        }
        assert!(!flood.is_finished(), "the flood was to be held up");
        let mut got = Vec::new();
        AsyncReadExt::read_to_end(&mut reader, &mut got).await.unwrap();
        flood.await.unwrap();
        assert!(got.len() == FLOOD && got.iter().all(|byte| *byte == 7), "nothing is lost of it");
    });
    survived(TOKIO, "sessions beside a channel that nobody reads", OTHERS);
    let (_line, client, _server) = blocking(configs().0);
    let (mut reader, mut writer) = client.open_session().unwrap().split();
    writer.channel().exec("program").unwrap();
    let flood = thread::spawn(move || writer.write_all(&vec![7; FLOOD]).unwrap());
    comes_back(move || {
        for _ in 0..OTHERS {
            let whole = over_std::talk(&client.open_session().unwrap()).unwrap();
            assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
            let usage = client.memory_usage();
            assert!(usage.parked <= 2 * WINDOW, "{usage:?}");
        }
        assert!(!flood.is_finished(), "the flood was to be held up");
        let mut got = Vec::new();
        Read::read_to_end(&mut reader, &mut got).unwrap();
        flood.join().unwrap();
        assert!(got.len() == FLOOD && got.iter().all(|byte| *byte == 7), "nothing is lost of it");
    });
    survived(STD, "sessions beside a channel that nobody reads", OTHERS);
}

// ----- Those who come and go.

const OPENS: usize = 100_000;
/// What a growth that is none may come to: hash maps and queues that found their size.
const NO_GROWTH: usize = 64 * 1024;

#[test]
fn ad_10_a_hundred_thousand_channels_one_after_the_other() {
    let _turn = turn();
    runtime().block_on(async {
        let (_line, client, server) = logged_in(configs().0).await;
        let mut early = 0;
        for n in 0..OPENS {
            if n == OPENS / 100 {
                early = live();
            }
            drop(client.open_session().await.unwrap());
        }
        over_tokio::talk(client.open_session().await.unwrap()).await.unwrap();
        let channels = || server.memory_usage().channels + client.memory_usage().channels;
        until("the end of all channels", || channels() == 0).await;
        let grown = live().saturating_sub(early);
        assert!(grown < NO_GROWTH, "{grown} bytes more");
        println!("{TOKIO}: {OPENS} channels opened and closed: {grown} bytes more on the heap");
    });
    let (_line, client, server) = blocking(configs().0);
    let mut early = 0;
    for n in 0..OPENS {
        if n == OPENS / 100 {
            early = live();
        }
        drop(client.open_session().unwrap());
    }
    over_std::talk(&client.open_session().unwrap()).unwrap();
    let channels = || server.memory_usage().channels + client.memory_usage().channels;
    waits_until("the end of all channels", || channels() == 0);
    // Both connections are alive, as they were before.
    let grown = live().saturating_sub(early);
    assert!(grown < NO_GROWTH, "{grown} bytes more");
    println!("{STD}: {OPENS} channels opened and closed: {grown} bytes more on the heap");
}

const CROWD: usize = 1000;

/// The adapter's threads, and the descriptors of this process.
fn held() -> [usize; 2] {
    let entries = |what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap();
    // One that ended meanwhile has no name.
    let name =
        |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let ours = entries("task").filter(|task| name(task.as_ref().unwrap()).starts_with("ssh-")).count();
    [ours, entries("fd").count()]
}

/// Waits until there are no more than that of both again.
fn back_to(before: [usize; 2]) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let now = held();
        if now[0] <= before[0] && now[1] <= before[1] {
            return;
        }
        assert!(Instant::now() < patience, "{now:?} threads and descriptors, and {before:?} before");
        thread::yield_now();
    }
}

/// Connects. Whoever waits to be heard, served or hung up on, does not fill the queue of the listener, where one
/// more would be left to the retransmission of TCP.
fn connect(at: SocketAddr, is_heard: bool) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    if is_heard {
        let _ = stream.read(&mut [0; 1]);
    }
    stream
}

/// A scan: connections that end at once. Then such that say half of what they should, and stay.
fn knock(at: SocketAddr) -> Vec<TcpStream> {
    (0..CROWD).for_each(|n| drop(connect(at, n % 20 == 0)));
    let half = |_| {
        let mut stream = connect(at, true);
        // Whoever is too many is hung up on by now.
        let _ = stream.write_all(b"SSH-2.0-half\r\n\0\0");
        stream
    };
    (0..CROWD).map(half).collect()
}

/// A connection from another address than that of the crowd.
fn from_elsewhere(at: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(at).await.unwrap().into_std().unwrap()
    })
}

/// A good client, beside the crowd.
pub(crate) fn is_served(at: SocketAddr) {
    let client = blocking::Client::with_config(configs().0)
        .host_keys(blocking::HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect_over("test", 22, from_elsewhere(at))
        .unwrap();
    client.auth_password("me", "x").unwrap();
    let whole = over_std::talk(&client.open_session().unwrap()).unwrap();
    assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
    client.close();
}

#[test]
fn ad_02_a_crowd_at_the_door_of_the_blocking_server() {
    let _turn = turn();
    let before = held();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let startups = blocking::Startups::default();
    let server = blocking::Server::new(configs().1).startups(startups.clone());
    let serving = {
        let server = server.clone();
        thread::spawn(move || {
            server.serve(&listener, |_, _| Serves { channels: Vec::new(), closed: channel().0 })
        })
    };
    let crowd = knock(at);
    assert!(startups.count() <= blocking::Startups::MAX_PER_ADDRESS, "{}", startups.count());
    is_served(at);
    assert_eq!(crowd.len(), CROWD);
    drop(crowd);
    is_served(at);
    server.shutdown(Duration::ZERO);
    serving.join().unwrap().unwrap();
    back_to(before);
    survived(STD, "a port scan and half-open handshakes, and a good client served", 2 * CROWD);
}

#[test]
fn ad_02_a_crowd_at_the_door_of_the_asynchronous_server() {
    let _turn = turn();
    let before = held();
    let startups = ssh_io_tokio::Startups::default();
    let server = ssh_io_tokio::Server::new(configs().1).startups(startups.clone());
    let (sender, bound) = channel();
    let serving = {
        let server = server.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                server.serve(listener, |connection, _| serve(connection)).await
            })
        })
    };
    let at = bound.recv_timeout(PATIENCE).unwrap();
    let crowd = knock(at);
    assert!(startups.count() <= ssh_io_tokio::Startups::MAX_PER_ADDRESS, "{}", startups.count());
    is_served(at);
    assert_eq!(crowd.len(), CROWD);
    drop(crowd);
    is_served(at);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server.shutdown(Duration::ZERO));
    serving.join().unwrap().unwrap();
    drop(runtime);
    back_to(before);
    survived(TOKIO, "a port scan and half-open handshakes, and a good client served", 2 * CROWD);
}

// ----- Those who ask and do not wait.

/// Requests on one channel whose answers nobody waits for; every so many of them somebody does wait.
const UNHEARD: usize = 10_000;
const HEARD_OF: usize = 16;

#[test]
fn ten_thousand_answers_that_nobody_waits_for() {
    let _turn = turn();
    let other = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    runtime().block_on(async {
        let (_line, client, _server) = logged_in(configs().0).await;
        let channel = client.open_session().await.unwrap();
        let (mut early, mut gave_up) = (0, 0);
        for n in 0..UNHEARD {
            // Some before the answer is there, and some behind it.
            let asked = polled(n % 5 + 1, channel.request(&other)).await;
            gave_up += usize::from(asked.is_none());
            if n % HEARD_OF == 0 {
                channel.request(&other).await.unwrap();
            }
            if n == UNHEARD / 100 {
                early = live();
            }
        }
        channel.request(&other).await.unwrap();
        assert!(gave_up > UNHEARD / 2, "{gave_up}");
        let late = live();
        assert!(late <= early + NO_GROWTH, "{early} bytes early, {late} late");
    });
    given_up(TOKIO, "requests on one channel", UNHEARD);
    comes_back(move || {
        let (_line, client, _server) = blocking(configs().0);
        let channel = client.open_session().unwrap();
        let (mut early, mut gave_up) = (0, 0);
        for n in 0..UNHEARD {
            channel.set_timeout(Some(Duration::ZERO));
            gave_up += usize::from(channel.request(&other).is_err());
            channel.set_timeout(None);
            if n % HEARD_OF == 0 {
                channel.request(&other).unwrap();
            }
            if n == UNHEARD / 100 {
                early = live();
            }
        }
        channel.request(&other).unwrap();
        assert!(gave_up > UNHEARD / 2, "{gave_up}");
        let late = live();
        assert!(late <= early + NO_GROWTH, "{early} bytes early, {late} late");
    });
    given_up(STD, "requests on one channel", UNHEARD);
}
