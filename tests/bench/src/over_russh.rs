//! russh on any transport: in memory, and between two processes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, Handle};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{self, Auth, ChannelOpenHandle, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelWriteHalf, Disconnect, Limits, Preferred, cipher, kex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::commands::Command;
use crate::over_tokio::runtime;
use crate::work::{
    CHUNK, Cipher, Direction, ECHO, Kex, OUTPUT, PACKET, USER, WINDOW, WIRE, rate, repeat_async,
};

/// Both sides' configurations, and the key the client logs in with.
#[derive(Clone)]
struct Configs {
    client: Arc<client::Config>,
    server: Arc<server::Config>,
    user_key: Arc<PrivateKey>,
}

impl Configs {
    fn new(cipher: Cipher, kex: Kex) -> Self {
        let limits = Limits {
            rekey_write_limit: usize::MAX / 4,
            rekey_read_limit: usize::MAX / 4,
            rekey_time_limit: Duration::from_secs(24 * 3600),
        };
        let preferred = Preferred {
            kex: Cow::Owned(vec![
                match kex {
                    Kex::Curve25519 => kex::CURVE25519,
                    Kex::Mlkem768x25519 => kex::MLKEM768X25519_SHA256,
                },
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            cipher: Cow::Owned(vec![match cipher {
                Cipher::Aes128Gcm => cipher::AES_128_GCM,
                Cipher::Chacha20Poly1305 => cipher::CHACHA20_POLY1305,
            }]),
            ..Preferred::default()
        };
        let packet = u32::try_from(PACKET).unwrap_or(u32::MAX);
        let client = client::Config {
            limits: limits.clone(),
            window_size: WINDOW,
            maximum_packet_size: packet,
            preferred: preferred.clone(),
            nodelay: true,
            ..client::Config::default()
        };
        let server = server::Config {
            limits,
            window_size: WINDOW,
            maximum_packet_size: packet,
            preferred,
            nodelay: true,
            keys: vec![key(1)],
            ..server::Config::default()
        };
        Self { client: Arc::new(client), server: Arc::new(server), user_key: Arc::new(key(2)) }
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// The server's side of a connection.
struct Server {
    meter: Arc<AtomicU64>,
    waiting: HashMap<ChannelId, ChannelWriteHalf<server::Msg>>,
    /// Bytes still to come to a command that reads, or none.
    left: u64,
    echo: bool,
}

impl Server {
    fn new(meter: Arc<AtomicU64>) -> Self {
        Self { meter, waiting: HashMap::new(), left: 0, echo: false }
    }
}

fn end(channel: ChannelId, session: &mut server::Session) -> Result<(), russh::Error> {
    session.exit_status_request(channel, 0)?;
    session.eof(channel)?;
    session.close(channel)
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<server::Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Self::Error> {
        // What is received comes to `data`.
        self.waiting.insert(channel.id(), channel.split().1);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let Some(writer) = self.waiting.remove(&channel) else { return session.channel_failure(channel) };
        let Some(command) = Command::parse(line) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        match command {
            Command::Move(Direction::Down, bytes) => {
                tokio::spawn(async move {
                    write(&writer, bytes).await?;
                    writer.exit_status(0).await?;
                    writer.eof().await?;
                    writer.close().await
                });
            }
            Command::Move(Direction::Up, bytes) => self.left = bytes,
            Command::Echo => self.echo = true,
            Command::Say => {
                session.data(channel, Bytes::from_static(&OUTPUT))?;
                end(channel, session)?;
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        if self.echo {
            return session.data(channel, Bytes::copy_from_slice(data));
        }
        self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.left = self.left.saturating_sub(data.len() as u64);
        if self.left == 0 { end(channel, session) } else { Ok(()) }
    }
}

async fn write<M>(to: &ChannelWriteHalf<M>, bytes: u64) -> Result<(), russh::Error>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let data = Bytes::from(vec![7; CHUNK]);
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        to.data_bytes(data.slice(..n)).await?;
        left -= n as u64;
    }
    Ok(())
}

/// The client's side of a connection.
#[derive(Clone, Default)]
struct Client {
    meter: Arc<AtomicU64>,
    closed: Arc<Notify>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut client::Session) -> Result<(), Self::Error> {
        self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut client::Session) -> Result<(), Self::Error> {
        self.closed.notify_one();
        Ok(())
    }
}

/// Serves a client to its end.
async fn serve<T>(configs: Configs, meter: Arc<AtomicU64>, transport: T) -> Result<(), russh::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    server::run_stream(configs.server, transport, Server::new(meter)).await?.await
}

/// Connects and logs in.
async fn log_in<T>(configs: &Configs, handler: Client, transport: T) -> Result<Handle<Client>, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = client::connect_stream(configs.client.clone(), transport, handler).await?;
    let key = PrivateKeyWithHashAlg::new(configs.user_key.clone(), None);
    if !client.authenticate_publickey(USER, key).await?.success() {
        return Err("no login".into());
    }
    Ok(client)
}

/// Leaves, and waits until both sides are gone.
async fn leave(client: Handle<Client>, server: JoinHandle<Result<(), russh::Error>>) -> Result<(), Failure> {
    client.disconnect(Disconnect::ByApplication, "", "").await?;
    // How each side calls its end is no matter.
    let _ = client.await;
    let _ = server.await?;
    Ok(())
}

async fn start(client: &Handle<Client>, command: Command) -> Result<Channel<client::Msg>, Failure> {
    let mut channel = client.channel_open_session().await?;
    channel.exec(true, command.line()).await?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(channel),
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            other => return Err(format!("a command is refused: {other:?}").into()),
        }
    }
}

/// A client, and a server in the same runtime whose bytes go to the same meter.
async fn in_memory(
    configs: &Configs,
) -> Result<(Client, Handle<Client>, JoinHandle<Result<(), russh::Error>>), Failure> {
    let (near, far) = tokio::io::duplex(WIRE);
    let handler = Client::default();
    let server = tokio::spawn(serve(configs.clone(), handler.meter.clone(), far));
    let client = log_in(configs, handler.clone(), near).await?;
    Ok((handler, client, server))
}

/// Channel data, in GB/s.
pub(crate) fn bulk(cipher: Cipher, direction: Direction, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        let (handler, client, _server) = in_memory(&configs).await?;
        let (_, writer) = start(&client, Command::Move(direction, u64::MAX)).await?.split();
        if direction == Direction::Up {
            tokio::spawn(async move { write(&writer, u64::MAX).await });
        }
        Ok(rate(|| handler.meter.load(Ordering::Relaxed), seconds).await)
    })
}

/// Handshakes per second.
pub(crate) fn handshakes(kex: Kex, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, kex);
    let mean = runtime()?.block_on(repeat_async(seconds, async || {
        let (_, client, server) = in_memory(&configs).await?;
        leave(client, server).await
    }))?;
    Ok(1.0 / mean)
}

/// A command, in microseconds.
pub(crate) fn execs(seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, Kex::Curve25519);
    runtime()?.block_on(async {
        let (_, client, _server) = in_memory(&configs).await?;
        let mean = repeat_async(seconds, async || {
            let mut channel = start(&client, Command::Say).await?;
            let (mut output, mut exit) = (0, None);
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => output += data.len(),
                    ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
                    _ => {}
                }
            }
            if output == OUTPUT.len() && exit == Some(0) { Ok(()) } else { Err("a command failed".into()) }
        });
        Ok(mean.await? * 1e6)
    })
}

/// An echo, in microseconds.
pub(crate) fn echoes(channels: usize, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, Kex::Curve25519);
    runtime()?.block_on(async {
        let (_, client, _server) = in_memory(&configs).await?;
        let mut open = Vec::new();
        for _ in 0..channels {
            open.push(start(&client, Command::Echo).await?);
        }
        let mut turn = 0;
        let mean = repeat_async(seconds, async || {
            let channel = &mut open[turn];
            turn = (turn + 1) % channels;
            channel.data_bytes(Bytes::from_static(&ECHO)).await?;
            let mut left = ECHO.len();
            while left > 0 {
                match channel.wait().await {
                    Some(ChannelMsg::Data { data }) => left = left.saturating_sub(data.len()),
                    Some(_) => {}
                    None => return Err("no echo".into()),
                }
            }
            Ok(())
        });
        Ok(mean.await? * 1e6)
    })
}

/// Serves one client of a listener.
pub(crate) fn serve_one(cipher: Cipher, listener: std::net::TcpListener) -> Result<(), Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        listener.set_nonblocking(true)?;
        let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
        stream.set_nodelay(true)?;
        let _ = serve(configs, Arc::default(), stream).await;
        Ok(())
    })
}

/// Moves so many bytes, with a server at this port.
pub(crate) fn transfer(cipher: Cipher, direction: Direction, port: u16, bytes: u64) -> Result<(), Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let handler = Client::default();
        let client = log_in(&configs, handler.clone(), stream).await?;
        let (_, writer) = start(&client, Command::Move(direction, bytes)).await?.split();
        if direction == Direction::Up {
            write(&writer, bytes).await?;
        }
        handler.closed.notified().await;
        if direction == Direction::Down && handler.meter.load(Ordering::Relaxed) != bytes {
            return Err("data was lost".into());
        }
        client.disconnect(Disconnect::ByApplication, "", "").await?;
        let _ = client.await;
        Ok(())
    })
}
