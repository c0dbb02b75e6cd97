//! A local program behind a session channel: its input, output, error output, exit, and its end with the
//! channel's. Used by `serve` and by the embedded server of `exec`.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus as LocalStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use ssh_io_std::ServerChannel;
use ssh_io_std::ssh_proto::{ExitStatus, PeerText};

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
        if let (Some(signal), Ok(group)) = (signal, self.0.lock())
            && let Some(group) = *group
        {
            let _ = kill_process_group(group, signal);
        }
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
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let mut shell = Command::new("/bin/sh");
    if let Some(command) = command {
        shell.arg("-c").arg(OsStr::from_bytes(command));
    }
    shell.envs(env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = shell.spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let running = Running(Arc::new(Mutex::new(group)));

    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = channel.clone();
    thread::spawn(move || {
        if let Some(stdin) = stdin {
            copy(&input, stdin);
        }
    });
    // The peer's close, or the connection's end, ends the program.
    let (watched, killed) = (channel.clone(), running.clone());
    thread::spawn(move || {
        let _ = watched.wait();
        killed.signal("KILL");
    });
    let for_reaper = running.clone();
    thread::spawn(move || reap(&channel, child, stdout, stderr, &for_reaper));
    Ok(running)
}

/// Waits for a program's end, passes on its last words, and tells how it ended.
fn reap(
    channel: &ServerChannel,
    mut child: Child,
    stdout: Option<impl Read + Send + 'static>,
    stderr: Option<impl Read + Send + 'static>,
    running: &Running,
) {
    let errors = channel.stderr();
    let errors = thread::spawn(move || stderr.map(|stderr| copy(stderr, &errors)));
    if let Some(stdout) = stdout {
        copy(stdout, channel);
    }
    let _ = errors.join();
    // Both outputs are at their end; what is left is the exit itself. The group's number is given up while it is
    // still taken, so that no signal goes to whoever gets it next.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
    if let Ok(mut group) = running.0.lock() {
        *group = None;
    }
    let status = child.wait();
    let _ = channel.exit(match status {
        Ok(status) => exit_status(status),
        Err(_) => ExitStatus::Code(255),
    });
    channel.close();
}

fn exit_status(status: LocalStatus) -> ExitStatus {
    let name = |signal| SIGNALS.iter().find(|(_, known)| known.as_raw() == signal).map(|(name, _)| *name);
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code.unsigned_abs()),
        (None, signal) => ExitStatus::Signal {
            name: PeerText::new(signal.and_then(name).unwrap_or("SIG@example.invalid").as_bytes()),
            core_dumped: status.core_dumped(),
            message: PeerText::default(),
        },
    }
}

/// Copies until either end fails, in pieces large enough to fill packets.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        }
    }
}
