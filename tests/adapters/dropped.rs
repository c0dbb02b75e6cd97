//! Channels, halves, clients, drivers and runtimes dropped at every step of a session, and in every order.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use ssh_io_std as blocking;
use ssh_io_tokio::{Channel, Client, Error, ServerConnection};
use ssh_proto::CloseReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::closing::is_orderly;
use crate::crowd::{comes_back, waits_until};
use crate::given_up::{Rig, builder, connected, every_poll, on_one, polled, slow, turn_of_others};
use crate::line::Line;
use crate::over_std::{Serves, talk};
use crate::over_tokio::{runtime, serve};
use crate::session::{DATA, configs};
use crate::tally::{PATIENCE, STD, TOKIO, given_up, turn};

// ----- Asynchronous.

/// A channel in the middle of things: it sends, is sent to, and nobody reads.
async fn busy(rig: &Rig) -> Result<Channel, Error> {
    let mut channel = rig.client.open_session().await?;
    channel.exec("program").await?;
    channel.write_all(DATA).await.map_err(crate::session::own)?;
    Ok(channel)
}

/// So many steps of the others.
async fn steps(count: usize) {
    for _ in 0..count {
        turn_of_others().await;
    }
}

#[test]
fn channels_and_halves() {
    let _turn = turn();
    const STEPS: usize = 150;
    on_one("a busy channel dropped at each step", STEPS, async |rig, at| {
        let channel = busy(rig).await.unwrap();
        steps(at).await;
        drop(channel);
        at == STEPS
    });
    on_one("the halves of a busy channel dropped, the reader first", STEPS, async |rig, at| {
        let (reader, writer) = busy(rig).await.unwrap().split();
        drop(reader);
        steps(at).await;
        drop(writer);
        at == STEPS
    });
    on_one("the halves of a busy channel dropped, the writer first", STEPS, async |rig, at| {
        let (mut reader, writer) = busy(rig).await.unwrap().split();
        steps(at).await;
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, DATA, "the writer's end is that of the input");
        at == STEPS
    });
}

/// What is going on while something is dropped.
async fn everything(rig: &Rig) -> Result<(), Error> {
    rig.client.auth_password("me", "x").await?;
    let mut channel = busy(rig).await?;
    channel.shutdown().await.map_err(crate::session::own)?;
    channel.read_to_end(&mut Vec::new()).await.map_err(crate::session::own)?;
    channel.wait().await.map(|_| ())
}

/// A session, and what is dropped at each of its steps. Whoever waits for something at either side is told; `right`
/// says whether what the client and the server were told of the end is.
fn at_each_step(what: &str, right: fn(&CloseReason, &CloseReason) -> bool, dropped: impl AsyncFn(&Rig)) {
    every_poll(what, 400, async |at| {
        let rig = connected().await;
        let (client, server) = (rig.client.clone(), rig.server.clone());
        let closed = tokio::spawn(async move { client.closed().await });
        let server_closed = tokio::spawn(async move { server.closed().await });
        let mut session = Box::pin(everything(&rig));
        let done = polled(at, &mut session).await;
        dropped(&rig).await;
        if done.is_none() {
            // All that it waits for was there already, or it is told.
            match session.await {
                Ok(()) | Err(Error::Closed(_)) => {}
                // The other side let go of the transport, perhaps with bytes unread.
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
                Err(error) => panic!("{error:?}"),
            }
        } else {
            drop(session);
        }
        assert!(rig.client.open_session().await.is_err());
        let reasons = (closed.await.unwrap(), server_closed.await.unwrap());
        assert!(right(&reasons.0, &reasons.1), "{what}, {at}: {reasons:?}");
        while rig.server.asked().await.is_some() {}
        drop(rig);
        done.map(Result::unwrap).is_some()
    });
}

/// Whoever closes says so, and the other one reads it whatever is on its way meanwhile.
fn said(reason: &CloseReason) -> bool {
    is_orderly(reason) && matches!(reason, CloseReason::Local(_))
}

fn read(reason: &CloseReason) -> bool {
    is_orderly(reason) && !said(reason)
}

#[test]
fn drivers() {
    let _turn = turn();
    let [any, client, server, both]: [fn(&_, &_) -> bool; 4] = [
        |_, _| true,
        |client, server| said(client) && read(server),
        |client, server| read(client) && said(server),
        |client, server| is_orderly(client) && is_orderly(server),
    ];
    at_each_step("a client's driver dropped at each step", any, async |rig| rig.driver.abort());
    at_each_step("a server's driver dropped at each step", any, async |rig| rig.server_driver.abort());
    at_each_step("a client closed at each step", client, async |rig| rig.client.close());
    at_each_step("a server closed at each step", server, async |rig| rig.server.close());
    at_each_step("both sides closed at each step", both, async |rig| {
        rig.client.close();
        rig.server.close();
    });
}

/// A session whose handles outlive their runtime.
#[test]
fn runtimes() {
    let _turn = turn();
    let mut points = 0;
    loop {
        let (line, ours, theirs) = Line::pair([slow(), slow()]);
        let first = runtime();
        let (sender, handles) = channel();
        let (server, client): (ServerConnection, Option<(Client, Channel)>);
        let done = first.block_on(async {
            let (connection, driver) = ServerConnection::start(configs().1, theirs);
            tokio::spawn(driver.run());
            tokio::spawn(serve(connection.clone()));
            let session = async {
                let client = builder().connect_over("test", 22, ours).await.unwrap();
                client.auth_password("me", "x").await.unwrap();
                let mut channel = client.open_session().await.unwrap();
                sender.send((client, channel.clone())).unwrap();
                channel.exec("program").await.unwrap();
                channel.write_all(DATA).await.unwrap();
                channel.shutdown().await.unwrap();
                channel.read_to_end(&mut Vec::new()).await.unwrap();
                channel.wait().await.unwrap();
            };
            (connection, polled(points, session).await)
        });
        let done = {
            server = done.0;
            done.1.is_some()
        };
        drop(first);
        client = handles.try_recv().ok();
        runtime().block_on(async {
            let left = async {
                if let Some((client, mut channel)) = client {
                    assert!(client.open_session().await.is_err());
                    assert!(matches!(client.closed().await, CloseReason::Local(_) | CloseReason::Eof));
                    // What came before can be read.
                    let _ = channel.read_to_end(&mut Vec::new()).await;
                    let _ = channel.wait().await;
                }
                // What was asked before can be taken.
                while server.asked().await.is_some() {}
                server.closed().await;
            };
            timeout(Duration::from_secs(3600), left).await.expect("somebody hears nothing of the end");
        });
        drop(server);
        assert_eq!(Arc::strong_count(&line), 1);
        if done {
            break;
        }
        points += 1;
    }
    assert!(points > 800, "{points}");
    given_up(TOKIO, "a runtime dropped at each step", points);
}

// ----- Blocking.

/// A client, and what is known of its end.
struct Blocking {
    line: Arc<Line>,
    client: blocking::Client,
    server: blocking::ServerConnection,
    closed: Receiver<CloseReason>,
}

fn blocking() -> Blocking {
    let (line, ours, theirs) = Line::pair(Default::default());
    let (sender, closed) = channel();
    let handler = Serves { channels: Vec::new(), closed: sender };
    let server = blocking::ServerConnection::start(configs().1, theirs, handler).unwrap();
    let client = blocking::Client::with_config(configs().0)
        .host_keys(blocking::HostKeys::DangerousAcceptAny)
        .connect_over("test", 22, ours)
        .unwrap();
    client.auth_password("me", "x").unwrap();
    Blocking { line, client, server, closed }
}

/// The orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let put = |at: usize| {
        move |order: &Vec<usize>| {
            let mut order = order.clone();
            order.insert(at, count - 1);
            order
        }
    };
    (0..count).flat_map(|at| shorter.iter().map(put(at)).collect::<Vec<_>>()).collect()
}

fn after(line: Arc<Line>, server: blocking::ServerConnection, closed: &Receiver<CloseReason>) {
    let reason = closed.recv_timeout(PATIENCE).expect("the server hears nothing of the end");
    assert!(matches!(reason, CloseReason::PeerDisconnected { .. }), "{reason}");
    server.join(PATIENCE);
    assert!(server.is_finished());
    drop(server);
    waits_until("the end of all threads", || Arc::strong_count(&line) == 1);
}

#[test]
fn blocking_handles() {
    let _turn = turn();
    comes_back(handles_in_every_order);
    comes_back(channels_while_others_go_on);
}

fn handles_in_every_order() {
    let all = orders(5);
    assert_eq!(all.len(), 120);
    for order in &all {
        // Each by a thread of its own, or all by this one.
        for own_threads in [false, true] {
            let Blocking { line, client, server, closed } = blocking();
            let channel = client.open_session().unwrap();
            channel.exec("program").unwrap();
            (&channel).write_all(DATA).unwrap();
            let stderr = channel.stderr();
            let (reader, writer) = channel.clone().split();
            // Somebody is in a read all the time.
            let mut blocked = channel.stderr();
            let waiting = thread::spawn(move || blocked.read(&mut [0; 1]).map(|n| assert!(n <= 1)));
            let mut things: [Option<Box<dyn Send>>; 5] = [
                Some(Box::new(channel)),
                Some(Box::new(stderr)),
                Some(Box::new(reader)),
                Some(Box::new(writer)),
                Some(Box::new(client)),
            ];
            for at in order {
                let thing = things[*at].take();
                if own_threads {
                    thread::spawn(move || drop(thing)).join().unwrap();
                }
            }
            // An error is that of the end, which may come first.
            let _ = waiting.join().unwrap();
            after(line, server, &closed);
        }
    }
    given_up(STD, "channel, stderr, halves and client dropped in every order", 2 * all.len());
}

fn channels_while_others_go_on() {
    let Blocking { line, client, server, closed } = blocking();
    const ROUNDS: usize = 400;
    for round in 0..ROUNDS {
        let channel = client.open_session().unwrap();
        let pieces = round % 8;
        if pieces > 0 {
            channel.exec("program").unwrap();
        }
        for _ in 1..pieces {
            (&channel).write_all(DATA).unwrap();
        }
        // At some moment of what comes of it.
        thread::spawn(move || drop(channel)).join().unwrap();
        talk(&client.open_session().unwrap()).unwrap();
    }
    waits_until("the end of all channels", || client.memory_usage().channels == 0);
    client.close();
    after(line, server, &closed);
    given_up(STD, "busy channels dropped beside others", ROUNDS);
}
