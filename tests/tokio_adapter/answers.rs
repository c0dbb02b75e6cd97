//! Answers that arrived whole, of a server that is gone at once.

use ssh_proto::{ChannelEvent, ChannelRequestKind, Disconnect, ExitStatus, Server, ServerEvent, Stream};
use ssh_tests::End;

use crate::rig::{Rig, at_once, doorman, logged_in, within};

/// How a server ends what it says.
#[derive(Clone, Copy)]
enum Bye {
    /// It closes the channel first.
    Close,
    /// It only ends the channel's output, behind the exit.
    Eof,
    /// It only ends the channel's output, and does not say how the program ended.
    NoExit,
}

/// As the [`doorman`], answers whoever runs something, and is gone: all of it leaves in one piece.
fn answer(end: &mut End<Server>, bye: Bye) {
    doorman(end);
    for event in std::mem::take(&mut end.events) {
        let ServerEvent::Channel(id, ChannelEvent::Request(request)) = event else {
            end.events.push_back(event);
            continue;
        };
        end.conn.reply_request(request, true).unwrap();
        let mut channel = end.conn.channel(id).unwrap();
        channel.write(Stream::Data, b"out").unwrap();
        channel.write(Stream::Stderr, b"err").unwrap();
        if !matches!(bye, Bye::NoExit) {
            channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(5)), false).unwrap();
        }
        match bye {
            Bye::Close => channel.close(),
            Bye::Eof | Bye::NoExit => channel.eof().unwrap(),
        }
        end.conn.close(Disconnect::by_application());
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrived_whole_is_told_although_the_server_is_gone() {
    for (bye, status) in
        [(Bye::Close, Some(ExitStatus::Code(5))), (Bye::Eof, Some(ExitStatus::Code(5))), (Bye::NoExit, None)]
    {
        let Rig { client, .. } = logged_in(move |end| answer(end, bye)).await;
        let output = at_once(client.exec("x")).await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"err"[..]));
        assert_eq!(output.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_exit_is_told_when_the_connection_is_over() {
    let Rig { client, .. } = logged_in(|end| answer(end, Bye::Eof)).await;
    let channel = client.open_session().await.unwrap();
    channel.exec("x").await.unwrap();
    within(client.closed()).await;
    assert_eq!(channel.wait().await.unwrap(), Some(ExitStatus::Code(5)));
    assert_eq!(channel.wait_exit().await.unwrap(), Some(ExitStatus::Code(5)));
}
