//! The two providers with each other: whatever one side uses, a connection is the same.

use std::sync::{Arc, OnceLock};

use ssh_proto::crypto::{Provider, aws_lc, rustcrypto};
use ssh_proto::keys::load_private_key;
use ssh_proto::{
    ChannelConfig, ClientConfig, ClientEvent, Credential, KeyPair, Limits, Negotiated, ServerConfig,
    ServerEvent, Stream, WriteError,
};
use ssh_tests::end::{End, Peer};
use ssh_tests::{Pair, take};

/// A provider, and its keys by name of the signature.
struct Side {
    provider: &'static Provider,
    ed25519: KeyPair,
    ecdsa: KeyPair,
}

impl Side {
    fn both() -> [Self; 2] {
        let (seed, scalar) = ([7; 32], [9; 32]);
        [
            Self {
                provider: &rustcrypto::PROVIDER,
                ed25519: rustcrypto::Ed25519Signer::from_seed(&seed).unwrap().key_pair(),
                ecdsa: rustcrypto::EcdsaP256Signer::from_scalar(&scalar).unwrap().key_pair(),
            },
            Self {
                provider: &aws_lc::PROVIDER,
                ed25519: aws_lc::Ed25519Signer::from_seed(&seed).unwrap().key_pair(),
                ecdsa: aws_lc::EcdsaP256Signer::from_scalar(&scalar).unwrap().key_pair(),
            },
        ]
    }

    /// The key that signs so. RSA's is read from a file, which makes it AWS-LC's on either side; the other provider's
    /// RSA signatures are compared with it beside the code.
    fn key(&self, signature: &str) -> KeyPair {
        match signature {
            "ssh-ed25519" => self.ed25519.clone(),
            "ecdsa-sha2-nistp256" => self.ecdsa.clone(),
            _ => rsa_key(),
        }
    }
}

fn rsa_key() -> KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    let read = || load_private_key(include_bytes!("../ssh-proto/src/keys/testdata/rsa2048"), None);
    KEY.get_or_init(|| read().expect("a key file").into_key_pair().expect("a key")).clone()
}

/// One choice of everything.
#[derive(Debug, Clone, Copy)]
struct Combo {
    kex: &'static str,
    cipher: &'static str,
    mac: &'static str,
    host_key: &'static str,
    user_key: &'static str,
}

/// Every key exchange with every cipher, every MAC with every cipher that needs one, and every kind of key for the
/// host and for the user.
fn combos() -> Vec<Combo> {
    let all = &aws_lc::PROVIDER;
    let names = |list: &[&'static str]| list.to_vec();
    let kexes = names(&all.kex.iter().map(|kex| kex.name()).collect::<Vec<_>>());
    let ciphers = names(&all.ciphers.iter().map(|cipher| cipher.name()).collect::<Vec<_>>());
    let macs = names(&all.macs.iter().map(|mac| mac.name()).collect::<Vec<_>>());
    let keys = names(&all.signatures.iter().map(|key| key.name()).collect::<Vec<_>>());
    let mut combos = Vec::new();
    for (n, kex) in kexes.iter().enumerate() {
        for (m, cipher) in ciphers.iter().enumerate() {
            let key = |n: usize| keys[n % keys.len()];
            let (mac, host_key, user_key) = (macs[m % macs.len()], key(n + m), key(n + m + 1));
            combos.push(Combo { kex, cipher, mac, host_key, user_key });
        }
    }
    for cipher in ciphers.iter().filter(|cipher| cipher.contains("ctr")) {
        for mac in &macs {
            combos.push(Combo { cipher, mac, ..combos[0] });
        }
    }
    for host_key in &keys {
        for user_key in &keys {
            combos.push(Combo { host_key, user_key, ..combos[0] });
        }
    }
    combos
}

fn configs(combo: Combo, [client, server]: [&Side; 2]) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let Combo { kex, cipher, mac, host_key, .. } = combo;
    let many = |limits: &mut Limits| limits.small_rekeys_per_minute = None;
    let ours = ClientConfig::builder(client.provider).kex(&[kex]).ciphers(&[cipher]).macs(&[mac]);
    let theirs = ServerConfig::builder(server.provider).host_key(server.key(host_key)).with_limits(many);
    let ours = ours.host_key_algorithms(&[host_key]).with_limits(many);
    (ours.build().expect("a client"), theirs.build().expect("a server"))
}

/// More than a window is not needed, and more than a packet is.
const LEN: usize = 100_000;

/// Sends all of it, in pieces of every kind.
fn send<R: Peer>(end: &mut End<R>, id: ssh_proto::ChannelId, data: &[u8]) {
    let mut sent = 0;
    while sent < data.len() {
        let most = data.len().min(sent + 1 + sent / 2);
        match end.conn.channel(id).unwrap().write(Stream::Data, &data[sent..most]) {
            Ok(n) => sent += n,
            Err(WriteError::Blocked) => panic!("the window has room for all of it"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A whole connection: a login, data both ways, new keys, and data again.
fn connect(combo: Combo, sides: [&Side; 2], seed: u64) {
    let context = format!("{} -> {}, {combo:?}", sides[0].provider.name, sides[1].provider.name);
    let (client, server) = configs(combo, sides);
    let mut pair = Pair::new(client, server, seed);
    pair.login_with(Credential::PublicKey {
        key: sides[0].key(combo.user_key),
        probe: seed.is_multiple_of(2),
    });
    let negotiated = pair.client.conn.negotiated().expect("an exchange").clone();
    assert_eq!(Some(&negotiated), pair.server.conn.negotiated(), "{context}");
    let Negotiated { kex, host_key, cipher_client_to_server: to, cipher_server_to_client: from, .. } =
        negotiated;
    assert_eq!((kex, host_key), (combo.kex, combo.host_key), "{context}");
    assert_eq!((to, from), (combo.cipher, combo.cipher), "{context}");
    if combo.cipher.contains("ctr") {
        let macs = (negotiated.mac_client_to_server, negotiated.mac_server_to_client);
        assert_eq!(macs, (Some(combo.mac), Some(combo.mac)), "{context}");
    }
    let (ours, theirs) = pair.open_session_with(ChannelConfig::default());
    let data: Vec<u8> = (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect();
    for round in 1..=2 {
        send(&mut pair.client, ours, &data);
        pair.drive();
        send(&mut pair.server, theirs, &data);
        pair.drive();
        for (end, id) in [
            (pair.client.bytes(ours, Stream::Data), "client"),
            (pair.server.bytes(theirs, Stream::Data), "server"),
        ] {
            assert!(end == data.repeat(round), "{context}: the {id} got {} bytes", end.len());
        }
        if round == 1 {
            pair.client.conn.rekey();
            pair.drive();
            take!(pair.client, ClientEvent::Rekeyed => ());
            take!(pair.server, ServerEvent::Rekeyed => ());
        }
    }
    assert!(pair.client.closed.is_none() && pair.server.closed.is_none(), "{context}");
}

#[test]
fn every_algorithm_works_whichever_provider_is_at_either_end() {
    let sides = Side::both();
    let (combos, mut connections) = (combos(), 0);
    for client in &sides {
        for server in &sides {
            for combo in &combos {
                connect(*combo, [client, server], connections);
                connections += 1;
            }
        }
    }
    // Four exchanges with five ciphers, two ciphers with four MACs, and four keys with each other.
    assert_eq!(connections, 4 * (4 * 5 + 2 * 4 + 4 * 4));
}

#[test]
fn both_have_the_same_algorithms_in_the_same_order() {
    let [ours, theirs] = Side::both().map(|side| {
        let Provider { kex, ciphers, macs, signatures, .. } = side.provider;
        let mut names: Vec<&str> = kex.iter().map(|kex| kex.name()).collect();
        names.extend(ciphers.iter().map(|cipher| cipher.name()));
        names.extend(macs.iter().map(|mac| mac.name()));
        names.extend(signatures.iter().map(|signature| signature.name()));
        names
    });
    assert_eq!(ours, theirs);
}
