//! The two real providers. What AWS-LC keeps on the heap of C is not seen: the allocator is Rust's.

use ssh_proto::crypto::{CipherAlgorithm, Provider, aws_lc, rustcrypto};
use ssh_proto::{ClientConfig, ClientConfigBuilder, KeyPair, RekeyPolicy, ServerConfig, ServerConfigBuilder};

/// A provider, and a key of its own kind.
pub(crate) struct Real {
    pub(crate) provider: &'static Provider,
    pub(crate) key: KeyPair,
}

impl Real {
    pub(crate) fn rustcrypto() -> Self {
        let key = rustcrypto::Ed25519Signer::from_seed(&[7; 32]).unwrap().key_pair();
        Self { provider: &rustcrypto::PROVIDER, key }
    }

    pub(crate) fn aws_lc() -> Self {
        let key = aws_lc::Ed25519Signer::from_seed(&[7; 32]).unwrap().key_pair();
        Self { provider: &aws_lc::PROVIDER, key }
    }

    pub(crate) fn both() -> [Self; 2] {
        [Self::rustcrypto(), Self::aws_lc()]
    }

    /// A client that keeps its keys.
    pub(crate) fn client(&self) -> ClientConfigBuilder {
        ClientConfig::builder(self.provider).with_rekey(never)
    }

    /// A server that keeps its keys, with this one for its host key.
    pub(crate) fn server(&self) -> ServerConfigBuilder {
        ServerConfig::builder(self.provider).with_rekey(never).host_key(self.key.clone())
    }

    /// The names of its ciphers, each with that of a MAC. Those that need one share all the MACs there are.
    pub(crate) fn ciphers(&self) -> Vec<(&'static str, &'static str)> {
        let Provider { ciphers, macs, .. } = self.provider;
        let (aead, other): (Vec<&dyn CipherAlgorithm>, Vec<_>) =
            ciphers.iter().copied().partition(|cipher| cipher.is_aead());
        let macs = macs.iter().map(|mac| mac.name());
        let aead = aead.into_iter().zip(macs.clone().cycle());
        let other = other.into_iter().cycle().zip(macs);
        aead.chain(other).map(|(cipher, mac)| (cipher.name(), mac)).collect()
    }
}

/// A new key is no part of what a packet costs.
pub(crate) fn never(rekey: &mut RekeyPolicy) {
    (rekey.bytes, rekey.interval) = (u64::MAX / 2, None);
}
