//! Against a real server.

use std::fmt::Display;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ssh_io_std::ssh_proto::{ChannelRequestKind, ExitStatus, Secret};
use ssh_io_std::{Client, Error, HostKeys, read_key_file};

use crate::{Args, Destination, say};

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
pub(crate) fn run(args: &Args, Destination { user, host }: &Destination) -> Result<u8, String> {
    let mut builder = Client::builder().host_keys(host_keys(args)?);
    if let Some(seconds) = args.timeout {
        builder = builder.connect_timeout(Duration::from_secs(seconds));
    }
    let client = builder.connect(host, args.port).map_err(|error| match error {
        Error::Io(error) => format!("{host} port {}: {error}", args.port),
        error => text(error),
    })?;
    if args.verbose {
        let _ = describe(&client, &mut io::stderr());
    }
    client.set_timeout(args.timeout.map(Duration::from_secs));
    log_in(&client, args, user)?;
    let code = run_command(&client, args).map_err(text)?;
    client.close();
    Ok(code)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn about(file: &Path, error: impl Display) -> String {
    format!("{}: {error}", file.display())
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
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
                made.map_err(|error| about(&directory, error))?;
            }
            directory.join("known_hosts")
        }
    };
    // Tried here, where an error still has a file.
    let exists = match File::open(&file).and_then(|mut file| file.read(&mut [0])) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(about(&file, error)),
    };
    if !args.accept_new {
        return Ok(HostKeys::KnownHosts(file));
    }
    match OpenOptions::new().append(true).create(true).open(&file) {
        Ok(_) => Ok(HostKeys::AcceptNew { file, hash: false }),
        // The hosts that are known need no recording.
        Err(error) if exists => {
            say(&about(&file, format_args!("no key can be recorded: {error}")));
            Ok(HostKeys::KnownHosts(file))
        }
        Err(error) => Err(about(&file, error)),
    }
}

fn log_in(client: &Client, args: &Args, user: &str) -> Result<(), String> {
    let password = match &args.password_env {
        Some(variable) => Some(std::env::var(variable).map_err(|_| format!("{variable} is not set"))?),
        None => None,
    };
    match (&args.identity, password) {
        (Some(file), passphrase) => {
            let passphrase = passphrase.map(Secret::from);
            let key = read_key_file(file, passphrase.as_ref()).map_err(|error| about(file, error))?;
            client.auth_key(user, key).map_err(text)
        }
        (None, Some(password)) => client.auth_password(user, &password).map_err(text),
        (None, None) => Err("no way to log in: -i or --password-env is needed".into()),
    }
}

fn run_command(client: &Client, args: &Args) -> Result<u8, Error> {
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
    let errors = thread::spawn(move || pump(&errors, Outlet { to: Some(io::stderr()), gone: || {} }));
    // As OpenSSH does: its server then lets the command know. Others need not understand it.
    let end_of_writing = ChannelRequestKind::Other { name: "eow@openssh.com".into(), data: Vec::new() };
    let gone = || drop(channel.send_request(&end_of_writing, false));
    pump(&channel, Outlet { to: Some(io::stdout()), gone })?;
    errors.join().map_err(|_| io::Error::other("stderr"))??;
    Ok(match channel.wait()? {
        Some(ExitStatus::Code(code)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Some(ExitStatus::Signal { name, .. }) => {
            let known = SIGNALS.iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
            known.map_or_else(
                || {
                    say(&format!("the command was ended by the signal {name}"));
                    255
                },
                |(_, number)| 128 + number,
            )
        }
        None => {
            say("the server did not say how the command ended");
            255
        }
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

/// An output of ours. When its reader is gone, that is told once and the rest is thrown away: the command goes on,
/// and its exit code still counts.
struct Outlet<W, F> {
    to: Option<W>,
    gone: F,
}

impl<W: Write, F: Fn()> Write for Outlet<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(to) = &mut self.to
            && to.write_all(bytes).and_then(|()| to.flush()).is_err()
        {
            self.to = None;
            (self.gone)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
