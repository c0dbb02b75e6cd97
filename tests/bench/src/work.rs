//! What is worked with: ciphers, key exchanges, sides, and the sizes that all have in common.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ssh_proto::crypto::{Provider, aws_lc, rustcrypto};

use crate::Failure;

/// The data of one packet, as much as each of the sides puts into one.
pub(crate) const PACKET: usize = 32 * 1024;
/// What an application writes at once, and reads at once where it brings the buffer.
pub(crate) const CHUNK: usize = 128 * 1024;
/// What is under way between two sides in memory: as much as either side writes at once.
pub(crate) const WIRE: usize = 256 * 1024;
/// The receive window of a channel.
pub(crate) const WINDOW: u32 = 2 << 20;
/// What an echo carries.
pub(crate) const ECHO: [u8; 64] = [7; 64];
/// What a command says.
pub(crate) const OUTPUT: [u8; 16] = [7; 16];
/// Who logs in where the name does not matter.
pub(crate) const USER: &str = "bench";

/// Where the floor and ours have their cryptography from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Library {
    /// AWS-LC.
    AwsLc,
    /// RustCrypto.
    Rustcrypto,
}

impl Library {
    pub(crate) fn provider(self) -> &'static Provider {
        match self {
            Self::AwsLc => &aws_lc::PROVIDER,
            Self::Rustcrypto => &rustcrypto::PROVIDER,
        }
    }
}

/// Who both ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ends {
    /// Ours, with AWS-LC.
    AwsLc,
    /// Ours, with RustCrypto.
    Rustcrypto,
    /// Ours over tokio, with AWS-LC.
    Tokio,
    /// russh, with AWS-LC; what comes goes to its handler.
    Russh,
    /// russh, with AWS-LC; what comes is waited for at the channel.
    RusshChannel,
    /// OpenSSH.
    Openssh,
}

/// What drives two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adapter {
    /// None: what TCP alone costs.
    Plain,
    /// ssh-io-std, with AWS-LC.
    Std,
    /// ssh-io-tokio, with AWS-LC.
    Tokio,
    /// russh, with AWS-LC.
    Russh,
    /// OpenSSH.
    Openssh,
}

impl Adapter {
    /// Its name as an argument of this program.
    pub(crate) fn argument(self) -> String {
        argument(self)
    }
}

/// The ciphers that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cipher {
    /// aes128-gcm@openssh.com
    Aes128Gcm,
    /// chacha20-poly1305@openssh.com
    Chacha20Poly1305,
}

impl Cipher {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Chacha20Poly1305 => "chacha20-poly1305@openssh.com",
        }
    }

    /// Its name as an argument of this program.
    pub(crate) fn argument(self) -> String {
        argument(self)
    }
}

/// The key exchanges that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kex {
    /// curve25519-sha256
    Curve25519,
    /// mlkem768x25519-sha256
    Mlkem768x25519,
}

impl Kex {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Curve25519 => "curve25519-sha256",
            Self::Mlkem768x25519 => "mlkem768x25519-sha256",
        }
    }
}

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the server to the client.
    Down,
    /// From the client to the server.
    Up,
}

impl Direction {
    /// Its name as an argument of this program.
    pub(crate) fn argument(self) -> String {
        argument(self)
    }
}

fn argument(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// How long something is repeated before it counts, of the time it is repeated while it counts.
const WARM_UP: f64 = 0.25;

/// Repeats work for so long, and gives the mean CPU time of one: on a machine that does other work as well, it says
/// what the clock says on one that does not.
pub(crate) fn repeat(seconds: f64, mut once: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut mean = 0.0;
    for seconds in [seconds * WARM_UP, seconds] {
        let (begin, before, mut count) = (Instant::now(), cpu_time(UsageWho::RUSAGE_SELF)?, 0_u32);
        while count == 0 || begin.elapsed().as_secs_f64() < seconds {
            once()?;
            count += 1;
        }
        mean = (cpu_time(UsageWho::RUSAGE_SELF)? - before) / f64::from(count);
    }
    Ok(mean)
}

/// As [`repeat`], of work that awaits.
pub(crate) async fn repeat_async(
    seconds: f64,
    mut once: impl AsyncFnMut() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let mut mean = 0.0;
    for seconds in [seconds * WARM_UP, seconds] {
        let (begin, before, mut count) = (Instant::now(), cpu_time(UsageWho::RUSAGE_SELF)?, 0_u32);
        while count == 0 || begin.elapsed().as_secs_f64() < seconds {
            once().await?;
            count += 1;
        }
        mean = (cpu_time(UsageWho::RUSAGE_SELF)? - before) / f64::from(count);
    }
    Ok(mean)
}

/// The rate, in GB per second of CPU time, at which `meter` grows while it is left alone.
pub(crate) async fn rate(meter: impl Fn() -> u64, seconds: f64) -> Result<f64, Failure> {
    tokio::time::sleep(Duration::from_secs_f64(seconds * WARM_UP)).await;
    let (time, bytes) = (cpu_time(UsageWho::RUSAGE_SELF)?, meter());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    Ok(gigabytes(meter() - bytes) / (cpu_time(UsageWho::RUSAGE_SELF)? - time))
}

/// Bytes as 10^9 bytes.
pub(crate) fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// The CPU time, user and system, in seconds, of this process or of those it started and waited for.
pub(crate) fn cpu_time(of: UsageWho) -> Result<f64, Failure> {
    let time = |usage: &Usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(time(&getrusage(of)?) as f64 / 1e6)
}
