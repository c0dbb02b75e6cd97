//! A local program behind a session channel: its input, output, error output, exit, and its end with the
//! channel's. Used by `serve` and by the embedded server of `exec`.
//!
//! As with sshd, the exit is told when the program exits, and the channel closes when nobody holds its outputs
//! any more: a program it left behind may do so for longer. When the channel is gone, the program's group is
//! killed and nothing waits for what else holds its pipes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionbio, retry_on_intr};
use ssh_io_std::ServerChannel;

use crate::leader::{Leader, Running};

/// What is copied at a time: enough to fill packets.
const PIECE: usize = 128 * 1024;

/// A program that was started.
#[allow(dead_code, reason = "only a server of others' clients needs more than that it runs")]
pub(crate) struct Program {
    pub(crate) running: Running,
    unread: PipeWriter,
}

impl Program {
    /// Nobody reads its output any more: as with a pipe, its next write tells it so.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn lose_reader(&mut self) {
        let _ = self.unread.write(&[0]);
    }
}

/// One of a program's outputs, and where it goes.
struct Output {
    from: File,
    to: Box<dyn Write + Send>,
    is_stdout: bool,
}

/// Runs a command line, or a plain shell for `None`, with the channel as its three streams.
///
/// # Errors
/// What the operating system says to the start.
pub(crate) fn start(
    channel: ServerChannel,
    command: Option<&[u8]>,
    env: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<Program> {
    let mut shell = Command::new("/bin/sh");
    if let Some(command) = command {
        shell.arg("-c").arg(OsStr::from_bytes(command));
    }
    shell.envs(env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // Closing the one end wakes all who poll the other.
    let (stopped, stop) = io::pipe()?;
    let stopped = Arc::new(stopped);
    let (told, unread) = io::pipe()?;
    let mut leader = Leader::spawn(&mut shell)?;
    let running = leader.running.clone();

    if let Some(stdin) = leader.child.stdin.take() {
        let (input, stopped) = (channel.clone(), Arc::clone(&stopped));
        background(move || feed(&input, stdin, &stopped))?;
    }
    let mut outputs = Vec::new();
    if let Some(stdout) = leader.child.stdout.take() {
        let from = OwnedFd::from(stdout).into();
        outputs.push(Output { from, to: Box::new(channel.clone()), is_stdout: true });
    }
    if let Some(stderr) = leader.child.stderr.take() {
        let from = OwnedFd::from(stderr).into();
        outputs.push(Output { from, to: Box::new(channel.stderr()), is_stdout: false });
    }
    let copied = background(move || pass_on(outputs, told, &stopped))?;
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
    Ok(Program { running, unread })
}

fn background(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().spawn(work)
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

/// Passes a program's outputs on, each until either end fails, or until all is stopped; its stdout until `told` that
/// nobody reads it. One after the other is no loss: they share the channel's window.
fn pass_on(mut outputs: Vec<Output>, told: PipeReader, stopped: &PipeReader) {
    let (mut buffer, mut told) = (vec![0; PIECE], Some(told));
    while !outputs.is_empty() {
        let mut fds: Vec<_> = outputs.iter().map(|output| PollFd::new(&output.from, PollFlags::IN)).collect();
        fds.push(PollFd::new(stopped, PollFlags::IN));
        fds.extend(told.iter().map(|told| PollFd::new(told, PollFlags::IN)));
        if retry_on_intr(|| poll(&mut fds, None)).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (ready, rest) = ready.split_at(outputs.len());
        if rest.first() == Some(&true) {
            return;
        }
        let mut ready = ready.iter();
        outputs.retain_mut(|output| !ready.next().unwrap_or(&false) || output.pass_piece(&mut buffer));
        if rest.get(1) == Some(&true)
            && let Some(mut told) = told.take()
            && matches!(told.read(&mut [0]), Ok(1))
        {
            outputs.retain(|output| !output.is_stdout);
        }
    }
}

impl Output {
    /// Passes on what is there. Whether there may be more.
    fn pass_piece(&mut self, buffer: &mut [u8]) -> bool {
        match self.from.read(buffer) {
            Ok(n) => n > 0 && self.to.write_all(&buffer[..n]).is_ok(),
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }
}
