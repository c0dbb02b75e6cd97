//! Authentication: users that change, keys that are offered and not used, attempts without end.

use std::time::Duration;

use ssh_proto::crypto::{BadSignature, Provider, SignatureAlgorithm};
use ssh_proto::raw::auth::{MAX_SIGNATURE, Method, UserauthFailure, UserauthPkOk, UserauthRequest};
use ssh_proto::raw::transport::{ExtInfo, ServiceRequest};
use ssh_proto::raw::{Message, State, number};
use ssh_proto::wire::{NameList, PutSsh};
use ssh_proto::{
    AuthError, AuthMethods, AuthVerdict, ClientConfig, ClientEvent, CloseReason, Credential, DisconnectCode,
    Entropy, Instant, KeyError, KeyPair, MAX_KEY_BLOB, PeerMisbehaved, PublicKey, ServerConfig,
    ServerConnection, ServerEvent, Side, SignRefused, Signature, Signer, ToSign,
};
use ssh_tests::scene::{Event, Subject, encoded};
use ssh_tests::{FailsAt, Pair, Puppet, Scene, hand, null, null_key, null_server};

use crate::stage::{
    greeted, keyed, none_request, password_request, probe_request, rule, serviced, signed_request,
};

const REJECT: AuthVerdict = AuthVerdict::Reject { next: AuthMethods::PASSWORD };

/// A key type with two signature algorithms, for which every key and every signature is a good one.
struct Lax(&'static str);

const LAX_KEY: &str = "lax@ssh-tests.invalid";
const FIRST: &str = "lax-first@ssh-tests.invalid";
const SECOND: &str = "lax-second@ssh-tests.invalid";

/// The null provider with the lax keys.
static PROVIDER: Provider = Provider {
    name: "lax",
    deterministic: true,
    kex: null::PROVIDER.kex,
    ciphers: null::PROVIDER.ciphers,
    macs: null::PROVIDER.macs,
    signatures: &[null::PROVIDER.signatures[0], &Lax(FIRST), &Lax(SECOND)],
};

impl SignatureAlgorithm for Lax {
    fn name(&self) -> &'static str {
        self.0
    }

    fn key_type(&self) -> &'static str {
        LAX_KEY
    }

    fn check_key(&self, _: &[u8]) -> Result<(), KeyError> {
        Ok(())
    }

    fn verify(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), BadSignature> {
        Ok(())
    }
}

impl Signer for Lax {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        Ok(Signature::new(what.algorithm(), b"good"))
    }
}

/// A lax key's blob of so many bytes.
fn lax_blob(len: usize) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(LAX_KEY.as_bytes());
    blob.resize(len, b'k');
    blob
}

/// What the server told of a login, if it did.
fn login(scene: &mut Scene) -> Option<ssh_proto::AuthIdentity> {
    scene.settle();
    scene.events.iter().find_map(|event| match event {
        Event::Server(ServerEvent::Authenticated(identity)) => Some(identity.clone()),
        _ => None,
    })
}

fn answer_probe(scene: &mut Scene, acceptable: bool) {
    let probe = scene.take(|event| match event {
        Event::Server(ServerEvent::Probe(probe)) => Ok(probe),
        event => Err(event),
    });
    scene.as_server().reply_probe(probe, acceptable).expect("the question is open");
    scene.settle();
}

#[test]
fn sm_15_no_factor_of_one_user_counts_for_another() {
    for first in [AuthVerdict::Partial { next: AuthMethods::PASSWORD }, REJECT] {
        let mut scene = serviced(Scene::server());
        scene.say(&password_request("alice"));
        scene.answer_auth(first);
        scene.wait(Duration::from_millis(10));
        scene.say(&password_request("bob"));
        assert_eq!(rule(&mut scene), PeerMisbehaved::UserOrServiceChanged);
        assert_eq!(scene.disconnects(), [2]);
        assert_eq!(login(&mut scene), None);
    }
}

#[test]
fn sm_16_the_key_of_a_login_is_the_one_that_signed() {
    let mut scene = serviced(Scene::server());
    scene.say(&probe_request("user", 3));
    answer_probe(&mut scene, true);
    scene.say(&probe_request("user", 4));
    answer_probe(&mut scene, true);
    let session = scene.puppet.session_id.clone();
    scene.say(&signed_request(&session, "user", (3, 3)));
    scene.answer_auth(AuthVerdict::Accept);
    let identity = login(&mut scene).expect("logged in");
    assert_eq!(identity.key, Some(null::public_key(3)));
    assert_eq!(identity.methods, ["publickey"]);
}

#[test]
fn sm_16_a_signature_by_another_key_is_never_asked_about() {
    let mut scene = serviced(Scene::server());
    let session = scene.puppet.session_id.clone();
    scene.say(&probe_request("user", 3));
    answer_probe(&mut scene, true);
    scene.heard.clear();
    scene.say(&signed_request(&session, "user", (3, 4)));
    assert_eq!(scene.events.len(), 0, "{:?}", scene.events);
    scene.wait(Duration::from_millis(10));
    let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
    assert_eq!(numbers, [number::USERAUTH_FAILURE]);
}

#[test]
fn kx_08_a_signature_that_names_another_algorithm_proves_nothing() {
    let mut scene = serviced(Scene::server());
    let session = scene.puppet.session_id.clone();
    let mut request = signed_request(&session, "user", (3, 3));
    // The blob at the end: its length, the name's length, the name, the length of the bytes, the bytes.
    let name = request.len() - 32 - 4 - null::NAME.len();
    request[name] ^= 1;
    scene.say(&request);
    assert_eq!(scene.events.len(), 0, "{:?}", scene.events);
    scene.wait(Duration::from_millis(10));
    assert_eq!(scene.heard.last().map(|heard| heard.number()), Some(number::USERAUTH_FAILURE));
}

#[test]
fn kx_13_a_signature_over_another_session_or_user_proves_nothing() {
    for (session, signed_for, sent_for) in [(false, "user", "user"), (true, "alice", "user")] {
        let mut scene = serviced(Scene::server());
        let mut id = scene.puppet.session_id.clone();
        if !session {
            id[0] ^= 1;
        }
        let mut request = signed_request(&id, signed_for, (3, 3));
        if signed_for != sent_for {
            let mut renamed = signed_request(&id, sent_for, (3, 3));
            let signature = request.split_off(request.len() - 32);
            renamed.truncate(renamed.len() - 32);
            renamed.extend(signature);
            request = renamed;
        }
        scene.say(&request);
        assert_eq!(scene.events.len(), 0, "{:?}", scene.events);
        scene.wait(Duration::from_millis(10));
        assert_eq!(scene.heard.last().map(|heard| heard.number()), Some(number::USERAUTH_FAILURE));
    }
}

#[test]
fn sm_17_pk_ok_must_repeat_the_key_and_the_algorithm() {
    for (algorithm, key, right) in [(null::NAME, 3, true), (null::NAME, 4, false), ("ssh-ed25519", 3, false)]
    {
        let mut scene = serviced(Scene::client());
        let probe = Credential::PublicKey { key: null_key(3), probe: true };
        scene.as_client().authenticate("user", probe).expect("idle");
        scene.settle();
        scene.heard.clear();
        let key = null::public_key(key);
        scene.tell(&UserauthPkOk { algorithm: algorithm.as_bytes(), key: key.as_blob() });
        if right {
            assert_eq!(scene.heard[0].number(), number::USERAUTH_REQUEST);
        } else {
            assert_eq!(rule(&mut scene), PeerMisbehaved::WrongKeyAccepted);
            assert!(scene.heard.iter().all(|heard| heard.number() != number::USERAUTH_REQUEST));
        }
    }
}

#[test]
fn sm_19_refused_probes_are_failures_and_accepted_ones_are_counted_too() {
    let mut scene = serviced(Scene::server());
    let mut asked = 0;
    while !scene.is_over() {
        scene.say(&probe_request("user", asked));
        answer_probe(&mut scene, false);
        scene.wait(Duration::from_millis(10));
        asked += 1;
    }
    assert_eq!((asked, rule(&mut scene)), (6, PeerMisbehaved::TooManyAuthFailures));
    assert_eq!(scene.disconnects(), [14]);

    let mut scene = serviced(Scene::server());
    let mut asked = 0;
    loop {
        scene.say(&probe_request("user", asked));
        if scene.is_over() {
            break;
        }
        answer_probe(&mut scene, true);
        asked += 1;
    }
    // The service request was the first of the 64.
    assert_eq!((asked, rule(&mut scene)), (63, PeerMisbehaved::TooManyAuthRequests));
}

#[test]
fn sm_19_partial_successes_are_counted() {
    let mut scene = serviced(Scene::server());
    let mut asked = 0;
    loop {
        scene.say(&password_request("user"));
        if scene.is_over() {
            break;
        }
        scene.answer_auth(AuthVerdict::Partial { next: AuthMethods::PASSWORD });
        asked += 1;
    }
    assert_eq!((asked, rule(&mut scene)), (63, PeerMisbehaved::TooManyAuthRequests));
}

/// The methods that the one refusal among what was sent lists.
fn listed(scene: &mut Scene) -> String {
    scene.wait(Duration::from_millis(10));
    let heard = scene.take_heard();
    let [failure] = &heard[..] else { panic!("{heard:?}") };
    UserauthFailure::decode(&failure.payload).expect("a failure").methods.as_str().into()
}

#[test]
fn a_refusal_lists_what_the_last_verdict_left_whoever_refuses() {
    const KEY: AuthMethods = AuthMethods::PUBLICKEY;
    type Refused = fn(&mut Scene);
    let refusals: [(&str, Refused); 3] = [
        ("a method nobody has", |scene| scene.say(&request_by(Method::Other { name: "x", fields: b"" }))),
        ("a bad signature", |scene| scene.say(&signed_request(b"another session", "user", (3, 3)))),
        ("a dropped question", |scene| {
            scene.say(&none_request("user"));
            scene.take_events();
        }),
    ];
    for (name, refused) in refusals {
        let mut scene = serviced(Scene::server());
        scene.forget();
        refused(&mut scene);
        assert_eq!(listed(&mut scene), "publickey,password", "{name}");
        for verdict in [AuthVerdict::Partial { next: KEY }, AuthVerdict::Reject { next: KEY }] {
            let mut scene = serviced(Scene::server());
            scene.forget();
            scene.say(&password_request("user"));
            scene.answer_auth(verdict);
            assert_eq!(listed(&mut scene), "publickey");
            refused(&mut scene);
            assert_eq!(listed(&mut scene), "publickey", "{name} behind {verdict:?}");
        }
    }
}

#[test]
fn sm_25_methods_that_name_a_user_of_their_own_are_refused_without_asking() {
    for method in ["gssapi-with-mic", "gssapi-keyex", "hostbased", "keyboard-interactive"] {
        let mut scene = serviced(Scene::server());
        scene.forget();
        let mut payload = vec![50];
        for field in ["user", "ssh-connection", method, "principal"] {
            payload.put_string(field.as_bytes());
        }
        scene.say(&payload);
        assert_eq!(listed(&mut scene), "publickey,password", "{method}");
        assert_eq!(scene.events.len(), 0, "{method}: {:?}", scene.events);
    }
}

#[test]
fn methods_that_are_not_possible_are_refused_without_asking() {
    let config = null_server().auth_methods(AuthMethods::PASSWORD).build().expect("a server");
    let mut scene = serviced(Scene::of_server(config));
    scene.forget();
    let session = scene.puppet.session_id.clone();
    let of_keys = [probe_request("user", 3), signed_request(&session, "user", (3, 3))];
    for request in &of_keys {
        scene.say(request);
        assert_eq!(listed(&mut scene), "password");
    }
    assert_eq!(scene.events.len(), 0, "{:?}", scene.events);
    // Each of them was a failure, and a verdict may change what is possible.
    scene.say(&password_request("user"));
    scene.answer_auth(AuthVerdict::Reject { next: AuthMethods::PUBLICKEY });
    assert_eq!(listed(&mut scene), "publickey");
    scene.say(&of_keys[0]);
    answer_probe(&mut scene, true);
    scene.take_heard();
    scene.say(&password_request("user"));
    assert_eq!(listed(&mut scene), "publickey");
    scene.say(&password_request("user"));
    assert_eq!(listed(&mut scene), "publickey");
    scene.say(&password_request("user"));
    scene.wait(Duration::from_millis(10));
    assert_eq!(rule(&mut scene), PeerMisbehaved::TooManyAuthFailures);
    // Nothing is possible: only `none` is still a question.
    let config = null_server().auth_methods(AuthMethods::NONE).build().expect("a server");
    let mut scene = serviced(Scene::of_server(config));
    scene.forget();
    scene.say(&password_request("user"));
    assert_eq!(listed(&mut scene), "");
    scene.say(&none_request("user"));
    scene.answer_auth(AuthVerdict::Accept);
    assert_eq!(login(&mut scene).map(|identity| identity.methods), Some(vec!["none"]));
}

#[test]
fn sm_01_a_success_that_cannot_be_sealed_is_no_login() {
    let mut unsealed = 0;
    // Padding is drawn in blocks: somewhere among these the draw, and its failure, comes with the success.
    for requests in 1..100 {
        for call in 0..8 {
            let config = null_server().with_limits(|limits| limits.auth_requests = 200);
            let config = config.build().expect("a server");
            let conn = ServerConnection::new(config, Box::new(FailsAt::call(call)), Instant::ORIGIN);
            let mut scene = Scene::new(Subject::Server(Box::new(conn)), Puppet::null(Side::Client));
            scene.hello();
            if scene.is_over() {
                continue;
            }
            scene.kexinit(|_| {});
            scene.method();
            if scene.is_over() {
                continue;
            }
            scene.new_keys();
            (0..requests).for_each(|_| scene.service());
            scene.say(&password_request("user"));
            if scene.is_over() {
                continue;
            }
            scene.answer_auth(AuthVerdict::Accept);
            let sent = scene.heard.iter().any(|heard| heard.number() == number::USERAUTH_SUCCESS);
            assert_eq!(login(&mut scene).is_some(), sent, "{requests} requests, call {call}");
            if !sent {
                assert_eq!(scene.closed(), CloseReason::Entropy);
                unsealed += 1;
            }
        }
    }
    assert!(unsealed > 0);
}

#[test]
fn sm_20_requests_behind_a_success_are_dropped_and_cost() {
    let mut scene = Scene::server().authenticated();
    for _ in 0..128 {
        scene.say(&none_request("mallory"));
        scene.say(&hand::filled(number::USERAUTH_INFO_RESPONSE, 4));
    }
    assert_eq!((scene.events.len(), scene.heard.len()), (0, 0));
    scene.say(&none_request("mallory"));
    assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood);
}

#[test]
fn sm_21_two_ends_that_understand_nothing_come_to_rest() {
    let mut pair = Pair::logged_in();
    pair.client.conn.send_raw(&hand::bare(199));
    pair.server.conn.send_raw(&hand::bare(57));
    pair.client.conn.send_raw(&hand::bare(11));
    pair.drive();
    assert!(pair.client.conn.output().is_empty() && pair.server.conn.output().is_empty());
    assert!(!pair.client.conn.is_closed() && !pair.server.conn.is_closed());
}

#[test]
fn sm_22_there_is_one_service() {
    for service in ["ssh-connection", "", "ssh-userauth\0", "SSH-USERAUTH"] {
        let mut scene = keyed(Scene::server());
        scene.tell(&ServiceRequest { service });
        assert_eq!(rule(&mut scene), PeerMisbehaved::UnknownService, "{service:?}");
        assert_eq!(scene.disconnects(), [7]);
    }
    // Paramiko asks again before each attempt.
    let mut scene = serviced(Scene::server());
    scene.heard.clear();
    scene.service();
    scene.say(&password_request("user"));
    scene.answer_auth(AuthVerdict::Accept);
    assert_eq!(scene.state(), State::Authed);
    assert_eq!(scene.heard[0].number(), number::SERVICE_ACCEPT);
}

#[test]
fn sm_22_a_service_to_start_other_than_the_connection() {
    let request = |service| {
        let method = ssh_proto::raw::auth::Method::None;
        let mut payload = Vec::new();
        ssh_proto::raw::auth::UserauthRequest { user: "user", service, method }.encode(&mut payload);
        payload
    };
    let mut scene = serviced(Scene::server());
    scene.say(&request("ssh-userauth"));
    assert_eq!(rule(&mut scene), PeerMisbehaved::UnknownService);
    assert_eq!(login(&mut scene), None);
}

#[test]
fn sm_23_a_disconnect_ends_it_at_once_with_what_it_says_made_harmless() {
    let mut text = b"\x1b[2Jbye\xff".to_vec();
    text.resize(30_000, b'x');
    for side in [Side::Client, Side::Server] {
        let mid_exchange = {
            let mut scene = greeted(Scene::of(side));
            scene.kexinit(|_| {});
            scene
        };
        for mut scene in [greeted(Scene::of(side)), mid_exchange, serviced(Scene::of(side))] {
            scene.forget();
            scene.say(&hand::disconnect(99, &text));
            let CloseReason::PeerDisconnected { code, description } = scene.closed() else { panic!() };
            assert_eq!(code, DisconnectCode(99));
            assert_eq!(description.as_bytes().len(), 256);
            let shown = description.to_string();
            assert!(shown.starts_with("\\u{1b}[2Jbye\\xff"), "{shown}");
            assert_eq!(scene.heard, []);
            scene.assert_silent_after_the_end();
        }
    }
}

#[test]
fn sm_24_a_client_does_not_try_forever() {
    let mut scene = serviced(Scene::client());
    let mut attempts = 0;
    loop {
        match scene.as_client().authenticate("user", Credential::None) {
            Ok(()) => attempts += 1,
            Err(error) => {
                assert_eq!(error, AuthError::TooMany);
                break;
            }
        }
        scene.settle();
        let methods = NameList::parse(b"none,password").expect("a list");
        scene.tell(&UserauthFailure { methods, partial_success: true });
        scene.take(|event| match event {
            Event::Client(ClientEvent::AuthFailed { partial: true, .. }) => Ok(()),
            event => Err(event),
        });
    }
    assert_eq!(attempts, 32);
    let sent = scene.heard.iter().filter(|heard| heard.number() == number::USERAUTH_REQUEST);
    assert_eq!(sent.count(), 32);
}

#[test]
fn tm_06_banners_are_bounded_and_the_rest_is_dropped() {
    let mut scene = serviced(Scene::client());
    let banner = |len: usize| {
        let mut payload = Vec::new();
        ssh_proto::raw::auth::UserauthBanner { message: &vec![b'x'; len], language: b"" }
            .encode(&mut payload);
        payload
    };
    scene.forget();
    (0..100).for_each(|_| scene.say(&banner(100)));
    assert_eq!(scene.events.len(), 16);
    assert!(!scene.is_over());

    let mut scene = serviced(Scene::client());
    scene.forget();
    (0..10).for_each(|_| scene.say(&banner(10_000)));
    let kept = scene.events.iter().map(|event| match event {
        Event::Client(ClientEvent::Banner(text)) => text.as_bytes().len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(kept.collect::<Vec<_>>(), [10_000, 10_000, 10_000, 2768]);
}

/// The algorithm of the one public-key request that was sent.
fn algorithm_sent(scene: &mut Scene) -> String {
    let heard = scene.take_heard();
    let requests: Vec<_> = heard.iter().filter(|heard| heard.number() == number::USERAUTH_REQUEST).collect();
    let [request] = requests[..] else { panic!("{heard:?}") };
    match UserauthRequest::decode(&request.payload).expect("well-formed").method {
        Method::PublicKey { algorithm, .. } => algorithm.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_used_by_what_the_server_takes_and_where_that_is_left_out_by_our_first() {
    let key = PublicKey::from_blob(&lax_blob(100)).expect("a blob");
    let key = KeyPair::new(key, std::sync::Arc::new(Lax("")));
    let both = [FIRST, SECOND].join(",");
    let turned = [SECOND, FIRST].join(",");
    let last = ["ssh-ed25519", SECOND, "x@ssh-tests.invalid"].join(",");
    for (list, expected) in [
        (None, FIRST),
        (Some(""), FIRST),
        (Some("ssh-ed25519,rsa-sha2-512"), FIRST),
        (Some(null::NAME), FIRST),
        (Some(&both[..]), FIRST),
        (Some(&turned[..]), FIRST),
        (Some(SECOND), SECOND),
        (Some(&last[..]), SECOND),
    ] {
        for (probe, asked_early) in [(true, true), (true, false), (false, true), (false, false)] {
            let config = ClientConfig::builder(&PROVIDER).ciphers(&[null::CIPHER]).build().expect("a client");
            let mut scene = Scene::of_client(config);
            let credential = Credential::PublicKey { key: key.clone(), probe };
            if asked_early {
                scene.as_client().authenticate("user", credential.clone()).expect("a first attempt");
            }
            scene = keyed(scene);
            if let Some(list) = list {
                let mut payload = Vec::new();
                ExtInfo::encode_pairs(&[("server-sig-algs", list)], &mut payload);
                scene.say(&payload);
            }
            scene.service();
            if !asked_early {
                scene.as_client().authenticate("user", credential).expect("idle");
            }
            assert_eq!(algorithm_sent(&mut scene), expected, "{list:?}, probe {probe}, early {asked_early}");
        }
    }
}

/// A server between requests that knows lax keys.
fn lax_server() -> Scene {
    let config = ServerConfig::builder(&PROVIDER).ciphers(&[null::CIPHER]).host_key(null_key(1));
    let mut scene = serviced(Scene::of_server(config.build().expect("a server")));
    scene.forget();
    scene
}

/// A request by this method.
fn request_by(method: Method<'_>) -> Vec<u8> {
    encoded(&UserauthRequest { user: "user", service: "ssh-connection", method })
}

fn password(password: &[u8], new: Option<&[u8]>) -> Vec<u8> {
    request_by(Method::Password { password, new })
}

/// A request for a lax key with so long a blob, with a signature of so many bytes if any.
fn lax_request(key: usize, signature: Option<usize>) -> Vec<u8> {
    let signature = signature.map(|len| {
        let mut blob = Vec::new();
        blob.put_string(FIRST.as_bytes());
        blob.put_string(&vec![b's'; len - blob.len() - 4]);
        blob
    });
    let (key, signature) = (lax_blob(key), signature.as_deref());
    request_by(Method::PublicKey { algorithm: FIRST, key: &key, signature })
}

/// The longest password there is, in bytes.
const MAX_PASSWORD: usize = 1024;

#[test]
fn pk_11_a_proof_that_is_too_long_or_no_text_costs_its_request_and_no_more() {
    let long = vec![b'x'; MAX_PASSWORD + 1];
    let requests = [
        ("a probe of a huge key", lax_request(MAX_KEY_BLOB + 1, None)),
        ("a signature by a huge key", lax_request(MAX_KEY_BLOB + 1, Some(100))),
        ("a probe of the hugest key that fits a packet", lax_request(34_000, None)),
        ("a huge signature", lax_request(100, Some(MAX_SIGNATURE + 1))),
        ("a long password", password(&long, None)),
        ("a password that is no text", password(b"pass\xff", None)),
        ("a change from a long password", password(&long, Some(b"new"))),
        ("a change to a long password", password(b"old", Some(&long))),
        ("a change from what is no text", password(b"old\xff", Some(b"new"))),
        ("a change to what is no text", password(b"old", Some(b"new\xff"))),
    ];
    for (name, request) in &requests {
        let mut scene = lax_server();
        scene.say(request);
        assert_eq!(scene.events.len(), 0, "{name}: {:?}", scene.events);
        scene.wait(Duration::from_millis(10));
        let heard = scene.take_heard();
        let [failure] = &heard[..] else { panic!("{name}: {heard:?}") };
        let failure = UserauthFailure::decode(&failure.payload).expect("a failure");
        assert_eq!((failure.methods.as_str(), failure.partial_success), ("publickey,password", false));
        scene.say(&password_request("user"));
        scene.answer_auth(AuthVerdict::Accept);
        assert_eq!(login(&mut scene).map(|identity| identity.methods), Some(vec!["password"]), "{name}");
        // Each one is an attempt.
        let mut scene = lax_server();
        let mut asked = 0;
        while !scene.is_over() {
            scene.say(request);
            scene.wait(Duration::from_millis(10));
            asked += 1;
        }
        assert_eq!((asked, rule(&mut scene)), (6, PeerMisbehaved::TooManyAuthFailures), "{name}");
        assert_eq!(scene.disconnects(), [14]);
    }
    // To the last byte that fits they are asked about.
    for request in [
        lax_request(MAX_KEY_BLOB, None),
        lax_request(MAX_KEY_BLOB, Some(MAX_SIGNATURE)),
        password(&long[1..], None),
        password(&long[1..], Some(&long[1..])),
    ] {
        let mut scene = lax_server();
        scene.say(&request);
        let asked = |event: &Event| {
            matches!(event, Event::Server(ServerEvent::Auth(_)) | Event::Server(ServerEvent::Probe(_)))
        };
        assert!(matches!(&scene.events[..], [event] if asked(event)), "{:?}", scene.events);
    }
}

#[test]
fn out_01_a_user_name_that_could_be_an_option_or_a_control_costs_its_request_and_never_gets_in() {
    for user in ["-oProxyCommand=x", "-", "a\nb", "a\0", "\u{7f}", "\u{85}"] {
        let mut scene = lax_server();
        let mut asked = 0;
        while !scene.is_over() {
            scene.say(&if asked % 2 == 0 { none_request(user) } else { password_request(user) });
            assert_eq!(scene.events.iter().filter(|event| event.closed().is_none()).count(), 0, "{user:?}");
            scene.wait(Duration::from_millis(10));
            asked += 1;
        }
        assert_eq!((asked, rule(&mut scene)), (6, PeerMisbehaved::TooManyAuthFailures), "{user:?}");
        let failures = scene.heard.iter().filter(|heard| heard.number() == number::USERAUTH_FAILURE);
        assert_eq!(failures.count(), 5, "{user:?}");
    }
    // One that is no text at all is no request.
    let mut scene = lax_server();
    let mut request = none_request("user");
    request[5] = 0xff;
    scene.say(&request);
    assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage);
    assert_eq!(scene.disconnects(), [2]);
}
