//! The command line of `exec` and of its sibling over tokio, and what it means but for connecting.

use std::error::Error;
use std::fmt::Display;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind as UsageError;
use clap::{CommandFactory, Parser, value_parser};
use ssh_proto::adapter::read_known_hosts;
use ssh_proto::keys::load_private_key;
use ssh_proto::{Credential, Secret};

use crate::exit::say;

/// The longest time limit: a year.
const MAX_TIMEOUT: u64 = 365 * 24 * 60 * 60;
/// The digits of a fingerprint: 32 bytes in base64, without padding.
const FINGERPRINT_DIGITS: usize = 43;

/// Runs a command over SSH. Without arguments: against a server of its own, with figures.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"))]
pub(crate) struct Args {
    /// The server's port.
    #[arg(short, default_value_t = 22)]
    pub(crate) port: u16,
    /// A private key file to log in with.
    #[arg(short)]
    identity: Option<PathBuf>,
    /// The environment variable that holds the password (or the key's passphrase).
    #[arg(long, value_name = "VAR")]
    password_env: Option<String>,
    /// The file of known hosts; ~/.ssh/known_hosts by default.
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Accept and record the key of a host that is not known yet.
    #[arg(long)]
    accept_new: bool,
    /// Accept exactly the host key with this fingerprint.
    #[arg(long, value_name = "SHA256:…", value_parser = fingerprint, conflicts_with_all = ["known_hosts", "accept_new"])]
    fingerprint: Option<String>,
    /// How long each wait up to the start of the command may last, in seconds: for the connection and its host key, the
    /// login, the session, the command's start. Looking up the host's name may take longer.
    #[arg(long, value_name = "SECS", value_parser = value_parser!(u64).range(1..=MAX_TIMEOUT))]
    timeout: Option<u64>,
    /// Say what was negotiated.
    #[arg(short)]
    pub(crate) verbose: bool,
    /// user@host; the user's name may have an @ of its own.
    #[arg(value_name = "USER@HOST", value_parser = destination)]
    destination: Option<Destination>,
    /// The command and its arguments, joined by spaces.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Whom to be, and where.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) user: String,
    pub(crate) host: String,
}

fn destination(text: &str) -> Result<Destination, String> {
    match text.rsplit_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() => {
            Ok(Destination { user: user.to_owned(), host: host.to_owned() })
        }
        _ => Err("it is user@host".to_owned()),
    }
}

/// A typing error must not look like another host's key.
fn fingerprint(text: &str) -> Result<String, String> {
    let is_digit = |digit: char| digit.is_ascii_alphanumeric() || digit == '+' || digit == '/';
    match text.strip_prefix("SHA256:") {
        Some(digits) if digits.len() == FINGERPRINT_DIGITS && digits.chars().all(is_digit) => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "it is SHA256: and {FINGERPRINT_DIGITS} digits of base64, as ssh-keygen -l prints it"
        )),
    }
}

/// Which host keys are accepted.
pub(crate) enum Trust {
    Fingerprint(String),
    KnownHosts(PathBuf),
    AcceptNew(PathBuf),
}

impl Args {
    /// What is run.
    pub(crate) fn command_line(&self) -> String {
        self.command.join(" ")
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    pub(crate) fn trust(&self) -> Result<Trust, String> {
        if let Some(fingerprint) = &self.fingerprint {
            return Ok(Trust::Fingerprint(fingerprint.clone()));
        }
        let file = match &self.known_hosts {
            Some(file) => file.clone(),
            None => {
                let home = std::env::var_os("HOME").ok_or("HOME is not set")?;
                let directory = PathBuf::from(home).join(".ssh");
                if self.accept_new {
                    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
                    made.map_err(|error| about(&directory, error))?;
                }
                directory.join("known_hosts")
            }
        };
        // Tried here, where an error still has a file.
        let exists = match fs::read(&file) {
            Ok(contents) => {
                for skipped in read_known_hosts(&file, &contents).map_err(text)?.skipped() {
                    let why = format_args!("line {} is not used: {}", skipped.line, skipped.reason);
                    say(&about(&file, why));
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(about(&file, error)),
        };
        if !self.accept_new {
            return Ok(Trust::KnownHosts(file));
        }
        match OpenOptions::new().append(true).create(true).open(&file) {
            Ok(_) => Ok(Trust::AcceptNew(file)),
            // The hosts that are known need no recording.
            Err(error) if exists => {
                say(&about(&file, format_args!("no key can be recorded: {error}")));
                Ok(Trust::KnownHosts(file))
            }
            Err(error) => Err(about(&file, error)),
        }
    }

    /// What to log in with.
    pub(crate) fn credential(&self) -> Result<Credential, String> {
        let password = match &self.password_env {
            Some(variable) => Some(std::env::var(variable).map_err(|_| format!("{variable} is not set"))?),
            None => None,
        };
        match (&self.identity, password.map(Secret::<str>::from)) {
            (Some(file), passphrase) => {
                let contents = fs::read(file).map_err(|error| about(file, error))?;
                let key =
                    load_private_key(&contents, passphrase.as_ref()).map_err(|error| about(file, error))?;
                let key = key.into_key_pair().map_err(|error| about(file, error))?;
                Ok(Credential::PublicKey { key, probe: false })
            }
            (None, Some(password)) => Ok(Credential::Password(password)),
            (None, None) => Err("no way to log in: -i or --password-env is needed".into()),
        }
    }
}

/// Does what the command line says: against a server, or without arguments against one of its own.
pub(crate) fn main(
    remote: impl FnOnce(&Args, &Destination) -> Result<u8, String>,
    embedded: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let args = Args::parse();
    let missing = |what| -> ! { Args::command().error(UsageError::MissingRequiredArgument, what).exit() };
    let result = match &args.destination {
        Some(_) if args.command.is_empty() => missing("a command is needed"),
        Some(destination) => remote(&args, destination),
        None if std::env::args_os().len() > 1 => missing("user@host is needed"),
        None => embedded().map(|()| 0).map_err(|error| error.to_string()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            say(&reason);
            ExitCode::from(255)
        }
    }
}

pub(crate) fn text(error: impl Display) -> String {
    error.to_string()
}

fn about(file: &Path, error: impl Display) -> String {
    format!("{}: {error}", file.display())
}
