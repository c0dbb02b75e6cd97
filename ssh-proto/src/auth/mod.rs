//! User authentication, [RFC 4252]: the client's half, the server's half.
//!
//! [RFC 4252]: https://www.rfc-editor.org/rfc/rfc4252

pub(crate) mod client;
pub(crate) mod server;

use alloc::sync::Arc;

use crate::config::Common;
use crate::event::EventQueue;
use crate::msg::gate::State;
use crate::msg::limit;
use crate::ticket::Identity;
use crate::time::Instant;
use crate::timer::Timers;
use crate::transport::outgoing::Outgoing;

/// The service authentication runs under (RFC 4252 §1).
pub(crate) const USERAUTH: &str = "ssh-userauth";
/// The service it leads to.
pub(crate) const CONNECTION: &str = "ssh-connection";

/// What authentication needs of the rest of the connection.
pub(crate) struct AuthContext<'a> {
    pub(crate) common: &'a Common,
    pub(crate) out: &'a mut Outgoing,
    pub(crate) events: &'a mut EventQueue,
    pub(crate) timers: &'a mut Timers,
    pub(crate) identity: &'a Arc<Identity>,
    pub(crate) session_id: &'a [u8],
    pub(crate) now: Instant,
}

/// Proof that authentication is complete. Only the two halves make one; the mux can't be had without it, and
/// nobody else can make one, for the field is private.
#[derive(Debug)]
pub(crate) struct Authenticated(());

/// The half this connection plays.
pub(crate) enum Auth {
    Client(client::ClientAuth),
    Server(server::ServerAuth),
}

impl Auth {
    pub(crate) fn gate_state(&self) -> State {
        match self {
            Self::Client(auth) => auth.gate_state(),
            Self::Server(auth) => auth.gate_state(),
        }
    }
}

/// Whether a user name may travel: bounded, not empty of meaning for a log or a command line (no control
/// characters, no leading dash).
pub(crate) fn acceptable_user(user: &str) -> bool {
    user.len() <= limit::USER && !user.starts_with('-') && !user.chars().any(char::is_control)
}
