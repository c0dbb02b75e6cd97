//! Requests on channels, and whose answer is whose.

use std::sync::Arc;
use std::time::Duration;

use ssh_io_tokio::{Channel, Error};
use ssh_proto::{ChannelEvent, ChannelRequest, ChannelRequestKind, RequestError, Server, ServerEvent};
use ssh_tests::{End, null_client, null_server, take};
use tokio::task::JoinHandle;

use crate::remote::Remote;
use crate::rig::{Rig, at_once, doorman, logged_in, newest, poll_once, start, within};

fn kind(name: &str) -> ChannelRequestKind {
    ChannelRequestKind::Other { name: name.into(), data: Vec::new() }
}

fn ask(channel: &Arc<Channel>, name: &'static str) -> JoinHandle<Result<(), Error>> {
    let channel = Arc::clone(channel);
    tokio::spawn(async move { channel.request(&kind(name)).await })
}

/// How many requests wait for the test's answer.
fn waiting(end: &End<Server>) -> usize {
    let is_one = |event: &&ServerEvent| matches!(event, ServerEvent::Channel(_, ChannelEvent::Request(_)));
    end.events.iter().filter(is_one).count()
}

/// The requests that reach the server, this many of them.
async fn requests(remote: &Remote, count: usize) -> Vec<ChannelRequest> {
    at_once(remote.until(|end| (waiting(end) == count).then_some(()))).await;
    remote.with(|end| {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(take!(end, ServerEvent::Channel(_, ChannelEvent::Request(request)) => request));
        }
        taken
    })
}

fn answer(remote: &Remote, request: ChannelRequest, ok: bool) {
    remote.with(|end| end.conn.reply_request(request, ok)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_waits_for_any_more_is_not_taken_for_that_to_the_next_request() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let channel = Arc::new(client.open_session().await.unwrap());
    let given_up = ask(&channel, "first");
    let first = requests(&remote, 1).await.remove(0);
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let waits = ask(&channel, "second");
    let second = requests(&remote, 1).await.remove(0);
    answer(&remote, first, true);
    answer(&remote, second, false);
    assert!(matches!(within(waits).await.unwrap(), Err(Error::RequestRefused)));
    let waits = ask(&channel, "third");
    let third = requests(&remote, 1).await.remove(0);
    answer(&remote, third, true);
    within(waits).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_there_when_its_request_was_given_up_is_nobodys() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let channel = client.open_session().await.unwrap();
    let mut given_up = Box::pin(channel.request(&ChannelRequestKind::Shell));
    assert!(poll_once(given_up.as_mut()).await.is_none());
    let first = requests(&remote, 1).await.remove(0);
    answer(&remote, first, true);
    // It comes while nobody looks.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(given_up);
    let channel = Arc::new(channel);
    let waits = ask(&channel, "second");
    let second = requests(&remote, 1).await.remove(0);
    answer(&remote, second, false);
    assert!(matches!(within(waits).await.unwrap(), Err(Error::RequestRefused)));
}

#[tokio::test(start_paused = true)]
async fn every_request_gets_its_own_answer_however_many_wait() {
    let Rig { client, remote, .. } = logged_in(doorman).await;
    let channel = Arc::new(client.open_session().await.unwrap());
    let first = ask(&channel, "first");
    tokio::task::yield_now().await;
    // Its answer goes by unseen.
    channel.send_request(&kind("second"), true).await.unwrap();
    let third = ask(&channel, "third");
    let given_up = ask(&channel, "fourth");
    let fifth = ask(&channel, "fifth");
    let mut asked = requests(&remote, 5).await;
    given_up.abort();
    let _ = given_up.await;
    // The answers leave in the order of the requests, whatever the order they are given in.
    for (at, ok) in [(4, false), (3, true), (2, true), (1, true), (0, false)] {
        answer(&remote, asked.remove(at), ok);
    }
    assert!(matches!(within(first).await.unwrap(), Err(Error::RequestRefused)));
    within(third).await.unwrap().unwrap();
    assert!(matches!(within(fifth).await.unwrap(), Err(Error::RequestRefused)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_room_hears_of_room_and_of_the_end_of_its_channel() {
    let few = null_client().with_limits(|limits| limits.pending_requests = 1);
    let Rig { client, remote, .. } = start(few, null_server(), doorman).log_in().await;
    let channel = Arc::new(client.open_session().await.unwrap());
    let (first, second) = (ask(&channel, "first"), ask(&channel, "second"));
    let request = requests(&remote, 1).await.remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(remote.with(|end| waiting(end)), 0, "there is no room for it");
    answer(&remote, request, true);
    within(first).await.unwrap().unwrap();
    let request = requests(&remote, 1).await.remove(0);

    let third = ask(&channel, "third");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = newest(&remote).await;
    remote.with(|end| end.conn.channel(id).unwrap().close());
    drop(request);
    assert!(matches!(within(second).await.unwrap(), Err(Error::RequestRefused)));
    let closed = within(third).await.unwrap();
    assert!(matches!(closed, Err(Error::Request(RequestError::Closed))), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_is_refused_in_time_and_makes_room() {
    let few = null_client().with_limits(|limits| {
        limits.pending_requests = 1;
        limits.request_timeout = Some(Duration::from_secs(20));
    });
    let Rig { client, remote, .. } = start(few, null_server(), doorman).log_in().await;
    let channel = Arc::new(client.open_session().await.unwrap());
    let (first, second) = (ask(&channel, "first"), ask(&channel, "second"));
    let late = requests(&remote, 1).await.remove(0);
    assert!(matches!(within(first).await.unwrap(), Err(Error::RequestRefused)));
    let request = requests(&remote, 1).await.remove(0);
    // The late answer is nobody's.
    answer(&remote, late, false);
    answer(&remote, request, true);
    within(second).await.unwrap().unwrap();
}
