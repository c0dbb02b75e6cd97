//! The peers' clients with our server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::clients::{Job, Login, Outcome};
use crate::matrix::{Combo, Role, combos};
use crate::our_server::{Connection as _, Note, OurServer};
use crate::peers::{KeyFile, Offer, PASSWORD, Peer, Rig};
use crate::summary;
use crate::support::{
    Checked, LARGE, MIDDLE, REKEY_BYTES, SMALL, TRANSFER_LIMIT, WAIT, Watchdog, check_negotiated, describe,
    min_rekeys, payload, report, same, server_config,
};

fn name<S: OurServer>(peer: Peer) -> String {
    format!("{} client -> {} server", peer.name(), S::CRATE)
}

/// A client's run against our server, and what the server saw of it.
struct Visit<'a, S> {
    rig: &'a Rig,
    server: &'a S,
    peer: Peer,
    offer: Offer<'a>,
    login: Login,
    known_host: KeyFile,
    stdin: Option<&'a Path>,
    limit: Duration,
}

impl<'a, S: OurServer> Visit<'a, S> {
    fn new(rig: &'a Rig, server: &'a S, peer: Peer) -> Self {
        // dbclient takes the host key that it knows for the one to ask for; the others take the server's first.
        let login = Login::Key(rig.user_key("ssh-ed25519"));
        let known_host = rig.host_key("ssh-ed25519");
        Self { rig, server, peer, offer: Offer::default(), login, known_host, stdin: None, limit: WAIT }
    }

    fn run(&self, command: &str) -> Outcome {
        self.server.forget();
        let job = Job {
            port: self.server.port(),
            offer: self.offer,
            login: self.login.clone(),
            known_host: self.known_host.clone(),
            command,
            stdin: self.stdin,
            limit: self.limit,
        };
        self.rig.run(self.peer, &job)
    }

    /// What is known of a run that went wrong.
    fn story(&self, outcome: &Outcome) -> String {
        let Outcome { stderr, log, code, .. } = outcome;
        let output = outcome.stdout_text();
        let output: String = output.chars().take(200).collect();
        format!("code {code:?}, output {output:?}, errors {stderr:?}\n{}\n{log}", self.server.story())
    }

    fn succeeded(&self, outcome: &Outcome, code: i32) -> Checked {
        ensure!(outcome.code == Some(code), "not code {code}: {}", self.story(outcome));
        Ok(())
    }
}

pub(crate) fn every_combination<S: OurServer>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<S>(peer));
    let rig = Rig::share();
    let sent = payload(SMALL);
    let stdin = rig.fresh_dir("input").join("small");
    fs::write(&stdin, &sent).expect("write the input");
    let combos = combos(peer, S::CRATE);
    report(combos.iter().map(|combo| {
        let result = combination::<S>(&rig, peer, combo, &stdin, &sent);
        (format!("{}, {}", name::<S>(peer), describe(combo)), result)
    }));
    summary::record(peer, Role::Client, S::CRATE, combos.len());
}

fn combination<S: OurServer>(rig: &Rig, peer: Peer, combo: &Combo, stdin: &Path, sent: &[u8]) -> Checked {
    let server = S::start(server_config(rig, Some(combo), None), rig);
    let visit = Visit {
        offer: combo.into(),
        login: Login::Key(rig.user_key(combo.user_key)),
        known_host: rig.host_key(combo.host_key),
        stdin: Some(stdin),
        ..Visit::new(rig, &server, peer)
    };
    let outcome = visit.run("cat; echo end >&2; exit 3");
    visit.succeeded(&outcome, 3)?;
    same(&outcome.stdout, sent)?;
    ensure!(outcome.stderr.contains("end\n"), "{}", visit.story(&outcome));
    let connection = server.connection().ok_or("no connection")?;
    check_negotiated(combo, connection.negotiated().as_ref())?;
    let log_in = Note::LogIn { with: combo.user_key, accepted: true };
    ensure!(server.notes().contains(&log_in), "another login: {}", visit.story(&outcome));
    Ok(())
}

/// A check of one client, by name.
type Check<S> = (&'static str, fn(Visit<'_, S>) -> Checked);

pub(crate) fn sessions_and_refusals<S: OurServer>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<S>(peer));
    let rig = Rig::share();
    let server = S::start(server_config(&rig, None, None), &rig);
    let visit = || Visit::new(&rig, &server, peer);
    let checks: [Check<S>; 6] = [
        ("sessions", sessions),
        ("death by signal", death_by_signal),
        ("right password", right_password),
        ("wrong password", wrong_password),
        ("unlisted key", unlisted_key),
        ("wrong host key", wrong_host_key),
    ];
    report(checks.map(|(what, check)| (format!("{}, {what}", name::<S>(peer)), check(visit()))));
}

fn sessions<S: OurServer>(visit: Visit<'_, S>) -> Checked {
    let outcome = visit.run("echo out; echo err >&2");
    visit.succeeded(&outcome, 0)?;
    let apart = outcome.stdout == b"out\n"
        && match visit.peer {
            // Its own words are on stderr too.
            Peer::Dropbear => outcome.stderr.ends_with("err\n"),
            _ => outcome.stderr == "err\n",
        };
    ensure!(apart, "{}", visit.story(&outcome));
    let outcome = visit.run("exit 7");
    visit.succeeded(&outcome, 7)?;
    ensure!(outcome.stdout.is_empty(), "{}", visit.story(&outcome));
    Ok(())
}

fn death_by_signal<S: OurServer>(visit: Visit<'_, S>) -> Checked {
    let outcome = visit.run("echo before; kill -KILL $$");
    let told = match visit.peer {
        Peer::OpenSsh => outcome.code == Some(255) && outcome.log.contains("rtype exit-signal"),
        // It does not know this request.
        Peer::Dropbear => outcome.code == Some(0),
        Peer::Paramiko | Peer::AsyncSsh => outcome.code == Some(128 + 9),
    };
    ensure!(told && outcome.stdout == b"before\n", "{}", visit.story(&outcome));
    Ok(())
}

fn right_password<S: OurServer>(mut visit: Visit<'_, S>) -> Checked {
    visit.login = Login::Password(PASSWORD.to_owned());
    let outcome = visit.run("echo in");
    visit.succeeded(&outcome, 0)?;
    let log_in = Note::LogIn { with: "password", accepted: true };
    let right = outcome.stdout == b"in\n" && visit.server.notes().contains(&log_in);
    ensure!(right, "{}", visit.story(&outcome));
    Ok(())
}

/// Checks that a client was not let in, and said so.
fn check_refused<S: OurServer>(visit: &Visit<'_, S>, outcome: &Outcome) -> Checked {
    let said = match visit.peer {
        Peer::OpenSsh => outcome.code == Some(255) && outcome.log.contains("Permission denied"),
        // 0 after a disconnect message.
        Peer::Dropbear => matches!(outcome.code, Some(0 | 1)),
        Peer::Paramiko | Peer::AsyncSsh => outcome.code == Some(254),
    };
    let notes = visit.server.notes();
    let in_vain =
        !notes.iter().any(|note| matches!(note, Note::Exec(_) | Note::LogIn { accepted: true, .. }));
    ensure!(said && in_vain && outcome.stdout.is_empty(), "{}", visit.story(outcome));
    Ok(())
}

fn wrong_password<S: OurServer>(mut visit: Visit<'_, S>) -> Checked {
    visit.login = Login::Password("wrong horse".to_owned());
    let outcome = visit.run("echo in");
    check_refused(&visit, &outcome)?;
    let tried = Note::LogIn { with: "password", accepted: false };
    ensure!(visit.server.notes().contains(&tried), "{}", visit.story(&outcome));
    Ok(())
}

fn unlisted_key<S: OurServer>(mut visit: Visit<'_, S>) -> Checked {
    visit.login = Login::Key(visit.rig.stranger_key("ssh-ed25519"));
    let outcome = visit.run("echo in");
    check_refused(&visit, &outcome)?;
    let tried = [Note::Probe { listed: false }, Note::LogIn { with: "ssh-ed25519", accepted: false }];
    let notes = visit.server.notes();
    ensure!(tried.iter().any(|tried| notes.contains(tried)), "{}", visit.story(&outcome));
    Ok(())
}

fn wrong_host_key<S: OurServer>(mut visit: Visit<'_, S>) -> Checked {
    visit.known_host = visit.rig.stranger_key("ssh-ed25519");
    let outcome = visit.run("echo in");
    let said = match visit.peer {
        Peer::Dropbear => outcome.code == Some(1),
        _ => outcome.code == Some(255),
    };
    let tried = !visit.server.notes().is_empty();
    ensure!(said && !tried && outcome.stdout.is_empty(), "{}", visit.story(&outcome));
    Ok(())
}

pub(crate) fn renewed_keys<S: OurServer>(peer: Peer) {
    let _watchdog = Watchdog::new(name::<S>(peer));
    let rig = Rig::share();
    let check = |what: &str, ours, bytes| {
        let what = format!("{}, new keys at {REKEY_BYTES} bytes {what}", name::<S>(peer));
        (what, renewals::<S>(&rig, peer, ours, bytes))
    };
    let mut results = vec![check("on both sides", Some(REKEY_BYTES), LARGE)];
    // It has no such setting.
    if peer != Peer::Dropbear {
        results.push(check("at the client", None, MIDDLE));
    }
    report(results);
}

fn renewals<S: OurServer>(rig: &Rig, peer: Peer, ours: Option<u64>, bytes: usize) -> Checked {
    let sent = payload(bytes);
    let stdin = rig.fresh_dir("input").join("large");
    fs::write(&stdin, &sent).expect("write the input");
    let server = S::start(server_config(rig, None, ours), rig);
    let visit = Visit {
        offer: Offer { rekey: Some(REKEY_BYTES), ..Offer::default() },
        stdin: Some(&stdin),
        limit: TRANSFER_LIMIT,
        ..Visit::new(rig, &server, peer)
    };
    let outcome = visit.run("cat");
    let _ = fs::remove_file(&stdin);
    visit.succeeded(&outcome, 0)?;
    same(&outcome.stdout, &sent)?;
    let rekeys = server.connection().ok_or("no connection")?.rekeys();
    println!("{rekeys} renewals of keys with {}, ours at {ours:?}", peer.name());
    ensure!(rekeys >= min_rekeys(bytes), "keys were renewed {rekeys} times only");
    Ok(())
}
