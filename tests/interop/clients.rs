//! The peers as clients, each for one command on a server of the loopback
//! interface.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::peers::{KeyFile, Offer, Peer, Rig, USER, read, write};
use crate::process::Process;

/// How a client logs in.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Key(KeyFile),
    Password(String),
}

/// One command to run with a client.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) port: u16,
    pub(crate) offer: Offer<'a>,
    pub(crate) login: Login,
    /// The host key that the client insists on.
    pub(crate) known_host: KeyFile,
    pub(crate) command: &'a str,
    /// A file that becomes the command's input; empty otherwise.
    pub(crate) stdin: Option<&'a Path>,
    pub(crate) limit: Duration,
}

/// How a client ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    /// The command's, and with dbclient also its own.
    pub(crate) stderr: String,
    /// What the client itself said: one line of paramiko or asyncssh when it
    /// failed, all about the connection from ssh, nothing from dbclient.
    pub(crate) log: String,
    /// The exit code, `None` when the client was killed after the limit.
    ///
    /// A command's death by signal n is 128 + n with paramiko and asyncssh,
    /// 255 with ssh (its log has the exit-signal request), 0 with dbclient.
    /// A refused login is 254 with paramiko and asyncssh, 255 with ssh, and
    /// with dbclient 0 after a disconnect message, 1 without.
    pub(crate) code: Option<i32>,
}

impl Outcome {
    /// Output as text, for comparisons and messages.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The files of one run.
struct Files {
    dir: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    log: PathBuf,
}

impl Rig {
    /// Runs a client to its end, or until the job's limit.
    pub(crate) fn run(&self, peer: Peer, job: &Job<'_>) -> Outcome {
        let dir = self.fresh_dir(&format!("{}-client", peer.name()));
        let file = |name| dir.join(name);
        let files =
            Files { stdout: file("stdout"), stderr: file("stderr"), log: file("log"), dir: dir.clone() };
        let create = |path| File::create(path).expect("create an output file");
        let input = job.stdin.unwrap_or(Path::new("/dev/null"));
        let own_output = [create(&files.stdout), create(&files.stderr)];
        let mut command = match peer {
            Peer::OpenSsh => self.ssh(job, &files),
            Peer::Dropbear => dbclient(job, &files),
            Peer::Paramiko => self.python_client("paramiko_client.py", job, &files, input),
            Peer::AsyncSsh => self.python_client("asyncssh_client.py", job, &files, input),
        };
        match peer {
            Peer::OpenSsh | Peer::Dropbear => {
                let [stdout, stderr] = own_output;
                create(&files.log);
                command.stdin(File::open(input).expect("open the input"));
                command.stdout(stdout).stderr(stderr)
            }
            Peer::Paramiko | Peer::AsyncSsh => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(create(&files.log))
            }
        };
        command.env("HOME", &files.dir).env_remove("SSH_AUTH_SOCK");
        let process = Process::start(&mut command).expect("start a client");
        let code = process.wait(job.limit).expect("wait for a client");
        Outcome {
            stdout: fs::read(&files.stdout).expect("read the output"),
            stderr: read(&files.stderr),
            log: read(&files.log),
            code,
        }
    }

    fn ssh(&self, job: &Job<'_>, files: &Files) -> Command {
        let known_hosts = files.dir.join("known_hosts");
        let host = format!("[127.0.0.1]:{} {}\n", job.port, job.known_host.public_line());
        write(&known_hosts, &host);
        let mut command = Command::new("/usr/bin/ssh");
        command.args(["-F", "none", "-T", "-p", &job.port.to_string(), "-l", USER]);
        command.arg("-E").arg(&files.log);
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        option("UserKnownHostsFile", &known_hosts.display().to_string());
        option("GlobalKnownHostsFile", "/dev/null");
        option("StrictHostKeyChecking", "yes");
        option("UpdateHostKeys", "no");
        option("LogLevel", "DEBUG1");
        option("ConnectTimeout", "30");
        option("IdentityAgent", "none");
        option("IdentitiesOnly", "yes");
        option("NumberOfPasswordPrompts", "1");
        let algorithms = [
            ("KexAlgorithms", job.offer.kex),
            ("Ciphers", job.offer.cipher),
            ("MACs", job.offer.mac),
            ("HostKeyAlgorithms", job.offer.host_key),
            ("PubkeyAcceptedAlgorithms", job.offer.user_key),
        ];
        for (name, value) in algorithms {
            if let Some(value) = value {
                option(name, value);
            }
        }
        if let Some(bytes) = job.offer.rekey {
            option("RekeyLimit", &bytes.to_string());
        }
        match &job.login {
            Login::Key(key) => {
                option("PreferredAuthentications", "publickey");
                option("IdentityFile", &key.path().display().to_string());
            }
            Login::Password(password) => {
                option("PreferredAuthentications", "password");
                option("IdentityFile", "none");
                let askpass = files.dir.join("askpass");
                write(&askpass, "#!/bin/sh\nprintf '%s\\n' \"$INTEROP_PASSWORD\"\n");
                let mode = fs::Permissions::from_mode(0o700);
                fs::set_permissions(&askpass, mode).expect("chmod");
                command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
                command.env("INTEROP_PASSWORD", password);
            }
        }
        command.arg("127.0.0.1").arg(job.command);
        command
    }

    fn python_client(&self, script: &str, job: &Job<'_>, files: &Files, input: &Path) -> Command {
        let mut command = self.python_peer(script, &job.offer);
        command.arg(format!("--port={}", job.port)).args(["--user", USER]);
        command.arg("--known-host").arg(job.known_host.public_path());
        match &job.login {
            Login::Key(key) => {
                command.arg("--key").arg(key.path());
                command.args(job.offer.user_key.map(|name| format!("--key-alg={name}")));
            }
            Login::Password(password) => {
                command.arg(format!("--password={password}"));
            }
        }
        command.arg("--stdin").arg(input);
        command.arg("--stdout").arg(&files.stdout).arg("--stderr").arg(&files.stderr);
        command.arg("--").arg(job.command);
        command
    }
}

fn dbclient(job: &Job<'_>, files: &Files) -> Command {
    let ssh_dir = files.dir.join(".ssh");
    fs::create_dir(&ssh_dir).expect("create a directory");
    let host = format!("127.0.0.1 {}\n", job.known_host.public_line());
    write(&ssh_dir.join("known_hosts"), &host);
    let mut command = Command::new("/usr/bin/dbclient");
    command.args(["-T", "-p", &job.port.to_string(), "-l", USER]);
    for (flag, value) in [("-c", job.offer.cipher), ("-m", job.offer.mac)] {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    match &job.login {
        Login::Key(key) => command.arg("-i").arg(key.dropbear_path()),
        Login::Password(password) => command.env("DROPBEAR_PASSWORD", password),
    };
    command.arg("127.0.0.1").arg(job.command);
    command
}
