//! Channel data between two processes over loopback TCP, and what they cost.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use nix::sys::resource::UsageWho;

use crate::work::{Adapter, Cipher, Direction, cpu_time, gigabytes};
use crate::{Failure, over_russh, over_std, over_tokio};

/// A process that is killed unless it was waited for.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.spawn()?))
    }

    /// Waits for its end. From then on its CPU time is among those of children.
    pub(crate) fn wait(&mut self) -> Result<(), Failure> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a process failed: {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Moves so many bytes between two processes, and gives the CPU time of both, in seconds per GB.
pub(crate) fn cpu(
    adapter: Adapter,
    cipher: Cipher,
    direction: Direction,
    bytes: u64,
) -> Result<f64, Failure> {
    let before = cpu_time(UsageWho::RUSAGE_CHILDREN)?;
    transfer(adapter, cipher, direction, bytes, |port| Ok((port, ())))?;
    Ok((cpu_time(UsageWho::RUSAGE_CHILDREN)? - before) / gigabytes(bytes))
}

/// Moves so many bytes between two processes, the client's connection led `through` another port.
pub(crate) fn transfer<T>(
    adapter: Adapter,
    cipher: Cipher,
    direction: Direction,
    bytes: u64,
    through: impl FnOnce(u16) -> Result<(u16, T), Failure>,
) -> Result<T, Failure> {
    let this = std::env::current_exe()?;
    let mut command = Command::new(&this);
    command.args(["serve", &adapter.argument(), &cipher.argument()]).stdout(Stdio::piped());
    let mut server = Process::start(&mut command)?;
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().ok_or("no output")?).read_line(&mut port)?;
    let mut command = Command::new(&this);
    command.args(["connect", &adapter.argument(), &cipher.argument(), &direction.argument()]);
    let (port, led) = through(port.trim().parse()?)?;
    command.args([port.to_string(), bytes.to_string()]);
    Process::start(&mut command)?.wait()?;
    server.wait()?;
    Ok(led)
}

/// Serves one client, and says where.
pub(crate) fn serve(adapter: Adapter, cipher: Cipher) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port())?;
    out.flush()?;
    match adapter {
        Adapter::Plain => over_std::serve_plain(&listener),
        Adapter::Std => over_std::serve_one(cipher, &listener),
        Adapter::Tokio => over_tokio::serve_one(cipher, listener),
        Adapter::Russh => over_russh::serve_one(cipher, listener),
        Adapter::Openssh => Err("OpenSSH brings its own server".into()),
    }
}

/// Moves so many bytes, with a server of the same kind.
pub(crate) fn connect(
    adapter: Adapter,
    cipher: Cipher,
    direction: Direction,
    port: u16,
    bytes: u64,
) -> Result<(), Failure> {
    match adapter {
        Adapter::Plain => over_std::transfer_plain(direction, port, bytes),
        Adapter::Std => over_std::transfer(cipher, direction, port, bytes),
        Adapter::Tokio => over_tokio::transfer(cipher, direction, port, bytes),
        Adapter::Russh => over_russh::transfer(cipher, direction, port, bytes),
        Adapter::Openssh => Err("OpenSSH brings its own client".into()),
    }
}
