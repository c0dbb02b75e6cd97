//! What `serve` leaves behind of its sessions: nothing.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal};
use ssh_io_std::{Error, read_key_file};

use super::{Serve, has_ended, process_id, send_signal, stat};
use crate::peers::{Rig, USER, read};
use crate::process::{Process, poll};
use crate::support::{WAIT, Watchdog};

/// The sessions a connection may have at a time.
const MAX_SESSIONS: usize = 32;
/// Longer than any test.
const FOREVER: &str = "sleep 3600";

/// A running `ssh`, killed in the end, and its output.
struct Ssh {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Ssh {
    fn start(ssh: &mut Command) -> Self {
        let mut child = ssh.spawn().expect("start ssh");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    /// A line of the command's output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "ssh ended: {line:?}, {}", self.said());
        line
    }

    /// A line with the id of a process.
    fn process_id(&mut self) -> Pid {
        process_id(&self.line()).expect("a process id")
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the command's input, and gives the rest of its output and the code.
    fn finish(&mut self) -> (String, Option<i32>) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("the rest");
        (rest, self.child.wait().expect("the end of ssh").code())
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process holds: threads, descriptors, and children, dead ones too.
#[derive(PartialEq, Eq, Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
    children: HashSet<i32>,
}

impl Held {
    fn by(id: Pid) -> Self {
        let directory = Path::new("/proc").join(id.to_string());
        let count = |name| fs::read_dir(directory.join(name)).expect("the process").count();
        let processes = fs::read_dir("/proc").expect("the processes");
        let children = processes
            .filter_map(|entry| process_id(entry.ok()?.file_name().to_str()?))
            .filter(|&child| stat(child).is_some_and(|stat| stat.parent == id.as_raw_nonzero().get()))
            .map(|child| child.as_raw_nonzero().get())
            .collect();
        Self { threads: count("task"), descriptors: count("fd"), children }
    }
}

/// Waits until a process holds no more than before.
#[track_caller]
fn assert_back_to(before: &Held, serve: &Serve) {
    let back = poll(WAIT, || (Held::by(serve.id) == *before).then_some(()));
    assert!(back.is_some(), "before: {before:?}, now: {:?}, {}", Held::by(serve.id), serve.log());
}

#[track_caller]
fn assert_ends(what: &str, id: Pid) {
    assert!(poll(WAIT, || has_ended(id).then_some(())).is_some(), "{what} lives on");
}

#[test]
fn a_disconnect_kills_the_command_and_its_group() {
    let _watchdog = Watchdog::new("serve, disconnect".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let before = Held::by(serve.id);
    let mut ssh = Ssh::start(&mut serve.ssh(&[], Some(&format!("echo $$; {FOREVER} & echo $!; wait"))));
    let (leader, child) = (ssh.process_id(), ssh.process_id());
    assert!(!has_ended(leader) && !has_ended(child));
    ssh.kill();
    assert_ends("the command", leader);
    assert_ends("its child", child);
    assert_back_to(&before, &serve);
}

#[test]
fn a_program_that_left_the_group_with_the_pipes_holds_nothing_up() {
    let _watchdog = Watchdog::new("serve, escaped".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let before = Held::by(serve.id);
    // The input is passed on too, more than a pipe takes, and the escaped program does not read it.
    for (what, then) in [("the command lives", FOREVER), ("the command ended", "exit 0")] {
        let mut ssh = serve.ssh(&[], Some(&format!("exec 3<&0; setsid {FOREVER} <&3 & echo $!; {then}")));
        let mut ssh = Ssh::start(ssh.stdin(fs::File::open("/dev/zero").expect("endless input")));
        let escaped = ssh.process_id();
        let in_another_session = || (stat(escaped)?.session == escaped.as_raw_nonzero().get()).then_some(());
        assert!(poll(WAIT, in_another_session).is_some(), "{what}: it did not leave");
        ssh.kill();
        assert_back_to(&before, &serve);
        assert!(!has_ended(escaped), "{what}: it was not to be killed");
        send_signal(escaped, Signal::KILL);
    }
}

#[test]
fn the_exit_is_told_when_it_happens_and_the_channel_closes_with_the_outputs() {
    let _watchdog = Watchdog::new("serve, left behind".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let before = Held::by(serve.id);
    let leave_behind = format!("{FOREVER} & echo $!; exit 5");
    let start = |log| Ssh::start(&mut serve.ssh(&["-v", "-E", log], Some(&leave_behind)));
    let told = |log| {
        let log = serve.dir.join(log);
        let told = poll(WAIT, || read(&log).contains("rtype exit-status").then_some(()));
        assert!(told.is_some(), "no exit status: {}", read(&log));
    };
    let mut ssh = start("first");
    let left = ssh.process_id();
    told("first");
    assert!(!has_ended(left) && matches!(ssh.child.try_wait(), Ok(None)));
    send_signal(left, Signal::TERM);
    assert_eq!(ssh.finish(), (String::new(), Some(5)));
    assert_back_to(&before, &serve);

    // The same with the client's end instead: what it left behind is still of its group.
    let mut ssh = start("second");
    let left = ssh.process_id();
    told("second");
    ssh.kill();
    assert_ends("what was left behind", left);
    assert_back_to(&before, &serve);

    // Without our pipes it is nobody's business.
    let detached = format!("{FOREVER} <&- >/dev/null 2>&1 & echo $!; exit 5");
    let mut ssh = Ssh::start(&mut serve.ssh(&[], Some(&detached)));
    let left = ssh.process_id();
    assert_eq!(ssh.finish(), (String::new(), Some(5)));
    assert_back_to(&before, &serve);
    assert!(!has_ended(left), "it was not to be killed");
    send_signal(left, Signal::KILL);
}

#[test]
fn ended_sessions_make_room_for_new_ones() {
    let _watchdog = Watchdog::new("serve, many sessions".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let mut master = serve.ssh(&["-M", "-S", "control", "-N"], None);
    let _master = Process::start(master.stdout(Stdio::null()).stderr(Stdio::null())).expect("start ssh");
    let check =
        || serve.ssh(&["-S", "control", "-O", "check"], None).output().ok()?.status.success().then_some(());
    assert!(poll(WAIT, check).is_some(), "no master: {}", serve.log());

    // Over the master or not at all.
    let session = |command| {
        let mut ssh = serve.ssh(&["-S", "control", "-o", "ProxyCommand=false"], Some(command));
        Ssh::start(ssh.stdin(Stdio::piped()))
    };
    // One by one: fewer may be about to open than be open.
    let sessions = (0..MAX_SESSIONS).map(|_| {
        let mut ssh = session("echo up; cat; exit 4");
        assert_eq!(ssh.line(), "up\n");
        ssh
    });
    let mut sessions: Vec<Ssh> = sessions.collect();
    let mut refused = session("echo up");
    assert_eq!(refused.finish(), (String::new(), Some(255)));
    assert!(refused.said().contains("Session open refused by peer"));
    for ssh in &mut sessions {
        assert_eq!(ssh.finish(), (String::new(), Some(4)));
    }
    // The last of them may still be on its way out.
    let again = poll(WAIT, || (session("echo up").finish() == ("up\n".to_owned(), Some(0))).then_some(()));
    assert!(again.is_some(), "no room: {}", serve.log());
}

#[test]
fn sessions_without_a_program_make_room_too() {
    let _watchdog = Watchdog::new("serve, unused sessions".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let before = Held::by(serve.id);
    let client = serve.connect();
    let key = read_key_file(rig.user_key("ssh-ed25519").path(), None).expect("a key");
    client.auth_key(USER, key).expect("log in");
    // All that our side may have, which is as many.
    let sessions: Vec<_> = (0..MAX_SESSIONS).map(|_| client.open_session().expect("a session")).collect();
    drop(sessions);
    let again = poll(WAIT, || match client.exec("echo up") {
        Ok(output) => Some(Ok(output.stdout)),
        Err(Error::Open(_) | Error::OpenFailed(_)) => None,
        Err(other) => Some(Err(other)),
    });
    assert_eq!(again.expect("room").expect("a command's output"), b"up\n");
    client.close();
    assert_back_to(&before, &serve);
}

#[test]
fn a_signal_that_ends_serve_ends_the_commands() {
    let _watchdog = Watchdog::new("serve, signals".into());
    let rig = Rig::share();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let serve = Serve::start(&rig, "ssh-ed25519");
        let mut commands: Vec<(Ssh, Pid, Pid)> = (0..2)
            .map(|_| {
                // It would outlive the loss of its pipes.
                let command = format!("trap '' PIPE HUP TERM; echo $$; {FOREVER} & echo $!; wait");
                let mut ssh = Ssh::start(&mut serve.ssh(&[], Some(&command)));
                let (leader, child) = (ssh.process_id(), ssh.process_id());
                (ssh, leader, child)
            })
            .collect();
        send_signal(serve.id, signal);
        for (ssh, leader, child) in &mut commands {
            assert_ends("the command", *leader);
            assert_ends("its child", *child);
            assert_eq!(ssh.finish(), (String::new(), Some(255)));
        }
        // As the shell has it for a process that died of the signal.
        let code = serve.process.wait(WAIT).expect("the end of serve");
        assert_eq!(code, Some(128 + signal.as_raw()));
    }
}
