//! Every rule of [`PeerMisbehaved`] is broken here once, and the connection says which.

use std::collections::HashSet;
use std::time::Duration;

use ssh_proto::raw::auth::{Method, UserauthPkOk, UserauthRequest, UserauthSuccess};
use ssh_proto::raw::channel::{ChannelOpenConfirmation, EXTENDED_DATA_STDERR};
use ssh_proto::raw::kex::EcdhInit;
use ssh_proto::raw::number;
use ssh_proto::raw::transport::{ExtInfo, Ignore, ServiceAccept, ServiceRequest};
use ssh_proto::wire::PutSsh;
use ssh_proto::{
    AuthMethods, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, Credential, PeerMisbehaved, ReadError,
    Stream,
};
use ssh_tests::puppet::null_signature;
use ssh_tests::{Scene, hand, null, null_client, null_key, null_server};

use PeerMisbehaved as Rule;

use crate::stage::{greeted, keyed, serviced};

/// What a case leaves: the connection, and the channel on which data came right before the bad packet.
struct Left {
    scene: Scene,
    data: Option<ChannelId>,
}

impl From<Scene> for Left {
    fn from(scene: Scene) -> Self {
        Self { scene, data: None }
    }
}

/// Logged in, with a session; four bytes of data are on their way, and `bad` follows in the same read.
fn behind_data(mut scene: Scene, bad: impl FnOnce(&mut Scene)) -> Left {
    scene = scene.authenticated();
    let id = scene.open_session(1 << 20);
    let packet = scene.puppet.seal(&hand::data(0, b"data"));
    scene.input.extend_from_slice(&packet);
    bad(&mut scene);
    Left { scene, data: Some(id) }
}

/// As [`behind_data`], for a client, with one payload.
fn bad_payload(payload: &[u8]) -> Left {
    behind_data(Scene::client(), |scene| scene.say(payload))
}

/// The first bytes of a packet with this length.
fn length(length: u32) -> Left {
    let mut scene = greeted(Scene::server());
    scene.say_bytes(&length.to_be_bytes());
    scene.into()
}

fn lines(scene: Scene, text: &str) -> Left {
    let mut scene = scene;
    scene.say_bytes(text.as_bytes());
    scene.into()
}

/// A client that gets a reply signed by `sign`.
fn replied(host_key: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Left {
    let mut scene = greeted(Scene::client());
    scene.puppet.host_key = host_key.to_vec();
    scene.kexinit(|_| {});
    let reply = scene.puppet.reply_signed(sign);
    scene.say(&reply);
    scene.into()
}

fn password<'a>(user: &'a str, service: &'a str) -> UserauthRequest<'a> {
    UserauthRequest { user, service, method: Method::Password { password: b"wrong", new: None } }
}

/// A client that opened a session nobody answered.
fn opening(then: impl FnOnce(&mut Scene)) -> Left {
    behind_data(Scene::client(), |scene| {
        let kind = ChannelKind::Session;
        scene.as_client().open_channel(&kind, ChannelConfig::default()).expect("there is room");
        then(scene);
    })
}

type Provoke = fn() -> Left;

/// Every rule, the number of the message that breaks it, and how it comes to that.
const CASES: &[(Rule, Option<u8>, Provoke)] = &[
    (Rule::IdentMissing, None, || lines(Scene::server(), "GET / HTTP/1.1\r\n")),
    (Rule::IdentTooLong, None, || lines(Scene::client(), &format!("SSH-2.0-{}\r\n", "x".repeat(250)))),
    (Rule::IdentMalformed, None, || lines(Scene::client(), "SSH-2.0-a\0b\r\n")),
    (Rule::PreambleTooLong, None, || lines(Scene::client(), &"hello\r\n".repeat(33))),
    (Rule::PacketTooShort, None, || length(4)),
    (Rule::PacketTooLong, None, || length(35_004)),
    (Rule::PacketMisaligned, None, || length(13)),
    (Rule::BadPadding, None, || {
        behind_data(Scene::server(), |scene| {
            let packet = scene.puppet.seal_padded(&hand::ignore(0), 10, 3);
            scene.say_bytes(&packet);
        })
    }),
    (Rule::EmptyPayload, None, || bad_payload(b"")),
    (Rule::BadMac, None, || {
        behind_data(Scene::server(), |scene| {
            let mut packet = scene.puppet.seal(&hand::data(0, b"more"));
            *packet.last_mut().expect("a tag") ^= 1;
            scene.say_bytes(&packet);
        })
    }),
    (Rule::UnexpectedMessage, Some(52), || {
        behind_data(Scene::server(), |scene| scene.tell(&UserauthSuccess {}))
    }),
    (Rule::MalformedMessage, Some(94), || bad_payload(&[number::CHANNEL_DATA, 0, 0, 0])),
    (Rule::KexInitNotFirst, Some(20), || {
        let mut scene = greeted(Scene::server());
        scene.tell(&Ignore { data: b"" });
        scene.kexinit(|_| {});
        scene.into()
    }),
    (Rule::KexInitTooLong, Some(20), || {
        let mut scene = greeted(Scene::server());
        scene.kexinit(|offer| offer.macs.extend((0..200).map(|at| format!("{at:-<63}"))));
        scene.into()
    }),
    (Rule::BadKeyShare, Some(30), || {
        let mut scene = greeted(Scene::server());
        scene.kexinit(|_| {});
        scene.tell(&EcdhInit { share: &[1; 31] });
        scene.into()
    }),
    (Rule::BadHostKey, Some(31), || {
        let mut blob = Vec::new();
        blob.put_string(b"ssh-ed25519");
        blob.put_string(&[1; 32]);
        replied(&blob, |hash| null_signature(1, hash))
    }),
    (Rule::WrongSignatureAlgorithm, Some(31), || {
        replied(null::public_key(1).as_blob(), |hash| {
            let mut blob = Vec::new();
            blob.put_string(b"ssh-ed25519");
            blob.put_string(null::sign(&null::public_key(1), hash).as_bytes());
            blob
        })
    }),
    (Rule::BadHostKeySignature, Some(31), || {
        replied(null::public_key(1).as_blob(), |hash| null_signature(2, hash))
    }),
    (Rule::HostKeyChanged, Some(31), || {
        behind_data(Scene::client(), |scene| {
            scene.puppet.host_key = null::public_key(2).as_blob().to_vec();
            scene.kexinit(|_| {});
            let reply = scene.puppet.reply_signed(|hash| null_signature(2, hash));
            scene.say(&reply);
        })
    }),
    (Rule::TooManyExtensions, Some(7), || {
        let mut scene = serviced(Scene::client());
        scene.as_client().authenticate("user", Credential::None).expect("idle");
        scene.settle();
        for _ in 0..3 {
            let mut payload = Vec::new();
            ExtInfo::encode_pairs(&[("server-sig-algs", "")], &mut payload);
            scene.say(&payload);
        }
        scene.into()
    }),
    (Rule::NoiseFlood, Some(2), || {
        behind_data(Scene::server(), |scene| (0..257).for_each(|_| scene.say(&hand::ignore(5))))
    }),
    (Rule::UnimplementedFlood, Some(199), || {
        behind_data(Scene::server(), |scene| (0..33).for_each(|_| scene.say(&[199])))
    }),
    (Rule::PreAuthVolume, Some(5), || {
        let config = null_server().with_limits(|limits| limits.pre_auth_packets = 10);
        let mut scene = keyed(Scene::of_server(config.build().expect("a server")));
        (0..8).for_each(|_| scene.service());
        scene.into()
    }),
    (Rule::RekeyFlood, Some(20), || {
        behind_data(Scene::server(), |scene| {
            (0..8).for_each(|_| scene.exchange());
            scene.kexinit(|_| {});
        })
    }),
    (Rule::ReplyFlood, Some(192), || {
        behind_data(Scene::server(), |scene| {
            scene.as_server().rekey();
            (0..350).for_each(|_| scene.say(&hand::ping(1000)));
        })
    }),
    (Rule::UnknownService, Some(5), || {
        let mut scene = keyed(Scene::server());
        scene.tell(&ServiceRequest { service: "ssh-connection" });
        scene.into()
    }),
    (Rule::WrongServiceAccepted, Some(6), || {
        let mut scene = keyed(Scene::client());
        scene.tell(&ServiceAccept { service: "ssh-connection" });
        scene.into()
    }),
    (Rule::UserOrServiceChanged, Some(50), || {
        let mut scene = serviced(Scene::server());
        scene.tell(&password("alice", "ssh-connection"));
        scene.answer_auth(AuthVerdict::Partial { next: AuthMethods::PUBLICKEY });
        scene.tell(&password("bob", "ssh-connection"));
        scene.into()
    }),
    (Rule::TooManyAuthFailures, None, || {
        let mut scene = serviced(Scene::server());
        for _ in 0..6 {
            scene.tell(&password("alice", "ssh-connection"));
            scene.answer_auth(AuthVerdict::Reject { next: AuthMethods::PASSWORD });
            scene.wait(Duration::from_millis(10));
        }
        scene.into()
    }),
    (Rule::TooManyAuthRequests, Some(50), || {
        let mut scene = serviced(Scene::server());
        for _ in 0..64 {
            scene.tell(&UserauthRequest { user: "alice", service: "ssh-connection", method: Method::None });
            if !scene.is_over() {
                scene.answer_auth(AuthVerdict::Reject { next: AuthMethods::PASSWORD });
                scene.wait(Duration::from_millis(10));
            }
        }
        scene.into()
    }),
    (Rule::WrongKeyAccepted, Some(60), || {
        let mut scene = serviced(Scene::client());
        let probe = Credential::PublicKey { key: null_key(3), probe: true };
        scene.as_client().authenticate("user", probe).expect("idle");
        scene.settle();
        let other = null::public_key(4);
        scene.tell(&UserauthPkOk { algorithm: null::NAME.as_bytes(), key: other.as_blob() });
        scene.into()
    }),
    (Rule::UnknownChannel, Some(94), || bad_payload(&hand::data(1, b"more"))),
    (Rule::ChannelNotOpening, Some(91), || bad_payload(&hand::confirmation(0, 8, 100, 100))),
    (Rule::ChannelNotOpen, Some(94), || opening(|scene| scene.say(&hand::data(1, b"more")))),
    (Rule::MaxPacketTooSmall, Some(91), || {
        opening(|scene| {
            let (recipient, sender, window, max_packet) = (1, 8, 100, 15);
            scene.tell(&ChannelOpenConfirmation { recipient, sender, window, max_packet, data: b"" });
        })
    }),
    (Rule::WindowExceeded, Some(94), || {
        let config = null_client().with_limits(|limits| limits.recv_budget = limits.max_channels * 32 * 1024);
        behind_data(Scene::of_client(config.build().expect("a client")), |scene| {
            // Four bytes of the window of 32 KiB are used up already.
            scene.say(&hand::data(0, &[0; 32 * 1024 - 3]));
        })
    }),
    (Rule::MaxPacketExceeded, Some(95), || {
        bad_payload(&hand::extended(0, EXTENDED_DATA_STDERR, &[0; 32 * 1024 + 1]))
    }),
    (Rule::UnknownExtendedData, Some(95), || {
        behind_data(Scene::server(), |scene| scene.say(&hand::extended(0, EXTENDED_DATA_STDERR + 1, b"more")))
    }),
    (Rule::WindowOverflow, Some(93), || bad_payload(&hand::adjust(0, u32::MAX - (1 << 20) + 1))),
    (Rule::DataAfterEof, Some(94), || {
        behind_data(Scene::client(), |scene| {
            scene.say(&hand::eof(0));
            scene.say(&hand::data(0, b"more"));
        })
    }),
    (Rule::DuplicateEof, Some(96), || {
        behind_data(Scene::server(), |scene| (0..2).for_each(|_| scene.say(&hand::eof(0))))
    }),
];

/// Provokes a rule's breach and holds the connection to what it promises then.
fn check((rule, message, provoke): (Rule, Option<u8>, Provoke)) {
    let Left { mut scene, data } = provoke();
    scene.assert_broken(rule, message);
    if let Some(id) = data {
        let (bytes, end) = scene.read_all(id, Stream::Data);
        assert_eq!(bytes, b"data", "{rule:?}: what came before is not lost");
        assert!(matches!(end, ReadError::Lost | ReadError::Eof), "{rule:?}: {end:?}");
    }
    scene.assert_silent_after_the_end();
}

#[test]
fn l9_every_broken_rule_is_named_told_to_the_peer_and_costs_nothing_received() {
    CASES.iter().copied().for_each(check);
}

#[test]
fn l9_there_is_a_case_for_every_rule() {
    let provoked: HashSet<Rule> = CASES.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(provoked, Rule::ALL.iter().copied().collect());
    assert_eq!(provoked.len(), CASES.len());
}
