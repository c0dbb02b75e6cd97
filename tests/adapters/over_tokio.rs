//! The session over `ssh-io-tokio`.

use std::sync::Arc;

use ssh_io_tokio::{Asked, Channel, Client, Error, HostKeys, ServerChannel, ServerConnection};
use ssh_proto::{AuthVerdict, ChannelConfig, ChannelRequestKind, ClientConfig, CloseReason, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, timeout};

use crate::given_up::until;
use crate::line::{Faults, Line};
use crate::session::{COMPLAINT, DATA, Ended, STATUS, Whole, configs, own, pieces};
use crate::sweep;
use crate::tally::{TOKIO, turn};

/// A runtime whose time jumps when there is nothing else to do: whoever hangs is found at once.
pub(crate) fn runtime() -> Runtime {
    // Tasks take turns strictly, so that whoever polls by itself does so between any two of their steps.
    Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build().unwrap()
}

/// Says what comes, a complaint, and the end.
async fn program(mut channel: ServerChannel) -> Result<(), Error> {
    let mut buffer = [0; 1000];
    while let n @ 1.. = channel.read(&mut buffer).await.map_err(own)? {
        channel.write_all(&buffer[..n]).await.map_err(own)?;
    }
    channel.stderr().write_all(COMPLAINT).await.map_err(own)?;
    channel.exit(STATUS).await
}

/// Lets everybody in, and runs [`program`] for whoever asks.
pub(crate) async fn serve(server: ServerConnection) {
    serve_by(server, async |server| server.asked().await).await;
}

/// As [`serve`]; `ask` says how a question is waited for.
pub(crate) async fn serve_by(
    server: ServerConnection,
    ask: impl AsyncFn(&ServerConnection) -> Option<Asked>,
) {
    serve_with(server, ask, |channel| drop(tokio::spawn(program(channel)))).await;
}

/// As [`serve_by`]; `run` gets the channels on which a program is to run.
pub(crate) async fn serve_with(
    server: ServerConnection,
    ask: impl AsyncFn(&ServerConnection) -> Option<Asked>,
    run: impl Fn(ServerChannel),
) {
    let mut channels: Vec<ServerChannel> = Vec::new();
    while let Some(asked) = ask(&server).await {
        // What fails does so because the connection is gone, which ends the loop.
        match asked {
            Asked::Auth(request) => drop(request.reply(AuthVerdict::Accept)),
            Asked::Open(request) => channels.extend(request.accept(ChannelConfig::default())),
            Asked::Request(request) => {
                let at = channels.iter().position(|channel| channel.id() == request.channel());
                let exec = matches!(request.kind(), ChannelRequestKind::Exec(_));
                let _ = request.reply(true);
                if let Some(at) = at.filter(|_| exec) {
                    run(channels.swap_remove(at));
                }
            }
            Asked::ChannelClosed(id) => channels.retain(|channel| channel.id() != id),
            _ => {}
        }
    }
}

/// Sends the words, and reads what comes of it.
pub(crate) async fn talk(mut channel: Channel) -> Result<Whole, Error> {
    channel.exec("program").await?;
    channel.write_all(DATA).await.map_err(own)?;
    hear_out(channel, Vec::new()).await
}

/// Sends them with a renewal of keys by each side behind what has come back.
async fn talk_across_rekeys(
    mut channel: Channel,
    client: &Client,
    server: &ServerConnection,
) -> Result<Whole, Error> {
    channel.exec("program").await?;
    let renewals: [&dyn Fn(); 3] = [&|| client.rekey(), &|| server.rekey(), &|| ()];
    let mut stdout = Vec::new();
    for (piece, renew) in pieces().into_iter().zip(renewals) {
        channel.write_all(piece).await.map_err(own)?;
        let begin = stdout.len();
        stdout.resize(begin + piece.len(), 0);
        channel.read_exact(&mut stdout[begin..]).await.map_err(own)?;
        renew();
    }
    hear_out(channel, stdout).await
}

async fn hear_out(mut channel: Channel, mut stdout: Vec<u8>) -> Result<Whole, Error> {
    channel.shutdown().await.map_err(own)?;
    let mut stderr = Vec::new();
    channel.read_to_end(&mut stdout).await.map_err(own)?;
    channel.stderr().read_to_end(&mut stderr).await.map_err(own)?;
    Ok((stdout, stderr, channel.wait().await?))
}

type Waiter = JoinHandle<Result<Option<ssh_proto::ExitStatus>, Error>>;

async fn client(
    client: &Client,
    server: &ServerConnection,
    waiter: &mut Option<Waiter>,
) -> Result<Whole, Error> {
    client.auth_password("me", "x").await?;
    let channel = client.open_session().await?;
    let other = channel.clone();
    *waiter = Some(tokio::spawn(async move { other.wait().await }));
    talk_across_rekeys(channel, client, server).await
}

async fn session(configs: &(Arc<ClientConfig>, Arc<ServerConfig>), faults: [Faults; 2]) -> Ended {
    let (line, ours, theirs) = Line::pair(faults);
    let (server, driver) = ServerConnection::start(configs.1.clone(), theirs);
    let server_driver = tokio::spawn(driver.run());
    let serving = tokio::spawn(serve(server.clone()));
    let builder = Client::with_config(configs.0.clone()).host_keys(HostKeys::DangerousAcceptAny);
    let (connecting, driver) = builder.start("test", 22, ours).await.unwrap();
    let driver = tokio::spawn(driver.run());
    let (mut waiter, mut after, mut rekeys) = (None, None, [0; 2]);
    let result = match connecting.finish().await {
        Err(error) => {
            // There is no handle to ask again, but the driver says why.
            after = Some(match (driver.await.unwrap(), &error) {
                (CloseReason::Eof, Error::Io(error)) => Error::Io(error.kind().into()),
                (reason, _) => Error::Closed(reason),
            });
            Err(error)
        }
        Ok(connection) => {
            let result = client(&connection, &server, &mut waiter).await;
            if result.is_err() {
                after = connection.open_session().await.err();
            }
            rekeys[0] = connection.rekeys();
            connection.close();
            assert_eq!(connection.closed().await, driver.await.unwrap());
            result
        }
    };
    let waiter = match waiter {
        Some(waiter) => Some(waiter.await.unwrap()),
        None => None,
    };
    let reason = server_driver.await.unwrap();
    rekeys[1] = server.rekeys();
    drop(server);
    serving.await.unwrap();
    // Programs and their channels end by themselves.
    until("the end of all tasks", || Handle::current().metrics().num_alive_tasks() == 0).await;
    let (carried, calls, unread) = (line.carried(), line.calls(), line.unread());
    assert_eq!(Arc::strong_count(&line), 1, "both ends are let go");
    Ended { client: result, waiter, after, rekeys, server: reason, carried, calls, unread }
}

/// Runs sessions one after the other, each of which takes so long at most.
fn run(most: Duration, sessions: Vec<[Faults; 2]>) -> Vec<Ended> {
    let (runtime, configs) = (runtime(), configs());
    runtime.block_on(async {
        let mut ended = Vec::new();
        for faults in sessions {
            let (name, began) = (format!("{faults:?}"), Instant::now());
            let session = timeout(Duration::from_secs(3600), session(&configs, faults)).await;
            ended.push(session.unwrap_or_else(|_| panic!("it hangs under {name}")));
            let took = began.elapsed();
            assert!(took <= most, "{took:?} under {name}");
        }
        ended
    })
}

/// As [`run`], and nobody overlooks that there is something to do until a deadline reminds him.
fn run_at_once(sessions: Vec<[Faults; 2]>) -> Vec<Ended> {
    run(Duration::ZERO, sessions)
}

#[test]
fn ad_04_ad_05_a_line_cut_at_every_byte() {
    let _turn = turn();
    sweep::every_cut(TOKIO, run_at_once);
}

#[test]
fn ad_06_nuisances() {
    let _turn = turn();
    sweep::every_nuisance(TOKIO, run_at_once);
}

#[test]
fn ad_06_failures() {
    let _turn = turn();
    // Behind a failed write what may still come is read for a while.
    sweep::every_failure(TOKIO, |sessions| run(Duration::from_secs(5), sessions));
}
