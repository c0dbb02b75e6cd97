//! Tasks that never have to wait, and the turns of others.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ssh_io_tokio::{Client, HostKeys};
use ssh_proto::{CloseReason, Stream};
use ssh_tests::{Answer, Policy, null_client, null_server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::gate::{Gated, Manner};
use crate::remote::Remote;
use crate::rig::{PASSWORD, Rig, at_once, doorman, logged_in, newest, poll_once, start, within};

/// How many turns another task has while this is worked on.
async fn turns_of_others(work: impl Future<Output = ()>) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    work.await;
    other.abort();
    turns.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn whoever_never_has_to_wait_still_lets_others_have_their_turn() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    remote.with(|end| end.conn.channel(id).unwrap().write(Stream::Data, &[7; 10_000])).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let reading = turns_of_others(async {
        for _ in 0..10_000 {
            assert_eq!(channel.read_u8().await.unwrap(), 7);
        }
    });
    assert!(reading.await > 10);
    let writing = turns_of_others(async {
        for _ in 0..1000 {
            channel.write_u8(7).await.unwrap();
        }
    });
    assert!(writing.await > 5);
}

/// More channels than a task is served on before others have their turn.
const MANY: usize = 200;

#[tokio::test(start_paused = true)]
async fn a_task_may_wait_for_any_number_of_streams() {
    let client = null_client().with_limits(|limits| limits.max_channels = MANY);
    let server = null_server().with_limits(|limits| limits.max_channels = MANY);
    let Rig { client, remote, .. } = start(client, server, doorman).log_in().await;
    let mut channels = Vec::new();
    for _ in 0..MANY {
        channels.push(client.open_session().await.unwrap());
    }
    let last = newest(&remote).await;
    let mut polls = 0;
    let mut served = pin!(poll_fn(|cx| {
        polls += 1;
        assert!(polls < 100, "it is asked again and again, and the last is not");
        for (at, channel) in channels.iter_mut().enumerate() {
            let mut bytes = [0; 9];
            let mut buf = ReadBuf::new(&mut bytes);
            if let Poll::Ready(read) = Pin::new(channel).poll_read(cx, &mut buf) {
                read.unwrap();
                return Poll::Ready((at, buf.filled().to_vec()));
            }
        }
        Poll::Pending
    }));
    assert_eq!(poll_once(served.as_mut()).await, None);
    remote.with(|end| end.conn.channel(last).unwrap().write(Stream::Data, b"data")).unwrap();
    assert_eq!(within(served).await, (MANY - 1, b"data".to_vec()));
}

/// A transport that is never waited for: behind a peer's first words its reads are interrupted, until it ends, and a
/// write takes a byte.
struct Restless {
    over: Arc<AtomicBool>,
    calls: usize,
    greeting: &'static [u8],
}

/// More than a driver may do before others have their turn.
const TOO_MANY: usize = 200;

impl Restless {
    fn called(&mut self) -> bool {
        let over = self.over.load(Ordering::SeqCst);
        self.calls += 1;
        assert!(over || self.calls < TOO_MANY, "nobody else has a turn");
        over
    }
}

impl AsyncRead for Restless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let greeting = std::mem::take(&mut self.greeting);
        buf.put_slice(greeting);
        match self.called() || !greeting.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
        }
    }
}

impl AsyncWrite for Restless {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.called();
        Poll::Ready(Ok(1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_transport_is_always_ready_lets_others_have_their_turn() {
    // Where the peer says something, what is offered takes more writes than a turn may.
    for greeting in ["", "SSH-2.0-x\r\n"] {
        let over = Arc::new(AtomicBool::new(false));
        let transport = Restless { over: Arc::clone(&over), calls: 0, greeting: greeting.as_bytes() };
        let (connecting, driver) = Client::builder().start("test", 22, transport).await.unwrap();
        tokio::spawn(async move { over.store(true, Ordering::SeqCst) });
        assert_eq!(within(driver.run()).await, CloseReason::Eof);
        drop(connecting);
    }
}

/// How much a transport took between looks for input.
#[derive(Clone, Default)]
struct Bursts(Arc<Mutex<Vec<usize>>>);

impl Manner for Bursts {
    fn read(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().push(0);
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, bytes: &[u8]) {
        if let Some(burst) = self.0.lock().unwrap().last_mut() {
            *burst += bytes.len();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_leaves_at_once_in_whatever_pieces() {
    const MUCH: usize = 200_000;
    let (ours, theirs) = tokio::io::duplex(2 * MUCH);
    let bursts = Bursts::default();
    let policy = Policy { auth: Answer::Keep, request: Answer::Keep, ..Policy::default() };
    let _remote = Remote::start(null_server().build().unwrap(), policy, doorman, theirs);
    let builder = Client::with_config(null_client().build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
    let client = at_once(builder.connect_over("test", 22, Gated(ours, bursts.clone()))).await.unwrap();
    at_once(client.auth_password("me", PASSWORD)).await.unwrap();
    let mut channel = client.open_session().await.unwrap();
    for _ in 0..5 {
        *bursts.0.lock().unwrap() = vec![0];
        assert_eq!(channel.write(&[7; MUCH]).await.unwrap(), MUCH);
        at_once(channel.flush()).await.unwrap();
        let most = bursts.0.lock().unwrap().iter().copied().max();
        assert!(most >= Some(MUCH), "{most:?}");
    }
}
