//! Every decoder, on bytes as they come: none panics, and what decodes encodes to what decodes to the same. With
//! them what stands beside the decoders: framing under known keys, and negotiation.

use std::fmt::Debug;

use bytes::{BufMut, BytesMut};
use ssh_proto::crypto::rustcrypto::{self, Ed25519Signer};
use ssh_proto::crypto::{CipherAlgorithm, PacketKeys};
use ssh_proto::keys::{AuthorizedKeys, KnownHosts, LineFormat, load_private_key, parse_public_key_line};
use ssh_proto::raw::kex::KexInit;
use ssh_proto::raw::{self, Framer, Message, auth, channel, kex, transport};
use ssh_proto::wire::decode::{self, DecodeError, IResult};
use ssh_proto::wire::{NameList, PutSsh};
use ssh_proto::{
    ChannelKind, ChannelRequestKind, Client, ClientConfig, MAX_PACKET_PRE_AUTH, PeerMisbehaved, PublicKey,
    Server, ServerConfig,
};
use ssh_tests::Seeded;

use crate::input::Input;

/// The first byte chooses the family of decoders, the rest is for them.
pub fn run_messages(data: &[u8]) {
    let mut input = Input(data);
    match input.below(8) {
        0 => messages(input.0),
        1 => kinds(input.short(), input.0),
        2 => wire(input.0),
        3 => key_files(input.0),
        4 => private_key(input.0),
        5 => armored(input.0),
        6 => packets(input),
        _ => negotiation(input.0),
    }
}

fn messages(payload: &[u8]) {
    macro_rules! each {
        ($($module:ident :: $name:ident),+ $(,)?) => {
            $(if let Ok(message) = $module::$name::decode(payload) {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!($module::$name::decode(&again), Ok(message));
            })+
        };
    }
    each! {
        transport::Disconnect, transport::Ignore, transport::Unimplemented, transport::Debug,
        transport::ServiceRequest, transport::ServiceAccept, transport::ExtInfo, transport::Ping, transport::Pong,
        kex::KexInit, kex::NewKeys, kex::EcdhInit, kex::EcdhReply,
        auth::UserauthRequest, auth::UserauthFailure, auth::UserauthSuccess, auth::UserauthBanner,
        auth::UserauthPkOk, auth::UserauthPasswdChangereq,
        channel::GlobalRequest, channel::RequestSuccess, channel::RequestFailure, channel::ChannelOpen,
        channel::ChannelOpenConfirmation, channel::ChannelOpenFailure, channel::ChannelWindowAdjust,
        channel::ChannelData, channel::ChannelExtendedData, channel::ChannelEof, channel::ChannelClose,
        channel::ChannelRequest, channel::ChannelSuccess, channel::ChannelFailure,
    }
    if let Ok(info) = transport::ExtInfo::decode(payload) {
        let pairs: Vec<_> = info.iter().collect();
        let text = |bytes| core::str::from_utf8(bytes).ok();
        let pairs: Option<Vec<_>> = pairs.into_iter().map(|(n, v)| text(n).zip(text(v))).collect();
        if let Some(pairs) = pairs {
            let mut again = Vec::new();
            transport::ExtInfo::encode_pairs(&pairs, &mut again);
            assert_eq!(transport::ExtInfo::decode(&again), Ok(info));
        }
    }
}

/// What a framer makes of bytes that arrive in pieces of this size: payloads, and the rule they broke.
fn framed(mut framer: Framer, bytes: &[u8], piece: usize) -> (Vec<(u32, Vec<u8>)>, Option<PeerMisbehaved>) {
    let (mut taken, mut buf) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(piece) {
        buf.extend_from_slice(piece);
        loop {
            match framer.take(&mut buf) {
                Ok(Some((seq, payload))) => {
                    assert!(!payload.is_empty() && payload.len() <= MAX_PACKET_PRE_AUTH);
                    taken.push((seq, payload.to_vec()));
                }
                Ok(None) => break,
                Err(rule) => return (taken, Some(rule)),
            }
        }
        assert!(framer.hint(buf.len()) >= 1);
    }
    (taken, None)
}

/// Packets as they come, in the clear or under each real cipher with a key that is known: what is sealed is
/// read, what is not breaks a rule, and how the bytes were cut makes no difference.
fn packets(mut input: Input<'_>) {
    let ciphers = rustcrypto::PROVIDER.ciphers;
    let cipher = ciphers.get(input.below(ciphers.len() + 1));
    let mac = rustcrypto::PROVIDER.macs[input.below(rustcrypto::PROVIDER.macs.len())];
    let piece = input.size().max(1);
    let (key, iv, mac_key) = ([1; 64], [2; 16], [3; 64]);
    let keys = |cipher: &dyn CipherAlgorithm| PacketKeys {
        key: &key[..cipher.key_len()],
        iv: &iv[..cipher.iv_len()],
        mac: (!cipher.is_aead()).then(|| (mac, &mac_key[..mac.key_len()])),
    };
    let framer = || {
        let mut framer = Framer::new(MAX_PACKET_PRE_AUTH);
        if let Some(cipher) = cipher {
            framer.new_keys(cipher.opener(&keys(*cipher)), true);
        }
        framer
    };
    // Packets of the program, each with the padding it claims, then bytes nobody sealed.
    let (mut bytes, mut sealed) = (Vec::new(), Vec::new());
    if let Some(cipher) = cipher {
        let mut sealer = cipher.sealer(&keys(*cipher));
        let shape = sealer.shape();
        for seq in 0..u32::from(input.byte() % 4) {
            let (payload, claimed) = (input.short(), input.byte());
            let head = if shape.length_in_block { 5 } else { 1 };
            let padding = 4 + (2 * shape.block - (head + payload.len() + 4) % shape.block) % shape.block;
            let length = 1 + payload.len() + padding;
            let mut packet = (length as u32).to_be_bytes().to_vec();
            let claimed = if claimed & 1 == 0 { padding as u8 } else { claimed };
            packet.push(claimed);
            packet.extend_from_slice(payload);
            packet.resize(packet.len() + padding + shape.tag, 0);
            sealer.seal(seq, &mut packet);
            bytes.extend_from_slice(&packet);
            if usize::from(claimed) != padding || payload.is_empty() {
                break;
            }
            sealed.push((seq, payload.to_vec()));
        }
    }
    bytes.extend_from_slice(input.0);
    let whole = framed(framer(), &bytes, bytes.len().max(1));
    assert_eq!(framed(framer(), &bytes, piece), whole, "how the bytes are cut changes what is read");
    assert!(whole.0.starts_with(&sealed));
    if cipher.is_some() {
        // Without the key nobody adds a packet; one whose padding is a lie may be one all the same.
        assert!(whole.0.len() <= sealed.len() + 1, "a packet nobody sealed was taken");
    }
}

/// Two KEXINITs: both sides come to the same, or to nothing, and to algorithms that both of them named.
fn negotiation(bytes: &[u8]) {
    let half = bytes.len() / 2;
    let (Ok(client), Ok(server)) = (KexInit::decode(&bytes[..half]), KexInit::decode(&bytes[half..])) else {
        return;
    };
    let config = ClientConfig::builder(&rustcrypto::PROVIDER).build().expect("a client");
    let key = Ed25519Signer::from_seed(&[1; 32]).expect("any seed is a key").key_pair();
    let server_config = ServerConfig::builder(&rustcrypto::PROVIDER).host_key(key).build().expect("a server");
    let ours = raw::negotiate::<Client>(&config, &client, &server);
    let theirs = raw::negotiate::<Server>(&server_config, &server, &client);
    let (ours, theirs) = (ours.map(|(chosen, _)| chosen), theirs.map(|(chosen, _)| chosen));
    assert_eq!(ours.as_ref().ok(), theirs.as_ref().ok());
    let Ok(chosen) = ours else { return };
    for (name, client, server) in [
        (chosen.kex, client.kex, server.kex),
        (chosen.host_key, client.host_key, server.host_key),
        (chosen.cipher_client_to_server, client.cipher_c2s, server.cipher_c2s),
        (chosen.cipher_server_to_client, client.cipher_s2c, server.cipher_s2c),
        (chosen.mac_client_to_server.unwrap_or_default(), client.mac_c2s, server.mac_c2s),
        (chosen.mac_server_to_client.unwrap_or_default(), client.mac_s2c, server.mac_s2c),
    ] {
        assert!(name.is_empty() || client.contains(name) && server.contains(name), "{name}");
    }
}

const REQUESTS: [&[u8]; 13] = [
    b"pty-req",
    b"window-change",
    b"env",
    b"shell",
    b"exec",
    b"subsystem",
    b"signal",
    b"exit-status",
    b"exit-signal",
    b"xon-xoff",
    b"break",
    b"eow@openssh.com",
    b"",
];

/// Channel types and requests, under the name given and under every known one.
fn kinds(name: &[u8], data: &[u8]) {
    for name in REQUESTS.into_iter().chain([name]) {
        if let Ok(kind) = ChannelRequestKind::decode(name, data) {
            let mut again = Vec::new();
            kind.encode_data(&mut again);
            let _ = (kind.starts_program(), format!("{kind:?}"));
            assert_eq!(ChannelRequestKind::decode(kind.name().as_bytes(), &again), Ok(kind));
        }
    }
    for name in [b"session", &b"direct-tcpip"[..], name] {
        if let Ok(kind) = ChannelKind::decode(name, data) {
            let mut again = Vec::new();
            kind.encode_data(&mut again);
            assert_eq!(ChannelKind::decode(kind.name().as_bytes(), &again), Ok(kind));
        }
    }
}

/// What `parse` reads, `put` writes so that `parse` reads it again.
fn again<'a, T: PartialEq + Debug>(
    input: &'a [u8],
    parse: impl Fn(&'a [u8]) -> IResult<'a, T>,
    same: impl Fn(&T, &[u8]) -> bool,
    put: impl Fn(&T, &mut Vec<u8>),
) {
    let _: Result<T, DecodeError> = decode::all(input, &parse);
    if let Ok((rest, value)) = parse(input) {
        assert!(input.ends_with(rest));
        let mut bytes = Vec::new();
        put(&value, &mut bytes);
        assert!(same(&value, &bytes), "{value:?}");
    }
}

fn wire(input: &[u8]) {
    again(input, decode::byte, |v, b| decode::all(b, decode::byte) == Ok(*v), |v, b| b.put_u8(*v));
    again(input, decode::boolean, |v, b| decode::all(b, decode::boolean) == Ok(*v), |v, b| b.put_bool(*v));
    again(input, decode::uint32, |v, b| decode::all(b, decode::uint32) == Ok(*v), |v, b| b.put_u32(*v));
    again(input, decode::uint64, |v, b| decode::all(b, decode::uint64) == Ok(*v), |v, b| b.put_u64(*v));
    again(input, decode::bytes::<16>, |v, b| b == v.as_slice(), |v, b| b.put_slice(*v));
    again(input, decode::string, |v, b| decode::all(b, decode::string) == Ok(*v), |v, b| b.put_string(v));
    let max = decode::string_max(7);
    again(input, &max, |v, b| v.len() <= 7 && decode::all(b, &max) == Ok(*v), |v, b| b.put_string(v));
    let text = decode::text_max(64);
    again(input, &text, |v, b| decode::all(b, &text) == Ok(*v), |v, b| b.put_string(v.as_bytes()));
    again(input, decode::mpint, |v, b| decode::all(b, decode::mpint) == Ok(*v), |v, b| b.put_mpint(v));
    let names = |list: &NameList<'_>, out: &mut Vec<u8>| out.put_names(list.iter());
    again(input, decode::name_list, |v, b| decode::all(b, decode::name_list) == Ok(*v), names);
    if let Ok(list) = NameList::parse(input) {
        assert_eq!(NameList::parse(list.as_str().as_bytes()), Ok(list));
        assert!(list.iter().all(|name| list.contains(name)));
    }
    if let Ok((algorithm, bytes)) = auth::split_signature(input) {
        let mut blob = Vec::new();
        blob.put_string(algorithm.as_bytes());
        blob.put_string(bytes);
        assert_eq!(auth::split_signature(&blob), Ok((algorithm, bytes)));
    }
}

fn key_files(file: &[u8]) {
    let mut keys = Vec::new();
    if let Ok((key, comment)) = parse_public_key_line(file) {
        let line = format!("{} {comment}", key.to_line());
        let (read, told) = parse_public_key_line(line.as_bytes()).expect("a line of our own");
        assert_eq!((&read, told.trim_ascii()), (&key, comment.trim_ascii()));
        keys.push(key);
    }
    if let Ok(key) = PublicKey::from_blob(file) {
        let _ = (key.key_type(), key.fingerprint());
        let read = parse_public_key_line(key.to_line().as_bytes()).map(|(key, _)| key);
        assert!(read.is_ok_and(|read| read == key) || key.to_line().len() > 8192, "{key:?}");
    }
    let authorized = AuthorizedKeys::parse(file);
    let lines: Vec<String> = authorized.keys().iter().map(PublicKey::to_line).collect();
    let read = AuthorizedKeys::parse(lines.join("\n").as_bytes());
    assert_eq!(read.keys(), authorized.keys());
    assert!(read.skipped().is_empty());
    keys.extend_from_slice(authorized.keys());

    let known = KnownHosts::parse(file);
    let _ = (known.skipped(), known.is_truncated());
    let host = file.split(|byte| b" ,\n".contains(byte)).find_map(|field| core::str::from_utf8(field).ok());
    for host in ["example.com", host.unwrap_or_default()] {
        for port in [22, 2222] {
            let _ = known.key_types(host, port);
            for key in keys.iter().take(4) {
                let _ = known.check(host, port, key);
                for format in
                    [Ok(LineFormat::Plain), LineFormat::hashed(&mut Seeded::new(1))].into_iter().flatten()
                {
                    if let Ok(line) = KnownHosts::line(host, port, key, format) {
                        let read = KnownHosts::parse(line.as_bytes());
                        assert_eq!(read.check(host, port, key), ssh_proto::keys::HostStatus::Known, "{line}");
                    }
                }
            }
        }
    }
}

fn private_key(file: &[u8]) {
    // A KDF may be asked to work for long; that is the embedder's choice by the passphrase.
    if let Ok(key) = load_private_key(file, None) {
        let comment = key.comment().to_owned();
        let again = key.to_openssh(&comment, &mut Seeded::new(2)).expect("there is entropy");
        let again = load_private_key(again.expose().as_bytes(), None).expect("a file of our own");
        assert_eq!((again.public(), again.comment()), (key.public(), key.comment()));
    }
}

/// The same behind the armor, which no mutation gets through.
fn armored(binary: &[u8]) {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut file = b"-----BEGIN OPENSSH PRIVATE KEY-----\n".to_vec();
    let mut whole = b"openssh-key-v1\0".to_vec();
    whole.extend_from_slice(binary);
    for chunk in whole.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * at) & 63) as usize];
            file.push(if at <= chunk.len() { digit } else { b'=' });
        }
    }
    file.extend_from_slice(b"\n-----END OPENSSH PRIVATE KEY-----\n");
    private_key(&file);
}
