//! The server of `ssh-io-tokio`, with its own client, over loopback sockets.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ssh_io_tokio::{
    Asked, Channel, Client, ClientBuilder, Error, HostKeys, OsEntropy, Server, ServerChannel,
    ServerConnection,
};
use ssh_proto::adapter::Startups;
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthMethods, AuthProof, AuthVerdict, ChannelConfig, ChannelKind, ChannelRequestKind, CloseReason,
    DisconnectCode, ExitStatus, OpenFailure, OpenFailureCode, ServerConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A bound on failure, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse";

/// Lets in whoever has the password; echoes, talks to both streams, and connects to loopback ports.
async fn answer(connection: ServerConnection) {
    let mut sessions: Vec<ServerChannel> = Vec::new();
    while let Some(asked) = connection.asked().await {
        match asked {
            Asked::Auth(question) => {
                let right = matches!(question.proof(), AuthProof::Password(given) if given.matches(PASSWORD));
                let next = AuthMethods::PASSWORD;
                let verdict = if right { AuthVerdict::Accept } else { AuthVerdict::Reject { next } };
                let _ = question.reply(verdict);
            }
            Asked::Open(question) => match question.kind().clone() {
                ChannelKind::Session => sessions.extend(question.accept(ChannelConfig::default())),
                ChannelKind::DirectTcpip { port, .. } => {
                    tokio::spawn(async move {
                        match TcpStream::connect(("127.0.0.1", port)).await {
                            Ok(mut stream) => {
                                let mut channel = question.accept(ChannelConfig::default()).unwrap();
                                let _ = copy_bidirectional(&mut channel, &mut stream).await;
                            }
                            Err(_) => {
                                let why =
                                    OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no one is there");
                                question.reject(why).unwrap();
                            }
                        }
                    });
                }
                _ => drop(question),
            },
            Asked::Request(question) => {
                let at = sessions.iter().position(|channel| channel.id() == question.channel());
                let (Some(at), ChannelRequestKind::Exec(command)) = (at, question.kind().clone()) else {
                    continue;
                };
                if command == b"panic" {
                    panic!("whoever answers panics, as the test asks it to");
                }
                question.reply(true).unwrap();
                tokio::spawn(run(sessions.swap_remove(at), command));
            }
            _ => {}
        }
    }
}

async fn run(channel: ServerChannel, command: Vec<u8>) {
    let mut stderr = channel.stderr();
    let (mut input, mut output) = channel.split();
    if command == b"both" {
        output.write_all(b"out").await.unwrap();
        stderr.write_all(b"err").await.unwrap();
    } else {
        copy(&mut input, &mut output).await.unwrap();
    }
    output.channel().exit(ExitStatus::Code(5)).await.unwrap();
}

struct Running {
    server: Server,
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
    fingerprint: String,
}

async fn running_with(startups: Startups) -> Running {
    running_as(startups, |connection, _| answer(connection)).await
}

async fn running_as<F: Future<Output = ()> + Send + 'static>(
    startups: Startups,
    begin: impl FnMut(ServerConnection, SocketAddr) -> F + Send + 'static,
) -> Running {
    running_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), startups, begin)
}

fn running_on<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    startups: Startups,
    begin: impl FnMut(ServerConnection, SocketAddr) -> F + Send + 'static,
) -> Running {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let fingerprint = key.public.fingerprint();
    let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
    let server = Server::new(config).startups(startups);
    let address = listener.local_addr().unwrap();
    let for_task = server.clone();
    let serving = tokio::spawn(async move { for_task.serve(listener, begin).await });
    Running { server, address, serving, fingerprint }
}

async fn running() -> Running {
    running_with(Startups::default()).await
}

impl Running {
    async fn client(&self) -> Client {
        let client = self.builder().connect("127.0.0.1", self.address.port()).await.unwrap();
        client.auth_password("me", PASSWORD).await.unwrap();
        client
    }

    fn builder(&self) -> ClientBuilder {
        let host_keys = HostKeys::Fingerprint(self.fingerprint.clone());
        Client::builder().host_keys(host_keys).connect_timeout(PATIENCE)
    }
}

/// Sends from one task what another one reads back.
async fn echo(channel: Channel, len: usize) {
    channel.exec("echo").await.unwrap();
    let (mut reader, mut writer) = channel.split();
    let sent: Vec<u8> = (0..len).map(|at| ((at * 31) >> 3) as u8).collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        // Dropped, it ends the input.
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    sending.await.unwrap();
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    assert_eq!(reader.channel().wait_exit().await.unwrap(), Some(ExitStatus::Code(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_channels_split_while_keys_are_renewed() {
    let running = running().await;
    let client = running.client().await;
    let output = client.exec("both").await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!(output.status, Some(ExitStatus::Code(5)));
    let mut echoes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        echoes.spawn(echo(client.open_session().await.unwrap(), 1 << 20));
        client.rekey();
    }
    while let Some(result) = echoes.join_next().await {
        result.unwrap();
    }
    assert!(client.rekeys() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_is_a_connection_over_a_channel() {
    let (jump, target) = (running().await, running().await);
    let outer = jump.client().await;
    let port = target.address.port();
    let channel = outer.open_direct_tcpip("127.0.0.1", port).await.unwrap();
    let inner = target.builder().connect_over("127.0.0.1", port, channel).await.unwrap();
    inner.auth_password("me", PASSWORD).await.unwrap();
    echo(inner.open_session().await.unwrap(), 3 << 20).await;
    inner.close();
    assert_eq!(inner.closed().await, CloseReason::Local(DisconnectCode::BY_APPLICATION));
    // The jump host's connection lives on.
    echo(outer.open_session().await.unwrap(), 1000).await;
    // Where nobody listens, it says so.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = outer.open_direct_tcpip("127.0.0.1", nobody).await.unwrap_err();
    assert!(
        matches!(&refused, Error::OpenFailed(why) if why.code == OpenFailureCode::CONNECT_FAILED),
        "{refused}"
    );
}

/// That the server ended the connection.
fn told(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::PeerDisconnected { code, .. } if *code == DisconnectCode::BY_APPLICATION)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_fails_takes_its_clients_along_and_tells_them() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // The same socket under a name by which it can be shut down.
    let breaks = std::net::TcpStream::from(OwnedFd::from(listener.try_clone().unwrap()));
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let running = running_on(listener, Startups::default(), |connection, _| answer(connection));
    let client = running.client().await;
    breaks.shutdown(Shutdown::Both).unwrap();
    assert_eq!(running.serving.await.unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
    let reason = timeout(PATIENCE, client.closed()).await.unwrap();
    assert!(told(&reason), "{reason:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_waits_for_clients_and_then_tells_them() {
    let running = running().await;
    let client = running.client().await;
    let channel = client.open_session().await.unwrap();
    // Nobody leaves within no time: the rest read why.
    running.server.shutdown(Duration::ZERO).await;
    running.serving.await.unwrap().unwrap();
    let error = channel.wait().await.unwrap_err();
    assert!(matches!(&error, Error::Closed(reason) if told(reason)), "{error:?}");
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_a_client_finish() {
    let running = running().await;
    let client = running.client().await;
    let channel = client.open_session().await.unwrap();
    let server = running.server.clone();
    let stopping = tokio::spawn(async move { server.shutdown(Duration::MAX).await });
    // Accepting is over before this is.
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    echo(channel, 1 << 20).await;
    client.close();
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
    running.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_shutdowns_the_one_with_less_patience_counts() {
    for first in [Duration::MAX, Duration::ZERO] {
        let running = running().await;
        let client = running.client().await;
        let server = running.server.clone();
        let stopping = tokio::spawn(async move { server.shutdown(first).await });
        // The first has begun when nobody listens any more.
        while TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let second = if first.is_zero() { Duration::MAX } else { Duration::ZERO };
        timeout(PATIENCE, running.server.shutdown(second)).await.unwrap();
        timeout(PATIENCE, stopping).await.unwrap().unwrap();
        let reason = timeout(PATIENCE, client.closed()).await.unwrap();
        assert!(matches!(reason, CloseReason::PeerDisconnected { .. }), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_so_many_places_before_it_logs_in() {
    let running = running_with(Startups::new(8, 2)).await;
    let connect = async || {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let mut first = [0; 8];
        let greeted = timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap();
        greeted.is_ok_and(|_| first.starts_with(b"SSH-2.0-")).then_some(stream)
    };
    let (first, second) = (connect().await, connect().await);
    assert!(first.is_some() && second.is_some());
    assert!(connect().await.is_none(), "hung up on");
    drop((first, second));
    // Their places are free again, and who has logged in takes none.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(loop {
            if let Ok(client) = running.builder().connect("127.0.0.1", running.address.port()).await {
                break client;
            }
        });
        clients.last().unwrap().auth_password("me", PASSWORD).await.unwrap();
    }
    for client in &clients {
        echo(client.open_session().await.unwrap(), 10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ad_12_a_panic_of_whoever_answers_ends_that_connection_alone() {
    let running = running().await;
    let (unlucky, lucky) = (running.client().await, running.client().await);
    let channel = unlucky.open_session().await.unwrap();
    let error = timeout(PATIENCE, channel.exec("panic")).await.unwrap().unwrap_err();
    // What it was asked is refused on the way out.
    assert!(matches!(error, Error::Closed(_) | Error::RequestRefused), "{error:?}");
    assert!(matches!(unlucky.closed().await, CloseReason::PeerDisconnected { .. }));
    echo(lucky.open_session().await.unwrap(), 1000).await;
    echo(running.client().await.open_session().await.unwrap(), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ad_12_a_panic_of_whoever_has_a_client_answered_ends_that_connection_alone() {
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let mut clients = 0;
    let running = running_as(Startups::default(), move |connection, _| {
        keep.send(connection.clone()).unwrap();
        clients += 1;
        assert!(clients != 2, "whoever begins with a client panics, as the test asks it to");
        answer(connection)
    });
    let running = running.await;
    let first = running.client().await;
    let unlucky = running.builder().connect("127.0.0.1", running.address.port()).await.map(drop);
    let told = |reason: &CloseReason| matches!(reason, CloseReason::PeerDisconnected { code, .. } if *code == DisconnectCode::BY_APPLICATION);
    assert!(matches!(&unlucky, Err(Error::Closed(reason)) if told(reason)), "{unlucky:?}");
    // Although a clone of it is kept.
    kept.recv().await.unwrap();
    let clone = kept.recv().await.unwrap();
    assert_eq!(clone.close_reason(), Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
    echo(first.open_session().await.unwrap(), 1000).await;
    echo(running.client().await.open_session().await.unwrap(), 1000).await;
    running.server.shutdown(Duration::ZERO).await;
    running.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ad_12_a_panic_ends_the_connection_although_a_clone_of_it_is_kept() {
    let config = ServerConfig::builder(&PROVIDER)
        .host_key(Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair())
        .build()
        .unwrap();
    let server = Server::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let answer = async move |connection: ServerConnection| {
        connection.asked().await;
        panic!("whoever answers panics, as the test asks it to");
    };
    let serving = tokio::spawn(async move {
        let begin = |connection: ServerConnection, _| {
            keep.send(connection.clone()).unwrap();
            answer(connection)
        };
        server.serve(listener, begin).await
    });
    let client = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let client = client.connect("127.0.0.1", port).await.unwrap();
    let clone = kept.recv().await.unwrap();
    let result = timeout(PATIENCE, client.auth_password("me", PASSWORD)).await.unwrap();
    assert!(result.is_err(), "{result:?}");
    timeout(PATIENCE, client.closed()).await.unwrap();
    assert_eq!(clone.close_reason(), Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_ended_keeps_its_place_until_it_is_let_go() {
    let running = running_with(Startups::new(8, 1)).await;
    let mut rude = TcpStream::connect(running.address).await.unwrap();
    rude.write_all(b"SSH-1.0-bad\r\n").await.unwrap();
    // The server is done with it, and waits for it to be gone.
    let mut said = Vec::new();
    timeout(PATIENCE, rude.read_to_end(&mut said)).await.unwrap().unwrap();
    let mut next = TcpStream::connect(running.address).await.unwrap();
    let greeted = timeout(PATIENCE, next.read_exact(&mut [0; 8])).await.unwrap();
    assert!(greeted.is_err(), "there was no place");
}

#[tokio::test]
async fn a_client_keeps_its_place_until_who_answers_it_is_over() {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let startups = Startups::new(8, 8);
    let server = Server::new(ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap());
    let server = server.startups(startups.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let done = std::sync::Arc::new(tokio::sync::Notify::new());
    let until = done.clone();
    let serving = tokio::spawn(async move {
        let begin = |connection, _| {
            keep.send(connection).unwrap();
            let done = until.clone();
            // It asks a directory that takes its time.
            async move { done.notified().await }
        };
        server.serve(listener, begin).await
    });
    drop(TcpStream::connect(address).await.unwrap());
    let connection: ServerConnection = kept.recv().await.unwrap();
    timeout(PATIENCE, connection.closed()).await.unwrap();
    // Whatever the driver has left to do is done.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(startups.count(), 1);
    done.notify_one();
    let free = async {
        while startups.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, free).await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_channel_makes_room_and_is_told() {
    let running = running().await;
    let client = running.client().await;
    // More, one after the other, than may be open at once.
    for _ in 0..100 {
        echo(client.open_session().await.unwrap(), 100).await;
    }
}
