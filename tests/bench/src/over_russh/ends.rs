//! The two ends: how they are configured, what they do with what comes, and how a client gets in and out.

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
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Limits, Preferred, cipher,
    kex,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::commands::Command;
use crate::work::{CHUNK, Cipher, Direction, Kex, OUTPUT, PACKET, USER, WINDOW};

/// Both sides' configurations, and the key the client logs in with.
#[derive(Clone)]
pub(super) struct Configs {
    client: Arc<client::Config>,
    server: Arc<server::Config>,
    user_key: Arc<PrivateKey>,
}

impl Configs {
    pub(super) fn new(cipher: Cipher, kex: Kex) -> Self {
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

/// How bulk data is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By the handler, which borrows it.
    Handler,
    /// By a task that waits for what is next at the channel, as a program does that is no handler.
    Channel,
}

/// The server's side of a connection.
pub(super) struct Server {
    meter: Arc<AtomicU64>,
    by: By,
    waiting: HashMap<ChannelId, ChannelWriteHalf<server::Msg>>,
    /// Bytes still to come to a command that reads, or none.
    left: u64,
    echo: bool,
}

impl Server {
    pub(super) fn new(meter: Arc<AtomicU64>, by: By) -> Self {
        Self { meter, by, waiting: HashMap::new(), left: 0, echo: false }
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
        let (reader, writer) = channel.split();
        self.waiting.insert(writer.id(), writer);
        // Without the reading half, what is received comes to `data` only.
        if self.by == By::Channel {
            tokio::spawn(count(reader, self.meter.clone()));
        }
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
        if self.by == By::Channel {
            return Ok(());
        }
        self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.left = self.left.saturating_sub(data.len() as u64);
        if self.left == 0 { end(channel, session) } else { Ok(()) }
    }
}

pub(super) async fn write<M>(to: &ChannelWriteHalf<M>, bytes: u64) -> Result<(), russh::Error>
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

/// Counts what comes, to its end.
pub(super) async fn count(mut from: ChannelReadHalf, meter: Arc<AtomicU64>) {
    while let Some(message) = from.wait().await {
        if let ChannelMsg::Data { data } = message {
            meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
}

/// The client's side of a connection.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) meter: Arc<AtomicU64>,
    by: By,
    pub(super) closed: Arc<Notify>,
}

impl Client {
    pub(super) fn new(by: By) -> Self {
        Self { meter: Arc::default(), by, closed: Arc::default() }
    }
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut client::Session) -> Result<(), Self::Error> {
        if self.by == By::Handler {
            self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut client::Session) -> Result<(), Self::Error> {
        self.closed.notify_one();
        Ok(())
    }
}

/// Serves a client to its end.
pub(super) async fn serve<T>(configs: Configs, handler: Server, transport: T) -> Result<(), russh::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    server::run_stream(configs.server, transport, handler).await?.await
}

/// Connects and logs in.
pub(super) async fn log_in<T>(
    configs: &Configs,
    handler: Client,
    transport: T,
) -> Result<Handle<Client>, Failure>
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
pub(super) async fn leave(
    client: Handle<Client>,
    server: JoinHandle<Result<(), russh::Error>>,
) -> Result<(), Failure> {
    client.disconnect(Disconnect::ByApplication, "", "").await?;
    // How each side calls its end is no matter.
    let _ = client.await;
    let _ = server.await?;
    Ok(())
}

pub(super) async fn start(
    client: &Handle<Client>,
    command: Command,
) -> Result<Channel<client::Msg>, Failure> {
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
