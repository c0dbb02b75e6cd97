//! Runs a command on an SSH server, like `ssh user@host command`.
//!
//! Without arguments it brings its own server along: a real one, over TCP, in the same process.

mod embedded;
#[path = "../common/program.rs"]
mod program;
mod remote;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs a command over SSH. Without arguments: against a server of its own, with figures.
#[derive(Parser)]
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
    #[arg(long, value_name = "SHA256:…", conflicts_with_all = ["known_hosts", "accept_new"])]
    fingerprint: Option<String>,
    /// How long connecting, and starting the command, may each take, in seconds.
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// Say what was negotiated.
    #[arg(short)]
    verbose: bool,
    /// user@host
    destination: Option<String>,
    /// The command and its arguments, joined by spaces.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.destination {
        Some(destination) => remote::run(&args, destination),
        None => embedded::run().map(|()| 0).map_err(|error| error.to_string()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            eprintln!("exec: {}", reason.lines().next().unwrap_or_default());
            ExitCode::from(255)
        }
    }
}
