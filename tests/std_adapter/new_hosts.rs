//! New hosts, met by several at once.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use ssh_io_std::{Client, Error, HostKeys, OsEntropy, ServerConnection};
use ssh_proto::ServerConfig;
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};

use crate::login::Scratch;
use crate::support::{Echo, PATIENCE};

/// Connects to a server with a key that no other has.
fn connect(host_keys: HostKeys, start: &Barrier) -> Result<Client, Error> {
    let key = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let config = ServerConfig::builder(&PROVIDER).host_key(key).build().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Echo { channels: Vec::new(), closed: channel().0 };
    ServerConnection::start(config, theirs, handler).unwrap();
    start.wait();
    Client::builder().host_keys(host_keys).connect_timeout(PATIENCE).connect_over("test", 22, ours)
}

#[test]
fn of_several_keys_of_a_new_host_one_is_accepted() {
    let scratch = Scratch::new("new-hosts");
    for round in 0..40 {
        let file = scratch.0.join(format!("known_hosts-{round}"));
        let start = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (start, policy) =
                    (Arc::clone(&start), HostKeys::AcceptNew { file: file.clone(), hash: false });
                thread::spawn(move || connect(policy, &start))
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    }
}

#[test]
fn an_error_of_the_file_names_the_file() {
    let scratch = Scratch::new("not-a-file");
    let nowhere = scratch.0.join("no-directory").join("known_hosts");
    for (policy, file) in [
        (HostKeys::KnownHosts(scratch.0.clone()), &scratch.0),
        (HostKeys::AcceptNew { file: nowhere.clone(), hash: false }, &nowhere),
    ] {
        let error = connect(policy, &Barrier::new(1)).unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{}: ", file.display())), "{error}");
    }
}
