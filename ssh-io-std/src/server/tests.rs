#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{self, Read, sink};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;

use ssh_proto::adapter::Startups;
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};

use super::listen::{is_unreachable, ways_to};
use super::*;
use crate::transport::Split;

/// A client that says this, and then nothing until its transport is ended.
struct Says(&'static [u8], Receiver<()>);

impl Read for Says {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            let _ = self.1.recv();
        }
        self.0.read(dst)
    }
}

struct Refuses;

impl Handler for Refuses {
    fn auth(&mut self, request: Question<AuthRequest>) {
        drop(request);
    }
}

#[test]
fn a_want_of_ports_passes_and_a_way_that_is_not_there_does_not() {
    assert!(!is_unreachable(&io::ErrorKind::AddrNotAvailable.into()));
    assert!(is_unreachable(&io::ErrorKind::ConnectionRefused.into()));
}

#[test]
fn a_listener_is_woken_where_it_is() {
    let here = |at: &str| ways_to(at.parse().unwrap()).map(|way| way.to_string()).collect::<Vec<_>>();
    assert_eq!(here("0.0.0.0:22"), ["127.0.0.1:22"]);
    assert_eq!(here("[::]:22"), ["[::1]:22", "127.0.0.1:22"]);
    // An address of one link is none without that link.
    for at in ["192.0.2.1:22", "[2001:db8::1]:22", "[fe80::1%3]:22"] {
        assert_eq!(here(at), [at]);
    }
}

#[test]
fn a_client_is_let_in_while_the_connection_of_another_is_locked() {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let server = Server::new(ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let serving = server.clone();
    let serving = thread::spawn(move || serving.serve(&listener, |_, _| Refuses));
    let greeted = || {
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client.read_exact(&mut [0; 8]).map(|()| client)
    };
    let first = greeted().unwrap();
    let connection = server.unfinished().unwrap();
    let locked = connection.shared.lock();
    // One may be greeted before the others are looked at.
    let others = [greeted(), greeted()];
    drop(locked);
    drop((first, others.map(Result::unwrap)));
    server.shutdown(Duration::ZERO);
    serving.join().unwrap().unwrap();
}

#[test]
fn a_client_that_is_refused_keeps_its_place_until_its_transport_is_let_go() {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
    let startups = Startups::new(1, 1);
    let startup = startups.begin(None).unwrap();
    let (end, ended) = channel();
    let (counts, counted) = channel();
    let (end, counting) = (Mutex::new(Some(end)), startups.clone());
    let transport = Split {
        reader: Says(b"SSH-1.0-bad\r\n", ended),
        writer: sink(),
        unblock: Box::new(move |how| {
            counts.send(counting.count()).unwrap();
            if how == Shutdown::Both {
                *lock(&end) = None;
            }
        }),
    };
    let config = HostSigners::new(&config);
    let (connection, made) = ServerConnection::start_counted(&config, transport, Some(startup)).unwrap();
    made.send(Refuses).unwrap();
    connection.join(Duration::MAX);
    assert!(connection.close_reason().is_some());
    assert_eq!(counted.iter().collect::<Vec<_>>(), [1, 1], "it lingered, and was there all the time");
    drop(connection);
    // The handler hears of it, and is done.
    while startups.count() > 0 {
        thread::yield_now();
    }
}
