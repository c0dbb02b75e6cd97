//! SSH-2 over tokio.
//!
//! ```no_run
//! use ssh_io_tokio::{Client, HostKeys};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let known = HostKeys::KnownHosts("/home/me/.ssh/known_hosts".into());
//! let client = Client::builder().host_keys(known).connect("example.org", 22).await?;
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
mod host_key;
mod os;
mod server;
mod shared;
mod waiters;

pub use channel::{Channel, ChannelOf, ReadHalfOf, ServerChannel, Stderr, StderrOf, WriteHalfOf};
pub use client::{Client, ClientBuilder, Connecting, read_key_file};
pub use driver::Driver;
pub use host_key::{HostKeyQuestion, HostKeys};
pub use os::OsEntropy;
pub use server::{Asked, Back, Question, Server, ServerConnection};
pub use ssh_proto;
pub use ssh_proto::StderrMode;
pub use ssh_proto::adapter::{Error, Output, Startups};
