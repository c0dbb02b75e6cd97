//! Which host keys a client accepts.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ssh_proto::PublicKey;
use ssh_proto::adapter::{about_file, accept_new_host, judge_host_key, read_known_hosts};
use ssh_proto::keys::{HostKeyPolicy, KnownHosts};

use crate::error::Error;
use crate::os::OsEntropy;

/// Whoever accepts new hosts takes turns: of several keys of one host only the first is accepted.
static TURN: Mutex<()> = Mutex::new(());

/// What an embedder's own judgement gets to see.
#[derive(Debug, Clone, Copy)]
pub struct HostKeyQuestion<'a> {
    /// The host name connected to.
    pub host: &'a str,
    /// The port connected to.
    pub port: u16,
    /// The key the server proved to have.
    pub key: &'a PublicKey,
}

type Judge = Box<dyn FnOnce(HostKeyQuestion<'_>) -> bool + Send>;

/// Which host keys are accepted.
#[non_exhaustive]
pub enum HostKeys {
    /// Only keys recorded in this `known_hosts` file. A file that is not there records nothing; one with a line that
    /// begins with a marker and cannot be used is [refused](Error::KnownHosts).
    KnownHosts(PathBuf),
    /// Keys recorded in this file; the first key of an unknown host is accepted and appended, its name hashed
    /// when `hash` is set.
    AcceptNew {
        /// The file.
        file: PathBuf,
        /// Whether to hide the host's name in it.
        hash: bool,
    },
    /// The one key with this fingerprint, `SHA256:…`.
    Fingerprint(String),
    /// The keys this closure says yes to. It may ask a person and take its time.
    Ask(Judge),
    /// Any key: whoever stands in between can read and change everything.
    DangerousAcceptAny,
}

impl HostKeys {
    /// The keys a closure says yes to.
    pub fn ask(judge: impl FnOnce(HostKeyQuestion<'_>) -> bool + Send + 'static) -> Self {
        Self::Ask(Box::new(judge))
    }

    /// The policy as data, its file read. `None` for a closure.
    fn policy(&self) -> Result<Option<HostKeyPolicy>, Error> {
        Ok(Some(match self {
            Self::KnownHosts(file) => HostKeyPolicy::KnownHosts(known_hosts(file)?),
            Self::AcceptNew { file, .. } => HostKeyPolicy::AcceptNew(known_hosts(file)?),
            Self::Fingerprint(fingerprint) => HostKeyPolicy::Fingerprint(fingerprint.clone()),
            Self::DangerousAcceptAny => HostKeyPolicy::DangerousAcceptAny,
            Self::Ask(_) => return Ok(None),
        }))
    }

    /// The types of the keys a host is known by, to be asked for first.
    pub(crate) fn key_types(&self, host: &str, port: u16) -> Result<Vec<String>, Error> {
        Ok(self.policy()?.map(|policy| policy.key_types(host, port)).unwrap_or_default())
    }

    /// Judges a key, and records it where that is the policy.
    pub(crate) fn judge(self, question: HostKeyQuestion<'_>) -> Result<(), Error> {
        let HostKeyQuestion { host, port, key } = question;
        if let Self::Ask(judge) = self {
            return if judge(question) { Ok(()) } else { Err(Error::HostKeyRefused) };
        }
        // Read again: another connection may have recorded the host meanwhile.
        if let Self::AcceptNew { file, hash } = &self {
            let hash = hash.then_some(OsEntropy);
            let (read, append) = (|| read(file), |line: &[u8]| append(file, line));
            let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            return accept_new_host(file, (host, port, key), hash, read, append, |line| {
                take_back(file, line)
            });
        }
        match self.policy()? {
            Some(policy) => judge_host_key(&policy, host, port, key, || Err(Error::HostKeyRefused)),
            None => Err(Error::HostKeyRefused),
        }
    }
}

fn known_hosts(file: &Path) -> Result<KnownHosts, Error> {
    read_known_hosts(file, &read(file)?)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(read.map_err(|error| about_file(file, &error))?),
    }
}

fn append(file: &Path, line: &[u8]) -> Result<(), Error> {
    // One write, so that two processes do not mix their lines.
    let written =
        OpenOptions::new().append(true).create(true).open(file).and_then(|mut out| out.write_all(line));
    Ok(written.map_err(|error| about_file(file, &error))?)
}

/// Removes a line that was appended, if it is the last one still.
fn take_back(file: &Path, line: &[u8]) -> Result<(), Error> {
    let left = read(file)?.strip_suffix(line).map(|left| left.len() as u64);
    let Some(left) = left else { return Ok(()) };
    let cut = OpenOptions::new().write(true).open(file).and_then(|out| out.set_len(left));
    Ok(cut.map_err(|error| about_file(file, &error))?)
}

impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KnownHosts(file) => f.debug_tuple("KnownHosts").field(file).finish(),
            Self::AcceptNew { file, .. } => f.debug_tuple("AcceptNew").field(file).finish(),
            Self::Fingerprint(fingerprint) => f.debug_tuple("Fingerprint").field(fingerprint).finish(),
            Self::Ask(_) => f.write_str("Ask(..)"),
            Self::DangerousAcceptAny => f.write_str("DangerousAcceptAny"),
        }
    }
}
