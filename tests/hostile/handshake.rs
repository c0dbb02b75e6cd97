//! The initial exchange: messages out of place, extra messages, markers, guesses.

use ssh_proto::crypto::{ClientExchange, Hash, KexAlgorithm, KexError, Provider, ServerShare};
use ssh_proto::raw::kex::{EcdhInit, KexInit};
use ssh_proto::raw::transport::{ExtInfo, Ignore, ServiceAccept, ServiceRequest};
use ssh_proto::raw::{KexStep, Message, State, number};
use ssh_proto::{
    AlgorithmKind, ClientConfig, CloseReason, Entropy, PeerIncompatible, PeerMisbehaved, ServerConfig,
    ServerEvent, Side,
};
use ssh_tests::config::HOST_KEY;
use ssh_tests::puppet::{Heard, null_signature};
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Puppet, Scene, hand, null, null_key};

use crate::stage::{assert_unexpected, greeted, keyed, none_request, rule, serviced};

/// A server at each point before authentication, with the point's name.
fn servers() -> Vec<(&'static str, Scene)> {
    let mut offered = greeted(Scene::server());
    offered.kexinit(|_| {});
    let mut shared = greeted(Scene::server());
    shared.kexinit(|_| {});
    shared.method();
    vec![
        ("before KEXINIT", greeted(Scene::server())),
        ("behind KEXINIT", offered),
        ("before NEWKEYS", shared),
        ("behind NEWKEYS", keyed(Scene::server())),
        ("between requests", serviced(Scene::server())),
    ]
}

/// Whether a server told of anything it must not tell of before a login.
fn told_too_much(scene: &Scene) -> bool {
    scene.events.iter().any(|event| !matches!(event, Event::Server(ServerEvent::Closed(_))))
}

#[test]
fn sm_01_userauth_success_from_a_client() {
    for message in [51, 52, 53, 60, 61] {
        for (point, mut scene) in servers() {
            scene.say(&[message, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_unexpected(&mut scene, message);
            assert!(!told_too_much(&scene), "{message} {point}");
        }
    }
    let mut scene = Scene::server().authenticated();
    scene.say(&[52]);
    assert_unexpected(&mut scene, 52);
    assert_eq!(scene.events.len(), 1);
}

#[test]
fn sm_02_channel_messages_before_authentication() {
    for message in 80..=127 {
        for (point, mut scene) in servers() {
            let payload = match message {
                90 => hand::open(0, 1 << 20, 32768),
                98 => hand::request(0, "exec", true, b"\0\0\0\x02id"),
                _ => hand::filled(message, 16),
            };
            scene.say(&payload);
            assert_unexpected(&mut scene, message);
            assert!(!told_too_much(&scene), "{message} {point}");
        }
    }
}

fn ext_info() -> Vec<u8> {
    let mut payload = Vec::new();
    ExtInfo::encode_pairs(&[("server-sig-algs", null::NAME)], &mut payload);
    payload
}

/// The steps of a whole login, for one more packet between any two of them.
fn steps() -> Vec<fn(&mut Scene)> {
    vec![|scene| scene.kexinit(|_| {}), Scene::method, Scene::new_keys, Scene::service, Scene::login]
}

#[test]
fn sm_03_ext_info_at_every_place_of_a_handshake() {
    for side in [Side::Client, Side::Server] {
        for place in 0..=steps().len() {
            let mut scene = greeted(Scene::of(side));
            for (at, step) in steps().into_iter().enumerate().take(place) {
                step(&mut scene);
                if side == Side::Client && at == 1 {
                    scene.accept_host_key();
                }
            }
            scene.say(&ext_info());
            // Behind the first NEWKEYS it is welcome, anywhere else it is an attack.
            if place == 3 {
                assert!(!scene.is_over(), "{side:?}");
                scene.say(&ext_info());
            }
            let rule = rule(&mut scene);
            let between_requests = side == Side::Client && place == 4;
            let expected = match between_requests {
                true => PeerMisbehaved::TooManyExtensions,
                false => PeerMisbehaved::UnexpectedMessage,
            };
            assert_eq!(rule, expected, "{side:?} at {place}");
            assert_eq!(scene.disconnects(), [2]);
        }
    }
}

#[test]
fn sm_03_a_client_takes_one_ext_info_behind_new_keys_and_one_behind_its_first_request() {
    for early in [false, true] {
        let mut scene = keyed(Scene::client());
        if early {
            scene.say(&ext_info());
        }
        scene.service();
        scene.as_client().authenticate("user", ssh_proto::Credential::None).unwrap();
        scene.settle();
        scene.say(&ext_info());
        assert!(!scene.is_over(), "{early}");
        scene.say(&ext_info());
        assert_eq!(rule(&mut scene), PeerMisbehaved::TooManyExtensions, "{early}");
        assert_eq!(scene.disconnects(), [2]);
    }
}

#[test]
fn sm_04_a_request_in_clear_never_reaches_authentication() {
    for (point, mut scene) in servers().into_iter().take(3) {
        scene.say(&none_request("mallory"));
        assert_unexpected(&mut scene, number::USERAUTH_REQUEST);
        assert!(!told_too_much(&scene), "{point}");
    }
}

/// Sends these payloads to a server in the place of a handshake's, and gives the first that it refuses. The
/// attack worked where the server goes on to accept the service.
fn refused(flow: &[&dyn Fn(&mut Scene)]) -> (usize, PeerMisbehaved) {
    let mut scene = greeted(Scene::server());
    for (at, step) in flow.iter().enumerate() {
        step(&mut scene);
        if scene.is_over() {
            assert!(!told_too_much(&scene));
            assert_eq!(scene.disconnects(), [2]);
            let accepted = scene.heard.iter().any(|heard| heard.number() == number::SERVICE_ACCEPT);
            assert!(!accepted, "the violating flow was accepted");
            return (at, rule(&mut scene));
        }
    }
    panic!("the whole flow was accepted");
}

fn kexinit(scene: &mut Scene) {
    scene.kexinit(|_| {});
}

#[test]
fn sm_06_asyncssh_a_second_group_exchange_request() {
    let request = |scene: &mut Scene| scene.say(&hand::filled(34, 12));
    assert_eq!(refused(&[&kexinit, &request, &request]), (1, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_libssh_a_second_method_message() {
    let init = |scene: &mut Scene| scene.tell(&EcdhInit { share: &[3; 32] });
    let method = Scene::method;
    assert_eq!(refused(&[&kexinit, &method, &init]), (2, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_dropbear_ignore_before_newkeys() {
    let ignore = |scene: &mut Scene| scene.say(&hand::ignore(4));
    let flow: [&dyn Fn(&mut Scene); 4] = [&kexinit, &Scene::method, &ignore, &Scene::new_keys];
    assert_eq!(refused(&flow), (2, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_tinyssh_channel_open_before_newkeys() {
    let open = |scene: &mut Scene| scene.say(&hand::open(0, 100, 100));
    let flow: [&dyn Fn(&mut Scene); 4] = [&kexinit, &Scene::method, &open, &Scene::new_keys];
    assert_eq!(refused(&flow), (2, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_erlang_channel_open_behind_kexinit() {
    let open = |scene: &mut Scene| scene.say(&hand::open(0, 100, 100));
    let flow: [&dyn Fn(&mut Scene); 4] = [&kexinit, &open, &Scene::method, &Scene::new_keys];
    assert_eq!(refused(&flow), (1, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_lancom_an_answer_of_unimplemented_behind_kexinit() {
    let mut scene = greeted(Scene::server());
    scene.kexinit(|_| {});
    scene.say(&hand::open(0, 100, 100));
    assert_unexpected(&mut scene, 90);
    assert!(scene.heard.iter().all(|heard| heard.number() != number::UNIMPLEMENTED));
}

#[test]
fn sm_06_tectia_a_request_before_kexinit() {
    let request = |scene: &mut Scene| scene.say(&none_request("mallory"));
    let flow: [&dyn Fn(&mut Scene); 3] = [&request, &kexinit, &Scene::method];
    assert_eq!(refused(&flow), (0, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_06_tectia_a_request_behind_kexinit() {
    let request = |scene: &mut Scene| scene.say(&none_request("mallory"));
    let flow: [&dyn Fn(&mut Scene); 3] = [&kexinit, &request, &Scene::method];
    assert_eq!(refused(&flow), (1, PeerMisbehaved::UnexpectedMessage));
}

#[test]
fn sm_07_strictness_holds_from_the_second_kexinit_on() {
    for side in [Side::Client, Side::Server] {
        for message in [hand::ignore(1), hand::debug(), vec![3, 0, 0, 0, 0]] {
            let mut scene = greeted(Scene::of(side));
            scene.kexinit(|_| {});
            assert_eq!(scene.state(), State::Kex(KexStep::Single));
            scene.say(&message);
            assert_unexpected(&mut scene, message[0]);
        }
    }
}

#[test]
fn sm_08_markers_are_no_methods() {
    for side in [Side::Client, Side::Server] {
        let mut scene = greeted(Scene::of(side));
        scene.kexinit(|offer| offer.kex.retain(|name| name != null::NAME));
        let CloseReason::PeerIncompatible(why) = scene.closed() else { panic!("{:?}", scene.events) };
        let PeerIncompatible::NoCommonAlgorithm { kind, .. } = *why else { panic!("{why:?}") };
        assert_eq!(kind, AlgorithmKind::Kex);
        assert_eq!(scene.disconnects(), [3]);

        let mut scene = greeted(Scene::of(side));
        scene.kexinit(|offer| offer.kex.rotate_left(1));
        assert!(!scene.is_over(), "{side:?}: markers in front are skipped");
    }
}

#[test]
fn sm_08_a_marker_in_a_later_exchange_changes_nothing() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).strict(false).authenticated();
        let seq = scene.puppet.seq_out;
        scene.kexinit(|offer| {
            offer.kex.push("kex-strict-c-v00@openssh.com".into());
            offer.kex.push("kex-strict-s-v00@openssh.com".into());
        });
        scene.say(&hand::ignore(1));
        scene.method();
        scene.new_keys();
        // The numbers went on over NEWKEYS: the peer's count would not open anything else.
        assert_eq!(scene.puppet.seq_out, seq + 4);
        scene.say(&hand::global("x", true));
        assert!(!scene.is_over(), "{side:?}: {:?}", scene.events);
        let ours = scene.heard.iter().find(|heard| heard.number() == number::KEXINIT).expect("ours");
        let text = String::from_utf8_lossy(&ours.payload).into_owned();
        assert!(!text.contains("kex-strict") && !text.contains("ext-info"), "{text}");
    }
}

#[test]
fn sm_09_no_server_gets_a_service_request_before_new_keys_and_a_known_host_key() {
    for message in 0..=255 {
        for place in 0..3 {
            let mut scene = greeted(Scene::client());
            scene.as_client().authenticate("user", ssh_proto::Credential::None).expect("it waits");
            if place > 0 {
                scene.kexinit(|_| {});
            }
            if place > 1 {
                scene.method();
            }
            let payload = match message {
                5 => encoded(&ServiceRequest { service: "ssh-userauth" }),
                6 => encoded(&ServiceAccept { service: "ssh-userauth" }),
                _ => hand::filled(message, 8),
            };
            scene.say(&payload);
            let sent = scene.heard.iter().map(|heard| heard.number());
            assert_eq!(sent.filter(|sent| *sent >= 50 || (5..8).contains(sent)).count(), 0, "{message}");
        }
    }
}

#[test]
fn sm_10_kexinit_comes_once_per_exchange() {
    for side in [Side::Client, Side::Server] {
        let mut scene = greeted(Scene::of(side));
        scene.kexinit(|_| {});
        let held = scene.memory();
        // A flood is over at its second packet, whatever still comes.
        for _ in 0..1000 {
            let payload = scene.puppet.our_init.clone();
            scene.say(&payload);
        }
        assert_unexpected(&mut scene, number::KEXINIT);
        assert!(scene.memory().output <= held.output + 256);
        assert_eq!(scene.input.len(), 0);
    }
}

#[test]
fn sm_10_newkeys_and_method_messages_without_an_exchange() {
    for side in [Side::Client, Side::Server] {
        for message in [21, 30, 31, 32, 33, 34, 49] {
            let mut scene = Scene::of(side).authenticated();
            scene.say(&hand::bare(message));
            assert_unexpected(&mut scene, message);
        }
    }
}

#[test]
fn sm_14_guesses() {
    // Where the guesser's first method stands, its first host key algorithm, and whether that is right.
    for side in [Side::Client, Side::Server] {
        for (kex, host_key, right) in [(0, 0, true), (1, 0, false), (0, 1, false), (1, 1, false)] {
            let mut scene = greeted(Scene::of(side));
            scene.kexinit(|offer| {
                offer.follows = true;
                (0..kex).for_each(|_| offer.kex.insert(0, "another-method".into()));
                (0..host_key).for_each(|_| offer.host_keys.insert(0, "another-key".into()));
            });
            let expected = if right { State::Kex(KexStep::Single) } else { State::KexSkipGuess };
            assert_eq!(scene.state(), expected, "{side:?} {kex} {host_key}");
            if !right {
                scene.say(&hand::filled(33, 7));
                assert_eq!(scene.state(), State::Kex(KexStep::Single));
            }
            scene.method();
            if side == Side::Client {
                scene.accept_host_key();
            }
            scene.new_keys();
            assert!(!scene.is_over());
            assert_eq!(scene.state(), State::ServiceFirst);
        }
    }
}

#[test]
fn sm_14_markers_in_front_make_no_guess_wrong() {
    let markers =
        ["ext-info-c", "ext-info-s", "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"];
    for side in [Side::Client, Side::Server] {
        for marker in markers.into_iter().chain(["kexguess2@matt.ucc.asn.au"]) {
            let mut scene = greeted(Scene::of(side));
            scene.kexinit(|offer| {
                offer.follows = true;
                offer.kex.retain(|name| name != marker);
                offer.kex.insert(0, marker.into());
            });
            assert_eq!(scene.state(), State::Kex(KexStep::Single), "{side:?} {marker}");
        }
    }
}

/// The null provider's method by another name.
struct Second;

const SECOND: &str = "null-second@ssh-tests.invalid";

static TWO_METHODS: Provider = Provider {
    name: "two methods",
    deterministic: true,
    kex: &[null::PROVIDER.kex[0], &Second],
    ciphers: null::PROVIDER.ciphers,
    macs: null::PROVIDER.macs,
    signatures: null::PROVIDER.signatures,
};

impl KexAlgorithm for Second {
    fn name(&self) -> &'static str {
        SECOND
    }

    fn hash(&self) -> &'static dyn Hash {
        null::PROVIDER.kex[0].hash()
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        null::PROVIDER.kex[0].start(entropy)
    }

    fn respond(&self, share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        null::PROVIDER.kex[0].respond(share, entropy)
    }
}

/// A side that prefers the first of two methods, and a peer that knows both.
fn of_two_methods(side: Side) -> Scene {
    let mut scene = match side {
        Side::Client => Scene::of_client(ClientConfig::builder(&TWO_METHODS).build().expect("a client")),
        Side::Server => {
            let config = ServerConfig::builder(&TWO_METHODS).host_key(null_key(HOST_KEY));
            Scene::of_server(config.build().expect("a server"))
        }
    };
    let key = null::public_key(HOST_KEY);
    let sign = |message: &[u8]| null_signature(HOST_KEY, message);
    scene.puppet = Puppet::new(scene.puppet.side(), &TWO_METHODS, key.as_blob(), sign);
    scene
}

#[test]
fn sm_14_a_peer_that_names_dropbear_s_rule_is_judged_by_what_is_negotiated() {
    // What is negotiated is the second: the peer does not offer our first.
    for side in [Side::Client, Side::Server] {
        for (named, before, right) in
            [(true, None, true), (true, Some("x"), false), (false, None, false), (false, Some("x"), false)]
        {
            let mut scene = greeted(of_two_methods(side));
            scene.kexinit(|offer| {
                offer.follows = true;
                offer.kex.retain(|name| name != null::NAME);
                offer.kex.splice(0..0, before.map(String::from));
                offer.kex.extend(named.then(|| "kexguess2@matt.ucc.asn.au".into()));
            });
            let expected = if right { State::Kex(KexStep::Single) } else { State::KexSkipGuess };
            assert_eq!(scene.state(), expected, "{side:?} {named} {before:?}");
            if !right {
                scene.say(&hand::filled(33, 7));
            }
            scene.method();
            if side == Side::Client {
                scene.accept_host_key();
            }
            scene.new_keys();
            assert_eq!(scene.state(), State::ServiceFirst);
            let negotiated = ssh_tests::either!(&scene.subject, conn => conn.negotiated().cloned());
            assert_eq!(negotiated.map(|negotiated| negotiated.kex), Some(SECOND));
        }
    }
}

#[test]
fn sm_14_a_client_s_own_guess_is_repeated_only_where_the_server_drops_it() {
    let another = |list: &mut Vec<String>| list.insert(0, "another".into());
    // The server knows Dropbear's rule; its first method, its first host key algorithm, and its first method of all are
    // others; and the guess is right.
    for (named, method, host_key, lacking, right) in [
        (false, false, false, false, true),
        (false, true, false, false, false),
        (false, false, true, false, false),
        (false, false, false, true, false),
        (true, false, false, false, true),
        (true, true, true, false, true),
        (true, false, false, true, false),
    ] {
        let case = (named, method, host_key, lacking);
        let config = ClientConfig::builder(&TWO_METHODS).guess_kex(true).build().expect("a client");
        let mut scene = Scene::of_client(config);
        let sign = |message: &[u8]| null_signature(HOST_KEY, message);
        let key = null::public_key(HOST_KEY);
        scene.puppet = Puppet::new(Side::Server, &TWO_METHODS, key.as_blob(), sign);
        let numbers =
            |scene: &mut Scene| -> Vec<u8> { scene.take_heard().iter().map(Heard::number).collect() };
        scene.settle();
        assert_eq!(
            numbers(&mut scene),
            [number::KEXINIT, number::KEX_ECDH_INIT],
            "before the server says anything"
        );
        assert!(KexInit::decode(&scene.puppet.their_init).unwrap().first_kex_packet_follows);
        scene.hello();
        scene.kexinit(|offer| {
            offer.kex.retain(|name| !lacking || name != null::NAME);
            method.then(|| another(&mut offer.kex));
            host_key.then(|| another(&mut offer.host_keys));
            offer.kex.extend(named.then(|| "kexguess2@matt.ucc.asn.au".into()));
        });
        assert_eq!(numbers(&mut scene), if right { &[][..] } else { &[number::KEX_ECDH_INIT] }, "{case:?}");
        scene.method();
        scene.accept_host_key();
        scene.new_keys();
        assert_eq!(scene.state(), State::ServiceFirst, "{case:?}");
        let negotiated = scene.as_client().negotiated().map(|negotiated| negotiated.kex);
        assert_eq!(negotiated, Some(if lacking { SECOND } else { null::NAME }));
        // Later exchanges are not guessed: nobody waits for their packets.
        scene.service();
        scene.login();
        scene.forget();
        scene.rekey();
        assert_eq!(numbers(&mut scene), [number::KEXINIT], "{case:?}");
        assert!(!KexInit::decode(&scene.puppet.their_init).unwrap().first_kex_packet_follows);
    }
}

#[test]
fn sm_14_only_a_method_message_is_taken_for_the_guess_and_only_once() {
    for side in [Side::Client, Side::Server] {
        let guess = |scene: &mut Scene| {
            scene.kexinit(|offer| {
                offer.follows = true;
                offer.kex.insert(0, "another-method".into());
            });
        };
        let mut scene = greeted(Scene::of(side));
        guess(&mut scene);
        scene.say(&hand::bare(number::NEWKEYS));
        assert_unexpected(&mut scene, number::NEWKEYS);

        let mut scene = greeted(Scene::of(side));
        guess(&mut scene);
        scene.say(&hand::filled(30, 7));
        scene.say(&hand::filled(33, 7));
        assert_unexpected(&mut scene, 33);

        let mut scene = Scene::of(side).authenticated();
        guess(&mut scene);
        assert_eq!(scene.state(), State::RekeySkipGuess);
        scene.tell(&Ignore { data: b"" });
        scene.say(&hand::filled(30, 7));
        assert_eq!(scene.state(), State::RekeyKex(KexStep::Single));
    }
}
