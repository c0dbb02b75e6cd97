#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

extern crate alloc;

pub mod crypto;
mod entropy;
mod key;
#[cfg(feature = "keys")]
pub mod keys;
mod secret;
mod time;
pub mod wire;

pub use entropy::{Entropy, EntropyError};
pub use key::*;
pub use secret::Secret;
pub use time::Instant;

/// stub
#[derive(Debug)] pub struct Connection;
/// stub
#[derive(Debug)] pub struct CloseReason;
