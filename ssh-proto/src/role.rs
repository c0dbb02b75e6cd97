//! The two roles of a connection.

use core::fmt::Debug;

use alloc::sync::Arc;

use crate::config::{AnyConfig, ClientConfig, ServerConfig};
use crate::event::{ClientEvent, CoreEvent, ServerEvent};

/// Which end of the connection this is. Below the façade the role is data, not a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that connects.
    Client,
    /// The end that listens.
    Server,
}

/// A role, as the type parameter of [`Connection`](crate::Connection): [`Client`] or [`Server`].
///
/// What only one role may do, the other cannot ask for. A server lets a user in:
///
/// ```
/// use ssh_proto::{AnswerError, AuthRequest, AuthVerdict, ServerConnection};
///
/// fn let_in(conn: &mut ServerConnection, request: AuthRequest) -> Result<(), AnswerError> {
///     conn.reply_auth(request, AuthVerdict::Accept)
/// }
/// ```
///
/// At a client the same does not compile:
///
/// ```compile_fail,E0599
/// use ssh_proto::{AnswerError, AuthRequest, AuthVerdict, ClientConnection};
///
/// fn let_in(conn: &mut ClientConnection, request: AuthRequest) -> Result<(), AnswerError> {
///     conn.reply_auth(request, AuthVerdict::Accept)
/// }
/// ```
pub trait Role:
    sealed::Sealed<SealedConfig = <Self as Role>::Config, SealedEvent = <Self as Role>::Event>
    + Debug
    + Sized
    + 'static
{
    /// The configuration of this role.
    type Config: Debug;
    /// The events of this role.
    type Event: Debug;
    /// The role as a value.
    const SIDE: Side;
}

/// The client role.
#[derive(Debug, Clone, Copy)]
pub enum Client {}

/// The server role.
#[derive(Debug, Clone, Copy)]
pub enum Server {}

impl Role for Client {
    type Config = ClientConfig;
    type Event = ClientEvent;
    const SIDE: Side = Side::Client;
}

impl Role for Server {
    type Config = ServerConfig;
    type Event = ServerEvent;
    const SIDE: Side = Side::Server;
}

pub(crate) mod sealed {
    use super::*;

    /// What the façade needs of a role and nobody else may provide.
    pub trait Sealed {
        #[doc(hidden)]
        type SealedConfig;
        #[doc(hidden)]
        type SealedEvent;
        #[doc(hidden)]
        fn wrap(config: Arc<Self::SealedConfig>) -> AnyConfig;
        /// `None` for an event of the other role, which the core never raises.
        #[doc(hidden)]
        fn event(event: CoreEvent) -> Option<Self::SealedEvent>;
    }

    impl Sealed for Client {
        type SealedConfig = ClientConfig;
        type SealedEvent = ClientEvent;

        fn wrap(config: Arc<ClientConfig>) -> AnyConfig {
            AnyConfig::Client(config)
        }

        fn event(event: CoreEvent) -> Option<ClientEvent> {
            event.into_client()
        }
    }

    impl Sealed for Server {
        type SealedConfig = ServerConfig;
        type SealedEvent = ServerEvent;

        fn wrap(config: Arc<ServerConfig>) -> AnyConfig {
            AnyConfig::Server(config)
        }

        fn event(event: CoreEvent) -> Option<ServerEvent> {
            event.into_server()
        }
    }
}
