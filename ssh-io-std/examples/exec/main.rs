//! Runs a command on an SSH server, like `ssh user@host command`.
//!
//! Without arguments it brings its own server along: a real one, over TCP, in the same process.

mod embedded;
#[path = "../common/leader.rs"]
mod leader;
#[path = "../common/program.rs"]
mod program;
mod remote;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};

/// The longest time limit: a year.
const MAX_TIMEOUT: u64 = 365 * 24 * 60 * 60;
/// The digits of a fingerprint: 32 bytes in base64, without padding.
const FINGERPRINT_DIGITS: usize = 43;

/// Runs a command over SSH. Without arguments: against a server of its own, with figures.
#[derive(Parser)]
#[command(name = "exec")]
struct Args {
    /// The server's port.
    #[arg(short, default_value_t = 22)]
    port: u16,
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
    /// How long connecting, and starting the command, may each take, in seconds.
    #[arg(long, value_name = "SECS", value_parser = value_parser!(u64).range(1..=MAX_TIMEOUT))]
    timeout: Option<u64>,
    /// Say what was negotiated.
    #[arg(short)]
    verbose: bool,
    /// user@host; the user's name may have an @ of its own.
    #[arg(value_name = "USER@HOST", value_parser = destination)]
    destination: Option<Destination>,
    /// The command and its arguments, joined by spaces.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Whom to be, and where.
#[derive(Clone)]
struct Destination {
    user: String,
    host: String,
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

fn main() -> ExitCode {
    let args = Args::parse();
    let missing = |what| -> ! { Args::command().error(ErrorKind::MissingRequiredArgument, what).exit() };
    let result = match &args.destination {
        Some(_) if args.command.is_empty() => missing("a command is needed"),
        Some(destination) => remote::run(&args, destination),
        None if std::env::args_os().len() > 1 => missing("user@host is needed"),
        None => embedded::run().map(|()| 0).map_err(|error| error.to_string()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            say(&reason);
            ExitCode::from(255)
        }
    }
}

/// One line on stderr, for whoever still reads that.
fn say(reason: &str) {
    let _ = writeln!(io::stderr(), "exec: {}", reason.lines().next().unwrap_or_default());
}
