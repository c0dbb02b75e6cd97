//! `serve`, with OpenSSH's `ssh`.

use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ssh_io_std::ssh_proto::{ChannelRequestKind, ExitStatus};
use ssh_io_std::{Client, Error, read_key_file};

use super::{Serve, example, free_port};
use crate::clients::{Job, Login, Outcome};
use crate::peers::{KeyFile, Offer, Peer, Rig, USER, run, write};
use crate::process::{Process, poll};
use crate::support::{WAIT, Watchdog, payload};

/// What goes through `ssh` to `serve`: 100 MB.
const INPUT: usize = 100_000_000;

/// Runs `ssh` to its end: what it wrote to stdout, and its code; and what it said besides.
fn finish(ssh: &mut Command) -> ((String, Option<i32>), String) {
    let Output { stdout, stderr, status } = ssh.output().expect("run ssh");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    ((text(stdout), status.code()), text(stderr))
}

fn run_job(
    rig: &Rig,
    serve: &Serve,
    key: &KeyFile,
    command: &str,
    rekey: Option<u64>,
    input: &Path,
) -> Outcome {
    let job = Job {
        port: serve.port,
        offer: Offer { rekey, ..Offer::default() },
        login: Login::Key(key.clone()),
        known_host: serve.host_key.clone(),
        command,
        stdin: Some(input),
        limit: WAIT * 4,
    };
    rig.run(Peer::OpenSsh, &job)
}

/// A client of ours, logged in.
fn client(rig: &Rig, serve: &Serve) -> Client {
    let client = serve.connect();
    log_in(&client, &rig.user_key("ssh-ed25519")).expect("log in");
    client
}

/// Logs in without asking first whether the key would do.
fn log_in(client: &Client, key: &KeyFile) -> Result<(), Error> {
    client.auth_key(USER, read_key_file(key.path(), None)?)
}

#[test]
fn it_takes_a_stream() {
    let _watchdog = Watchdog::new("ssh with serve".into());
    let rig = Rig::share();
    let dir = rig.fresh_dir("input");
    let input = dir.join("input");
    fs::write(&input, payload(INPUT)).expect("write the input");
    let digest = run(Command::new("sha256sum").arg(&input));
    let digest = digest.split_whitespace().next().expect("a digest");

    let serve = Serve::start(&rig, "ssh-ed25519");
    let key = rig.user_key("ssh-ed25519");
    for rekey in [None, Some(1 << 20)] {
        let outcome = run_job(&rig, &serve, &key, "cat | sha256sum", rekey, &input);
        let exchanges = outcome.log.matches("SSH2_MSG_NEWKEYS received").count();
        assert_eq!(outcome.code, Some(0), "rekey {rekey:?}: {}", outcome.log);
        assert_eq!(outcome.stdout_text().split_whitespace().next(), Some(digest), "rekey {rekey:?}");
        let right = if rekey.is_some() { exchanges > 50 } else { exchanges == 1 };
        assert!(right, "rekey {rekey:?}: {exchanges} key exchanges");
    }
    let _ = fs::remove_file(&input);
}

#[test]
fn it_shows_the_host_key_of_its_file_and_runs_commands() {
    let _watchdog = Watchdog::new("serve --host-key".into());
    let rig = Rig::share();
    for host_key in ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"] {
        let serve = Serve::start(&rig, host_key);
        // Its known_hosts has this key alone, and ssh is strict.
        let (ended, said) = finish(&mut serve.ssh(&[], Some("echo out; echo err >&2; exit 7")));
        assert_eq!(ended, ("out\n".to_owned(), Some(7)), "{host_key}: {said}");
        assert_eq!(said, "err\n", "{host_key}");
    }
}

#[test]
fn a_plain_shell_takes_its_commands_from_the_input() {
    let _watchdog = Watchdog::new("serve, plain shell".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let input = serve.dir.join("input");
    write(&input, "echo $((6 * 7))\ntest -t 0 || echo no terminal\nexit 3\necho not this\n");
    let mut ssh = serve.ssh(&[], None);
    let (ended, said) = finish(ssh.stdin(File::open(&input).expect("the input")));
    assert_eq!(ended, ("42\nno terminal\n".to_owned(), Some(3)), "{said}");
}

#[test]
fn the_end_by_a_signal_is_told() {
    let _watchdog = Watchdog::new("serve, exit signal".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let (ended, said) = finish(&mut serve.ssh(&["-v"], Some("kill -TERM $$")));
    // What ssh makes of any signal.
    assert_eq!(ended, (String::new(), Some(255)), "{said}");
    assert!(said.contains("rtype exit-signal"), "{said}");
    let output = client(&rig, &serve).exec("kill -TERM $$").expect("run a command");
    let signalled =
        |status: &ExitStatus| matches!(status, ExitStatus::Signal { name, .. } if name.as_bytes() == b"TERM");
    assert!(output.status.as_ref().is_some_and(signalled), "{output:?}");
}

#[test]
fn harmless_variables_are_set_and_others_refused() {
    let _watchdog = Watchdog::new("serve, variables".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let show = r#"echo "$LC_INTEROP, $LANG, ${INTEROP-unset}""#;
    let set = ["-o", "SetEnv=LC_INTEROP=one LANG=two INTEROP=three"];
    let (ended, said) = finish(&mut serve.ssh(&set, Some(show)));
    assert_eq!(ended, ("one, two, unset\n".to_owned(), Some(0)), "{said}");

    let client = client(&rig, &serve);
    let channel = client.open_session().expect("a session");
    let set = |name: &str| channel.request(&ChannelRequestKind::env(name, "value"));
    for refused in ["INTEROP", "PATH", "LD_PRELOAD", ""] {
        assert!(matches!(set(refused), Err(Error::RequestRefused)), "{refused}");
    }
    for name in ["LANG", "TERM", "LC_ALL"] {
        set(name).expect("set a variable");
    }
    channel.exec("cat; test $LANG$TERM$LC_ALL = valuevaluevalue").expect("run a command");
    // A session has one program.
    assert!(matches!(channel.exec("true"), Err(Error::RequestRefused)));
    channel.finish_input().expect("end the input");
    assert_eq!(channel.wait().expect("the end"), Some(ExitStatus::Code(0)));
}

#[test]
fn a_key_that_is_not_listed_is_refused() {
    let _watchdog = Watchdog::new("serve, stranger".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    for algorithm in ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"] {
        let client = serve.connect();
        let refused = log_in(&client, &rig.stranger_key(algorithm));
        assert!(matches!(refused, Err(Error::AuthFailed { .. })), "{algorithm}: {refused:?}");
        assert!(client.open_session().is_err(), "{algorithm}");
        // ssh asks first.
        let run = |key| run_job(&rig, &serve, &key, "echo out", None, Path::new("/dev/null"));
        let stranger = run(rig.stranger_key(algorithm));
        assert_eq!((stranger.stdout_text().as_str(), stranger.code), ("", Some(255)), "{algorithm}");
        assert!(stranger.log.contains("Permission denied (publickey)"), "{algorithm}: {}", stranger.log);
        let known = run(rig.user_key(algorithm));
        assert_eq!(
            (known.stdout_text().as_str(), known.code),
            ("out\n", Some(0)),
            "{algorithm}: {}",
            known.log
        );
    }
}

#[test]
fn it_serves_also_when_nobody_reads_where() {
    let _watchdog = Watchdog::new("serve unread".into());
    let rig = Rig::share();
    let port = free_port();
    let (reader, writer): (PipeReader, _) = io::pipe().expect("a pipe");
    drop(reader);
    let mut serve = Command::new(example("serve"));
    serve.args(["--port", &port.to_string(), "--authorized-keys"]).arg(rig.authorized_keys());
    let mut serve = Process::start(serve.stdin(Stdio::null()).stdout(writer)).expect("start serve");
    let greeted = poll(WAIT, || {
        if !serve.is_running() {
            return Some(false);
        }
        TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true)
    });
    assert_eq!(greeted, Some(true), "serve has ended");
}

#[test]
fn a_failure_to_do_with_a_file_names_the_file() {
    let _watchdog = Watchdog::new("serve with wrong files".into());
    let rig = Rig::share();
    let dir = rig.fresh_dir("serve");
    let (missing, keys) = (dir.join("missing"), rig.authorized_keys());
    let public = rig.host_key("ssh-ed25519").public_path();
    for (authorized_keys, host_key, file) in
        [(&missing, None, &missing), (&keys, Some(&missing), &missing), (&keys, Some(&public), &public)]
    {
        let mut serve = Command::new(example("serve"));
        serve.args(["--port", "0", "--authorized-keys"]).arg(authorized_keys);
        serve.args(host_key.map(|key| format!("--host-key={}", key.display())));
        let (ended, said) = finish(serve.stdin(Stdio::null()));
        assert_eq!(ended, (String::new(), Some(1)), "{said}");
        assert!(said.starts_with(&format!("serve: {}: ", file.display())), "{said}");
    }
}

#[test]
fn password_server_says_what_it_cannot_use() {
    let _watchdog = Watchdog::new("password-server with wrong arguments".into());
    let rig = Rig::share();
    let dir = rig.fresh_dir("password-server");
    let (missing, keys) = (dir.join("missing"), dir.join("keys"));
    write(&keys, "no-key\n");
    // Ended by a port that is taken, at the latest.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a local address");
    let port = address.port().to_string();
    let usage = "password-server: usage: password-server PORT USER KEYS\n";
    for (port, file, lines) in [
        ("ssh", &keys, &[usage][..]),
        (&port, &missing, &[&format!("password-server: {}: ", missing.display())]),
        (
            &port,
            &keys,
            &[
                &format!("{}: line 1 is not used: ", keys.display()),
                &format!("password-server: {address}: Address already in use"),
            ],
        ),
    ] {
        let mut server = Command::new(example("password-server"));
        server.args([port, USER]).arg(file).stdin(Stdio::null());
        let (ended, said) = finish(&mut server);
        assert_eq!(ended, (String::new(), Some(1)), "{said}");
        assert_eq!(said.lines().count(), lines.len(), "{said}");
        for (line, start) in said.split_inclusive('\n').zip(lines) {
            assert!(line.starts_with(start), "{said}");
        }
    }
}

#[test]
fn a_program_whose_output_nobody_reads_is_told() {
    let _watchdog = Watchdog::new("serve, end of writing".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    for name in ["exec", "tokio-exec"] {
        let mut exec = Command::new(example(name));
        exec.args(["-p", &serve.port.to_string(), "--known-hosts"]).arg(serve.dir.join("known_hosts"));
        exec.arg("-i").arg(rig.user_key("ssh-ed25519").path());
        exec.args([&format!("{USER}@127.0.0.1"), "yes; echo told >&2; exit 7"]);
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let exec = exec.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().expect("run it");
        let Output { stderr, status, .. } = exec.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&stderr);
        assert!(said.ends_with("told\n"), "{name}: {said}");
        assert_eq!(status.code(), Some(7), "{name}: {said}");
    }
}

#[test]
fn a_command_that_cannot_be_run_is_refused() {
    let _watchdog = Watchdog::new("serve, NUL".into());
    let rig = Rig::share();
    let serve = Serve::start(&rig, "ssh-ed25519");
    let client = client(&rig, &serve);
    assert!(matches!(client.exec(b"echo \0"), Err(Error::RequestRefused)));
    assert_eq!(client.exec("exit 3").expect("run a command").status, Some(ExitStatus::Code(3)));
}
