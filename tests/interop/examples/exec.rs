//! `exec` and `tokio-exec`, with sshd where that can be had to do it, else with a server of our own.

use std::fs;
use std::io::{self, PipeReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use ssh_io_std::ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind, OpenRequest,
};
use ssh_io_std::{Handler, Question, ServerChannel, ServerConnection};

use super::example;
use crate::peers::{KeyFile, Offer, PASSWORD, Peer, Rig, USER, read, run, write};
use crate::servers::Server;
use crate::support::{Watchdog, server_config};

/// The code of a wrong command line.
const USAGE: Option<i32> = Some(2);
/// The code of a connection that did not come about.
const FAILED: Option<i32> = Some(255);

/// What holds for the program over either adapter.
macro_rules! with_each_program {
    ($($test:ident)+) => {
        mod over_std {
            $(
                #[test]
                fn $test() {
                    super::$test("exec");
                }
            )+
        }

        mod over_tokio {
            $(
                #[test]
                fn $test() {
                    super::$test("tokio-exec");
                }
            )+
        }
    };
}

with_each_program! {
    without_arguments_it_brings_its_own_server
    it_prints_both_outputs_and_returns_the_code
    a_new_host_is_recorded_when_that_is_wanted
    a_fingerprint_accepts_its_key_alone
    a_password_comes_from_the_environment
    verbose_says_what_was_negotiated
    a_timeout_ends_the_wait_for_a_silent_server
    the_code_counts_also_when_nobody_reads_the_outputs
    a_command_line_that_lacks_something_is_refused
    a_failure_to_do_with_a_file_names_the_file
    a_line_of_known_hosts_that_is_not_used_is_told
    a_user_may_have_an_at_sign_and_a_missing_status_is_told
}

/// sshd, and where its host key is known.
struct Sshd {
    name: &'static str,
    server: Server,
    known_hosts: PathBuf,
    dir: PathBuf,
}

impl Sshd {
    fn start(rig: &Rig, name: &'static str) -> Self {
        let server = rig.serve(Peer::OpenSsh, &Offer { host_key: Some("ssh-ed25519"), ..Offer::default() });
        let dir = rig.fresh_dir("exec");
        let known_hosts = dir.join("known_hosts");
        let host = rig.host_key("ssh-ed25519").public_line();
        write(&known_hosts, &format!("[127.0.0.1]:{} {host}\n", server.port));
        Self { name, server, known_hosts, dir }
    }

    /// The program with options; without a home of its own.
    fn exec(&self, options: &[&str], command: &str) -> Command {
        let mut exec = Command::new(example(self.name));
        exec.args(["-p", &self.server.port.to_string()]).args(options);
        exec.arg(format!("{USER}@127.0.0.1")).arg(command);
        exec.env("HOME", &self.dir).env("PASSWORD", PASSWORD).stdin(Stdio::null());
        exec
    }

    /// The program as one who is known, to a host that is known.
    fn exec_as(&self, key: &KeyFile, command: &str) -> Command {
        self.exec(&["--known-hosts", path(&self.known_hosts), "-i", path(key.path())], command)
    }

    fn expect(&self, command: &mut Command, out: &str, err: &str, code: i32) {
        let ended = finish(command);
        let expected = (out.to_owned(), err.to_owned(), Some(code));
        assert_eq!(ended, expected, "{command:?}: {}", self.server.log());
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs it to its end: what it said, and its code.
fn finish(command: &mut Command) -> (String, String, Option<i32>) {
    let Output { stdout, stderr, status } = command.output().expect("run it");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code())
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer): (PipeReader, _) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// What can be opened but not written to.
fn full() -> Stdio {
    fs::OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full").into()
}

fn without_arguments_it_brings_its_own_server(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} alone"));
    let (out, err, code) = finish(Command::new(example(name)).stdin(Stdio::null()));
    assert_eq!((err.as_str(), code), ("", Some(0)), "{out}");
    for part in [
        "client version:  SSH-2.0-",
        "server version:  SSH-2.0-",
        "key exchange:    mlkem768x25519-sha256\n",
        "strict kex:      yes\n",
        "logged in with a public key\n",
        "stdout: hello from the other end\n",
        "stderr: and a word aside\n",
        "status: Some(Code(7))\n",
        "256 MiB through one channel in ",
        ": agrees\n",
    ] {
        assert!(out.contains(part), "{part:?} is missing: {out}");
    }
}

fn it_prints_both_outputs_and_returns_the_code(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} with sshd"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let key = rig.user_key("ssh-ed25519");
    let exec = |command| sshd.exec_as(&key, command);
    sshd.expect(&mut exec("echo out; echo err >&2; exit 7"), "out\n", "err\n", 7);
    sshd.expect(&mut exec("kill -TERM $$"), "", "", 128 + 15);
    // sshd has no name for this one.
    let unknown = &format!("{name}: the command was ended by the signal SIG@openssh.com\n");
    sshd.expect(&mut exec("kill -XCPU $$"), "", unknown, 255);
    let input = sshd.dir.join("input");
    write(&input, "from here\n");
    let mut cat = exec("cat");
    sshd.expect(cat.stdin(fs::File::open(&input).expect("the input")), "from here\n", "", 0);
    write(&sshd.known_hosts, "");
    let (out, err, code) = finish(&mut exec("echo out"));
    assert_eq!((out.as_str(), code), ("", FAILED));
    assert!(err.starts_with(&format!("{name}: host key verification failed")), "{err}");
}

fn a_new_host_is_recorded_when_that_is_wanted(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} --accept-new"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let key = rig.user_key("ssh-ed25519");
    let recorded = sshd.dir.join(".ssh/known_hosts");
    // Not for who cannot log in anyway.
    for nothing in [&["--accept-new"][..], &["--accept-new", "-i", "no/such/file"]] {
        assert_eq!(finish(&mut sshd.exec(nothing, "echo out")).2, FAILED);
        assert!(!recorded.exists(), "{nothing:?}");
    }
    let mut accept_new = sshd.exec(&["--accept-new", "-i", path(key.path())], "echo out");
    sshd.expect(&mut accept_new, "out\n", "", 0);
    assert_eq!(read(&recorded), read(&sshd.known_hosts));
    // Now it is known.
    sshd.expect(&mut accept_new, "out\n", "", 0);
    assert_eq!(read(&recorded), read(&sshd.known_hosts));
    sshd.expect(&mut sshd.exec(&["-i", path(key.path())], "echo out"), "out\n", "", 0);
    // Another key is not what was recorded.
    let host = rig.stranger_key("ssh-ed25519").public_line();
    write(&recorded, &format!("[127.0.0.1]:{} {host}\n", sshd.server.port));
    let (out, err, code) = finish(&mut accept_new);
    assert_eq!((out.as_str(), code), ("", FAILED));
    assert!(err.starts_with(&format!("{name}: host key verification failed")), "{err}");
}

fn a_fingerprint_accepts_its_key_alone(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} --fingerprint"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let fingerprint = |key: &KeyFile| {
        let line = run(Command::new("/usr/bin/ssh-keygen").args(["-l", "-f"]).arg(key.public_path()));
        line.split(' ').nth(1).expect("a fingerprint").to_owned()
    };
    let key = rig.user_key("ssh-ed25519");
    let exec =
        |fingerprint: &str| sshd.exec(&["--fingerprint", fingerprint, "-i", path(key.path())], "echo out");
    let right = fingerprint(&rig.host_key("ssh-ed25519"));
    sshd.expect(&mut exec(&right), "out\n", "", 0);
    let (out, err, code) = finish(&mut exec(&fingerprint(&rig.stranger_key("ssh-ed25519"))));
    assert_eq!((out.as_str(), code), ("", FAILED));
    assert!(err.starts_with(&format!("{name}: host key verification failed")), "{err}");
    for malformed in
        ["foo", "", "SHA256:", &right[1..], &right[..right.len() - 1], &right.replace("SHA", "MD")]
    {
        let (out, err, code) = finish(&mut exec(malformed));
        assert_eq!((out.as_str(), code), ("", USAGE), "{malformed:?}");
        assert!(err.contains("--fingerprint"), "{malformed:?}: {err}");
    }
}

fn a_password_comes_from_the_environment(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} --password-env"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let known_hosts = path(&sshd.known_hosts);
    let exec = |variable| sshd.exec(&["--known-hosts", known_hosts, "--password-env", variable], "echo out");
    sshd.expect(&mut exec("PASSWORD"), "out\n", "", 0);
    let wrong = &format!("{name}: permission denied (publickey,password)\n");
    sshd.expect(exec("PASSWORD").env("PASSWORD", "wrong"), "", wrong, 255);
    let unset = &format!("{name}: NO_SUCH_VARIABLE is not set\n");
    sshd.expect(&mut exec("NO_SUCH_VARIABLE"), "", unset, 255);
    // With a key it is the key's passphrase.
    let key = rig.user_key("ssh-ed25519");
    let locked = sshd.dir.join("locked");
    fs::copy(key.path(), &locked).expect("copy the key");
    let passphrase = ["-q", "-p", "-P", "", "-N", PASSWORD, "-f"];
    run(Command::new("/usr/bin/ssh-keygen").args(passphrase).arg(&locked));
    let options = ["--known-hosts", known_hosts, "-i", path(&locked), "--password-env", "PASSWORD"];
    sshd.expect(&mut sshd.exec(&options, "echo out"), "out\n", "", 0);
}

fn verbose_says_what_was_negotiated(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} -v"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let mut exec = sshd.exec_as(&rig.user_key("ssh-ed25519"), "echo out");
    // Before the destination; what comes behind it is the command's.
    let mut verbose = Command::new(exec.get_program());
    verbose.arg("-v").args(exec.get_args()).stdin(Stdio::null());
    let (out, err, code) = finish(&mut verbose);
    assert_eq!((out.as_str(), code), ("out\n", Some(0)), "{err}");
    for part in ["server version:  SSH-2.0-OpenSSH_", "key exchange:    ", "host key:        ssh-ed25519\n"] {
        assert!(err.contains(part), "{part:?} is missing: {err}");
    }
    sshd.expect(verbose.stderr(full()), "out\n", "", 0);
    sshd.expect(&mut exec, "out\n", "", 0);
}

fn a_timeout_ends_the_wait_for_a_silent_server(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} --timeout"));
    let rig = Rig::share();
    let dir = rig.fresh_dir("exec");
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = silent.local_addr().expect("a local address").port().to_string();
    let exec = |seconds: &str| {
        let mut exec = Command::new(example(name));
        exec.args(["-p", &port, &format!("--timeout={seconds}"), "-i"])
            .arg(rig.user_key("ssh-ed25519").path());
        finish(exec.args([&format!("{USER}@127.0.0.1"), "true"]).env("HOME", &dir).stdin(Stdio::null()))
    };
    assert_eq!(exec("1"), (String::new(), format!("{name}: timed out\n"), FAILED));
    for outside in ["0", "-1", "18446744073709551615", "soon"] {
        let (out, err, code) = exec(outside);
        assert_eq!((out.as_str(), code), ("", USAGE), "{outside}: {err}");
        assert!(err.contains("--timeout"), "{outside}: {err}");
    }
}

fn the_code_counts_also_when_nobody_reads_the_outputs(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} unread"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let key = rig.user_key("ssh-ed25519");
    let exec = |command| sshd.exec_as(&key, command);
    // More than any buffer holds, so that it fails while the command runs.
    let much = "head -c 4000000 /dev/zero | tr '\\0' x; exit 7";
    sshd.expect(exec(much).stdout(unread()), "", "", 7);
    sshd.expect(exec("echo out; echo err >&2; exit 7").stdout(full()).stderr(full()), "", "", 7);
    let aside = "head -c 4000000 /dev/zero | tr '\\0' x >&2; echo out; exit 7";
    sshd.expect(exec(aside).stderr(unread()), "out\n", "", 7);
    // sshd is told, and so is the command.
    sshd.expect(exec("yes").stdout(unread()), "", "", 128 + 13);
    // Neither has anybody to tell its reason to.
    write(&sshd.known_hosts, "");
    sshd.expect(exec("true").stderr(full()), "", "", 255);
    let alone = Command::new(example(name)).stdin(Stdio::null()).stdout(unread()).stderr(full()).status();
    assert_eq!(alone.expect("run it").code(), FAILED);
}

fn a_command_line_that_lacks_something_is_refused(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} with a wrong command line"));
    for (line, missing) in [
        (&["-v"][..], "user@host is needed"),
        (&["-p", "22", "--accept-new"], "user@host is needed"),
        (&["--timeout", "5"], "user@host is needed"),
        (&["me@127.0.0.1"], "a command is needed"),
        (&["127.0.0.1", "true"], "it is user@host"),
        (&["@127.0.0.1", "true"], "it is user@host"),
        (&["me@", "true"], "it is user@host"),
    ] {
        let (out, err, code) = finish(Command::new(example(name)).args(line).stdin(Stdio::null()));
        assert_eq!((out.as_str(), code), ("", USAGE), "{line:?}: {err}");
        assert!(err.contains(missing), "{line:?}: {err}");
    }
}

fn a_failure_to_do_with_a_file_names_the_file(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} with wrong files"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let (directory, missing) = (path(&sshd.dir), sshd.dir.join("no/such/file"));
    let (missing, known_hosts) = (path(&missing), path(&sshd.known_hosts));
    let key = rig.user_key("ssh-ed25519");
    for (options, file) in [
        (&["--known-hosts", directory, "-i", path(key.path())][..], directory),
        (&["--accept-new", "--known-hosts", missing, "-i", path(key.path())], missing),
        (&["--known-hosts", known_hosts, "-i", missing], missing),
        (&["--known-hosts", known_hosts, "-i", known_hosts], known_hosts),
    ] {
        let (out, err, code) = finish(&mut sshd.exec(options, "echo out"));
        assert_eq!((out.as_str(), code), ("", FAILED), "{options:?}: {err}");
        assert!(err.starts_with(&format!("{name}: {file}: ")), "{options:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{options:?}: {err}");
    }
}

fn a_line_of_known_hosts_that_is_not_used_is_told(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} with lines of no use"));
    let rig = Rig::share();
    let sshd = Sshd::start(&rig, name);
    let key = rig.user_key("ssh-ed25519");
    let (file, known) = (path(&sshd.known_hosts), read(&sshd.known_hosts));
    write(&sshd.known_hosts, &format!("host no-key\n{known}"));
    let why = format!("{name}: {file}: line 1 is not used: ");
    let (out, err, code) = finish(&mut sshd.exec_as(&key, "echo out"));
    assert_eq!((out.as_str(), code), ("out\n", Some(0)), "{err}");
    assert!(err.starts_with(&why) && err.lines().count() == 1, "{err}");
    // One that may revoke the key is not passed over.
    write(&sshd.known_hosts, &format!("{known}@revoke {known}"));
    let (out, err, code) = finish(&mut sshd.exec_as(&key, "echo out"));
    assert_eq!((out.as_str(), code), ("", FAILED), "{err}");
    assert!(err.starts_with(&format!("{name}: {file}: line 2: ")) && err.lines().count() == 1, "{err}");
}

/// Lets everybody in, tells who, and ends every command without a word.
struct Mute {
    users: Sender<String>,
    channels: Vec<ServerChannel>,
}

impl Handler for Mute {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let _ = self.users.send(request.user().as_str().to_owned());
        let _ = request.reply(AuthVerdict::Accept);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channels.extend(request.accept(ChannelConfig::default()));
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        if matches!(request.kind(), ChannelRequestKind::Exec(_)) {
            let _ = request.reply(true);
            self.channels.clear();
        }
    }
}

fn a_user_may_have_an_at_sign_and_a_missing_status_is_told(name: &'static str) {
    let _watchdog = Watchdog::new(format!("{name} with a mute server"));
    let rig = Rig::share();
    let dir = rig.fresh_dir("exec");
    let known_hosts = dir.join("known_hosts");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("a local address").port();
    let config = server_config(&rig, None, None);
    let (users, seen) = channel();
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        ServerConnection::start(Arc::clone(&config), stream, Mute { users, channels: Vec::new() })
    });
    let mut exec = Command::new(example(name));
    exec.args(["-p", &port.to_string(), "--accept-new", "--known-hosts", path(&known_hosts), "-i"]);
    exec.arg(rig.user_key("ssh-ed25519").path()).args(["me@corp@127.0.0.1", "true"]).stdin(Stdio::null());
    let ended = finish(&mut exec);
    let why = format!("{name}: the server did not say how the command ended\n");
    assert_eq!(ended, (String::new(), why, FAILED));
    assert_eq!(seen.try_recv().as_deref(), Ok("me@corp"));
    drop(serving.join());
}
