//! Configuration: algorithms, limits, deadlines.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::crypto::Provider;
use crate::kex::negotiate::kexinit_template;
use crate::key::KeyPair;
use crate::role::Side;
use crate::transport::MAX_PACKETS_PER_KEY;

mod limits;

pub use limits::{Limits, RekeyPolicy};

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
    /// A client's share goes with its first KEXINIT.
    pub(crate) guess_kex: bool,
    pub(crate) ident: String,
    pub(crate) signature_names: String,
    /// Our KEXINIT, the first one of a connection and a later one, without their cookies.
    pub(crate) kexinits: [Vec<u8>; 2],
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
    /// Bytes under one key that end the connection.
    pub(crate) fn hard_bytes(&self) -> u64 {
        self.rekey.hard_bytes(self.limits.recv_budget)
    }

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
            guess_kex: false,
            ident: software_ident(concat!("sshproto_", env!("CARGO_PKG_VERSION"))),
            signature_names: provider.signatures.iter().map(|s| s.name()).collect::<Vec<_>>().join(","),
            kexinits: [Vec::new(), Vec::new()],
        }
    }

    /// The algorithms are as they stay.
    fn settle(&mut self, side: Side) {
        let template = |first| kexinit_template(side, &self.algorithms, first, first && self.guess_kex);
        self.kexinits = [true, false].map(template);
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

        /// Sets whether the first KEXINIT leaves at once, and our share for the most preferred method with it
        /// (`first_kex_packet_follows`, RFC 4253 §7). That saves half a round trip with servers that prefer the same
        /// method and host key algorithm. With others a key share is sent in vain, and some of those mistake it for
        /// the right one. By default nothing is guessed.
        pub fn guess_kex(mut self, guess: bool) -> Self {
            self.0.common.guess_kex = guess;
            self
        }

        /// The configuration.
        ///
        /// # Errors
        /// [`ConfigError`].
        pub fn build(mut self) -> Result<Arc<ClientConfig>, ConfigError> {
            self.0.common.check()?;
            if self.0.accept_opens.iter().any(|kind| kind == "session") {
                return Err(ConfigError::SessionAtClient);
            }
            self.0.common.settle(Side::Client);
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
            common.settle(Side::Server);
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
        config.common.settle(Side::Client);
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

    /// This configuration with host keys that sign by ticket unless their signer is
    /// [quick](crate::Signer::is_quick), so that whoever drives the connection calls the others, when and where it suits.
    #[must_use]
    pub fn without_slow_signers(&self) -> Self {
        let mut config = self.clone();
        for key in &mut config.host_keys {
            key.take_slow_signer();
        }
        config
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests;
