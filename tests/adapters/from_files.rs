//! What reads files on threads of its own, given up at each poll, and used on afterwards.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ssh_io_tokio::{Client, Driver, Error, HostKeys, ServerConnection, read_key_file};
use ssh_proto::AuthError;
use ssh_tests::{rustcrypto_client, rustcrypto_server};
use tokio::runtime::{Builder, Handle};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::line::{FaultyStream, Line};
use crate::over_tokio::{serve, talk};
use crate::session::{COMPLAINT, DATA, STATUS, configs};
use crate::tally::{PATIENCE, TOKIO, given_up, turn};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ssh-proto/src/keys/testdata/ed25519");

/// More polls than any of these futures takes.
const ENOUGH: usize = 1000;

/// Polls a future so often, and drops it right behind the last one if it is not ready by then. Between two polls the
/// one thread for what blocks does what it has to do, which is real work and takes real time.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for poll in 0..polls {
        if poll > 0 {
            spawn_blocking(|| ()).await.unwrap();
        }
        let once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx)));
        if let Poll::Ready(output) = once.await {
            return Some(output);
        }
    }
    None
}

/// Has `attempt` make a future and drop it at its poll of each number, until it is ready before.
fn every_poll(what: &str, least: usize, attempt: impl AsyncFn(usize) -> bool) {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().event_interval(1).max_blocking_threads(1).build().unwrap();
    let mut points = 0;
    while !runtime.block_on(async { timeout(PATIENCE, attempt(points)).await.expect(what) }) {
        points += 1;
        assert!(points < ENOUGH, "{what} is not ready after {ENOUGH} polls");
    }
    assert!(points >= least, "{what}: {points} of at least {least}");
    given_up(TOKIO, what, points);
}

/// A file of known hosts, gone with this.
struct Known(PathBuf);

impl Known {
    fn new() -> Self {
        let known = Self(std::env::temp_dir().join(format!("ssh-adapters-{}", std::process::id())));
        known.forget();
        known
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(&self.0);
    }

    fn accept_new(&self) -> HostKeys {
        HostKeys::AcceptNew { file: self.0.clone(), hash: false }
    }

    fn known(&self) -> HostKeys {
        HostKeys::KnownHosts(self.0.clone())
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.forget();
    }
}

/// However long what blocks takes.
async fn nothing_is_left(line: &Arc<Line>) {
    while Handle::current().metrics().num_alive_tasks() > 0 {
        spawn_blocking(|| ()).await.unwrap();
    }
    assert_eq!(Arc::strong_count(line), 1);
}

fn serving(stream: FaultyStream) {
    let (server, driver) = ServerConnection::start(configs().1, stream);
    tokio::spawn(driver.run());
    tokio::spawn(serve(server));
}

/// Logs in, runs a program, and leaves.
async fn session(client: Client) {
    client.auth_password("me", "x").await.unwrap();
    let whole = talk(client.open_session().await.unwrap()).await.unwrap();
    assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
    client.close();
    client.closed().await;
}

async fn connects(host_keys: HostKeys, polls: usize) -> bool {
    let (line, ours, theirs) = Line::pair(Default::default());
    serving(theirs);
    let builder = Client::with_config(configs().0).host_keys(host_keys);
    let client = polled(polls, builder.connect_over("test", 22, ours)).await.map(Result::unwrap);
    let done = client.is_some();
    if let Some(client) = client {
        session(client).await;
    }
    nothing_is_left(&line).await;
    done
}

#[test]
fn connecting_by_known_hosts() {
    let _turn = turn();
    let known = Known::new();
    // A file is read before the connection begins, and again, and written, when the key is there.
    every_poll("connect to a new host", 4, async |polls| {
        known.forget();
        let done = connects(known.accept_new(), polls).await;
        // It may be recorded by now, but is no other.
        assert!(connects(known.accept_new(), ENOUGH).await);
        assert!(connects(known.known(), ENOUGH).await);
        done
    });
    every_poll("connect to a known host", 4, async |polls| {
        let done = connects(known.known(), polls).await;
        assert!(connects(known.known(), ENOUGH).await);
        done
    });
    every_poll("start", 1, async |polls| {
        let (line, ours, theirs) = Line::pair(Default::default());
        serving(theirs);
        let builder = Client::with_config(configs().0).host_keys(known.known());
        let started = polled(polls, builder.start("test", 22, ours)).await.map(Result::unwrap);
        let done = started.is_some();
        if let Some((connecting, driver)) = started {
            let driver: Driver<FaultyStream> = driver;
            tokio::spawn(driver.run());
            session(connecting.finish().await.unwrap()).await;
        }
        nothing_is_left(&line).await;
        done
    });
}

#[test]
fn logging_in_by_a_key_file() {
    let _turn = turn();
    every_poll("read_key_file", 1, async |polls| {
        let key = polled(polls, read_key_file(KEY, None)).await.map(Result::unwrap);
        key.is_some_and(|key| key.public.key_type() == "ssh-ed25519")
    });
    every_poll("auth_key_file", 2, async |polls| {
        let (line, ours, theirs) = Line::pair(Default::default());
        let (server, driver) = ServerConnection::start(rustcrypto_server().build().unwrap(), theirs);
        tokio::spawn(driver.run());
        tokio::spawn(serve(server));
        let builder = Client::with_config(rustcrypto_client().build().unwrap());
        let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
        let client = builder.connect_over("test", 22, ours).await.unwrap();
        let done = polled(polls, client.auth_key_file("me", KEY, None)).await.map(Result::unwrap).is_some();
        // What was asked for may have been granted meanwhile.
        match client.auth_key_file("me", KEY, None).await {
            Ok(()) | Err(Error::Auth(AuthError::Done)) => {}
            Err(error) => panic!("{error}"),
        }
        let whole = talk(client.open_session().await.unwrap()).await.unwrap();
        assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
        client.close();
        client.closed().await;
        drop(client);
        nothing_is_left(&line).await;
        done
    });
}
