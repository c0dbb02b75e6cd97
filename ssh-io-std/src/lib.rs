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
//! A server:
//!
//! ```no_run
//! use std::net::TcpListener;
//! use ssh_io_std::ssh_proto::{AuthMethods, AuthProof, AuthRequest, AuthVerdict, ServerConfig};
//! use ssh_io_std::ssh_proto::crypto::PROVIDER;
//! use ssh_io_std::{Handler, Question, Server, read_key_file};
//!
//! struct Account;
//!
//! impl Handler for Account {
//!     fn auth(&mut self, request: Question<AuthRequest>) {
//!         let right = matches!(request.proof(), AuthProof::Password(given) if given.matches("secret"));
//!         let next = AuthMethods::PASSWORD;
//!         let _ = request.reply(if right { AuthVerdict::Accept } else { AuthVerdict::Reject { next } });
//!     }
//!     // `open` and `request` answer what the client asks then; without them it is refused.
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServerConfig::builder(&PROVIDER).host_key(read_key_file("host_key", None)?).build()?;
//! let listener = TcpListener::bind("127.0.0.1:2222")?;
//! Server::new(config).serve(&listener, |_connection, _from| Account)?;
//! # Ok(())
//! # }
//! ```
//!
//! The protocol itself is [`ssh_proto`]; this crate gives it sockets, threads, a clock and random bytes. A
//! connection costs two threads, a server's one more for its handler, and one more while its last words leave. A
//! [`Client`] and its [`Channel`]s may be used from many threads at once.
//!
//! Names are those of `ssh-io-tokio`, with calls that wait instead of futures. Where the two differ:
//!
//! | here | there |
//! |---|---|
//! | threads drive a connection | a `Driver`, which is spawned; `ClientBuilder::start` gives it, and a `Connecting` |
//! | a server's questions come to a [`Handler`] | they are awaited, from `ServerConnection::asked` |
//! | [`ServerConnection::start`] takes the handler, [`start_with`](ServerConnection::start_with) makes it | `start` gives the connection and its driver |
//! | dropping a [`ServerConnection`] does nothing: threads serve it | dropping the last one ends it |
//! | timeouts are set on [`Client`] and [`Channel`], as nobody can drop a call | `tokio::time::timeout` around any future |
//! | [`Client::close`] waits for the end | it does not, `closed` does |
//! | [`ServerConnection::join`] waits for at most so long, [`is_finished`](ServerConnection::is_finished) does not wait | a timeout around `closed` |
//! | [`Server::serve`] borrows its listener, so that who called it closes it | it takes it, and closes it |
//! | `serve` returns as soon as it accepts nobody any more, and clients go on | it returns when all are over, which it ends when its listener fails |
//! | [`Server::shutdown`] waits for the transports; the last calls of handlers, and a `serve` whose listener cannot be reached, may take longer | it waits for `serve` and for who answers as well |
//! | a [`HostKeyQuestion`] borrows | it is owned, so that it can be sent |
//! | a user key's signer that is not quick is called on the thread that logs in | on a thread for what blocks |
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
pub use server::{Back, Handler, Question, Server, ServerChannel, ServerConnection};
pub use ssh_proto;
pub use ssh_proto::StderrMode;
pub use ssh_proto::adapter::Startups;
pub use transport::{Feed, Split, Transport, Unblock};
