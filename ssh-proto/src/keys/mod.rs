//! Key files, `known_hosts` and `authorized_keys`, as pure functions over bytes.
//!
//! Nothing here opens a file, looks at a clock or reads a system generator: the adapters read and append the
//! files. A file with a bad line is not a bad file: such lines are skipped, and listed with their numbers, as
//! `sshd(8)` prescribes for both formats.

mod host_key_policy;
mod known_hosts;
mod private;
mod public;
mod signer;

use alloc::vec::Vec;
use core::fmt;

pub use host_key_policy::{HostKeyDecision, HostKeyPolicy, HostKeyRejection};
pub use known_hosts::{HostNameRefused, HostStatus, KnownHosts, LineFormat, MAX_HOST, RecordedKey};
pub use private::{MAX_BCRYPT_ROUNDS, MAX_PRIVATE_KEY_FILE, PrivateKey, PrivateKeyError, load_private_key};
pub use public::{AuthorizedKeys, PublicKeyLineError, parse_public_key_line};

/// The longest line read from a `known_hosts`, `authorized_keys` or public key file, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// The most lines read from a `known_hosts` or `authorized_keys` file, blank ones and comments included.
pub const MAX_LINES: usize = 256 * 1024;

/// A line of a file that was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedLine {
    /// The line's number, from 1.
    pub line: usize,
    /// Why it was not used.
    pub reason: SkipReason,
}

/// Why a line was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Longer than [`MAX_LINE`].
    TooLong,
    /// The file has more than [`MAX_LINES`] lines: neither this line nor any after it was read.
    TooManyLines,
    /// `known_hosts`: begins with `@`, but not with exactly one of the known markers.
    BadMarker,
    /// `known_hosts`: the host field is not printable UTF-8, not a well-formed hash, has a pattern longer than any
    /// name, or none that is not negated.
    BadHosts,
    /// `authorized_keys`: has options in front of the key. They restrict the key and are not implemented, so
    /// the key is not accepted without them.
    HasOptions,
    /// `authorized_keys`: a certificate, whose validity nothing here could judge.
    Certificate,
    /// The key is missing or malformed.
    BadKey(PublicKeyLineError),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the line is too long",
            Self::TooManyLines => "the file has too many lines",
            Self::BadMarker => "unknown or repeated marker",
            Self::BadHosts => "malformed host names",
            Self::HasOptions => "key options are not supported",
            Self::Certificate => "certificates are not supported",
            Self::BadKey(error) => return error.fmt(f),
        })
    }
}

/// Calls `each` with the number and text of every line that is neither blank nor a comment, without leading
/// blanks and the line end. What `each` refuses is returned as skipped.
fn for_each_line(
    file: &[u8],
    mut each: impl FnMut(usize, &[u8]) -> Result<(), SkipReason>,
) -> Vec<SkippedLine> {
    let mut skipped = Vec::new();
    let file = file.strip_suffix(b"\n").unwrap_or(file);
    for (index, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let number = index.saturating_add(1);
        if index >= MAX_LINES {
            skipped.push(SkippedLine { line: number, reason: SkipReason::TooManyLines });
            break;
        }
        // Not only in front of the first: the contents may be those of several files.
        let line = without_bom(line);
        let text = trim_start(line.strip_suffix(b"\r").unwrap_or(line));
        let result = match text {
            [] | [b'#', ..] => Ok(()),
            _ if line.len() > MAX_LINE => Err(SkipReason::TooLong),
            _ => each(number, text),
        };
        if let Err(reason) = result {
            skipped.push(SkippedLine { line: number, reason });
        }
    }
    skipped
}

fn without_bom(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)
}

/// The only two bytes that separate fields. Others that Unicode or C call white space are part of a field.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// The first field, and what follows the blanks behind it.
fn split_field(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(is_blank).unwrap_or(text.len());
    let (field, rest) = text.split_at(end);
    (field, trim_start(rest))
}
