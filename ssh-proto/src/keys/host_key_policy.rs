//! What to do about a host's key, as data.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::known_hosts::{HostStatus, KnownHosts, recordable_name};
use crate::key::PublicKey;

/// Which host keys are accepted (`ssh_config(5)`, StrictHostKeyChecking).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HostKeyPolicy {
    /// Only keys recorded for the host.
    KnownHosts(KnownHosts),
    /// Keys recorded for the host, and the first key of a host of which none is recorded.
    ///
    /// A host known by keys of other types only is not new: whoever stands in between could otherwise
    /// always show a key of a type not seen before.
    AcceptNew(KnownHosts),
    /// The one key of this fingerprint, as `ssh-keygen -l` prints it: `SHA256:` and base64.
    ///
    /// The prefix may be left out, and base64 padding may be left in. Other hashes never match.
    Fingerprint(String),
    /// Any key. Whoever stands in between can read and change everything.
    DangerousAcceptAny,
}

/// What [`HostKeyPolicy::decide`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKeyDecision {
    /// Go on.
    Accept,
    /// Go on, and append [`KnownHosts::line`] to the file.
    AcceptAndRecord,
    /// Do not go on.
    Reject(HostKeyRejection),
}

/// Why a host key was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKeyRejection {
    /// No key is recorded for the host.
    Unknown,
    /// Keys are recorded for the host, but none of this type.
    OtherTypesKnown {
        /// The types that are.
        types: Vec<String>,
    },
    /// Other keys of this type are recorded for the host.
    Changed {
        /// Their lines.
        lines: Vec<usize>,
    },
    /// The key is revoked.
    Revoked,
    /// The key has another fingerprint than the expected one.
    FingerprintDiffers,
    /// What is expected is not a fingerprint: SHA-256 has 43 digits in base64.
    NotAFingerprint,
    /// The host name can't be recorded.
    BadHostName,
    /// The file of known hosts is too long to have been read whole, and a revocation may be in the rest.
    FileTooLong,
}

impl fmt::Display for HostKeyRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the host is not known",
            Self::OtherTypesKnown { types } => {
                return write!(f, "the host is known by keys of other types ({})", types.join(", "));
            }
            Self::Changed { lines } => {
                f.write_str("the host key has changed; other keys are recorded in line ")?;
                for (position, line) in lines.iter().enumerate() {
                    write!(f, "{}{line}", if position > 0 { ", " } else { "" })?;
                }
                return Ok(());
            }
            Self::Revoked => "the host key is revoked",
            Self::FingerprintDiffers => "the host key has another fingerprint",
            Self::NotAFingerprint => "the expected fingerprint is not the base64 of a SHA-256",
            Self::BadHostName => "the host name can't be recorded",
            Self::FileTooLong => "the file of known hosts is too long",
        })
    }
}

impl core::error::Error for HostKeyRejection {}

impl HostKeyPolicy {
    /// Judges the key that `host` showed on `port`. The names are those of [`KnownHosts::check`].
    pub fn decide(&self, host: &str, port: u16, key: &PublicKey) -> HostKeyDecision {
        let (file, accept_new) = match self {
            Self::KnownHosts(file) => (file, false),
            Self::AcceptNew(file) => (file, true),
            Self::Fingerprint(expected) => {
                return match sha256_digits(expected) {
                    None => HostKeyDecision::Reject(HostKeyRejection::NotAFingerprint),
                    digits if digits == sha256_digits(&key.fingerprint()) => HostKeyDecision::Accept,
                    Some(_) => HostKeyDecision::Reject(HostKeyRejection::FingerprintDiffers),
                };
            }
            Self::DangerousAcceptAny => return HostKeyDecision::Accept,
        };
        HostKeyDecision::Reject(match file.check(host, port, key) {
            HostStatus::Revoked => HostKeyRejection::Revoked,
            _ if file.is_truncated() => HostKeyRejection::FileTooLong,
            HostStatus::Known => return HostKeyDecision::Accept,
            HostStatus::Changed { known } => {
                HostKeyRejection::Changed { lines: known.iter().map(|recorded| recorded.line).collect() }
            }
            HostStatus::Unknown => match file.key_types(host, port) {
                types if !types.is_empty() => HostKeyRejection::OtherTypesKnown { types },
                _ if !accept_new => HostKeyRejection::Unknown,
                _ if recordable_name(host, port).is_err() => HostKeyRejection::BadHostName,
                _ => return HostKeyDecision::AcceptAndRecord,
            },
        })
    }

    /// The key types to prefer for a host: those recorded for it, or none where nothing is recorded.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<String> {
        match self {
            Self::KnownHosts(file) | Self::AcceptNew(file) => file.key_types(host, port),
            Self::Fingerprint(_) | Self::DangerousAcceptAny => Vec::new(),
        }
    }
}

/// The 43 digits of a fingerprint, without what may stand around them.
fn sha256_digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("SHA256:").unwrap_or(text);
    let digits = digits.strip_suffix('=').unwrap_or(digits);
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    (digits.len() == 43 && digits.bytes().all(is_digit)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use crate::keys::{MAX_LINES, parse_public_key_line};

    fn key(line: &str) -> PublicKey {
        parse_public_key_line(line.as_bytes()).unwrap().0
    }

    fn ed25519() -> PublicKey {
        key(include_str!("testdata/ed25519.pub"))
    }

    fn rsa() -> PublicKey {
        key(include_str!("testdata/rsa2048.pub"))
    }

    fn file() -> KnownHosts {
        let changed = key(include_str!("testdata/ed25519_aes256_ctr.pub")).to_line();
        let (ed25519, rsa) = (ed25519().to_line(), rsa().to_line());
        KnownHosts::parse(
            format!("known {ed25519}\nother {rsa}\nchanged {changed}\n@revoked revoked {ed25519}\n")
                .as_bytes(),
        )
    }

    #[test]
    fn known_hosts_decide_by_status() {
        let reject = HostKeyDecision::Reject;
        let changed = HostKeyRejection::Changed { lines: [3].into() };
        let other = HostKeyRejection::OtherTypesKnown { types: ["ssh-rsa".into()].into() };
        for (host, strict, accept_new) in [
            ("known", HostKeyDecision::Accept, HostKeyDecision::Accept),
            ("new", reject(HostKeyRejection::Unknown), HostKeyDecision::AcceptAndRecord),
            ("n,ew", reject(HostKeyRejection::Unknown), reject(HostKeyRejection::BadHostName)),
            ("other", reject(other.clone()), reject(other.clone())),
            ("changed", reject(changed.clone()), reject(changed.clone())),
            ("revoked", reject(HostKeyRejection::Revoked), reject(HostKeyRejection::Revoked)),
        ] {
            assert_eq!(HostKeyPolicy::KnownHosts(file()).decide(host, 22, &ed25519()), strict, "{host}");
            assert_eq!(HostKeyPolicy::AcceptNew(file()).decide(host, 22, &ed25519()), accept_new, "{host}");
        }
        assert_eq!(changed.to_string(), "the host key has changed; other keys are recorded in line 3");
        assert_eq!(other.to_string(), "the host is known by keys of other types (ssh-rsa)");
    }

    #[test]
    fn the_types_to_prefer_are_the_recorded_ones() {
        assert_eq!(HostKeyPolicy::AcceptNew(file()).key_types("other", 22), ["ssh-rsa"]);
        assert!(HostKeyPolicy::DangerousAcceptAny.key_types("other", 22).is_empty());
    }

    #[test]
    fn a_file_that_was_not_read_whole_accepts_nothing() {
        let mut text = format!("known {}\n", ed25519().to_line()).into_bytes();
        text.resize(text.len() + MAX_LINES, b'\n');
        let file = KnownHosts::parse(&text);
        for policy in [HostKeyPolicy::KnownHosts(file.clone()), HostKeyPolicy::AcceptNew(file)] {
            for host in ["known", "new"] {
                let decision = policy.decide(host, 22, &ed25519());
                assert_eq!(decision, HostKeyDecision::Reject(HostKeyRejection::FileTooLong));
            }
        }
    }

    #[test]
    fn a_fingerprint_accepts_one_key() {
        let fingerprint = ed25519().fingerprint();
        let bare = fingerprint.trim_start_matches("SHA256:");
        for text in [&fingerprint[..], bare, &format!("{fingerprint}="), &format!("{bare}=")] {
            let policy = HostKeyPolicy::Fingerprint(text.into());
            assert_eq!(policy.decide("any", 1, &ed25519()), HostKeyDecision::Accept, "{text}");
            let other = policy.decide("any", 1, &rsa());
            assert_eq!(other, HostKeyDecision::Reject(HostKeyRejection::FingerprintDiffers), "{text}");
        }
        let md5 = "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48";
        let differs = &bare.to_lowercase()[..];
        for text in ["", "SHA256:", "=", &bare[1..], differs, &format!(" {bare}"), &format!("{bare}=="), md5]
        {
            let decision = HostKeyPolicy::Fingerprint(text.into()).decide("any", 1, &ed25519());
            let why = match text == differs {
                true => HostKeyRejection::FingerprintDiffers,
                false => HostKeyRejection::NotAFingerprint,
            };
            assert_eq!(decision, HostKeyDecision::Reject(why), "{text}");
        }
    }

    #[test]
    fn the_fingerprint_is_the_one_of_ssh_keygen() {
        // ssh-keygen -lf testdata/ed25519.pub
        let printed = "SHA256:zRuc1HJV1BACdTeNwwf06nzo56WulDfr+nm0O53V36M";
        assert_eq!(ed25519().fingerprint(), printed);
        assert_eq!(
            HostKeyPolicy::Fingerprint(printed.into()).decide("a", 22, &ed25519()),
            HostKeyDecision::Accept
        );
    }

    #[test]
    fn accepting_any_key_accepts_any_key() {
        assert_eq!(HostKeyPolicy::DangerousAcceptAny.decide("a", 22, &rsa()), HostKeyDecision::Accept);
    }
}
