//! How a server that listens comes to its end.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use ssh_io_std::{Client, Error, HostKeys, Server, ServerConnection};
use ssh_proto::{CloseReason, DisconnectCode, ExitStatus};

use crate::handles::ALONE;
use crate::support::{Echo, PASSWORD, PATIENCE, comes_back, server_config};

fn serve(server: &Server) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, server) = (listener.local_addr().unwrap(), server.clone());
    (at, thread::spawn(move || server.serve(&listener, echoes).unwrap()))
}

fn echoes(_: ServerConnection, _: SocketAddr) -> Echo {
    Echo { channels: Vec::new(), closed: channel().0 }
}

fn client_of(at: SocketAddr) -> Client {
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_timeout(PATIENCE)
        .connect("127.0.0.1", at.port())
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    client
}

#[test]
fn a_server_that_was_shut_down_before_it_serves_does_not() {
    let server = Server::new(server_config().0);
    server.shutdown(Duration::ZERO);
    let (_, serving) = serve(&server);
    comes_back("serve", move || serving.join().unwrap());
}

#[test]
fn a_shutdown_at_any_moment_of_its_start_ends_a_server() {
    for _ in 0..50 {
        let server = Server::new(server_config().0);
        let (_, serving) = serve(&server);
        server.shutdown(Duration::ZERO);
        comes_back("serve", move || serving.join().unwrap());
    }
}

#[test]
fn clients_of_a_listener_that_fails_go_on_until_the_shutdown() {
    let server = Server::new(server_config().0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The same socket under a name by which it can be shut down.
    let breaks = TcpStream::from(OwnedFd::from(listener.try_clone().unwrap()));
    let (at, serves) = (listener.local_addr().unwrap(), server.clone());
    let serving = thread::spawn(move || serves.serve(&listener, echoes));
    let client = client_of(at);
    breaks.shutdown(Shutdown::Both).unwrap();
    let failed = comes_back("serve", move || serving.join().unwrap()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::InvalidInput);
    assert_eq!(client.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
    comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
    assert!(matches!(client.closed(), CloseReason::PeerDisconnected { .. }));
}

#[test]
fn a_shutdown_lets_clients_finish_and_waits_for_them() {
    let server = Server::new(server_config().0);
    let (at, serving) = serve(&server);
    let client = client_of(at);
    let mut session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    session.exec("echo").unwrap();
    let ending = server.clone();
    let ending = thread::spawn(move || ending.shutdown(Duration::MAX));
    comes_back("serve", move || serving.join().unwrap());
    // Nobody is let in any more, and who is in goes on.
    session.write_all(b"still here").unwrap();
    session.finish_input().unwrap();
    let mut back = String::new();
    session.read_to_string(&mut back).unwrap();
    assert_eq!((&back[..], session.wait().unwrap()), ("still here", Some(ExitStatus::Code(3))));
    assert!(!ending.is_finished(), "the client is still there");
    drop(session);
    client.close();
    comes_back("the shutdown", move || ending.join().unwrap());
}

#[test]
fn a_shutdown_without_grace_tells_clients_also_when_another_one_waits() {
    for waits in [false, true] {
        let server = Server::new(server_config().0);
        let (at, serving) = serve(&server);
        let client = client_of(at);
        let patient = server.clone();
        let patient = waits.then(|| thread::spawn(move || patient.shutdown(Duration::MAX)));
        if waits {
            comes_back("serve", move || serving.join().unwrap());
        }
        let session = client.open_session().unwrap();
        session.exec("wait").unwrap();
        comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
        match comes_back("the client", move || session.wait()) {
            Err(Error::Closed(CloseReason::PeerDisconnected { code, .. })) => {
                assert_eq!(code, DisconnectCode::BY_APPLICATION, "{waits}");
            }
            other => panic!("{other:?}"),
        }
        if let Some(patient) = patient {
            comes_back("the other shutdown", move || patient.join().unwrap());
        }
    }
}

#[test]
fn a_shutdown_ends_its_own_serve_also_when_another_server_waits_first_at_the_listener() {
    for _ in 0..5 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        // One that has served a client, and waits for the next.
        let begin = || {
            let (server, listener) = (Server::new(server_config().0), listener.try_clone().unwrap());
            let ((serves, served), serving) = (channel(), server.clone());
            let serving = thread::spawn(move || {
                let handler = |connection, from| {
                    let _ = serves.send(());
                    echoes(connection, from)
                };
                serving.serve(&listener, handler).unwrap();
            });
            while served.try_recv().is_err() {
                client_of(at).close();
            }
            (server, serving)
        };
        let ((new, goes_on), (old, ends)) = (begin(), begin());
        comes_back("the shutdown", move || old.shutdown(Duration::ZERO));
        comes_back("the old serve", move || ends.join().unwrap());
        // Whoever comes now is served.
        client_of(at).close();
        comes_back("the other shutdown", move || new.shutdown(Duration::ZERO));
        comes_back("the new serve", move || goes_on.join().unwrap());
    }
}

#[test]
fn ad_12_a_panic_while_a_handler_is_made_costs_that_client_only() {
    let server = Server::new(server_config().0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, serving) = (listener.local_addr().unwrap(), server.clone());
    let mut clients = 0;
    let serving = thread::spawn(move || {
        serving.serve(&listener, move |connection, from| {
            clients += 1;
            assert!(clients != 2, "making a handler panics, as the test asks it to");
            echoes(connection, from)
        })
    });
    let first = client_of(at);
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let second =
        builder.connect("127.0.0.1", at.port()).and_then(|client| client.auth_password("me", PASSWORD));
    match second.unwrap_err() {
        Error::Closed(CloseReason::PeerDisconnected { code, .. }) => {
            assert_eq!(code, DisconnectCode::BY_APPLICATION);
        }
        other => panic!("{other:?}"),
    }
    for client in [first, client_of(at)] {
        assert_eq!(client.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
    }
    server.shutdown(Duration::ZERO);
    comes_back("serve", move || serving.join().unwrap()).unwrap();
}

#[test]
fn a_shutdown_that_begins_without_descriptors_ends_serve() {
    if std::env::var_os(ALONE).is_none() {
        // The limit is one of the whole process.
        let this = "shutdown::a_shutdown_that_begins_without_descriptors_ends_serve";
        let mut run = Command::new(std::env::current_exe().unwrap());
        let ran = run.args(["--exact", this]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let server = Server::new(server_config().0);
    let (at, serving) = serve(&server);
    let mut client = TcpStream::connect(at).unwrap();
    client.read_exact(&mut [0]).unwrap();
    // It is served: the listener waits for the next one.
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let ending = thread::spawn(move || server.shutdown(Duration::ZERO));
    // What the client took up is free again.
    comes_back("serve", move || serving.join().unwrap());
    comes_back("the shutdown", move || ending.join().unwrap());
    drop(files);
}
