//! A sans-IO SSH-2 protocol state machine, client and server.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

extern crate alloc;

mod auth;
mod commands;
mod config;
mod connection;
mod core_input;
pub mod crypto;
mod entropy;
mod error;
mod event;
mod input;
mod kex;
mod key;
#[cfg(feature = "keys")]
pub mod keys;
#[cfg_attr(not(feature = "raw"), allow(unreachable_pub, dead_code, reason = "reachable through `raw`"))]
mod msg;
mod mux;
mod owed;
mod role;
mod secret;
mod text;
mod ticket;
mod time;
mod timer;
mod transport;
pub mod wire;

pub use auth::client::Credential;
pub use auth::server::AuthVerdict;
pub use config::{
    Algorithms, AuthMethods, ClientConfig, ClientConfigBuilder, ConfigError, Limits, RekeyPolicy,
    ServerConfig, ServerConfigBuilder, StrictKexPolicy,
};
pub use connection::{Connection, MemoryUsage};
pub use entropy::{Entropy, EntropyError};
pub use error::*;
pub use event::{AuthIdentity, ChannelEvent, ChannelId, ClientEvent, RequestId, ServerEvent, Stream};
pub use input::InputPool;
pub use kex::SessionId;
pub use kex::negotiate::Negotiated;
pub use key::*;
pub use msg::request::*;
pub use mux::channel::{ChannelConfig, Stderr};
pub use mux::handle::Channel;
pub use role::{Client, Role, Server, Side};
pub use secret::Secret;
pub use text::{MAX_PEER_TEXT, PeerText};
pub use ticket::{
    AuthProof, AuthRequest, ChannelRequest, GlobalRequest, HostKeyCheck, KeyProbe, OpenRequest, SignRequest,
};
pub use time::Instant;
pub use timer::TimeoutReason;
pub use transport::{MAX_DATA, MAX_PACKET, MAX_PACKET_PRE_AUTH};

/// A client's connection.
pub type ClientConnection = Connection<Client>;
/// A server's connection.
pub type ServerConnection = Connection<Server>;

/// The inside, for tests and fuzzing. Exempt from semantic versioning.
#[cfg(feature = "raw")]
pub mod raw {
    pub use crate::msg::gate::{AuthMethod, KexStep, State, Verdict, admit};
    pub use crate::msg::{Message, auth, channel, kex, number, transport};
}
