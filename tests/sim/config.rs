//! Configurations of two sides that fit together.

use std::sync::Arc;

use ssh_proto::crypto::rustcrypto::{self, Ed25519Signer};
use ssh_proto::{ClientConfig, ClientConfigBuilder, Limits, RekeyPolicy, ServerConfig, ServerConfigBuilder};

use crate::null;

/// The number of the host key of [`null_server`].
pub const HOST_KEY: u32 = 1;

/// A client on the null provider.
pub fn null_client() -> ClientConfigBuilder {
    ClientConfig::builder(&null::PROVIDER).ciphers(&[null::CIPHER]).accept_opens(&[
        "direct-tcpip",
        "forwarded-tcpip",
        "x@ssh-tests.invalid",
    ])
}

/// A server on the null provider.
pub fn null_server() -> ServerConfigBuilder {
    ServerConfig::builder(&null::PROVIDER).ciphers(&[null::CIPHER]).host_key(null::null_key(HOST_KEY))
}

/// A server on the null provider whose host key signs by ticket.
pub fn null_server_external() -> ServerConfigBuilder {
    ServerConfig::builder(&null::PROVIDER).ciphers(&[null::CIPHER]).host_key(null::external_key(HOST_KEY))
}

/// A client on the real provider.
pub fn rustcrypto_client() -> ClientConfigBuilder {
    ClientConfig::builder(&rustcrypto::PROVIDER).accept_opens(&["x@ssh-tests.invalid"])
}

/// A server on the real provider.
pub fn rustcrypto_server() -> ServerConfigBuilder {
    let key = Ed25519Signer::from_seed(&[7; 32]).expect("any seed is a key").key_pair();
    ServerConfig::builder(&rustcrypto::PROVIDER).host_key(key)
}

/// Two sides on the null provider.
pub fn null_configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (null_client().build().expect("a client"), null_server().build().expect("a server"))
}

/// Two sides on the null provider with these bounds and rekeys.
pub fn null_configs_with(
    limits: impl Fn(&mut Limits) + Copy,
    rekey: impl Fn(&mut RekeyPolicy) + Copy,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (
        null_client().with_limits(limits).with_rekey(rekey).build().expect("a client"),
        null_server().with_limits(limits).with_rekey(rekey).build().expect("a server"),
    )
}

/// Two sides on the real provider.
pub fn rustcrypto_configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (rustcrypto_client().build().expect("a client"), rustcrypto_server().build().expect("a server"))
}
