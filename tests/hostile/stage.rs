//! Connections as far as most attacks need them.

use ssh_proto::raw::State;
use ssh_proto::raw::auth::{Method, UserauthRequest, signed_data};
use ssh_proto::{CloseReason, PeerMisbehaved};
use ssh_tests::puppet::null_signature;
use ssh_tests::scene::encoded;
use ssh_tests::{Scene, null};

/// A connection after the identification lines.
pub(crate) fn greeted(mut scene: Scene) -> Scene {
    scene.hello();
    scene
}

/// A connection before the service request is answered.
pub(crate) fn keyed(scene: Scene) -> Scene {
    let mut scene = greeted(scene);
    scene.exchange();
    scene
}

/// A connection between authentication requests.
pub(crate) fn serviced(scene: Scene) -> Scene {
    let mut scene = keyed(scene);
    scene.service();
    scene
}

/// Asserts that `message` was out of place and ended the connection, and that the peer was told.
#[track_caller]
pub(crate) fn assert_unexpected(scene: &mut Scene, message: u8) {
    scene.assert_broken(PeerMisbehaved::UnexpectedMessage, Some(message));
    assert_eq!(scene.state(), State::Closing);
}

/// The rule a connection ended over.
#[track_caller]
pub(crate) fn rule(scene: &mut Scene) -> PeerMisbehaved {
    match scene.closed() {
        CloseReason::PeerMisbehaved { rule, .. } => rule,
        other => panic!("{other:?}"),
    }
}

/// A USERAUTH_REQUEST without proof.
pub(crate) fn none_request(user: &str) -> Vec<u8> {
    encoded(&UserauthRequest { user, service: "ssh-connection", method: Method::None })
}

/// A USERAUTH_REQUEST with a password.
pub(crate) fn password_request(user: &str) -> Vec<u8> {
    let method = Method::Password { password: b"secret", new: None };
    encoded(&UserauthRequest { user, service: "ssh-connection", method })
}

/// A USERAUTH_REQUEST that asks about the null provider's key of this number.
pub(crate) fn probe_request(user: &str, key: u32) -> Vec<u8> {
    let key = null::public_key(key);
    let method = Method::PublicKey { algorithm: null::NAME, key: key.as_blob(), signature: None };
    encoded(&UserauthRequest { user, service: "ssh-connection", method })
}

/// A USERAUTH_REQUEST for key `shown`, signed by key `signer` over this session and user.
pub(crate) fn signed_request(session_id: &[u8], user: &str, (shown, signer): (u32, u32)) -> Vec<u8> {
    let key = null::public_key(shown);
    let message = signed_data(session_id, user, "ssh-connection", null::NAME, key.as_blob());
    let signature = null_signature(signer, &message);
    let signature = Some(&signature[..]);
    let method = Method::PublicKey { algorithm: null::NAME, key: key.as_blob(), signature };
    encoded(&UserauthRequest { user, service: "ssh-connection", method })
}
