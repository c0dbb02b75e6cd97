//! What a server waits for, and what needs a listener, given up at each poll, and used on afterwards.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use ssh_io_tokio::{Client, Server, ServerConnection};
use ssh_proto::adapter::Startups;
use tokio::join;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

use crate::given_up::{builder, every_poll, nothing_is_left, polled, slow, until};
use crate::line::Line;
use crate::over_tokio::{serve, serve_by, talk};
use crate::session::{COMPLAINT, DATA, STATUS, configs};
use crate::tally::{PATIENCE, TOKIO, given_up, turn};

/// More polls than any of these futures takes: over sockets some find nothing to do.
const ENOUGH: usize = 100_000;

/// As [`every_poll`], over sockets, whose time is real.
fn every_poll_over_sockets(what: &str, least: usize, attempt: impl AsyncFn(usize) -> bool) {
    let runtime = Builder::new_current_thread().enable_all().event_interval(1).build().unwrap();
    let mut points = 0;
    while !runtime.block_on(async { timeout(PATIENCE, attempt(points)).await.expect(what) }) {
        points += 1;
        assert!(points < ENOUGH, "{what} is not ready after {ENOUGH} polls");
    }
    assert!(points >= least, "{what}: {points} of at least {least}");
    given_up(TOKIO, what, points);
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Logs in, and runs a program.
async fn session(client: &Client) {
    client.auth_password("me", "x").await.unwrap();
    let whole = talk(client.open_session().await.unwrap()).await.unwrap();
    assert_eq!(whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
}

async fn whole_session(port: u16) {
    let client = builder().connect("127.0.0.1", port).await.unwrap();
    session(&client).await;
    client.close();
    client.closed().await;
}

/// Serves until it is shut down.
fn serving(server: &Server, listener: TcpListener) -> impl Future<Output = ()> + use<> {
    let server = server.clone();
    async move { server.serve(listener, |connection, _| serve(connection)).await.unwrap() }
}

async fn no_task_is_left() {
    until("the end of all tasks", || Handle::current().metrics().num_alive_tasks() == 0).await;
}

#[test]
fn connecting_by_address() {
    let _turn = turn();
    every_poll_over_sockets("connect by address", 5, async |polls| {
        let startups = Startups::default();
        let server = Server::new(configs().1).startups(startups.clone());
        let (listener, port) = listener().await;
        let serving = tokio::spawn(serving(&server, listener));
        let client = polled(polls, builder().connect("127.0.0.1", port)).await.map(Result::unwrap);
        let done = client.is_some();
        if let Some(client) = client {
            session(&client).await;
        }
        whole_session(port).await;
        // Whoever was given up has left by itself.
        server.shutdown(Duration::MAX).await;
        serving.await.unwrap();
        // A signer at work for a client that is gone keeps its place until it is done.
        until("the end of all places", || startups.count() == 0).await;
        no_task_is_left().await;
        done
    });
}

#[test]
fn serving_given_up() {
    let _turn = turn();
    every_poll_over_sockets("a server's serve", 20, async |polls| {
        let startups = Startups::default();
        let server = Server::new(configs().1).startups(startups.clone());
        let ((first, port), stopping) = (listener().await, Cell::new(false));
        let client = async {
            whole_session(port).await;
            stopping.set(true);
            server.shutdown(Duration::MAX).await;
        };
        let done = polled(polls, async { join!(serving(&server, first), client) }).await.is_some();
        // Its clients are gone with it, and it can serve others.
        no_task_is_left().await;
        // A signer at work for a client that is gone keeps its place until it is done.
        until("the end of all places", || startups.count() == 0).await;
        if !stopping.get() {
            let (next, port) = listener().await;
            let client = async {
                whole_session(port).await;
                server.shutdown(Duration::MAX).await;
            };
            join!(serving(&server, next), client);
        }
        done
    });
}

#[test]
fn shutting_down() {
    let _turn = turn();
    every_poll_over_sockets("a server's shutdown", 5, async |polls| {
        let server = Server::new(configs().1);
        let (listener, port) = listener().await;
        let serving = tokio::spawn(serving(&server, listener));
        let client = builder().connect("127.0.0.1", port).await.unwrap();
        // It says all it has to say meanwhile, and leaves.
        let leaving = tokio::spawn(async move {
            session(&client).await;
            client.close();
            client.closed().await;
        });
        let done = polled(polls, server.shutdown(Duration::MAX)).await.is_some();
        leaving.await.unwrap();
        if polls == 0 {
            // It was not so much as begun.
            assert!(!serving.is_finished());
            whole_session(port).await;
            server.shutdown(Duration::MAX).await;
        }
        serving.await.unwrap();
        server.shutdown(Duration::ZERO).await;
        no_task_is_left().await;
        done
    });
}

#[test]
fn asking() {
    let _turn = turn();
    every_poll("asked, each time", 100, async |polls| {
        let (line, ours, theirs) = Line::pair([slow(), slow()]);
        let (server, driver) = ServerConnection::start(configs().1, theirs);
        let driver = tokio::spawn(driver.run());
        let client = tokio::spawn(async move {
            let client = builder().connect_over("test", 22, ours).await.unwrap();
            session(&client).await;
            client.close();
            client.closed().await;
        });
        // Each question is waited for by calls that take so many polls at most.
        let gave_up = Cell::new(0);
        let ask = async |server: &ServerConnection| {
            loop {
                match polled(polls + 1, server.asked()).await {
                    Some(asked) => return asked,
                    None => gave_up.set(gave_up.get() + 1),
                }
                assert!(gave_up.get() < ENOUGH, "the questions do not come");
            }
        };
        serve_by(server, ask).await;
        client.await.unwrap();
        driver.await.unwrap();
        nothing_is_left(&line).await;
        gave_up.get() == 0
    });
}
