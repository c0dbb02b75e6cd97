//! A local program behind a session channel of tokio: its input, output, error output, exit, and its end with the
//! channel's.
//!
//! As with sshd, the exit is told when the program exits, and the channel closes when nobody holds its outputs
//! any more. When the channel is gone, the program's group is killed.

use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ssh_io_tokio::ServerChannel;
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader, copy_buf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::select;
use tokio::task::spawn_blocking;

use crate::leader::Leader;

/// What is copied at a time: enough to fill packets.
const PIECE: usize = 128 * 1024;

/// Runs a command line with the channel as its three streams.
///
/// # Errors
/// What the operating system says to the start.
pub(crate) fn start(channel: ServerChannel, command: &[u8]) -> io::Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(command)).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut leader = Leader::spawn(&mut shell)?;
    let child = &mut leader.child;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe is missing"));
    };
    let stdin = Sender::from_owned_fd(stdin.into())?;
    let outputs = (Receiver::from_owned_fd(stdout.into())?, Receiver::from_owned_fd(stderr.into())?);
    tokio::spawn(serve(channel, leader, stdin, outputs));
    Ok(())
}

/// Passes everything on until the program is over, or the channel.
async fn serve(channel: ServerChannel, mut leader: Leader, stdin: Sender, outputs: (Receiver, Receiver)) {
    let running = leader.running.clone();
    let exited = spawn_blocking(move || {
        let status = leader.wait();
        (leader, status)
    });
    let feed = async {
        pass_on(piece_by_piece(channel.clone()), stdin).await;
        pending::<()>().await
    };
    let served = async {
        let exit = async {
            let Ok((leader, status)) = exited.await else { return None };
            let _ = channel.exit(status).await;
            Some(leader)
        };
        // As long as the leader is kept, its group's number is nobody else's.
        tokio::join!(
            exit,
            pass_on(piece_by_piece(outputs.0), channel.clone()),
            pass_on(piece_by_piece(outputs.1), channel.stderr()),
        )
    };
    select! {
        // The peer's close, or the connection's end, ends the program.
        _ = channel.wait() => running.kill(),
        () = feed => {}
        _ = served => {
            let _ = channel.finish_input();
            channel.close();
        }
    }
}

fn piece_by_piece<T: tokio::io::AsyncRead>(from: T) -> BufReader<T> {
    BufReader::with_capacity(PIECE, from)
}

/// Copies until either side ends, and lets both go.
async fn pass_on(mut from: impl AsyncBufRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = copy_buf(&mut from, &mut to).await;
}
