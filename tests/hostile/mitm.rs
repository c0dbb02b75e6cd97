//! Somebody on the wire (X3): packets of the clear part dropped, doubled, swapped and made up, and encrypted
//! ones deleted behind them, as CVE-2023-48795 does.

use std::time::Duration;

use ssh_proto::crypto::{Provider, rustcrypto};
use ssh_proto::raw::State;
use ssh_proto::raw::auth::UserauthSuccess;
use ssh_proto::raw::transport::{ServiceAccept, ServiceRequest};
use ssh_proto::{
    AuthVerdict, ClientConfig, CloseReason, Credential, PeerMisbehaved, ServerConfig, ServerEvent, Side,
};
use ssh_tests::config::HOST_KEY;
use ssh_tests::puppet::null_signature;
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Pair, Puppet, Scene, hand, null, null_configs, null_key, rustcrypto_server};

use crate::stage::none_request;

/// What happens to the clear packets of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Pass,
    Drop(usize),
    Double(usize),
    /// This one comes behind the next.
    Swap(usize),
    /// So many made-up packets of this kind go before this one.
    Insert(usize, usize, usize),
}

/// The packets a peer in the middle makes up.
fn made_up() -> [Vec<u8>; 6] {
    let mut extensions = vec![7, 0, 0, 0, 1];
    extensions.extend_from_slice(b"\0\0\0\x0fserver-sig-algs\0\0\0\0");
    let unimplemented = encoded(&ssh_proto::raw::transport::Unimplemented { sequence: 0 });
    [hand::ignore(0), hand::debug(), unimplemented, extensions, none_request("mallory"), hand::open(0, 9, 9)]
}

fn clear_packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).expect("short");
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).expect("short"));
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// The middle of one direction.
struct Middle {
    edit: Edit,
    /// The sizes of the encrypted packets to delete.
    delete: usize,
    buffer: Vec<u8>,
    ident: bool,
    clear: bool,
    packets: usize,
    held: Vec<u8>,
}

impl Middle {
    fn new(edit: Edit, delete: usize) -> Self {
        let (buffer, held) = (Vec::new(), Vec::new());
        Self { edit, delete, buffer, ident: true, clear: true, packets: 0, held }
    }

    fn pass(&mut self, bytes: &mut Vec<u8>) {
        self.buffer.append(bytes);
        if self.ident {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else { return };
            bytes.extend(self.buffer.drain(..=end));
            self.ident = false;
        }
        while self.clear {
            let Some(head) = self.buffer.first_chunk::<4>() else { return };
            let packet: Vec<u8> = self.buffer.drain(..4 + u32::from_be_bytes(*head) as usize).collect();
            self.clear = packet[5] != 21;
            self.packet(packet, bytes);
        }
        bytes.append(&mut self.held);
        let deleted = self.delete.min(self.buffer.len());
        self.delete -= deleted;
        bytes.extend(self.buffer.drain(..).skip(deleted));
    }

    fn packet(&mut self, packet: Vec<u8>, out: &mut Vec<u8>) {
        let at = self.packets;
        self.packets += 1;
        match self.edit {
            Edit::Drop(which) if which == at => {}
            Edit::Double(which) if which == at => {
                out.extend_from_slice(&packet);
                out.extend(packet);
            }
            Edit::Swap(which) if which == at => self.held = packet,
            Edit::Insert(which, kind, count) if which == at => {
                (0..count).for_each(|_| out.extend(clear_packet(&made_up()[kind])));
                out.extend(packet);
            }
            _ => {
                out.extend(packet);
                out.append(&mut self.held);
            }
        }
    }
}

/// The size of a packet with this payload under a cipher and its MAC.
fn sealed(cipher: &str, mac: &str, payload: usize) -> usize {
    let (block, aead) = if cipher.starts_with("chacha") { (8, true) } else { (16, cipher.contains("gcm")) };
    let tag = if aead { 16 } else { if mac.contains("512") { 64 } else { 32 } };
    let head = if aead || mac.contains("etm") { 1 } else { 5 };
    let mut padding = block - (head + payload) % block;
    if padding < 4 {
        padding += block;
    }
    5 + payload + padding + tag
}

/// The payload sizes of the first packets behind NEWKEYS, from the client and from the server.
fn first_payloads() -> [Vec<usize>; 2] {
    let pair = |name: &str, value: &str| 8 + name.len() + value.len();
    let algorithms: Vec<_> = rustcrypto::PROVIDER.signatures.iter().map(|key| key.name()).collect();
    let signatures = pair("server-sig-algs", &algorithms.join(","));
    [
        vec![5 + pair("ext-info-in-auth@openssh.com", "0"), 5 + "ssh-userauth".len()],
        vec![5 + signatures + pair("ping@openssh.com", "0"), 5 + "ssh-userauth".len()],
    ]
}

fn run(pair: &mut Pair) {
    pair.client.conn.authenticate("user", Credential::None).expect("it waits");
    pair.drive();
}

fn configs(
    cipher: &'static str,
    mac: &'static str,
) -> (std::sync::Arc<ClientConfig>, std::sync::Arc<ServerConfig>) {
    let kex = &["curve25519-sha256"];
    let client = ClientConfig::builder(&rustcrypto::PROVIDER).kex(kex).ciphers(&[cipher]).macs(&[mac]);
    let server = rustcrypto_server().kex(kex).ciphers(&[cipher]).macs(&[mac]);
    (client.build().expect("a client"), server.build().expect("a server"))
}

const CIPHERS: [(&str, &str); 6] = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-512-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
];

fn edits() -> Vec<Edit> {
    let mut edits = vec![Edit::Pass];
    for at in 0..3 {
        edits.extend([Edit::Drop(at), Edit::Double(at)]);
        edits.extend((at < 2).then_some(Edit::Swap(at)));
        let kinds = 0..made_up().len();
        edits.extend(kinds.flat_map(|kind| (1..=2).map(move |count| Edit::Insert(at, kind, count))));
    }
    edits
}

/// One handshake with this edit in one direction, and with the first encrypted packets of it deleted. Says
/// whether both sides came to a login.
fn survives(
    (cipher, mac): (&'static str, &'static str),
    from_client: bool,
    edit: Edit,
    delete: usize,
) -> bool {
    let context = format!("{cipher} {mac}, from the client: {from_client}, {edit:?}, {delete} deleted");
    let (client, server) = configs(cipher, mac);
    let mut pair = Pair::new(client, server, 3);
    let sizes = &first_payloads()[usize::from(!from_client)];
    let gone = sizes.iter().take(delete).map(|payload| sealed(cipher, mac, *payload)).sum();
    let mut middle = Middle::new(edit, gone);
    let wire = if from_client { &mut pair.c2s } else { &mut pair.s2c };
    wire.edit(move |_, bytes| middle.pass(bytes));
    run(&mut pair);
    let logged_in = pair.client.authenticated && pair.server.authenticated;
    if logged_in {
        assert_eq!(pair.client.conn.session_id(), pair.server.conn.session_id(), "{context}");
        return true;
    }
    // Who reads what was meddled with lets nobody in, and takes nobody for logged in; who takes part in it sees an
    // end, or waits for what was taken. A client's login does not wait for the server's first packets: when those
    // alone are touched, it is that of the client, and comes to nothing.
    let let_in = if from_client { pair.server.authenticated } else { false };
    assert!(!pair.client.authenticated && !let_in, "{context}");
    pair.advance(Duration::from_secs(130));
    assert!(pair.client.closed.is_some() && pair.server.closed.is_some(), "{context}");
    false
}

#[test]
fn sm_05_no_edit_of_the_clear_part_goes_unnoticed() {
    let mut handshakes = 0;
    for suite in CIPHERS {
        for from_client in [true, false] {
            for edit in edits() {
                for delete in 0..=2 {
                    handshakes += 1;
                    let untouched = edit == Edit::Pass && delete == 0;
                    let survived = survives(suite, from_client, edit, delete);
                    assert_eq!(survived, untouched, "{suite:?} {from_client} {edit:?} {delete}");
                }
            }
        }
    }
    assert_eq!(handshakes, 6 * 2 * 45 * 3);
}

/// The real ciphers between a connection and a hand-moved peer, which may do without strict key exchange.
static SUITES: Provider = Provider {
    name: "null with real ciphers",
    deterministic: true,
    kex: null::PROVIDER.kex,
    ciphers: rustcrypto::PROVIDER.ciphers,
    macs: rustcrypto::PROVIDER.macs,
    signatures: null::PROVIDER.signatures,
};

/// The most packets that are made up, and deleted.
const MOST: usize = 8;

/// A connection under this cipher, and a hand-moved peer.
fn suited((cipher, mac): (&'static str, &'static str), side: Side, strict: bool) -> Scene {
    let mut scene = match side {
        Side::Client => {
            let config = ClientConfig::builder(&SUITES).ciphers(&[cipher]).macs(&[mac]);
            Scene::of_client(config.build().expect("a client"))
        }
        Side::Server => {
            let config = ServerConfig::builder(&SUITES).ciphers(&[cipher]).macs(&[mac]);
            Scene::of_server(config.host_key(null_key(HOST_KEY)).build().expect("a server"))
        }
    };
    let key = null::public_key(HOST_KEY);
    let sign = |message: &[u8]| null_signature(HOST_KEY, message);
    scene.puppet = Puppet::new(scene.puppet.side(), &SUITES, key.as_blob(), sign);
    scene.puppet.strict = strict;
    scene
}

/// A login with a hand-moved peer, whose clear packets are edited and whose first encrypted ones, so many, are
/// deleted, as far as it comes.
fn log_in(scene: &mut Scene, edit: Edit, delete: usize) {
    let mut middle = Middle::new(edit, 0);
    let mut say = |scene: &mut Scene, mut bytes: Vec<u8>, delete: usize| {
        middle.delete += delete;
        middle.pass(&mut bytes);
        scene.say_bytes(&bytes);
    };
    let side = scene.side();
    say(scene, [&scene.puppet.ident[..], b"\r\n"].concat(), 0);
    scene.puppet.our_init = scene.puppet.offer().payload();
    let init = scene.puppet.seal(&scene.puppet.our_init.clone());
    say(scene, init, 0);
    if scene.is_over() {
        return;
    }
    let method = if side == Side::Client { scene.puppet.reply() } else { scene.puppet.init() };
    let method = scene.puppet.seal(&method);
    say(scene, method, 0);
    if scene.is_over() {
        return;
    }
    if side == Side::Client {
        scene.accept_host_key();
    }
    let new_keys = scene.puppet.new_keys();
    say(scene, new_keys, 0);
    // As many packets as may be deleted, none of which is missed, then what it needs.
    let service = match side {
        Side::Client => encoded(&ServiceAccept { service: "ssh-userauth" }),
        Side::Server => encoded(&ServiceRequest { service: "ssh-userauth" }),
    };
    for (at, payload) in (0..MOST).map(|_| hand::ignore(3)).chain([service]).enumerate() {
        let packet = scene.puppet.seal(&payload);
        let deleted = if at < delete { packet.len() } else { 0 };
        say(scene, packet, deleted);
    }
    if scene.is_over() {
        return;
    }
    if side == Side::Client {
        scene.as_client().authenticate("user", Credential::None).expect("a first attempt");
        scene.settle();
    }
    let payload = if side == Side::Client { encoded(&UserauthSuccess {}) } else { none_request("user") };
    let packet = scene.puppet.seal(&payload);
    say(scene, packet, 0);
    if let Some(Event::Server(ServerEvent::Auth(_))) = scene.events.last() {
        scene.answer_auth(AuthVerdict::Accept);
    }
}

/// Whether such a login is one. If not, it comes to an end.
fn slips_through(
    suite: (&'static str, &'static str),
    side: Side,
    strict: bool,
    edit: Edit,
    delete: usize,
) -> bool {
    let mut scene = suited(suite, side, strict);
    log_in(&mut scene, edit, delete);
    if scene.state() == State::Authed {
        return true;
    }
    scene.wait(Duration::from_secs(130));
    assert!(scene.is_over(), "{suite:?} {side:?} {strict} {edit:?} {delete}");
    false
}

#[test]
fn sm_05_the_attack_works_where_it_is_said_to_and_strict_key_exchange_ends_it() {
    let mut handshakes = 0;
    for suite in CIPHERS {
        for side in [Side::Client, Side::Server] {
            for made_up in 0..=MOST {
                for deleted in 0..=MOST {
                    let edit = if made_up == 0 { Edit::Pass } else { Edit::Insert(2, 0, made_up) };
                    // Without it, what is made up in front of NEWKEYS shifts the sequence numbers, and as many
                    // packets can go behind it: this cipher depends on nothing else. AES-GCM does not depend on
                    // them, and counts its packets by itself; the others depend on both.
                    let lax = match suite.0 {
                        "chacha20-poly1305@openssh.com" => made_up == deleted,
                        cipher if cipher.contains("gcm") => deleted == 0,
                        _ => (made_up, deleted) == (0, 0),
                    };
                    for (strict, expected) in [(false, lax), (true, (made_up, deleted) == (0, 0))] {
                        handshakes += 1;
                        let slipped = slips_through(suite, side, strict, edit, deleted);
                        assert_eq!(slipped, expected, "{suite:?} {side:?} {strict} {made_up} {deleted}");
                    }
                }
            }
        }
    }
    assert_eq!(handshakes, 6 * 2 * 9 * 9 * 2);
}

#[test]
fn sm_05_the_attack_works_with_any_packet_without_effect_at_any_place() {
    for side in [Side::Client, Side::Server] {
        for place in 0..3 {
            // IGNORE, DEBUG, UNIMPLEMENTED.
            for kind in 0..3 {
                for count in 1..=MOST {
                    let edit = Edit::Insert(place, kind, count);
                    let slipped = |strict| slips_through(CIPHERS[0], side, strict, edit, count);
                    assert_eq!((slipped(false), slipped(true)), (true, false), "{side:?} {edit:?}");
                }
            }
        }
    }
}

#[test]
fn sm_05_a_marker_taken_off_the_wire_breaks_the_signature() {
    let (client, server) = null_configs();
    let mut pair = Pair::new(client, server, 3);
    pair.s2c.edit(|_, bytes| {
        let marker = b"kex-strict-s-v00@openssh.com";
        if let Some(at) = bytes.windows(marker.len()).position(|window| window == marker) {
            bytes[at] = b'x';
        }
    });
    run(&mut pair);
    let rule = PeerMisbehaved::BadHostKeySignature;
    assert_eq!(pair.client.closed, Some(CloseReason::PeerMisbehaved { rule, message: Some(31) }));
    assert!(!pair.server.authenticated);
}

#[test]
fn ad_21_a_peer_that_sends_our_own_bytes_back_gets_nowhere() {
    for mut scene in [Scene::client(), Scene::server()] {
        scene.puppet.ident = b"SSH-2.0-mirror".to_vec();
        scene.hello();
        scene.kexinit(|_| {});
        for _ in 0..8 {
            let echo: Vec<Vec<u8>> = scene.take_heard().into_iter().map(|heard| heard.payload).collect();
            echo.iter().for_each(|payload| scene.say(payload));
        }
        assert_eq!(scene.state(), State::Closing);
        assert!(scene.puppet.session_id.is_empty());
    }
}
