//! What a connection of `ssh-io-tokio` allocates: nothing for a data packet, and nothing that it keeps.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ssh_io_tokio::{Asked, ServerConnection};
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelEvent, ClientConfigBuilder, InputPool, Server, ServerConfig,
    ServerConfigBuilder, ServerEvent, Stream,
};
use ssh_tests::{Peer, Seeded, null_client, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::providers::{Real, never};
use super::{IDLE, NOW, allocations, live, since, turn};

/// What a server is told to do, from outside of its task.
#[derive(Default)]
struct Orders {
    /// Bytes still to send.
    send: AtomicUsize,
    sends: Notify,
    /// Give the buffers back.
    rests: Notify,
}

impl Orders {
    fn send(&self, bytes: usize) {
        self.send.fetch_add(bytes, Ordering::SeqCst);
        self.sends.notify_one();
    }
}

/// A server that sends what it is told to on the one channel, and takes what comes. Its buffers are those of an
/// adapter.
async fn serve(config: Arc<ServerConfig>, transport: DuplexStream, orders: Arc<Orders>) {
    let (mut reader, mut writer) = tokio::io::split(transport);
    let (mut conn, mut pool) = (Server::connect(config, Box::new(Seeded::new(2))), InputPool::new());
    let (mut output, mut channel, data) = (BytesMut::new(), None, [7; PACKET]);
    loop {
        loop {
            conn.handle_input(NOW, pool.buffer());
            match conn.poll_event() {
                Some(ServerEvent::Auth(request)) => conn.reply_auth(request, AuthVerdict::Accept).unwrap(),
                Some(ServerEvent::Open(request)) => {
                    channel = Some(conn.accept_channel(request, ChannelConfig::default()).unwrap());
                }
                Some(ServerEvent::Channel(id, ChannelEvent::Readable(stream))) => {
                    while conn.channel(id).unwrap().read(stream, usize::MAX).is_ok() {}
                }
                Some(ServerEvent::Closed(_)) => return,
                Some(_) => {}
                None => break,
            }
        }
        while let Some(id) = channel
            && let left @ 1.. = orders.send.load(Ordering::SeqCst)
            && let Ok(n) = conn.channel(id).unwrap().write(Stream::Data, &data[..left.min(PACKET)])
        {
            orders.send.fetch_sub(n, Ordering::SeqCst);
        }
        if output.is_empty() {
            conn.swap_output(&mut output);
        }
        let room = pool.reserve();
        tokio::select! {
            biased;
            n = writer.write(&output), if !output.is_empty() => {
                let n = n.unwrap();
                output.advance(n);
                conn.consume_output(n);
            }
            n = reader.read_buf(pool.buffer()) => match n.unwrap() {
                0 => conn.handle_eof(NOW),
                n => pool.filled(n, room),
            },
            () = orders.sends.notified() => {}
            () = orders.rests.notified() => {
                pool.idle();
                conn.handle_timeout(NOW);
                if output.is_empty() {
                    output = BytesMut::new();
                }
            }
        }
    }
}

const PACKET: usize = 1000;
/// What the transport in memory holds each way.
const PIPE: usize = 64 * 1024;

/// A client of the tokio adapter with a channel to that server.
async fn tokio_channel(
    client: ClientConfigBuilder,
    server: ServerConfigBuilder,
) -> (ssh_io_tokio::Client, ssh_io_tokio::Channel, Arc<Orders>) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let orders = Arc::new(Orders::default());
    tokio::spawn(serve(server.build().unwrap(), theirs, Arc::clone(&orders)));
    let builder = ssh_io_tokio::Client::with_config(client.build().unwrap());
    let builder = builder.host_keys(ssh_io_tokio::HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("test", 22, ours).await.unwrap();
    client.auth_password("me", "x").await.unwrap();
    let channel = client.open_session().await.unwrap();
    (client, channel, orders)
}

/// Runs this on a runtime of its own whose time is paused, and jumps when nothing else is left to do.
fn block_on(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3600), future).await }).unwrap();
}

#[test]
fn a_data_packet_costs_the_tokio_adapter_no_allocation() {
    let _turn = turn();
    let aws_lc = Real::aws_lc();
    let gcm = (aws_lc.client().ciphers(&["aes128-gcm@openssh.com"]), aws_lc.server());
    for (name, (client, server)) in [("null", (null_client(), null_server())), ("aws-lc-rs", gcm)] {
        let (client, server) = (client.with_rekey(never), server.with_rekey(never));
        block_on(async {
            let (_client, mut channel, orders) = tokio_channel(client, server).await;
            let (mut piece, mut least) = (vec![0; 10 * PACKET], usize::MAX);
            for _ in 0..8 {
                let before = allocations();
                for _ in 0..100 {
                    // Each time both sides wait first, and are woken.
                    orders.send(piece.len());
                    channel.read_exact(&mut piece).await.unwrap();
                    channel.write_all(&piece).await.unwrap();
                }
                least = least.min(allocations() - before);
            }
            assert_eq!(least, 0, "{name}");
        });
    }
}

#[test]
fn a_tokio_connection_gives_its_buffers_back_when_nothing_moves() {
    let _turn = turn();
    block_on(async {
        let (_client, mut channel, orders) =
            tokio_channel(null_client().with_rekey(never), null_server().with_rekey(never)).await;
        // The server's buffers are not what this is about.
        let after = async |pause| {
            tokio::time::sleep(pause).await;
            orders.rests.notify_one();
            tokio::time::sleep(Duration::from_secs(1)).await;
            live()
        };
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(15));
        let mut piece = vec![0; 1 << 20];
        let fresh = after(long).await;
        for _ in 0..3 {
            for _ in 0..8 {
                orders.send(piece.len());
                channel.read_exact(&mut piece).await.unwrap();
                channel.write_all(&piece).await.unwrap();
            }
            let (busy, idle) = (after(short).await, after(long).await);
            let (back, kept) = (busy.saturating_sub(idle), idle.saturating_sub(fresh));
            println!("over tokio, behind a transfer: {back} bytes are given back, {kept} kept");
            assert!(back > 256 * 1024, "{back}");
            // The transport in memory keeps its own buffers, which grow by doublings, and the test harness may have
            // come by a little.
            assert!(kept < 4 * PIPE + 32 * 1024, "{kept}");
        }
    });
}

/// What the transport in memory holds here: little, so that it can be left in the figures.
const NARROW: usize = 1024;
const BULK: usize = 4 << 20;

/// Lets everybody in, and gives back what comes to a program.
async fn echo(server: ServerConnection) {
    let mut held = None;
    while let Some(asked) = server.asked().await {
        match asked {
            Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
            Asked::Open(request) => held = request.accept(ChannelConfig::default()).ok(),
            Asked::Request(request) => {
                request.reply(true).unwrap();
                let (mut reader, mut writer) = held.take().expect("one channel").split();
                tokio::spawn(async move {
                    let mut piece = [0; PACKET];
                    while let Ok(n @ 1..) = reader.read(&mut piece).await {
                        writer.write_all(&piece[..n]).await.unwrap();
                    }
                });
            }
            _ => {}
        }
    }
}

/// A lot of data goes there and back.
async fn bulk(client: &ssh_io_tokio::Client) {
    let (mut reader, mut writer) = client.open_session().await.unwrap().split();
    writer.channel().exec("program").await.unwrap();
    let sending = async {
        for _ in 0..BULK / PACKET {
            writer.write_all(&[7; PACKET]).await.unwrap();
        }
    };
    let receiving = async {
        let (mut left, mut piece) = (BULK / PACKET * PACKET, [0; PACKET]);
        while left > 0 {
            left -= reader.read(&mut piece).await.unwrap();
        }
    };
    tokio::join!(sending, receiving);
}

#[test]
fn a_connection_with_all_of_its_tokio_adapter_is_small_again_behind_a_bulk_transfer_and_behind_its_end() {
    let _turn = turn();
    for real in Real::both() {
        small_again(&real);
    }
}

fn small_again(real: &Real) {
    let name = real.provider.name;
    block_on(async {
        let (ours, theirs) = (real.client().build().unwrap(), real.server().build().unwrap());
        let mut most = (0, 0, 0, 0);
        // What the process and the runtime set up once is none of the connection's.
        for first in [true, false] {
            let before = live();
            let (near, far) = tokio::io::duplex(NARROW);
            let (server, driver) = ServerConnection::start(theirs.clone(), far);
            let driver = tokio::spawn(driver.run());
            let serving = tokio::spawn(echo(server.clone()));
            let builder = ssh_io_tokio::Client::with_config(ours.clone());
            let builder = builder.host_keys(ssh_io_tokio::HostKeys::DangerousAcceptAny);
            let client = builder.connect_over("test", 22, near).await.unwrap();
            client.auth_password("me", "x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            let new = since(before) / 2;
            bulk(&client).await;
            let busy = since(before) / 2;
            tokio::time::sleep(Duration::from_secs(60)).await;
            let idle = since(before) / 2;
            // However long a handle is kept.
            bulk(&client).await;
            client.close();
            driver.await.unwrap();
            serving.await.unwrap();
            client.closed().await;
            // The client's driver is the runtime's to drop.
            tokio::task::yield_now().await;
            let over = since(before) / 2;
            most = (busy, idle, new, over);
            drop((client, server));
            assert!(first || idle.max(new).max(over) <= IDLE, "{name}: {most:?}");
        }
        println!(
            "ssh-io-tokio, {name}, an end's heap: {} bytes at the end of a bulk transfer, {} when idle behind it, \
             {} behind the login, {} when it is over",
            most.0, most.1, most.2, most.3
        );
    });
}
