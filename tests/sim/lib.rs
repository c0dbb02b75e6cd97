//! The simulator: two ends of a connection, a wire between them, and a clock that only tests move.
//!
//! [`Pair`] is a client and a server with a [`Wire`] each way. Nothing in it sleeps, reads a clock or draws
//! randomness: a seed and the calls of a test determine every byte. [`End`] is one side with its input
//! buffer, what it was told, and a [`Policy`] that answers its tickets, so that a test only spells out the
//! answers it is about. [`null`] is a provider without cryptography, [`hand`] makes messages no connection
//! would send, and [`record`] reads what was sent. [`Scene`] is one connection and a [`Puppet`]: a peer that a
//! test moves by hand, key exchange and all.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a test helper says no")]

/// The README's code runs as it stands.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

pub mod adapter;
pub mod config;
pub mod counted;
pub mod end;
pub mod entropy;
pub mod hand;
pub mod null;
pub mod pair;
pub mod puppet;
pub mod record;
pub mod scene;
pub mod verifying;
pub mod wire;

pub use adapter::Adapter;
pub use config::{
    null_client, null_configs, null_configs_with, null_server, rustcrypto_client, rustcrypto_configs,
    rustcrypto_server,
};
pub use end::{Answer, End, Peer, Policy, Received};
pub use entropy::{FailsAt, Seeded};
pub use null::{external_key, null_key};
pub use pair::Pair;
pub use puppet::Puppet;
pub use scene::Scene;
pub use wire::{Split, Wire};
