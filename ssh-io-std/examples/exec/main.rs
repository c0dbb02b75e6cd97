//! Runs a command on an SSH server, like `ssh user@host command`.
//!
//! Without arguments it brings its own server along: a real one, over TCP, in the same process.

mod args;
mod embedded;
#[path = "../common/exit.rs"]
mod exit;
mod figures;
#[path = "../common/leader.rs"]
mod leader;
#[path = "../common/program.rs"]
mod program;
mod remote;

use std::process::ExitCode;

fn main() -> ExitCode {
    args::main(remote::run, embedded::run)
}
