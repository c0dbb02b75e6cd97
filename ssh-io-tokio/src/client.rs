//! The client: connect, log in, open channels.

use std::fmt;
use std::sync::Arc;

use ssh_proto::adapter::{Error, Output};
use ssh_proto::keys::{HostKeyDecision, HostKeyPolicy};
use ssh_proto::{
    ChannelConfig, ChannelKind, ClientConfig, Connection, Credential, Disconnect, KeyPair, Negotiated,
    PeerText, PublicKey, Secret,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::channel::Channel;
use crate::driver::Driver;
use crate::os::{OsEntropy, now};
use crate::shared::Shared;

/// How to connect, made by [`Client::builder`].
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder {
    config: Arc<ClientConfig>,
    policy: HostKeyPolicy,
}

impl ClientBuilder {
    /// Connects over TCP, and spawns the driver onto the current runtime.
    ///
    /// Cancel-safe: dropped, it leaves no connection behind.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`], [`Error::HostKey`].
    pub async fn connect(self, host: &str, port: u16) -> Result<Client, Error> {
        let stream = TcpStream::connect((host, port)).await?;
        // Packets are already coalesced; Nagle's delay would only cost time.
        stream.set_nodelay(true)?;
        let (connecting, driver) = self.start(host, port, stream);
        tokio::spawn(driver.run());
        connecting.finish().await
    }

    /// Begins over any transport: gives the driver to spawn, and what waits for the handshake. Host and port
    /// are what the host key is judged by.
    pub fn start<T: AsyncRead + AsyncWrite>(
        self,
        host: &str,
        port: u16,
        transport: T,
    ) -> (Connecting, Driver<T>) {
        let known = self.policy.key_types(host, port);
        let config = match known.is_empty() {
            true => self.config,
            false => Arc::new(self.config.prefer_host_keys(&known)),
        };
        let shared = Arc::new(Shared::new(Connection::new(config, Box::new(OsEntropy), now())));
        let driver = Driver::new(Arc::clone(&shared), transport);
        let handle = Arc::new(Handle { shared, auth: Mutex::new(()) });
        (Connecting { handle, policy: self.policy, host: host.to_owned(), port }, driver)
    }
}

/// A connection whose handshake is under way.
#[must_use = "dropping it ends the connection"]
pub struct Connecting {
    handle: Arc<Handle>,
    policy: HostKeyPolicy,
    host: String,
    port: u16,
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Connecting {
    /// Waits for the host key and judges it.
    ///
    /// A key that the policy wants recorded is accepted; [`Client::new_host_key`] then gives it, to be appended
    /// to the file it belongs in.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::HostKey`].
    pub async fn finish(self) -> Result<Client, Error> {
        let shared = &self.handle.shared;
        let check = shared.wait_for(|state| state.host_key.take()).await?;
        let key = check.key().clone();
        let decision = self.policy.decide(&self.host, self.port, &key);
        let mut state = shared.lock();
        let new_host_key = match decision {
            HostKeyDecision::Accept => {
                state.conn.accept_host_key(check)?;
                None
            }
            HostKeyDecision::AcceptAndRecord => {
                state.conn.accept_host_key(check)?;
                Some(key)
            }
            decision => {
                let _ = state.conn.reject_host_key(check);
                drop(state);
                shared.work.notify_one();
                return Err(match decision {
                    HostKeyDecision::Reject(why) => Error::HostKey(why),
                    _ => Error::Closed(ssh_proto::CloseReason::HostKeyRejected),
                });
            }
        };
        drop(state);
        shared.work.notify_one();
        Ok(Client { handle: self.handle, new_host_key })
    }
}

/// Closes the connection when the last client is dropped; channels end with it.
struct Handle {
    shared: Arc<Shared>,
    /// Attempts to log in take turns.
    auth: Mutex<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().conn.close(Disconnect::by_application());
        self.shared.work.notify_one();
    }
}

/// A connection to a server. Clones share it; it may be used from many tasks at once.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    new_host_key: Option<PublicKey>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts from a configuration and a host key policy.
    pub fn builder(config: Arc<ClientConfig>, policy: HostKeyPolicy) -> ClientBuilder {
        ClientBuilder { config, policy }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The host key, when the policy accepted it as new and wants it recorded.
    pub fn new_host_key(&self) -> Option<&PublicKey> {
        self.new_host_key.as_ref()
    }

    /// Tries to log in. A signer is called on the driver's task: one that takes its time belongs behind a
    /// ticket of [`ssh_proto`].
    ///
    /// Dropped, the attempt goes on; until its answer is there another one is `Busy`.
    ///
    /// # Errors
    /// [`Error::AuthFailed`], which also says if this was one step of several; [`Error::Auth`],
    /// [`Error::Closed`].
    pub async fn authenticate(&self, user: &str, with: Credential) -> Result<(), Error> {
        let shared = self.shared();
        let _turn = self.handle.auth.lock().await;
        {
            let mut state = shared.lock();
            state.conn.authenticate(user, with)?;
            state.auth = None;
        }
        shared.work.notify_one();
        match shared.wait_for(|state| state.auth.take()).await? {
            Ok(()) => Ok(()),
            Err((remaining, partial)) => Err(Error::AuthFailed { remaining, partial }),
        }
    }

    /// Logs in with a password.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn auth_password(&self, user: &str, password: &str) -> Result<(), Error> {
        self.authenticate(user, Credential::Password(Secret::from(password))).await
    }

    /// Logs in with a key.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn auth_key(&self, user: &str, key: KeyPair) -> Result<(), Error> {
        self.authenticate(user, Credential::PublicKey { key, probe: false }).await
    }

    /// Opens a session, for one program.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::OpenFailed`], [`Error::Closed`].
    pub async fn open_session(&self) -> Result<Channel, Error> {
        self.open(&ChannelKind::Session, ChannelConfig::default()).await
    }

    /// Opens a channel of any kind.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn open(&self, kind: &ChannelKind, config: ChannelConfig) -> Result<Channel, Error> {
        let shared = self.shared();
        let channel = {
            let mut state = shared.lock();
            if state.closed.is_some() {
                return Err(state.gone());
            }
            let id = state.conn.open_channel(kind, config)?;
            state.channels.entry(id).or_default();
            Channel::new(Arc::clone(shared), id)
        };
        shared.work.notify_one();
        let opened = shared.wait_for_channel(channel.id(), |news| news.opened.take()).await?;
        opened.map_err(Error::OpenFailed)?;
        Ok(channel)
    }

    /// Runs a command without input, and collects what it says.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session), and [`Error::RequestRefused`].
    pub async fn exec(&self, command: impl AsRef<[u8]>) -> Result<Output, Error> {
        let mut channel = self.open_session().await?;
        channel.exec(command).await?;
        channel.finish_input()?;
        let (stdout, stderr) = channel.read_both().await?;
        let status = channel.wait().await?;
        Ok(Output { stdout, stderr, status })
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        self.shared().lock().conn.rekey();
        self.shared().work.notify_one();
    }

    /// How often keys were renewed.
    pub fn rekeys(&self) -> u64 {
        self.shared().lock().rekeys
    }

    /// Text the server sent before authentication, so far not taken.
    pub fn take_banners(&self) -> Vec<PeerText> {
        std::mem::take(&mut self.shared().lock().banners)
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.shared().lock().conn.negotiated().cloned()
    }

    /// Our identification line, and the server's.
    pub fn idents(&self) -> (String, PeerText) {
        let state = self.shared().lock();
        (state.conn.local_ident(), state.conn.peer_ident().unwrap_or_default())
    }

    /// Ends the connection; its driver then finishes.
    pub fn close(&self) {
        self.shared().lock().conn.close(Disconnect::by_application());
        self.shared().work.notify_one();
    }
}
