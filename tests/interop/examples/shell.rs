//! `shell` in a terminal of its own, with sshd.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use ssh_io_std::ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ChannelRequestKind, OpenRequest, WindowSize,
};
use ssh_io_std::{Handler, Question, ServerChannel, ServerConnection};

use super::{example, send_signal, stat};
use crate::peers::{Offer, PASSWORD, Peer, Rig, USER, write};
use crate::process::poll;
use crate::servers::Server;
use crate::support::{WAIT, Watchdog, server_config};

/// What changes of a terminal that a shell or a password needs.
const COOKED: LocalModes = LocalModes::ECHO.union(LocalModes::ICANON).union(LocalModes::ISIG);

fn rows_and_columns(ws_row: u16, ws_col: u16) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal, as one who sits at it has it.
struct Terminal {
    controller: File,
    /// The program's side, kept open so that the settings outlive the program.
    user: File,
    /// All its settings, before any program ran.
    found: String,
    said: String,
}

impl Terminal {
    fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).expect("a terminal");
        grantpt(&controller).expect("the terminal for this user");
        unlockpt(&controller).expect("the terminal unlocked");
        let user = ioctl_tiocgptpeer(&controller, flags).expect("the other side");
        tcsetwinsize(&controller, rows_and_columns(37, 91)).expect("a size");
        ioctl_fionbio(&controller, true).expect("no waiting");
        let mut terminal = Self {
            controller: controller.into(),
            user: user.into(),
            found: String::new(),
            said: String::new(),
        };
        terminal.found = terminal.settings();
        terminal
    }

    fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.user).expect("the settings"))
    }

    fn local_modes(&self) -> LocalModes {
        tcgetattr(&self.user).expect("the settings").local_modes & COOKED
    }

    fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.controller, rows_and_columns(rows, columns)).expect("a new size");
    }

    fn type_in(&mut self, keys: &str) {
        self.controller.write_all(keys.as_bytes()).expect("type");
    }

    /// Reads what is there to be read.
    fn read(&mut self) {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = self.controller.read(&mut piece) {
            self.said.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    }

    /// Waits until it has shown a text, and forgets all up to there.
    fn expect(&mut self, text: &str) {
        let seen = poll(WAIT, || {
            self.read();
            self.said.find(text)
        });
        let at = seen.unwrap_or_else(|| panic!("{text:?} is not shown: {:?}", self.said));
        self.said.drain(..at + text.len());
    }

    /// Waits until it is set so.
    fn expect_modes(&mut self, modes: LocalModes) {
        let set = poll(WAIT, || (self.local_modes() == modes).then_some(()));
        assert!(set.is_some(), "not {modes:?} but {:?}", self.local_modes());
    }
}

/// `shell` in a terminal, killed in the end.
struct Shell {
    terminal: Terminal,
    child: Child,
}

impl Shell {
    /// With a home that knows the host.
    fn start(home: &Path, port: u16, key: Option<&Path>) -> Self {
        let terminal = Terminal::open();
        let side = || Stdio::from(terminal.user.try_clone().expect("a handle"));
        // A session of its own has it as its terminal, and its keys for signals.
        let mut shell = Command::new("setsid");
        shell.arg("--ctty").arg(example("shell")).args([&format!("{USER}@127.0.0.1"), &port.to_string()]);
        shell.args(key).current_dir(home).env("HOME", home).env("TERM", "vt100");
        let child = shell.stdin(side()).stdout(side()).stderr(side()).spawn().expect("start shell");
        Self { terminal, child }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the remote shell listens.
    fn expect_session(&mut self) {
        // What is typed before is thrown away.
        self.terminal.expect_modes(LocalModes::empty());
        self.terminal.type_in("echo sess''ion\r");
        self.terminal.expect("session\r\n");
    }

    /// Waits until it is stopped, which must leave the terminal as it was.
    fn expect_stopped(&self) {
        let stopped = poll(WAIT, || stat(self.id()).is_some_and(|stat| stat.state == "T").then_some(()));
        assert!(stopped.is_some(), "it is not stopped");
        assert_eq!(self.terminal.settings(), self.terminal.found);
    }

    /// Waits for its end, which must leave the terminal as it was.
    fn end(&mut self) -> ExitStatus {
        let ended = poll(WAIT, || {
            self.terminal.read();
            self.child.try_wait().expect("its status")
        });
        self.terminal.read();
        let ended = ended.unwrap_or_else(|| panic!("it does not end: {:?}", self.terminal.said));
        assert_eq!(self.terminal.settings(), self.terminal.found, "{ended}");
        ended
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// sshd, and a home that knows it.
struct Sshd {
    server: Server,
    home: PathBuf,
    key: PathBuf,
}

impl Sshd {
    fn start(rig: &Rig) -> Self {
        let server = rig.serve(Peer::OpenSsh, &Offer { host_key: Some("ssh-ed25519"), ..Offer::default() });
        let home = home_that_knows(rig, server.port);
        Self { server, home, key: rig.user_key("ssh-ed25519").path().to_owned() }
    }

    /// Logged in with a key, and at the prompt.
    fn session(&self) -> Shell {
        let mut shell = Shell::start(&self.home, self.server.port, Some(&self.key));
        shell.expect_session();
        shell
    }

    /// Asked for the password.
    fn at_the_password(&self) -> Shell {
        let mut shell = Shell::start(&self.home, self.server.port, None);
        shell.terminal.expect("password: ");
        shell.terminal.expect_modes(COOKED - LocalModes::ECHO);
        shell
    }
}

fn home_that_knows(rig: &Rig, port: u16) -> PathBuf {
    let home = rig.fresh_dir("shell");
    std::fs::create_dir(home.join(".ssh")).expect("a directory");
    let host = rig.host_key("ssh-ed25519").public_line();
    write(&home.join(".ssh/known_hosts"), &format!("[127.0.0.1]:{port} {host}\n"));
    home
}

#[test]
fn the_remote_terminal_is_as_large_and_the_code_is_returned() {
    let _watchdog = Watchdog::new("shell, size".into());
    let rig = Rig::share();
    let sshd = Sshd::start(&rig);
    let mut shell = sshd.session();
    shell.terminal.type_in("echo $TERM; stty size\r");
    shell.terminal.expect("vt100\r\n37 91\r\n");
    shell.terminal.resize(40, 100);
    // Keys may arrive before the new size.
    shell.terminal.type_in("until test \"$(stty size)\" = '40 100'; do sleep 0.05; done; echo re''sized\r");
    shell.terminal.expect("resized\r\n");
    shell.terminal.type_in("exit 3\r");
    assert_eq!(shell.end().code(), Some(3));
}

#[test]
fn the_end_by_a_signal_there_is_told() {
    let _watchdog = Watchdog::new("shell, remote signal".into());
    let rig = Rig::share();
    let sshd = Sshd::start(&rig);
    let mut shell = sshd.session();
    shell.terminal.type_in("kill -KILL $$\r");
    assert_eq!(shell.end().code(), Some(128 + 9));
    shell.terminal.expect("shell: the remote shell was ended by the signal KILL\r\n");
}

#[test]
fn a_signal_here_ends_it_and_leaves_the_terminal_as_it_was() {
    let _watchdog = Watchdog::new("shell, local signals".into());
    let rig = Rig::share();
    let sshd = Sshd::start(&rig);
    for signal in [Signal::TERM, Signal::QUIT, Signal::HUP, Signal::INT] {
        let mut shell = sshd.session();
        send_signal(shell.id(), signal);
        assert_eq!(shell.end().signal(), Some(signal.as_raw()));
    }
    for (key, signal) in [("\x03", Signal::INT), ("\x1c", Signal::QUIT)] {
        let mut shell = sshd.at_the_password();
        shell.terminal.type_in(key);
        assert_eq!(shell.end().signal(), Some(signal.as_raw()));
    }
}

#[test]
fn it_can_be_stopped_and_goes_on() {
    let _watchdog = Watchdog::new("shell, stopped".into());
    let rig = Rig::share();
    let sshd = Sshd::start(&rig);
    let mut shell = sshd.at_the_password();
    shell.terminal.type_in("\x1a");
    shell.expect_stopped();
    send_signal(shell.id(), Signal::CONT);
    shell.terminal.expect_modes(COOKED - LocalModes::ECHO);
    shell.terminal.type_in(&format!("{PASSWORD}\n"));
    shell.expect_session();
    // In the session the key is the remote shell's, and a signal is still ours.
    send_signal(shell.id(), Signal::TSTP);
    shell.expect_stopped();
    send_signal(shell.id(), Signal::CONT);
    shell.terminal.expect_modes(LocalModes::empty());
    shell.terminal.type_in("exit\r");
    assert_eq!(shell.end().code(), Some(0));
}

#[test]
fn a_lost_connection_ends_it_with_a_reason() {
    let _watchdog = Watchdog::new("shell, lost connection".into());
    let rig = Rig::share();
    let sshd = Sshd::start(&rig);
    let mut shell = sshd.session();
    drop(sshd.server);
    assert_eq!(shell.end().code(), Some(255));
    shell.terminal.expect("shell: ");
}

/// Changes the size of the client's terminal as soon as it knows the first one, and tells all it hears of.
struct Resizing {
    terminal: File,
    sizes: Sender<WindowSize>,
    channels: Vec<ServerChannel>,
}

impl Handler for Resizing {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let _ = request.reply(AuthVerdict::Accept);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.channels.extend(request.accept(ChannelConfig::default()));
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        match request.kind() {
            ChannelRequestKind::Pty { size, .. } => {
                let _ = self.sizes.send(*size);
                tcsetwinsize(&self.terminal, rows_and_columns(40, 100)).expect("a new size");
            }
            ChannelRequestKind::WindowChange(size) => drop(self.sizes.send(*size)),
            _ => {}
        }
        let _ = request.reply(true);
    }
}

#[test]
fn a_new_size_during_the_start_is_not_missed() {
    let _watchdog = Watchdog::new("shell, early resize".into());
    let rig = Rig::share();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("a local address").port();
    let home = home_that_knows(&rig, port);
    let shell = Shell::start(&home, port, Some(rig.user_key("ssh-ed25519").path()));
    let (sizes, told) = channel();
    let terminal = shell.terminal.controller.try_clone().expect("a handle");
    let (stream, _) = listener.accept().expect("a client");
    let config = Arc::clone(&server_config(&rig, None, None));
    let _serving =
        ServerConnection::start(config, stream, Resizing { terminal, sizes, channels: Vec::new() });
    for (rows, columns) in [(37, 91), (40, 100)] {
        let size = told.recv_timeout(WAIT).expect("a size");
        assert_eq!((size.rows, size.columns), (rows, columns));
    }
}
