//! Which host keys the tokio client accepts, and what it leaves behind when it accepts none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ssh_io_tokio::{Client, Error, HostKeys, OsEntropy, ServerConnection};
use ssh_proto::crypto::rustcrypto::{EcdsaP256Signer, Ed25519Signer, PROVIDER};
use ssh_proto::keys::{HostKeyRejection, KnownHosts, LineFormat, SkipReason};
use ssh_proto::{CloseReason, KeyPair, ServerConfig};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// A file of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("ssh-io-tokio-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const HOST: &str = "example.org";

fn key() -> KeyPair {
    Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair()
}

/// Connects to a server with this key; how that ended for both sides.
async fn connect(key: &KeyPair, host_keys: HostKeys) -> (Result<(), Error>, CloseReason) {
    let (result, closed) = connect_to(&[key], host_keys).await;
    (result.map(drop), closed)
}

/// Connects to a server with these keys; the host key algorithm, and how it ended for the server.
async fn connect_to(keys: &[&KeyPair], host_keys: HostKeys) -> (Result<&'static str, Error>, CloseReason) {
    let config = ServerConfig::builder(&PROVIDER);
    let config = keys.iter().fold(config, |config, key| config.host_key((*key).clone()));
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (server, driver) = ServerConnection::start(config.build().unwrap(), theirs);
    let driving = tokio::spawn(driver.run());
    let client = Client::builder().host_keys(host_keys).connect_over(HOST, 22, ours).await;
    let result = client.map(|client| {
        client.close();
        client.negotiated().unwrap().host_key
    });
    drop(server);
    (result, driving.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_new_host_is_recorded_once_and_a_changed_key_is_refused() {
    let file = Scratch::new("accept-new");
    std::fs::write(&file.0, "# no line end").unwrap();
    let (right, wrong) = (key(), key());
    for hash in [true, false] {
        let policy = || HostKeys::AcceptNew { file: file.0.clone(), hash };
        connect(&right, policy()).await.0.unwrap();
        let contents = std::fs::read(&file.0).unwrap();
        let known = KnownHosts::parse(&contents);
        assert_eq!(known.key_types(HOST, 22), ["ssh-ed25519"], "{known:?}");
        assert_eq!(
            contents.iter().filter(|byte| **byte == b'\n').count(),
            2,
            "one line more, and its own end"
        );
        let (refused, _) = connect(&wrong, policy()).await;
        assert!(matches!(&refused, Err(Error::HostKey(HostKeyRejection::Changed { .. }))), "{refused:?}");
        assert_eq!(std::fs::read(&file.0).unwrap(), contents);
    }
    connect(&right, HostKeys::KnownHosts(file.0.clone())).await.0.unwrap();
    let nobody = Scratch::new("not-there");
    let (refused, _) = connect(&right, HostKeys::KnownHosts(nobody.0.clone())).await;
    assert!(matches!(&refused, Err(Error::HostKey(HostKeyRejection::Unknown))), "{refused:?}");
    let (refused, _) = connect(&right, HostKeys::KnownHosts(std::env::temp_dir())).await;
    assert!(matches!(&refused, Err(Error::Io(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_awaited_answer_decides_and_none_is_no() {
    let right = key();
    let fingerprint = right.public.fingerprint();
    let ask = |answer: bool| {
        let expected = right.public.clone();
        HostKeys::ask(async move |question| {
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert_eq!((&question.host[..], question.port, question.key), (HOST, 22, expected));
            answer
        })
    };
    // A person takes longer than the exchange may: the client's clock stands still meanwhile, the server's not.
    let (refused, _) = connect(&right, ask(false)).await;
    assert!(matches!(&refused, Err(Error::HostKeyRefused)), "{refused:?}");
    connect(&right, HostKeys::Fingerprint(fingerprint)).await.0.unwrap();
    let (refused, _) = connect(&right, HostKeys::Fingerprint(key().public.fingerprint())).await;
    assert!(matches!(&refused, Err(Error::HostKey(HostKeyRejection::FingerprintDiffers))), "{refused:?}");
    // Nor is it the time to connect.
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (_server, driver) = ServerConnection::start(
        ServerConfig::builder(&PROVIDER).host_key(right.clone()).build().unwrap(),
        theirs,
    );
    tokio::spawn(driver.run());
    let thinks = HostKeys::ask(async |_| {
        tokio::time::sleep(Duration::from_secs(30)).await;
        true
    });
    let builder = Client::builder().host_keys(thinks).connect_timeout(Duration::from_secs(5));
    builder.connect_over(HOST, 22, ours).await.unwrap();
    let (ours, _theirs) = tokio::io::duplex(1024);
    let none = Client::builder().connect_timeout(Duration::from_secs(5)).connect_over("x", 22, ours).await;
    assert!(matches!(none, Err(Error::TimedOut)), "{none:?}");
}

fn line(key: &KeyPair) -> String {
    KnownHosts::line(HOST, 22, &key.public, LineFormat::Plain).unwrap() + "\n"
}

#[tokio::test(start_paused = true)]
async fn r38_the_types_of_key_a_host_is_known_by_are_asked_for_first() {
    let file = Scratch::new("types");
    let (ed25519, ecdsa) = (key(), EcdsaP256Signer::generate(&mut OsEntropy).unwrap().key_pair());
    for (known, other) in [(&ed25519, &ecdsa), (&ecdsa, &ed25519)] {
        std::fs::write(&file.0, line(known)).unwrap();
        for policy in
            [HostKeys::KnownHosts(file.0.clone()), HostKeys::AcceptNew { file: file.0.clone(), hash: true }]
        {
            let (algorithm, _) = connect_to(&[&ed25519, &ecdsa], policy).await;
            assert_eq!(algorithm.unwrap(), known.public.key_type());
        }
        // First, not only: a server without them is told apart from one that speaks nothing we do.
        let (refused, _) = connect(other, HostKeys::KnownHosts(file.0.clone())).await;
        let Err(Error::HostKey(HostKeyRejection::OtherTypesKnown { types })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(types, [known.public.key_type()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_cannot_be_read_is_not_taken_for_none() {
    let file = Scratch::new("marker");
    let key = key();
    let contents = format!("{}@revoke {}", line(&key), line(&key));
    std::fs::write(&file.0, &contents).unwrap();
    for policy in
        [HostKeys::KnownHosts(file.0.clone()), HostKeys::AcceptNew { file: file.0.clone(), hash: false }]
    {
        let (refused, _) = connect(&key, policy).await;
        let Err(Error::KnownHosts { file: named, line: 2, reason: SkipReason::BadMarker }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(*named, file.0);
    }
    assert_eq!(std::fs::read_to_string(&file.0).unwrap(), contents);
    // Other lines of no use do no harm.
    std::fs::write(&file.0, format!("{HOST} no-key\n{}", line(&key))).unwrap();
    connect(&key, HostKeys::KnownHosts(file.0.clone())).await.0.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_keys_of_a_new_host_one_is_accepted() {
    for round in 0..40 {
        let file = Scratch::new(&format!("new-hosts-{round}"));
        let start = Arc::new(Barrier::new(4));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (start, policy) =
                (Arc::clone(&start), HostKeys::AcceptNew { file: file.0.clone(), hash: false });
            clients.spawn(async move {
                let key = key();
                start.wait().await;
                connect(&key, policy).await.0
            });
        }
        let results = clients.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(std::fs::read_to_string(&file.0).unwrap().lines().count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_file_names_the_file() {
    let directory = std::env::temp_dir();
    let nowhere = Scratch::new("no-directory").0.join("known_hosts");
    for (policy, file) in [
        (HostKeys::KnownHosts(directory.clone()), &directory),
        (HostKeys::AcceptNew { file: nowhere.clone(), hash: false }, &nowhere),
    ] {
        let error = connect(&key(), policy).await.0.unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{}: ", file.display())), "{error}");
    }
}
