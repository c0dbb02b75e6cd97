//! Why a call failed. The names are those of `ssh-io-std`.

use std::fmt;
use std::io;

use ssh_proto::keys::HostKeyRejection;
use ssh_proto::{AnswerError, AuthError, CloseReason, OpenError, OpenFailure, RequestError};

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system failed to connect.
    Io(io::Error),
    /// The connection is over.
    Closed(CloseReason),
    /// The server's host key is not one to trust.
    HostKey(HostKeyRejection),
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Closed(reason) => write!(f, "{reason}"),
            Self::HostKey(why) => write!(f, "host key verification failed: {why}"),
            Self::AuthFailed { remaining, partial } => {
                let what = if *partial { "more authentication is needed" } else { "permission denied" };
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
    CloseReason => Closed,
    AuthError => Auth,
    OpenError => Open,
    RequestError => Request,
    AnswerError => Answer,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            Error::Closed(_) => Self::new(io::ErrorKind::ConnectionAborted, error),
            _ => Self::other(error),
        }
    }
}
