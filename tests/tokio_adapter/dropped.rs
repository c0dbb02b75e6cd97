//! Every future of the public API, dropped at each of its polls, on a connection that is used afterwards.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use ssh_io_std::{Handler, Question, ServerConnection};
use ssh_io_tokio::{Channel, Client, Error, HostKeys};
use ssh_proto::{
    AuthError, AuthRequest, AuthVerdict, ChannelRequestKind, CloseReason, ExitStatus, Stream, ToSign,
};
use ssh_tests::{null, null_client, null_key, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::remote::Remote;
use crate::rig::{
    PASSWORD, Rig, at_once, check, connected, doorman, logged_in, newest, say, start, talk, within,
};

/// More polls than any of these futures takes.
const ENOUGH: usize = 100;

/// Polls a future so often, and drops it if it is not ready by then.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (Box::pin(future), times);
    within(std::future::poll_fn(move |cx| {
        if left > 0 {
            left -= 1;
            if let Poll::Ready(value) = Pin::new(&mut future).poll(cx) {
                return Poll::Ready(Some(value));
            }
        }
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    }))
    .await
}

/// Has `attempt` make a future and drop it at its poll of each number, until it is ready before. Says at which
/// poll it was.
async fn at_every_poll(mut attempt: impl AsyncFnMut(usize) -> bool) -> usize {
    for polls in 0..ENOUGH {
        if attempt(polls).await {
            return polls;
        }
    }
    panic!("not ready after {ENOUGH} polls");
}

/// The server has no channel left: what was given up was closed.
async fn no_channel_is_left(remote: &Remote) {
    at_once(remote.until(|end| (end.conn.memory_usage().channels == 0).then_some(()))).await;
}

#[tokio::test(start_paused = true)]
async fn finish() {
    let polls = at_every_poll(async |polls| {
        let start = start(null_client(), null_server(), talk);
        let (driver, remote) = (tokio::spawn(start.driver.run()), start.remote);
        let Some(client) = polled(polls, start.connecting.finish()).await else {
            assert!(matches!(within(driver).await.unwrap(), CloseReason::Local(_)));
            let reason = within(remote.until(|end| end.closed.clone())).await;
            assert!(matches!(reason, CloseReason::PeerDisconnected { .. }), "{reason}");
            return false;
        };
        let client = client.unwrap();
        client.auth_password("me", PASSWORD).await.unwrap();
        check(&client).await;
        true
    });
    assert!(polls.await >= 2);
}

/// Lets everybody in, and tells of the end.
struct Open(mpsc::Sender<CloseReason>);

impl Handler for Open {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn closed(&mut self, reason: &CloseReason) {
        self.0.send(reason.clone()).unwrap();
    }
}

/// A bound on failure, not a measure: over a socket time is real.
const REAL_PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, (sender, receiver)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        let config = null_server().build().unwrap();
        while let Ok((stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            if ServerConnection::start(config.clone(), stream, Open(sender.clone())).is_err() {
                // It was gone before it began.
                sender.send(CloseReason::Eof).unwrap();
            }
        }
    });
    let config = null_client().build().unwrap();
    let polls = at_every_poll(async |polls| {
        let builder = Client::with_config(config.clone()).host_keys(HostKeys::DangerousAcceptAny);
        match polled(polls, builder.connect("127.0.0.1", port)).await {
            None => false,
            Some(client) => {
                client.unwrap().auth_password("me", "x").await.unwrap();
                true
            }
        }
    });
    assert!(polls.await >= 2);
    // Sockets are accepted in their order, so all of them were by now, and each has come to an end.
    let ends = accepted.load(Ordering::SeqCst);
    let all = tokio::task::spawn_blocking(move || {
        (0..ends).map(|_| receiver.recv_timeout(REAL_PATIENCE)).collect::<Result<Vec<_>, _>>()
    });
    all.await.unwrap().unwrap();
}

/// An attempt to log in that may have been given up, and what comes after it.
async fn log_in_after(client: &Client) {
    match at_once(client.auth_password("me", PASSWORD)).await {
        Ok(()) | Err(Error::Auth(AuthError::Done)) => {}
        Err(error) => panic!("{error}"),
    }
    check(client).await;
}

#[tokio::test(start_paused = true)]
async fn auth_password() {
    let polls = at_every_poll(async |polls| {
        let Rig { client, .. } = connected(talk).await;
        let done = polled(polls, client.auth_password("me", PASSWORD)).await;
        log_in_after(&client).await;
        done.map(Result::unwrap).is_some()
    });
    assert!(polls.await >= 2);
    // The answer to an attempt that was given up is not that to the next one.
    at_every_poll(async |polls| {
        let Rig { client, .. } = connected(talk).await;
        let done = polled(polls, client.auth_password("me", "wrong")).await;
        // Behind the refusal of the other, which takes its time.
        within(client.auth_password("me", PASSWORD)).await.unwrap();
        check(&client).await;
        done.map(Result::unwrap_err).is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn auth_key() {
    let polls = at_every_poll(async |polls| {
        let Rig { client, .. } = connected(talk).await;
        let done = polled(polls, client.auth_key("me", null_key(2))).await;
        log_in_after(&client).await;
        done.map(Result::unwrap).is_some()
    });
    assert!(polls.await >= 2);
    let polls = at_every_poll(async |polls| {
        let Rig { client, .. } = connected(talk).await;
        let sign = async |what: ToSign<'_>| {
            tokio::task::yield_now().await;
            Ok(null::sign(what.key(), what.message()))
        };
        let done = polled(polls, client.auth_key_with("me", null::public_key(2), sign)).await;
        log_in_after(&client).await;
        done.map(Result::unwrap).is_some()
    });
    assert!(polls.await >= 4);
}

#[tokio::test(start_paused = true)]
async fn open_session() {
    let Rig { client, remote, .. } = logged_in(talk).await;
    let polls = at_every_poll(async |polls| {
        let channel = polled(polls, client.open_session()).await;
        if let Some(channel) = channel {
            let channel = channel.unwrap();
            at_once(channel.exec("talk")).await.unwrap();
            assert_eq!(at_once(channel.wait()).await.unwrap(), Some(ExitStatus::Code(5)));
            return true;
        }
        no_channel_is_left(&remote).await;
        check(&client).await;
        false
    });
    assert!(polls.await >= 2);
}

#[tokio::test(start_paused = true)]
async fn exec() {
    let Rig { client, remote, .. } = logged_in(talk).await;
    let polls = at_every_poll(async |polls| {
        let output = polled(polls, client.exec("talk")).await;
        no_channel_is_left(&remote).await;
        check(&client).await;
        output.map(Result::unwrap).is_some()
    });
    assert!(polls.await >= 3);
}

fn named(name: &str) -> ChannelRequestKind {
    ChannelRequestKind::Other { name: name.into(), data: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn request() {
    let Rig { client, .. } = logged_in(talk).await;
    let channel = client.open_session().await.unwrap();
    for (given_up, next) in [("yes", "no"), ("no", "yes")] {
        let polls = at_every_poll(async |polls| {
            let done = polled(polls, channel.request(&named(given_up))).await;
            let answer = |name, result: &Result<(), Error>| match result {
                Ok(()) => assert_eq!(name, "yes"),
                Err(Error::RequestRefused) => assert_eq!(name, "no"),
                Err(error) => panic!("{error}"),
            };
            done.iter().for_each(|result| answer(given_up, result));
            answer(next, &at_once(channel.request(&named(next))).await);
            done.is_some()
        });
        assert!(polls.await >= 2);
    }
    let polls = at_every_poll(async |polls| {
        let sent = polled(polls, channel.send_request(&named("yes"), true)).await;
        assert!(matches!(at_once(channel.request(&named("no"))).await, Err(Error::RequestRefused)));
        sent.map(Result::unwrap).is_some()
    });
    assert_eq!(polls.await, 1, "there is room at once");
    at_once(channel.exec("talk")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn wait() {
    let Rig { client, .. } = logged_in(talk).await;
    let polls = at_every_poll(async |polls| {
        let channel = client.open_session().await.unwrap();
        channel.send_request(&ChannelRequestKind::exec("talk"), true).await.unwrap();
        let status = polled(polls, channel.wait()).await;
        assert_eq!(at_once(channel.wait()).await.unwrap(), Some(ExitStatus::Code(5)));
        status.map(Result::unwrap).is_some()
    });
    assert!(polls.await >= 2);
}

/// A channel, and its id at the server.
async fn channel(rig: &Rig) -> (Channel, ssh_proto::ChannelId) {
    (rig.client.open_session().await.unwrap(), newest(&rig.remote).await)
}

#[tokio::test(start_paused = true)]
async fn read() {
    let rig = logged_in(doorman).await;
    let polls = at_every_poll(async |polls| {
        let (mut channel, id) = channel(&rig).await;
        let saying = async {
            tokio::task::yield_now().await;
            rig.remote.with(|end| say(end, id));
        };
        let (mut got, mut piece) = (Vec::new(), [0; 2]);
        let (n, ()) = tokio::join!(polled(polls, channel.read(&mut piece)), saying);
        if let Some(n) = &n {
            got.extend_from_slice(&piece[..*n.as_ref().unwrap()]);
        }
        at_once(channel.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"out");
        let (mut got, mut stderr) = (Vec::new(), channel.stderr());
        if let Some(n) = polled(polls, stderr.read(&mut piece)).await {
            got.extend_from_slice(&piece[..n.unwrap()]);
        }
        at_once(stderr.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"err");
        n.is_some()
    });
    assert!(polls.await >= 2);
}

#[tokio::test(start_paused = true)]
async fn write() {
    let polls = at_every_poll(async |polls| {
        let rig = logged_in(doorman).await;
        let (mut channel, id) = channel(&rig).await;
        rig.remote.with(|end| end.policy.read = false);
        let mut sent = 0;
        // Until the window is spent, and a millisecond is not enough to get more.
        let full = Duration::from_millis(1);
        while let Ok(n) = tokio::time::timeout(full, channel.write(&[sent as u8; 10_000])).await {
            sent += n.unwrap();
        }
        let reading = async {
            tokio::task::yield_now().await;
            rig.remote.with(|end| {
                end.policy.read = true;
                end.read(id, Stream::Data);
            });
        };
        let (n, ()) = tokio::join!(polled(polls, channel.write(&[0; 10_000])), reading);
        let done = n.is_some();
        sent += n.map_or(0, Result::unwrap);
        at_once(channel.write_all(b"the end")).await.unwrap();
        sent += 7;
        at_once(channel.shutdown()).await.unwrap();
        let received = rig.remote.until(|end| {
            let bytes = end.bytes(id, Stream::Data);
            bytes.ends_with(b"the end").then_some(bytes.len())
        });
        assert_eq!(at_once(received).await, sent, "what was not reported as written was not");
        done
    });
    assert!(polls.await >= 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown() {
    let rig = logged_in(doorman).await;
    let polls = at_every_poll(async |polls| {
        let (mut channel, id) = channel(&rig).await;
        let done = polled(polls, channel.shutdown()).await.map(Result::unwrap).is_some();
        // Said at the first poll; what follows waits for it to leave.
        match at_once(channel.write_all(b"x")).await {
            Ok(()) => assert_eq!(polls, 0),
            Err(error) => assert!(polls > 0 && error.kind() == ErrorKind::BrokenPipe, "{error}"),
        }
        channel.shutdown().await.unwrap();
        let ended = rig.remote.until(|end| end.received.get(&(id, Stream::Data))?.end);
        at_once(ended).await;
        assert_eq!(rig.remote.with(|end| end.bytes(id, Stream::Data).len()), usize::from(polls == 0));
        done
    });
    assert_eq!(polls.await, 2);
}

#[tokio::test(start_paused = true)]
async fn flush() {
    let rig = logged_in(doorman).await;
    let polls = at_every_poll(async |polls| {
        let (mut channel, id) = channel(&rig).await;
        channel.write_all(&[1; 1000]).await.unwrap();
        let done = polled(polls, channel.flush()).await.map(Result::unwrap).is_some();
        // One that was given up does not stand for the next.
        channel.write_all(&[2; 1000]).await.unwrap();
        at_once(channel.flush()).await.unwrap();
        assert_eq!(rig.client.memory_usage().output, 0, "all has left");
        let received = rig.remote.until(|end| (end.bytes(id, Stream::Data).len() == 2000).then_some(()));
        at_once(received).await;
        done
    });
    assert_eq!(polls.await, 2);
}
