//! A sans-IO SSH-2 protocol state machine, client and server.
//!
//! A [`Connection`] turns bytes from a peer into events, and commands into bytes for the peer (RFC 4250–4254,
//! and what OpenSSH made of them). It never touches a socket, a clock, a thread, a global or the operating
//! system's random generator: bytes, time and randomness are arguments, and questions such as "is this the
//! right host key?" are values. The crates `ssh-io-std` and `ssh-io-tokio` drive it over sockets; this one
//! can be embedded in any runtime, tested in virtual time, and fuzzed.
//!
//! # Driving it
//!
//! `handle_*` tell the machine of the world, `poll_*` and `output` look at it, in any order and as often as
//! you like. Here both ends of a connection meet in memory, and no time passes. Over a socket, the two `pass`
//! lines are a write and a read, the read waits no longer than until [`poll_timeout`](Connection::poll_timeout),
//! and [`handle_timeout`](Connection::handle_timeout) follows when nothing came.
//!
//! ```
//! # #[cfg(feature = "rustcrypto")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::BytesMut;
//! use ssh_proto::crypto::{Ed25519Signer, PROVIDER};
//! use ssh_proto::*;
//!
//! # struct Os(u8);
//! # impl Entropy for Os {
//! #     fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
//! #         out.iter_mut().for_each(|byte| { self.0 = self.0.wrapping_mul(5).wrapping_add(1); *byte = self.0 });
//! #         Ok(())
//! #     }
//! # }
//! # let (mut os, now) = (Os(1), Instant::ORIGIN);
//! let host_key = Ed25519Signer::generate(&mut os)?.key_pair();
//! let expected = host_key.public.clone();
//! let server_config = ServerConfig::builder(&PROVIDER).host_key(host_key).build()?;
//! let client_config = ClientConfig::builder(&PROVIDER).build()?;
//! let mut server = ServerConnection::new(server_config, Box::new(Os(2)), now);
//! let mut client = ClientConnection::new(client_config, Box::new(Os(3)), now);
//! client.authenticate("me", Credential::Password("secret".into()))?;
//!
//! let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
//! let pass = |out: &[u8], to: &mut BytesMut| { to.extend_from_slice(out); out.len() };
//! 'session: loop {
//!     let sent = pass(client.output(), &mut to_server);
//!     client.consume_output(sent);
//!     let sent = pass(server.output(), &mut to_client);
//!     server.consume_output(sent);
//!
//!     server.handle_input(now, &mut to_server);
//!     while let Some(event) = server.poll_event() {
//!         if let ServerEvent::Auth(request) = event {
//!             assert!(matches!(request.proof(), AuthProof::Password(given) if given.matches("secret")));
//!             server.reply_auth(request, AuthVerdict::Accept)?;
//!         }
//!     }
//!     client.handle_input(now, &mut to_client);
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             ClientEvent::HostKey(check) if *check.key() == expected => client.accept_host_key(check)?,
//!             ClientEvent::Authenticated => break 'session,
//!             event => panic!("{event:?}"),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "rustcrypto"))]
//! # fn main() {}
//! ```
//!
//! # Questions are tickets
//!
//! An event that asks something carries a ticket: [`HostKeyCheck`], [`SignRequest`], [`KeyProbe`],
//! [`AuthRequest`], [`OpenRequest`], [`ChannelRequest`], [`GlobalRequest`]. Answering consumes it. It may cross
//! threads, awaits and human prompts; dropping it refuses. Only the questions a connection cannot go on
//! without hold up its input: the host key, authentication, a host key's signature.
//!
//! # Channels are pulled
//!
//! Received data waits in the machine until it is read, and reading is what gives the peer its window back. A
//! channel nobody reads stalls only itself. Writes are accepted as far as window and output room reach;
//! [`WriteError::Blocked`] is followed by [`ChannelEvent::Writable`].
//!
//! # Memory is bounded
//!
//! Every bound is a field of [`Limits`] or a constant of this crate. What a connection may hold is the sum of: the
//! input buffers ([`InputPool`]), and as many more as parked data may keep alive ([`Limits::max_borrowed`] times
//! the size of one); one packet; the receive windows granted (at most [`Limits::recv_budget`]); the state of
//! [`Limits::max_channels`] channels; the output limit and one swapped buffer, each with a packet over it, or half as
//! much again in one buffer that is sent in pieces; the outbox, the waiting events, and the replies owed.
//! [`Connection::memory_usage`] reports it, buffers and channels as numbers. Slices that were read are the
//! embedder's, and so is a ticket while it is undecided: it holds what was asked, up to a packet. How many there may
//! be at once is bounded by [`Limits`]. Nothing is reserved by a length or a count before the bytes are there.
//!
//! # Keys are renewed in flight
//!
//! A re-exchange (by volume, time, [`Connection::rekey`] or the peer) leaves channels alone: what the peer sent
//! before its KEXINIT is delivered, what may not be sent during ours waits, bounded, and goes on in order.
//!
//! # Laws
//!
//! They are property tests of the workspace. Any split of the input gives the same events and the same
//! output. Polls change nothing, however often and in whatever order. The same seed and the same calls give
//! the same bytes, for deterministic providers. Memory stays within its bound under any input. There is
//! exactly one [`CloseReason`], and nothing after it. No input panics: a panic is a bug.
//!
//! # Features
//!
//! - `rustcrypto` (default): the pure-Rust provider, `crypto::rustcrypto`.
//! - `aws-lc-rs`: the provider over AWS-LC, `crypto::aws_lc`. It needs `std` and a C compiler.
//! - `rsa`: RSA host and user keys for `rustcrypto`, and those above 8192 bits for `aws-lc-rs`. The `rsa` crate is a
//!   release candidate, and its signing is not hardened against local timing
//!   ([RUSTSEC-2023-0071](https://rustsec.org/advisories/RUSTSEC-2023-0071)).
//! - `keys`: `known_hosts`, key files and `authorized_keys`, as pure functions.
//! - `std`: with `keys`, the module `adapter`: what adapters over an operating system have in common.
//! - `raw`: the inside, for tests and fuzzing; exempt from semantic versioning.
//!
//! The crate is `no_std` with `alloc` unless `std` is asked for, and has no `unsafe` code.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::arithmetic_side_effects))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(all(feature = "std", feature = "keys"))]
pub mod adapter;
mod auth;
mod base64;
mod commands;
mod config;
mod connection;
#[cfg_attr(
    not(all(feature = "std", feature = "keys")),
    allow(unreachable_pub, reason = "reachable through `adapter`")
)]
mod copy;
pub mod crypto;
mod entropy;
mod error;
mod event;
mod input;
mod kex;
mod key;
#[cfg(feature = "keys")]
pub mod keys;
mod machine;
#[cfg_attr(not(feature = "raw"), allow(unreachable_pub, dead_code, reason = "reachable through `raw`"))]
mod msg;
mod mux;
mod owed;
#[cfg(feature = "raw")]
pub mod raw;
mod role;
mod secret;
mod text;
mod ticket;
mod time;
mod timer;
#[cfg(test)]
mod tokens;
mod transport;
pub mod wire;

pub use auth::client::Credential;
pub use auth::server::AuthVerdict;
pub use config::{
    Algorithms, AuthMethods, ClientConfig, ClientConfigBuilder, ConfigError, Limits, RekeyPolicy,
    ServerConfig, ServerConfigBuilder, StrictKexPolicy,
};
pub use connection::Connection;
pub use entropy::{Entropy, EntropyError};
pub use error::*;
pub use event::{AuthIdentity, ChannelEvent, ChannelId, ClientEvent, RequestId, ServerEvent, Stream};
pub use input::InputPool;
pub use kex::SessionId;
pub use kex::negotiate::Negotiated;
pub use key::*;
pub use machine::MemoryUsage;
pub use msg::request::*;
pub use mux::channel::{ChannelConfig, StderrMode};
pub use mux::handle::Channel;
pub use role::{Client, Role, Server, Side};
pub use secret::Secret;
pub use text::{MAX_PEER_TEXT, Name, PeerText};
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
