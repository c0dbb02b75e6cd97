//! Reading a `known_hosts` file so that no revocation in it is missed, and recording a host that is new.

use alloc::format;
use alloc::vec::Vec;
use std::io;
use std::path::Path;

use super::{Error, judge_host_key, line_to_append};
use crate::entropy::Entropy;
use crate::key::PublicKey;
use crate::keys::{HostKeyPolicy, KnownHosts};

/// Judges a server's host key by a `known_hosts` file, and has the first key of an unknown host recorded; `file` is
/// its name, for the error. `read` gives the contents of the file, `append` writes behind them, in one piece, and
/// `take_back` removes what was appended if nothing follows it. The name is hashed when there is entropy for it.
///
/// Calls for one file take turns, for which the adapter sees: of several keys of a new host only the first is
/// accepted. When another process recorded another key meanwhile, that one counts, and ours is taken back.
///
/// # Errors
/// [`Error::HostKey`] for a key that is not accepted, [`Error::KnownHosts`], [`Error::Io`] without entropy, and what
/// `read` and `append` give.
pub fn accept_new_host(
    file: &Path,
    (host, port, key): (&str, u16, &PublicKey),
    mut hash: Option<impl Entropy>,
    read: impl Fn() -> Result<Vec<u8>, Error>,
    append: impl FnOnce(&[u8]) -> Result<(), Error>,
    take_back: impl FnOnce(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let old = read()?;
    let policy = |contents: &[u8]| read_known_hosts(file, contents).map(HostKeyPolicy::AcceptNew);
    judge_host_key(&policy(&old)?, host, port, key, || {
        let line = line_to_append(&old, host, port, key, hash.as_mut())?;
        append(line.as_bytes())?;
        let new = read()?;
        let before = new.get(..line_at(&new, &old, line.trim().as_bytes())).unwrap_or(&new);
        // Nothing more is recorded: it is.
        let verdict = policy(before).and_then(|policy| judge_host_key(&policy, host, port, key, || Ok(())));
        if verdict.is_err() {
            // It would be trusted the next time.
            take_back(line.as_bytes())?;
        }
        verdict
    })
}

/// Where a line begins among what came behind `old`; the end when it is not there.
fn line_at(new: &[u8], old: &[u8], line: &[u8]) -> usize {
    let mut at = if new.starts_with(old) { old.len() } else { 0 };
    for part in new.get(at..).unwrap_or_default().split(|byte| *byte == b'\n') {
        if part == line {
            return at;
        }
        at = at.saturating_add(part.len()).saturating_add(1);
    }
    new.len()
}

/// An error to do with a file, with the name of the file.
pub fn about_file(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

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
        let text = lines.find(|(index, _)| index.checked_add(1) == Some(skipped.line)).map(|(_, text)| text);
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

    use core::cell::RefCell;

    use super::*;
    use crate::keys::{HostKeyRejection, HostStatus, MAX_LINE, SkipReason};

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

    /// Entropy that nobody asks.
    struct Unused;

    impl Entropy for Unused {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), crate::entropy::EntropyError> {
            Err(crate::entropy::EntropyError)
        }
    }

    #[test]
    fn of_two_processes_that_record_a_host_the_first_counts() {
        let other = KEY.replace("IJRLf9", "IJRLf8");
        let key = |line: &str| crate::keys::parse_public_key_line(line.trim().as_bytes()).unwrap().0;
        assert_ne!(key(KEY), key(&other));
        for (theirs, before, accepted) in
            [(&other[..], true, false), (&other, false, true), (KEY, true, true), ("", true, true)]
        {
            let contents = RefCell::new(b"# no line end".to_vec());
            let append = |ours: &[u8]| {
                let theirs = format!("\nhost {theirs}\n");
                let theirs = theirs.as_bytes();
                contents.borrow_mut().extend(if before { [theirs, ours] } else { [ours, theirs] }.concat());
                Ok(())
            };
            let who = ("host", 22, &key(KEY));
            let read = || Ok(contents.borrow().clone());
            let take_back = |ours: &[u8]| {
                let end = contents.borrow().strip_suffix(ours).unwrap().len();
                contents.borrow_mut().truncate(end);
                Ok(())
            };
            let result = accept_new_host(Path::new("x"), who, None::<Unused>, read, append, take_back);
            match accepted {
                true => result.unwrap(),
                false => assert!(matches!(result, Err(Error::HostKey(HostKeyRejection::Changed { .. })))),
            }
            let again = read_known_hosts(Path::new("x"), &contents.borrow()).unwrap();
            assert_eq!(again.check("host", 22, &key(KEY)) == HostStatus::Known, accepted, "{theirs}");
        }
    }

    #[test]
    fn a_line_is_found_whole_and_behind_what_was_there() {
        let old = b"x host key\n@revoked myhost key\nhost key";
        for (new, at) in [
            (&b"\nhost key\n"[..], Some(1)),
            (b"\n@revoked myhost key\nhost key\n", Some(21)),
            (b"\nhost key 2\n", None),
            (b"", None),
        ] {
            let new = [&old[..], new].concat();
            assert_eq!(line_at(&new, old, b"host key"), at.map_or(new.len(), |at| old.len() + at));
        }
    }

    #[test]
    fn the_error_names_file_and_line() {
        let error = read_known_hosts(Path::new("/etc/known_hosts"), b"\n@revoke x").unwrap_err();
        let text = "/etc/known_hosts: line 2: unknown or repeated marker; it may be a revocation, so no key is accepted";
        assert_eq!(error.to_string(), text);
    }
}
