//! `exec`, with sshd.

use std::process::{Command, Stdio};

use super::example;
use crate::peers::{Offer, Peer, Rig, USER, write};
use crate::support::Watchdog;

#[test]
fn it_prints_both_outputs_and_returns_the_code() {
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
