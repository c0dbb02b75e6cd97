//! A local program behind a session channel: its input, output, error output, exit, and its end with the
//! channel's. Used by `serve` and by the embedded server of `exec`.
//!
//! As with sshd, the exit is told when the program exits, and the channel closes when nobody holds its outputs
//! any more: a program it left behind may do so for longer. When the channel is gone, the program's group is
//! killed and nothing waits for what else holds its pipes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionbio, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid,
};
use ssh_io_std::ServerChannel;
use ssh_io_std::ssh_proto::{ExitStatus, PeerText};

/// What is copied at a time: enough to fill packets.
const PIECE: usize = 128 * 1024;

/// The signals RFC 4254 §6.9 names.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The process group of a running program. Its number is only used while the program is not reaped.
#[derive(Clone)]
pub(crate) struct Running(Arc<Mutex<Option<Pid>>>);

impl Running {
    /// Sends the group a signal by its SSH name. Unknown names do nothing.
    pub(crate) fn signal(&self, name: &str) {
        let signal = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
        if let (Some(signal), Some(group)) = (signal, *self.group()) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Kills the group, and the program should it have left the group.
    pub(crate) fn kill(&self) {
        self.signal("KILL");
        if let Some(leader) = *self.group() {
            let _ = kill_process(leader, Signal::KILL);
        }
    }

    fn group(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command line, or a plain shell for `None`, with the channel as its three streams.
///
/// # Errors
/// What the operating system says to the start.
pub(crate) fn start(
    channel: ServerChannel,
    command: Option<&[u8]>,
    env: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<Running> {
    let mut shell = Command::new("/bin/sh");
    if let Some(command) = command {
        shell.arg("-c").arg(OsStr::from_bytes(command));
    }
    shell.envs(env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // Closing the one end wakes all who poll the other.
    let (stopped, stop) = io::pipe()?;
    let stopped = Arc::new(stopped);
    let mut leader = Leader::spawn(&mut shell)?;
    let running = leader.running.clone();

    if let Some(stdin) = leader.child.stdin.take() {
        let (input, stopped) = (channel.clone(), Arc::clone(&stopped));
        background(move || feed(&input, stdin, &stopped))?;
    }
    let mut outputs: Vec<(File, Box<dyn Write + Send>)> = Vec::new();
    if let Some(stdout) = leader.child.stdout.take() {
        outputs.push((OwnedFd::from(stdout).into(), Box::new(channel.clone())));
    }
    if let Some(stderr) = leader.child.stderr.take() {
        outputs.push((OwnedFd::from(stderr).into(), Box::new(channel.stderr())));
    }
    let copied = background(move || pass_on(outputs, &stopped))?;
    // The peer's close, or the connection's end, ends the program.
    let (watched, killed) = (channel.clone(), running.clone());
    background(move || {
        let _ = watched.wait();
        killed.kill();
        drop(stop);
    })?;
    background(move || {
        let _ = channel.exit(leader.wait());
        let _ = copied.join();
        // What it left behind without our pipes may live on: from here on nobody kills the group.
        drop(leader);
        let _ = channel.finish_input();
        channel.close();
    })?;
    Ok(running)
}

fn background(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().spawn(work)
}

/// A program that leads its group. Dropped, it is reaped, and before that killed if it still runs.
///
/// Until then the dead program keeps the group's number taken, so that a signal to those it left behind reaches
/// nobody else.
struct Leader {
    child: Child,
    running: Running,
    exited: bool,
}

impl Leader {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let running = Running(Arc::new(Mutex::new(Some(Pid::from_child(&child)))));
        Ok(Self { child, running, exited: false })
    }

    /// Waits for the exit, without reaping.
    fn wait(&mut self) -> ExitStatus {
        let pid = WaitId::Pid(Pid::from_child(&self.child));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = retry_on_intr(|| waitid(pid.clone(), options));
        self.exited = status.is_ok();
        status.ok().flatten().map_or(ExitStatus::Code(255), |status| exit_status(&status))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.exited {
            self.running.kill();
        }
        *self.running.group() = None;
        let _ = self.child.wait();
    }
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let name = |signal| SIGNALS.iter().find(|(_, known)| known.as_raw() == signal).map(|(name, _)| *name);
    match status.exit_status() {
        Some(code) => ExitStatus::Code(code.unsigned_abs()),
        None => ExitStatus::Signal {
            name: PeerText::new(
                status.terminating_signal().and_then(name).unwrap_or("SIG@example.invalid").as_bytes(),
            ),
            core_dumped: status.dumped(),
            message: PeerText::default(),
        },
    }
}

/// Passes the channel's data on to a program, until either ends.
fn feed(mut channel: &ServerChannel, mut stdin: ChildStdin, stopped: &PipeReader) {
    // A write must not wait where it can't be stopped. Only this end of the pipe is meant.
    if ioctl_fionbio(&stdin, true).is_err() {
        return;
    }
    let mut buffer = vec![0; PIECE];
    while let Ok(n @ 1..) = channel.read(&mut buffer) {
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let mut fds = [PollFd::new(&stdin, PollFlags::OUT), PollFd::new(stopped, PollFlags::IN)];
            if retry_on_intr(|| poll(&mut fds, None)).is_err() || !fds[1].revents().is_empty() {
                return;
            }
            match stdin.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return,
            }
        }
    }
}

/// Passes a program's outputs on, each until either end fails, or until all is stopped. One after the other is no
/// loss: they share the channel's window.
fn pass_on(mut outputs: Vec<(File, Box<dyn Write + Send>)>, stopped: &PipeReader) {
    let mut buffer = vec![0; PIECE];
    while !outputs.is_empty() {
        let mut fds: Vec<_> = outputs.iter().map(|(from, _)| PollFd::new(from, PollFlags::IN)).collect();
        fds.push(PollFd::new(stopped, PollFlags::IN));
        if retry_on_intr(|| poll(&mut fds, None)).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.last() == Some(&true) {
            return;
        }
        let mut ready = ready.into_iter();
        outputs.retain_mut(|(from, to)| !ready.next().unwrap_or(false) || pass_piece(from, to, &mut buffer));
    }
}

/// Passes on what is there. Whether there may be more.
fn pass_piece(from: &mut impl Read, to: &mut impl Write, buffer: &mut [u8]) -> bool {
    match from.read(buffer) {
        Ok(n) => n > 0 && to.write_all(&buffer[..n]).is_ok(),
        Err(error) => error.kind() == ErrorKind::Interrupted,
    }
}
