//! A client's first request, which does not wait for SERVICE_ACCEPT (RFC 4253 §10): nothing that answers it counts
//! before the service is accepted.

use std::time::Duration;

use ssh_proto::raw::auth::{UserauthBanner, UserauthFailure, UserauthPkOk, UserauthSuccess};
use ssh_proto::raw::transport::ServiceAccept;
use ssh_proto::raw::{State, number};
use ssh_proto::wire::NameList;
use ssh_proto::{
    ClientEvent, CloseReason, Credential, KeyPair, Limits, PeerMisbehaved, SignRequest, TimeoutReason,
};
use ssh_tests::puppet::Heard;
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Scene, null, null_key};

use crate::stage::{assert_unexpected, keyed};

const KEY: u32 = 2;

/// A client that said how to log in before there were keys, and what it sent since there are.
fn early(credential: Credential) -> (Scene, Vec<u8>) {
    let mut scene = Scene::client();
    scene.as_client().authenticate("user", credential).expect("a first attempt");
    let mut scene = keyed(scene);
    scene.settle();
    let sent = scene.take_heard().iter().map(Heard::number).collect();
    assert_eq!(scene.state(), State::ServiceFirst);
    (scene, sent)
}

fn credentials() -> [Credential; 4] {
    let key = |probe| Credential::PublicKey { key: null_key(KEY), probe };
    [Credential::None, Credential::Password("secret".into()), key(true), key(false)]
}

fn logged_in(scene: &Scene) -> bool {
    scene.events.iter().any(|event| matches!(event, Event::Client(ClientEvent::Authenticated)))
}

/// What it sends behind NEWKEYS.
const SENT: [u8; 3] = [number::EXT_INFO, number::SERVICE_REQUEST, number::USERAUTH_REQUEST];

#[test]
fn sm_09_no_answer_counts_before_the_service_is_accepted() {
    let key = null::public_key(KEY);
    let methods = NameList::parse(b"publickey").unwrap();
    let answers = [
        encoded(&UserauthSuccess {}),
        encoded(&UserauthFailure { methods, partial_success: false }),
        encoded(&UserauthBanner { message: b"hello", language: b"" }),
        encoded(&UserauthPkOk { algorithm: null::NAME.as_bytes(), key: key.as_blob() }),
    ];
    for credential in credentials() {
        for answer in &answers {
            let (mut scene, sent) = early(credential.clone());
            assert!(sent.ends_with(&SENT), "{sent:?}");
            scene.say(answer);
            assert!(!logged_in(&scene));
            assert_unexpected(&mut scene, answer[0]);
        }
    }
}

#[test]
fn sm_09_an_early_request_goes_for_the_service_it_asked_for_alone() {
    for credential in credentials() {
        let (mut scene, _) = early(credential.clone());
        scene.tell(&ServiceAccept { service: "ssh-connection" });
        scene.assert_broken(PeerMisbehaved::WrongServiceAccepted, Some(number::SERVICE_ACCEPT));

        let (mut scene, _) = early(credential);
        scene.service();
        assert!(!logged_in(&scene));
        // It is not sent again.
        assert!(scene.take_heard().is_empty());
        scene.tell(&UserauthSuccess {});
        assert!(logged_in(&scene));
        assert_eq!(scene.state(), State::Authed);
    }
}

fn login_timeout() -> Duration {
    Limits::default().login_timeout
}

/// Just not so long.
fn nearly(limit: Duration) -> Duration {
    limit - Duration::from_secs(1)
}

fn assert_timed_out(scene: &mut Scene) {
    assert_eq!(scene.closed(), CloseReason::TimedOut(TimeoutReason::Login));
}

#[test]
fn ad_01_the_deadline_is_that_of_the_request_whether_or_not_the_service_is_accepted() {
    for credential in credentials() {
        for accepts in [false, true] {
            let (mut scene, _) = early(credential.clone());
            scene.wait(nearly(login_timeout()));
            assert!(!scene.is_over());
            if accepts {
                scene.service();
            }
            scene.wait(Duration::from_secs(2));
            assert_timed_out(&mut scene);
        }
    }
}

/// A client whose key signs by a ticket, which waits.
fn signing() -> (Scene, SignRequest) {
    let key = KeyPair::external(null::public_key(KEY));
    let (mut scene, sent) = early(Credential::PublicKey { key, probe: false });
    assert!(sent.ends_with(&SENT[..2]), "{sent:?}");
    let request = take_sign(&mut scene);
    (scene, request)
}

fn take_sign(scene: &mut Scene) -> SignRequest {
    scene.take(|event| match event {
        Event::Client(ClientEvent::Sign(request)) => Ok(request),
        other => Err(other),
    })
}

/// The same, before the server's NEWKEYS came.
fn signing_before_their_new_keys() -> (Scene, SignRequest) {
    let mut scene = Scene::client();
    let credential = Credential::PublicKey { key: KeyPair::external(null::public_key(KEY)), probe: false };
    scene.as_client().authenticate("user", credential).expect("a first attempt");
    scene.hello();
    scene.kexinit(|_| {});
    scene.method();
    scene.accept_host_key();
    let request = take_sign(&mut scene);
    (scene, request)
}

fn sign(scene: &mut Scene, request: SignRequest) {
    let to_sign = request.to_sign();
    let signature = null::sign(to_sign.key(), to_sign.message());
    scene.as_client().provide_signature(request, Ok(signature)).expect("the question is open");
    scene.settle();
}

#[test]
fn a_signature_by_a_ticket_goes_early_too_and_its_making_has_no_deadline() {
    // Before.
    let (mut scene, request) = signing();
    sign(&mut scene, request);
    assert_eq!(scene.take_heard().last().unwrap().number(), number::USERAUTH_REQUEST);
    scene.service();
    scene.tell(&UserauthSuccess {});
    assert!(logged_in(&scene));

    // The person looks for the token for an hour, and what the server says meanwhile may lie unread.
    for (before, accepted) in [(true, true), (true, false), (false, false)] {
        let (mut scene, request) = if before { signing() } else { signing_before_their_new_keys() };
        if accepted {
            scene.service();
            assert_eq!(scene.state(), State::AuthSignPending);
        }
        scene.wait(Duration::from_secs(3600));
        sign(&mut scene, request);
        assert_eq!(scene.take_heard().last().unwrap().number(), number::USERAUTH_REQUEST);
        scene.wait(nearly(login_timeout()));
        if !before {
            scene.new_keys();
        }
        if !accepted {
            scene.service();
        }
        scene.tell(&UserauthSuccess {});
        assert!(logged_in(&scene));
    }
    // From the answer on, the server has its time again.
    for before in [true, false] {
        let (mut scene, request) = if before { signing() } else { signing_before_their_new_keys() };
        scene.wait(Duration::from_secs(3600));
        sign(&mut scene, request);
        scene.wait(login_timeout() + Duration::from_secs(1));
        assert_timed_out(&mut scene);
    }
}

#[test]
fn an_early_attempt_that_fails_here_leaves_room_for_the_next_one_and_the_server_its_deadline() {
    let (mut scene, request) = signing();
    drop(request);
    scene.settle();
    scene.take(|event| match event {
        Event::Client(ClientEvent::AuthFailed { .. }) => Ok(()),
        other => Err(other),
    });
    // The server's time begins again.
    scene.wait(nearly(login_timeout()));
    scene.as_client().authenticate("user", Credential::None).expect("the other one is over");
    scene.settle();
    assert_eq!(scene.take_heard().last().unwrap().number(), number::USERAUTH_REQUEST);
    // The second request has a deadline of its own.
    scene.wait(nearly(login_timeout()));
    scene.service();
    scene.tell(&UserauthSuccess {});
    assert!(logged_in(&scene));

    let (mut scene, request) = signing();
    drop(request);
    scene.settle();
    scene.wait(login_timeout() + Duration::from_secs(1));
    assert_timed_out(&mut scene);
}
