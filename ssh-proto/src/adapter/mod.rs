//! What adapters over an operating system have in common: why a call failed, what a command left behind, whose
//! an answer is, how many clients may knock at once.
//!
//! Here is nothing that touches an operating system, only the types that speak of one, so that a program
//! with two adapters meets one [`Error`].

mod by_channel;
mod known_hosts;
mod login;
mod question;
mod questions;
mod replies;
mod roles;
mod signers;
mod startups;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::{ConfigError, Limits};
use crate::entropy::Entropy;
use crate::error::{AnswerError, ApiMisuse, AuthError, CloseReason, OpenError, RequestError};
use crate::key::{KeyPair, PublicKey};
use crate::keys::{
    HostKeyDecision, HostKeyPolicy, HostKeyRejection, KnownHosts, LineFormat, MAX_PRIVATE_KEY_FILE,
    PrivateKeyError, SkipReason, load_private_key,
};
use crate::msg::request::{ExitStatus, OpenFailure};
use crate::secret::Secret;

pub use crate::copy::append;
pub use crate::key::sign;
pub use by_channel::ByChannel;
pub use known_hosts::{about_file, accept_new_host, read_known_hosts};
pub use login::{Login, LoginStep};
pub use question::{Answering, Asked, Question};
pub use questions::Questions;
pub use replies::{Asker, Replies};
pub use roles::{AdapterRole, ClientKept, News, ServerKept};
pub use signers::HostSigners;
pub use startups::{Startup, StartupRefused, Startups};

/// What an adapter hands to its transport at once, at most: of more, the front has left the processor's cache when it is
/// copied on. Over loopback TCP, with writes of 256 KiB a byte costs both ends four tenths more CPU than with these, and
/// with those of 16 KiB as well.
pub const MAX_WRITE: usize = 48 * 1024;

/// How many bytes an adapter still reads behind the close, if they come soon: to close a socket with bytes unread is a
/// reset, which may destroy the DISCONNECT that was just written.
///
/// A peer that is logged in may have sent all that its windows let it before it reads of the end, and what goes around
/// small pieces of it. One that is not has little to say.
pub fn drain_bytes(limits: &Limits, authenticated: bool) -> usize {
    let windows = if authenticated { limits.recv_budget.saturating_mul(4) } else { 0 };
    windows.max(64 * 1024)
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// How it ended, if the server said so.
    pub status: Option<ExitStatus>,
}

/// Judges a server's host key by a policy, and has it recorded where that is what the policy says.
///
/// # Errors
/// [`Error::HostKey`] for a key that is not accepted, and what `record` gives.
pub fn judge_host_key(
    policy: &HostKeyPolicy,
    host: &str,
    port: u16,
    key: &PublicKey,
    record: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    match policy.decide(host, port, key) {
        HostKeyDecision::Accept => Ok(()),
        HostKeyDecision::AcceptAndRecord => record(),
        HostKeyDecision::Reject(why) => Err(Error::HostKey(why)),
    }
}

/// What to append to a `known_hosts` file with the contents `old`, so that it records this key: a whole line, and
/// the end of the last one if that is missing. The name is hashed when there is entropy for it.
///
/// # Errors
/// [`Error::HostKey`] for a name that cannot be recorded, [`Error::Io`] without entropy.
pub fn line_to_append(
    old: &[u8],
    host: &str,
    port: u16,
    key: &PublicKey,
    hash: Option<&mut impl Entropy>,
) -> Result<String, Error> {
    let format = match hash {
        Some(entropy) => LineFormat::hashed(entropy).map_err(|_| io::Error::other("no random bytes"))?,
        None => LineFormat::Plain,
    };
    let line = KnownHosts::line(host, port, key, format)
        .map_err(|_| Error::HostKey(HostKeyRejection::BadHostName))?;
    let lead = if old.is_empty() || old.ends_with(b"\n") { "" } else { "\n" };
    Ok(format!("{lead}{line}\n"))
}

/// Reads a private key from a file that was opened, and leaves nothing of its contents behind.
///
/// # Errors
/// [`Error::Io`], [`Error::PrivateKey`].
pub fn read_private_key(mut file: impl io::Read, passphrase: Option<&Secret<str>>) -> Result<KeyPair, Error> {
    // Room for all that is read: a buffer that grows leaves copies.
    let mut contents = Zeroizing::new(vec![0; MAX_PRIVATE_KEY_FILE.saturating_add(1)]);
    let mut len: usize = 0;
    loop {
        match file.read(contents.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => len = len.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let key = load_private_key(contents.get(..len).unwrap_or_default(), passphrase)?;
    key.into_key_pair().map_err(|error| io::Error::other(error).into())
}

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
    /// The file of known hosts has a line with a marker that cannot be used. It may be a revocation, so no key is
    /// judged by the file.
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// Why it cannot be used.
        reason: SkipReason,
    },
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
    /// The call makes no sense in the state the connection is in.
    Misuse(ApiMisuse),
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
            Self::KnownHosts { file, line, reason } => {
                let file = file.display();
                write!(f, "{file}: line {line}: {reason}; it may be a revocation, so no key is accepted")
            }
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
            Self::Misuse(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
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
    ApiMisuse => Misuse,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Closed(_) => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_comes_back_as_it_was_and_others_are_kept_inside() {
        let system = io::Error::from(Error::Io(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(system.kind(), io::ErrorKind::ConnectionRefused);
        assert!(system.get_ref().is_none());
        for (error, kind) in [
            (Error::TimedOut, io::ErrorKind::TimedOut),
            (Error::Closed(CloseReason::Eof), io::ErrorKind::ConnectionAborted),
            (Error::RequestRefused, io::ErrorKind::Other),
        ] {
            let (text, wrapped) = (error.to_string(), io::Error::from(error));
            assert_eq!((wrapped.kind(), wrapped.to_string()), (kind, text));
            assert!(wrapped.get_ref().is_some_and(|inner| inner.is::<Error>()));
        }
    }
}
