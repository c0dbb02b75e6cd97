//! Why a call failed.

use std::fmt;
use std::io;

use ssh_proto::keys::{HostKeyRejection, PrivateKeyError};
use ssh_proto::{AnswerError, AuthError, CloseReason, ConfigError, OpenError, OpenFailure, RequestError};

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system failed to connect, read or write.
    Io(io::Error),
    /// The configuration cannot work.
    Config(ConfigError),
    /// The connection is over.
    Closed(CloseReason),
    /// The server's host key is not one to trust, by its policy.
    HostKey(HostKeyRejection),
    /// The server's host key was turned down by the embedder's own judgement.
    HostKeyRefused,
    /// A private key file could not be used.
    PrivateKey(PrivateKeyError),
    /// The server did not let us in, or not yet.
    AuthFailed {
        /// Methods it takes next.
        remaining: Vec<String>,
        /// Whether this attempt succeeded and more is needed.
        partial: bool,
    },
    /// The attempt to log in was not even made.
    Auth(AuthError),
    /// The peer refused to open the channel.
    OpenFailed(OpenFailure),
    /// The channel was not even asked for.
    Open(OpenError),
    /// The peer refused the request.
    RequestRefused,
    /// The request was not even made.
    Request(RequestError),
    /// The question was not open any more.
    Answer(AnswerError),
    /// The time allowed for the call has passed. The channel can go on being used.
    TimedOut,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Closed(reason) => write!(f, "{reason}"),
            Self::HostKey(why) => write!(f, "host key verification failed: {why}"),
            Self::HostKeyRefused => f.write_str("the host key was refused"),
            Self::PrivateKey(error) => write!(f, "{error}"),
            Self::AuthFailed { remaining, partial } => {
                let what = if *partial { "more authentication is needed" } else { "permission denied" };
                // The names come from the peer, but only printable ASCII passes as a name-list.
                write!(f, "{what} ({})", remaining.join(","))
            }
            Self::Auth(error) => write!(f, "{error}"),
            Self::OpenFailed(why) => {
                write!(f, "the channel was refused: reason {} ({})", why.code.0, why.description)
            }
            Self::Open(error) => write!(f, "{error}"),
            Self::RequestRefused => f.write_str("the request was refused"),
            Self::Request(error) => write!(f, "{error}"),
            Self::Answer(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Closed(reason) => Some(reason),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident,)+) => {$(
        impl From<$type> for Error {
            fn from(error: $type) -> Self {
                Self::$variant(error)
            }
        }
    )+};
}

from! {
    io::Error => Io,
    ConfigError => Config,
    CloseReason => Closed,
    PrivateKeyError => PrivateKey,
    AuthError => Auth,
    OpenError => Open,
    RequestError => Request,
    AnswerError => Answer,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io(_) => match error {
                Error::Io(error) => return error,
                other => return Self::other(other),
            },
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Closed(_) => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
