//! How connections end: stuck, broken, aborted, let go of.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ssh_io_tokio::{Channel, Client, Error};
use ssh_proto::{
    ChannelRequestKind, CloseReason, Disconnect, DisconnectCode, ExitStatus, Limits, Stream, TimeoutReason,
};
use ssh_tests::{Answer, null_client, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::gate::Writes;
use crate::remote::Remote;
use crate::rig::{
    PASSWORD, Rig, at_once, connected, doorman, logged_in, newest, poll_once, say, start, talk, within,
};

/// What the driver still waits for behind the close, so that the peer can read our last words.
const DRAIN: Duration = Duration::from_secs(2);

/// Fills what there is room for, and says how many bytes that was.
async fn fill(channel: &mut Channel) -> usize {
    let mut sent = 0;
    while let Some(n) = poll_once(pin!(channel.write(&[7; 50_000]))).await {
        sent += n.unwrap();
    }
    sent
}

/// Everything that can wait on a connection, waiting.
async fn all_who_wait(client: &Client, remote: &Remote) -> Vec<(&'static str, JoinHandle<Error>)> {
    let full = Arc::new(client.open_session().await.unwrap());
    let mut reading = client.open_session().await.unwrap();
    let mut stderr = reading.stderr();
    let mut writing = client.open_session().await.unwrap();
    remote.with(|end| (end.policy.open, end.policy.read) = (Answer::Keep, false));
    let mut tasks = vec![
        ("stderr", tokio::spawn(async move { stderr.read(&mut [0; 9]).await.unwrap_err().into() })),
        ("read", tokio::spawn(async move { reading.read(&mut [0; 9]).await.unwrap_err().into() })),
        (
            "write",
            tokio::spawn(async move { writing.write_all(&vec![0; 9 << 20]).await.unwrap_err().into() }),
        ),
    ];
    for _ in 0..2 {
        let (full, client) = (Arc::clone(&full), client.clone());
        tasks.push(("open", tokio::spawn(async move { client.open_session().await.unwrap_err() })));
        tasks.push(("request", tokio::spawn(async move { full.exec("x").await.unwrap_err() })));
    }
    let last = Arc::clone(&full);
    tasks.push(("wait", tokio::spawn(async move { last.wait().await.unwrap_err() })));
    // All have begun, and their questions are with the server.
    tokio::time::sleep(Duration::from_millis(1)).await;
    tasks
}

/// The error an I/O error was made of.
fn inner(error: Error) -> Error {
    match error {
        Error::Io(error) => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Io(error),
        },
        error => error,
    }
}

/// All who wait are told this.
async fn all_told(tasks: Vec<(&'static str, JoinHandle<Error>)>, expected: impl Fn(&Error) -> bool) {
    for (name, task) in tasks {
        let error = inner(within(task).await.unwrap());
        assert!(expected(&error), "{name}: {error:?}");
    }
}

fn short(limits: &mut Limits) {
    limits.write_stall = Duration::from_secs(10);
    limits.linger = Duration::from_secs(3);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_takes_nothing_ends_the_connection_and_all_who_wait_are_told() {
    let start = start(null_client().with_limits(short), null_server(), doorman);
    let Rig { client, driver, switch, remote } = start.log_in().await;
    let tasks = all_who_wait(&client, &remote).await;
    switch.set(Writes::Stall);
    client.rekey();
    let began = Instant::now();
    let reason = within(driver).await.unwrap();
    assert_eq!(reason, CloseReason::TimedOut(TimeoutReason::WriteStall));
    assert!(began.elapsed() <= 2 * Duration::from_secs(10) + Duration::from_secs(3) + DRAIN);
    all_told(tasks, |error| matches!(error, Error::Closed(CloseReason::TimedOut(TimeoutReason::WriteStall))))
        .await;
    assert!(matches!(client.open_session().await, Err(Error::Closed(CloseReason::TimedOut(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_close_over_output_that_never_leaves_takes_as_long_as_it_may_linger() {
    let start = start(null_client().with_limits(short), null_server(), doorman);
    let Rig { client, driver, switch, remote } = start.log_in().await;
    let mut channel = client.open_session().await.unwrap();
    switch.set(Writes::Stall);
    // The driver takes all of it in hand, and can do nothing with it.
    assert!(fill(&mut channel).await > 100_000);
    tokio::task::yield_now().await;
    client.close();
    let began = Instant::now();
    let reason = within(driver).await.unwrap();
    assert_eq!(reason, CloseReason::Local(DisconnectCode::BY_APPLICATION));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3), "the last words were given their time: {took:?}");
    assert!(took <= Duration::from_secs(3) + DRAIN + Duration::from_millis(10), "{took:?}");
    assert_eq!(within(remote.until(|end| end.closed.clone())).await, CloseReason::Eof);
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_said_last_is_read_behind_a_failed_write() {
    let Rig { client, driver, switch, remote } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    let (mut other, waits) = (client.open_session().await.unwrap(), client.open_session().await.unwrap());
    remote.with(|end| end.policy.read = false);
    let blocked = tokio::spawn(async move { other.write_all(&vec![0; 9 << 20]).await });
    // Only the server's reading could make room.
    tokio::time::sleep(Duration::from_millis(1)).await;
    switch.set(Writes::Fail);
    client.rekey();
    let error = inner(within(blocked).await.unwrap().unwrap_err().into());
    assert!(
        matches!(&error, Error::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe),
        "{error:?}"
    );
    // Nobody is led to believe that anything can still be sent, and nobody waits for an answer to it.
    assert!(
        matches!(channel.write(b"more").await, Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    );
    assert!(matches!(channel.shell().await, Err(Error::Io(_))));
    assert!(matches!(client.open_session().await, Err(Error::Io(_))));
    assert!(matches!(channel.finish_input(), Err(Error::Io(_))));
    // And still there is something to be heard.
    remote.with(|end| say(end, id));
    let mut said = String::new();
    let mut stderr = channel.stderr();
    within(channel.read_to_string(&mut said)).await.unwrap();
    within(stderr.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "outerr");
    remote.with(|end| {
        let bye = Disconnect::new(DisconnectCode::SERVICE_NOT_AVAILABLE, "the house is on fire");
        end.conn.close(bye);
    });
    let told = |error: &Error| {
        matches!(error, Error::Closed(CloseReason::PeerDisconnected { code, description })
            if *code == DisconnectCode::SERVICE_NOT_AVAILABLE && description.to_string() == "the house is on fire")
    };
    let error = within(waits.wait()).await.unwrap_err();
    assert!(told(&error), "{error:?}");
    assert!(matches!(within(driver).await.unwrap(), CloseReason::PeerDisconnected { .. }));
    assert_eq!(channel.wait().await.unwrap(), Some(ExitStatus::Code(5)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_behind_a_failed_write_is_waited_for_no_longer_than_that() {
    let Rig { client, driver, switch, remote } = logged_in(doorman).await;
    let tasks = all_who_wait(&client, &remote).await;
    switch.set(Writes::Fail);
    client.rekey();
    let began = Instant::now();
    assert_eq!(within(driver).await.unwrap(), CloseReason::Eof);
    assert!(began.elapsed() <= 2 * DRAIN);
    all_told(
        tasks,
        |error| matches!(error, Error::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_open_when_writing_fails_costs_no_work() {
    let start = start(null_client(), null_server(), doorman);
    let (driver, mut polls) = (start.driver.run(), 0u32);
    let driver = tokio::spawn(async move {
        let mut driver = pin!(driver);
        std::future::poll_fn(|cx| {
            polls += 1;
            assert!(polls < 1000, "the driver spins");
            driver.as_mut().poll(cx)
        })
        .await
    });
    // What was written last was taken and not flushed yet, and the client's question has come.
    start.switch.set(Writes::Keep);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(start.remote.with(|end| end.conn.session_id().is_some()));
    start.switch.set(Writes::Fail);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!driver.is_finished(), "the question is open");
    drop(start.connecting);
    within(driver).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_aborted_ends_every_wait() {
    let Rig { client, driver, remote, .. } = logged_in(doorman).await;
    let tasks = all_who_wait(&client, &remote).await;
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    all_told(tasks, |error| {
        matches!(error, Error::Closed(CloseReason::Local(DisconnectCode::BY_APPLICATION)))
    })
    .await;
    assert!(matches!(client.open_session().await, Err(Error::Closed(_))));
    assert!(matches!(client.auth_password("me", "x").await, Err(Error::Closed(_))));
    assert_eq!(within(remote.until(|end| end.closed.clone())).await, CloseReason::Eof);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_never_ran_leaves_nobody_waiting() {
    let start = start(null_client(), null_server(), doorman);
    drop(start.driver);
    assert!(matches!(within(start.connecting.finish()).await, Err(Error::Closed(_))));
    let start = crate::rig::start(null_client(), null_server(), doorman);
    let finishing = tokio::spawn(start.connecting.finish());
    tokio::task::yield_now().await;
    drop(start.driver);
    assert!(matches!(within(finishing).await.unwrap(), Err(Error::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_channel_ends_with_its_last_handle() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let channel = client.open_session().await.unwrap();
    let stderr = channel.stderr();
    drop(channel);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(remote.with(|end| end.conn.memory_usage().channels), 1);
    drop(stderr);
    at_once(remote.until(|end| (end.conn.memory_usage().channels == 0).then_some(()))).await;
}

#[tokio::test(start_paused = true)]
async fn when_all_handles_are_dropped_the_peer_reads_what_was_written_and_why_it_ends() {
    let Rig { client, driver, remote, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    channel.write_all(&[9; 200_000]).await.unwrap();
    let other = client.clone();
    drop((channel, client));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!driver.is_finished(), "a clone is left");
    drop(other);
    assert_eq!(within(driver).await.unwrap(), CloseReason::Local(DisconnectCode::BY_APPLICATION));
    let reason = within(remote.until(|end| end.closed.clone())).await;
    assert!(
        matches!(reason, CloseReason::PeerDisconnected { code: DisconnectCode::BY_APPLICATION, .. }),
        "{reason}"
    );
    assert_eq!(remote.with(|end| end.bytes(id, Stream::Data).len()), 200_000);
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_connection_that_is_being_closed_tells_why_it_failed() {
    let Rig { client, .. } = logged_in(doorman).await;
    let channel = client.open_session().await.unwrap();
    client.close();
    let local = |error: Error| matches!(error, Error::Closed(CloseReason::Local(_)));
    // The driver has not seen the close yet.
    assert!(local(within(client.open_session()).await.unwrap_err()));
    assert!(local(within(channel.shell()).await.unwrap_err()));
    let Rig { client, .. } = connected(doorman).await;
    client.close();
    assert!(local(within(client.auth_password("me", "x")).await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn an_exit_status_and_the_end_of_a_channel_outlive_the_connection() {
    let Rig { client, driver, remote, .. } = logged_in(talk).await;
    let mut channel = client.open_session().await.unwrap();
    channel.request(&ChannelRequestKind::exec("talk")).await.unwrap();
    within(channel.wait()).await.unwrap();
    remote.with(|end| end.conn.close(Disconnect::by_application()));
    within(driver).await.unwrap();
    let mut said = String::new();
    channel.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "out");
    assert_eq!(channel.wait().await.unwrap(), Some(ExitStatus::Code(5)));
}

/// Lets the others go on until they wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_behind_another_hears_of_a_failed_write_at_once() {
    let Rig { client, switch, .. } = connected(talk).await;
    switch.set(Writes::Stall);
    let [_first, second] = [(); 2].map(|()| {
        let client = client.clone();
        tokio::spawn(async move { client.auth_password("me", PASSWORD).await })
    });
    settle().await;
    assert!(!second.is_finished());
    switch.set(Writes::Fail);
    let told = at_once(second).await.unwrap();
    assert!(matches!(told, Err(Error::Io(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_room_hears_of_a_failed_write_at_once() {
    let Rig { client, switch, .. } = logged_in(talk).await;
    let channel = client.open_session().await.unwrap();
    switch.set(Writes::Stall);
    let asking = tokio::spawn(async move {
        loop {
            if let Err(error) = channel.env("NAME", "value").await {
                return error;
            }
        }
    });
    settle().await;
    assert!(!asking.is_finished());
    switch.set(Writes::Fail);
    let told = at_once(asking).await.unwrap();
    assert!(matches!(told, Error::Io(_)), "{told:?}");
}
