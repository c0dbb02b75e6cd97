//! SSH-2 over tokio.
//!
//! ```no_run
//! use ssh_io_tokio::Client;
//! use ssh_proto::keys::{HostKeyPolicy, KnownHosts};
//! use ssh_proto::{ClientConfig, crypto::rustcrypto::PROVIDER};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let known = KnownHosts::parse(&std::fs::read("/home/me/.ssh/known_hosts")?);
//! let config = ClientConfig::builder(&PROVIDER).build()?;
//! let client =
//!     Client::builder(config, HostKeyPolicy::KnownHosts(known)).connect("example.org", 22).await?;
//! client.auth_password("me", "secret").await?;
//! let output = client.exec("uname -a").await?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! The protocol itself is [`ssh_proto`]. One task per connection, its [`Driver`], reads and writes; handles
//! share the state machine with it through a lock that is never held across an await. There is no message
//! queue in between: what a slow reader does not take stays in the machine, within its window.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)
)]

mod channel;
mod client;
mod driver;
mod os;
mod server;
mod shared;
mod waiters;

pub use channel::{Channel, ChannelOf, ReadHalfOf, ServerChannel, Stderr, StderrOf, WriteHalfOf};
pub use client::{Client, ClientBuilder, Connecting};
pub use driver::Driver;
pub use os::OsEntropy;
pub use server::{Asked, Back, Question, Server, ServerConnection};
pub use ssh_proto;
pub use ssh_proto::adapter::{Error, Output};
