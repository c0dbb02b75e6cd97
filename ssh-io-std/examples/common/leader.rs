//! A local program that leads its process group: its start, its signals, its exit. Used by the examples' programs
//! behind channels.

use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid,
};
use ssh_proto::{ExitStatus, PeerText};

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

/// A program that leads its group. Dropped, it is reaped, and before that killed if it still runs.
///
/// Until then the dead program keeps the group's number taken, so that a signal to those it left behind reaches
/// nobody else.
pub(crate) struct Leader {
    pub(crate) child: Child,
    pub(crate) running: Running,
    exited: bool,
}

impl Leader {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let running = Running(Arc::new(Mutex::new(Some(Pid::from_child(&child)))));
        Ok(Self { child, running, exited: false })
    }

    /// Waits for the exit, without reaping.
    pub(crate) fn wait(&mut self) -> ExitStatus {
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
