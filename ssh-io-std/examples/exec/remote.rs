//! Against a real server.

use std::fmt::Display;
use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ssh_io_std::ssh_proto::{ExitStatus, Secret};
use ssh_io_std::{Client, HostKeys, read_key_file};

use crate::Args;

/// Signal numbers of POSIX for the exit code 128+n.
const SIGNALS: [(&str, u8); 13] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
];

/// Connects, runs the command, and gives the exit code for this process.
pub(crate) fn run(args: &Args, destination: &str) -> Result<u8, String> {
    let (user, host) = destination.split_once('@').ok_or("the destination is user@host")?;
    if args.command.is_empty() {
        return Err("a command is needed".into());
    }
    let mut builder = Client::builder().host_keys(host_keys(args)?);
    if let Some(seconds) = args.timeout {
        builder = builder.connect_timeout(Duration::from_secs(seconds));
    }
    let client = builder.connect(host, args.port).map_err(text)?;
    if args.verbose {
        describe(&client, &mut io::stderr()).map_err(text)?;
    }
    log_in(&client, args, user)?;
    let code = run_command(&client, args).map_err(text)?;
    client.close();
    Ok(code)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Says who talks to whom, and how.
pub(crate) fn describe(client: &Client, out: &mut impl Write) -> io::Result<()> {
    let (ours, theirs) = client.idents();
    writeln!(out, "client version:  {ours}\nserver version:  {theirs}")?;
    if let Some(chosen) = client.negotiated() {
        let mac = |name: Option<&'static str>| name.unwrap_or("(in the cipher)");
        writeln!(out, "key exchange:    {}", chosen.kex)?;
        writeln!(out, "host key:        {}", chosen.host_key)?;
        writeln!(
            out,
            "cipher c→s, s→c: {}, {}",
            chosen.cipher_client_to_server, chosen.cipher_server_to_client
        )?;
        let (to_server, to_client) = (chosen.mac_client_to_server, chosen.mac_server_to_client);
        writeln!(out, "MAC c→s, s→c:    {}, {}", mac(to_server), mac(to_client))?;
        writeln!(out, "strict kex:      {}", if chosen.strict_kex { "yes" } else { "no" })?;
    }
    Ok(())
}

fn host_keys(args: &Args) -> Result<HostKeys, String> {
    if let Some(fingerprint) = &args.fingerprint {
        return Ok(HostKeys::Fingerprint(fingerprint.clone()));
    }
    let file = match &args.known_hosts {
        Some(file) => file.clone(),
        None => {
            let home = std::env::var_os("HOME").ok_or("HOME is not set")?;
            let directory = PathBuf::from(home).join(".ssh");
            if args.accept_new {
                DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(text)?;
            }
            directory.join("known_hosts")
        }
    };
    Ok(if args.accept_new { HostKeys::AcceptNew { file, hash: false } } else { HostKeys::KnownHosts(file) })
}

fn log_in(client: &Client, args: &Args, user: &str) -> Result<(), String> {
    let password = match &args.password_env {
        Some(variable) => Some(std::env::var(variable).map_err(|_| format!("{variable} is not set"))?),
        None => None,
    };
    match (&args.identity, password) {
        (Some(file), passphrase) => {
            let passphrase = passphrase.map(Secret::from);
            let key = read_key_file(file, passphrase.as_ref())
                .map_err(|error| format!("{}: {error}", file.display()))?;
            client.auth_key(user, key).map_err(text)
        }
        (None, Some(password)) => client.auth_password(user, &password).map_err(text),
        (None, None) => Err("no way to log in: -i or --password-env is needed".into()),
    }
}

fn run_command(client: &Client, args: &Args) -> Result<u8, ssh_io_std::Error> {
    let channel = client.open_session()?;
    channel.set_timeout(args.timeout.map(Duration::from_secs));
    channel.exec(args.command.join(" "))?;
    // A command may be silent for as long as it likes.
    channel.set_timeout(None);
    let input = channel.clone();
    // It may be blocked on a terminal when the command is done; then the process ends around it.
    thread::spawn(move || {
        let _ = pump(io::stdin().lock(), &input);
        let _ = input.finish_input();
    });
    let errors = channel.stderr();
    let errors = thread::spawn(move || pump(&errors, io::stderr().lock()));
    pump(&channel, io::stdout().lock())?;
    errors.join().map_err(|_| io::Error::other("stderr"))??;
    Ok(match channel.wait()? {
        Some(ExitStatus::Code(code)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Some(ExitStatus::Signal { name, .. }) => {
            let known = SIGNALS.iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
            known.map_or(255, |(_, number)| 128 + number)
        }
        None => 255,
    })
}

fn pump(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return to.flush();
        }
        to.write_all(&buffer[..n])?;
        to.flush()?;
    }
}
