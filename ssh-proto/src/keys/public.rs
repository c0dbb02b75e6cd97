//! Public key lines: `.pub` files and `authorized_keys`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding};

use super::{MAX_LINE, SkipReason, SkippedLine, for_each_line, split_field, trim_start, without_bom};
use crate::key::{KeyError, PublicKey};

/// Why a line is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyLineError {
    /// Longer than [`MAX_LINE`].
    TooLong,
    /// The type or the key is missing, or there is more than one line.
    NotOneKey,
    /// The key is not base64.
    BadBase64,
    /// The type before the key is not the type within it.
    TypeMismatch,
    /// The key's bytes are not a key.
    BadKey(KeyError),
}

impl fmt::Display for PublicKeyLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the line is too long",
            Self::NotOneKey => "not one line of a key type and a key",
            Self::BadBase64 => "the key is not base64",
            Self::TypeMismatch => "the key is of another type than its line says",
            Self::BadKey(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for PublicKeyLineError {}

/// Reads a public key as `ssh-keygen` writes it to a `.pub` file: type, base64 and an optional comment.
///
/// Gives the key and its comment (empty when there is none; bytes that are not UTF-8 are replaced). A byte
/// order mark before the line and line ends after it are accepted.
///
/// # Errors
/// [`PublicKeyLineError`]. The type must equal the one the key's blob begins with ([RFC 4253 §6.6]).
///
/// [RFC 4253 §6.6]: https://www.rfc-editor.org/rfc/rfc4253#section-6.6
pub fn parse_public_key_line(line: &[u8]) -> Result<(PublicKey, String), PublicKeyLineError> {
    let mut text = without_bom(line);
    while let [head @ .., b'\n' | b'\r'] = text {
        text = head;
    }
    if text.len() > MAX_LINE {
        return Err(PublicKeyLineError::TooLong);
    }
    if text.contains(&b'\n') {
        return Err(PublicKeyLineError::NotOneKey);
    }
    let (key, comment) = key_fields(trim_start(text))?;
    Ok((key, String::from_utf8_lossy(comment.trim_ascii_end()).into_owned()))
}

/// Reads `type base64` and gives the rest of the line.
pub(super) fn key_fields(text: &[u8]) -> Result<(PublicKey, &[u8]), PublicKeyLineError> {
    let (key_type, text) = split_field(text);
    let (key, rest) = split_field(text);
    // Behind a carriage return stands what was meant for a line of its own, and would be taken for a comment.
    if key_type.is_empty() || key.is_empty() || rest.contains(&b'\r') {
        return Err(PublicKeyLineError::NotOneKey);
    }
    let key = core::str::from_utf8(key).map_err(|_| PublicKeyLineError::BadBase64)?;
    let blob = Base64::decode_vec(key).map_err(|_| PublicKeyLineError::BadBase64)?;
    let key = PublicKey::from_blob(&blob).map_err(PublicKeyLineError::BadKey)?;
    if key.key_type().as_bytes() != key_type {
        return Err(PublicKeyLineError::TypeMismatch);
    }
    Ok((key, rest))
}

/// The keys of an `authorized_keys` file, from its lines without options.
///
/// The format is that of `sshd(8)`, AUTHORIZED_KEYS FILE FORMAT. Options restrict a key (`command=`, `from=`,
/// `expiry-time=`...); a line that has any is skipped, never taken as a key without them.
#[derive(Debug, Clone, Default)]
pub struct AuthorizedKeys {
    keys: Vec<PublicKey>,
    skipped: Vec<SkippedLine>,
}

impl AuthorizedKeys {
    /// Reads a whole file. Lines that can't be used are listed in [`skipped`](Self::skipped).
    pub fn parse(file: &[u8]) -> Self {
        let mut keys = Vec::new();
        let skipped = for_each_line(file, |_, text| {
            keys.push(authorized_key(text)?);
            Ok(())
        });
        Self { keys, skipped }
    }

    /// Whether `key` is authorized.
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }

    /// The authorized keys, in the order of their lines.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The lines that were not used, and why.
    pub fn skipped(&self) -> &[SkippedLine] {
        &self.skipped
    }
}

fn authorized_key(text: &[u8]) -> Result<PublicKey, SkipReason> {
    let key = match key_fields(text) {
        Ok((key, _)) => key,
        Err(_) if key_fields(after_options(text)).is_ok() => return Err(SkipReason::HasOptions),
        Err(error) => return Err(SkipReason::BadKey(error)),
    };
    if key.key_type().ends_with("-cert-v01@openssh.com") {
        return Err(SkipReason::Certificate);
    }
    Ok(key)
}

/// What follows the first field, when blanks in double quotes don't end it and `\"` is no quote.
fn after_options(text: &[u8]) -> &[u8] {
    let (mut quoted, mut escaped) = (false, false);
    for (position, &byte) in text.iter().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b' ' | b'\t' if !quoted => return trim_start(text.get(position..).unwrap_or_default()),
            _ => {}
        }
        escaped = byte == b'\\';
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::MAX_LINES;

    const ED25519: &str = include_str!("testdata/ed25519.pub");
    const ECDSA: &str = include_str!("testdata/ecdsa256.pub");
    const RSA: &str = include_str!("testdata/rsa2048.pub");

    fn key(line: &str) -> PublicKey {
        parse_public_key_line(line.as_bytes()).unwrap().0
    }

    #[test]
    fn lines_of_ssh_keygen_are_read_with_their_comments() {
        for (line, key_type, comment) in [
            (ED25519, "ssh-ed25519", "ed25519 plain"),
            (ECDSA, "ecdsa-sha2-nistp256", "ecdsa plain"),
            (RSA, "ssh-rsa", "rsa plain"),
        ] {
            let (key, found) = parse_public_key_line(line.as_bytes()).unwrap();
            assert_eq!((key.key_type(), &found[..]), (key_type, comment));
            assert!(line.starts_with(&key.to_line()));
            assert_eq!(parse_public_key_line(key.to_line().as_bytes()), Ok((key, String::new())));
        }
    }

    #[test]
    fn the_editors_of_other_systems_are_forgiven() {
        let line = ED25519.trim_end();
        for variant in [
            alloc::format!("\u{feff}{line}\r\n"),
            alloc::format!(" \t{line}"),
            alloc::format!("{line}\n\n"),
            line.replace(' ', "\t "),
        ] {
            assert_eq!(key(&variant), key(ED25519), "{variant:?}");
        }
    }

    #[test]
    fn a_type_that_is_not_the_keys_is_refused() {
        let line = ED25519.replace("ssh-ed25519", "ssh-rsa");
        assert_eq!(parse_public_key_line(line.as_bytes()), Err(PublicKeyLineError::TypeMismatch));
    }

    #[test]
    fn what_is_no_key_says_why() {
        let long = [b'a'; MAX_LINE + 1];
        let big = alloc::format!("ssh-rsa {}", "A".repeat(MAX_LINE - 100));
        let two = [ED25519, RSA].concat();
        for (line, error) in [
            (&b""[..], PublicKeyLineError::NotOneKey),
            (b"ssh-ed25519", PublicKeyLineError::NotOneKey),
            (b"ssh-ed25519 !!!!", PublicKeyLineError::BadBase64),
            (b"ssh-ed25519 \xff\xff", PublicKeyLineError::BadBase64),
            (b"ssh-ed25519 AAAA", PublicKeyLineError::BadKey(KeyError::Malformed)),
            (big.as_bytes(), PublicKeyLineError::BadKey(KeyError::TooLong)),
            (&long, PublicKeyLineError::TooLong),
            (two.as_bytes(), PublicKeyLineError::NotOneKey),
        ] {
            assert_eq!(parse_public_key_line(line), Err(error));
        }
    }

    #[test]
    fn only_lines_without_options_authorize() {
        let (ed, ecdsa, rsa) = (ED25519.trim_end(), ECDSA.trim_end(), RSA.trim_end());
        let file = alloc::format!(
            "\u{feff}# mine\r\n\r\n{ed}\r\n  \t{ecdsa}\n\
             command=\"echo \\\"a b\\\" c\",no-pty {rsa}\ncert-authority {rsa}\nrubbish\n"
        );
        let keys = AuthorizedKeys::parse(file.as_bytes());
        assert_eq!(keys.keys(), [key(ED25519), key(ECDSA)]);
        assert!(keys.contains(&key(ED25519)) && !keys.contains(&key(RSA)));
        assert_eq!(
            keys.skipped(),
            [
                SkippedLine { line: 5, reason: SkipReason::HasOptions },
                SkippedLine { line: 6, reason: SkipReason::HasOptions },
                SkippedLine { line: 7, reason: SkipReason::BadKey(PublicKeyLineError::NotOneKey) },
            ]
        );
    }

    #[test]
    fn a_certificate_authorizes_nothing() {
        let name = b"ssh-ed25519-cert-v01@openssh.com";
        let mut blob = (name.len() as u32).to_be_bytes().to_vec();
        blob.extend_from_slice(name);
        let cert = PublicKey::from_blob(&blob).unwrap();
        let keys = AuthorizedKeys::parse(cert.to_line().as_bytes());
        assert!(!keys.contains(&cert));
        assert_eq!(keys.skipped(), [SkippedLine { line: 1, reason: SkipReason::Certificate }]);
    }

    #[test]
    fn lines_beyond_the_caps_are_not_read() {
        let mut file = alloc::vec![b'\n'; MAX_LINES];
        file.extend_from_slice(ED25519.as_bytes());
        let keys = AuthorizedKeys::parse(&file);
        assert!(keys.keys().is_empty());
        assert_eq!(keys.skipped(), [SkippedLine { line: MAX_LINES + 1, reason: SkipReason::TooManyLines }]);

        let mut file = ED25519.trim_end().as_bytes().to_vec();
        file.resize(MAX_LINE + 1, b'x');
        let keys = AuthorizedKeys::parse(&file);
        assert!(keys.keys().is_empty());
        assert_eq!(keys.skipped(), [SkippedLine { line: 1, reason: SkipReason::TooLong }]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            let _ = parse_public_key_line(&data);
            let _ = AuthorizedKeys::parse(&data);
        }

        #[test]
        fn a_damaged_line_is_another_key_or_none(position in 0usize..80, byte: u8) {
            let mut line = ED25519.trim_end().as_bytes().to_vec();
            prop_assume!(line[position] != b' ');
            let before = core::mem::replace(&mut line[position], byte);
            match parse_public_key_line(&line) {
                Ok((found, _)) => prop_assert_eq!(found == key(ED25519), byte == before),
                Err(_) => prop_assert_ne!(byte, before),
            }
        }

        #[test]
        fn a_prefix_of_a_file_never_authorizes_another_key(end in 0usize..600) {
            let file = [ED25519, RSA].concat();
            for found in AuthorizedKeys::parse(&file.as_bytes()[..end.min(file.len())]).keys() {
                prop_assert!(found.key_type() == "ssh-ed25519" || found.key_type() == "ssh-rsa");
            }
        }
    }
}
