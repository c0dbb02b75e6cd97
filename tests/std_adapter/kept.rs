//! A handler that keeps the connection it answers for.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ssh_io_std::{Client, Error, Handler, HostKeys, Question, Server, ServerConnection, Startups};
use ssh_proto::{AuthIdentity, AuthRequest, AuthVerdict, CloseReason, DisconnectCode};

use crate::support::{PASSWORD, PATIENCE, comes_back, server_config};

/// Lets everybody in, and shows its connection; ends that of `guest` at once.
struct Keeps {
    connection: ServerConnection,
    /// Dropped with the handler.
    _here: Sender<()>,
}

impl Handler for Keeps {
    fn auth(&mut self, request: Question<AuthRequest>) {
        assert_eq!(self.connection.negotiated().unwrap().host_key, "ssh-ed25519");
        request.reply(AuthVerdict::Accept).unwrap();
        let late = self.connection.banner("too late");
        assert!(matches!(late, Err(Error::Misuse(_) | Error::Closed(_))), "{late:?}");
    }

    fn authenticated(&mut self, who: AuthIdentity) {
        match who.user.as_str() {
            "guest" => self.connection.close(),
            _ => self.connection.rekey(),
        }
    }
}

fn serve(server: &Server, here: Sender<()>) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, server) = (listener.local_addr().unwrap(), server.clone());
    let begin = move |connection: ServerConnection, _| {
        connection.banner("be welcome").unwrap();
        Keeps { connection, _here: here.clone() }
    };
    (at, thread::spawn(move || server.serve(&listener, begin)))
}

fn connect(at: SocketAddr) -> Client {
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    builder.connect("127.0.0.1", at.port()).unwrap()
}

#[test]
fn a_handler_ends_its_connection_and_asks_for_new_keys() {
    let server = Server::new(server_config().0);
    let (at, serving) = serve(&server, channel().0);
    let guest = connect(at);
    let waiting = guest.clone();
    let _ = guest.auth_password("guest", PASSWORD);
    match comes_back("the guest's end", move || waiting.closed()) {
        CloseReason::PeerDisconnected { code, .. } => assert_eq!(code, DisconnectCode::BY_APPLICATION),
        other => panic!("{other:?}"),
    }
    let member = connect(at);
    member.auth_password("me", PASSWORD).unwrap();
    let banners: Vec<_> = member.take_banners().iter().map(ToString::to_string).collect();
    assert_eq!(banners, ["be welcome"]);
    comes_back("new keys", move || {
        while member.rekeys() == 0 {
            thread::yield_now();
        }
    });
    comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
    comes_back("serve", move || serving.join().unwrap()).unwrap();
}

#[test]
fn a_handler_that_keeps_its_connection_goes_with_the_client_and_frees_its_place() {
    for logs_in in [false, true] {
        let startups = Startups::new(1, 1);
        let server = Server::new(server_config().0).startups(startups.clone());
        let (here, gone) = channel();
        let (at, serving) = serve(&server, here);
        let client = connect(at);
        if logs_in {
            client.auth_password("me", PASSWORD).unwrap();
        }
        client.close();
        comes_back("the place", move || {
            while startups.count() > 0 {
                thread::yield_now();
            }
        });
        comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
        comes_back("serve", move || serving.join().unwrap()).unwrap();
        // The last sender is the handler's.
        assert!(
            gone.recv_timeout(PATIENCE).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}

#[test]
fn whoever_makes_handlers_may_take_its_time_and_end_the_server() {
    let server = Server::new(server_config().0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, ending) = (listener.local_addr().unwrap(), server.clone());
    let (held, holds) = channel();
    let (go_on, may_go_on) = channel();
    let serving = thread::spawn(move || {
        ending.serve(&listener, |connection, _| {
            held.send(()).unwrap();
            // As long as it takes to look somebody up.
            may_go_on.recv().unwrap();
            ending.shutdown(Duration::ZERO);
            Keeps { connection, _here: channel().0 }
        })
    });
    let connecting = thread::spawn(move || {
        let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
        builder.connect("127.0.0.1", at.port()).map(drop)
    });
    comes_back("the making of a handler", move || holds.recv().unwrap());
    let elsewhere = server.clone();
    comes_back("a shutdown meanwhile", move || elsewhere.shutdown(Duration::ZERO));
    go_on.send(()).unwrap();
    comes_back("serve", move || serving.join().unwrap()).unwrap();
    // The handshake may have been over before the end.
    let told = comes_back("the client", move || connecting.join().unwrap());
    assert!(matches!(told, Ok(()) | Err(Error::Closed(_) | Error::Io(_))), "{told:?}");
}

#[test]
fn a_handler_whose_making_panics_leaves_no_connection_behind() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let making = move || {
        ServerConnection::start_with(server_config().0, theirs, |_| -> Keeps {
            panic!("making a handler panics, as the test asks it to")
        })
    };
    assert!(thread::spawn(making).join().is_err());
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let told = comes_back("the client", move || {
        builder.connect_over("test", 22, ours).and_then(|client| client.auth_password("me", PASSWORD))
    });
    assert!(matches!(told, Err(Error::Closed(_) | Error::Io(_))), "{told:?}");
}
