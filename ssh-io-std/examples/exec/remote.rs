//! Against a real server.

use std::io::{self, Read, Write};
use std::thread;

use ssh_io_std::ssh_proto::ChannelRequestKind;
use ssh_io_std::{Client, Error, HostKeys};

use crate::args::{Args, Destination, Trust, text};
use crate::exit::exit_code;
use crate::figures::describe;

/// Connects, runs the command, and gives the exit code for this process.
pub(crate) fn run(args: &Args, Destination { user, host }: &Destination) -> Result<u8, String> {
    // Before the host's key may be recorded.
    let credential = args.credential()?;
    let mut builder = Client::builder().host_keys(host_keys(args)?);
    if let Some(timeout) = args.timeout() {
        builder = builder.connect_timeout(timeout);
    }
    let client = builder.connect(host, args.port).map_err(|error| match error {
        Error::Io(error) => format!("{host} port {}: {error}", args.port),
        error => text(error),
    })?;
    if args.verbose {
        let _ = describe(&mut io::stderr(), client.idents(), client.negotiated());
    }
    client.set_timeout(args.timeout());
    client.authenticate(user, credential).map_err(text)?;
    let code = run_command(&client, args).map_err(text)?;
    client.close();
    Ok(code)
}

fn host_keys(args: &Args) -> Result<HostKeys, String> {
    Ok(match args.trust()? {
        Trust::Fingerprint(fingerprint) => HostKeys::Fingerprint(fingerprint),
        Trust::KnownHosts(file) => HostKeys::KnownHosts(file),
        Trust::AcceptNew(file) => HostKeys::AcceptNew { file, hash: false },
    })
}

fn run_command(client: &Client, args: &Args) -> Result<u8, Error> {
    let channel = client.open_session()?;
    channel.set_timeout(args.timeout());
    channel.exec(args.command_line())?;
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
    let copied = pump(&channel, Outlet { to: Some(io::stdout()), gone });
    // What came on stderr before the connection was lost is passed on too.
    errors.join().map_err(|_| io::Error::other("stderr"))?.and(copied)?;
    Ok(exit_code(channel.wait()?))
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
