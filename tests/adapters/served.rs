//! What a server does on a channel, given up at each poll, and the channel used on afterwards.

use ssh_io_tokio::{ServerChannel, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::unbounded_channel;

use crate::given_up::{builder, every_poll, nothing_is_left, polled, slow};
use crate::line::Line;
use crate::over_tokio::serve_with;
use crate::session::{COMPLAINT, DATA, STATUS, configs};
use crate::tally::turn;

/// Has `attempt` do something on a channel whose client has sent [`DATA`] and its end; what the client reads of its
/// two streams.
fn on_a_channel(
    what: &str,
    least: usize,
    [data, stderr]: [&[u8]; 2],
    attempt: impl AsyncFn(&mut ServerChannel, usize) -> bool,
) {
    every_poll(what, least, async |polls| {
        let (line, ours, theirs) = Line::pair([slow(), slow()]);
        let (server, driver) = ServerConnection::start(configs().1, theirs);
        let driver = tokio::spawn(driver.run());
        let (sender, mut channels) = unbounded_channel();
        let run = move |channel| sender.send(channel).unwrap();
        let serving = tokio::spawn(serve_with(server, async |server| server.asked().await, run));
        let client = builder().connect_over("test", 22, ours).await.unwrap();
        client.auth_password("me", "x").await.unwrap();
        let mut ours = client.open_session().await.unwrap();
        ours.exec("program").await.unwrap();
        let mut theirs = channels.recv().await.unwrap();
        ours.write_all(DATA).await.unwrap();
        ours.finish_input().unwrap();
        let done = attempt(&mut theirs, polls).await;
        theirs.exit(STATUS).await.unwrap();
        drop(theirs);
        let (mut got, mut complaint) = (Vec::new(), Vec::new());
        ours.read_to_end(&mut got).await.unwrap();
        ours.stderr().read_to_end(&mut complaint).await.unwrap();
        assert_eq!((&got[..], &complaint[..]), (data, stderr), "{what}, {polls}");
        assert_eq!(ours.wait().await.unwrap(), Some(STATUS));
        client.close();
        drop((ours, client));
        driver.await.unwrap();
        serving.await.unwrap();
        nothing_is_left(&line).await;
        done
    });
}

/// Polls for what a message takes, at least.
const MESSAGE: usize = 16;

#[test]
fn reading_and_writing() {
    let _turn = turn();
    on_a_channel("a server's read", MESSAGE, [b"", b""], async |channel, polls| {
        let (mut got, mut piece) = (Vec::new(), [0; 7]);
        let n = polled(polls, channel.read(&mut piece)).await.map(Result::unwrap);
        got.extend_from_slice(&piece[..n.unwrap_or_default()]);
        channel.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, DATA);
        n.is_some()
    });
    on_a_channel("a server's write", 1, [DATA, b""], async |channel, polls| {
        let n = polled(polls, channel.write(DATA)).await.map(Result::unwrap);
        channel.write_all(&DATA[n.unwrap_or_default()..]).await.unwrap();
        n.is_some()
    });
    on_a_channel("a server's write to stderr", 1, [b"", COMPLAINT], async |channel, polls| {
        let mut stderr = channel.stderr();
        let n = polled(polls, stderr.write(COMPLAINT)).await.map(Result::unwrap);
        stderr.write_all(&COMPLAINT[n.unwrap_or_default()..]).await.unwrap();
        n.is_some()
    });
}

#[test]
fn ending() {
    let _turn = turn();
    on_a_channel("a server's flush", MESSAGE, [DATA, COMPLAINT], async |channel, polls| {
        channel.write_all(DATA).await.unwrap();
        let done = polled(polls, channel.flush()).await.map(Result::unwrap);
        channel.stderr().write_all(COMPLAINT).await.unwrap();
        channel.flush().await.unwrap();
        done.is_some()
    });
    on_a_channel("a server's flush of stderr", MESSAGE, [DATA, COMPLAINT], async |channel, polls| {
        let mut stderr = channel.stderr();
        stderr.write_all(COMPLAINT).await.unwrap();
        let done = polled(polls, stderr.flush()).await.map(Result::unwrap);
        channel.write_all(DATA).await.unwrap();
        done.is_some()
    });
    on_a_channel("a server's shutdown", MESSAGE, [DATA, b""], async |channel, polls| {
        channel.write_all(DATA).await.unwrap();
        let done = polled(polls, channel.shutdown()).await.map(Result::unwrap);
        channel.shutdown().await.unwrap();
        done.is_some()
    });
    on_a_channel("a server's exit", 1, [b"", b""], async |channel, polls| {
        polled(polls, channel.exit(STATUS)).await.map(Result::unwrap).is_some()
    });
}
