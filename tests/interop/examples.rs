//! The examples of `ssh-io-std` with OpenSSH, as a person would use them.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clients::{Job, Login};
use crate::peers::{Offer, Peer, Rig, USER, run, write};
use crate::process::Process;
use crate::support::{WAIT, Watchdog, payload};

/// What goes through `ssh` to `serve`: 100 MB.
const INPUT: usize = 100_000_000;

/// An example's program, which cargo puts beside the tests'.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this program");
    let profile = test.ancestors().nth(2).expect("the directory of the profile");
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "{} is missing: run cargo build -p ssh-io-std --examples", program.display());
    program
}

#[test]
fn exec_prints_both_outputs_and_returns_the_code() {
    let _watchdog = Watchdog::new("exec with sshd".into());
    let rig = Rig::share();
    let server = rig.serve(Peer::OpenSsh, &Offer::default());
    let dir = rig.fresh_dir("exec");
    let known_hosts = dir.join("known_hosts");
    let host = rig.host_key("ssh-ed25519").public_line();
    write(&known_hosts, &format!("[127.0.0.1]:{} {host}\n", server.port));
    let exec = |command: &str| {
        let output = Command::new(example("exec"))
            .args(["-p", &server.port.to_string(), "--timeout", "60", "-i"])
            .arg(rig.user_key("ssh-ed25519").path())
            .arg("--known-hosts")
            .arg(&known_hosts)
            .arg(format!("{USER}@127.0.0.1"))
            .arg(command)
            .stdin(Stdio::null())
            .output()
            .expect("run exec");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    let expected = |out: &str, err: &str, code| (out.to_owned(), err.to_owned(), Some(code));
    assert_eq!(exec("echo out; echo err >&2; exit 7"), expected("out\n", "err\n", 7), "{}", server.log());
    assert_eq!(exec("kill -TERM $$"), expected("", "", 128 + 15), "{}", server.log());
    write(&known_hosts, "");
    let (out, err, code) = exec("echo out");
    assert_eq!((out.as_str(), code), ("", Some(255)));
    assert!(err.starts_with("exec: host key verification failed"), "{err}");
}

#[test]
fn serve_takes_a_stream_from_ssh() {
    let _watchdog = Watchdog::new("ssh with serve".into());
    let rig = Rig::share();
    let dir = rig.fresh_dir("serve");
    let input = dir.join("input");
    fs::write(&input, payload(INPUT)).expect("write the input");
    let digest = run(Command::new("sha256sum").arg(&input));
    let digest = digest.split_whitespace().next().expect("a digest");

    let mut command = Command::new(example("serve"));
    command.args(["--port", "0", "--authorized-keys"]).arg(rig.authorized_keys());
    command.arg("--host-key").arg(rig.host_key("ssh-ed25519").path());
    let log = dir.join("log");
    let _server = Process::start_server(&command, &log).expect("start serve");
    let port = listening_port(&log);
    for rekey in [None, Some(1 << 20)] {
        let job = Job {
            port,
            offer: Offer { rekey, ..Offer::default() },
            login: Login::Key(rig.user_key("ssh-ed25519")),
            known_host: rig.host_key("ssh-ed25519"),
            command: "cat | sha256sum",
            stdin: Some(&input),
            limit: WAIT * 4,
        };
        let outcome = rig.run(Peer::OpenSsh, &job);
        let exchanges = outcome.log.matches("SSH2_MSG_NEWKEYS received").count();
        assert_eq!(outcome.code, Some(0), "rekey {rekey:?}: {}", outcome.log);
        assert_eq!(outcome.stdout_text().split_whitespace().next(), Some(digest), "rekey {rekey:?}");
        let right = if rekey.is_some() { exchanges > 50 } else { exchanges == 1 };
        assert!(right, "rekey {rekey:?}: {exchanges} key exchanges");
    }
    let _ = fs::remove_file(&input);
}

/// Where `serve` says it listens.
fn listening_port(log: &Path) -> u16 {
    let port = crate::process::poll(WAIT, || {
        let lines = BufReader::new(fs::File::open(log).ok()?).lines();
        let line = lines.map_while(Result::ok).find(|line| line.starts_with("listening on "))?;
        line.rsplit_once(':')?.1.parse().ok()
    });
    port.expect("serve does not say where it listens")
}
