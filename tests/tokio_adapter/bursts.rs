//! Clients that ask for much at once.

use ssh_io_tokio::{Asked, Client, HostKeys, ServerConnection};
use ssh_proto::{AuthVerdict, ChannelConfig, ExitStatus, Limits};
use ssh_tests::{null_client, null_server};
use tokio::io::AsyncReadExt;

use crate::rig::within;

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

#[tokio::test(start_paused = true)]
async fn as_many_channels_as_the_limits_allow_are_opened_and_used_at_once() {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let server = null_server().with_limits(many).build().unwrap();
    let (server, driver) = ServerConnection::start(server, theirs);
    tokio::spawn(driver.run());
    tokio::spawn(serve(server));
    let builder = Client::with_config(null_client().with_limits(many).build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("test", 22, ours).await.unwrap();
    client.auth_password("me", "x").await.unwrap();
    let programs: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut channel = client.open_session().await?;
                channel.exec("program").await?;
                let mut said = Vec::new();
                channel.read_to_end(&mut said).await?;
                Ok::<_, ssh_io_tokio::Error>((said, channel.wait().await?))
            })
        })
        .collect();
    for program in programs {
        let ran = within(program).await.unwrap().unwrap();
        assert_eq!(ran, (b"x".to_vec(), Some(ExitStatus::Code(0))));
    }
}
