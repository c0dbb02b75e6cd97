//! Measures the workspace beside a floor, [russh](https://crates.io/crates/russh) and OpenSSH, and prints one table.
//!
//! Only ratios of one run hold: each number is taken several times, and those that are compared in turn (A B A B), each
//! in a process of its own, so that none finds the heap of another. A ratio is the median of the ratios of one round.
//!
//! # What is compared with what
//!
//! - **The floor** (`floor`) moves channel data as any implementation must: it frames packets of 32 KiB with one copy,
//!   seals them in place, moves the bytes to another buffer, parses the length, opens in place, and slices the payload.
//!   It has no windows, no key exchange, no channels and no errors to report. Eight packets go over at once.
//! - **Ours in memory** (`pair`) are a client's and a server's `Connection` in one thread. Bytes are moved from one's
//!   output to the other's input buffer as an adapter does it, up to 256 KiB at once, and the clock is read each time.
//! - **Ours over tokio in memory** (`over_tokio`) and **russh in memory** (`over_russh`) are both ends on one
//!   current-thread runtime, over a `tokio::io::duplex`. What has no target is there to show what an adapter costs.
//! - **Over TCP** (`two`) each end is a process; what counts is the CPU time of both, user and system, that the
//!   operating system states when they ended. Clients and servers over tokio and russh have one thread. `plain` is the
//!   same bytes without SSH.
//! - **OpenSSH** (`openssh`) is `ssh` and `sshd -i` on an accepted connection. Behind `sshd` the data ends in this program,
//!   whose own CPU time is taken off; what is left of the user's shell, which only becomes it, is not. `ssh` reads
//!   `/dev/zero` and writes `/dev/null`.
//!
//! What is measured in memory is counted by CPU time as well: that is what the clock says when nobody else works. Only
//! OpenSSH's handshakes are by the clock.
//!
//! All have the same cipher, 2 MiB of window, data packets of 32 KiB, no rekey, and `TCP_NODELAY`, as far as they let
//! it be set. russh gets the cheapest of its ways: owned bytes to send, and its handler's callback to receive bulk
//! data; beside it stands what it costs a program that waits at the channel, as it does here for an echo. Ours copy what
//! is sent, and give what is received in pieces that are not copied (`read_chunk`), but for an echo. Keys are Ed25519.
//!
//! A **handshake** is everything from the first byte to the end of both sides: key exchange, login by key, close. russh
//! asks first whether a key would do; ours signs at once. At OpenSSH it is a whole `ssh HOST true`. An **exec** is
//! a channel opened, a command accepted, sixteen bytes of output, the exit status, and the channel closed by both.
//! An **echo** is 64 bytes there and back; with 1000 channels open it goes to one after the other. **Flights**
//! (`flights`) are counted at a relay between two processes that holds everything for a quarter of a second, up to the
//! one that brings the first output of a command.

mod commands;
mod flights;
mod floor;
mod machine;
mod openssh;
mod over_russh;
mod over_std;
mod over_tokio;
mod pair;
mod plan;
mod table;
mod two;
mod work;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::over_russh::By;
use crate::work::{Adapter, Cipher, Direction, Ends, Kex, Library};

/// What went wrong; nobody reads it but a person.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures the workspace beside a floor, russh and OpenSSH.
#[derive(Parser)]
#[command(name = "ssh-bench")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures everything in turn, and prints the table as Markdown.
    Table {
        /// How often each number is taken.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Does little work, once: to see that everything works.
        #[arg(long)]
        quick: bool,
        /// Only groups whose title contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// The floor, in GB/s.
    Floor {
        library: Library,
        cipher: Cipher,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Channel data in memory, in GB/s.
    Bulk {
        ends: Ends,
        cipher: Cipher,
        direction: Direction,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Handshakes, per second.
    Handshake {
        ends: Ends,
        kex: Kex,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// A command in memory, in microseconds.
    Exec {
        ends: Ends,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// An echo in memory, in microseconds.
    Echo {
        ends: Ends,
        channels: usize,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Channel data between two processes, in CPU seconds per GB.
    Tcp {
        adapter: Adapter,
        cipher: Cipher,
        direction: Direction,
        #[arg(long, default_value_t = 1000)]
        megabytes: u64,
    },
    /// Flights from the first byte to the first output of a command.
    Flights { adapter: Adapter },
    /// One client's server, for `tcp`: says its port, and ends with the client.
    #[command(hide = true)]
    Serve { adapter: Adapter, cipher: Cipher },
    /// The client of `serve`.
    #[command(hide = true)]
    Connect { adapter: Adapter, cipher: Cipher, direction: Direction, port: u16, bytes: u64 },
    /// Writes so many bytes, or reads them, and leaves its CPU time in a file.
    #[command(hide = true)]
    Pipe { direction: Direction, bytes: u64, account: std::path::PathBuf },
}

fn run(args: Args) -> Result<(), Failure> {
    let number = match args.what {
        What::Table { runs, quick, only } => {
            print!("{}", table::measure(runs, quick, &only)?);
            return Ok(());
        }
        What::Serve { adapter, cipher } => return two::serve(adapter, cipher),
        What::Connect { adapter, cipher, direction, port, bytes } => {
            return two::connect(adapter, cipher, direction, port, bytes);
        }
        What::Pipe { direction, bytes, account } => return openssh::pipe(direction, bytes, &account),
        What::Floor { library, cipher, seconds } => floor::measure(library, cipher, seconds)?,
        What::Bulk { ends, cipher, direction, seconds } => match ends {
            Ends::AwsLc => pair::bulk(Library::AwsLc, cipher, direction, seconds)?,
            Ends::Rustcrypto => pair::bulk(Library::Rustcrypto, cipher, direction, seconds)?,
            Ends::Tokio => over_tokio::bulk(cipher, direction, seconds)?,
            Ends::Russh => over_russh::bulk(By::Handler, cipher, direction, seconds)?,
            Ends::RusshChannel => over_russh::bulk(By::Channel, cipher, direction, seconds)?,
            Ends::Openssh => return Err("OpenSSH works between processes only".into()),
        },
        What::Handshake { ends, kex, seconds } => match ends {
            Ends::AwsLc => pair::handshakes(Library::AwsLc, kex, seconds)?,
            Ends::Rustcrypto => pair::handshakes(Library::Rustcrypto, kex, seconds)?,
            Ends::Tokio => over_tokio::handshakes(kex, seconds)?,
            Ends::Russh | Ends::RusshChannel => over_russh::handshakes(kex, seconds)?,
            Ends::Openssh => openssh::handshakes(kex, seconds)?,
        },
        What::Exec { ends, seconds } => match ends {
            Ends::AwsLc => pair::execs(Library::AwsLc, seconds)?,
            Ends::Rustcrypto => pair::execs(Library::Rustcrypto, seconds)?,
            Ends::Tokio => over_tokio::execs(seconds)?,
            Ends::Russh | Ends::RusshChannel => over_russh::execs(seconds)?,
            Ends::Openssh => return Err("OpenSSH works between processes only".into()),
        },
        What::Echo { ends, channels, seconds } => match ends {
            Ends::AwsLc => pair::echoes(Library::AwsLc, channels, seconds)?,
            Ends::Rustcrypto => pair::echoes(Library::Rustcrypto, channels, seconds)?,
            Ends::Tokio => over_tokio::echoes(channels, seconds)?,
            Ends::Russh | Ends::RusshChannel => over_russh::echoes(channels, seconds)?,
            Ends::Openssh => return Err("OpenSSH works between processes only".into()),
        },
        What::Flights { adapter } => flights::count(adapter)?,
        What::Tcp { adapter: Adapter::Openssh, cipher, direction, megabytes } => {
            openssh::cpu(cipher, direction, megabytes * 1_000_000)?
        }
        What::Tcp { adapter, cipher, direction, megabytes } => {
            two::cpu(adapter, cipher, direction, megabytes * 1_000_000)?
        }
    };
    println!("{number}");
    Ok(())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssh-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
