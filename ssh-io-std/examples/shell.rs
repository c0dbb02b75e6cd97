//! An interactive shell on a server, as `ssh user@host` gives it.
//!
//! `shell USER@HOST [PORT] [KEY-FILE]`, from a terminal. The host must be in `~/.ssh/known_hosts`. Without a key
//! file, which must be one without a passphrase, it asks for the password.

#[path = "common/exit.rs"]
mod exit;

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write, copy, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{env, thread};

use exit::{exit_code, say, signal_code};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use ssh_io_std::ssh_proto::{ExitStatus, StderrMode, TerminalModes, WindowSize};
use ssh_io_std::{Channel, Client, Error as SshError, HostKeys, read_key_file};

/// The terminal: how it was found, while it is changed.
#[derive(Default)]
struct Terminal(Mutex<Option<Termios>>);

impl Terminal {
    /// The terminal, which a signal that ends or stops this process has restored first.
    fn watched() -> io::Result<Arc<Self>> {
        let terminal = Arc::new(Self::default());
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP])?;
        let watched = Arc::clone(&terminal);
        thread::Builder::new().spawn(move || {
            for signal in signals.forever() {
                // Kept meanwhile, in most cases to the end: nobody else changes it.
                let mut found = watched.found();
                let first = found.clone();
                let changed = found.as_ref().and_then(|_| tcgetattr(stdin()).ok());
                restore(&mut found);
                let _ = emulate_default_handler(signal);
                // It was stopped, and goes on.
                if let Some(changed) = changed {
                    *found = first;
                    let _ = tcsetattr(stdin(), OptionalActions::Flush, &changed);
                }
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
fn follow_window(mut changes: Signals, channel: Channel) -> io::Result<()> {
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
    let usage = "usage: shell USER@HOST [PORT] [KEY-FILE]";
    let (user, host) = args.first().and_then(|to| to.rsplit_once('@')).ok_or(usage)?;
    let port: u16 = args.get(1).map_or(Ok(22), |port| port.parse()).map_err(|_| usage)?;
    if !stdin().is_terminal() {
        return Err("the input is not a terminal".into());
    }
    let key = match args.get(2) {
        Some(file) => Some(read_key_file(file, None).map_err(|error| format!("{file}: {error}"))?),
        None => None,
    };
    let terminal = Terminal::watched()?;
    let home = env::var("HOME").map_err(|_| "HOME is not set")?;
    let known = HostKeys::KnownHosts(format!("{home}/.ssh/known_hosts").into());
    let client = Client::builder().host_keys(known).connect(host, port).map_err(|error| match error {
        SshError::Io(error) => format!("{host} port {port}: {error}"),
        error => error.to_string(),
    })?;
    match key {
        Some(key) => client.auth_key(user, key)?,
        None => client.auth_password(user, &ask_password(&terminal)?)?,
    }
    let channel = client.open_session()?;
    // One terminal for both: what nobody reads would fill the window.
    channel.set_stderr(StderrMode::Combined);
    let term = env::var("TERM").unwrap_or_else(|_| "dumb".into());
    // From before its size is read: none of its changes is missed.
    let changes = Signals::new([SIGWINCH])?;
    channel.request_pty(&term, window_size()?, TerminalModes::default())?;
    channel.shell()?;
    // From here on the server's terminal edits and echoes, not this one.
    let raw = terminal.change(Termios::make_raw)?;
    follow_window(changes, channel.clone())?;
    follow_keys(channel.clone())?;
    copy(&mut &channel, &mut unbuffered(stdout())?)?;
    let status = channel.wait_exit()?;
    drop(raw);
    client.close();
    Ok(status)
}

fn main() -> ExitCode {
    ExitCode::from(match run() {
        Ok(Some(ExitStatus::Signal { name, .. })) => {
            say(&format!("the remote shell was ended by the signal {name}"));
            signal_code(&name).unwrap_or(255)
        }
        Ok(status) => exit_code(status),
        Err(error) => {
            say(&error.to_string());
            255
        }
    })
}
