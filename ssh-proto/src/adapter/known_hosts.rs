//! Reading a `known_hosts` file so that no revocation in it is missed, and recording a host that is new.

use alloc::format;
use alloc::vec::Vec;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Error, judge_host_key, line_to_append};
use crate::entropy::Entropy;
use crate::key::PublicKey;
use crate::keys::{HostKeyPolicy, KnownHosts};

/// Whoever accepts new hosts takes turns: of several keys of one host only the first is accepted.
static TURN: Mutex<()> = Mutex::new(());

/// Judges a server's host key by a `known_hosts` file, and has the first key of an unknown host recorded; `file` is
/// its name, for the error. `read` gives the contents of the file, `append` writes behind them, in one piece. Calls
/// of a process take turns. When another process recorded another key of the host meanwhile, its key counts. The
/// name is hashed when there is entropy for it.
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
) -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let old = read()?;
    let policy = |contents: &[u8]| read_known_hosts(file, contents).map(HostKeyPolicy::AcceptNew);
    judge_host_key(&policy(&old)?, host, port, key, || {
        let line = line_to_append(&old, host, port, key, hash.as_mut())?;
        append(line.as_bytes())?;
        let (new, ours) = (read()?, line.trim().as_bytes());
        let at = new.windows(ours.len()).position(|part| part == ours);
        let before = at.and_then(|at| new.get(..at)).unwrap_or(&new);
        // Nothing more is recorded: it is.
        judge_host_key(&policy(before)?, host, port, key, || Ok(()))
    })
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

    use core::cell::RefCell;

    use super::*;
    use crate::keys::{HostKeyRejection, MAX_LINE, SkipReason};

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
            let result = accept_new_host(Path::new("x"), who, None::<Unused>, read, append);
            match accepted {
                true => result.unwrap(),
                false => assert!(matches!(result, Err(Error::HostKey(HostKeyRejection::Changed { .. })))),
            }
        }
    }

    #[test]
    fn the_error_names_file_and_line() {
        let error = read_known_hosts(Path::new("/etc/known_hosts"), b"\n@revoke x").unwrap_err();
        let text = "/etc/known_hosts: line 2: unknown or repeated marker; it may be a revocation, so no key is accepted";
        assert_eq!(error.to_string(), text);
    }
}
