//! A well-formed body for every message number, and what else is tried in its place.

use ssh_proto::Side;
use ssh_proto::raw::auth::{
    Method, UserauthBanner, UserauthFailure, UserauthPasswdChangereq, UserauthPkOk, UserauthRequest,
    UserauthSuccess,
};
use ssh_proto::raw::channel::*;
use ssh_proto::raw::kex::{EcdhInit, EcdhReply, KexInit, NewKeys};
use ssh_proto::raw::transport::*;
use ssh_proto::raw::{AuthMethod, Message, State, number};
use ssh_proto::wire::NameList;
use ssh_tests::entropy::Seeded;
use ssh_tests::null;
use ssh_tests::scene::{Scene, encoded};

/// What stands behind the message number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    WellFormed,
    Empty,
    Truncated,
    Trailing,
    Random,
}

impl Body {
    pub(crate) const ALL: [Self; 5] =
        [Self::WellFormed, Self::Empty, Self::Truncated, Self::Trailing, Self::Random];

    /// The payload of message `number` for a subject as in `scene`.
    pub(crate) fn payload(self, scene: &mut Scene, number: u8) -> Vec<u8> {
        let mut payload = well_formed(scene, number);
        match self {
            Self::WellFormed => {}
            Self::Empty => payload.truncate(1),
            // The number stays.
            Self::Truncated => payload.truncate((payload.len() - 1).max(1)),
            Self::Trailing => payload.push(0),
            Self::Random => {
                payload.truncate(1);
                payload.extend(Seeded::new(u64::from(number)).bytes(64));
            }
        }
        payload
    }
}

/// A body as its number says, which would have an effect where one is possible.
fn well_formed(scene: &mut Scene, number: u8) -> Vec<u8> {
    let recipient = 0;
    match number {
        number::DISCONNECT => encoded(&Disconnect { code: 11, description: b"bye", language: b"" }),
        number::IGNORE => encoded(&Ignore { data: b"noise" }),
        number::UNIMPLEMENTED => encoded(&Unimplemented { sequence: 3 }),
        number::DEBUG => encoded(&Debug { always_display: true, message: b"noise", language: b"" }),
        number::SERVICE_REQUEST => encoded(&ServiceRequest { service: "ssh-userauth" }),
        number::SERVICE_ACCEPT => encoded(&ServiceAccept { service: "ssh-userauth" }),
        number::EXT_INFO => {
            let mut payload = Vec::new();
            ExtInfo::encode_pairs(&[("server-sig-algs", null::NAME)], &mut payload);
            payload
        }
        number::KEXINIT => {
            scene.puppet.our_init = scene.puppet.offer().payload();
            scene.puppet.our_init.clone()
        }
        number::NEWKEYS => encoded(&NewKeys {}),
        number::KEX_ECDH_INIT => match (scene.side(), scene.state()) {
            (Side::Server, State::Kex(_) | State::RekeyKex(_)) => scene.puppet.init(),
            _ => encoded(&EcdhInit { share: &[4; 32] }),
        },
        number::KEX_ECDH_REPLY => match (scene.side(), scene.state()) {
            (Side::Client, State::Kex(_) | State::RekeyKex(_)) => scene.puppet.reply(),
            _ => encoded(&EcdhReply { host_key: b"key", share: &[4; 32], signature: b"signature" }),
        },
        number::USERAUTH_REQUEST => {
            encoded(&UserauthRequest { user: "user", service: "ssh-connection", method: Method::None })
        }
        number::USERAUTH_FAILURE => {
            let methods = NameList::parse(b"password").expect("a list");
            encoded(&UserauthFailure { methods, partial_success: false })
        }
        number::USERAUTH_SUCCESS => encoded(&UserauthSuccess {}),
        number::USERAUTH_BANNER => encoded(&UserauthBanner { message: b"hello", language: b"" }),
        number::USERAUTH_60 => match scene.state() {
            State::AuthSent(AuthMethod::PublicKeyProbe) => {
                let key = null::public_key(3);
                encoded(&UserauthPkOk { algorithm: null::NAME.as_bytes(), key: key.as_blob() })
            }
            _ => encoded(&UserauthPasswdChangereq { prompt: b"new", language: b"" }),
        },
        number::GLOBAL_REQUEST => {
            encoded(&GlobalRequest { name: b"x@ssh-tests.invalid", want_reply: true, data: b"" })
        }
        number::REQUEST_SUCCESS => encoded(&RequestSuccess { data: b"" }),
        number::REQUEST_FAILURE => encoded(&RequestFailure {}),
        number::CHANNEL_OPEN => {
            let (window, max_packet) = (1 << 20, 32768);
            encoded(&ChannelOpen { kind: b"session", sender: 9, window, max_packet, data: b"" })
        }
        number::CHANNEL_OPEN_CONFIRMATION => {
            let (window, max_packet) = (1 << 20, 32768);
            encoded(&ChannelOpenConfirmation { recipient, sender: 9, window, max_packet, data: b"" })
        }
        number::CHANNEL_OPEN_FAILURE => {
            encoded(&ChannelOpenFailure { recipient, code: 1, description: b"no", language: b"" })
        }
        number::CHANNEL_WINDOW_ADJUST => encoded(&ChannelWindowAdjust { recipient, bytes: 100 }),
        number::CHANNEL_DATA => encoded(&ChannelData { recipient, data: b"data" }),
        number::CHANNEL_EXTENDED_DATA => {
            encoded(&ChannelExtendedData { recipient, code: EXTENDED_DATA_STDERR, data: b"data" })
        }
        number::CHANNEL_EOF => encoded(&ChannelEof { recipient }),
        number::CHANNEL_CLOSE => encoded(&ChannelClose { recipient }),
        number::CHANNEL_REQUEST => {
            encoded(&ChannelRequest { recipient, name: b"shell", want_reply: true, data: b"" })
        }
        number::CHANNEL_SUCCESS => encoded(&ChannelSuccess { recipient }),
        number::CHANNEL_FAILURE => encoded(&ChannelFailure { recipient }),
        number::PING => encoded(&Ping { data: b"ping" }),
        number::PONG => encoded(&Pong { data: b"ping" }),
        number => vec![number, 0, 0, 0, 0],
    }
}

/// Whether a payload is what its number says, for a subject as in `scene`.
pub(crate) fn is_well_formed(scene: &Scene, payload: &[u8]) -> bool {
    fn is<'a, M: Message<'a>>(payload: &'a [u8]) -> bool {
        M::decode(payload).is_ok()
    }
    match payload[0] {
        number::DISCONNECT => is::<Disconnect<'_>>(payload),
        number::IGNORE => is::<Ignore<'_>>(payload),
        number::UNIMPLEMENTED => is::<Unimplemented>(payload),
        number::DEBUG => is::<Debug<'_>>(payload),
        number::SERVICE_REQUEST => is::<ServiceRequest<'_>>(payload),
        number::SERVICE_ACCEPT => is::<ServiceAccept<'_>>(payload),
        number::EXT_INFO => is::<ExtInfo<'_>>(payload),
        number::KEXINIT => is::<KexInit<'_>>(payload),
        number::NEWKEYS => is::<NewKeys>(payload),
        number::KEX_ECDH_INIT => is::<EcdhInit<'_>>(payload),
        number::KEX_ECDH_REPLY => is::<EcdhReply<'_>>(payload),
        number::USERAUTH_REQUEST => is::<UserauthRequest<'_>>(payload),
        number::USERAUTH_FAILURE => is::<UserauthFailure<'_>>(payload),
        number::USERAUTH_SUCCESS => is::<UserauthSuccess>(payload),
        number::USERAUTH_BANNER => is::<UserauthBanner<'_>>(payload),
        number::USERAUTH_60 => match scene.state() {
            State::AuthSent(AuthMethod::PublicKeyProbe) => is::<UserauthPkOk<'_>>(payload),
            _ => is::<UserauthPasswdChangereq<'_>>(payload),
        },
        number::GLOBAL_REQUEST => is::<GlobalRequest<'_>>(payload),
        number::REQUEST_SUCCESS => is::<RequestSuccess<'_>>(payload),
        number::REQUEST_FAILURE => is::<RequestFailure>(payload),
        number::CHANNEL_OPEN => is::<ChannelOpen<'_>>(payload),
        number::CHANNEL_OPEN_CONFIRMATION => is::<ChannelOpenConfirmation<'_>>(payload),
        number::CHANNEL_OPEN_FAILURE => is::<ChannelOpenFailure<'_>>(payload),
        number::CHANNEL_WINDOW_ADJUST => is::<ChannelWindowAdjust>(payload),
        number::CHANNEL_DATA => is::<ChannelData<'_>>(payload),
        number::CHANNEL_EXTENDED_DATA => is::<ChannelExtendedData<'_>>(payload),
        number::CHANNEL_EOF => is::<ChannelEof>(payload),
        number::CHANNEL_CLOSE => is::<ChannelClose>(payload),
        number::CHANNEL_REQUEST => is::<ChannelRequest<'_>>(payload),
        number::CHANNEL_SUCCESS => is::<ChannelSuccess>(payload),
        number::CHANNEL_FAILURE => is::<ChannelFailure>(payload),
        number::PING => is::<Ping<'_>>(payload),
        number::PONG => is::<Pong<'_>>(payload),
        _ => true,
    }
}
