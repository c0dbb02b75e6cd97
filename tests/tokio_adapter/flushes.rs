//! A flush of a channel waits for the transport under it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ssh_io_tokio::{Asked, Channel, Client, HostKeys, ServerConnection};
use ssh_proto::{AuthVerdict, ChannelConfig, ChannelEvent, Disconnect, ServerEvent};
use ssh_tests::{null_client, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gate::Writes;
use crate::rig::{Rig, at_once, doorman, logged_in, poll_once, within};

#[tokio::test(start_paused = true)]
async fn a_flush_that_takes_its_time_holds_up_nobody_who_writes() {
    let Rig { client, switch, .. } = logged_in(doorman).await;
    let mut flushes = client.open_session().await.unwrap();
    let mut writes = client.open_session().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    switch.set(Writes::Keep);
    flushes.write_all(b"a").await.unwrap();
    assert!(poll_once(pin!(flushes.flush())).await.is_none());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(poll_once(pin!(flushes.flush())).await.is_none(), "taken, and not flushed");
    writes.write_all(b"b").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(client.memory_usage().output, 0);
    switch.set(Writes::Pass);
    at_once(flushes.flush()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_what_never_left_fails() {
    let Rig { client, switch, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    switch.set(Writes::Stall);
    channel.write_all(&[7; 1000]).await.unwrap();
    assert!(poll_once(pin!(channel.flush())).await.is_none(), "nothing leaves");
    switch.set(Writes::Fail);
    // The driver throws away what it has before the flush is looked at again.
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..2 {
        let error = within(channel.flush()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
    assert!(within(channel.shutdown()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_flush_behind_one_that_was_given_up_waits_for_what_was_said_in_between() {
    #[derive(Debug, Clone, Copy)]
    enum More {
        Data,
        Request,
        Eof,
        Close,
    }
    let cases = [
        (More::Data, false),
        (More::Request, false),
        (More::Eof, false),
        (More::Close, false),
        (More::Request, true),
    ];
    for (more, shut) in cases {
        let Rig { client, switch, .. } = logged_in(doorman).await;
        let mut channel = client.open_session().await.unwrap();
        let mut other = channel.clone();
        tokio::time::sleep(Duration::from_millis(1)).await;
        switch.set(Writes::Stall);
        channel.write_all(b"first").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut flush = async || if shut { channel.shutdown().await } else { channel.flush().await };
        assert!(poll_once(pin!(flush())).await.is_none(), "nothing leaves");
        if shut {
            // The end of the input is to leave next, apart from what follows.
            switch.set(Writes::StallAfterOne);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match more {
            More::Data => other.write_all(b"more").await.unwrap(),
            More::Request => other.signal("TERM").await.unwrap(),
            More::Eof => other.finish_input().unwrap(),
            More::Close => other.close(),
        }
        let before = client.memory_usage().output;
        // What was there before leaves.
        switch.set(Writes::StallAfterOne);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let left = client.memory_usage().output;
        assert!(0 < left && left < before, "{more:?}: {left} of {before}");
        assert!(poll_once(pin!(flush())).await.is_none(), "{more:?}: it has not left");
        switch.set(Writes::Pass);
        at_once(flush()).await.unwrap();
        assert_eq!(client.memory_usage().output, 0, "{more:?}");
    }
}

/// Checks that what is said just behind the start of a key exchange is waited for, and arrives: the exchange
/// holds it back.
async fn is_waited_for_behind_an_exchange(
    say: impl AsyncFnOnce(&mut Channel) -> std::io::Result<()>,
    arrived: impl Fn(&ChannelEvent) -> bool,
) {
    let Rig { client, switch, remote, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.rekey();
    switch.set(Writes::StallAfterOne);
    let mut said = pin!(say(&mut channel));
    assert!(poll_once(said.as_mut()).await.is_none());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(poll_once(said.as_mut()).await.is_none(), "only the exchange's first packet has left");
    switch.set(Writes::Pass);
    at_once(said).await.unwrap();
    let arrived = |event: &ServerEvent| matches!(event, ServerEvent::Channel(_, event) if arrived(event));
    at_once(remote.until(|end| end.events.iter().any(arrived).then_some(()))).await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_a_request_that_a_key_exchange_holds_back() {
    let flush = async |channel: &mut Channel| {
        channel.signal("TERM").await.unwrap();
        channel.flush().await
    };
    is_waited_for_behind_an_exchange(flush, |event| matches!(event, ChannelEvent::Request(_))).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_an_eof_that_a_key_exchange_holds_back() {
    let shutdown = async |channel: &mut Channel| channel.shutdown().await;
    is_waited_for_behind_an_exchange(shutdown, |event| matches!(event, ChannelEvent::Eof)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_eof_cannot_leave_any_more_fails() {
    let Rig { client, switch, .. } = logged_in(doorman).await;
    let mut channel = client.open_session().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.rekey();
    let mut shutdown = pin!(channel.shutdown());
    assert!(poll_once(shutdown.as_mut()).await.is_none(), "the exchange has only begun");
    switch.set(Writes::Fail);
    assert!(within(shutdown).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_handed_on_when_the_connection_ends_was_not_flushed() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum End {
        Ours,
        Dropped,
        /// The transport hands on what it took, or does not in all the time it has.
        Theirs {
            in_time: bool,
        },
    }
    for end in [End::Ours, End::Dropped, End::Theirs { in_time: false }, End::Theirs { in_time: true }] {
        let Rig { client, driver, switch, remote } = logged_in(doorman).await;
        let mut channel = client.open_session().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        switch.set(Writes::Keep);
        channel.write_all(b"the last that was missing").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(poll_once(pin!(channel.flush())).await.is_none(), "taken, and not flushed");
        match end {
            End::Ours => client.close(),
            End::Dropped => driver.abort(),
            End::Theirs { .. } => {
                remote.with(|end| end.conn.close(Disconnect::by_application()));
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(client.is_closed());
                assert!(poll_once(pin!(channel.flush())).await.is_none(), "it may be leaving");
            }
        }
        match end {
            End::Theirs { in_time: true } => {
                switch.set(Writes::Pass);
                at_once(channel.flush()).await.unwrap();
            }
            End::Theirs { in_time: false } => {
                assert!(within(channel.flush()).await.is_err());
                assert!(!driver.is_finished(), "the shutdown of the transport is not waited for");
            }
            End::Ours | End::Dropped => assert!(at_once(channel.flush()).await.is_err(), "{end:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_is_flushed_when_nothing_is_left_to_write_or_nothing_else_is_waited_for() {
    let Rig { client, switch, .. } = logged_in(doorman).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(client.open_session().await.unwrap());
    }
    let [first, second, third] = &mut sessions[..] else { unreachable!() };
    let pause = || tokio::time::sleep(Duration::from_millis(1));
    pause().await;
    for _ in 0..2 {
        let before = switch.flushes();
        // More than the transport takes at once.
        first.write_all(&[7; 60_000]).await.unwrap();
        at_once(first.flush()).await.unwrap();
        assert_eq!(switch.flushes() - before, 1);
    }

    // From now on it takes an output at a time.
    switch.set(Writes::Stall);
    for session in [&mut *first, second] {
        session.write_all(b"words").await.unwrap();
        assert!(poll_once(pin!(session.flush())).await.is_none(), "nothing leaves");
        pause().await;
    }
    let before = switch.flushes();
    switch.set(Writes::StallAfterOne);
    pause().await;
    assert_eq!(switch.flushes() - before, 1, "for the first, though there is more to write");
    at_once(first.flush()).await.unwrap();
    third.write_all(b"words").await.unwrap();
    switch.set(Writes::StallAfterOne);
    pause().await;
    assert_eq!(switch.flushes() - before, 1, "nobody looked at the second's again");
    assert!(client.memory_usage().output > 0);
    at_once(second.flush()).await.unwrap();
}

/// Lets everybody in, and reads all that comes.
async fn serve(server: ServerConnection) {
    while let Some(asked) = server.asked().await {
        match asked {
            Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
            Asked::Open(request) => {
                let mut channel = request.accept(ChannelConfig::default()).unwrap();
                tokio::spawn(async move { while let Ok(1..) = channel.read(&mut [0; 32 * 1024]).await {} });
            }
            _ => {}
        }
    }
}

/// Flushes what a key exchange holds back, beside somebody who writes without a pause.
async fn flush_beside_others() {
    // More than what may be on its way, so that the output is never empty.
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
    tokio::spawn(driver.run());
    tokio::spawn(serve(server));
    let builder = Client::with_config(null_client().build().unwrap()).host_keys(HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("test", 22, ours).await.unwrap();
    client.auth_password("me", "any").await.unwrap();
    let mut flushes = client.open_session().await.unwrap();
    let mut writes = client.open_session().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.rekey();
    flushes.signal("TERM").await.unwrap();
    let flush = tokio::spawn(async move { flushes.flush().await });
    tokio::task::yield_now().await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writing = tokio::spawn(async move {
        loop {
            count.fetch_add(writes.write(&[7; 32 * 1024]).await.unwrap(), Ordering::SeqCst);
        }
    });
    while !flush.is_finished() {
        assert!(written.load(Ordering::SeqCst) < 16 << 20, "it waits for the others");
        tokio::task::yield_now().await;
    }
    flush.await.unwrap().unwrap();
    writing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_flush_behind_a_key_exchange_does_not_wait_for_what_others_go_on_writing() {
    // Who has his turn first differs, and not each time would it wait.
    for _ in 0..20 {
        flush_beside_others().await;
    }
}
