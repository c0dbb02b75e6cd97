//! The client: connect, log in, open channels.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use ssh_proto::adapter::{Error, LoginStep, Output, read_private_key, sign};
use ssh_proto::{
    AuthError, ChannelConfig, ChannelKind, Client as ClientRole, ClientConfig, CloseReason, Credential,
    KeyPair, MemoryUsage, Negotiated, OpenError, PeerText, PublicKey, Secret, SessionId, SignRefused,
    SignRequest, Signature, ToSign,
};
use tokio::runtime::Handle as Runtime;

use crate::blocking::blocking;
use crate::channel::Channel;
use crate::host_key::HostKeys;
use crate::os::OsEntropy;
use crate::shared::{Shared, State};
use crate::waiters::Wakers;

mod connect;

pub use connect::{ClientBuilder, Connecting};

/// Closes the connection when the last client is dropped; channels end with it.
struct Handle {
    shared: Arc<Shared<ClientRole>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A call that logs in. When it ends, by whatever way, a question for a signature that it leaves behind is
/// dropped, which the driver must see, and the next call has its turn.
struct Attempt<'a>(&'a Shared<ClientRole>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // Dropped behind the guard, as it is declared before it.
        let mut woken = Wakers::default();
        let mut state = self.0.lock();
        state.kept.login.give_up();
        state.waiters.wake(&mut woken);
        drop(state);
        self.0.work.notify_one();
    }
}

/// A question for a signature while its signer has it. When it is dropped unanswered, and so refused, the driver is
/// told.
struct Lent {
    request: Option<SignRequest>,
    shared: Arc<Shared<ClientRole>>,
}

impl Lent {
    fn to_sign(&self) -> Option<ToSign<'_>> {
        self.request.as_ref().map(SignRequest::to_sign)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        drop(self.request.take());
        self.shared.work.notify_one();
    }
}

/// A connection to a server. Clones share it; it may be used from many tasks at once. Dropping the last one
/// ends the connection, and its channels with it; what they received before can still be read. A runtime that ends takes
/// the last words along: before it does, [close](Self::close) the client and wait until it is [closed](Self::closed).
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts from the default algorithms and limits, and no host key accepted.
    ///
    /// # Panics
    /// Never: the default configuration is valid.
    #[cfg(feature = "rustcrypto")]
    #[expect(clippy::expect_used, reason = "a test builds the default configuration")]
    pub fn builder() -> ClientBuilder {
        let config = ClientConfig::builder(&ssh_proto::crypto::PROVIDER).build();
        Self::with_config(config.expect("the default configuration is valid"))
    }

    /// Starts from a configuration, and no host key accepted.
    pub fn with_config(config: Arc<ClientConfig>) -> ClientBuilder {
        ClientBuilder { config, host_keys: HostKeys::ask(async |_| false), timeout: None }
    }

    fn shared(&self) -> &Arc<Shared<ClientRole>> {
        &self.handle.shared
    }

    /// Tries to log in. How long the server may take is [`Limits::login_timeout`](ssh_proto::Limits).
    ///
    /// A [quick](ssh_proto::Signer::is_quick) signer is called by the driver. Any other is on a thread of the driver's
    /// runtime for what blocks, with nothing locked: it may wait for a token
    /// to be touched. The end of the runtime waits for it, unless that is by
    /// [`shutdown_background`](tokio::runtime::Runtime::shutdown_background). For signatures that are awaited there is
    /// [`auth_key_with`](Self::auth_key_with).
    ///
    /// Cancel-safe: dropped before it is ready, a signature not made yet is refused, and an attempt that was begun
    /// goes on unseen; it may still succeed. The next call waits for its end, and for a signer that was called, and is
    /// told [`AuthError::Done`] if that was a success.
    ///
    /// # Errors
    /// [`Error::AuthFailed`], which also says if this was one step of several; [`Error::Auth`],
    /// [`Error::Closed`], [`Error::Io`].
    pub async fn authenticate(&self, user: &str, mut with: Credential) -> Result<(), Error> {
        let signer = match &mut with {
            Credential::PublicKey { key, .. } => key.take_slow_signer(),
            _ => None,
        };
        let sign = async move |lent: Lent| {
            let Some(signer) = signer else { return Some((lent, Err(SignRefused))) };
            let runtime = lent.shared.runtime();
            let signing = blocking(runtime, move || {
                let signature =
                    lent.to_sign().map_or(Err(SignRefused), |what| sign(&*signer, &what, &mut OsEntropy));
                (lent, signature)
            });
            signing.await.ok()
        };
        self.log_in(user, with, sign).await
    }

    async fn log_in(
        &self,
        user: &str,
        with: Credential,
        sign: impl AsyncFnOnce(Lent) -> Option<(Lent, Result<Signature, SignRefused>)>,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let (mut with, mut sign) = (Some(with), Some(sign));
        let begin = |state: &mut State<ClientRole>| {
            if state.is_mute() {
                return Some(Err(state.gone()));
            }
            // What comes of one that was given up must not be taken for what comes of this one.
            if !state.kept.login.is_free() {
                return None;
            }
            match state.conn.authenticate(user, with.take()?) {
                // The reason is on its way.
                Err(AuthError::Closed) => return None,
                Err(error) => return Some(Err(error.into())),
                Ok(()) => {}
            }
            state.kept.login.begin();
            Some(Ok(()))
        };
        shared.wait_for(begin).await??;
        let _attempt = Attempt(shared);
        shared.work.notify_one();
        loop {
            let request = match shared.wait_for(|state| state.kept.login.take_step()).await? {
                LoginStep::Done(outcome) => return outcome,
                LoginStep::Sign(request) => request,
            };
            let lent = Lent { request: Some(request), shared: Arc::clone(shared) };
            // Dropped unanswered it is refused.
            let Some(sign) = sign.take() else { continue };
            let Some((mut lent, signature)) = sign(lent).await else { continue };
            let Some(request) = lent.request.take() else { continue };
            shared.command(|state, _| {
                // The question may be gone with the connection; the wait then says so.
                let _ = state.conn.provide_signature(request, signature);
            });
        }
    }

    /// Logs in with a password.
    ///
    /// Cancel-safe as [`authenticate`](Self::authenticate).
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn auth_password(&self, user: &str, password: &str) -> Result<(), Error> {
        self.authenticate(user, Credential::Password(Secret::from(password))).await
    }

    /// Logs in with a key.
    ///
    /// Cancel-safe as [`authenticate`](Self::authenticate).
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn auth_key(&self, user: &str, key: KeyPair) -> Result<(), Error> {
        self.authenticate(user, Credential::PublicKey { key, probe: false }).await
    }

    /// Logs in with the key in an `openssh-key-v1` file.
    ///
    /// Cancel-safe as [`authenticate`](Self::authenticate).
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::PrivateKey`] for the file; else as [`authenticate`](Self::authenticate).
    pub async fn auth_key_file(
        &self,
        user: &str,
        file: impl AsRef<Path>,
        passphrase: Option<&Secret<str>>,
    ) -> Result<(), Error> {
        // The future can be sent whatever names the file.
        let reading = read_key(file.as_ref(), passphrase, self.shared().runtime());
        self.auth_key(user, reading.await?).await
    }

    /// Logs in with a key whose signatures take time: those of an agent, a token, a person. The server is
    /// asked first if the key would do, and only then is `sign` called, with nothing locked. It must not block: a
    /// signer that does is for [`auth_key`](Self::auth_key).
    ///
    /// Cancel-safe as [`authenticate`](Self::authenticate): what `sign` gave is dropped along.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate). A signature refused is an [`Error::AuthFailed`].
    pub async fn auth_key_with(
        &self,
        user: &str,
        key: PublicKey,
        sign: impl AsyncFnOnce(ToSign<'_>) -> Result<Signature, SignRefused>,
    ) -> Result<(), Error> {
        let key = KeyPair::external(key);
        let sign = async |lent: Lent| {
            let signature = match lent.to_sign() {
                Some(what) => sign(what).await,
                None => Err(SignRefused),
            };
            Some((lent, signature))
        };
        self.log_in(user, Credential::PublicKey { key, probe: true }, sign).await
    }

    /// Opens a session, for one program.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::OpenFailed`], [`Error::Closed`], [`Error::Io`].
    pub async fn open_session(&self) -> Result<Channel, Error> {
        self.open(&ChannelKind::Session, ChannelConfig::default()).await
    }

    /// Has the server connect to `host:port`, and opens a channel to there. Another connection may run
    /// [over it](ClientBuilder::connect_over): this one is then its jump host.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn open_direct_tcpip(&self, host: &str, port: u16) -> Result<Channel, Error> {
        let originator = "127.0.0.1".into();
        let kind = ChannelKind::DirectTcpip { host: host.into(), port, originator, originator_port: 0 };
        self.open(&kind, ChannelConfig::default()).await
    }

    /// Opens a channel of any kind.
    ///
    /// Cancel-safe: dropped, the channel closes by itself.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn open(&self, kind: &ChannelKind, config: ChannelConfig) -> Result<Channel, Error> {
        let shared = self.shared();
        let open = |state: &mut State<ClientRole>| {
            if state.is_mute() {
                return Some(Err(state.gone()));
            }
            match state.conn.open_channel(kind, config) {
                // The reason is on its way.
                Err(OpenError::Closed) => None,
                Err(error) => Some(Err(error.into())),
                Ok(id) => {
                    state.hear_of(id);
                    Some(Ok(id))
                }
            }
        };
        let id = shared.wait_for(open).await??;
        let channel = Channel::new(Arc::clone(shared), id);
        shared.work.notify_one();
        let opened = shared.wait_for_channel(id, |state| state.channels.get_mut(id)?.opened.take()).await?;
        opened.map_err(Error::OpenFailed)?;
        Ok(channel)
    }

    /// Runs a command without input, and collects what it says.
    ///
    /// Cancel-safe: dropped, the channel closes by itself. What was collected is gone, and a command that was asked
    /// for may run.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session), and [`Error::RequestRefused`].
    pub async fn exec(&self, command: impl AsRef<[u8]>) -> Result<Output, Error> {
        let channel = self.open_session().await?;
        channel.exec(command).await?;
        // A server that has said all may be gone by now: what it said counts.
        let _ = channel.finish_input();
        let (stdout, stderr) = channel.read_both().await?;
        let status = match channel.wait().await {
            Err(Error::Closed(_) | Error::Io(_)) => None,
            status => status?,
        };
        Ok(Output { stdout, stderr, status })
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        self.shared().command(|state, _| state.conn.rekey());
    }

    /// How often keys were renewed.
    pub fn rekeys(&self) -> u64 {
        self.shared().lock().kept.rekeys
    }

    /// Text the server sent before authentication, so far not taken.
    pub fn take_banners(&self) -> Vec<PeerText> {
        std::mem::take(&mut self.shared().lock().kept.banners)
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.shared().lock().conn.negotiated().cloned()
    }

    /// What names this connection, to both sides alike (RFC 4253 §7.2); `None` before the first key exchange is done.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared().lock().conn.session_id().cloned()
    }

    /// Our identification line, and the server's.
    pub fn idents(&self) -> (String, PeerText) {
        let state = self.shared().lock();
        (state.conn.local_ident(), state.conn.peer_ident().unwrap_or_default())
    }

    /// Ends the connection: what was written still leaves. Its driver then finishes, for which
    /// [`closed`](Self::closed) waits.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Waits until the connection is over and its driver done with the transport, and tells why.
    ///
    /// Cancel-safe: it can be called again.
    pub async fn closed(&self) -> CloseReason {
        self.shared().finished().await
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared().lock().closed.clone()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared().lock().closed.is_some()
    }

    /// What the connection holds.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.shared().lock().conn.memory_usage()
    }
}

/// Reads an `openssh-key-v1` private key file, on a thread for what blocks; where there is no runtime, right there.
///
/// Cancel-safe: what was read is dropped.
///
/// # Errors
/// [`Error::Io`], [`Error::PrivateKey`].
pub fn read_key_file<P: AsRef<Path>>(
    file: P,
    passphrase: Option<&Secret<str>>,
) -> impl Future<Output = Result<KeyPair, Error>> + Send + use<P> {
    read_key(file.as_ref(), passphrase, None)
}

/// Only what is owned is kept across the wait.
fn read_key(
    file: &Path,
    passphrase: Option<&Secret<str>>,
    runtime: Option<Runtime>,
) -> impl Future<Output = Result<KeyPair, Error>> + Send + use<> {
    let file = file.to_owned();
    let passphrase = passphrase.map(|passphrase| Secret::from(passphrase.expose()));
    let read = move || read_private_key(std::fs::File::open(file)?, passphrase.as_ref());
    async move { blocking(runtime, read).await? }
}
