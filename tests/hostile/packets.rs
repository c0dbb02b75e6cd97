//! The packet layer under the right keys: lengths, padding, tags, floods.

use ssh_proto::crypto::rustcrypto;
use ssh_proto::raw::channel::ChannelOpen;
use ssh_proto::raw::kex::{EcdhInit, MAX_KEXINIT};
use ssh_proto::raw::transport::ServiceRequest;
use ssh_proto::raw::{KexStep, State, number};
use ssh_proto::wire::PutSsh;
use ssh_proto::{
    ChannelEvent, ChannelKind, ChannelRequestKind, CloseReason, MAX_PACKET, MAX_PACKET_PRE_AUTH,
    PeerMisbehaved, ServerEvent, Side, Stream,
};
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Puppet, Scene, hand, null, null_client, null_server, rustcrypto_server};

use crate::stage::{greeted, keyed, none_request, password_request, probe_request, rule, serviced};

/// A logged-in server whose packets are sealed by this cipher and MAC, and the session's id.
fn sealed_by(cipher: &'static str, mac: &'static str) -> Scene {
    let config = rustcrypto_server().kex(&["curve25519-sha256"]).ciphers(&[cipher]).macs(&[mac]);
    let mut scene = Scene::of_server(config.build().expect("a server"));
    scene.puppet = Puppet::new(Side::Client, &rustcrypto::PROVIDER, b"", |_| Vec::new());
    scene.authenticated()
}

const SUITES: [(&str, &str); 6] = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-512"),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
];

#[test]
fn pk_01_every_length_that_fits_no_packet_in_every_mode() {
    // The length of these stands in clear on the wire.
    for cipher in [null::CIPHER, "aes128-gcm@openssh.com"] {
        for length in [0u32, 1, 3, 4, 5, 7, 9, 262_145, 262_152, 1 << 31, u32::MAX] {
            let mut scene = match cipher {
                null::CIPHER => Scene::server().authenticated(),
                cipher => sealed_by(cipher, "hmac-sha2-256"),
            };
            let held = scene.memory();
            scene.say_bytes(&length.to_be_bytes());
            let expected = match length {
                0..=4 => PeerMisbehaved::PacketTooShort,
                262_145.. => PeerMisbehaved::PacketTooLong,
                _ => PeerMisbehaved::PacketMisaligned,
            };
            assert_eq!(rule(&mut scene), expected, "{cipher} {length}");
            assert_eq!(scene.disconnects(), [2]);
            assert!(scene.memory().output <= held.output + 256);
        }
    }
}

#[test]
fn pk_01_before_authentication_packets_are_short_and_after_it_long() {
    let mut scene = serviced(Scene::server());
    scene.say_bytes(&u32::try_from(MAX_PACKET_PRE_AUTH + 8).unwrap().to_be_bytes());
    assert_eq!(rule(&mut scene), PeerMisbehaved::PacketTooLong);
    let mut scene = Scene::server().authenticated();
    scene.say(&hand::global(&"x".repeat(64), false));
    let fits = hand::filled(199, MAX_PACKET - 1000);
    scene.say(&fits);
    assert!(!scene.is_over());
}

#[test]
fn pk_02_padding_is_checked_behind_the_tag() {
    for claimed in [0u8, 1, 3, 23, 24, 255] {
        let mut scene = Scene::server().authenticated();
        let packet = scene.puppet.seal_padded(&hand::ignore(0), 18, claimed);
        scene.say_bytes(&packet);
        let expected = match claimed {
            23 => PeerMisbehaved::EmptyPayload,
            _ => PeerMisbehaved::BadPadding,
        };
        assert_eq!(rule(&mut scene), expected, "{claimed}");
        assert_eq!(scene.disconnects(), [2]);
    }
    // As much padding as there can be is as good as little.
    let mut scene = Scene::server().authenticated();
    let payload = hand::ignore(3);
    let packet = scene.puppet.seal_padded(&payload, 255, 255);
    assert_eq!((packet.len() - 4 - null::TAG) % 8, 0);
    scene.say_bytes(&packet);
    assert!(!scene.is_over());
}

/// Feeds garbage in small pieces until the connection ends, and says how many bytes that took.
fn bytes_until_the_end(mut scene: Scene, first: &[u8]) -> (usize, PeerMisbehaved) {
    scene.say_bytes(first);
    let mut fed = first.len();
    while !scene.is_over() {
        scene.say_bytes(&[0x55; 64]);
        fed += 64;
        assert!(fed < 300_000, "no end in sight");
    }
    assert_eq!(scene.disconnects(), [PeerMisbehaved::BadMac.disconnect_code().unwrap().0]);
    let rule = rule(&mut scene);
    (fed, rule)
}

#[test]
fn pk_03_a_bad_length_and_a_bad_tag_show_at_the_same_byte() {
    let scene = || {
        let config = null_server().ciphers(&[null::STREAM]).build().expect("a server");
        let mut scene = Scene::of_server(config).authenticated();
        scene.forget();
        scene
    };
    let bad_length = {
        let scene = scene();
        bytes_until_the_end(scene, &[0xff; 64])
    };
    let bad_tag = {
        let mut scene = scene();
        let mut packet = scene.puppet.seal(&hand::ignore(3));
        *packet.last_mut().unwrap() ^= 1;
        packet.resize(64, 0x55);
        bytes_until_the_end(scene, &packet)
    };
    let misaligned = {
        let mut scene = scene();
        let mut packet = scene.puppet.seal(&hand::ignore(3));
        packet[3] ^= 1;
        packet.resize(64, 0x55);
        bytes_until_the_end(scene, &packet)
    };
    assert_eq!(bad_length, bad_tag);
    assert_eq!(bad_length, misaligned);
    assert_eq!(bad_length.1, PeerMisbehaved::BadMac);
}

#[test]
fn pk_04_no_flipped_bit_gets_through_and_the_first_is_the_end() {
    for (cipher, mac) in SUITES {
        let reference = sealed_by(cipher, mac).puppet.seal(&hand::data(0, b"data"));
        for at in 0..reference.len() {
            let mut scene = sealed_by(cipher, mac);
            let mut packet = scene.puppet.seal(&hand::data(0, b"data"));
            packet[at] ^= 1 << (at % 8);
            scene.say_bytes(&packet);
            // A flipped length may ask for more bytes first.
            let mut fed = 0;
            while !scene.is_over() && fed < 300_000 {
                scene.say_bytes(&[0; 4096]);
                fed += 4096;
            }
            let CloseReason::PeerMisbehaved { rule, message: None } = scene.closed() else {
                panic!("{cipher} {mac}, byte {at}: {:?}", scene.events);
            };
            assert!(
                [
                    PeerMisbehaved::BadMac,
                    PeerMisbehaved::PacketTooLong,
                    PeerMisbehaved::PacketTooShort,
                    PeerMisbehaved::PacketMisaligned
                ]
                .contains(&rule),
                "{cipher} {mac}, byte {at}: {rule:?}"
            );
            assert_eq!(scene.events.len(), 1);
        }
    }
}

#[test]
fn pk_05_the_first_bad_tag_is_fatal_and_nothing_behind_it_counts() {
    for (cipher, mac) in SUITES {
        let mut scene = sealed_by(cipher, mac);
        let mut packet = scene.puppet.seal(&hand::global("x@ssh-tests.invalid", true));
        *packet.last_mut().expect("a tag") ^= 1;
        scene.say_bytes(&packet);
        // Good ones, under the number of the bad one and under the next, and more bad ones.
        scene.puppet.seq_out -= 1;
        for _ in 0..10_000 {
            let mut packet = scene.puppet.seal(&hand::global("x@ssh-tests.invalid", true));
            if scene.puppet.seq_out.is_multiple_of(2) {
                packet[10] ^= 1;
            }
            scene.say_bytes(&packet);
        }
        scene.assert_broken(PeerMisbehaved::BadMac, None);
        assert_eq!((scene.events.len(), scene.heard.len()), (1, 1), "{cipher} {mac}");
        scene.assert_silent_after_the_end();
    }
}

/// A channel open with these fields of its type.
fn open(kind: &str, fields: &[u8]) -> Vec<u8> {
    encoded(&ChannelOpen { kind: kind.as_bytes(), sender: 7, window: 9, max_packet: 99, data: fields })
}

#[test]
fn pk_09_trailing_bytes_end_the_connection_except_behind_what_is_not_known() {
    let kexinit = {
        let mut puppet = Puppet::null(Side::Client);
        puppet.our_init = puppet.offer().payload();
        puppet.our_init
    };
    let behind_kexinit = || {
        let mut scene = greeted(Scene::server());
        scene.kexinit(|_| {});
        scene
    };
    let tcpip = b"\0\0\0\x01h\0\0\0\x50\0\0\0\x01o\0\0\0\x01";
    let extensions = b"\x07\0\0\0\x01\0\0\0\x01x\0\0\0\0".to_vec();
    // A message that is well-formed where it comes, and what one more byte makes of it.
    type Case = (fn() -> Scene, Vec<u8>);
    let cases: [Case; 14] = [
        (|| greeted(Scene::server()), kexinit),
        (behind_kexinit, encoded(&EcdhInit { share: &[1; 32] })),
        (
            || {
                let mut scene = greeted(Scene::server());
                scene.kexinit(|_| {});
                scene.method();
                scene
            },
            hand::bare(number::NEWKEYS),
        ),
        (|| keyed(Scene::server()), extensions),
        (|| keyed(Scene::server()), encoded(&ServiceRequest { service: "ssh-userauth" })),
        (|| serviced(Scene::server()), none_request("user")),
        (|| serviced(Scene::server()), password_request("user")),
        (|| serviced(Scene::server()), probe_request("user", 3)),
        (|| Scene::server().authenticated(), open("session", b"")),
        (|| Scene::server().authenticated(), open("direct-tcpip", tcpip)),
        (with_session, hand::adjust(0, 1)),
        (with_session, hand::data(0, b"x")),
        (with_session, hand::eof(0)),
        (with_session, hand::close(0)),
    ];
    for (scene, payload) in cases {
        let mut good = scene();
        // It may go on in a way that the peer is not ready for.
        good.puppet.deaf = true;
        good.say(&payload);
        assert!(!good.is_over(), "{payload:?}: {:?}", good.events);
        let mut bad = scene();
        bad.say(&[&payload[..], &[0]].concat());
        bad.assert_broken(PeerMisbehaved::MalformedMessage, Some(payload[0]));
    }
    // A request that is known has its fields and no more; that costs only the request.
    let mut scene = with_session();
    scene.say(&hand::request(0, "exec", true, b"\0\0\0\x02id\0"));
    assert_eq!(scene.take_events().len(), 0);
    assert_eq!(scene.take_heard().iter().map(|heard| heard.number()).collect::<Vec<_>>(), [100]);
    // Of one that is not known the fields are the rest, whatever they are, as they are of an open.
    scene.say(&hand::request(0, "x@ssh-tests.invalid", true, b"\0\0\0\x01x\0"));
    scene.say(&open("x@ssh-tests.invalid", b"\0\0\0\x01x\0"));
    for event in scene.take_events() {
        let data = match event {
            Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => match request.kind() {
                ChannelRequestKind::Other { data, .. } => data.clone(),
                other => panic!("{other:?}"),
            },
            Event::Server(ServerEvent::Open(request)) => match request.kind() {
                ChannelKind::Other { data, .. } => data.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(data, b"\0\0\0\x01x\0");
    }
    assert!(!scene.is_over());
}

fn with_session() -> Scene {
    let mut scene = Scene::server().authenticated();
    scene.open_session(1 << 20);
    scene
}

#[test]
fn pk_10_counts_are_bounded_by_what_is_there() {
    for count in [65u32, 1 << 16, u32::MAX] {
        let mut scene = keyed(Scene::client());
        scene.say(&[&[7u8][..], &count.to_be_bytes()].concat());
        assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage, "{count}");
    }
    // And where all of it is there, by a cap: on how many pairs, and on how long they are.
    let pairs = |count: usize, value: usize| {
        let mut payload = [&[7u8][..], &u32::try_from(count).unwrap().to_be_bytes()].concat();
        for _ in 0..count {
            payload.put_string(b"n");
            payload.put_string(&vec![b'v'; value]);
        }
        payload
    };
    // The largest that is taken: beside the value the count, the name and two lengths.
    const BYTES: usize = 16 * 1024 - 13;
    for (count, value, taken) in
        [(64, 1, true), (65, 0, false), (65, 1, false), (1, BYTES, true), (1, BYTES + 1, false)]
    {
        let mut scene = keyed(Scene::client());
        scene.say(&pairs(count, value));
        assert_eq!(scene.is_over(), !taken, "{count} of {value}");
        if !taken {
            assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage, "{count} of {value}");
        }
    }
}

#[test]
fn pk_11_names_are_bounded() {
    let request = |user: usize, service: usize, method: usize| {
        let mut payload = vec![number::USERAUTH_REQUEST];
        for len in [user, service, method] {
            payload.put_string(&vec![b'x'; len]);
        }
        payload
    };
    for payload in [request(257, 14, 4), request(4, 65, 4), request(4, 14, 65), request(30_000, 1, 1)] {
        let mut scene = serviced(Scene::server());
        scene.heard.clear();
        scene.say(&payload);
        assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage);
        assert!(scene.heard.iter().all(|heard| heard.payload.len() < 100), "nothing is echoed");
    }
}

#[test]
fn pk_13_tiny_data_costs_no_events_and_empty_data_is_noise() {
    let mut scene = Scene::server().authenticated();
    let id = scene.open_session(1 << 20);
    for _ in 0..5_000 {
        let packet = scene.puppet.seal(&hand::data(0, b"x"));
        scene.input.extend_from_slice(&packet);
    }
    scene.settle();
    assert_eq!(scene.events.len(), 1, "one Readable for all of it");
    assert!(scene.memory().borrowed <= 16);
    assert_eq!(scene.memory().parked, 5_000);
    assert_eq!(scene.read_all(id, Stream::Data).0.len(), 5_000);
    for _ in 0..300 {
        scene.say(&hand::data(0, b""));
    }
    assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood);
}

#[test]
fn pk_15_the_identification_is_hashed_as_it_came() {
    for ident in [&b"SSH-2.0-x comment  with spaces "[..], b"SSH-2.0-", b"SSH-2.0-\xff\xfe", b"SSH-1.99-old"]
    {
        let mut scene = Scene::client();
        scene.puppet.ident = ident.to_vec();
        assert_eq!(scene.authenticated().state(), State::Authed, "{ident:?}");
    }
}

#[test]
fn pk_18_kexinits_that_are_odd_but_legal() {
    for side in [Side::Client, Side::Server] {
        let odd: [fn(&mut ssh_tests::puppet::Offer); 4] = [
            |offer| offer.reserved = u32::MAX,
            |offer| offer.macs.clear(),
            |offer| offer.kex.extend((0..200).map(|at| format!("method-{at}"))),
            |offer| offer.compression.insert(0, "zlib@openssh.com".into()),
        ];
        for edit in odd {
            let mut scene = greeted(Scene::of(side));
            scene.kexinit(edit);
            assert_eq!(scene.state(), State::Kex(KexStep::Single), "{side:?}: {:?}", scene.events);
            scene.method();
            if side == Side::Client {
                scene.accept_host_key();
            }
            scene.new_keys();
            assert!(!scene.is_over(), "{side:?}: {:?}", scene.events);
        }
    }
}

#[test]
fn pk_18_kexinits_that_are_none() {
    let list = |kex: &[u8]| {
        let mut payload = vec![number::KEXINIT];
        payload.extend([0; 16]);
        payload.put_string(kex);
        (0..9).for_each(|_| payload.put_string(b""));
        payload.extend([0; 5]);
        payload
    };
    let many = b"a,".repeat(257);
    for bad in [&b",,"[..], b"a,,b", b"a\xc3\xa9", b"a b", &[b'x'; 65], &many] {
        let mut scene = greeted(Scene::server());
        scene.say(&list(bad));
        assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage);
    }
    let mut scene = greeted(Scene::server());
    scene.say(&hand::filled(number::KEXINIT, MAX_KEXINIT));
    assert_eq!(rule(&mut scene), PeerMisbehaved::KexInitTooLong);
}

#[test]
fn pk_14_lines_before_the_identification_and_other_protocols() {
    let mut scene = Scene::client();
    scene.say_bytes(b"Welcome\r\nto this server\r\n");
    assert_eq!(scene.authenticated().state(), State::Authed);
    for line in ["HTTP/1.1 400 Bad Request\r\n", "220 mail ESMTP\r\n"] {
        let mut scene = Scene::of_server(null_server().build().expect("a server"));
        scene.say_bytes(line.as_bytes());
        scene.assert_broken(PeerMisbehaved::IdentMissing, None);
    }
    let mut scene = Scene::of_client(null_client().build().expect("a client"));
    scene.say_bytes(b"SSH-1.5-old\r\n");
    assert!(matches!(scene.closed(), CloseReason::PeerIncompatible(_)));
    assert_eq!(scene.disconnects(), [8]);
}
