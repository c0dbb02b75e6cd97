//! An interactive shell on a server, as `ssh user@host` gives it.
//!
//! `shell USER@HOST [PORT] [KEY-FILE]`, from a terminal. The host must be in `~/.ssh/known_hosts`. Without a key
//! file it asks for the password.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write, copy, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{env, thread};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use ssh_io_std::ssh_proto::{ExitStatus, StderrMode, TerminalModes, WindowSize};
use ssh_io_std::{Channel, Client, HostKeys};

/// The terminal: how it was found, while it is changed.
#[derive(Default)]
struct Terminal(Mutex<Option<Termios>>);

impl Terminal {
    /// The terminal, which a signal that ends this process has restored first.
    fn watched() -> io::Result<Arc<Self>> {
        let (terminal, mut signals) = (Arc::new(Self::default()), Signals::new([SIGHUP, SIGINT, SIGTERM])?);
        let watched = Arc::clone(&terminal);
        thread::Builder::new().spawn(move || {
            for signal in signals.forever() {
                // Kept to the end: nobody changes it any more.
                let mut found = watched.found();
                restore(&mut found);
                let _ = emulate_default_handler(signal);
            }
        })?;
        Ok(terminal)
    }

    fn found(&self) -> MutexGuard<'_, Option<Termios>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it until the end of a scope, also by a panic.
    fn change(&self, change: impl FnOnce(&mut Termios)) -> io::Result<Changed<'_>> {
        let mut found = self.found();
        let mut settings = tcgetattr(stdin())?;
        *found = Some(settings.clone());
        change(&mut settings);
        tcsetattr(stdin(), OptionalActions::Flush, &settings)?;
        Ok(Changed(self))
    }
}

fn restore(found: &mut Option<Termios>) {
    if let Some(found) = found.take() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &found);
    }
}

/// Restores the terminal when it is dropped.
struct Changed<'a>(&'a Terminal);

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        restore(&mut self.0.found());
    }
}

fn ask_password(terminal: &Terminal) -> io::Result<String> {
    write!(stderr(), "password: ")?;
    let _quiet = terminal.change(|settings| settings.local_modes.remove(LocalModes::ECHO))?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    writeln!(stderr())?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn window_size() -> io::Result<WindowSize> {
    let size = tcgetwinsize(stdin())?;
    Ok(WindowSize {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
        width: size.ws_xpixel.into(),
        height: size.ws_ypixel.into(),
    })
}

/// Tells the program how large the terminal is, whenever that changes.
fn follow_window(channel: Channel) -> io::Result<()> {
    let mut changes = Signals::new([SIGWINCH])?;
    thread::Builder::new().spawn(move || {
        for _ in changes.forever() {
            let told = window_size().map(|size| channel.window_change(size));
            if !matches!(told, Ok(Ok(()))) {
                break;
            }
        }
    })?;
    Ok(())
}

/// A terminal's handle without the lines that the standard library waits for.
fn unbuffered(of: impl AsFd) -> io::Result<File> {
    Ok(of.as_fd().try_clone_to_owned()?.into())
}

/// Copies what is typed, until the program ends.
fn follow_keys(channel: Channel) -> io::Result<()> {
    let mut keys = unbuffered(stdin())?;
    thread::Builder::new().spawn(move || {
        let _ = copy(&mut keys, &mut &channel);
        let _ = channel.finish_input();
    })?;
    Ok(())
}

fn run() -> Result<Option<ExitStatus>, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (user, host) =
        args.first().and_then(|to| to.rsplit_once('@')).ok_or("shell USER@HOST [PORT] [KEY]")?;
    if !stdin().is_terminal() {
        return Err("the input is not a terminal".into());
    }
    let terminal = Terminal::watched()?;
    let port = args.get(1).map_or(Ok(22), |port| port.parse())?;
    let known = HostKeys::KnownHosts(format!("{}/.ssh/known_hosts", env::var("HOME")?).into());
    let client = Client::builder().host_keys(known).connect(host, port)?;
    match args.get(2) {
        Some(key) => client.auth_key_file(user, key, None)?,
        None => client.auth_password(user, &ask_password(&terminal)?)?,
    }
    let channel = client.open_session()?;
    // One terminal for both: what nobody reads would fill the window.
    channel.set_stderr(StderrMode::Combined);
    let term = env::var("TERM").unwrap_or_else(|_| "dumb".into());
    channel.request_pty(&term, window_size()?, TerminalModes::default())?;
    channel.shell()?;
    // From here on the server's terminal edits and echoes, not this one.
    let raw = terminal.change(Termios::make_raw)?;
    follow_window(channel.clone())?;
    follow_keys(channel.clone())?;
    copy(&mut &channel, &mut unbuffered(stdout())?)?;
    let status = channel.wait_exit()?;
    drop(raw);
    client.close();
    Ok(status)
}

fn main() -> ExitCode {
    match run() {
        Ok(Some(ExitStatus::Code(code))) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "shell: {error}");
            ExitCode::from(255)
        }
    }
}
