//! Key exchange and host keys: signatures, keys of another type, algorithms nobody should use.

use std::time::Duration;

use ssh_proto::crypto::rustcrypto::{self, EcdsaP256Signer, Ed25519Signer};
use ssh_proto::raw::auth::{Method, UserauthRequest, signed_data};
use ssh_proto::raw::kex::EcdhReply;
use ssh_proto::raw::{State, number};
use ssh_proto::wire::PutSsh;
use ssh_proto::{
    AlgorithmKind, ClientConfig, ClientEvent, CloseReason, PeerIncompatible, PeerMisbehaved, PublicKey,
    ServerConfig, ServerEvent, Side, SignRefused, Signature, StrictKexPolicy,
};
use ssh_tests::config::HOST_KEY;
use ssh_tests::entropy::Seeded;
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Puppet, Scene, external_key, null, null_client, null_server};

use crate::stage::{greeted, serviced};

fn rsa_key() -> PublicKey {
    let mut modulus = Seeded::new(5).bytes(256);
    modulus[0] |= 0x80;
    modulus[255] |= 1;
    let mut blob = Vec::new();
    blob.put_string(b"ssh-rsa");
    blob.put_mpint(&[1, 0, 1]);
    blob.put_mpint(&modulus);
    PublicKey::from_blob(&blob).expect("a key blob")
}

/// A client on real cryptography that offers this host key algorithm, and gets this key and a signature of
/// this name.
fn reply(algorithm: &'static str, key: &PublicKey, name: &str, signature: &[u8]) -> PeerMisbehaved {
    let config = ClientConfig::builder(&rustcrypto::PROVIDER).host_key_algorithms(&[algorithm]);
    let config = config.kex(&["curve25519-sha256"]).build().expect("a client");
    let mut scene = Scene::of_client(config);
    scene.puppet = Puppet::new(Side::Server, &rustcrypto::PROVIDER, key.as_blob(), |_| Vec::new());
    scene.hello();
    scene.kexinit(|_| {});
    let reply = scene.puppet.reply_signed(|_| {
        let mut blob = Vec::new();
        blob.put_string(name.as_bytes());
        blob.put_string(signature);
        blob
    });
    scene.say(&reply);
    assert_eq!(scene.disconnects(), [3]);
    assert!(!scene.events.iter().any(|event| matches!(event, Event::Client(ClientEvent::HostKey(_)))));
    crate::stage::rule(&mut scene)
}

#[test]
fn kx_08_and_kx_10_key_and_signature_must_be_of_the_negotiated_algorithm() {
    let ed25519 = Ed25519Signer::from_seed(&[1; 32]).expect("a key").key_pair().public;
    let ecdsa = EcdsaP256Signer::from_scalar(&[1; 32]).expect("a key").key_pair().public;
    let keys = [ed25519, ecdsa, rsa_key(), null::public_key(1)];
    let algorithms = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"];
    let names = [&algorithms[..], &["ssh-rsa", "ecdsa-sha2-nistp384", "ssh-dss", ""]].concat();
    let mut cells = 0;
    for algorithm in algorithms {
        for key in &keys {
            for name in &names {
                let key_type = if algorithm.starts_with("rsa") { "ssh-rsa" } else { algorithm };
                let expected = if key.key_type() != key_type {
                    PeerMisbehaved::BadHostKey
                } else if *name != algorithm {
                    // `ssh-rsa` (SHA-1) under rsa-sha2-512 is in here.
                    PeerMisbehaved::WrongSignatureAlgorithm
                } else {
                    PeerMisbehaved::BadHostKeySignature
                };
                for signature in [&[][..], &[0; 64], &[0xff; 256]] {
                    cells += 1;
                    let rule = reply(algorithm, key, name, signature);
                    assert_eq!(rule, expected, "{algorithm}, {}, {name}", key.key_type());
                }
            }
        }
    }
    assert_eq!(cells, 4 * 4 * 8 * 3);
}

#[test]
fn kx_08_a_signature_blob_is_exactly_a_name_and_bytes() {
    for blob in [&b""[..], b"\0\0\0\x05null", b"\0\0\0\0\0\0\0\0x"] {
        let mut scene = greeted(Scene::client());
        scene.kexinit(|_| {});
        let reply = scene.puppet.reply_signed(|_| blob.to_vec());
        scene.say(&reply);
        scene.assert_broken(PeerMisbehaved::MalformedMessage, Some(number::KEX_ECDH_REPLY));
    }
}

#[test]
fn kx_08_a_malformed_key_is_refused_however_well_its_signature_fits() {
    let mut key = null::public_key(HOST_KEY).as_blob().to_vec();
    let point = key.len() - 36;
    key[point..point + 4].copy_from_slice(&40_u32.to_be_bytes());
    key.extend([9; 8]);
    assert!(null::PROVIDER.signatures[0].check_key(&key).is_err());
    let sign = |message: &[u8]| {
        let signature = null::sign(&PublicKey::from_blob(&key).expect("a blob"), message);
        let mut blob = Vec::new();
        blob.put_string(signature.algorithm().as_bytes());
        blob.put_string(signature.as_bytes());
        blob
    };
    let mut scene = greeted(Scene::client());
    scene.kexinit(|_| {});
    scene.puppet.host_key = key.clone();
    let reply = scene.puppet.reply_signed(sign);
    scene.say(&reply);
    scene.assert_broken(PeerMisbehaved::BadHostKey, Some(number::KEX_ECDH_REPLY));
    assert!(scene.events.iter().all(|event| !matches!(event, Event::Client(ClientEvent::HostKey(_)))));
    // And of a client: nobody is asked about it, be it signed for or only asked for.
    for signed in [true, false] {
        let mut scene = serviced(Scene::server());
        scene.forget();
        let message = signed_data(&scene.puppet.session_id, "user", "ssh-connection", null::NAME, &key);
        let signature = signed.then(|| sign(&message));
        let method = Method::PublicKey { algorithm: null::NAME, key: &key, signature: signature.as_deref() };
        scene.tell(&UserauthRequest { user: "user", service: "ssh-connection", method });
        scene.wait(Duration::from_secs(1));
        assert_eq!(scene.events.len(), 0, "{:?}", scene.events);
        assert_eq!(scene.heard[0].number(), number::USERAUTH_FAILURE);
    }
}

#[test]
fn kx_08_the_signature_covers_every_part_of_the_exchange() {
    // The peer signs what it believes; each of these the client believes otherwise.
    let beliefs: [fn(&mut Puppet); 4] = [
        |puppet| puppet.ident.push(b'x'),
        |puppet| puppet.their_ident.push(b'x'),
        |puppet| puppet.our_init[1] ^= 1,
        |puppet| puppet.their_init[1] ^= 1,
    ];
    for change in beliefs {
        let mut scene = greeted(Scene::client());
        scene.kexinit(|_| {});
        change(&mut scene.puppet);
        scene.method();
        scene.assert_broken(PeerMisbehaved::BadHostKeySignature, Some(number::KEX_ECDH_REPLY));
    }
    // And both shares, and the key.
    for at in 0..2 {
        let mut scene = greeted(Scene::client());
        scene.kexinit(|_| {});
        let reply = scene.puppet.reply();
        let reply = ssh_proto::raw::Message::decode(&reply).expect("well-formed");
        let EcdhReply { host_key, share, signature } = reply;
        let (mut host_key, mut share) = (host_key.to_vec(), share.to_vec());
        let changed = if at == 0 { &mut host_key } else { &mut share };
        *changed.last_mut().expect("bytes") ^= 1;
        scene.tell(&EcdhReply { host_key: &host_key, share: &share, signature });
        scene.assert_broken(PeerMisbehaved::BadHostKeySignature, Some(number::KEX_ECDH_REPLY));
    }
}

#[test]
fn ch_21_a_host_key_that_nobody_accepts_is_rejected() {
    for drop_it in [true, false] {
        let mut scene = greeted(Scene::client());
        scene.kexinit(|_| {});
        scene.method();
        let check = scene.take(|event| match event {
            Event::Client(ClientEvent::HostKey(check)) => Ok(check),
            event => Err(event),
        });
        assert_eq!(scene.state(), State::HostKeyPending);
        if drop_it {
            drop(check);
        } else {
            scene.as_client().reject_host_key(check).expect("the question is open");
        }
        assert_eq!(scene.closed(), CloseReason::HostKeyRejected);
        assert_eq!(scene.disconnects(), [9]);
        assert!(scene.heard.iter().all(|heard| heard.number() != number::NEWKEYS));
    }
}

#[test]
fn ch_21_a_signature_that_nobody_makes_ends_the_exchange() {
    let answers: [Option<Result<Signature, SignRefused>>; 3] =
        [None, Some(Err(SignRefused)), Some(Ok(Signature::new("ssh-ed25519", [0; 64])))];
    for answer in answers {
        let config = ServerConfig::builder(&null::PROVIDER).host_key(external_key(1));
        let mut scene = greeted(Scene::of_server(config.build().expect("a server")));
        scene.kexinit(|_| {});
        scene.method();
        let request = scene.take(|event| match event {
            Event::Server(ServerEvent::Sign(request)) => Ok(request),
            event => Err(event),
        });
        match answer {
            None => drop(request),
            Some(answer) => scene.as_server().provide_signature(request, answer).expect("open"),
        }
        assert_eq!(scene.closed(), CloseReason::SignatureRefused);
        assert_eq!(scene.disconnects(), [3]);
        assert!(scene.heard.iter().all(|heard| heard.number() != number::KEX_ECDH_REPLY));
    }
}

/// The list over which nothing was agreed.
fn disagreement(edit: impl FnOnce(&mut ssh_tests::puppet::Offer)) -> AlgorithmKind {
    let config = ssh_tests::rustcrypto_server().build().expect("a server");
    let mut scene = Scene::of_server(config);
    scene.puppet = Puppet::new(Side::Client, &rustcrypto::PROVIDER, b"", |_| Vec::new());
    scene.hello();
    scene.kexinit(edit);
    let CloseReason::PeerIncompatible(why) = scene.closed() else { panic!("{:?}", scene.events) };
    assert_eq!(scene.disconnects(), [3]);
    match *why {
        PeerIncompatible::NoCommonAlgorithm { kind, .. } => kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kx_11_algorithms_of_the_past_are_not_agreed_on() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for cipher in ["none", "3des-cbc", "aes128-cbc", "arcfour", "arcfour256", "rijndael-cbc@lysator.liu.se"] {
        assert_eq!(disagreement(|offer| offer.ciphers = names(&[cipher])), AlgorithmKind::Cipher);
    }
    for mac in ["none", "hmac-md5", "hmac-sha1", "hmac-sha1-96"] {
        let edit = |offer: &mut ssh_tests::puppet::Offer| {
            offer.ciphers = names(&["aes128-ctr"]);
            offer.macs = names(&[mac]);
        };
        assert_eq!(disagreement(edit), AlgorithmKind::Mac);
    }
    for kex in
        ["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"]
    {
        assert_eq!(disagreement(|offer| offer.kex = names(&[kex])), AlgorithmKind::Kex);
    }
    for key in ["ssh-rsa", "ssh-dss"] {
        assert_eq!(disagreement(|offer| offer.host_keys = names(&[key])), AlgorithmKind::HostKey);
    }
    for compression in ["zlib", "zlib@openssh.com"] {
        assert_eq!(
            disagreement(|offer| offer.compression = names(&[compression])),
            AlgorithmKind::Compression
        );
    }
}

#[test]
fn kx_12_the_macs_of_an_aead_do_not_matter() {
    let offer = |cipher: &'static str| {
        move |offer: &mut ssh_tests::puppet::Offer| {
            offer.ciphers = vec![cipher.into()];
            offer.macs = vec!["hmac-md5".into()];
        }
    };
    let server =
        || Scene::of_server(null_server().ciphers(&[null::CIPHER, null::STREAM]).build().expect("a server"));
    let mut scene = greeted(server());
    scene.kexinit(offer(null::CIPHER));
    scene.method();
    scene.new_keys();
    assert_eq!(scene.state(), State::ServiceFirst);
    let mut scene = greeted(server());
    scene.kexinit(offer(null::STREAM));
    assert!(matches!(scene.closed(), CloseReason::PeerIncompatible(_)));
}

#[test]
fn sm_05_a_peer_without_strict_key_exchange_is_reported_and_refused_by_policy() {
    for (policy, let_in) in [
        (StrictKexPolicy::Offer, true),
        (StrictKexPolicy::RequireStrictOrSafe, true),
        (StrictKexPolicy::Require, false),
    ] {
        let client = null_client().strict_kex(policy).build().expect("a client");
        let server = null_server().strict_kex(policy).build().expect("a server");
        for scene in [Scene::of_client(client), Scene::of_server(server)] {
            let mut scene = greeted(scene.strict(false));
            scene.kexinit(|_| {});
            assert_eq!(!scene.is_over(), let_in, "{policy:?}");
            if let_in {
                let negotiated = ssh_tests::either!(&scene.subject, conn => conn.negotiated().cloned());
                assert!(!negotiated.expect("known").strict_kex);
            } else {
                let why = Box::new(PeerIncompatible::StrictKexRequired);
                assert_eq!(scene.closed(), CloseReason::PeerIncompatible(why));
                assert_eq!(scene.disconnects(), [3]);
            }
        }
    }
    // The attack needs this cipher.
    for (cipher, let_in) in [("chacha20-poly1305@openssh.com", false), ("aes128-gcm@openssh.com", true)] {
        let config = ssh_tests::rustcrypto_server().strict_kex(StrictKexPolicy::RequireStrictOrSafe);
        let mut scene = Scene::of_server(config.build().expect("a server")).strict(false);
        scene.puppet = Puppet::new(Side::Client, &rustcrypto::PROVIDER, b"", |_| Vec::new());
        scene.puppet.strict = false;
        scene.hello();
        scene.kexinit(|offer| offer.ciphers = vec![cipher.into()]);
        assert_eq!(!scene.is_over(), let_in, "{cipher}");
    }
}

#[test]
fn kx_05_shares_without_contribution_are_refused_on_the_wire() {
    for (kex, share) in [
        ("curve25519-sha256", vec![0; 32]),
        ("curve25519-sha256", [&[1][..], &[0; 31]].concat()),
        ("mlkem768x25519-sha256", vec![0; 1184 + 32]),
        ("ecdh-sha2-nistp256", vec![0; 65]),
        ("ecdh-sha2-nistp256", vec![0]),
    ] {
        let config = ssh_tests::rustcrypto_server().kex(&[kex]).build().expect("a server");
        let mut scene = Scene::of_server(config);
        scene.puppet = Puppet::new(Side::Client, &rustcrypto::PROVIDER, b"", |_| Vec::new());
        scene.hello();
        scene.kexinit(|_| {});
        scene.say(&encoded(&ssh_proto::raw::kex::EcdhInit { share: &share }));
        scene.assert_broken(PeerMisbehaved::BadKeyShare, Some(number::KEX_ECDH_INIT));
    }
}
