//! OpenSSH's `ssh` and `sshd` on loopback, with keys that last as long as a run.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::UsageWho;
use nix::unistd::{User, getuid};
use tempfile::TempDir;

use crate::Failure;
use crate::over_std::{read, write};
use crate::two::Process;
use crate::work::{Cipher, Direction, Kex, cpu_time, gigabytes};

/// Started by itself, `sshd` wants to be named with its path.
const SSHD: &str = "/usr/sbin/sshd";

/// Keys, a configuration, and a listener.
struct Rig {
    dir: TempDir,
    listener: TcpListener,
    user: String,
}

impl Rig {
    fn new() -> Result<Self, Failure> {
        let dir = TempDir::with_prefix("ssh-bench-")?;
        let user = User::from_uid(getuid())?.ok_or("the user has no name")?.name;
        let rig = Self { dir, listener: TcpListener::bind(("127.0.0.1", 0))?, user };
        for name in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(rig.path(name));
            Process::start(&mut command)?.wait()?;
        }
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nUseDNS no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel ERROR\n\
             RekeyLimit 1024G none\n",
            rig.path("host").display(),
            rig.path("user.pub").display()
        );
        fs::write(rig.path("config"), config)?;
        Ok(rig)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn port(&self) -> Result<u16, Failure> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Runs a command over a connection of its own that the client makes to this port, with nothing to read but zeros,
    /// and waits for all processes.
    fn run(&self, port: u16, cipher: Cipher, kex: Kex, line: &str, zeros: bool) -> Result<(), Failure> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "RekeyLimit=1024G none"])
            .args(["-o", "HostKeyAlgorithms=ssh-ed25519", "-o", &format!("KexAlgorithms={}", kex.name())])
            .args(["-c", cipher.name(), "-l", &self.user, "-i"])
            .arg(self.path("user"))
            .args(["-p", &port.to_string(), "127.0.0.1", line])
            .stdin(if zeros { fs::File::open("/dev/zero")?.into() } else { Stdio::null() })
            .stdout(Stdio::null());
        let mut client = Process::start(&mut ssh)?;
        let (stream, _) = self.listener.accept()?;
        let stream = OwnedFd::from(stream);
        let mut sshd = Command::new(SSHD);
        sshd.arg("-i").arg("-f").arg(self.path("config")).stdin(stream.try_clone()?).stdout(stream);
        let mut server = Process::start(&mut sshd)?;
        // Of the connection, nothing must be left here, or its end would not be seen.
        drop(sshd);
        client.wait()?;
        // It ends with 255, as a client's disconnect is an error to it.
        let _ = server.wait();
        Ok(())
    }
}

/// The CPU time of `ssh` and `sshd`, without that of the command, in seconds per GB.
pub(crate) fn cpu(cipher: Cipher, direction: Direction, bytes: u64) -> Result<f64, Failure> {
    let rig = Rig::new()?;
    let account = rig.path("account");
    let line = pipe_line(direction, bytes, &account)?;
    let before = cpu_time(UsageWho::RUSAGE_CHILDREN)?;
    rig.run(rig.port()?, cipher, Kex::Curve25519, &line, direction == Direction::Up)?;
    let all = cpu_time(UsageWho::RUSAGE_CHILDREN)? - before;
    let of_command: f64 = fs::read_to_string(account)?.trim().parse()?;
    Ok((all - of_command) / gigabytes(bytes))
}

/// Whole connections per second, one after the other, by the clock.
pub(crate) fn handshakes(kex: Kex, seconds: f64) -> Result<f64, Failure> {
    let rig = Rig::new()?;
    let (begin, mut count) = (Instant::now(), 0.0);
    while begin.elapsed().as_secs_f64() < seconds {
        rig.run(rig.port()?, Cipher::Aes128Gcm, kex, "true", false)?;
        count += 1.0;
    }
    Ok(count / begin.elapsed().as_secs_f64())
}

/// A command that says so much, the connection led `through` another port.
pub(crate) fn say<T>(
    bytes: u64,
    through: impl FnOnce(u16) -> Result<(u16, T), Failure>,
) -> Result<T, Failure> {
    let rig = Rig::new()?;
    let line = pipe_line(Direction::Down, bytes, &rig.path("account"))?;
    let (port, led) = through(rig.port()?)?;
    rig.run(port, Cipher::Aes128Gcm, Kex::Curve25519, &line, false)?;
    Ok(led)
}

/// The command line of [`pipe`].
fn pipe_line(direction: Direction, bytes: u64, account: &Path) -> Result<String, Failure> {
    let this = std::env::current_exe()?;
    Ok(format!("exec '{}' pipe {} {bytes} '{}'", this.display(), direction.argument(), account.display()))
}

/// The command: the end of the data behind `sshd`.
pub(crate) fn pipe(direction: Direction, bytes: u64, account: &Path) -> Result<(), Failure> {
    match direction {
        Direction::Down => write(&mut std::io::stdout().lock(), bytes)?,
        // Past what was asked for, zeros go on coming.
        Direction::Up => read(&mut std::io::Read::take(std::io::stdin().lock(), bytes), bytes)?,
    }
    fs::write(account, cpu_time(UsageWho::RUSAGE_SELF)?.to_string())?;
    Ok(())
}
