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
//! client.close();
//! client.closed().await;
//! # Ok(())
//! # }
//! ```
//!
//! A server:
//!
//! ```no_run
//! use ssh_io_tokio::ssh_proto::crypto::PROVIDER;
//! use ssh_io_tokio::ssh_proto::{AuthMethods, AuthProof, AuthVerdict, ServerConfig};
//! use ssh_io_tokio::{Asked, Server, ServerConnection, read_key_file};
//!
//! async fn answer(connection: ServerConnection) {
//!     while let Some(asked) = connection.asked().await {
//!         // What is dropped here is refused, as channels and requests are.
//!         let Asked::Auth(request) = asked else { continue };
//!         let right = matches!(request.proof(), AuthProof::Password(given) if given.matches("secret"));
//!         let next = AuthMethods::PASSWORD;
//!         let _ = request.reply(if right { AuthVerdict::Accept } else { AuthVerdict::Reject { next } });
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServerConfig::builder(&PROVIDER).host_key(read_key_file("host_key", None).await?).build()?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:2222").await?;
//! Server::new(config).serve(listener, |connection, _from| answer(connection)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The protocol itself is [`ssh_proto`]. One task per connection, its [`Driver`], reads and writes; handles
//! share the state machine with it through a lock that is never held across an await. No data is queued in
//! between: what a slow reader does not take stays in the machine, within its window. What a client asks of a server waits
//! in a list, which has bounds.
//!
//! A runtime needs its time enabled (`enable_time`), and its I/O (`enable_io`) for connections over TCP. Only drivers, and
//! what spawns or connects, need one: other handles may be used from any executor, and what blocks runs on the runtime of
//! the driver while there is one.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)
)]

mod blocking;
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
