//! Scripts that drive a real connection into a state of the gate.

use ssh_proto::crypto::rustcrypto;
use ssh_proto::raw::{AuthMethod, KexStep, State, transport};
use ssh_proto::{Credential, Side};
use ssh_tests::config::{null_client, null_server, rustcrypto_server};
use ssh_tests::null::{self, external_key, null_key};
use ssh_tests::{Puppet, Scene};

/// The states no connection comes to yet: group exchange and keyboard-interactive are not there.
pub(crate) const UNREACHED: [State; 6] = [
    State::Kex(KexStep::GexFirst),
    State::Kex(KexStep::GexSecond),
    State::RekeyKex(KexStep::GexFirst),
    State::RekeyKex(KexStep::GexSecond),
    State::AuthSent(AuthMethod::KeyboardInteractive),
    State::AuthPrompted,
];

/// A connection of `side` in `state`, with a peer that does strict key exchange or not. What happened on the
/// way is taken out of its events and packets, questions excepted.
pub(crate) fn reach(side: Side, state: State, strict: bool) -> Scene {
    bring(blank(side, state).strict(strict), state)
}

/// As [`reach`], for a server on real cryptography.
pub(crate) fn reach_rustcrypto(state: State, strict: bool) -> Scene {
    let config = rustcrypto_server().kex(&["curve25519-sha256"]).build().expect("a server");
    let mut scene = Scene::of_server(config);
    // A client verifies or does not; this one does not.
    scene.puppet = Puppet::new(Side::Client, &rustcrypto::PROVIDER, b"", |_| Vec::new());
    bring(scene.strict(strict), state)
}

fn bring(mut scene: Scene, state: State) -> Scene {
    let side = scene.side();
    scene.hello();
    script(&mut scene, side, state);
    scene.heard.clear();
    assert_eq!(scene.state(), state, "{side:?}");
    scene
}

fn blank(side: Side, state: State) -> Scene {
    match (side, state) {
        (Side::Client, _) => Scene::of_client(null_client().build().expect("a client")),
        // The signature of the exchange comes by ticket.
        (Side::Server, State::KexSignPending | State::RekeySignPending) => {
            let config = ssh_proto::ServerConfig::builder(&null::PROVIDER)
                .ciphers(&[null::CIPHER])
                .host_key(external_key(ssh_tests::config::HOST_KEY));
            Scene::of_server(config.build().expect("a server"))
        }
        (Side::Server, _) => Scene::of_server(null_server().build().expect("a server")),
    }
}

fn script(scene: &mut Scene, side: Side, state: State) {
    match state {
        State::AwaitKexInit => return,
        State::Closing => {
            scene.close();
            scene.events.clear();
            return;
        }
        State::KexSkipGuess => return wrong_guess(scene),
        _ => {}
    }
    scene.kexinit(|_| {});
    if state == State::Kex(KexStep::Single) {
        return;
    }
    scene.method();
    match state {
        State::HostKeyPending | State::KexSignPending => return,
        State::RekeySignPending => sign(scene),
        _ if side == Side::Client => scene.accept_host_key(),
        _ => {}
    }
    if state == State::AwaitNewKeys {
        return;
    }
    scene.new_keys();
    if state == State::ServiceFirst {
        return;
    }
    if state == State::Service {
        return scene.tell(&transport::Ignore { data: b"" });
    }
    scene.service();
    match state {
        State::AuthIdle => return,
        State::AuthSignPending => return try_with(scene, key(external_key(3), false)),
        State::AuthSent(AuthMethod::None) => return try_with(scene, Credential::None),
        State::AuthSent(AuthMethod::Password) => {
            return try_with(scene, Credential::Password("secret".into()));
        }
        State::AuthSent(AuthMethod::PublicKeyProbe) => return try_with(scene, key(null_key(3), true)),
        State::AuthSent(AuthMethod::PublicKeySigned) => return try_with(scene, key(null_key(3), false)),
        State::AuthDecisionPending => {
            use ssh_proto::raw::auth::{Method, UserauthRequest};
            let method = Method::None;
            return scene.tell(&UserauthRequest { user: "user", service: "ssh-connection", method });
        }
        _ => {}
    }
    scene.login();
    scene.forget();
    scene.open_session(1 << 20);
    match state {
        State::Authed => {}
        State::RekeySent => scene.rekey(),
        State::RekeySkipGuess => wrong_guess(scene),
        State::RekeyKex(_) => scene.kexinit(|_| {}),
        State::RekeySignPending | State::RekeyAwaitNewKeys => {
            scene.kexinit(|_| {});
            scene.method();
        }
        other => panic!("no way to {other:?}"),
    }
}

/// A KEXINIT whose guess is wrong: its first method is not the first of the subject.
fn wrong_guess(scene: &mut Scene) {
    scene.kexinit(|offer| {
        offer.kex.insert(0, "another-method".into());
        offer.follows = true;
    });
}

fn key(key: ssh_proto::KeyPair, probe: bool) -> Credential {
    Credential::PublicKey { key, probe }
}

fn try_with(scene: &mut Scene, with: Credential) {
    scene.as_client().authenticate("user", with).expect("idle");
    scene.settle();
}

/// Brings the signature of an exchange.
pub(crate) fn sign(scene: &mut Scene) {
    use ssh_proto::ServerEvent;
    use ssh_tests::scene::Event;
    let request = scene.take(|event| match event {
        Event::Server(ServerEvent::Sign(request)) => Ok(request),
        event => Err(event),
    });
    let to_sign = request.to_sign();
    let signature = null::sign(to_sign.key(), to_sign.message());
    scene.as_server().provide_signature(request, Ok(signature)).expect("the question is open");
    scene.settle();
}
