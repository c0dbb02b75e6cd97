//! Ours over tokio, on any transport: in memory, and between two processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ssh_io_tokio::{Asked, Channel, ChannelOf, Client, HostKeys, ServerChannel, ServerConnection};
use ssh_proto::adapter::AdapterRole;
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequestKind, CloseReason, ExitStatus,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::commands::{Command, Configs};
use crate::work::{
    CHUNK, Cipher, Direction, ECHO, Kex, Library, OUTPUT, USER, WINDOW, WIRE, rate, repeat_async,
};

/// A runtime of one thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Serves a client to its end.
async fn serve<T: AsyncRead + AsyncWrite + Send + 'static>(configs: Configs, transport: T) -> CloseReason {
    let (connection, driver) = ServerConnection::start(configs.server, transport);
    let driver = tokio::spawn(driver.run());
    let mut channels: HashMap<ChannelId, ServerChannel> = HashMap::new();
    while let Some(asked) = connection.asked().await {
        match asked {
            Asked::Auth(request) => drop(request.reply(AuthVerdict::Accept)),
            Asked::Open(request) => {
                if let Ok(channel) = request.accept(ChannelConfig::default().with_window(WINDOW)) {
                    channels.insert(channel.id(), channel);
                }
            }
            Asked::Request(request) => {
                let command = match request.kind() {
                    ChannelRequestKind::Exec(line) => Command::parse(line),
                    _ => None,
                };
                let channel = channels.remove(&request.channel());
                let _ = request.reply(command.is_some());
                if let (Some(command), Some(channel)) = (command, channel) {
                    tokio::spawn(run(command, channel));
                }
            }
            _ => {}
        }
    }
    driver.await.unwrap_or_else(|_| std::process::abort())
}

/// Runs a command to its end.
async fn run(command: Command, mut channel: ServerChannel) -> Result<(), Failure> {
    match command {
        Command::Move(Direction::Down, bytes) => write(&mut channel, bytes).await?,
        Command::Move(Direction::Up, bytes) => read(&mut channel, bytes, &AtomicU64::new(0)).await?,
        Command::Say => channel.write_all(&OUTPUT).await?,
        Command::Echo => {
            let mut buffer = [0; ECHO.len()];
            loop {
                match channel.read(&mut buffer).await? {
                    0 => break,
                    n => channel.write_all(&buffer[..n]).await?,
                }
            }
        }
    }
    channel.exit(ExitStatus::Code(0)).await?;
    channel.close();
    Ok(())
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: u64) -> Result<(), Failure> {
    let data = vec![7; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        to.write_all(&data[..n]).await?;
        left -= n as u64;
    }
    Ok(())
}

/// Reads so many bytes where they are.
async fn read<R: AdapterRole>(from: &mut ChannelOf<R>, bytes: u64, meter: &AtomicU64) -> Result<(), Failure> {
    let mut left = bytes;
    while left > 0 {
        let n = from.read_chunk(CHUNK).await?.ok_or("an early end")?.len() as u64;
        meter.fetch_add(n, Ordering::Relaxed);
        left = left.checked_sub(n).ok_or("too much data")?;
    }
    Ok(())
}

/// Connects and logs in.
async fn log_in<T: AsyncRead + AsyncWrite + Send + 'static>(
    configs: &Configs,
    transport: T,
) -> Result<Client, Failure> {
    let builder = Client::with_config(configs.client.clone()).host_keys(HostKeys::DangerousAcceptAny);
    let client = builder.connect_over("127.0.0.1", 22, transport).await?;
    client.auth_key(USER, configs.user_key.clone()).await?;
    Ok(client)
}

async fn start(client: &Client, command: Command) -> Result<Channel, Failure> {
    let channel = client.open(&ChannelKind::Session, ChannelConfig::default().with_window(WINDOW)).await?;
    channel.exec(command.line()).await?;
    Ok(channel)
}

/// A client of a server in the same runtime.
async fn in_memory(configs: &Configs) -> Result<(Client, JoinHandle<CloseReason>), Failure> {
    let (near, far) = tokio::io::duplex(WIRE);
    let server = tokio::spawn(serve(configs.clone(), far));
    Ok((log_in(configs, near).await?, server))
}

/// Channel data, in GB/s.
pub(crate) fn bulk(cipher: Cipher, direction: Direction, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Library::AwsLc, cipher, Kex::Curve25519, 1)?;
    runtime()?.block_on(async {
        let (client, _server) = in_memory(&configs).await?;
        let meter = Arc::new(AtomicU64::new(0));
        let mut channel = start(&client, Command::Move(direction, u64::MAX)).await?;
        let counted = meter.clone();
        match direction {
            Direction::Down => {
                tokio::spawn(async move { read(&mut channel, u64::MAX, &counted).await });
            }
            // What the client wrote is what the server read, but for a window.
            Direction::Up => {
                tokio::spawn(async move {
                    let data = vec![7; CHUNK];
                    while channel.write_all(&data).await.is_ok() {
                        counted.fetch_add(CHUNK as u64, Ordering::Relaxed);
                    }
                });
            }
        }
        rate(|| meter.load(Ordering::Relaxed), seconds).await
    })
}

/// Handshakes per second.
pub(crate) fn handshakes(kex: Kex, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Library::AwsLc, Cipher::Aes128Gcm, kex, 1)?;
    let mean = runtime()?.block_on(repeat_async(seconds, async || {
        let (client, server) = in_memory(&configs).await?;
        client.close();
        client.closed().await;
        server.await?;
        Ok(())
    }))?;
    Ok(1.0 / mean)
}

/// A command, in microseconds.
pub(crate) fn execs(seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Library::AwsLc, Cipher::Aes128Gcm, Kex::Curve25519, 1)?;
    runtime()?.block_on(async {
        let (client, _server) = in_memory(&configs).await?;
        let mean = repeat_async(seconds, async || {
            let channel = start(&client, Command::Say).await?;
            finish(channel, OUTPUT.len()).await
        });
        Ok(mean.await? * 1e6)
    })
}

/// Reads what a command says, and waits for its end.
async fn finish(mut channel: Channel, expected: usize) -> Result<(), Failure> {
    let mut output = Vec::with_capacity(expected);
    channel.read_to_end(&mut output).await?;
    let status = channel.wait().await?;
    let right = output.len() == expected && status == Some(ExitStatus::Code(0));
    if right { Ok(()) } else { Err("a command failed".into()) }
}

/// An echo, in microseconds.
pub(crate) fn echoes(channels: usize, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Library::AwsLc, Cipher::Aes128Gcm, Kex::Curve25519, channels)?;
    runtime()?.block_on(async {
        let (client, _server) = in_memory(&configs).await?;
        let mut open = Vec::new();
        for _ in 0..channels {
            open.push(start(&client, Command::Echo).await?);
        }
        let mut turn = 0;
        let mean = repeat_async(seconds, async || {
            let channel = &mut open[turn];
            turn = (turn + 1) % channels;
            channel.write_all(&ECHO).await?;
            let mut buffer = [0; ECHO.len()];
            channel.read_exact(&mut buffer).await?;
            Ok(())
        });
        Ok(mean.await? * 1e6)
    })
}

/// Serves one client of a listener.
pub(crate) fn serve_one(cipher: Cipher, listener: std::net::TcpListener) -> Result<(), Failure> {
    let configs = Configs::new(Library::AwsLc, cipher, Kex::Curve25519, 1)?;
    runtime()?.block_on(async {
        listener.set_nonblocking(true)?;
        let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
        stream.set_nodelay(true)?;
        serve(configs, stream).await;
        Ok(())
    })
}

/// Moves so many bytes, with a server at this port.
pub(crate) fn transfer(cipher: Cipher, direction: Direction, port: u16, bytes: u64) -> Result<(), Failure> {
    let configs = Configs::new(Library::AwsLc, cipher, Kex::Curve25519, 1)?;
    runtime()?.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let client = log_in(&configs, stream).await?;
        let mut channel = start(&client, Command::Move(direction, bytes)).await?;
        match direction {
            Direction::Down => read(&mut channel, bytes, &AtomicU64::new(0)).await?,
            Direction::Up => write(&mut channel, bytes).await?,
        }
        finish(channel, 0).await?;
        client.close();
        client.closed().await;
        Ok(())
    })
}
