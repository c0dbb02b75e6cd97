//! Which host keys a client accepts.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use ssh_proto::PublicKey;
use ssh_proto::adapter::{Error, about_file, accept_new_host, judge_host_key, read_known_hosts};
use ssh_proto::keys::HostKeyPolicy;
use tokio::runtime::Handle;

use crate::blocking::blocking;
use crate::os::OsEntropy;

/// Whoever accepts new hosts takes turns: of several keys of one host only the first is accepted.
static TURN: Mutex<()> = Mutex::new(());

/// What an embedder's own judgement gets to see.
#[derive(Debug, Clone)]
pub struct HostKeyQuestion {
    /// The host name connected to.
    pub host: String,
    /// The port connected to.
    pub port: u16,
    /// The key the server proved to have.
    pub key: PublicKey,
}

type Verdict = Pin<Box<dyn Future<Output = bool> + Send>>;
type Judge = Box<dyn FnOnce(HostKeyQuestion) -> Verdict + Send>;

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
    /// The keys a future says yes to. It may ask a person and take its time; it is dropped when who connects gives up.
    Ask(Judge),
    /// Any key: whoever stands in between can read and change everything.
    DangerousAcceptAny,
}

impl HostKeys {
    /// The keys that what `judge` gives says yes to.
    pub fn ask<F: Future<Output = bool> + Send + 'static>(
        judge: impl FnOnce(HostKeyQuestion) -> F + Send + 'static,
    ) -> Self {
        Self::Ask(Box::new(|question| Box::pin(judge(question))))
    }

    /// The types of the keys a host is known by, to be asked for first.
    ///
    /// The future does not borrow: a judge need not be `Sync`, and who waits for this is to be `Send`.
    pub(crate) fn key_types(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send + use<> {
        let file = match self {
            Self::KnownHosts(file) | Self::AcceptNew { file, .. } => Some(file.clone()),
            Self::Fingerprint(_) | Self::Ask(_) | Self::DangerousAcceptAny => None,
        };
        let host = host.to_owned();
        async move {
            let Some(file) = file else { return Ok(Vec::new()) };
            blocking(None, move || Ok(read_known_hosts(&file, &read(&file)?)?.key_types(&host, port))).await?
        }
    }

    /// Judges a key, and records it where that is the policy. Files are read and written where that holds nobody up,
    /// best on this runtime.
    pub(crate) async fn judge(self, question: HostKeyQuestion, runtime: Option<Handle>) -> Result<(), Error> {
        // Files are read again: another connection may have recorded the host meanwhile.
        match self {
            Self::Ask(judge) => match judge(question).await {
                true => Ok(()),
                false => Err(Error::HostKeyRefused),
            },
            Self::Fingerprint(expected) => decide(&HostKeyPolicy::Fingerprint(expected), &question),
            Self::DangerousAcceptAny => Ok(()),
            Self::KnownHosts(file) => {
                blocking(runtime, move || {
                    let policy = HostKeyPolicy::KnownHosts(read_known_hosts(&file, &read(&file)?)?);
                    decide(&policy, &question)
                })
                .await?
            }
            Self::AcceptNew { file, hash } => {
                blocking(runtime, move || {
                    let HostKeyQuestion { host, port, key } = &question;
                    let who = (&host[..], *port, key);
                    let hash = hash.then_some(OsEntropy);
                    let (read, append) = (|| read(&file), |line: &[u8]| append(&file, line));
                    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
                    accept_new_host(&file, who, hash, read, append, |line| take_back(&file, line))
                })
                .await?
            }
        }
    }
}

/// Judges by a policy that records nothing.
fn decide(
    policy: &HostKeyPolicy,
    HostKeyQuestion { host, port, key }: &HostKeyQuestion,
) -> Result<(), Error> {
    judge_host_key(policy, host, *port, key, || Err(Error::HostKeyRefused))
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
