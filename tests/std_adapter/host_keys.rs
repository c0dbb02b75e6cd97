//! The file of known hosts: what is asked for by it, and when it is not to be trusted.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;

use ssh_io_std::{Client, Error, HostKeys, OsEntropy, ServerConnection};
use ssh_proto::crypto::rustcrypto::{EcdsaP256Signer, Ed25519Signer, PROVIDER};
use ssh_proto::keys::{HostKeyRejection, KnownHosts, LineFormat, SkipReason};
use ssh_proto::{KeyPair, ServerConfig};

use crate::login::Scratch;
use crate::support::{Echo, PATIENCE};

const HOST: &str = "example.org";

fn keys() -> [KeyPair; 2] {
    let ed25519 = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    [ed25519, EcdsaP256Signer::generate(&mut OsEntropy).unwrap().key_pair()]
}

fn line(key: &KeyPair) -> String {
    KnownHosts::line(HOST, 22, &key.public, LineFormat::Plain).unwrap() + "\n"
}

/// Connects to a server with these keys.
fn connect(keys: &[&KeyPair], host_keys: HostKeys) -> Result<Client, Error> {
    let builder = ServerConfig::builder(&PROVIDER);
    let builder = keys.iter().fold(builder, |builder, key| builder.host_key((*key).clone()));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Echo { channels: Vec::new(), closed: channel().0 };
    ServerConnection::start(builder.build().unwrap(), theirs, handler).unwrap();
    let builder = Client::builder().host_keys(host_keys).connect_timeout(PATIENCE);
    builder.connect_over(HOST, 22, ours)
}

#[test]
fn r38_the_types_of_key_a_host_is_known_by_are_asked_for_first() {
    let scratch = Scratch::new("types");
    let file = scratch.0.join("known_hosts");
    let [ed25519, ecdsa] = keys();
    for (known, other) in [(&ed25519, &ecdsa), (&ecdsa, &ed25519)] {
        fs::write(&file, line(known)).unwrap();
        for policy in
            [HostKeys::KnownHosts(file.clone()), HostKeys::AcceptNew { file: file.clone(), hash: true }]
        {
            let client = connect(&[&ed25519, &ecdsa], policy).unwrap();
            assert_eq!(client.negotiated().unwrap().host_key, known.public.key_type());
        }
        // First, not only: a server without them is told apart from one that speaks nothing we do.
        let refused = connect(&[other], HostKeys::KnownHosts(file.clone()));
        let Err(Error::HostKey(HostKeyRejection::OtherTypesKnown { types })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(types, [known.public.key_type()]);
    }
}

#[test]
fn a_revocation_that_cannot_be_read_is_not_taken_for_none() {
    let scratch = Scratch::new("marker");
    let file = scratch.0.join("known_hosts");
    let [key, _] = keys();
    let contents = format!("{}@revoke {}", line(&key), line(&key));
    fs::write(&file, &contents).unwrap();
    for policy in
        [HostKeys::KnownHosts(file.clone()), HostKeys::AcceptNew { file: file.clone(), hash: false }]
    {
        let refused = connect(&[&key], policy);
        let Err(Error::KnownHosts { file: named, line: 2, reason: SkipReason::BadMarker }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(*named, file);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), contents);
    // Other lines of no use do no harm.
    fs::write(&file, format!("{HOST} no-key\n{}", line(&key))).unwrap();
    connect(&[&key], HostKeys::KnownHosts(file)).unwrap();
}
