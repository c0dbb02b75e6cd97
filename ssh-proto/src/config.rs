//! Configuration: algorithms, limits, deadlines.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::crypto::Provider;
use crate::key::KeyPair;
use crate::mux::replies::REPLY_COST;
use crate::transport::{MAX_PACKETS_PER_KEY, Volume};

/// Bounds on what a connection holds, waits for and answers. Every field has a reason in the docs; the
/// defaults are meant for the open internet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes and packets a peer may send before authentication is complete.
    pub pre_auth_bytes: u64,
    /// See [`pre_auth_bytes`](Self::pre_auth_bytes).
    pub pre_auth_packets: u64,
    /// How long the peer's identification may take.
    pub ident_timeout: Duration,
    /// How long the initial key exchange may take, the answer of a person not counted: at a server it ends with our
    /// NEWKEYS, because that of the client may come only when somebody has read a fingerprint. From there
    /// [`login_timeout`](Self::login_timeout) is the bound.
    pub kex_timeout: Duration,
    /// How long a re-exchange may take. It starts again when it is over while events wait unpolled in a full queue.
    pub rekey_timeout: Duration,
    /// How long authentication may take in all, at the server; at the client, the answer to one request.
    pub login_timeout: Duration,
    /// How long the peer may take to answer a channel open. Those that wait start again when it is over while
    /// the event queue is full or a question about the key exchange is unanswered: the answer may be there then.
    pub open_timeout: Option<Duration>,
    /// How long the peer may take to answer a channel or global request. As with
    /// [`open_timeout`](Self::open_timeout), it starts again while our side does not listen. Four times as many
    /// unanswered in time as may wait ([`pending_requests`](Self::pending_requests) on one channel, or
    /// [`pending_globals`](Self::pending_globals)) end the connection.
    pub request_timeout: Option<Duration>,
    /// How long output may wait for the transport without any progress, at least; at most twice as long.
    pub write_stall: Duration,
    /// After how much silence a keepalive is sent, unless one is unanswered still. Anything the peer sends ends
    /// the silence.
    pub keepalive_interval: Option<Duration>,
    /// How many such intervals of silence, one after another, pass behind a keepalive before the connection ends:
    /// at least one, because a peer that was not asked owes no answer.
    pub keepalive_misses: u32,
    /// How long a connection may be without channel traffic.
    pub idle_timeout: Option<Duration>,
    /// How long the last output may take after the close.
    pub linger: Duration,
    /// Failed authentication requests before the server disconnects.
    pub auth_failures: u32,
    /// Authentication requests of any kind before the server disconnects, the one for the service included.
    pub auth_requests: u32,
    /// Authentication requests a client sends.
    pub client_auth_requests: u32,
    /// How long after a request its refusal is sent at the earliest. One that takes longer to decide is sent at the
    /// next of twice the delay, four times the delay and so on; after more than five seconds, at once. So refusals
    /// take equally long when deciding takes no longer than the delay, and otherwise tell no more than between
    /// which doublings it took: choose a delay that is longer than a check of a password.
    ///
    /// It is the same for every user, known or not. OpenSSH adds up to 4.2 ms by a secret hash of the user's name,
    /// which blurs for whom a check crosses a doubling; here a delay that no check crosses is what hides it.
    pub auth_failure_delay: Duration,
    /// Bytes of banners taken from a server or sent to a client.
    pub banner_bytes: usize,
    /// Banners taken from a server or sent to a client.
    pub banners: u32,
    /// Messages without effect (IGNORE, DEBUG, unsolicited replies, …): the burst allowed. It refills by one
    /// per 4 KiB of useful traffic and one per second.
    pub noise_burst: u32,
    /// UNIMPLEMENTED replies between useful messages.
    pub unimplemented_replies: u32,
    /// Channels in use at once, at most 65,536.
    pub max_channels: usize,
    /// Channel opens of the peer that wait for the embedder; more are refused, with `RESOURCE_SHORTAGE`. A peer may
    /// open as many as it likes in one go: whoever means to take bursts raises this, up to `max_channels`.
    pub pending_opens: usize,
    /// Global requests of ours that wait for the peer, keepalives not counted.
    pub pending_globals: usize,
    /// Global requests of the peer that wait for the embedder, or are answered and stand behind one that does;
    /// more are answered FAILURE in their turn.
    pub pending_global_tickets: usize,
    /// Requests per channel that wait for an answer, counted for each direction apart. More of ours are
    /// refused; more of the peer's are answered FAILURE in their turn.
    pub pending_requests: usize,
    /// `env` requests per channel surfaced to the embedder; more are answered FAILURE.
    pub env_requests: u32,
    /// Bytes of receive window granted over all channels.
    pub recv_budget: usize,
    /// The part of it reserved for each channel.
    pub min_window: usize,
    /// Bytes of output beyond which channel writes are refused.
    pub output: usize,
    /// Bytes of owed replies that the peer provoked, beyond which no input is taken, beside 32 for each of
    /// [`pending_requests`](Self::pending_requests) on [`max_channels`](Self::max_channels): what an honest peer may ask
    /// without reading must not stop the input, or two ends that are as busy would wait for each other. Those that wait
    /// for the embedder do not count. While a re-exchange keeps replies from leaving, input is taken all the same, and four times as
    /// many end the connection.
    ///
    /// The data of answers to global requests is the embedder's choice and stops no input. While it and what was
    /// provoked are together more than all this, further global requests are answered FAILURE without asking; so it is
    /// at most this and 32 KiB for each of [`pending_global_tickets`](Self::pending_global_tickets).
    pub owed_replies: usize,
    /// Bytes of messages waiting in the outbox, one keepalive aside.
    pub outbox_bytes: usize,
    /// Messages waiting in the outbox, one keepalive aside.
    pub outbox_messages: usize,
    /// Events waiting for `poll_event`, beyond which no input is taken; so it is beyond 64 KiB of what they hold.
    pub events: usize,
    /// Slices of input buffers that parked channel data may keep alive; more data is copied.
    pub max_borrowed: usize,
    /// Key exchanges the peer may start per minute with less than 64 KiB of traffic before each.
    pub small_rekeys_per_minute: Option<u32>,
    /// Tolerate a peer that exceeds each window it was granted by up to a tenth, as OpenSSH does.
    pub lenient_window: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pre_auth_bytes: 16 << 20,
            pre_auth_packets: 4096,
            ident_timeout: Duration::from_secs(10),
            kex_timeout: Duration::from_secs(30),
            rekey_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(120),
            open_timeout: Some(Duration::from_secs(120)),
            request_timeout: Some(Duration::from_secs(120)),
            write_stall: Duration::from_secs(120),
            keepalive_interval: None,
            keepalive_misses: 3,
            idle_timeout: None,
            linger: Duration::from_secs(2),
            auth_failures: 6,
            auth_requests: 64,
            client_auth_requests: 32,
            auth_failure_delay: Duration::from_millis(10),
            banner_bytes: 32 * 1024,
            banners: 16,
            noise_burst: 256,
            unimplemented_replies: 32,
            max_channels: 32,
            pending_opens: 8,
            pending_globals: 64,
            pending_global_tickets: 16,
            pending_requests: 16,
            env_requests: 128,
            recv_budget: 24 << 20,
            min_window: 32 * 1024,
            output: 256 * 1024,
            owed_replies: 64 * 1024,
            outbox_bytes: 64 * 1024,
            outbox_messages: 64,
            events: 64,
            max_borrowed: 16,
            small_rekeys_per_minute: Some(8),
            lenient_window: false,
        }
    }
}

impl Limits {
    /// What may be owed before no input is taken.
    pub(crate) fn owed_cap(&self) -> usize {
        let asked = self.pending_requests.saturating_mul(self.max_channels);
        self.owed_replies.saturating_add(asked.saturating_mul(REPLY_COST.provoked))
    }
}

/// When keys are renewed (RFC 4253 §9, RFC 4344 §3). Each limit counts one direction.
///
/// At a soft limit a re-exchange is started. A direction that carries twice as much under one key (at least
/// 128 MiB), or 2^31 packets, ends the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RekeyPolicy {
    /// Bytes under one key.
    pub bytes: u64,
    /// Packets under one key, below 2^31.
    pub packets: u64,
    /// The age of a key.
    pub interval: Option<Duration>,
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self { bytes: 1 << 30, packets: 1 << 28, interval: Some(Duration::from_secs(3600)) }
    }
}

impl RekeyPolicy {
    /// Whether a key that carried so much is to be replaced.
    pub(crate) fn is_due(&self, volume: Volume) -> bool {
        volume.bytes >= self.bytes || volume.packets >= self.packets
    }

    /// How many packets, of which each counts so many bytes, are begun before the key is due.
    pub(crate) fn packets_left(&self, volume: Volume, bytes: usize) -> usize {
        let by_bytes = self.bytes.saturating_sub(volume.bytes).div_ceil(bytes.max(1) as u64);
        let left = by_bytes.min(self.packets.saturating_sub(volume.packets));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Bytes under one key that end the connection. However small the soft limit, what is on its way when a
    /// re-exchange begins must fit.
    pub(crate) fn hard_bytes(&self) -> u64 {
        const LEAST: u64 = 128 << 20;
        self.bytes.saturating_mul(2).max(LEAST)
    }
}

/// What is done about a peer without strict key exchange
/// ([CVE-2023-48795](https://nvd.nist.gov/vuln/detail/CVE-2023-48795)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StrictKexPolicy {
    /// Go on, and say so in [`Negotiated::strict_kex`](crate::Negotiated::strict_kex).
    #[default]
    Offer,
    /// Go on only with a cipher that the attack does not apply to (no chacha20-poly1305).
    RequireStrictOrSafe,
    /// Refuse.
    Require,
}

/// The algorithms offered, most preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Algorithms {
    /// Key exchange methods.
    pub kex: Vec<&'static str>,
    /// Host key algorithms. A server offers those of them it has keys for.
    pub host_keys: Vec<&'static str>,
    /// Ciphers, for both directions.
    pub ciphers: Vec<&'static str>,
    /// MACs, for both directions.
    pub macs: Vec<&'static str>,
}

/// What both roles configure.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) provider: &'static Provider,
    pub(crate) algorithms: Algorithms,
    pub(crate) limits: Limits,
    pub(crate) rekey: RekeyPolicy,
    pub(crate) strict_kex: StrictKexPolicy,
    pub(crate) ident: String,
    pub(crate) signature_names: String,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The provider has no algorithm of this name.
    UnknownAlgorithm(&'static str),
    /// A list of algorithms is empty.
    NoAlgorithms,
    /// The software version is not 1 to 200 printable ASCII characters.
    BadSoftwareVersion,
    /// `recv_budget` is smaller than `max_channels × min_window`.
    BudgetTooSmall,
    /// A limit is zero, too small to work with, or larger than the protocol or this crate can count.
    BadLimit(&'static str),
    /// A server has no host key that fits its host key algorithms.
    NoHostKey,
    /// A client is to let its server open a session: that would run the server's commands (RFC 4254 §6.1).
    SessionAtClient,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAlgorithm(name) => write!(f, "the provider does not have {name}"),
            Self::NoAlgorithms => f.write_str("a list of algorithms is empty"),
            Self::BadSoftwareVersion => f.write_str("the software version is not printable ASCII"),
            Self::BudgetTooSmall => f.write_str("recv_budget is below max_channels × min_window"),
            Self::BadLimit(name) => write!(f, "the limit {name} is out of bounds"),
            Self::NoHostKey => f.write_str("no host key fits the host key algorithms"),
            Self::SessionAtClient => f.write_str("a client lets no server open a session"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl Common {
    fn new(provider: &'static Provider) -> Self {
        Self {
            provider,
            algorithms: Algorithms {
                kex: provider.kex.iter().map(|kex| kex.name()).collect(),
                host_keys: provider.signatures.iter().map(|signature| signature.name()).collect(),
                ciphers: provider.ciphers.iter().map(|cipher| cipher.name()).collect(),
                macs: provider.macs.iter().map(|mac| mac.name()).collect(),
            },
            limits: Limits::default(),
            rekey: RekeyPolicy::default(),
            strict_kex: StrictKexPolicy::default(),
            ident: software_ident(concat!("sshproto_", env!("CARGO_PKG_VERSION"))),
            signature_names: provider.signatures.iter().map(|s| s.name()).collect::<Vec<_>>().join(","),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Provider { kex, ciphers, macs, signatures, .. } = *self.provider;
        known(&self.algorithms.kex, |name| kex.iter().any(|a| a.name() == name))?;
        known(&self.algorithms.host_keys, |name| signatures.iter().any(|a| a.name() == name))?;
        known(&self.algorithms.ciphers, |name| ciphers.iter().any(|a| a.name() == name))?;
        if !self.algorithms.macs.is_empty() {
            known(&self.algorithms.macs, |name| macs.iter().any(|a| a.name() == name))?;
        }
        let version = self.ident.strip_prefix("SSH-2.0-").unwrap_or_default();
        if version.is_empty() || version.len() > 200 || !version.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(ConfigError::BadSoftwareVersion);
        }
        if let Some((name, _)) = self.bounds().into_iter().find(|(_, holds)| !holds) {
            return Err(ConfigError::BadLimit(name));
        }
        let limits = &self.limits;
        let floor = limits.max_channels.checked_mul(limits.min_window);
        if floor.is_none_or(|floor| floor > limits.recv_budget) {
            return Err(ConfigError::BudgetTooSmall);
        }
        Ok(())
    }

    /// The limits that have bounds of their own, and whether they are within them.
    fn bounds(&self) -> [(&'static str, bool); 28] {
        let Self { limits, rekey, .. } = self;
        [
            ("max_channels", (1..=65_536).contains(&limits.max_channels)),
            ("min_window", (1..=u32::MAX as usize).contains(&limits.min_window)),
            ("output", limits.output >= 64 * 1024),
            ("owed_replies", limits.owed_replies > 0),
            ("outbox_bytes", limits.outbox_bytes >= 40 * 1024),
            ("outbox_messages", limits.outbox_messages > 0),
            ("events", limits.events > 0),
            ("noise_burst", limits.noise_burst > 0),
            ("pending_requests", limits.pending_requests > 0),
            ("pending_globals", limits.pending_globals > 0),
            // Without these nobody gets anywhere: the first look finds them passed.
            ("pre_auth_bytes", limits.pre_auth_bytes > 0),
            ("pre_auth_packets", limits.pre_auth_packets > 0),
            ("ident_timeout", !limits.ident_timeout.is_zero()),
            ("kex_timeout", !limits.kex_timeout.is_zero()),
            ("rekey_timeout", !limits.rekey_timeout.is_zero()),
            ("login_timeout", !limits.login_timeout.is_zero()),
            ("write_stall", !limits.write_stall.is_zero()),
            ("auth_failures", limits.auth_failures > 0),
            // The service request is one.
            ("auth_requests", limits.auth_requests > 1),
            ("client_auth_requests", limits.client_auth_requests > 0),
            ("open_timeout", limits.open_timeout != Some(Duration::ZERO)),
            ("request_timeout", limits.request_timeout != Some(Duration::ZERO)),
            ("keepalive_interval", limits.keepalive_interval != Some(Duration::ZERO)),
            // A peer must have the time to answer the first one.
            ("keepalive_misses", limits.keepalive_misses > 0),
            ("idle_timeout", limits.idle_timeout != Some(Duration::ZERO)),
            ("rekey.bytes", rekey.bytes > 0),
            ("rekey.packets", (1..MAX_PACKETS_PER_KEY).contains(&rekey.packets)),
            ("rekey.interval", rekey.interval != Some(Duration::ZERO)),
        ]
    }
}

fn known(names: &[&'static str], has: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
    if names.is_empty() {
        return Err(ConfigError::NoAlgorithms);
    }
    names.iter().find(|name| !has(name)).map_or(Ok(()), |name| Err(ConfigError::UnknownAlgorithm(name)))
}

fn software_ident(version: &str) -> String {
    let mut ident = "SSH-2.0-".to_string();
    ident.push_str(version);
    ident
}

/// A client's configuration, made by [`ClientConfig::builder`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(crate) common: Common,
    pub(crate) accept_opens: Vec<String>,
}

/// A server's configuration, made by [`ServerConfig::builder`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub(crate) common: Common,
    pub(crate) host_keys: Vec<KeyPair>,
    pub(crate) methods: AuthMethods,
    pub(crate) any_extended_data: bool,
}

/// A role's configuration, below the façade.
#[derive(Debug, Clone)]
pub enum AnyConfig {
    #[doc(hidden)]
    Client(Arc<ClientConfig>),
    #[doc(hidden)]
    Server(Arc<ServerConfig>),
}

impl AnyConfig {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Client(config) => &config.common,
            Self::Server(config) => &config.common,
        }
    }
}

/// A set of authentication methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthMethods(u8);

impl AuthMethods {
    /// No method.
    pub const NONE: Self = Self(0);
    /// `publickey`.
    pub const PUBLICKEY: Self = Self(1);
    /// `password`.
    pub const PASSWORD: Self = Self(2);

    const NAMES: [(Self, &'static str); 2] = [(Self::PUBLICKEY, "publickey"), (Self::PASSWORD, "password")];

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every method of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The methods' names, as in USERAUTH_FAILURE.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        Self::NAMES.into_iter().filter(move |(method, _)| self.contains(*method)).map(|(_, name)| name)
    }
}

impl Default for AuthMethods {
    fn default() -> Self {
        Self::PUBLICKEY.and(Self::PASSWORD)
    }
}

macro_rules! builder {
    ($(#[$meta:meta])* $builder:ident for $config:ident { $($extra:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        #[must_use]
        pub struct $builder($config);

        impl $builder {
            /// Offers these key exchange methods, most preferred first.
            pub fn kex(mut self, names: &[&'static str]) -> Self {
                self.0.common.algorithms.kex = names.to_vec();
                self
            }

            /// Offers these host key algorithms, most preferred first.
            pub fn host_key_algorithms(mut self, names: &[&'static str]) -> Self {
                self.0.common.algorithms.host_keys = names.to_vec();
                self
            }

            /// Offers these ciphers, most preferred first, for both directions.
            pub fn ciphers(mut self, names: &[&'static str]) -> Self {
                self.0.common.algorithms.ciphers = names.to_vec();
                self
            }

            /// Offers these MACs, most preferred first, for both directions.
            pub fn macs(mut self, names: &[&'static str]) -> Self {
                self.0.common.algorithms.macs = names.to_vec();
                self
            }

            /// Sets the bounds.
            pub fn limits(mut self, limits: Limits) -> Self {
                self.0.common.limits = limits;
                self
            }

            /// Changes single bounds.
            pub fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
                change(&mut self.0.common.limits);
                self
            }

            /// Sets when keys are renewed.
            pub fn rekey(mut self, policy: RekeyPolicy) -> Self {
                self.0.common.rekey = policy;
                self
            }

            /// Changes when keys are renewed.
            pub fn with_rekey(mut self, change: impl FnOnce(&mut RekeyPolicy)) -> Self {
                change(&mut self.0.common.rekey);
                self
            }

            /// Sets what is done about peers without strict key exchange.
            pub fn strict_kex(mut self, policy: StrictKexPolicy) -> Self {
                self.0.common.strict_kex = policy;
                self
            }

            /// Sets the software version of the identification line, what follows `SSH-2.0-`.
            pub fn software_version(mut self, version: &str) -> Self {
                self.0.common.ident = software_ident(version);
                self
            }

            $($extra)*
        }
    };
}

builder! {
    /// Builds a [`ClientConfig`].
    ClientConfigBuilder for ClientConfig {
        /// Surfaces channel opens of these types as events. Without it a server can open nothing; `session` is
        /// none of them ([RFC 4254 §6.1](https://www.rfc-editor.org/rfc/rfc4254#section-6.1)).
        pub fn accept_opens(mut self, kinds: &[&str]) -> Self {
            self.0.accept_opens = kinds.iter().map(|kind| kind.to_string()).collect();
            self
        }

        /// The configuration.
        ///
        /// # Errors
        /// [`ConfigError`].
        pub fn build(self) -> Result<Arc<ClientConfig>, ConfigError> {
            self.0.common.check()?;
            if self.0.accept_opens.iter().any(|kind| kind == "session") {
                return Err(ConfigError::SessionAtClient);
            }
            Ok(Arc::new(self.0))
        }
    }
}

builder! {
    /// Builds a [`ServerConfig`].
    ServerConfigBuilder for ServerConfig {
        /// Adds a host key.
        pub fn host_key(mut self, key: KeyPair) -> Self {
            self.0.host_keys.push(key);
            self
        }

        /// Sets the methods that are possible until a verdict names others: those that a refusal lists. A request
        /// by another method is refused without asking, and counts as a failure; `none`, which no refusal lists,
        /// is always a question.
        pub fn auth_methods(mut self, methods: AuthMethods) -> Self {
            self.0.methods = methods;
            self
        }

        /// Sets whether clients may send extended data of types other than stderr, which are not defined
        /// (RFC 4254 §5.2). It is dropped, and its window given back, as it always is at a client. By default
        /// it ends the connection.
        pub fn any_extended_data(mut self, allowed: bool) -> Self {
            self.0.any_extended_data = allowed;
            self
        }

        /// The configuration.
        ///
        /// # Errors
        /// [`ConfigError`].
        pub fn build(mut self) -> Result<Arc<ServerConfig>, ConfigError> {
            self.0.common.check()?;
            let Self(ServerConfig { common, host_keys, .. }) = &mut self;
            let signatures = common.provider.signatures;
            common.algorithms.host_keys.retain(|name| {
                let of_type = signatures.iter().find(|a| a.name() == *name).map(|a| a.key_type());
                host_keys.iter().any(|key| Some(key.public.key_type()) == of_type)
            });
            if common.algorithms.host_keys.is_empty() {
                return Err(ConfigError::NoHostKey);
            }
            Ok(Arc::new(self.0))
        }
    }
}

impl ClientConfig {
    /// Starts from the provider's algorithms and the default limits.
    pub fn builder(provider: &'static Provider) -> ClientConfigBuilder {
        ClientConfigBuilder(Self { common: Common::new(provider), accept_opens: Vec::new() })
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.common.limits
    }

    /// This configuration with the host key algorithms for keys of these types first: those a host is known
    /// by, so that it shows a key that can be recognised.
    #[must_use]
    pub fn prefer_host_keys(&self, types: &[String]) -> Self {
        let mut config = self.clone();
        let signatures = self.common.provider.signatures;
        config.common.algorithms.host_keys.sort_by_key(|name| {
            let algorithm = signatures.iter().find(|algorithm| algorithm.name() == *name);
            !algorithm.is_some_and(|algorithm| types.iter().any(|known| known == algorithm.key_type()))
        });
        config
    }
}

impl ServerConfig {
    /// Starts from the provider's algorithms and the default limits, without host keys.
    pub fn builder(provider: &'static Provider) -> ServerConfigBuilder {
        ServerConfigBuilder(Self {
            common: Common::new(provider),
            host_keys: Vec::new(),
            methods: AuthMethods::default(),
            any_extended_data: false,
        })
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.common.limits
    }

    /// The host keys.
    pub fn host_keys(&self) -> &[KeyPair] {
        &self.host_keys
    }

    /// This configuration with host keys that sign by ticket, so that whoever drives the connection calls their
    /// signers, when and where it suits.
    #[must_use]
    pub fn without_signers(&self) -> Self {
        let mut config = self.clone();
        config.host_keys.iter_mut().for_each(|key| key.signer = None);
        config
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests;
