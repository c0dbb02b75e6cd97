//! Clients that ask for much at once.

use std::mem;
use std::time::Duration;

use ssh_io_tokio::{Asked, Client, Error, HostKeys, ServerConnection};
use ssh_proto::{AuthVerdict, ChannelConfig, ChannelRequestKind, ExitStatus, Limits};
use ssh_tests::{null_client, null_server};
use tokio::io::AsyncReadExt;

use crate::rig::{poll_once, within};

const CHANNELS: usize = 2000;

fn many(limits: &mut Limits) {
    limits.max_channels = CHANNELS;
    limits.pending_opens = CHANNELS;
    limits.recv_budget = 2 * CHANNELS * limits.min_window;
}

/// Lets everybody in, and has each program say a byte and end.
async fn serve(server: ServerConnection) {
    let mut channels = Vec::new();
    while let Some(asked) = server.asked().await {
        match asked {
            Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
            Asked::Open(request) => channels.push(request.accept(ChannelConfig::default()).unwrap()),
            Asked::Request(request) => {
                let at = channels.iter().position(|channel| channel.id() == request.channel()).unwrap();
                let mut channel = channels.swap_remove(at);
                request.reply(true).unwrap();
                tokio::spawn(async move {
                    tokio::io::AsyncWriteExt::write_all(&mut channel, b"x").await.unwrap();
                    channel.exit(ExitStatus::Code(0)).await.unwrap();
                    channel.close();
                });
            }
            _ => {}
        }
    }
}

/// A client of a server with this application.
async fn logged_in<F: Future<Output = ()> + Send + 'static>(
    limits: fn(&mut Limits),
    serve: impl FnOnce(ServerConnection) -> F,
) -> Client {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let server = null_server().with_limits(limits).build().unwrap();
    let (server, driver) = ServerConnection::start(server, theirs);
    tokio::spawn(driver.run());
    tokio::spawn(serve(server));
    let builder = Client::with_config(null_client().with_limits(limits).build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("test", 22, ours).await.unwrap();
    client.auth_password("me", "x").await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn a_refused_open_is_told_also_when_another_channel_has_its_place_by_then() {
    let client = logged_in(
        |_| {},
        |server| async move {
            let (mut first, mut kept) = (true, Vec::new());
            while let Some(asked) = server.asked().await {
                match asked {
                    Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
                    Asked::Open(request) if mem::take(&mut first) => drop(request),
                    Asked::Open(request) => kept.push(request.accept(ChannelConfig::default()).unwrap()),
                    _ => {}
                }
            }
        },
    );
    let client = client.await;
    let mut refused = Box::pin(client.open_session());
    assert!(poll_once(refused.as_mut()).await.is_none());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let opened = client.open_session().await.unwrap();
    opened.send_request(&ChannelRequestKind::exec("program"), false).await.unwrap();
    // Its place goes with it.
    drop(opened);
    let refused = within(refused).await;
    assert!(matches!(refused, Err(Error::OpenFailed(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn long_commands_on_all_channels_at_once_wait_for_a_server_that_is_late() {
    let granted = logged_in(
        |_| {},
        |server| async move {
            let (mut channels, mut requests) = (Vec::new(), Vec::new());
            while let Some(asked) = server.asked().await {
                match asked {
                    Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
                    Asked::Open(request) => channels.push(request.accept(ChannelConfig::default()).unwrap()),
                    Asked::Request(request) => {
                        if requests.is_empty() {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                        requests.push(request);
                        if requests.len() == channels.len() {
                            requests.drain(..).for_each(|request| request.reply(true).unwrap());
                        }
                    }
                    _ => {}
                }
            }
        },
    );
    let client = granted.await;
    let mut channels = Vec::new();
    for _ in 0..Limits::default().max_channels {
        channels.push(client.open_session().await.unwrap());
    }
    let command = "x".repeat(30_000);
    let asking: Vec<_> = channels
        .into_iter()
        .map(|channel| {
            let command = command.clone();
            tokio::spawn(async move { channel.exec(command).await.map(|()| channel) })
        })
        .collect();
    for asked in asking {
        within(asked).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_channels_as_the_limits_allow_are_opened_and_used_at_once() {
    let client = logged_in(many, serve).await;
    let programs: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut channel = client.open_session().await?;
                channel.exec("program").await?;
                let mut said = Vec::new();
                channel.read_to_end(&mut said).await?;
                Ok::<_, Error>((said, channel.wait().await?))
            })
        })
        .collect();
    for program in programs {
        let ran = within(program).await.unwrap().unwrap();
        assert_eq!(ran, (b"x".to_vec(), Some(ExitStatus::Code(0))));
    }
}
