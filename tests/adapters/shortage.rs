//! Servers that run out of descriptors, and have them again.

use std::fs::{File, read_link};
use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ssh_io_std as blocking;
use tokio::net::TcpSocket;
use tokio::runtime::Builder;

use crate::crowd::{is_served, waits_until};
use crate::over_std::Serves;
use crate::over_tokio::serve;
use crate::session::configs;
use crate::tally::{PATIENCE, STD, TOKIO, survived, turn};

/// Set for a test that runs alone.
const ALONE: &str = "SSH_TESTS_ALONE";

/// Limits are those of a whole process: runs a test once more, in one of its own. Whether this is that one.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut run = Command::new(std::env::current_exe().unwrap());
    let run = run.args(["--exact", test]).env(ALONE, "1");
    let ran = run.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}

/// Allows no more than that of something, until it is dropped.
struct Shortage(Resource, Rlimit);

impl Shortage {
    fn of(what: Resource, most: u64) -> Self {
        let before = getrlimit(what);
        setrlimit(what, Rlimit { current: Some(most), maximum: before.maximum }).unwrap();
        Self(what, before)
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        setrlimit(self.0, self.1).unwrap();
    }
}

/// A server, and what its thread tells of itself.
struct Serving {
    at: SocketAddr,
    status: File,
    thread: JoinHandle<()>,
}

/// Where a server listens, and which thread it runs on.
type Begun = Sender<(SocketAddr, File)>;

fn has_begun(begun: &Begun, at: SocketAddr) {
    let thread = read_link("/proc/thread-self").unwrap();
    begun.send((at, File::open(format!("/proc/{}/status", thread.display())).unwrap())).unwrap();
}

fn serving(run: impl FnOnce(Begun) + Send + 'static) -> Serving {
    let (sender, begun) = channel();
    let thread = thread::spawn(|| run(sender));
    let (at, status) = begun.recv_timeout(PATIENCE).unwrap();
    Serving { at, status, thread }
}

fn blocking_server(server: &blocking::Server) -> Serving {
    let server = server.clone();
    serving(move |begun| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        has_begun(&begun, listener.local_addr().unwrap());
        server.serve(&listener, |_, _| Serves { channels: Vec::new(), closed: channel().0 }).unwrap();
    })
}

fn asynchronous_server(server: &ssh_io_tokio::Server) -> Serving {
    let server = server.clone();
    serving(move |begun| {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            has_begun(&begun, listener.local_addr().unwrap());
            server.serve(listener, |connection, _| serve(connection)).await.unwrap();
        });
    })
}

impl Serving {
    /// How often its thread had nothing to do, and waited. One that spins does not.
    fn waits(&self) -> usize {
        let (mut status, mut text) = (&self.status, String::new());
        status.rewind().unwrap();
        status.read_to_string(&mut text).unwrap();
        number(&text, "voluntary_ctxt_switches:")
    }
}

/// The number behind a name in a status.
fn number(status: &str, name: &str) -> usize {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Clients that come when there are no descriptors. The blocking server has one more, for the call it is in.
const COMERS: usize = 4;
/// How often a server waits that is out of descriptors.
const WAITS: usize = 10;

fn without_descriptors(serving: &Serving) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let sockets: Vec<_> =
        runtime.block_on(async { (0..COMERS).map(|_| TcpSocket::new_v4().unwrap()).collect() });
    // All those below are taken, so that what is let go meanwhile is of no use.
    let shortage = Shortage::of(Resource::Nofile, 3);
    assert!(File::open("/dev/null").is_err());
    let clients: Vec<TcpStream> = runtime.block_on(async {
        let mut clients = Vec::new();
        for socket in sockets {
            clients.push(socket.connect(serving.at).await.unwrap().into_std().unwrap());
        }
        clients
    });
    let before = serving.waits();
    waits_until("a server that backs off", || serving.waits() >= before + WAITS);
    drop(shortage);
    let mut greeted = 0;
    for mut client in clients {
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        match client.read_exact(&mut [0; 8]) {
            Ok(()) => greeted += 1,
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was forgotten"),
        }
    }
    assert!(greeted >= COMERS - 1, "{greeted} of {COMERS}");
    is_served(serving.at);
}

#[test]
fn ad_18_a_blocking_server_without_descriptors() {
    let _turn = turn();
    if is_alone("shortage::ad_18_a_blocking_server_without_descriptors") {
        let server = blocking::Server::new(configs().1);
        let serving = blocking_server(&server);
        without_descriptors(&serving);
        server.shutdown(Duration::ZERO);
        serving.thread.join().unwrap();
    }
    survived(STD, "clients that come when there are no descriptors", COMERS);
}

#[test]
fn ad_18_an_asynchronous_server_without_descriptors() {
    let _turn = turn();
    if is_alone("shortage::ad_18_an_asynchronous_server_without_descriptors") {
        let server = ssh_io_tokio::Server::new(configs().1);
        let serving = asynchronous_server(&server);
        without_descriptors(&serving);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(server.shutdown(Duration::ZERO));
        serving.thread.join().unwrap();
    }
    survived(TOKIO, "clients that come when there are no descriptors", COMERS);
}
