//! Those who wait for data: who is woken, by whom, and what nobody holds up.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ssh_io_tokio::{Channel, Client, Error};
use ssh_proto::{
    ChannelEvent, ChannelId, ChannelRequestKind, CloseReason, Server, ServerEvent, StderrMode, Stream,
    WriteError,
};
use ssh_tests::{End, null_client, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gate::Writes;
use crate::rig::{
    PASSWORD, Rig, Start, at_once, check, connected, doorman, logged_in, newest, poll_once, start, talk,
    within,
};

#[tokio::test(start_paused = true)]
async fn two_readers_of_one_stderr_are_both_woken() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    let readers = [channel.stderr(), channel.stderr()].map(|mut stderr| {
        tokio::spawn(async move {
            let mut got = String::new();
            stderr.read_to_string(&mut got).await.unwrap();
            got
        })
    });
    tokio::task::yield_now().await;
    remote.with(|end| end.conn.channel(id).unwrap().write(Stream::Stderr, b"who is first?")).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    remote.with(|end| end.conn.channel(id).unwrap().eof()).unwrap();
    let mut got = String::new();
    for reader in readers {
        got += &within(reader).await.unwrap();
    }
    assert_eq!(got, "who is first?");
}

/// Longer than a lock is held: a bound on failure, not a measure.
const STUCK: Duration = Duration::from_secs(10);

/// A waker that uses the client, when woken and when dropped. So may any: an executor's wakers run its code,
/// and the last one drops its task, with all the handles in it.
struct Nosy {
    client: Client,
    woken: AtomicBool,
    found_locked: Arc<AtomicBool>,
}

impl Nosy {
    fn new(client: &Client, found_locked: &Arc<AtomicBool>) -> Arc<Self> {
        let (client, found_locked) = (client.clone(), Arc::clone(found_locked));
        Arc::new(Self { client, woken: AtomicBool::new(false), found_locked })
    }

    fn look(&self) {
        let ((sender, receiver), client) = (mpsc::channel(), self.client.clone());
        std::thread::spawn(move || sender.send(client.rekeys()));
        let locked = receiver.recv_timeout(STUCK).is_err();
        self.found_locked.fetch_or(locked, Ordering::SeqCst);
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.look();
        self.woken.store(true, Ordering::SeqCst);
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

/// Polls with a waker of its own; the future is not ready.
fn poll_with(future: std::pin::Pin<&mut impl Future>, nosy: Arc<Nosy>) {
    let waker = Waker::from(nosy);
    assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
}

#[tokio::test(start_paused = true)]
async fn wakers_are_woken_and_dropped_with_nothing_locked() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    let locked = Arc::new(AtomicBool::new(false));
    let mut buffer = [0; 9];
    let (mut stderr, other) = (channel.stderr(), client.open_session().await.unwrap());
    {
        let mut read = pin!(channel.read(&mut buffer));
        let mut wait = pin!(other.wait());
        // Replaced, and with that dropped for good.
        poll_with(read.as_mut(), Nosy::new(&client, &locked));
        poll_with(wait.as_mut(), Nosy::new(&client, &locked));
        let (reader, waiter) = (Nosy::new(&client, &locked), Nosy::new(&client, &locked));
        poll_with(read.as_mut(), Arc::clone(&reader));
        poll_with(wait.as_mut(), Arc::clone(&waiter));
        remote.with(|end| end.conn.channel(id).unwrap().write(Stream::Data, b"data")).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(reader.woken.load(Ordering::SeqCst) && !waiter.woken.load(Ordering::SeqCst));
        assert_eq!(within(read).await.unwrap(), 4);
        assert_eq!(Arc::strong_count(&reader), 1, "it was taken out to be woken");
        assert_eq!(Arc::strong_count(&waiter), 2, "it waits");
    }
    // Left behind by calls that were given up: by one just now, and by a read, whose handle goes.
    poll_with(pin!(stderr.read(&mut buffer)), Nosy::new(&client, &locked));
    drop(stderr);
    poll_with(pin!(channel.read(&mut buffer)), Nosy::new(&client, &locked));
    drop(channel);
    // And by all who are there at the end.
    let mut wait = pin!(other.wait());
    let last = Nosy::new(&client, &locked);
    poll_with(wait.as_mut(), Arc::clone(&last));
    client.close();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(last.woken.load(Ordering::SeqCst));
    assert!(within(wait).await.is_err());
    assert!(!locked.load(Ordering::SeqCst), "a waker met the lock");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_leaves_no_waker_behind() {
    let Rig { client, .. } = connected(doorman).await;
    let locked = Arc::new(AtomicBool::new(false));
    let waker = Nosy::new(&client, &locked);
    for _ in 0..3 {
        poll_with(pin!(client.auth_password("me", PASSWORD)), Arc::clone(&waker));
        assert_eq!(Arc::strong_count(&waker), 1);
    }
    let Rig { client, .. } = logged_in(doorman).await;
    let channel = client.open_session().await.unwrap();
    for _ in 0..3 {
        poll_with(pin!(channel.wait()), Arc::clone(&waker));
        poll_with(pin!(client.open_session()), Arc::clone(&waker));
        poll_with(pin!(channel.stderr().read(&mut [0; 9])), Arc::clone(&waker));
        assert_eq!(Arc::strong_count(&waker), 1);
    }
}

/// Floods a channel whose program is `flood`, and talks on others.
fn flood() -> impl FnMut(&mut End<Server>) + Send + 'static {
    let mut flooded: Option<(ChannelId, usize)> = None;
    move |end: &mut End<Server>| {
        let flood = |event: &ServerEvent| {
            matches!(event, ServerEvent::Channel(_, ChannelEvent::Request(request))
                if *request.kind() == ChannelRequestKind::exec("flood"))
        };
        if let Some(at) = end.events.iter().position(flood)
            && let Some(ServerEvent::Channel(id, ChannelEvent::Request(request))) = end.events.remove(at)
        {
            end.conn.reply_request(request, true).unwrap();
            flooded = Some((id, FLOOD));
        }
        while let Some((id, left)) = &mut flooded {
            let mut channel = end.conn.channel(*id).unwrap();
            match channel.write(Stream::Data, &vec![1; (*left).min(100_000)]) {
                Ok(n) => *left -= n,
                Err(WriteError::Blocked) => break,
                Err(error) => panic!("{error}"),
            }
            if *left == 0 {
                channel.close();
                flooded = None;
            }
        }
        talk(end);
    }
}

/// More than its window and all buffers on the way take.
const FLOOD: usize = 8 << 20;

#[tokio::test(start_paused = true)]
async fn a_channel_nobody_reads_holds_up_no_other() {
    let Rig { client, .. } = logged_in(flood()).await;
    let mut unread = client.open_session().await.unwrap();
    within(unread.exec("flood")).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        check(&client).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut got = Vec::new();
    at_once(unread.read_to_end(&mut got)).await.unwrap();
    assert!(got.len() == FLOOD && got.iter().all(|byte| *byte == 1), "{}", got.len());
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_the_peers_window_and_is_woken_by_it() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    remote.with(|end| end.policy.read = false);
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| i as u8).collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        channel.write_all(&sent).await.unwrap();
        channel.shutdown().await.unwrap();
        channel
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sending.is_finished());
    remote.with(|end| {
        end.policy.read = true;
        end.read(id, Stream::Data);
    });
    let channel = at_once(sending).await.unwrap();
    at_once(remote.until(|end| (end.bytes(id, Stream::Data).len() == expected.len()).then_some(()))).await;
    assert!(remote.with(|end| end.bytes(id, Stream::Data) == expected));
    drop(channel);
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_all_time_is_no_limit() {
    let client = null_client().with_limits(|limits| {
        (limits.write_stall, limits.linger, limits.ident_timeout) =
            (Duration::MAX, Duration::MAX, Duration::MAX);
        limits.idle_timeout = Some(Duration::MAX);
    });
    let Rig { client, driver, .. } = start(client, null_server(), talk).log_in().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    check(&client).await;
    client.close();
    assert!(matches!(within(driver).await.unwrap(), CloseReason::Local(_)));
}

/// A channel whose window is full of stderr that nobody reads.
async fn full_of_stderr(rig: &Rig) -> (Channel, ChannelId, usize) {
    let channel = rig.client.open_session().await.unwrap();
    let id = newest(&rig.remote).await;
    let (piece, mut sent) = ([b'e'; 100_000], 0);
    loop {
        let write = |end: &mut End<Server>| end.conn.channel(id).unwrap().write(Stream::Stderr, &piece);
        match rig.remote.with(write) {
            Ok(n) => sent += n,
            // The output is full, or the window is.
            Err(WriteError::Blocked) if rig.remote.with(|end| end.conn.output().is_empty()) => break,
            Err(WriteError::Blocked) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    // All of it arrives.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(rig.remote.with(write_more(id)).is_err());
    (channel, id, sent)
}

fn write_more(id: ChannelId) -> impl Fn(&mut End<Server>) -> Result<usize, WriteError> {
    move |end| end.conn.channel(id).unwrap().write(Stream::Data, b"on")
}

#[tokio::test(start_paused = true)]
async fn stderr_thrown_away_late_lets_the_peer_go_on() {
    let rig = logged_in(doorman).await;
    let (mut channel, id, _) = full_of_stderr(&rig).await;
    let mut got = [0; 2];
    let reading = {
        let mut reader = channel.clone();
        tokio::spawn(async move { reader.read(&mut [0; 9]).await.unwrap() })
    };
    tokio::task::yield_now().await;
    channel.set_stderr(StderrMode::Discard);
    // The driver is told: nobody else calls.
    at_once(rig.remote.until(|end| write_more(id)(end).ok())).await;
    rig.remote.with(|_| ());
    assert_eq!(at_once(reading).await.unwrap(), 2);
    assert!(rig.remote.with(write_more(id)).is_ok());
    at_once(channel.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"on");
}

#[tokio::test(start_paused = true)]
async fn stderr_combined_late_wakes_who_reads_data_and_lets_the_peer_go_on() {
    for pending in [true, false] {
        let rig = logged_in(doorman).await;
        let (channel, id, sent) = full_of_stderr(&rig).await;
        let mut reader = channel.clone();
        let reading = async move {
            let (mut buffer, mut left) = (vec![0; 100_000], sent);
            while left > 0 {
                let n = reader.read(&mut buffer).await.unwrap();
                assert!(n > 0 && buffer[..n].iter().all(|byte| *byte == b'e'));
                left -= n;
            }
            reader
        };
        let mut reader = if pending {
            let reading = tokio::spawn(reading);
            tokio::task::yield_now().await;
            channel.set_stderr(StderrMode::Combined);
            at_once(reading).await.unwrap()
        } else {
            channel.set_stderr(StderrMode::Combined);
            at_once(reading).await
        };
        at_once(rig.remote.until(|end| write_more(id)(end).ok())).await;
        rig.remote.with(|_| ());
        let mut got = [0; 2];
        at_once(reader.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"on");
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_are_what_reads_give() {
    let rig = logged_in(talk).await;
    let mut channel = rig.client.open_session().await.unwrap();
    channel.exec("talk").await.unwrap();
    assert_eq!(channel.read_chunk(0).await.unwrap().as_deref(), Some(&b""[..]));
    for expected in [&b"ou"[..], b"t"] {
        assert_eq!(at_once(channel.read_chunk(2)).await.unwrap().as_deref(), Some(expected));
    }
    let mut stderr = channel.stderr();
    assert_eq!(at_once(stderr.read_chunk(usize::MAX)).await.unwrap().as_deref(), Some(&b"err"[..]));
    assert_eq!(at_once(stderr.read_chunk(1)).await.unwrap(), None);
    let (mut reader, _writer) = channel.split();
    assert_eq!(at_once(reader.read_chunk(1)).await.unwrap(), None);
    // Whoever waits in vain is told why, and one that is dropped has taken nothing.
    let mut quiet = at_once(rig.client.open_session()).await.unwrap();
    let id = newest(&rig.remote).await;
    assert!(poll_once(pin!(quiet.read_chunk(9))).await.is_none());
    rig.remote.with(|end| end.conn.channel(id).unwrap().write(Stream::Data, b"late").unwrap());
    assert_eq!(at_once(quiet.read_chunk(9)).await.unwrap().as_deref(), Some(&b"late"[..]));
    let waiting = tokio::spawn(async move { quiet.read_chunk(9).await });
    tokio::task::yield_now().await;
    rig.client.close();
    assert!(matches!(at_once(waiting).await.unwrap(), Err(Error::Closed(_))));
}

/// A waker that counts.
#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_is_woken_by_that_alone() {
    let Rig { client, driver, .. } = logged_in(talk).await;
    let woken = Arc::new(Counts::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut closed = pin!(client.closed());
    assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..10 {
        check(&client).await;
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    client.close();
    let reason = within(driver).await.unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(at_once(closed).await, reason);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_what_is_there_does_not_wake_the_driver_though_output_waits() {
    let Start { connecting, driver, remote, switch } = start(null_client(), null_server(), doorman);
    let (mut driver, polls) = (Box::pin(driver.run()), Arc::new(Counts::default()));
    let count = Arc::clone(&polls);
    tokio::spawn(std::future::poll_fn(move |cx| {
        count.0.fetch_add(1, Ordering::SeqCst);
        driver.as_mut().poll(cx)
    }));
    let client = at_once(connecting.finish()).await.unwrap();
    at_once(client.auth_password("me", PASSWORD)).await.unwrap();
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    remote.with(|end| end.conn.channel(id).unwrap().write(Stream::Data, &[7; 1000])).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    switch.set(Writes::Stall);
    channel.write_all(b"output").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = polls.0.load(Ordering::SeqCst);
    for _ in 0..1000 {
        assert_eq!(channel.read_u8().await.unwrap(), 7);
        tokio::task::yield_now().await;
    }
    assert_eq!(polls.0.load(Ordering::SeqCst), before);
}
