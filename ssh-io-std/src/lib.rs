//! SSH-2 client and server over blocking std sockets.
//!
//! ```no_run
//! use ssh_io_std::{Client, HostKeys};
//!
//! # fn main() -> Result<(), ssh_io_std::Error> {
//! let client = Client::builder()
//!     .host_keys(HostKeys::KnownHosts("/home/me/.ssh/known_hosts".into()))
//!     .connect("example.org", 22)?;
//! client.auth_key_file("me", "/home/me/.ssh/id_ed25519", None)?;
//! let output = client.exec("uname -a")?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! client.close();
//! # Ok(())
//! # }
//! ```
//!
//! The protocol itself is [`ssh_proto`]; this crate gives it sockets, threads, a clock and random bytes. A
//! connection costs two threads, a server's one more for its handler. A [`Client`] and its [`Channel`]s may be used from many threads at once.
//!
//! Names are those of `ssh-io-tokio`, with calls that wait instead of futures. Where the two differ: a server's
//! questions come to a [`Handler`], a method for each variant of [`Asked`], which the other crate hands out one by
//! one from `ServerConnection::asked`; timeouts are set on [`Client`] and [`Channel`], as nobody can drop a call;
//! [`Client::close`] waits for the end, which there is for `closed` to do; and there is no `Driver`.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod channel;
mod client;
mod engine;
mod error;
mod feed;
mod host_key;
mod os;
mod server;
mod transport;

pub use channel::{Channel, ChannelOf, ReadHalfOf, Stderr, StderrOf, WriteHalfOf};
pub use client::{Client, ClientBuilder, Output, read_key_file};
pub use error::Error;
pub use host_key::{HostKeyQuestion, HostKeys};
pub use os::OsEntropy;
pub use server::{Asked, Back, Handler, Question, Server, ServerChannel, ServerConnection};
pub use ssh_proto;
pub use ssh_proto::StderrMode;
pub use ssh_proto::adapter::Startups;
pub use transport::{Feed, Split, Transport, Unblock};
