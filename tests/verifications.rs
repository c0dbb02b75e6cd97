//! How often a handshake verifies signatures, in memory and over both adapters.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ssh_proto::crypto::aws_lc;
use ssh_proto::keys::load_private_key;
use ssh_proto::{
    AuthRequest, AuthVerdict, ClientConfig, Credential, Entropy, KeyPair, ServerConfig, SignRefused,
    Signature, Signer, ToSign,
};
use ssh_tests::Pair;
use ssh_tests::verifying::{PROVIDER, verifications};

/// A signer that does not say of itself that it needs no check, nor that it is quick.
struct Plain(KeyPair);

impl Signer for Plain {
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.0.signer.as_ref().expect("a signer").sign(what, entropy)
    }
}

fn in_memory(client: Arc<ClientConfig>, server: Arc<ServerConfig>, key: KeyPair) {
    Pair::new(client, server, 1).login_with(Credential::PublicKey { key, probe: false });
}

struct LetsIn;

impl ssh_io_std::Handler for LetsIn {
    fn auth(&mut self, request: ssh_io_std::Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }
}

fn over_std(client: Arc<ClientConfig>, server: Arc<ServerConfig>, key: KeyPair) {
    use ssh_io_std::{Client, HostKeys, ServerConnection};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _server = ServerConnection::start(server, theirs, LetsIn).unwrap();
    let client = Client::with_config(client).host_keys(HostKeys::DangerousAcceptAny);
    client.connect_over("test", 22, ours).unwrap().auth_key("me", key).unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn over_tokio(client: Arc<ClientConfig>, server: Arc<ServerConfig>, key: KeyPair) {
    use ssh_io_tokio::{Asked, Client, HostKeys, ServerConnection};
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (server, driver) = ServerConnection::start(server, theirs);
    tokio::spawn(driver.run());
    tokio::spawn(async move {
        while let Some(asked) = server.asked().await {
            if let Asked::Auth(request) = asked {
                request.reply(AuthVerdict::Accept).unwrap();
            }
        }
    });
    let client = Client::with_config(client).host_keys(HostKeys::DangerousAcceptAny);
    client.connect_over("test", 22, ours).await.unwrap().auth_key("me", key).await.unwrap();
}

#[test]
fn who_signs_verifies_only_where_the_signer_needs_it() {
    let ed25519 = |n| aws_lc::Ed25519Signer::from_seed(&[n; 32]).unwrap().key_pair();
    let rsa = load_private_key(include_bytes!("../ssh-proto/src/keys/testdata/rsa2048"), None);
    let rsa = rsa.unwrap().into_key_pair().unwrap();
    let plain = |key: KeyPair| KeyPair::new(key.public.clone(), Arc::new(Plain(key)));
    // Each side verifies what the other one signed.
    let cases = [
        ("quick", ed25519(1), ed25519(2), 2),
        ("by ticket", rsa.clone(), rsa, 2),
        ("that need it", plain(ed25519(1)), plain(ed25519(2)), 4),
    ];
    for (signers, host, user, expected) in cases {
        let ways: [(_, fn(_, _, _)); 3] = [("memory", in_memory), ("std", over_std), ("tokio", over_tokio)];
        for (over, connect) in ways {
            let server = ServerConfig::builder(&PROVIDER).host_key(host.clone()).build().unwrap();
            connect(ClientConfig::builder(&PROVIDER).build().unwrap(), server, user.clone());
            assert_eq!(verifications(), expected, "signers {signers}, over {over}");
        }
    }
}
