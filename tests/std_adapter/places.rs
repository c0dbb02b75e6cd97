//! The places of clients that have not logged in.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Client, Handler, HostKeys, OsEntropy, Question, Server, Startups};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{AuthRequest, Entropy, KeyPair, ServerConfig, SignRefused, Signature, Signer, ToSign};

use crate::support::{PASSWORD, PATIENCE, comes_back};

/// Says that it is asked, and stands still until the test lets go of the other end.
struct Hangs(Sender<()>, Mutex<Receiver<()>>);

impl Hangs {
    fn hang(&self) {
        self.0.send(()).unwrap();
        assert!(self.1.lock().unwrap().recv().is_err());
    }
}

impl Handler for Hangs {
    fn auth(&mut self, request: Question<AuthRequest>) {
        self.hang();
        drop(request);
    }
}

impl Signer for Hangs {
    fn sign(&self, _: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.hang();
        Err(SignRefused)
    }
}

#[test]
fn a_client_keeps_its_place_while_a_thread_still_works_for_it() {
    for signer in [false, true] {
        let [(asked, asks), (go, told)] = [channel(), channel()];
        let (never, hangs) = (channel(), Hangs(asked, Mutex::new(told)));
        let idle = Hangs(never.0, Mutex::new(channel().1));
        let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
        let (key, handler) = match signer {
            true => (KeyPair::new(key.public, Arc::new(hangs)), idle),
            false => (key, hangs),
        };
        let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
        let startups = Startups::new(1, 1);
        let server = Server::new(config).startups(startups.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (serving, mut handler) = (server.clone(), Some(handler));
        let serving = thread::spawn(move || serving.serve(&listener, |_, _| handler.take().unwrap()));
        let client = thread::spawn(move || {
            let client = Client::builder()
                .host_keys(HostKeys::DangerousAcceptAny)
                .connect_timeout(PATIENCE)
                .connect("127.0.0.1", port)?;
            client.auth_password("me", PASSWORD)
        });
        asks.recv_timeout(PATIENCE).unwrap();
        // Its transport is let go, and so are the threads of the connection itself.
        comes_back("the shutdown", move || server.shutdown(Duration::ZERO));
        assert!(comes_back("the client", move || client.join().unwrap()).is_err());
        comes_back("serve", move || serving.join().unwrap()).unwrap();
        assert_eq!(startups.count(), 1, "a thread of it is left; signer: {signer}");
        drop(go);
        comes_back("the last thread", move || {
            while startups.count() > 0 {
                thread::yield_now();
            }
        });
    }
}
