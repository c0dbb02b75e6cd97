//! Reading a `known_hosts` file so that no revocation in it is missed.

use std::path::Path;

use super::Error;
use crate::keys::KnownHosts;

/// Reads the contents of a `known_hosts` file; `file` is its name, for the error.
///
/// A line that cannot be used is passed over, unless it begins with a marker: what it was to revoke would
/// otherwise be accepted.
///
/// # Errors
/// [`Error::KnownHosts`].
pub fn read_known_hosts(file: &Path, contents: &[u8]) -> Result<KnownHosts, Error> {
    let known = KnownHosts::parse(contents);
    let mut lines = contents.split(|byte| *byte == b'\n').enumerate();
    // Both are in the order of the file.
    for skipped in known.skipped() {
        let text = lines.find(|(index, _)| index + 1 == skipped.line).map(|(_, text)| text);
        if text.is_none_or(has_marker) {
            return Err(Error::KnownHosts { file: file.into(), line: skipped.line, reason: skipped.reason });
        }
    }
    Ok(known)
}

/// Whether a line begins with a marker, be it behind blanks or a byte order mark.
fn has_marker(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    line.iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'@')
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use crate::keys::{MAX_LINE, SkipReason};

    const KEY: &str = include_str!("../keys/testdata/ed25519.pub");

    #[test]
    fn a_line_with_a_marker_that_cannot_be_used_makes_the_file_one_not_to_trust() {
        let file = Path::new("/etc/known_hosts");
        let long = format!("@revoked * {}", "A".repeat(MAX_LINE));
        for (line, why) in [
            (&format!("@revoke * {KEY}")[..], Some(SkipReason::BadMarker)),
            (&format!("@revoked @revoked * {KEY}"), Some(SkipReason::BadMarker)),
            (&format!(" \t@revoked |1|x {KEY}"), Some(SkipReason::BadHosts)),
            (&long, Some(SkipReason::TooLong)),
            ("@", Some(SkipReason::BadMarker)),
            ("@revoked * ssh-ed25519 AAAA", None),
            ("@cert-authority *", None),
        ] {
            for (before, number) in [("", 1), ("\u{feff}", 1), ("# a comment\nhost no-key\r\n\n", 4)] {
                let contents = format!("{before}{line}\nhost {KEY}");
                let Err(Error::KnownHosts { file: named, line: found, reason }) =
                    read_known_hosts(file, contents.as_bytes())
                else {
                    panic!("{line}")
                };
                assert_eq!((&*named, found), (file, number), "{line}");
                assert!(why.is_none_or(|why| why == reason), "{line}: {reason}");
            }
        }
    }

    #[test]
    fn other_lines_that_cannot_be_used_are_passed_over() {
        let contents =
            format!("host no-key\n|1|x {KEY}\n@revoked other {KEY}\n#@revoked\n\nhost @x\nhost {KEY}");
        let known = read_known_hosts(Path::new("x"), contents.as_bytes()).unwrap();
        assert_eq!(known.skipped().len(), 3);
        assert_eq!(known.key_types("host", 22), ["ssh-ed25519"]);
    }

    #[test]
    fn the_error_names_file_and_line() {
        let error = read_known_hosts(Path::new("/etc/known_hosts"), b"\n@revoke x").unwrap_err();
        let text = "/etc/known_hosts: line 2: unknown or repeated marker; it may be a revocation, so no key is accepted";
        assert_eq!(error.to_string(), text);
    }
}
