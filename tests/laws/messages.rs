//! Whole messages: what is encoded decodes to itself, and decoding survives anything.

use std::time::Duration;

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
use ssh_proto::wire::decode::DecodeError;
use ssh_proto::{
    ChannelKind, ChannelRequestKind, ExitStatus, Name, PeerText, Side, TerminalModes, WindowSize,
};
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

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..100)
}

fn request() -> impl Strategy<Value = ChannelRequestKind> {
    let size = || {
        any::<[u32; 4]>().prop_map(|[columns, rows, width, height]| WindowSize {
            columns,
            rows,
            width,
            height,
        })
    };
    let modes = proptest::collection::vec((any::<u8>(), any::<u32>()), 0..300).prop_map(TerminalModes::new);
    let text = || bytes().prop_map(|bytes| PeerText::new(&bytes));
    let name = || "[A-Za-z0-9@.-]{0,60}".prop_map(Name::from);
    prop_oneof![
        (name(), size(), modes).prop_map(|(term, size, modes)| ChannelRequestKind::Pty { term, size, modes }),
        size().prop_map(ChannelRequestKind::WindowChange),
        (bytes(), bytes()).prop_map(|(name, value)| ChannelRequestKind::Env { name, value }),
        Just(ChannelRequestKind::Shell),
        bytes().prop_map(ChannelRequestKind::Exec),
        name().prop_map(ChannelRequestKind::Subsystem),
        name().prop_map(ChannelRequestKind::Signal),
        any::<u32>().prop_map(|code| ChannelRequestKind::Exit(ExitStatus::Code(code))),
        ("[A-Z@.a-z]{0,30}", any::<bool>(), text()).prop_map(|(name, core_dumped, message)| {
            let name = PeerText::new(name.as_bytes());
            ChannelRequestKind::Exit(ExitStatus::Signal { name, core_dumped, message })
        }),
        any::<bool>().prop_map(ChannelRequestKind::XonXoff),
        any::<u32>().prop_map(|ms| ChannelRequestKind::Break(Duration::from_millis(u64::from(ms)))),
        bytes().prop_map(|data| ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data }),
    ]
}

fn kind() -> impl Strategy<Value = ChannelKind> {
    let host = || "[a-z0-9.:-]{0,80}".prop_map(Name::from);
    prop_oneof![
        Just(ChannelKind::Session),
        (host(), any::<u16>(), host(), any::<u16>()).prop_map(|(host, port, originator, originator_port)| {
            ChannelKind::DirectTcpip { host, port, originator, originator_port }
        }),
        bytes().prop_map(|data| ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data }),
    ]
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
                // A message cut short, or with a byte more, is none, or one whose last field is the rest:
                // what is understood is all there is.
                let longer = [&payload[..], b"+"].concat();
                for other in (0..payload.len()).map(|cut| &payload[..cut]).chain([&longer[..]]) {
                    if let Ok(message) = $name::decode(other) {
                        prop_assert_eq!(&encode(&message)[..], other);
                    }
                }
            }};
        }
        every!(round_trip, f);
    }

    #[test]
    fn l8_extensions_decode_to_what_was_encoded(
        pairs in proptest::collection::vec(("[a-z@.-]{0,30}", "[ -~]{0,60}"), 0..20)
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let mut payload = Vec::new();
        ExtInfo::encode_pairs(&pairs, &mut payload);
        let info = ExtInfo::decode(&payload).unwrap();
        prop_assert_eq!(&encode(&info), &payload);
        let read: Vec<_> = info.iter().collect();
        let said: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        prop_assert_eq!(read, said);
        for cut in 0..payload.len() {
            prop_assert!(ExtInfo::decode(&payload[..cut]).is_err());
        }
        payload.push(0);
        prop_assert!(ExtInfo::decode(&payload).is_err());
    }

    #[test]
    fn l8_every_request_and_channel_type_decodes_to_what_was_encoded(request in request(), kind in kind()) {
        let mut data = Vec::new();
        request.encode_data(&mut data);
        prop_assert_eq!(ChannelRequestKind::decode(request.name().as_bytes(), &data), Ok(request));
        let mut data = Vec::new();
        kind.encode_data(&mut data);
        prop_assert_eq!(ChannelKind::decode(kind.name().as_bytes(), &data), Ok(kind));
    }

    #[test]
    fn pk_09_nothing_may_follow_a_message_whose_last_field_is_not_the_rest(
        f in fields(), extra in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        // Requests and opens end with fields of their own, which are judged by their names.
        const OPEN: [u8; 5] = [
            GlobalRequest::NUMBER,
            RequestSuccess::NUMBER,
            ChannelOpen::NUMBER,
            ChannelOpenConfirmation::NUMBER,
            ChannelRequest::NUMBER,
        ];
        macro_rules! trailing {
            ($name:ident { $($fields:tt)* }) => {{
                let payload = [encode(&$name { $($fields)* }), extra.clone()].concat();
                match OPEN.contains(&$name::NUMBER) {
                    true => prop_assert!($name::decode(&payload).is_ok()),
                    false => prop_assert_eq!($name::decode(&payload), Err(DecodeError::Trailing)),
                }
            }};
        }
        every!(trailing, f);
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
