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
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionbio, retry_on_intr};
use ssh_io_std::ServerChannel;

use crate::leader::{Leader, Running};

/// What is copied at a time: enough to fill packets.
const PIECE: usize = 128 * 1024;

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
