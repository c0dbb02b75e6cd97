//! Embedders' code that panics.

use std::sync::Arc;
use std::thread;

use ssh_io_std::{Client, Error, OsEntropy};
use ssh_proto::crypto::rustcrypto::Ed25519Signer;
use ssh_proto::{Entropy, ExitStatus, KeyPair, SignRefused, Signature, Signer, ToSign};

use crate::support::{PASSWORD, PATIENCE, connect, logged_in};

#[test]
fn a_panic_of_a_handler_ends_its_connection_only() {
    let (first, closed) = logged_in();
    let (second, _closed) = logged_in();
    let channel = first.open_session().unwrap();
    channel.set_timeout(Some(PATIENCE));
    assert!(channel.exec("panic").is_err());
    assert!(closed.recv_timeout(PATIENCE).is_err(), "the handler is gone, and with it its sender");
    assert!(first.open_session().is_err());
    assert_eq!(second.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
}

/// Signs while it uses the client, as one that asks over the connection would; or does not come back.
struct Busy {
    inner: KeyPair,
    client: Client,
    panics: bool,
}

impl Signer for Busy {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        assert!(!self.panics, "a signer panics, as the test asks it to");
        assert!(self.client.negotiated().is_some());
        self.inner.signer.as_ref().unwrap().sign(what, entropy)
    }
}

#[test]
fn a_signer_is_called_with_nothing_locked_and_may_panic() {
    let (client, _closed) = connect();
    let inner: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let busy = |panics| {
        let signer = Busy { inner: inner.clone(), client: client.clone(), panics };
        KeyPair::new(inner.public.clone(), Arc::new(signer))
    };
    let (panicking, other) = (busy(true), client.clone());
    assert!(thread::spawn(move || other.auth_key("me", panicking)).join().is_err());
    // The server takes passwords only; what counts is that there is an answer.
    let refused = client.auth_key("me", busy(false));
    assert!(matches!(refused, Err(Error::AuthFailed { .. } | Error::Auth(_))), "{refused:?}");
    client.auth_password("me", PASSWORD).unwrap();
}
