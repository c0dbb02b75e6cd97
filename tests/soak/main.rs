//! A long transfer with many key exchanges beside clients that mean ill, over both adapters' servers: does the
//! server serve on, and does it hold no more at the end than at the beginning? Run it optimised:
//! `cargo run --release -p ssh-tests --example soak`.
//!
//! The server is a process of its own, so that what it holds can be read from the kernel. Rates are printed and
//! not judged: the attackers are on the same machine.

mod attack;
mod held;
mod server;

use std::env;
use std::error::Error;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ssh_io_std::ssh_proto::crypto::PROVIDER;
use ssh_io_std::ssh_proto::{ClientConfig, CloseReason, ExitStatus};
use ssh_io_std::{Client, HostKeys};

use attack::Attack;
use held::{Held, slope};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ADAPTERS: [&str; 2] = ["std", "tokio"];
const USER: &str = "soak";
const PASSWORD: &str = "a password of this test alone";
/// What the server answers to with the SHA-256 of its input.
const HASH: &str = "sha256";

/// Per adapter; both together are what the run has to reach.
const BYTES: u64 = 1100 << 20;
const HOSTILE: u64 = 100_000;
const REKEYS: u64 = 1_000;
/// The bytes under one key.
const REKEY_BYTES: u64 = 1 << 20;
const UNATTACKED: u64 = 256 << 20;
/// The bytes between two samples, each of which also logs in anew.
const STRETCH: u64 = 16 << 20;
/// What resident memory may grow by, over the second half of the attack: an allocator's play, and less than
/// 0.5 KiB for each of the hostile connections of that half.
const MOST_GROWTH: u64 = 6 << 20;
/// How long to wait for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it all may take.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            std::thread::spawn(|| {
                std::thread::sleep(LIMIT);
                eprintln!("soak: not done after {} s", LIMIT.as_secs());
                // The server ends with our end of its input.
                std::process::exit(1);
            });
            ADAPTERS.iter().try_for_each(|adapter| soak(adapter))
        }
        ["server", "std"] => server::serve_std(),
        ["server", "tokio"] => server::serve_tokio(),
        _ => Err("this takes no arguments".into()),
    }
}

/// The server of an adapter, ended with this.
struct Served {
    process: Child,
    /// Closed, it tells the server to end.
    input: Option<ChildStdin>,
    port: u16,
    fingerprint: String,
}

impl Served {
    fn start(adapter: &str) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["server", adapter])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (port, fingerprint) = line.trim().split_once(' ').ok_or("the server did not start")?;
        let (port, fingerprint) = (port.parse()?, fingerprint.to_owned());
        Ok(Self { process, input, port, fingerprint })
    }

    fn held(&self) -> Outcome<Held> {
        Held::by(self.process.id())
    }

    fn log_in(&self, config: &Arc<ClientConfig>) -> Outcome<Client> {
        let client = Client::with_config(config.clone())
            .host_keys(HostKeys::Fingerprint(self.fingerprint.clone()))
            .connect_timeout(PATIENCE)
            .connect("127.0.0.1", self.port)?;
        client.set_timeout(Some(PATIENCE));
        client.auth_password(USER, PASSWORD)?;
        Ok(client)
    }

    /// The digest of nothing, by a client that comes for this alone. It comes again while the server is full of
    /// others that have not logged in, and hangs up; says how often.
    fn serves_a_newcomer(&self, config: &Arc<ClientConfig>) -> Outcome<u32> {
        let (begin, mut refused) = (Instant::now(), 0);
        let client = loop {
            match self.log_in(config) {
                Ok(client) => break client,
                Err(error) if !hung_up(&*error) || begin.elapsed() > PATIENCE => return Err(error),
                Err(_) => refused += 1,
            }
        };
        let output = client.exec(HASH)?;
        client.close();
        match output.status == Some(ExitStatus::Code(0)) && output.stdout == Sha256::digest(b"")[..] {
            true => Ok(refused),
            false => Err(format!("a newcomer was served {output:?}").into()),
        }
    }

    fn end(mut self) -> Outcome<()> {
        drop(self.input.take());
        match self.process.wait()?.success() {
            true => Ok(()),
            false => Err("the server ended with a failure".into()),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a client was not let in for want of room: the server ended the connection, and said nothing. Closing a
/// socket with bytes unread resets it.
fn hung_up(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref() {
        Some(ssh_io_std::Error::Closed(reason)) => *reason == CloseReason::Eof,
        Some(ssh_io_std::Error::Io(error)) => {
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }
        _ => false,
    }
}

/// Bytes to send, and what they hash to.
struct Source {
    counter: u64,
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Source {
    fn new() -> Self {
        Self { counter: 0, hash: Sha256::new(), buffer: vec![0; 128 * 1024] }
    }

    fn send(&mut self, bytes: u64, mut to: impl std::io::Write) -> Outcome<()> {
        for _ in 0..bytes / self.buffer.len() as u64 {
            for chunk in self.buffer.chunks_exact_mut(8) {
                self.counter = self.counter.wrapping_add(1);
                chunk.copy_from_slice(&self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            }
            self.hash.update(&self.buffer);
            to.write_all(&self.buffer)?;
        }
        Ok(())
    }
}

/// Bytes in a time, as MB/s.
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn soak(adapter: &str) -> Outcome<()> {
    let config = ClientConfig::builder(&PROVIDER).with_rekey(|rekey| rekey.bytes = REKEY_BYTES).build()?;
    let served = Served::start(adapter)?;
    let client = served.log_in(&config)?;
    let mut channel = client.open_session()?;
    channel.set_timeout(Some(PATIENCE));
    channel.exec(HASH)?;
    let mut source = Source::new();

    let begin = Instant::now();
    source.send(UNATTACKED, &mut channel)?;
    let unattacked = rate(UNATTACKED, begin.elapsed());
    let quiet = served.held()?;

    let attack = Attack::begin(served.port, HOSTILE)?;
    let (begin, mut sent, mut time) = (Instant::now(), 0, Duration::ZERO);
    let (mut newcomers, mut hung_up) = (0, 0);
    // Hostile connections so far, and resident bytes.
    let mut samples: Vec<(u64, u64)> = Vec::new();
    while sent < BYTES - UNATTACKED || !attack.is_over() {
        let stretch = Instant::now();
        source.send(STRETCH, &mut channel)?;
        time += stretch.elapsed();
        sent += STRETCH;
        hung_up += served.serves_a_newcomer(&config)?;
        newcomers += 1;
        samples.push((attack.made(), served.held()?.resident));
    }
    let (attacked, lasted) = (rate(sent, time), begin.elapsed());
    let attempts = attack.end()?;

    channel.finish_input()?;
    let mut theirs = Vec::new();
    channel.read_to_end(&mut theirs)?;
    if theirs != source.hash.finalize()[..] {
        return Err("the digests differ".into());
    }
    let rekeys = client.rekeys();
    drop(channel);
    let after = wait_for_rest(&served, &quiet)?;
    client.close();
    served.end()?;

    let half = samples.get(samples.len() / 2..).unwrap_or(&[]);
    let growth = half.iter().map(|s| s.1).max().unwrap_or(0) - half.first().map_or(0, |s| s.1);
    println!("{adapter}: {} MiB hashed at both ends, {rekeys} renewals of keys", (UNATTACKED + sent) >> 20);
    println!("  {} hostile connections in {:.0} s: {attempts}", attempts.made(), lasted.as_secs_f64());
    println!(
        "  {newcomers} newcomers logged in beside them and were served, hung up on {hung_up} times before"
    );
    println!(
        "  {unattacked:.0} MB/s unattacked, {attacked:.0} MB/s attacked on the same machine: ratio {:.2}",
        attacked / unattacked
    );
    println!(
        "  resident {} KiB before, {} KiB after; {:.1} bytes per hostile connection over the second half",
        quiet.resident >> 10,
        after.resident >> 10,
        slope(half),
    );
    println!(
        "  descriptors {} before, {} after; threads {} before, {} after",
        quiet.descriptors, after.descriptors, quiet.threads, after.threads
    );
    for (what, reached, wanted) in [
        ("bytes", UNATTACKED + sent, BYTES),
        ("renewals", rekeys, REKEYS),
        ("hostile connections", attempts.made(), HOSTILE),
    ] {
        if reached < wanted {
            return Err(format!("{what}: {reached} of {wanted}").into());
        }
    }
    attempts.check()?;
    match growth > MOST_GROWTH {
        true => Err(format!("resident memory grew by {growth} bytes over the second half").into()),
        false => Ok(()),
    }
}

/// Waits until the server holds no more descriptors and threads than when it was quiet.
fn wait_for_rest(served: &Served, quiet: &Held) -> Outcome<Held> {
    let begin = Instant::now();
    loop {
        let held = served.held()?;
        if held.descriptors <= quiet.descriptors && held.threads <= quiet.threads {
            return Ok(held);
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("the server holds {held:?}, before {quiet:?}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
