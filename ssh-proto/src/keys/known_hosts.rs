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
use super::{SkipReason, SkippedLine, for_each_line, split_field};
use crate::entropy::{Entropy, EntropyError};
use crate::key::PublicKey;

/// The longest host name looked up or written, in bytes (the resolver's `NI_MAXHOST`).
pub const MAX_HOST: usize = 1025;

/// The longest single pattern that can match. Longer ones make their whole line match nothing.
const MAX_PATTERN: usize = 1024;
/// The port whose entries are written without a port.
const DEFAULT_PORT: u16 = 22;
/// What a hashed host field begins with.
const HASH_MAGIC: &str = "|1|";

/// The contents of a `known_hosts` file, in the format of `sshd(8)`, SSH_KNOWN_HOSTS FILE FORMAT.
///
/// Several files are asked one after the other, or concatenated before they are parsed.
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
    /// without a port says nothing about other ports. A revocation wins over any other line.
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
            if !relevant || !entry.hosts.contain(&name) {
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
    if host.is_empty() || host.len() > MAX_HOST {
        return None;
    }
    let host = host.to_ascii_lowercase();
    Some(if port == 0 || port == DEFAULT_PORT { host } else { format!("[{host}]:{port}") })
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
        Ok(Self { line, marker, hosts, key })
    }
}

impl Hosts {
    fn parse(field: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(field).ok()?;
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return None;
        }
        if !text.starts_with('|') {
            return Some(Self::Patterns(text.to_ascii_lowercase()));
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
        if pattern.len() > MAX_PATTERN {
            return false;
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{MAX_LINE, MAX_LINES, PublicKeyLineError, parse_public_key_line};

    const PLAIN: &[u8] = include_bytes!("testdata/known_hosts");
    const HASHED: &[u8] = include_bytes!("testdata/known_hosts_hashed");

    fn key(line: &str) -> PublicKey {
        parse_public_key_line(line.as_bytes()).unwrap().0
    }

    fn ed25519() -> PublicKey {
        key(include_str!("testdata/ed25519.pub"))
    }

    fn other_ed25519() -> PublicKey {
        key(include_str!("testdata/ed25519_aes256_ctr.pub"))
    }

    fn ecdsa() -> PublicKey {
        key(include_str!("testdata/ecdsa256.pub"))
    }

    fn rsa() -> PublicKey {
        key(include_str!("testdata/rsa2048.pub"))
    }

    /// Parses lines in which `ED`, `EC` and `RSA` stand for the keys.
    fn hosts(text: &str) -> KnownHosts {
        let text = text
            .replace("ED2", &other_ed25519().to_line())
            .replace("ED", &ed25519().to_line())
            .replace("EC", &ecdsa().to_line())
            .replace("RSA", &rsa().to_line());
        KnownHosts::parse(text.as_bytes())
    }

    fn is_known(patterns: &str, host: &str, port: u16) -> bool {
        hosts(&format!("{patterns} ED")).check(host, port, &ed25519()) == HostStatus::Known
    }

    #[test]
    fn files_of_ssh_keygen_are_understood_plain_and_hashed() {
        for file in [PLAIN, HASHED] {
            let file = KnownHosts::parse(file);
            assert_eq!(file.skipped(), []);
            for (host, port, known) in [
                ("example.com", 22, ed25519()),
                ("EXAMPLE.com", 22, ed25519()),
                ("example.com", 2222, ecdsa()),
                ("::1", 22, rsa()),
                ("127.0.0.1", 0, rsa()),
            ] {
                assert_eq!(file.check(host, port, &known), HostStatus::Known, "{host} {port}");
                assert_eq!(file.key_types(host, port), [known.key_type()]);
            }
            for (host, port) in [("example.com", 2223), ("example.co", 22), ("::1", 2222)] {
                assert_eq!(file.check(host, port, &ed25519()), HostStatus::Unknown, "{host} {port}");
                assert!(file.key_types(host, port).is_empty());
            }
        }
    }

    #[test]
    fn another_key_of_the_same_type_is_a_change_and_tells_the_line() {
        let file = hosts("a ED\n\na RSA\nb EC\n");
        assert_eq!(
            file.check("a", 22, &other_ed25519()),
            HostStatus::Changed { known: [RecordedKey { line: 1, key: ed25519() }].into() }
        );
        assert_eq!(file.check("a", 22, &ecdsa()), HostStatus::Unknown);
        assert_eq!(file.key_types("a", 22), ["ssh-ed25519", "ssh-rsa"]);
        // One of several keys of a type is enough.
        let file = hosts("a ED\na ED2");
        assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Known);
        assert_eq!(file.key_types("a", 22), ["ssh-ed25519"]);
    }

    #[test]
    fn patterns_are_those_of_ssh_config() {
        for (patterns, host, port, known) in [
            ("*", "a", 22, true),
            ("*", "a", 2222, true),
            ("*.example.com", "a.example.com", 22, true),
            ("*.example.com", "a.b.example.com", 22, true),
            ("*.example.com", "example.com", 22, false),
            ("*.example.com", "a.example.com", 2222, false),
            ("[*.example.com]:2222", "a.example.com", 2222, true),
            ("[*.example.com]:*", "a.example.com", 2223, true),
            ("h?st", "host", 22, true),
            ("h?st", "hst", 22, false),
            ("a,b", "b", 22, true),
            ("a,b", "a,b", 22, false),
            ("a,b", "c", 22, false),
            ("*,!b", "a", 22, true),
            ("*,!b", "b", 22, false),
            ("!b,*", "b", 22, false),
            ("!*.example.com,*", "x.example.com", 22, false),
            ("!b", "a", 22, false),
            ("Host", "hOST", 22, true),
            ("[host]:22", "host", 22, false),
            ("[host]:2222", "host", 2222, true),
            ("[host]:2222", "host", 22, false),
            ("host", "host", 2222, false),
            ("a*b*c", "axxbyyc", 22, true),
            ("a*b*c", "axxbyy", 22, false),
            ("**a", "a", 22, true),
            ("a?*", "a", 22, false),
            ("", "", 22, false),
            ("a,,b", "b", 22, true),
        ] {
            assert_eq!(is_known(patterns, host, port), known, "{patterns} {host} {port}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_time() {
        let patterns = "*a".repeat(MAX_PATTERN / 2);
        assert!(!is_known(&patterns, &"a".repeat(500), 22));
        assert!(is_known(&patterns, &"a".repeat(512), 22));
        // Too long to match, and what is too long to negate must not match either.
        assert!(!is_known(&format!("!{},*", "a".repeat(MAX_PATTERN + 1)), "a", 22));
    }

    #[test]
    fn kx_23_a_revocation_wins_wherever_it_stands() {
        for file in ["a ED\n@revoked a ED", "@revoked a ED\na ED", "a ED\n@revoked * ED", "@revoked\ta\tED"] {
            assert_eq!(hosts(file).check("a", 22, &ed25519()), HostStatus::Revoked, "{file}");
        }
        assert_eq!(hosts("[a]:2222 ED\n@revoked * ED").check("a", 2222, &ed25519()), HostStatus::Revoked);
        let salt = LineFormat::Hashed { salt: [7; 20] };
        let hashed = KnownHosts::line("a", 22, &ed25519(), salt).unwrap();
        let file = KnownHosts::parse(format!("@revoked {hashed}").as_bytes());
        assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Revoked);
        // For its hosts and its key only; and a revoked key is no key of the host.
        let file = hosts("a,b ED\n@revoked a ED");
        assert_eq!(file.check("b", 22, &ed25519()), HostStatus::Known);
        let file = hosts("@revoked a ED");
        assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Unknown);
        assert!(file.key_types("a", 22).is_empty());
    }

    #[test]
    fn kx_23_a_certificate_authority_is_not_a_host_key() {
        let file = hosts("@cert-authority * ED");
        assert_eq!(file.skipped(), []);
        assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown);
        assert_eq!(file.check("a", 22, &other_ed25519()), HostStatus::Unknown);
        assert!(file.key_types("a", 22).is_empty());
    }

    #[test]
    fn kx_23_markers_are_exact_and_single() {
        for line in [
            "@revoked @cert-authority a ED",
            "@cert-authority @revoked a ED",
            "@revoked @revoked a ED",
            "@Revoked a ED",
            "@revoked\u{b}a ED",
            "@revoked\u{c} a ED",
            "@revoked\u{a0}a ED",
            "@revokeda ED",
            "@revoked,a ED",
            "@ revoked a ED",
            "@",
        ] {
            let file = hosts(line);
            assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Unknown, "{line:?}");
            assert_eq!(file.skipped(), [SkippedLine { line: 1, reason: SkipReason::BadMarker }], "{line:?}");
        }
        // Elsewhere in a line the word is no marker.
        assert!(is_known("a,@revoked", "a", 22));
        assert_eq!(hosts("a ED @revoked").check("a", 22, &ed25519()), HostStatus::Known);
    }

    #[test]
    fn kx_23_only_space_and_tab_separate() {
        for blank in [" ", "\t", " \t \t"] {
            let file = hosts(&format!("{blank}a{blank}ED{blank}comment{blank}\r\n"));
            assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Known, "{blank:?}");
        }
        for odd in ["\u{b}", "\u{c}", "\r", "\0", "\u{1c}", "\u{85}", "\u{a0}", "\u{2003}", "\u{2028}"] {
            let file = hosts(&format!("a{odd}b ED\nc,d{odd} ED"));
            assert_eq!(file.skipped().len(), 2, "{odd:?}");
            assert!(file.skipped().iter().all(|line| line.reason == SkipReason::BadHosts), "{odd:?}");
        }
    }

    #[test]
    fn bad_lines_are_listed_and_the_others_used() {
        let file = hosts(
            "a ED\n# a comment\n\nb\nb ssh-rsa\nb ssh-rsa ****\n|1|x|y ED\n|2|x|y ED\n|1| ED\n|1|AAAA|AAAA ED\nc ED",
        );
        assert_eq!(file.check("a", 22, &ed25519()), HostStatus::Known);
        assert_eq!(file.check("c", 22, &ed25519()), HostStatus::Known);
        let not_one_key = SkipReason::BadKey(PublicKeyLineError::NotOneKey);
        let expected = [
            (4, not_one_key),
            (5, not_one_key),
            (6, SkipReason::BadKey(PublicKeyLineError::BadBase64)),
            (7, SkipReason::BadHosts),
            (8, SkipReason::BadHosts),
            (9, SkipReason::BadHosts),
            (10, SkipReason::BadHosts),
        ];
        assert_eq!(file.skipped(), expected.map(|(line, reason)| SkippedLine { line, reason }));
    }

    #[test]
    fn caps_hold() {
        let file = KnownHosts::parse(&[b'\n'; MAX_LINES]);
        assert!(!file.is_truncated());
        let file = KnownHosts::parse(&[b'\n'; MAX_LINES + 1]);
        assert!(file.is_truncated());
        let long = hosts(&format!("a{} ED\nb ED", ",a".repeat(MAX_LINE / 2)));
        assert_eq!(long.skipped(), [SkippedLine { line: 1, reason: SkipReason::TooLong }]);
        assert_eq!(long.check("b", 22, &ed25519()), HostStatus::Known);
        assert!(!is_known("*", &"a".repeat(MAX_HOST + 1), 22));
        assert!(!is_known("*", "", 22));
    }

    #[test]
    fn the_line_of_a_hashed_name_is_the_one_ssh_keygen_finds() {
        // The first entry of testdata/known_hosts_hashed.
        let text = core::str::from_utf8(HASHED).unwrap();
        let line = text.lines().nth(1).unwrap();
        let salt = decode_20(line.split('|').nth(2).unwrap()).unwrap();
        let ours = KnownHosts::line("Example.com", 22, &ed25519(), LineFormat::Hashed { salt });
        assert_eq!(ours.as_deref(), Ok(line));
    }

    #[test]
    fn names_that_could_forge_a_line_are_refused() {
        for host in [
            "",
            "a b",
            "a\tb",
            "a\nb",
            "a\r",
            "a\0",
            "a,b",
            "*",
            "a?",
            "[a]:23",
            "a]",
            "|1|a|b",
            "@revoked",
            "#a",
            "!a",
            "b\u{fc}cher.example",
            "a\u{7f}",
            "a\u{2028}b",
        ] {
            for port in [22, 2222] {
                for format in [LineFormat::Plain, LineFormat::Hashed { salt: [1; 20] }] {
                    assert_eq!(
                        KnownHosts::line(host, port, &rsa(), format),
                        Err(HostNameRefused),
                        "{host:?}"
                    );
                }
            }
        }
        for host in ["a", "a.example", "::1", "fe80::1%eth0", "user@a", "a_b-c"] {
            assert!(KnownHosts::line(host, 22, &rsa(), LineFormat::Plain).is_ok(), "{host:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>, host: String, port: u16) {
            let file = KnownHosts::parse(&data);
            let _ = file.check(&host, port, &ed25519());
            let _ = file.key_types(&host, port);
        }

        #[test]
        fn arbitrary_fields_never_panic(marker in "(@revoked |@cert-authority |@)?", field in "[ -~]{0,40}") {
            let file = hosts(&format!("{marker}{field} ED"));
            let _ = file.check("a", 22, &ed25519());
        }

        #[test]
        fn a_written_line_is_known_again(host: String, printable in "[!-~]{1,80}", port: u16, salt: [u8; 20]) {
            for host in [host, printable] {
                for format in [LineFormat::Plain, LineFormat::Hashed { salt }] {
                    let Ok(line) = KnownHosts::line(&host, port, &rsa(), format) else { continue };
                    let file = KnownHosts::parse(line.as_bytes());
                    prop_assert!(file.skipped().is_empty());
                    prop_assert_eq!(file.check(&host, port, &rsa()), HostStatus::Known);
                    prop_assert_eq!(file.check("elsewhere.example", 22, &rsa()), HostStatus::Unknown);
                }
            }
        }

        #[test]
        fn patterns_match_as_their_slow_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', tail @ ..], _) => (0..=name.len()).any(|skip| slow(tail, &name[skip..])),
                    ([b'?', tail @ ..], [_, rest @ ..]) => slow(tail, rest),
                    ([a, tail @ ..], [b, rest @ ..]) if a == b => slow(tail, rest),
                    _ => false,
                }
            }
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches_pattern(pattern, name), slow(pattern, name));
        }
    }
}
