//! `known_hosts`: which keys a host is known by.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::public::key_fields;
use super::{PublicKeyLineError, SkipReason, SkippedLine, for_each_line, split_field};
use crate::entropy::{Entropy, EntropyError};
use crate::key::{KeyError, PublicKey};
use crate::wire::decode;

/// The longest host name looked up or written, in bytes (the resolver's `NI_MAXHOST`).
pub const MAX_HOST: usize = 1025;

/// The longest single pattern: a host name with brackets and a port. No name is longer.
const MAX_PATTERN: usize = MAX_HOST + "[]:65535".len();
/// The port whose entries are written without a port.
const DEFAULT_PORT: u16 = 22;
/// What a hashed host field begins with.
const HASH_MAGIC: &str = "|1|";

/// The contents of a `known_hosts` file, in the format of `sshd(8)`, SSH_KNOWN_HOSTS FILE FORMAT.
///
/// Of several files all must be asked, also behind one that knows the key, because a later one may revoke it. Or
/// their contents are joined by `\n` and parsed as one, which needs the `\n` even where a file ends with one: a
/// file without a last line end would swallow the first line of the next, and with it a revocation.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    skipped: Vec<SkippedLine>,
}

#[derive(Debug, Clone)]
struct Entry {
    line: usize,
    marker: Marker,
    hosts: Hosts,
    key: PublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// The key is the host's.
    None,
    /// The key signs certificates of hosts. It is never a host's key itself.
    CertAuthority,
    /// The key must not be accepted.
    Revoked,
}

#[derive(Debug, Clone)]
enum Hosts {
    /// Patterns separated by commas, in lower case.
    Patterns(String),
    /// The HMAC-SHA1 of one name, keyed by the salt.
    Hashed { salt: [u8; 20], hash: [u8; 20] },
}

/// What is known of a host and the key it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostStatus {
    /// The key is recorded for the host.
    Known,
    /// No key of this type is recorded for the host. Keys of other types may be: see
    /// [`KnownHosts::key_types`].
    Unknown,
    /// Other keys of this type are recorded for the host, and this one is not.
    Changed {
        /// The keys of this type, with their lines.
        known: Vec<RecordedKey>,
    },
    /// The key is marked `@revoked` for the host.
    Revoked,
}

/// A key and the line that records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedKey {
    /// The line's number, from 1.
    pub line: usize,
    /// The key.
    pub key: PublicKey,
}

/// How [`KnownHosts::line`] writes the host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineFormat {
    /// In clear.
    Plain,
    /// As HMAC-SHA1 under a salt, so that the file does not tell where its owner connects to (`ssh_config(5)`,
    /// HashKnownHosts).
    Hashed {
        /// Fresh random bytes.
        salt: [u8; 20],
    },
}

impl LineFormat {
    /// The hashed format with a fresh salt.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn hashed(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut salt = [0; 20];
        entropy.fill(&mut salt)?;
        Ok(Self::Hashed { salt })
    }
}

/// A host name that can't be written to `known_hosts`: it is empty, longer than [`MAX_HOST`], not printable
/// ASCII, or has characters that mean something else there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostNameRefused;

impl fmt::Display for HostNameRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host name can't be written to known_hosts")
    }
}

impl core::error::Error for HostNameRefused {}

impl KnownHosts {
    /// Reads a whole file. Lines that can't be used are listed in [`skipped`](Self::skipped), and a caller
    /// does well to show them: a skipped `@revoked` line revokes nothing.
    pub fn parse(file: &[u8]) -> Self {
        let mut entries = Vec::new();
        let skipped = for_each_line(file, |line, text| {
            entries.push(Entry::parse(line, text)?);
            Ok(())
        });
        Self { entries, skipped }
    }

    /// Judges the key that `host` showed on `port`.
    ///
    /// `host` is the name or address as the user gave it, without brackets; upper case is the same as lower
    /// case. Port 22 (and 0) is looked up as `host`, any other as `[host]:port`, and only so: a key recorded
    /// without a port says nothing about other ports. A revocation wins over any other line, and one of
    /// `[host]:22` counts for `host` too. A name with brackets is that of no host.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> HostStatus {
        let Some(name) = lookup_name(host, port) else { return HostStatus::Unknown };
        let mut found = false;
        let mut known = Vec::new();
        for entry in &self.entries {
            let same = entry.key == *key;
            let relevant = match entry.marker {
                Marker::Revoked => same,
                Marker::None => same || entry.key.key_type() == key.key_type(),
                Marker::CertAuthority => false,
            };
            let named = relevant && (entry.hosts.contain(&name) || entry.revokes_with_port(host, port));
            if !named {
                continue;
            }
            match entry.marker {
                Marker::Revoked => return HostStatus::Revoked,
                _ if same => found = true,
                _ => known.push(RecordedKey { line: entry.line, key: entry.key.clone() }),
            }
        }
        if found {
            HostStatus::Known
        } else if known.is_empty() {
            HostStatus::Unknown
        } else {
            HostStatus::Changed { known }
        }
    }

    /// The types of the keys recorded for a host, each once, in the order of their lines.
    ///
    /// A client that puts the algorithms of these types first in its `SSH_MSG_KEXINIT` is shown a key it can
    /// judge, when the server still has one.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<String> {
        let mut types: Vec<String> = Vec::new();
        let Some(name) = lookup_name(host, port) else { return types };
        for entry in self.entries.iter().filter(|entry| entry.marker == Marker::None) {
            let key_type = entry.key.key_type();
            if !types.iter().any(|known| known == key_type) && entry.hosts.contain(&name) {
                types.push(key_type.to_owned());
            }
        }
        types
    }

    /// The lines that were not used, and why.
    pub fn skipped(&self) -> &[SkippedLine] {
        &self.skipped
    }

    /// Whether the file had more than [`MAX_LINES`](super::MAX_LINES) lines, so that a revocation may have
    /// been missed.
    pub fn is_truncated(&self) -> bool {
        self.skipped.iter().any(|skipped| skipped.reason == SkipReason::TooManyLines)
    }

    /// The line that records `key` for `host` and `port`, without a line end.
    ///
    /// # Errors
    /// [`HostNameRefused`] for names that would read back as anything but themselves: white space and control
    /// characters, `,` `*` `?` `[` `]` anywhere, one of `|` `@` `#` `!` in front, and non-ASCII characters
    /// (names of the DNS have an ASCII form).
    pub fn line(
        host: &str,
        port: u16,
        key: &PublicKey,
        format: LineFormat,
    ) -> Result<String, HostNameRefused> {
        let name = recordable_name(host, port)?;
        let hosts = match format {
            LineFormat::Plain => name,
            LineFormat::Hashed { salt } => {
                let hash = hash_name(&salt, &name).finalize().into_bytes();
                format!("{HASH_MAGIC}{}|{}", Base64::encode_string(&salt), Base64::encode_string(&hash))
            }
        };
        Ok(format!("{hosts} {}", key.to_line()))
    }
}

/// The name as [`KnownHosts::line`] writes it.
pub(super) fn recordable_name(host: &str, port: u16) -> Result<String, HostNameRefused> {
    let special = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b',' | b'*' | b'?' | b'[' | b']');
    if host.bytes().any(special) || host.starts_with(['|', '@', '#', '!']) {
        return Err(HostNameRefused);
    }
    lookup_name(host, port).ok_or(HostNameRefused)
}

/// The name entries are compared with, or `None` when it can't be a host's.
fn lookup_name(host: &str, port: u16) -> Option<String> {
    // Brackets would make it the name of another host with a port.
    if host.is_empty() || host.len() > MAX_HOST || host.contains(['[', ']']) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    Some(if is_default(port) { host } else { format!("[{host}]:{port}") })
}

fn is_default(port: u16) -> bool {
    port == 0 || port == DEFAULT_PORT
}

fn hash_name(salt: &[u8; 20], name: &str) -> Hmac<Sha1> {
    let mut block = [0; 64];
    let (head, _) = block.split_at_mut(salt.len());
    head.copy_from_slice(salt);
    // HMAC pads a key with zeros to the block size of the hash: this is the same key, of the infallible length.
    Hmac::<Sha1>::new(&block.into()).chain_update(name)
}

impl Entry {
    fn parse(line: usize, text: &[u8]) -> Result<Self, SkipReason> {
        let (marker, text) = match text {
            [b'@', ..] => {
                let (name, rest) = split_field(text);
                let marker = match name {
                    b"@revoked" => Marker::Revoked,
                    b"@cert-authority" => Marker::CertAuthority,
                    _ => return Err(SkipReason::BadMarker),
                };
                if rest.first() == Some(&b'@') {
                    return Err(SkipReason::BadMarker);
                }
                (marker, rest)
            }
            _ => (Marker::None, text),
        };
        let (hosts, text) = split_field(text);
        let hosts = Hosts::parse(hosts).ok_or(SkipReason::BadHosts)?;
        let (key, _) = key_fields(text).map_err(SkipReason::BadKey)?;
        if marker == Marker::Revoked && !is_whole(&key) {
            // No host can show such a key: the line would revoke nothing, and nobody would be told.
            return Err(SkipReason::BadKey(PublicKeyLineError::BadKey(KeyError::Malformed)));
        }
        Ok(Self { line, marker, hosts, key })
    }

    /// Whether the line revokes for the host on the default port written out. Nothing writes names that way but
    /// a person, whose revocation must not be lost over it.
    fn revokes_with_port(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        self.marker == Marker::Revoked
            && is_default(port)
            && self.hosts.contain(&format!("[{host}]:{DEFAULT_PORT}"))
    }
}

/// Whether a key is its type and at least one more field, each of its full length. Fields of keys are strings,
/// or numbers framed like them; certificates have others, and are not looked at.
fn is_whole(key: &PublicKey) -> bool {
    let Ok((mut rest, _)) = decode::string(key.as_blob()) else { return false };
    if key.key_type().ends_with("-cert-v01@openssh.com") {
        return true;
    }
    let mut fields = 0_usize;
    while !rest.is_empty() {
        let Ok((behind, _)) = decode::string(rest) else { return false };
        rest = behind;
        fields = fields.saturating_add(1);
    }
    fields > 0
}

impl Hosts {
    fn parse(field: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(field).ok()?;
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return None;
        }
        if !text.starts_with('|') {
            // What can never match would revoke nothing, and nobody would be told.
            let too_long = text
                .split(',')
                .any(|pattern| pattern.strip_prefix('!').unwrap_or(pattern).len() > MAX_PATTERN);
            let positive = text.split(',').any(|pattern| !pattern.is_empty() && !pattern.starts_with('!'));
            return (positive && !too_long).then(|| Self::Patterns(text.to_ascii_lowercase()));
        }
        let (salt, hash) = text.strip_prefix(HASH_MAGIC)?.split_once('|')?;
        Some(Self::Hashed { salt: decode_20(salt)?, hash: decode_20(hash)? })
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => matches_list(patterns, name),
            Self::Hashed { salt, hash } => hash_name(salt, name).verify_slice(hash).is_ok(),
        }
    }
}

fn decode_20(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 21];
    Base64::decode(text, &mut bytes).ok()?.try_into().ok()
}

/// Whether a name matches one of the patterns and none of those behind a `!` (`ssh_config(5)`, PATTERNS).
fn matches_list(patterns: &str, name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// Whether the whole of `name` matches, when `*` is any bytes and `?` any one byte.
///
/// Only the last `*` is ever gone back to, so the time is at most the product of the lengths.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut rest, mut text) = (pattern, name);
    // The pattern behind the last `*`, and the text it is tried on next.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (rest, text) {
            ([b'*', tail @ ..], _) => {
                star = Some((tail, text));
                rest = tail;
            }
            ([wanted, tail @ ..], [byte, text_tail @ ..]) if *wanted == b'?' || wanted == byte => {
                (rest, text) = (tail, text_tail);
            }
            ([], []) => return true,
            _ => match star {
                Some((tail, [_, retry @ ..])) => {
                    star = Some((tail, retry));
                    (rest, text) = (tail, retry);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests;
