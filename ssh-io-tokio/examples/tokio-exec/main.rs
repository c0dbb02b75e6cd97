//! Runs a command on an SSH server, like `ssh user@host command`, over tokio.
//!
//! Without arguments it brings its own server along: a real one, over TCP, in the same process.

#[path = "../../../ssh-io-std/examples/exec/args.rs"]
mod args;
mod embedded;
#[path = "../../../ssh-io-std/examples/common/exit.rs"]
mod exit;
#[path = "../../../ssh-io-std/examples/exec/figures.rs"]
mod figures;
#[path = "../../../ssh-io-std/examples/common/leader.rs"]
mod leader;
#[path = "../common/program.rs"]
mod program;
mod remote;

use std::process::ExitCode;

use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            exit::say(&error.to_string());
            return ExitCode::from(255);
        }
    };
    let code = args::main(
        |args, destination| runtime.block_on(remote::run(args, destination)),
        || runtime.block_on(embedded::run()),
    );
    // Somebody may be blocked on a terminal.
    runtime.shutdown_background();
    code
}
