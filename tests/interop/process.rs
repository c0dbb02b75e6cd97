//! Child processes that cannot outlive the test, and never block it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// Runs the arguments as a command until it ends or stdin does: when the test
/// dies without a chance to clean up, its end of the pipe closes all the same.
const LEASH: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ cat <&3 >/dev/null; kill -KILL $server; } 2>/dev/null &
exec 3<&-
wait $server
"#;

/// A child process, killed with everything below it when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a client in a process group of its own.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).spawn().map(Self)
    }

    /// Starts a server that writes both its outputs to `log`.
    pub(crate) fn start_server(command: &Command, log: &Path) -> io::Result<Self> {
        let mut leashed = Command::new("/bin/sh");
        leashed.arg("-c").arg(LEASH).arg("sh");
        leashed.arg(command.get_program()).args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            leashed.current_dir(dir);
        }
        for (name, value) in command.get_envs() {
            leashed.env(name, value.unwrap_or_default());
        }
        let log = File::create(log)?;
        leashed.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        Self::start(&mut leashed)
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for the end; returns the exit code, 128 + n after signal n, and
    /// `None` when `limit` has passed (the process is killed then).
    pub(crate) fn wait(mut self, limit: Duration) -> io::Result<Option<i32>> {
        use std::os::unix::process::ExitStatusExt as _;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code().or(status.signal().map(|n| 128 + n)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_tree(self.0.id());
        // Reaps it; there is nothing to do about an error here.
        let _ = self.0.wait();
    }
}

/// Kills the group `leader` and all its descendants: sshd and dropbear move
/// the children that serve connections to sessions of their own.
fn kill_tree(leader: u32) {
    let table = process_table();
    let mut doomed = vec![leader];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        for row in &table {
            if (row.parent == parent || row.group == leader) && !doomed.contains(&row.id) {
                doomed.push(row.id);
            }
        }
        next += 1;
    }
    kill(&doomed);
}

/// Kills all that works in or below `dir`: the commands of a connection that
/// broke have lost every other tie to their server.
pub(crate) fn kill_inside(dir: &Path) {
    let inside =
        |row: &Row| fs::read_link(format!("/proc/{}/cwd", row.id)).is_ok_and(|cwd| cwd.starts_with(dir));
    let doomed: Vec<u32> = process_table().iter().filter(|row| inside(row)).map(|row| row.id).collect();
    if !doomed.is_empty() {
        kill(&doomed);
    }
}

fn kill(ids: &[u32]) {
    // Each by itself: one that is gone already must not save the others.
    let killed = Command::new("/bin/sh")
        .args(["-c", r#"for id; do kill -KILL "$id"; done"#, "sh"])
        .args(ids.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    drop(killed);
}

struct Row {
    id: u32,
    parent: u32,
    group: u32,
}

fn process_table() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let id = name.to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The name in parentheses may hold anything, so start behind it:
            // state, parent, group.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
            let parent = fields.next()?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            Some(Row { id, parent, group })
        })
        .collect()
}

/// Calls `ready` until it returns something or `limit` has passed.
pub(crate) fn poll<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}
