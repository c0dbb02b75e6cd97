//! The client: connect, log in, open channels.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as StdInstant};

pub use ssh_proto::adapter::Output;
use ssh_proto::adapter::{ClientKept, LoginStep, read_private_key, sign};
use ssh_proto::{
    AnswerError, ChannelConfig, ChannelKind, Client as ClientRole, ClientConfig, CloseReason, Connection,
    Credential, KeyPair, MemoryUsage, Negotiated, PeerText, PublicKey, Secret, SessionId, SignRefused,
    Signature, ToSign,
};

use crate::channel::{Channel, wait_opened};
use crate::engine::{RoleCalls, Shared};
use crate::error::Error;
use crate::host_key::{HostKeyQuestion, HostKeys};
use crate::os::{OsEntropy, after, now};
use crate::transport::Transport;

/// How to connect, made by [`Client::with_config`].
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder {
    config: Arc<ClientConfig>,
    host_keys: HostKeys,
    timeout: Option<Duration>,
}

impl ClientBuilder {
    /// Sets algorithms and limits.
    pub fn config(mut self, config: Arc<ClientConfig>) -> Self {
        self.config = config;
        self
    }

    /// Sets which host keys are accepted. Without it, none is.
    ///
    /// While a key is judged, nothing more is read: a server that goes away meanwhile is noticed only when it is
    /// accepted, by the first call that waits for it.
    pub fn host_keys(mut self, host_keys: HostKeys) -> Self {
        self.host_keys = host_keys;
        self
    }

    /// Sets how long connecting may take in all, up to the host key's proof. Who judges it may take longer, and
    /// the system's name lookup is not bounded by it.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects over TCP, to the first address of the host that answers.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::KnownHosts`], [`Error::Closed`], [`Error::HostKey`], [`Error::HostKeyRefused`],
    /// [`Error::TimedOut`].
    pub fn connect(self, host: &str, port: u16) -> Result<Client, Error> {
        let deadline = self.timeout.and_then(after);
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let stream = first_that_answers(&addresses, deadline, |address, share| match share {
            None => TcpStream::connect(address),
            Some(share) => TcpStream::connect_timeout(&address, share),
        })?;
        self.connect_until(host, port, stream, deadline)
    }

    /// Connects over any transport, such as a channel of another connection. Host and port are what the host key is judged by.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_over(self, host: &str, port: u16, transport: impl Transport) -> Result<Client, Error> {
        let deadline = self.timeout.and_then(after);
        self.connect_until(host, port, transport, deadline)
    }

    fn connect_until(
        self,
        host: &str,
        port: u16,
        transport: impl Transport,
        deadline: Option<StdInstant>,
    ) -> Result<Client, Error> {
        // From here on an early return ends it.
        let transport = transport.split()?;
        let known = self.host_keys.key_types(host, port)?;
        let config = match known.is_empty() {
            true => self.config,
            false => Arc::new(self.config.prefer_host_keys(&known)),
        };
        let conn = Connection::new(config, Box::new(OsEntropy), now());
        let role = RoleCalls { look: Box::new(|_, _| {}), let_go: Box::new(|_| {}) };
        let shared = Shared::start(conn, transport, ClientKept::default(), role)?;
        let client = Client { handle: Arc::new(Handle { shared, timeout: Mutex::default() }) };
        let shared = &client.handle.shared;
        let mut guard = shared.lock();
        let check = loop {
            if let Some(check) = guard.kept.host_key.take() {
                break check;
            }
            if guard.closed.is_some() {
                return Err(shared.say_all(guard, deadline).gone());
            }
            guard = shared.wait(guard, &shared.changed, deadline).map_err(|(_, error)| error)?;
        };
        // The lock is not held while a person thinks.
        drop(guard);
        let verdict = self.host_keys.judge(HostKeyQuestion { host, port, key: check.key() });
        let mut guard = shared.lock();
        match verdict {
            Ok(()) => match guard.machine()?.accept_host_key(check) {
                Ok(()) => {}
                // The connection ended meanwhile; the reason is there, or on its way.
                Err(AnswerError::Gone) => {
                    shared.poke(&mut guard);
                    while guard.closed.is_none() {
                        let waited = shared.wait(guard, &shared.changed, deadline);
                        guard = waited.map_err(|(_, error)| error)?;
                    }
                    return Err(shared.say_all(guard, None).gone());
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => {
                let _ = guard.machine()?.reject_host_key(check);
                drop(shared.say_all(guard, None));
                return Err(error);
            }
        }
        shared.poke(&mut guard);
        if guard.is_mute() {
            return Err(shared.say_all(guard, None).gone());
        }
        drop(guard);
        Ok(client)
    }
}

/// Tries addresses one after the other. Each gets its share of what is left of the time, so that one that is silent
/// leaves some to the next.
fn first_that_answers<T>(
    addresses: &[SocketAddr],
    deadline: Option<StdInstant>,
    mut connect: impl FnMut(SocketAddr, Option<Duration>) -> io::Result<T>,
) -> Result<T, Error> {
    let mut last = None;
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let share = deadline.map(|deadline| deadline.saturating_duration_since(StdInstant::now()) / left);
        // The system takes no time at all for a mistake.
        let connected = match share {
            Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            share => connect(*address, share),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = Some(Error::TimedOut),
            Err(error) => last = Some(error.into()),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the host has no address").into()))
}

/// Closes the connection when the last client is dropped.
struct Handle {
    shared: Arc<Shared<ClientRole>>,
    timeout: Mutex<Option<Duration>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Whoever tries to log in stops waiting, whatever the reason.
struct Attempt<'a>(&'a Shared<ClientRole>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut guard = self.0.lock();
        // A question that was dropped must be seen, and the next one in turn.
        guard.contain(self.0, |state| state.kept.login.give_up());
        self.0.changed.notify();
    }
}

/// A connection to a server. Clones share it; it may be used from many threads at once. Dropping the last one
/// ends the connection, and its channels with it; what they received before can still be read.
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
        ClientBuilder { config, host_keys: HostKeys::ask(|_| false), timeout: None }
    }

    fn shared(&self) -> &Arc<Shared<ClientRole>> {
        &self.handle.shared
    }

    /// Sets how long each wait of a call may last: of logging in, of opening a channel, and of
    /// [`exec`](Self::exec). Without it, only the limits of the configuration bound them. A channel that was
    /// opened has [timeouts of its own](crate::ChannelOf::set_timeout).
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        *self.handle.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    fn timeout(&self) -> Option<Duration> {
        *self.handle.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to log in. How long the server may take is [`Limits::login_timeout`](ssh_proto::Limits).
    ///
    /// A [quick](ssh_proto::Signer::is_quick) signer is called by the connection. Any other is on this thread, with nothing
    /// locked, and the [timeout](Self::set_timeout) begins anew behind it. After [`Error::TimedOut`] the attempt goes on
    /// unseen; the next call waits for its end, and is told [`AuthError::Done`](ssh_proto::AuthError) if that
    /// was a success.
    ///
    /// # Errors
    /// [`Error::AuthFailed`], which also says if this was one step of several; [`Error::Auth`],
    /// [`Error::Closed`], [`Error::Io`], [`Error::TimedOut`].
    pub fn authenticate(&self, user: &str, mut with: Credential) -> Result<(), Error> {
        // A signer may ask an agent or a person: it is called from here.
        let signer = match &mut with {
            Credential::PublicKey { key, .. } => key.take_slow_signer(),
            _ => None,
        };
        self.log_in(user, with, |what| sign(&*signer.ok_or(SignRefused)?, &what, &mut OsEntropy))
    }

    fn log_in(
        &self,
        user: &str,
        with: Credential,
        sign: impl FnOnce(ToSign<'_>) -> Result<Signature, SignRefused>,
    ) -> Result<(), Error> {
        let mut sign = Some(sign);
        let shared = self.shared();
        let mut deadline = self.timeout().and_then(after);
        let wait = |guard, until| shared.wait(guard, &shared.changed, until).map_err(|(_, error)| error);
        let _watch = shared.watch();
        let mut guard = shared.lock();
        // What comes of an attempt that was given up must not be taken for what comes of this one.
        while !guard.is_mute() && !guard.kept.login.is_free() {
            guard = wait(guard, deadline)?;
        }
        if guard.is_mute() {
            return Err(guard.gone());
        }
        guard.machine()?.authenticate(user, with)?;
        guard.kept.login.begin();
        drop(guard);
        let _attempt = Attempt(shared);
        let mut guard = shared.lock();
        shared.poke(&mut guard);
        loop {
            match guard.kept.login.take_step() {
                Some(LoginStep::Done(outcome)) => return outcome,
                Some(LoginStep::Sign(request)) => {
                    drop(guard);
                    let refused = Err(SignRefused);
                    let signature = sign.take().map_or(refused, |sign| sign(request.to_sign()));
                    // What a person took is not what the server takes.
                    deadline = self.timeout().and_then(after);
                    guard = shared.lock();
                    // The question may be gone with the connection; the loop then says so.
                    let _ = guard.machine()?.provide_signature(request, signature);
                    shared.poke(&mut guard);
                }
                None if guard.closed.is_some() => return Err(guard.gone()),
                None => guard = wait(guard, deadline)?,
            }
        }
    }

    /// Logs in with a password.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub fn auth_password(&self, user: &str, password: &str) -> Result<(), Error> {
        self.authenticate(user, Credential::Password(Secret::from(password)))
    }

    /// Logs in with a key, whose signer may be an agent or a token.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub fn auth_key(&self, user: &str, key: KeyPair) -> Result<(), Error> {
        self.authenticate(user, Credential::PublicKey { key, probe: false })
    }

    /// Logs in with a key whose signatures take time: those of an agent, a token, a person. The server is
    /// asked first if the key would do, and only then is `sign` called, on this thread, with nothing locked.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate). A signature refused is an [`Error::AuthFailed`].
    pub fn auth_key_with(
        &self,
        user: &str,
        key: PublicKey,
        sign: impl FnOnce(ToSign<'_>) -> Result<Signature, SignRefused>,
    ) -> Result<(), Error> {
        let key = KeyPair::external(key);
        self.log_in(user, Credential::PublicKey { key, probe: true }, sign)
    }

    /// Logs in with the key in an `openssh-key-v1` file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::PrivateKey`] for the file; else as [`authenticate`](Self::authenticate).
    pub fn auth_key_file(
        &self,
        user: &str,
        file: impl AsRef<Path>,
        passphrase: Option<&Secret<str>>,
    ) -> Result<(), Error> {
        self.auth_key(user, read_key_file(file, passphrase)?)
    }

    /// Opens a session, for one program.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::OpenFailed`], [`Error::Closed`], [`Error::Io`], [`Error::TimedOut`].
    pub fn open_session(&self) -> Result<Channel, Error> {
        self.open(&ChannelKind::Session, ChannelConfig::default())
    }

    /// Has the server connect to `host:port`, and opens a channel to there. Another connection may run
    /// [over it](ClientBuilder::connect_over): this one is then its jump host.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub fn open_direct_tcpip(&self, host: &str, port: u16) -> Result<Channel, Error> {
        let originator = "127.0.0.1".into();
        let kind = ChannelKind::DirectTcpip { host: host.into(), port, originator, originator_port: 0 };
        self.open(&kind, ChannelConfig::default())
    }

    /// Opens a channel of any kind.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub fn open(&self, kind: &ChannelKind, config: ChannelConfig) -> Result<Channel, Error> {
        let shared = self.shared();
        let _watch = shared.watch();
        let mut guard = shared.lock();
        if guard.is_mute() {
            return Err(guard.gone());
        }
        let id = guard.machine()?.open_channel(kind, config)?;
        let wake = guard.hear_of(id);
        shared.poke(&mut guard);
        drop(guard);
        wait_opened(Channel::new(Arc::clone(shared), id, wake), self.timeout())
    }

    /// Runs a command without input, and collects what it says, however much that is.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session), and [`Error::RequestRefused`].
    pub fn exec(&self, command: impl AsRef<[u8]>) -> Result<Output, Error> {
        let channel = self.open_session()?;
        channel.set_timeout(self.timeout());
        channel.exec(command)?;
        // A server that has said all may be gone by now: what it said counts.
        let _ = channel.finish_input();
        let (stdout, stderr) = channel.read_both()?;
        let status = match channel.wait() {
            Err(Error::Closed(_) | Error::Io(_)) => None,
            status => status?,
        };
        Ok(Output { stdout, stderr, status })
    }

    /// Asks for new keys.
    pub fn rekey(&self) {
        let _watch = self.shared().watch();
        let mut guard = self.shared().lock();
        if let Ok(conn) = guard.machine() {
            conn.rekey();
            self.shared().poke(&mut guard);
        }
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
        self.shared().lock().seen().negotiated().cloned()
    }

    /// What names this connection, to both sides alike (RFC 4253 §7.2); `None` before the first key exchange is done.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared().lock().seen().session_id().cloned()
    }

    /// Our identification line, and the server's.
    pub fn idents(&self) -> (String, PeerText) {
        let guard = self.shared().lock();
        (guard.seen().local_ident(), guard.seen().peer_ident().unwrap_or_default())
    }

    /// What the connection holds.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.shared().lock().seen().memory_usage()
    }

    /// Waits until the connection is over and its transport let go, and tells why.
    pub fn closed(&self) -> CloseReason {
        self.shared().ended()
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared().lock().closed.clone()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared().lock().closed.is_some()
    }

    /// Ends the connection and waits until the server had the chance to read so and the transport is let go: at
    /// most [`Limits::linger`](ssh_proto::Limits) and some seconds.
    pub fn close(self) {
        let shared = Arc::clone(self.shared());
        let limit = shared.close_watched();
        drop(self);
        shared.end_within(limit);
    }
}

/// Reads an `openssh-key-v1` private key file.
///
/// # Errors
/// [`Error::Io`], [`Error::PrivateKey`].
pub fn read_key_file(file: impl AsRef<Path>, passphrase: Option<&Secret<str>>) -> Result<KeyPair, Error> {
    read_private_key(File::open(file)?, passphrase)
}

#[cfg(all(test, feature = "rustcrypto"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);

    /// Tries so many addresses, of which only the last answers if any, and all at once; what came of it, and what
    /// each was given.
    fn attempt(silent: u16, answers: bool, limit: Duration) -> (Result<u16, Error>, Vec<Duration>) {
        let last = silent + u16::from(answers);
        let addresses: Vec<_> = (1..=last).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut shares = Vec::new();
        let result = first_that_answers(&addresses, after(limit), |address, share| {
            shares.extend(share);
            if address.port() > silent { Ok(address.port()) } else { Err(io::ErrorKind::TimedOut.into()) }
        });
        (result, shares)
    }

    #[test]
    fn a_silent_address_leaves_time_for_the_next() {
        for silent in 0..4 {
            let (result, shares) = attempt(silent, true, LIMIT);
            assert_eq!((result.unwrap(), shares.len()), (silent + 1, usize::from(silent) + 1));
            for (share, left) in shares.iter().rev().zip(1..) {
                assert!(*share <= LIMIT / left && *share > LIMIT / (left + 1), "{shares:?}");
            }
        }
    }

    #[test]
    fn when_all_are_silent_or_the_time_is_over_that_is_told() {
        assert!(matches!(attempt(3, false, LIMIT).0, Err(Error::TimedOut)));
        assert!(matches!(attempt(0, false, LIMIT).0, Err(Error::Io(_))));
        let (result, shares) = attempt(1, true, Duration::ZERO);
        assert!(matches!(result, Err(Error::TimedOut)) && shares.is_empty(), "{result:?} {shares:?}");
    }

    #[test]
    fn the_default_configuration_is_valid_and_accepts_no_host_key() {
        assert!(format!("{:?}", Client::builder()).contains("Ask"));
    }

    #[test]
    fn clients_and_channels_may_be_shared_and_sent() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Client>();
        check::<Channel>();
    }
}
