//! A client of the adapter, its driver, and the server it talks to.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ssh_io_tokio::{Client, Connecting, Driver, HostKeys};
use ssh_proto::{
    AuthMethods, AuthProof, AuthVerdict, ChannelEvent, ChannelId, ChannelRequestKind, ClientConfigBuilder,
    CloseReason, ExitStatus, Server, ServerConfigBuilder, ServerEvent, Stream,
};
use ssh_tests::{Answer, End, Policy, null_client, null_server};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::gate::{Gated, Switch};
use crate::remote::Remote;

pub(crate) const PASSWORD: &str = "correct horse";

/// What a transport holds between the sides.
const PIPE: usize = 16 * 1024;

/// Shorter than the deadlines of requests, logins and writes, which would free who waits in vain, and longer
/// than all that is to happen. Time is that of the runtime, and jumps.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what has to come.
#[track_caller]
pub(crate) fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("nothing came of what {caller} waits for"),
        }
    }
}

/// Waits for what has to come without any time passing: nobody overlooks that there is work to do until a
/// deadline reminds him.
#[track_caller]
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let (caller, future) = (std::panic::Location::caller(), within(future));
    async move {
        let began = Instant::now();
        let value = future.await;
        assert_eq!(began.elapsed(), Duration::ZERO, "something was overlooked at {caller}");
        value
    }
}

/// Polls a future once.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Two sides whose handshake has not begun.
pub(crate) struct Start {
    pub(crate) connecting: Connecting,
    pub(crate) driver: Driver<Gated<DuplexStream>>,
    pub(crate) remote: Remote,
    pub(crate) switch: Switch,
}

/// A connection, and both its ends.
pub(crate) struct Rig {
    pub(crate) client: Client,
    pub(crate) driver: JoinHandle<CloseReason>,
    pub(crate) remote: Remote,
    pub(crate) switch: Switch,
}

/// A client of this configuration, and a server with this application.
pub(crate) fn start(
    client: ClientConfigBuilder,
    server: ServerConfigBuilder,
    app: impl FnMut(&mut End<Server>) + Send + 'static,
) -> Start {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let policy = Policy { auth: Answer::Keep, request: Answer::Keep, ..Policy::default() };
    let remote = Remote::start(server.build().unwrap(), policy, app, theirs);
    let switch = Switch::default();
    let builder = Client::with_config(client.build().unwrap()).host_keys(HostKeys::DangerousAcceptAny);
    // There is no file to wait for.
    let mut starting = Box::pin(builder.start("test", 22, Gated(ours, switch.clone())));
    let Poll::Ready(started) = starting.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for something");
    };
    let (connecting, driver) = started.unwrap();
    Start { connecting, driver, remote, switch }
}

impl Start {
    pub(crate) async fn connect(self) -> Rig {
        let Self { connecting, driver, remote, switch } = self;
        let driver = tokio::spawn(driver.run());
        let client = at_once(connecting.finish()).await.unwrap();
        Rig { client, driver, remote, switch }
    }

    pub(crate) async fn log_in(self) -> Rig {
        let rig = self.connect().await;
        at_once(rig.client.auth_password("me", PASSWORD)).await.unwrap();
        rig
    }
}

/// Connected, to a server with this application.
pub(crate) async fn connected(app: impl FnMut(&mut End<Server>) + Send + 'static) -> Rig {
    start(null_client(), null_server(), app).connect().await
}

/// Connected and logged in, to a server with this application.
pub(crate) async fn logged_in(app: impl FnMut(&mut End<Server>) + Send + 'static) -> Rig {
    start(null_client(), null_server(), app).log_in().await
}

/// Lets in whoever knows the password or has a key, and frees channels that are over. All other questions are
/// the test's.
pub(crate) fn doorman(end: &mut End<Server>) {
    for event in std::mem::take(&mut end.events) {
        match event {
            ServerEvent::Auth(request) => {
                let ok = match request.proof() {
                    AuthProof::Password(password) => password.matches(PASSWORD),
                    proof => matches!(proof, AuthProof::PublicKey { .. }),
                };
                let refusal = AuthVerdict::Reject { next: AuthMethods::default() };
                let verdict = if ok { AuthVerdict::Accept } else { refusal };
                let _ = end.conn.reply_auth(request, verdict);
            }
            ServerEvent::Channel(id, ChannelEvent::Closed) => {
                end.read(id, Stream::Data);
                if let Ok(channel) = end.conn.channel(id) {
                    channel.release();
                }
            }
            other => end.events.push_back(other),
        }
    }
}

/// As the [`doorman`], and answers whoever runs something with a few words. Other requests are granted when
/// their name is `yes`.
pub(crate) fn talk(end: &mut End<Server>) {
    doorman(end);
    for event in std::mem::take(&mut end.events) {
        let ServerEvent::Channel(id, ChannelEvent::Request(request)) = event else {
            end.events.push_back(event);
            continue;
        };
        if !matches!(request.kind(), ChannelRequestKind::Exec(_)) {
            let ok = matches!(request.kind(), ChannelRequestKind::Other { name, .. } if name == "yes");
            let _ = end.conn.reply_request(request, ok);
            continue;
        }
        let _ = end.conn.reply_request(request, true);
        say(end, id);
    }
}

/// A few words on both streams, and the end.
pub(crate) fn say(end: &mut End<Server>, id: ChannelId) {
    let Ok(mut channel) = end.conn.channel(id) else { return };
    // A client that is gone does not listen.
    let _ = channel.write(Stream::Data, b"out");
    let _ = channel.write(Stream::Stderr, b"err");
    let _ = channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(5)), false);
    channel.close();
}

/// Runs something on a connection, which works.
pub(crate) async fn check(client: &Client) {
    let output = at_once(client.exec("talk")).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!(output.status, Some(ExitStatus::Code(5)));
}

/// The only channel of the server that was not accepted before.
pub(crate) async fn newest(remote: &Remote) -> ChannelId {
    remote.with(|end| *end.accepted.last().unwrap())
}
