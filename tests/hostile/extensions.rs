//! EXT_INFO: who gets one, when, what it says, and what a client with an RSA key makes of it.

use std::sync::{Arc, OnceLock};

use ssh_proto::crypto::{Provider, rustcrypto};
use ssh_proto::keys::load_private_key;
use ssh_proto::raw::auth::{Method, UserauthFailure, UserauthRequest, UserauthSuccess, split_signature};
use ssh_proto::raw::kex::KexInit;
use ssh_proto::raw::transport::ExtInfo;
use ssh_proto::raw::{Message, number};
use ssh_proto::wire::NameList;
use ssh_proto::{
    AuthProof, AuthVerdict, ClientConfig, Credential, KeyPair, PeerMisbehaved, ServerConfig, ServerEvent,
    Side,
};
use ssh_tests::puppet::Heard;
use ssh_tests::{Answer, Pair, Policy, Scene, hand, null, rustcrypto_client, rustcrypto_server, take};

use crate::stage::{greeted, keyed};

/// The extensions in a packet.
fn extensions(heard: &Heard) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let info = ExtInfo::decode(&heard.payload).expect("well-formed");
    info.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// A side whose peer has shown these markers, as far as our NEWKEYS.
fn behind_our_new_keys(side: Side, markers: &[&str]) -> Scene {
    let mut scene = greeted(Scene::of(side));
    scene.kexinit(|offer| {
        offer.kex.retain(|name| !name.starts_with("ext-info"));
        offer.kex.extend(markers.iter().map(|marker| String::from(*marker)));
    });
    scene.method();
    if side == Side::Client {
        scene.accept_host_key();
    }
    scene
}

#[test]
fn an_ext_info_is_the_first_message_behind_our_new_keys_and_only_where_it_was_asked_for() {
    let of_server = [("server-sig-algs", null::NAME), ("ping@openssh.com", "0")];
    let of_client = [("ext-info-in-auth@openssh.com", "0")];
    for (side, wanted, other, content) in [
        (Side::Client, "ext-info-s", "ext-info-c", &of_client[..]),
        (Side::Server, "ext-info-c", "ext-info-s", &of_server[..]),
    ] {
        for (markers, sent) in
            [(&[wanted][..], true), (&[other, wanted], true), (&[], false), (&[other], false)]
        {
            let mut scene = behind_our_new_keys(side, markers);
            // At once, and not only when the peer's NEWKEYS came.
            let heard = scene.take_heard();
            let new_keys = heard.iter().position(|heard| heard.number() == number::NEWKEYS);
            let behind = &heard[new_keys.expect("ours went out") + 1..];
            let request = (side == Side::Client).then_some(number::SERVICE_REQUEST);
            let expected: Vec<u8> = sent.then_some(number::EXT_INFO).into_iter().chain(request).collect();
            let numbers: Vec<u8> = behind.iter().map(Heard::number).collect();
            assert_eq!(numbers, expected, "{side:?} {markers:?}");
            if sent {
                let content: Vec<_> = content.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
                assert_eq!(extensions(&behind[0]), content, "{side:?}");
            }
            // And never again, whatever a later KEXINIT says.
            scene.new_keys();
            scene.service();
            scene.login();
            scene.kexinit(|offer| offer.kex.extend([wanted.into(), other.into()]));
            scene.method();
            scene.new_keys();
            scene.rekey();
            scene.exchange();
            let later = scene.take_heard();
            assert_eq!(later.iter().filter(|heard| heard.number() == number::NEWKEYS).count(), 2);
            assert_eq!(
                later.iter().filter(|heard| heard.number() == number::EXT_INFO).count(),
                0,
                "{side:?}"
            );
        }
    }
}

#[test]
fn a_side_asks_for_an_ext_info_in_its_first_kexinit_only() {
    for (side, marker) in [(Side::Client, "ext-info-c"), (Side::Server, "ext-info-s")] {
        let mut scene = greeted(Scene::of(side));
        scene.exchange();
        scene.service();
        scene.login();
        scene.exchange();
        let heard = scene.take_heard();
        let inits = heard.iter().filter(|heard| heard.number() == number::KEXINIT);
        let asked: Vec<_> = inits
            .map(|heard| KexInit::decode(&heard.payload).expect("well-formed").kex)
            .map(|kex| kex.iter().filter(|name| name.starts_with("ext-info")).collect::<Vec<_>>())
            .collect();
        assert_eq!(asked, [vec![marker], vec![]], "{side:?}");
    }
}

fn rsa_key() -> KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    let read = || load_private_key(include_bytes!("../../ssh-proto/src/keys/testdata/rsa2048"), None);
    KEY.get_or_init(|| read().expect("a key file").into_key_pair().expect("a key")).clone()
}

const SHA256: &str = "rsa-sha2-256";
const SHA512: &str = "rsa-sha2-512";

/// The real provider, without rsa-sha2-512.
static OF_SHA256: Provider = Provider {
    name: "rsa-sha2-256 alone",
    deterministic: true,
    kex: rustcrypto::PROVIDER.kex,
    ciphers: rustcrypto::PROVIDER.ciphers,
    macs: rustcrypto::PROVIDER.macs,
    signatures: &[rustcrypto::PROVIDER.signatures[0], rustcrypto::PROVIDER.signatures[3]],
};

fn of_sha256() -> Arc<ServerConfig> {
    let key = rustcrypto::Ed25519Signer::from_seed(&[7; 32]).expect("any seed is a key").key_pair();
    ServerConfig::builder(&OF_SHA256).host_key(key).build().expect("a server")
}

#[test]
fn an_rsa_key_signs_with_a_hash_that_the_server_says_it_takes() {
    let all = || rustcrypto_server().build().expect("a server");
    for (server, expected) in [(all(), SHA512), (of_sha256(), SHA256)] {
        for probe in [true, false] {
            let client = rustcrypto_client().build().expect("a client");
            let mut pair = Pair::new(client, server.clone(), 4);
            pair.server.policy = Policy { auth: Answer::Keep, ..Policy::default() };
            let credential = Credential::PublicKey { key: rsa_key(), probe };
            pair.client.conn.authenticate("user", credential).expect("a first attempt");
            pair.drive();
            let request = take!(pair.server, ServerEvent::Auth(request) => request);
            // Its signature is verified by then.
            let AuthProof::PublicKey { key, algorithm } = request.proof() else { panic!("{request:?}") };
            assert_eq!((*algorithm, key), (expected, &rsa_key().public), "probe {probe}");
            pair.server.conn.reply_auth(request, AuthVerdict::Accept).expect("the question is open");
            pair.drive();
            assert!(pair.client.authenticated && pair.server.authenticated);
            assert_eq!(pair.now, ssh_proto::Instant::ORIGIN, "it took no time");
        }
    }
}

/// RSA keys over the null provider.
static NULL_AND_RSA: Provider = Provider {
    name: "null and RSA",
    deterministic: true,
    kex: null::PROVIDER.kex,
    ciphers: null::PROVIDER.ciphers,
    macs: null::PROVIDER.macs,
    signatures: &[
        null::PROVIDER.signatures[0],
        rustcrypto::PROVIDER.signatures[2],
        rustcrypto::PROVIDER.signatures[3],
    ],
};

#[test]
fn an_rsa_key_is_used_by_what_the_last_ext_info_says() {
    let config = ClientConfig::builder(&NULL_AND_RSA).build().expect("a client");
    for (lists, expected) in [
        (&[][..], SHA512),
        (&["ssh-ed25519,ssh-rsa"], SHA512),
        (&["rsa-sha2-256,rsa-sha2-512"], SHA512),
        (&["ssh-ed25519,rsa-sha2-256"], SHA256),
        // Narrowed once more, behind the first request (PROTOCOL §1.10).
        (&["rsa-sha2-256,rsa-sha2-512", SHA256], SHA256),
        (&[SHA256, SHA512], SHA512),
    ] {
        let mut scene = keyed(Scene::of_client(config.clone()));
        let tell = |scene: &mut Scene, list: &str| {
            let mut payload = Vec::new();
            ExtInfo::encode_pairs(&[("x", ""), ("server-sig-algs", list)], &mut payload);
            scene.say(&payload);
        };
        if let Some(first) = lists.first() {
            tell(&mut scene, first);
        }
        scene.service();
        if let Some(second) = lists.get(1) {
            scene.as_client().authenticate("user", Credential::None).expect("idle");
            scene.settle();
            tell(&mut scene, second);
            let methods = NameList::parse(b"publickey").expect("a list");
            scene.tell(&UserauthFailure { methods, partial_success: false });
        }
        scene.forget();
        let credential = Credential::PublicKey { key: rsa_key(), probe: false };
        scene.as_client().authenticate("user", credential).expect("idle");
        let heard = scene.take_heard();
        let request = UserauthRequest::decode(&heard[0].payload).expect("well-formed");
        let Method::PublicKey { algorithm, signature: Some(signature), .. } = request.method else {
            panic!("{request:?}")
        };
        let (name, _) = split_signature(signature).expect("a signature");
        assert_eq!((algorithm, name), (expected, expected), "{lists:?}");
    }
}

/// RFC 8308 §2.4: who did not say that it takes one at any time (OpenSSH's `ext-info-in-auth`) gets a second one just
/// before SUCCESS, or none.
#[test]
fn a_second_ext_info_that_was_not_asked_for_stands_before_success_alone() {
    let mut second = Vec::new();
    ExtInfo::encode_pairs(&[("server-sig-algs", null::NAME)], &mut second);
    let methods = NameList::parse(b"password").unwrap();
    let failure = hand::encode(&UserauthFailure { methods, partial_success: false });
    let success = hand::encode(&UserauthSuccess {});
    for asked_for in [true, false] {
        for behind in [&success, &failure, &second] {
            let markers: &[&str] = if asked_for { &["ext-info-s"] } else { &[] };
            let mut scene = behind_our_new_keys(Side::Client, markers);
            scene.new_keys();
            scene.service();
            scene
                .as_client()
                .authenticate("user", Credential::Password("x".into()))
                .expect("a first attempt");
            scene.settle();
            scene.say(&second);
            assert!(!scene.is_over());
            scene.say(&hand::ignore(3));
            scene.say(behind);
            let is_fine = behind == &success || asked_for && behind == &failure;
            assert_eq!(scene.is_over(), !is_fine, "asked for {asked_for}, then {}", behind[0]);
            if !is_fine {
                scene.assert_broken(PeerMisbehaved::TooManyExtensions, Some(behind[0]));
            }
        }
    }
}
