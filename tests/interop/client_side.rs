//! Our client with the peers' servers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ssh_io_std::ssh_proto::crypto::PROVIDER;
use ssh_io_std::ssh_proto::keys::HostKeyRejection;
use ssh_io_std::ssh_proto::{
    ClientConfig, Credential, Entropy, ExitStatus, KeyPair, Secret, SignRefused, Signature, Signer, ToSign,
};

use crate::keys::key_pair;
use crate::matrix::{Combo, Role, combos};
use crate::our_client::{Failure, OurClient, Ran};
use crate::peers::{KeyFile, Offer, PASSWORD, Peer, Rig, write};
use crate::servers::Server;
use crate::summary;
use crate::support::{
    Checked, LARGE, MIDDLE, REKEY_BYTES, SMALL, Watchdog, check_negotiated, client_config, describe,
    limit_times, min_rekeys, payload, report, same,
};

fn name<C: OurClient>(peer: Peer) -> String {
    format!("{} client -> {} server", C::CRATE, peer.name())
}

/// A file with these keys for a server.
fn known_hosts(rig: &Rig, server: &Server, keys: &[KeyFile]) -> PathBuf {
    let file = rig.fresh_dir("known-hosts").join("known_hosts");
    let lines = keys.iter().map(|key| format!("[127.0.0.1]:{} {}\n", server.port, key.public_line()));
    write(&file, &lines.collect::<String>());
    file
}

/// Signs with a key from a file and remembers the algorithms.
struct Recorder {
    key: KeyPair,
    algorithms: Mutex<Vec<String>>,
}

impl Recorder {
    fn new(key: &KeyFile, combo: Option<&Combo>) -> Arc<Self> {
        Arc::new(Self { key: key_pair(key, combo), algorithms: Mutex::default() })
    }

    fn credential(self: &Arc<Self>, probe: bool) -> Credential {
        Credential::PublicKey { key: KeyPair::new(self.key.public.clone(), self.clone()), probe }
    }

    fn algorithms(&self) -> Vec<String> {
        self.algorithms.lock().expect("the list").clone()
    }
}

impl Signer for Recorder {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.algorithms.lock().expect("the list").push(what.algorithm().to_owned());
        self.key.signer.as_ref().ok_or(SignRefused)?.sign(what, entropy)
    }
}

fn text(failure: Failure) -> String {
    format!("{failure:?}")
}

fn check_code(ran: &Ran, code: u32) -> Checked {
    ensure!(ran.status == Some(ExitStatus::Code(code)), "status {:?} instead of {code}", ran.status);
    Ok(())
}

pub(crate) fn every_combination<C: OurClient>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<C>(peer));
    let rig = Rig::share();
    // Everything it has: our client is the one with the single choice.
    let server = rig.serve(peer, &Offer::default());
    let known_hosts = known_hosts(&rig, &server, &rig.host_keys());
    let sent = payload(SMALL);
    let combos = combos(peer, C::CRATE);
    report(combos.iter().enumerate().map(|(index, combo)| {
        // Every other one asks first whether the key would do.
        let result = combination::<C>(&rig, &server, combo, index % 2 == 1, &known_hosts, &sent);
        (format!("{}, {}", name::<C>(peer), describe(combo)), result)
    }));
    summary::record(peer, Role::Server, C::CRATE, combos.len());
}

fn combination<C: OurClient>(
    rig: &Rig,
    server: &Server,
    combo: &Combo,
    probe: bool,
    known_hosts: &Path,
    sent: &[u8],
) -> Checked {
    let client = C::connect(server.port, client_config(Some(combo), None), known_hosts).map_err(text)?;
    check_negotiated(combo, client.negotiated().as_ref())?;
    let key = Recorder::new(&rig.user_key(combo.user_key), Some(combo));
    client.log_in(key.credential(probe)).map_err(text)?;
    let algorithms = key.algorithms();
    ensure!(algorithms == [combo.user_key], "signed with {algorithms:?}");
    let ran = client.run("cat; echo end >&2; exit 3", sent).map_err(text)?;
    same(&ran.stdout, sent)?;
    ensure!(ran.stderr == b"end\n", "stderr {:?}", String::from_utf8_lossy(&ran.stderr));
    check_code(&ran, 3)?;
    client.close().map_err(text)
}

/// A check of one server, by name.
type Check = (&'static str, fn(&Rig, &Server) -> Checked);

pub(crate) fn sessions_and_refusals<C: OurClient>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<C>(peer));
    let rig = Rig::share();
    let server = rig.serve(peer, &Offer::default());
    let checks: [Check; 4] = [
        ("sessions", sessions::<C>),
        ("passwords", passwords::<C>),
        ("unlisted key", unlisted_key::<C>),
        ("wrong host key", wrong_host_key::<C>),
    ];
    report(checks.map(|(what, check)| {
        let result = check(&rig, &server).map_err(|why| format!("{why}\n{}", server.log()));
        (format!("{}, {what}", name::<C>(peer)), result)
    }));
}

fn connect<C: OurClient>(rig: &Rig, server: &Server, rekey: Option<u64>) -> Result<C, String> {
    let known_hosts = known_hosts(rig, server, &rig.host_keys());
    C::connect(server.port, client_config(None, rekey), &known_hosts).map_err(text)
}

fn user_key(rig: &Rig) -> Credential {
    Recorder::new(&rig.user_key("ssh-ed25519"), None).credential(false)
}

fn password(password: &str) -> Credential {
    Credential::Password(Secret::from(password))
}

fn check_runs<C: OurClient>(client: &C) -> Checked {
    let ran = client.run("echo in", &[]).map_err(text)?;
    ensure!(ran.stdout == b"in\n" && ran.stderr.is_empty(), "{ran:?}");
    check_code(&ran, 0)
}

/// One connection, several sessions after each other.
fn sessions<C: OurClient>(rig: &Rig, server: &Server) -> Checked {
    let client: C = connect(rig, server, None)?;
    client.log_in(user_key(rig)).map_err(text)?;
    check_runs(&client)?;
    let ran = client.run("echo out; echo err >&2; exit 7", &[]).map_err(text)?;
    ensure!(ran.stdout == b"out\n" && ran.stderr == b"err\n", "{ran:?}");
    check_code(&ran, 7)?;
    let ran = client.run("echo before; kill -KILL $$", &[]).map_err(text)?;
    ensure!(ran.stdout == b"before\n", "{ran:?}");
    let killed = matches!(&ran.status, Some(ExitStatus::Signal { name, .. }) if name.as_bytes() == b"KILL");
    ensure!(killed, "status {:?} instead of a signal", ran.status);
    // Input that the command does not want.
    let ran = client.run("exec 0<&-; echo done; exit 5", &payload(300_000));
    match ran {
        Ok(ran) => check_code(&ran, 5)?,
        // The server may close the channel before all is written.
        Err(Failure::Other(why)) => ensure!(why.contains("BrokenPipe"), "{why}"),
        Err(other) => return Err(text(other)),
    }
    check_runs(&client)?;
    client.close().map_err(text)
}

fn check_denied(result: Result<(), Failure>, open: &str) -> Checked {
    match result {
        Err(Failure::Denied { remaining }) if remaining.iter().any(|name| name == open) => Ok(()),
        other => Err(format!("{other:?} instead of a refusal")),
    }
}

fn passwords<C: OurClient>(rig: &Rig, server: &Server) -> Checked {
    let client: C = connect(rig, server, None)?;
    check_denied(client.log_in(password("wrong horse")), "password")?;
    client.log_in(password(PASSWORD)).map_err(text)?;
    check_runs(&client)?;
    client.close().map_err(text)
}

fn unlisted_key<C: OurClient>(rig: &Rig, server: &Server) -> Checked {
    let client: C = connect(rig, server, None)?;
    for (algorithm, probe) in [("ssh-ed25519", false), ("ecdsa-sha2-nistp256", true)] {
        let stranger = Recorder::new(&rig.stranger_key(algorithm), None);
        check_denied(client.log_in(stranger.credential(probe)), "publickey")?;
        let signed = !stranger.algorithms().is_empty();
        ensure!(signed != probe, "probed {probe}, signed {signed}");
    }
    client.log_in(user_key(rig)).map_err(text)?;
    check_runs(&client)?;
    client.close().map_err(text)
}

fn wrong_host_key<C: OurClient>(rig: &Rig, server: &Server) -> Checked {
    let strangers = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256"].map(|name| rig.stranger_key(name));
    let refused = |keys: &[KeyFile]| {
        let known_hosts = known_hosts(rig, server, keys);
        match C::connect(server.port, client_config(None, None), &known_hosts) {
            Ok(_) => Err("connected".to_owned()),
            Err(Failure::HostKey(why)) => Ok(why),
            Err(other) => Err(text(other)),
        }
    };
    let why = refused(&strangers)?;
    ensure!(matches!(why, HostKeyRejection::Changed { .. }), "{why:?} for other keys");
    let why = refused(&[])?;
    ensure!(why == HostKeyRejection::Unknown, "{why:?} without keys");
    Ok(())
}

/// Guesses that are right, and wrong ones where the peer drops them as RFC 4253 §7 has it: paramiko takes any for right,
/// and asyncssh any of a method that is negotiated.
pub(crate) fn guesses<C: OurClient>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<C>(peer));
    let rig = Rig::share();
    let (method, host_key) = ("curve25519-sha256@libssh.org", "ssh-ed25519");
    let server = rig.serve(peer, &Offer { kex: Some(method), host_key: Some(host_key), ..Offer::default() });
    let known_hosts = known_hosts(&rig, &server, &[rig.host_key(host_key)]);
    let check = |first: &'static str| {
        let builder = ClientConfig::builder(&PROVIDER)
            .kex(&[first, method][usize::from(first == method)..])
            .host_key_algorithms(&[host_key]);
        let config = builder.guess_kex(true).with_limits(limit_times).build().expect("a valid configuration");
        let client = C::connect(server.port, config, &known_hosts).map_err(text)?;
        let negotiated = client.negotiated().map(|negotiated| negotiated.kex);
        ensure!(negotiated == Some(method), "negotiated {negotiated:?}");
        client.log_in(user_key(&rig)).map_err(text)?;
        check_runs(&client)?;
        client.close().map_err(text)
    };
    let mut results = vec![("a right guess", check(method))];
    if matches!(peer, Peer::OpenSsh | Peer::Dropbear) {
        // Which these versions do not have.
        results.push(("a wrong guess", check("mlkem768x25519-sha256")));
    }
    report(results.into_iter().map(|(what, result)| {
        let result = result.map_err(|why| format!("{why}\n{}", server.log()));
        (format!("{}, {what}", name::<C>(peer)), result)
    }));
}

pub(crate) fn renewed_keys<C: OurClient>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<C>(peer));
    let rig = Rig::share();
    let server = rig.serve(peer, &Offer { rekey: Some(REKEY_BYTES), ..Offer::default() });
    let check = |what: &str, ours, bytes| {
        let result = renewals::<C>(&rig, &server, ours, bytes);
        let result = result.map_err(|why| format!("{why}\n{}", server.log()));
        (format!("{}, new keys at {REKEY_BYTES} bytes {what}", name::<C>(peer)), result)
    };
    let mut results = vec![check("on both sides", Some(REKEY_BYTES), LARGE)];
    // It has no such setting.
    if peer != Peer::Dropbear {
        results.push(check("at the server", None, MIDDLE));
    }
    report(results);
}

fn renewals<C: OurClient>(rig: &Rig, server: &Server, ours: Option<u64>, bytes: usize) -> Checked {
    let client: C = connect(rig, server, ours)?;
    client.log_in(user_key(rig)).map_err(text)?;
    let sent = payload(bytes);
    let ran = client.run("cat", &sent).map_err(text)?;
    same(&ran.stdout, &sent)?;
    check_code(&ran, 0)?;
    let rekeys = client.rekeys();
    println!("{rekeys} renewals of keys with {}, ours at {ours:?}", server.peer.name());
    ensure!(rekeys >= min_rekeys(bytes), "keys were renewed {rekeys} times only");
    client.close().map_err(text)
}
