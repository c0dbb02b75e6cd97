//! The futures of a client given up at each of their polls, on a connection that is used afterwards. Those that read
//! files are in [`from_files`](crate::from_files), those of a server's channels in [`served`](crate::served), its
//! others in [`serving`](crate::serving).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ssh_io_tokio::{Channel, Client, Driver, Error, HostKeys, ServerConnection};
use ssh_proto::{AuthError, ChannelRequestKind, CloseReason};
use ssh_tests::null_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::line::{Faults, FaultyStream, Line, Step};
use crate::over_tokio::{runtime, serve, talk};
use crate::session::{COMPLAINT, DATA, STATUS, configs};
use crate::tally::{TOKIO, given_up, turn};

/// More polls than any of these futures takes.
const ENOUGH: usize = 20_000;

/// Bytes that a transport moves at once: few, so that there is something to wait for at each step.
const STEP: usize = 2;

/// A transport that moves a little at a time, and only at every other poll; to write, at every third: behind a write a
/// driver tries another one before it lets others have their turn.
pub(crate) fn slow() -> Faults {
    let steps = |later| vec![Step::Later(later), Step::Take(STEP)];
    Faults { reads: steps(1), writes: steps(2), ..Faults::default() }
}

/// Lets one other task have its turn.
pub(crate) async fn turn_of_others() {
    let mut had = false;
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut had, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Polls a future so often, at each step of the others, and drops it if it is not ready by then.
pub(crate) async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx)));
        if let Poll::Ready(output) = once.await {
            return Some(output);
        }
        turn_of_others().await;
    }
    None
}

/// Waits for what has to come by itself.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let mut future = pin!(async {
        while !done() {
            turn_of_others().await;
        }
    });
    assert!(polled(ENOUGH, &mut future).await.is_some(), "{what} does not come");
}

/// A line of its own, and both sides, of which neither has begun.
struct Start {
    line: Arc<Line>,
    ours: FaultyStream,
    server: ServerConnection,
    server_driver: JoinHandle<CloseReason>,
}

fn start() -> Start {
    let (line, ours, theirs) = Line::pair([slow(), slow()]);
    let (server, driver) = ServerConnection::start(configs().1, theirs);
    tokio::spawn(serve(server.clone()));
    Start { line, ours, server, server_driver: tokio::spawn(driver.run()) }
}

pub(crate) fn builder() -> ssh_io_tokio::ClientBuilder {
    Client::with_config(configs().0).host_keys(HostKeys::DangerousAcceptAny)
}

/// A client that has not logged in.
pub(crate) struct Rig {
    line: Arc<Line>,
    pub(crate) client: Client,
    pub(crate) driver: JoinHandle<CloseReason>,
    pub(crate) server: ServerConnection,
    pub(crate) server_driver: JoinHandle<CloseReason>,
}

pub(crate) async fn connected() -> Rig {
    let Start { line, ours, server, server_driver } = start();
    let (connecting, driver) = builder().start("test", 22, ours).await.unwrap();
    let driver: Driver<FaultyStream> = driver;
    let driver = tokio::spawn(driver.run());
    let client = connecting.finish().await.unwrap();
    Rig { line, client, driver, server, server_driver }
}

pub(crate) async fn logged_in() -> Rig {
    let rig = connected().await;
    rig.client.auth_password("me", "x").await.unwrap();
    rig
}

impl Rig {
    /// The connection works, and nothing is left of what was given up.
    async fn goes_on(&self) {
        let whole = talk(self.client.open_session().await.unwrap()).await.unwrap();
        assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
        let channels = || self.server.memory_usage().channels + self.client.memory_usage().channels;
        until("the end of all channels", || channels() == 0).await;
    }

    /// It ends, and nothing is left of it.
    async fn ends(self) {
        let Self { line, client, driver, server, server_driver } = self;
        client.close();
        assert!(matches!(driver.await.unwrap(), CloseReason::Local(_)));
        assert!(matches!(server_driver.await.unwrap(), CloseReason::PeerDisconnected { .. }));
        drop((client, server));
        nothing_is_left(&line).await;
    }
}

pub(crate) async fn nothing_is_left(line: &Arc<Line>) {
    until("the end of all tasks", || Handle::current().metrics().num_alive_tasks() == 0).await;
    assert_eq!(Arc::strong_count(line), 1);
}

/// Has `attempt` make a future and drop it at its poll of each number, until it is ready before. There must be
/// so many such numbers, and time must not pass.
pub(crate) fn every_poll(what: &str, least: usize, attempt: impl AsyncFn(usize) -> bool) {
    let tries = async {
        let began = Instant::now();
        for polls in 0..ENOUGH {
            let done = attempt(polls).await;
            let took = began.elapsed();
            assert_eq!(took, Duration::ZERO, "something was overlooked behind poll {polls} of {what}");
            if done {
                return polls;
            }
        }
        panic!("{what} is not ready after {ENOUGH} polls");
    };
    let points = runtime().block_on(async { timeout(Duration::from_secs(3600), tries).await });
    let points = points.unwrap_or_else(|_| panic!("{what} hangs"));
    assert!(points >= least, "{what}: {points} of at least {least}");
    given_up(TOKIO, what, points);
}

/// What each side sends until the client has judged the host key, and until it is logged in, at least.
const HANDSHAKE: usize = 400;
const LOGIN: usize = 60;
/// What a channel's open, and a request, take in each direction at least.
const MESSAGE: usize = 32;

#[test]
fn connecting() {
    let _turn = turn();
    every_poll("connect", HANDSHAKE / STEP, async |polls| {
        let Start { line, ours, server, server_driver } = start();
        let Some(client) = polled(polls, builder().connect_over("test", 22, ours)).await else {
            let reason = server_driver.await.unwrap();
            assert!(matches!(reason, CloseReason::Eof | CloseReason::PeerDisconnected { .. }), "{reason}");
            drop(server);
            nothing_is_left(&line).await;
            return false;
        };
        let client = client.unwrap();
        client.auth_password("me", "x").await.unwrap();
        talk(client.open_session().await.unwrap()).await.unwrap();
        client.close();
        drop((client, server));
        server_driver.await.unwrap();
        nothing_is_left(&line).await;
        true
    });
    every_poll("connecting's finish", HANDSHAKE / STEP, async |polls| {
        let Start { line, ours, server, server_driver } = start();
        let (connecting, driver) = builder().start("test", 22, ours).await.unwrap();
        let driver = tokio::spawn(driver.run());
        let client = polled(polls, connecting.finish()).await.map(Result::unwrap);
        let done = client.is_some();
        if let Some(client) = client {
            client.auth_password("me", "x").await.unwrap();
        }
        assert!(matches!(driver.await.unwrap(), CloseReason::Local(_)));
        assert!(matches!(server_driver.await.unwrap(), CloseReason::PeerDisconnected { .. }));
        drop(server);
        nothing_is_left(&line).await;
        done
    });
}

/// Logs in when that is not done yet.
async fn log_in_after(rig: Rig) {
    match rig.client.auth_password("me", "x").await {
        Ok(()) | Err(Error::Auth(AuthError::Done)) => {}
        Err(error) => panic!("{error}"),
    }
    rig.goes_on().await;
    rig.ends().await;
}

#[test]
fn logging_in() {
    let _turn = turn();
    every_poll("auth_password", LOGIN / STEP, async |polls| {
        let rig = connected().await;
        let done = polled(polls, rig.client.auth_password("me", "x")).await.map(Result::unwrap);
        log_in_after(rig).await;
        done.is_some()
    });
    every_poll("auth_key", 2 * LOGIN / STEP, async |polls| {
        let rig = connected().await;
        let done = polled(polls, rig.client.auth_key("me", null_key(2))).await.map(Result::unwrap);
        log_in_after(rig).await;
        done.is_some()
    });
}

/// As [`every_poll`], all on one connection.
pub(crate) fn on_one(what: &str, least: usize, attempt: impl AsyncFn(&Rig, usize) -> bool) {
    let rig = std::cell::RefCell::new(None);
    every_poll(what, least, async |polls| {
        let live = match rig.take() {
            Some(live) => live,
            None => logged_in().await,
        };
        let done = attempt(&live, polls).await;
        live.goes_on().await;
        match done {
            true => live.ends().await,
            false => drop(rig.replace(Some(live))),
        }
        done
    });
}

/// As [`on_one`], on a channel each time, which is dropped when the call is done or given up.
fn on_a_channel(what: &str, least: usize, attempt: impl AsyncFn(&mut Channel, usize) -> bool) {
    on_one(what, least, async |rig, polls| {
        let mut channel = rig.client.open_session().await.unwrap();
        attempt(&mut channel, polls).await
    });
}

#[test]
fn opening_and_asking() {
    let _turn = turn();
    let message = MESSAGE / STEP;
    on_one("open_session", 2 * message, async |rig, polls| {
        polled(polls, rig.client.open_session()).await.map(Result::unwrap).is_some()
    });
    on_one("open_direct_tcpip", 2 * message, async |rig, polls| {
        polled(polls, rig.client.open_direct_tcpip("there", 7)).await.map(Result::unwrap).is_some()
    });
    on_one("a client's exec", 6 * message, async |rig, polls| {
        let output = polled(polls, rig.client.exec("program")).await.map(Result::unwrap);
        output.iter().for_each(|output| assert_eq!(output.stderr, COMPLAINT));
        output.is_some()
    });
    on_a_channel("a channel's exec", 2 * message, async |channel, polls| {
        polled(polls, channel.exec("program")).await.map(Result::unwrap).is_some()
    });
    let other = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; 100] };
    on_a_channel("request", 2 * message, async |channel, polls| {
        let done = polled(polls, channel.request(&other)).await.map(Result::unwrap);
        // The answer to the one that was given up is not that to the next.
        channel.exec("program").await.unwrap();
        done.is_some()
    });
    on_a_channel("send_request", 1, async |channel, polls| {
        let done = polled(polls, channel.send_request(&other, true)).await.map(Result::unwrap);
        channel.exec("program").await.unwrap();
        done.is_some()
    });
}

/// What it takes to come back.
async fn rest(channel: &mut Channel, mut got: Vec<u8>, sent: &[u8]) {
    channel.shutdown().await.unwrap();
    channel.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, sent);
    assert_eq!(channel.wait().await.unwrap(), Some(STATUS));
}

#[test]
fn reading_and_writing() {
    let _turn = turn();
    let message = MESSAGE / STEP;
    on_a_channel("read", 2 * message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.write_all(DATA).await.unwrap();
        let (mut got, mut piece) = (Vec::new(), [0; 7]);
        let n = polled(polls, channel.read(&mut piece)).await.map(Result::unwrap);
        got.extend_from_slice(&piece[..n.unwrap_or_default()]);
        rest(channel, got, DATA).await;
        n.is_some()
    });
    on_a_channel("stderr's read", 2 * message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.finish_input().unwrap();
        let (mut got, mut piece, mut stderr) = (Vec::new(), [0; 4], channel.stderr());
        let n = polled(polls, stderr.read(&mut piece)).await.map(Result::unwrap);
        got.extend_from_slice(&piece[..n.unwrap_or_default()]);
        stderr.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, COMPLAINT);
        n.is_some()
    });
    on_a_channel("flush", message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.write_all(DATA).await.unwrap();
        let done = polled(polls, channel.flush()).await.map(Result::unwrap);
        channel.write_all(DATA).await.unwrap();
        channel.flush().await.unwrap();
        rest(channel, Vec::new(), &DATA.repeat(2)).await;
        done.is_some()
    });
    on_a_channel("shutdown", message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.write_all(DATA).await.unwrap();
        let done = polled(polls, channel.shutdown()).await.map(Result::unwrap);
        rest(channel, Vec::new(), DATA).await;
        done.is_some()
    });
    on_a_channel("wait", 2 * message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.finish_input().unwrap();
        let status = polled(polls, channel.wait()).await.map(Result::unwrap);
        assert_eq!(channel.wait().await.unwrap(), Some(STATUS));
        status.is_some()
    });
    on_a_channel("wait_exit", 2 * message, async |channel, polls| {
        channel.exec("program").await.unwrap();
        channel.finish_input().unwrap();
        let status = polled(polls, channel.wait_exit()).await.map(Result::unwrap);
        assert_eq!(channel.wait().await.unwrap(), Some(STATUS));
        status.is_some()
    });
}

/// More than the peer's window for a channel, whose answer nobody reads at first.
const FLOOD: usize = 5 << 20;

#[test]
fn writing_into_a_full_window() {
    let _turn = turn();
    // Without hitches in the transport: the window is what is waited for.
    every_poll("write", 2, async |polls| {
        let (line, ours, theirs) = Line::pair(Default::default());
        let (server, driver) = ServerConnection::start(configs().1, theirs);
        let (serving, server_driver) = (tokio::spawn(serve(server)), tokio::spawn(driver.run()));
        let client = builder().connect_over("test", 22, ours).await.unwrap();
        client.auth_password("me", "x").await.unwrap();
        let (mut reader, mut writer) = client.open_session().await.unwrap().split();
        writer.channel().exec("program").await.unwrap();
        let (piece, mut sent) = ([7; 100_000], 0);
        while let Some(n) = polled(1000, writer.write(&piece)).await {
            sent += n.unwrap();
            assert!(sent < FLOOD, "the window has no end");
        }
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.map(|_| got.len())
        });
        let n = polled(polls, writer.write(&piece)).await.map(Result::unwrap);
        sent += n.unwrap_or_default();
        writer.write_all(b"the end").await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), sent + 7, "what was not reported as written was not");
        client.close();
        drop((writer, client));
        server_driver.await.unwrap();
        serving.await.unwrap();
        nothing_is_left(&line).await;
        n.is_some()
    });
}

#[test]
fn waiting_for_the_end() {
    let _turn = turn();
    every_poll("a client's closed", MESSAGE / STEP, async |polls| {
        let rig = logged_in().await;
        rig.goes_on().await;
        rig.client.close();
        let reason = polled(polls, rig.client.closed()).await;
        assert!(matches!(rig.client.closed().await, CloseReason::Local(_)));
        rig.ends().await;
        reason.is_some()
    });
    every_poll("a server's closed", MESSAGE / STEP, async |polls| {
        let rig = logged_in().await;
        rig.client.close();
        let reason = polled(polls, rig.server.closed()).await;
        assert!(matches!(rig.server.closed().await, CloseReason::PeerDisconnected { .. }));
        rig.ends().await;
        reason.is_some()
    });
}
