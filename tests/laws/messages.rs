//! Whole messages: what is encoded decodes to itself, and decoding survives anything.

use proptest::prelude::*;
use ssh_proto::raw::auth::{
    Method, UserauthBanner, UserauthFailure, UserauthPasswdChangereq, UserauthPkOk, UserauthRequest,
    UserauthSuccess,
};
use ssh_proto::raw::channel::*;
use ssh_proto::raw::kex::{EcdhInit, EcdhReply, KexInit, NewKeys};
use ssh_proto::raw::transport::*;
use ssh_proto::raw::{Message, State, Verdict, admit};
use ssh_proto::wire::NameList;
use ssh_proto::{ChannelKind, ChannelRequestKind, Side};
use ssh_tests::hand::encode;

use super::ops::cases;

/// One of each message, from the same few fields.
macro_rules! every {
    ($each:ident, $f:ident) => {
        $each!(Disconnect { code: $f.a, description: &$f.x, language: &$f.y });
        $each!(Ignore { data: &$f.x });
        $each!(Unimplemented { sequence: $f.a });
        $each!(Debug { always_display: $f.on, message: &$f.x, language: &$f.y });
        $each!(ServiceRequest { service: &$f.text });
        $each!(ServiceAccept { service: &$f.text });
        $each!(Ping { data: &$f.x });
        $each!(Pong { data: &$f.x });
        $each!(NewKeys {});
        $each!(EcdhInit { share: &$f.x });
        $each!(EcdhReply { host_key: &$f.x, share: &$f.y, signature: &$f.x });
        $each!(KexInit {
            cookie: &[7; 16],
            kex: list(&$f.list),
            host_key: list(&$f.list),
            cipher_c2s: NameList::EMPTY,
            cipher_s2c: list(&$f.list),
            mac_c2s: list(&$f.list),
            mac_s2c: NameList::EMPTY,
            compression_c2s: list(&$f.list),
            compression_s2c: list(&$f.list),
            languages_c2s: NameList::EMPTY,
            languages_s2c: NameList::EMPTY,
            first_kex_packet_follows: $f.on,
            reserved: $f.a,
        });
        $each!(UserauthRequest { user: &$f.text, service: &$f.text, method: Method::None });
        $each!(UserauthRequest {
            user: &$f.text,
            service: &$f.text,
            method: Method::Password {
                password: $f.text.as_bytes(),
                new: $f.on.then_some($f.text.as_bytes())
            },
        });
        $each!(UserauthRequest {
            user: &$f.text,
            service: &$f.text,
            method: Method::PublicKey {
                algorithm: &$f.text,
                key: &$f.x,
                signature: $f.on.then_some(&$f.y[..]),
            },
        });
        $each!(UserauthFailure { methods: list(&$f.list), partial_success: $f.on });
        $each!(UserauthSuccess {});
        $each!(UserauthBanner { message: &$f.x, language: &$f.y });
        $each!(UserauthPkOk { algorithm: $f.text.as_bytes(), key: &$f.x });
        $each!(UserauthPasswdChangereq { prompt: &$f.x, language: &$f.y });
        $each!(GlobalRequest { name: $f.text.as_bytes(), want_reply: $f.on, data: &$f.x });
        $each!(RequestSuccess { data: &$f.x });
        $each!(RequestFailure {});
        $each!(ChannelOpen {
            kind: $f.text.as_bytes(),
            sender: $f.a,
            window: $f.b,
            max_packet: $f.a,
            data: &$f.x
        });
        $each!(ChannelOpenConfirmation {
            recipient: $f.a,
            sender: $f.b,
            window: $f.a,
            max_packet: $f.b,
            data: &$f.x
        });
        $each!(ChannelOpenFailure { recipient: $f.a, code: $f.b, description: &$f.x, language: &$f.y });
        $each!(ChannelWindowAdjust { recipient: $f.a, bytes: $f.b });
        $each!(ChannelData { recipient: $f.a, data: &$f.x });
        $each!(ChannelExtendedData { recipient: $f.a, code: $f.b, data: &$f.x });
        $each!(ChannelEof { recipient: $f.a });
        $each!(ChannelClose { recipient: $f.a });
        $each!(ChannelRequest { recipient: $f.a, name: $f.text.as_bytes(), want_reply: $f.on, data: &$f.x });
        $each!(ChannelSuccess { recipient: $f.a });
        $each!(ChannelFailure { recipient: $f.a });
    };
}

fn list(names: &str) -> NameList<'_> {
    NameList::parse(names.as_bytes()).expect("a name-list")
}

#[derive(Debug, Clone)]
struct Fields {
    a: u32,
    b: u32,
    on: bool,
    x: Vec<u8>,
    y: Vec<u8>,
    text: String,
    list: String,
}

fn fields() -> impl Strategy<Value = Fields> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let names = proptest::collection::vec("[a-z][a-z0-9@.-]{0,20}", 0..8).prop_map(|names| names.join(","));
    (any::<u32>(), any::<u32>(), any::<bool>(), bytes(), bytes(), "[a-zA-Z0-9.@-]{0,60}", names)
        .prop_map(|(a, b, on, x, y, text, list)| Fields { a, b, on, x, y, text, list })
}

/// Decodes as every message there is.
fn decode_all(payload: &[u8]) {
    let f = &Fields {
        a: 0,
        b: 0,
        on: false,
        x: Vec::new(),
        y: Vec::new(),
        text: String::new(),
        list: String::new(),
    };
    macro_rules! decode {
        ($name:ident { $($fields:tt)* }) => {{
            let mut fields = $name { $($fields)* };
            if let Ok(message) = $name::decode(payload) {
                fields = message;
                // What is understood can be said again, and is then understood the same way.
                let again = encode(&fields);
                assert_eq!($name::decode(&again), Ok(message));
            }
            let _ = fields;
        }};
    }
    every!(decode, f);
    let _ = ExtInfo::decode(payload).map(|info| info.iter().count());
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn l8_every_message_decodes_to_what_was_encoded(f in fields()) {
        macro_rules! round_trip {
            ($name:ident { $($fields:tt)* }) => {{
                let message = $name { $($fields)* };
                let payload = encode(&message);
                prop_assert_eq!(payload[0], $name::NUMBER);
                prop_assert_eq!($name::decode(&payload), Ok(message));
                for cut in 0..payload.len() {
                    // A message cut short is none, or one whose last field is the rest.
                    let _ = $name::decode(&payload[..cut]);
                }
            }};
        }
        every!(round_trip, f);
    }

    #[test]
    fn l8_decoding_survives_any_bytes(number: u8, bytes: Vec<u8>) {
        decode_all(&bytes);
        decode_all(&[&[number], &bytes[..]].concat());
        let _ = ChannelKind::decode(b"direct-tcpip", &bytes);
        for name in ["pty-req", "env", "exec", "subsystem", "signal", "exit-status", "exit-signal", "break"] {
            if let Ok(kind) = ChannelRequestKind::decode(name.as_bytes(), &bytes) {
                let mut data = Vec::new();
                kind.encode_data(&mut data);
                prop_assert_eq!(ChannelRequestKind::decode(name.as_bytes(), &data), Ok(kind));
            }
        }
    }

    #[test]
    fn l8_mutated_messages_decode_or_do_not_but_never_panic(f in fields(), at: usize, byte: u8) {
        macro_rules! mutate {
            ($name:ident { $($fields:tt)* }) => {{
                let mut payload = encode(&$name { $($fields)* });
                let at = at % payload.len();
                payload[at] ^= byte;
                decode_all(&payload);
            }};
        }
        every!(mutate, f);
    }
}

#[test]
fn the_gate_has_a_verdict_for_every_number() {
    for number in 0..=255 {
        for side in [Side::Client, Side::Server] {
            assert_eq!(admit(side, State::Closing, true, number), Verdict::Discard);
            assert_eq!(admit(side, State::AuthDecisionPending, true, number), Verdict::NotRead);
        }
    }
}
