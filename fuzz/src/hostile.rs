//! Messages a peer sends that does not mean well: of every number, well-formed or nearly.

use bytes::BufMut;
use ssh_proto::raw::auth::{
    Method, UserauthBanner, UserauthFailure, UserauthPkOk, UserauthRequest, signed_data,
};
use ssh_proto::raw::channel::{
    ChannelFailure, ChannelOpen, ChannelOpenFailure, ChannelSuccess, RequestSuccess,
};
use ssh_proto::raw::kex::{EcdhInit, EcdhReply};
use ssh_proto::raw::number;
use ssh_proto::raw::transport::{ExtInfo, Pong, ServiceAccept, ServiceRequest, Unimplemented};
use ssh_proto::wire::{NameList, PutSsh};
use ssh_tests::hand::{self, encode};
use ssh_tests::null;

use crate::input::Input;

/// How many kinds of message [`message`] knows.
pub const KINDS: usize = 40;

/// A well-formed message, whether or not it is legal now.
pub fn message(input: &mut Input<'_>, session_id: &[u8]) -> Vec<u8> {
    let list = |text: &'static str| NameList::parse(text.as_bytes()).expect("a list");
    match input.below(KINDS) {
        0 => hand::disconnect(input.number(), input.short()),
        1 => hand::ignore(input.size()),
        2 => encode(&Unimplemented { sequence: input.number() }),
        3 => hand::debug(),
        4 => encode(&ServiceRequest { service: ["ssh-userauth", "ssh-connection", ""][input.below(3)] }),
        5 => encode(&ServiceAccept { service: ["ssh-userauth", "ssh-connection", ""][input.below(3)] }),
        6 => {
            let mut payload = Vec::new();
            let pairs = [("server-sig-algs", null::NAME), ("ping@openssh.com", "0"), ("x", "")];
            ExtInfo::encode_pairs(&pairs[..input.below(4)], &mut payload);
            payload
        }
        7 => hand::kexinit(null::NAME),
        8 => {
            let strict = "kex-strict-c-v00@openssh.com,kex-strict-s-v00@openssh.com,ext-info-c,ext-info-s";
            let mut payload = hand::kexinit(&format!("{},{strict}", null::NAME));
            let guess = payload.len() - 5;
            payload[guess] = input.byte() & 1;
            payload
        }
        9 => hand::bare(number::NEWKEYS),
        10 => encode(&EcdhInit { share: &vec![1; input.size()] }),
        11 => encode(&EcdhInit { share: &[1; 32] }),
        12 => {
            let key = null::public_key(input.number() % 3);
            encode(&EcdhReply { host_key: key.as_blob(), share: &[2; 32], signature: input.short() })
        }
        13..=15 => user_request(input, session_id),
        16 => encode(&UserauthFailure {
            methods: list(["publickey,password", "", "x"][input.below(3)]),
            partial_success: input.byte() & 1 == 1,
        }),
        17 => hand::bare(number::USERAUTH_SUCCESS),
        18 => encode(&UserauthBanner { message: &vec![b'b'; input.size()], language: b"" }),
        19 => {
            let key = null::public_key(u32::from(input.byte() % 6));
            encode(&UserauthPkOk { algorithm: null::NAME.as_bytes(), key: key.as_blob() })
        }
        20 => {
            let names = ["x@ssh-tests.invalid", "keepalive@openssh.com", "tcpip-forward"];
            let mut payload = hand::global(names[input.below(3)], input.byte() & 1 == 0);
            payload.put_bytes(0, input.size());
            payload
        }
        21 => encode(&RequestSuccess { data: input.short() }),
        22 => hand::bare(number::REQUEST_FAILURE),
        23 => hand::open(input.number(), input.number(), input.number()),
        24 => {
            let sender = input.number();
            let kind = ["session", "direct-tcpip", "forwarded-tcpip", "x"][input.below(4)].as_bytes();
            encode(&ChannelOpen { kind, sender, window: 1 << 20, max_packet: 32_768, data: input.short() })
        }
        25 | 26 => hand::confirmation(input.number(), input.number(), input.number(), input.number()),
        27 => {
            let (recipient, code) = (input.number(), input.number());
            encode(&ChannelOpenFailure { recipient, code, description: input.short(), language: b"" })
        }
        28 => hand::adjust(input.number(), input.number()),
        29 | 30 => hand::data(input.number(), &vec![b'd'; input.size()]),
        31 => hand::extended(input.number(), input.number(), &vec![b'e'; input.size()]),
        32 => hand::eof(input.number()),
        33 => hand::close(input.number()),
        34 | 35 => {
            let names =
                ["shell", "exec", "env", "pty-req", "exit-status", "signal", "keepalive@openssh.com", "x"];
            let (recipient, name, reply) = (input.number(), names[input.below(8)], input.byte() & 1 == 0);
            let mut data = Vec::new();
            match name {
                "exec" | "signal" => data.put_string(b"TERM"),
                "env" => {
                    data.put_string(b"A");
                    data.put_string(b"b");
                }
                "exit-status" => data.put_u32(1),
                "x" => data.put_bytes(0, input.size()),
                _ => {}
            }
            hand::request(recipient, name, reply, &data)
        }
        36 => encode(&ChannelSuccess { recipient: input.number() }),
        37 => encode(&ChannelFailure { recipient: input.number() }),
        38 => hand::ping(input.size()),
        _ => encode(&Pong { data: input.short() }),
    }
}

fn user_request(input: &mut Input<'_>, session_id: &[u8]) -> Vec<u8> {
    let user = ["user", "root", ""][input.below(3)];
    let service = ["ssh-connection", "x"][input.below(16) / 15];
    let key = null::public_key(u32::from(input.byte() % 4));
    let signature = match input.below(3) {
        0 => None,
        1 => {
            let signed = signed_data(session_id, user, service, null::NAME, key.as_blob());
            let mut blob = Vec::new();
            blob.put_string(null::NAME.as_bytes());
            blob.put_string(null::sign(&key, &signed).as_bytes());
            Some(blob)
        }
        _ => Some(input.short().to_vec()),
    };
    let method = match input.below(6) {
        0 => Method::None,
        1 => Method::Password { password: b"secret", new: None },
        2 => Method::Password { password: b"secret", new: Some(b"new") },
        3 => Method::Other { name: "keyboard-interactive", fields: input.short() },
        _ => Method::PublicKey { algorithm: null::NAME, key: key.as_blob(), signature: signature.as_deref() },
    };
    encode(&UserauthRequest { user, service, method })
}

/// Breaks a message a little.
pub fn mutate(payload: &mut Vec<u8>, input: &mut Input<'_>) {
    match input.below(6) {
        0 => payload.truncate(payload.len() - 1),
        1 => payload.truncate(usize::from(input.byte())),
        2 => payload.extend_from_slice(input.short()),
        3 => payload.push(0),
        4 => payload[0] = input.byte(),
        _ => {
            let at = usize::from(input.byte()) % payload.len();
            payload[at] = input.byte();
        }
    }
}
