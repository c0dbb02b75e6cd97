//! The peers as servers, each on a free port of the loopback interface.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::peers::{KeyFile, Offer, PASSWORD, Peer, Rig, USER, read, write};
use crate::process::{Process, poll};

const START_LIMIT: Duration = Duration::from_secs(20);
const START_TRIES: usize = 5;

/// A running server; dropping it kills it with all its connections.
pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) port: u16,
    log: PathBuf,
    _process: Process,
}

impl Server {
    /// What the server has said so far, for messages.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }
}

impl Rig {
    /// Starts a server with all the host keys that the offer allows.
    pub(crate) fn serve(&self, peer: Peer, offer: &Offer<'_>) -> Server {
        let keys = match offer.host_key {
            Some(names) => names.split(',').map(|name| self.host_key(name)).collect(),
            None => self.host_keys(),
        };
        self.serve_with_keys(peer, offer, &keys)
    }

    /// Starts a server with host keys of one's own choice.
    pub(crate) fn serve_with_keys(&self, peer: Peer, offer: &Offer<'_>, keys: &[KeyFile]) -> Server {
        let mut last = String::new();
        // A free port may be taken by the time the server asks for it.
        for _ in 0..START_TRIES {
            let dir = self.fresh_dir(&format!("{}-server", peer.name()));
            match self.try_serve(peer, offer, keys, &dir) {
                Some(server) => return server,
                None => last = read(&dir.join("log")),
            }
        }
        panic!("{} does not start: {last}", peer.name());
    }

    fn try_serve(&self, peer: Peer, offer: &Offer<'_>, keys: &[KeyFile], dir: &Path) -> Option<Server> {
        let log = dir.join("log");
        let given = free_port();
        let command = match peer {
            Peer::OpenSsh => self.sshd(offer, keys, given, dir),
            Peer::Dropbear => self.dropbear(keys, given, dir),
            Peer::Paramiko => self.python_server("paramiko_server.py", offer, keys),
            Peer::AsyncSsh => self.python_server("asyncssh_server.py", offer, keys),
        };
        let mut process = Process::start_server(&command, &log).expect("start a server");
        // None: not yet; Some(None): never.
        let port = poll(START_LIMIT, || {
            let ready = match peer {
                Peer::OpenSsh => read(&log).contains("Server listening on").then_some(given),
                Peer::Dropbear => TcpStream::connect(("127.0.0.1", given)).ok().map(|_| given),
                Peer::Paramiko | Peer::AsyncSsh => announced_port(&read(&log)),
            };
            if process.is_running() { ready.map(Some) } else { Some(None) }
        });
        Some(Server { peer, port: port??, log, _process: process })
    }

    fn sshd(&self, offer: &Offer<'_>, keys: &[KeyFile], port: u16, dir: &Path) -> Command {
        let mut config = format!(
            "Port {port}\n\
             ListenAddress 127.0.0.1\n\
             PidFile none\n\
             AuthorizedKeysFile {}\n\
             StrictModes no\n\
             UsePAM no\n\
             PasswordAuthentication yes\n\
             KbdInteractiveAuthentication no\n\
             PermitRootLogin yes\n\
             PermitUserEnvironment no\n\
             UseDNS no\n\
             MaxAuthTries 6\n\
             MaxSessions 1000\n\
             MaxStartups 1000\n\
             LoginGraceTime 30\n\
             AcceptEnv *\n\
             Subsystem sftp internal-sftp\n\
             LogLevel VERBOSE\n",
            self.authorized_keys().display()
        );
        let mut line = |name: &str, value: &str| {
            writeln!(config, "{name} {value}").expect("write to a string");
        };
        for key in keys {
            line("HostKey", &key.path().display().to_string());
        }
        let algorithms = [
            ("KexAlgorithms", offer.kex),
            ("Ciphers", offer.cipher),
            ("MACs", offer.mac),
            ("HostKeyAlgorithms", offer.host_key),
        ];
        for (name, value) in algorithms {
            if let Some(value) = value {
                line(name, value);
            }
        }
        if let Some(bytes) = offer.rekey {
            line("RekeyLimit", &bytes.to_string());
        }
        let file = dir.join("sshd_config");
        write(&file, &config);
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(file);
        self.with_account(&mut command);
        command
    }

    fn dropbear(&self, keys: &[KeyFile], port: u16, dir: &Path) -> Command {
        let mut command = Command::new("/usr/sbin/dropbear");
        command.args(["-F", "-E", "-p", &format!("127.0.0.1:{port}"), "-P"]).arg(dir.join("pid"));
        for key in keys {
            command.arg("-r").arg(key.dropbear_path());
        }
        self.with_account(&mut command);
        command
    }

    fn python_server(&self, script: &str, offer: &Offer<'_>, keys: &[KeyFile]) -> Command {
        let mut command = self.python_peer(script, offer);
        // Where sshd and dropbear go by themselves.
        command.current_dir(self.home());
        command.args(["--user", USER, "--password", PASSWORD]);
        command.arg("--authorized-keys").arg(self.authorized_keys());
        for key in keys {
            command.arg("--host-key").arg(key.path());
        }
        command
    }

    /// One of the scripts with the arguments that servers and clients share.
    pub(crate) fn python_peer(&self, script: &str, offer: &Offer<'_>) -> Command {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/peers");
        let mut command = Command::new(self.python());
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(peers.join(script));
        let lists = [
            ("--kex", offer.kex),
            ("--ciphers", offer.cipher),
            ("--macs", offer.mac),
            ("--host-key-algs", offer.host_key),
        ];
        for (flag, value) in lists {
            command.args(value.map(|value| format!("{flag}={value}")));
        }
        command.args(offer.rekey.map(|bytes| format!("--rekey-bytes={bytes}")));
        command
    }
}

/// The port in a log's line `listening PORT`.
fn announced_port(log: &str) -> Option<u16> {
    let line = log.lines().find_map(|line| line.strip_prefix("listening "))?;
    line.parse().ok()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    listener.local_addr().expect("local address").port()
}
