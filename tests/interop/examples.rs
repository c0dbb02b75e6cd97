//! The examples of `ssh-io-std` and `ssh-io-tokio` with OpenSSH, as a person would use them.

mod exec;
mod leftovers;
mod serve;
mod shell;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use ssh_io_std::{Client, HostKeys};

use crate::peers::{KeyFile, Rig, USER, read, write};
use crate::process::{Process, poll};
use crate::support::WAIT;

/// An example's program, which cargo puts beside the tests'.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this program");
    let profile = test.ancestors().nth(2).expect("the directory of the profile");
    let program = profile.join("examples").join(name);
    let how = "cargo build -p ssh-io-std -p ssh-io-tokio --examples";
    assert!(program.exists(), "{} is missing: run {how}", program.display());
    program
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    listener.local_addr().expect("local address").port()
}

/// The example `serve`, with a directory of its own, in which its programs start.
struct Serve {
    dir: PathBuf,
    port: u16,
    id: Pid,
    process: Process,
    host_key: KeyFile,
}

impl Serve {
    fn start(rig: &Rig, host_key: &str) -> Self {
        let dir = rig.fresh_dir("serve");
        let (host_key, id, log) = (rig.host_key(host_key), dir.join("id"), dir.join("log"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo $$ >id; exec "$@""#, "sh"]).arg(example("serve"));
        command.args(["--port", "0", "--authorized-keys"]).arg(rig.authorized_keys());
        command.arg("--host-key").arg(host_key.path()).current_dir(&dir);
        let process = Process::start_server(&command, &log).expect("start serve");
        let port = poll(WAIT, || {
            let log = fs::read_to_string(&log).ok()?;
            let line = log.lines().find(|line| line.starts_with("listening on 127.0.0.1:"))?;
            line.rsplit_once(':')?.1.parse().ok()
        });
        let port = port.unwrap_or_else(|| panic!("serve does not say where it listens: {}", read(&log)));
        let id = process_id(&read(&id)).expect("the id of serve");
        let serve = Self { dir, port, id, process, host_key };
        serve.write_config(rig);
        serve
    }

    /// What `ssh serve` needs to know.
    fn write_config(&self, rig: &Rig) {
        let known_hosts = self.dir.join("known_hosts");
        write(&known_hosts, &format!("[127.0.0.1]:{} {}\n", self.port, self.host_key.public_line()));
        let key = rig.user_key("ssh-ed25519");
        let config = format!(
            "Host serve\n\
             HostName 127.0.0.1\n\
             Port {}\n\
             User {USER}\n\
             IdentityFile {}\n\
             IdentitiesOnly yes\n\
             IdentityAgent none\n\
             PreferredAuthentications publickey\n\
             UserKnownHostsFile {}\n\
             GlobalKnownHostsFile /dev/null\n\
             StrictHostKeyChecking yes\n\
             UpdateHostKeys no\n\
             RequestTTY no\n\
             ConnectTimeout 30\n",
            self.port,
            key.path().display(),
            known_hosts.display(),
        );
        write(&self.dir.join("config"), &config);
    }

    /// `ssh` with arguments before the host, and a command; without one, the plain shell.
    fn ssh(&self, options: &[&str], command: Option<&str>) -> Command {
        let mut ssh = Command::new("/usr/bin/ssh");
        // Relative names keep the path of a control socket short enough.
        ssh.current_dir(&self.dir).args(["-F", "config"]).args(options).arg("serve").args(command);
        ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh
    }

    /// A client of ours, not logged in.
    fn connect(&self) -> Client {
        let known_hosts = HostKeys::KnownHosts(self.dir.join("known_hosts"));
        let client = Client::builder().host_keys(known_hosts).connect_timeout(WAIT);
        client.connect("127.0.0.1", self.port).expect("connect")
    }

    fn log(&self) -> String {
        read(&self.dir.join("log"))
    }
}

fn process_id(text: &str) -> Option<Pid> {
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Whether a process has ended; a zombie has.
fn has_ended(id: Pid) -> bool {
    stat(id).is_none_or(|stat| stat.state == "Z" || stat.state == "X")
}

/// What the kernel says of a process. Ids from outside of our namespace of processes read 0, as that of our
/// session does where a container has been entered.
struct Stat {
    state: String,
    parent: i32,
    session: i32,
}

fn stat(id: Pid) -> Option<Stat> {
    let stat = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let &[state, parent, _group, session, ..] = fields.as_slice() else { return None };
    Some(Stat { state: state.to_owned(), parent: parent.parse().ok()?, session: session.parse().ok()? })
}

fn send_signal(id: Pid, signal: Signal) {
    kill_process(id, signal).expect("send a signal");
}
