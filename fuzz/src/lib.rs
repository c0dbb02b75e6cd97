//! What the fuzz targets run, so that plain tests can run it too.
//!
//! [`run_messages`] feeds every decoder. [`run_client`] and [`run_server`] put one connection through what
//! its peer, its transport, its embedder and time may do to it, and check after every step what must hold;
//! see [`session`].

pub mod hostile;
pub mod input;
pub mod messages;
pub mod oracle;
pub mod session;
pub mod subject;

pub use messages::run_messages;
pub use session::{run_client, run_server};
