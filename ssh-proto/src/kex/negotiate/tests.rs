use alloc::collections::BTreeSet;
use alloc::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::ClientConfig;
use crate::crypto::rustcrypto::PROVIDER;

const X25519: &str = "curve25519-sha256";
const X25519_OLD: &str = "curve25519-sha256@libssh.org";
const P256: &str = "ecdh-sha2-nistp256";
const ED25519: &str = "ssh-ed25519";
const ECDSA: &str = "ecdsa-sha2-nistp256";
const GCM: &str = "aes128-gcm@openssh.com";
const CHACHA: &str = "chacha20-poly1305@openssh.com";
const CTR: &str = "aes128-ctr";
const CTR_256: &str = "aes256-ctr";
const SHA256: &str = "hmac-sha2-256";
const SHA512: &str = "hmac-sha2-512";

const MARKERS: [&str; 5] = [EXT_INFO_CLIENT, EXT_INFO_SERVER, STRICT_CLIENT, STRICT_SERVER, KEXGUESS2];

/// The lists of one end: methods, host keys, then for each direction ciphers, MACs, compressions.
#[derive(Debug, Clone)]
struct Lists {
    kex: String,
    host_key: String,
    c2s: [String; 3],
    s2c: [String; 3],
    follows: bool,
}

impl Lists {
    /// One algorithm of each kind.
    fn plain() -> Self {
        let direction = [CTR, SHA256, "none"].map(String::from);
        Self {
            kex: X25519.into(),
            host_key: ED25519.into(),
            c2s: direction.clone(),
            s2c: direction,
            follows: false,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut lists = Self::plain();
        change(&mut lists);
        lists
    }

    fn kex_init(&self) -> KexInit<'_> {
        let [cipher_c2s, mac_c2s, compression_c2s] = self.c2s.each_ref().map(|names| parse(names));
        let [cipher_s2c, mac_s2c, compression_s2c] = self.s2c.each_ref().map(|names| parse(names));
        KexInit {
            cookie: &[0; 16],
            kex: parse(&self.kex),
            host_key: parse(&self.host_key),
            cipher_c2s,
            cipher_s2c,
            mac_c2s,
            mac_s2c,
            compression_c2s,
            compression_s2c,
            languages_c2s: NameList::EMPTY,
            languages_s2c: NameList::EMPTY,
            first_kex_packet_follows: self.follows,
            reserved: 0,
        }
    }
}

fn parse(names: &str) -> NameList<'_> {
    NameList::parse(names.as_bytes()).unwrap()
}

fn config() -> Arc<ClientConfig> {
    ClientConfig::builder(&PROVIDER).build().unwrap()
}

/// What `side` makes of the lists of client and server.
fn choose(side: Side, client: &Lists, server: &Lists) -> Result<Choice, PeerIncompatible> {
    let (ours, theirs) = match side {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    negotiate(side, &config().common, &ours.kex_init(), &theirs.kex_init()).map_err(|why| *why)
}

const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// What both ends chose, which is the same.
fn chosen(client: &Lists, server: &Lists) -> Negotiated {
    let [ours, theirs] = SIDES.map(|side| choose(side, client, server).map(|choice| choice.negotiated(true)));
    assert_eq!(ours.as_ref().ok(), theirs.as_ref().ok());
    ours.unwrap()
}

#[test]
fn pk_18_the_client_s_order_decides_in_every_list() {
    let client = Lists::with(|lists| {
        lists.kex = ["x", P256, X25519_OLD, X25519].join(",");
        lists.host_key = ["x", ECDSA, ED25519].join(",");
        lists.c2s = [["x", CTR_256, CTR].join(","), ["x", SHA512, SHA256].join(","), "zlib,none".into()];
        lists.s2c = lists.c2s.clone();
    });
    let server = Lists::with(|lists| {
        lists.kex = [X25519, "y", X25519_OLD, P256].join(",");
        lists.host_key = [ED25519, "y", ECDSA].join(",");
        lists.c2s = [[CTR, "y", CTR_256].join(","), [SHA256, "y", SHA512].join(","), "none,zlib".into()];
        lists.s2c = lists.c2s.clone();
    });
    for (client, server, first) in [(&client, &server, true), (&server, &client, false)] {
        let expected = Negotiated {
            kex: if first { P256 } else { X25519 },
            host_key: if first { ECDSA } else { ED25519 },
            cipher_client_to_server: if first { CTR_256 } else { CTR },
            cipher_server_to_client: if first { CTR_256 } else { CTR },
            mac_client_to_server: Some(if first { SHA512 } else { SHA256 }),
            mac_server_to_client: Some(if first { SHA512 } else { SHA256 }),
            strict_kex: true,
        };
        assert_eq!(chosen(client, server), expected);
    }
}

#[test]
fn pk_18_each_direction_is_agreed_on_by_its_own_lists() {
    let client = Lists::with(|lists| {
        lists.c2s = [[CTR, CTR_256].join(","), [SHA256, SHA512].join(","), "none".into()];
        lists.s2c = [[CHACHA, CTR_256].join(","), [SHA512, SHA256].join(","), "none".into()];
    });
    let server = Lists::with(|lists| {
        lists.c2s = [[CTR_256, CTR].join(","), SHA512.into(), "none".into()];
        lists.s2c = [[CTR, CTR_256].join(","), [SHA256, SHA512].join(","), "none".into()];
    });
    let chosen = chosen(&client, &server);
    assert_eq!((chosen.cipher_client_to_server, chosen.mac_client_to_server), (CTR, Some(SHA512)));
    assert_eq!((chosen.cipher_server_to_client, chosen.mac_server_to_client), (CTR_256, Some(SHA512)));
}

#[test]
fn kx_12_the_macs_of_a_direction_matter_unless_its_cipher_is_an_aead() {
    for aead in [GCM, CHACHA] {
        let client = Lists::with(|lists| lists.c2s = [aead.into(), SHA256.into(), "none".into()]);
        for macs in ["", "x", SHA512] {
            let server = Lists::with(|lists| lists.c2s = [aead.into(), macs.into(), "none".into()]);
            let chosen = chosen(&client, &server);
            assert_eq!((chosen.cipher_client_to_server, chosen.mac_client_to_server), (aead, None));
            assert_eq!((chosen.cipher_server_to_client, chosen.mac_server_to_client), (CTR, Some(SHA256)));
        }
    }
}

#[test]
fn no_common_name_names_the_list_and_what_is_in_it() {
    use AlgorithmKind::*;
    type Change = fn(&mut Lists);
    let changes: [(AlgorithmKind, Change, &str); 8] = [
        (Kex, |lists| lists.kex = "x,y".into(), X25519),
        (HostKey, |lists| lists.host_key = "x,y".into(), ED25519),
        (Cipher, |lists| lists.c2s[0] = "x,y".into(), CTR),
        (Cipher, |lists| lists.s2c[0] = "x,y".into(), CTR),
        (Mac, |lists| lists.c2s[1] = "x,y".into(), SHA256),
        (Mac, |lists| lists.s2c[1] = "x,y".into(), SHA256),
        (Compression, |lists| lists.c2s[2] = "x,y".into(), "none"),
        (Compression, |lists| lists.s2c[2] = "x,y".into(), "none"),
    ];
    for (kind, change, real) in changes {
        for side in SIDES {
            let (ours, theirs) = (Lists::plain(), Lists::with(change));
            let (client, server) = match side {
                Side::Client => (&ours, &theirs),
                Side::Server => (&theirs, &ours),
            };
            let expected = PeerIncompatible::NoCommonAlgorithm {
                kind,
                ours: real.into(),
                theirs: PeerText::new(b"x,y"),
            };
            assert_eq!(choose(side, client, server).err(), Some(expected), "{side:?}");
        }
    }
}

#[test]
fn sm_08_markers_are_never_chosen_and_never_shown_as_what_is_offered() {
    let all = MARKERS.join(",");
    let markers = Lists::with(|lists| lists.kex = all.clone());
    for side in SIDES {
        let why = choose(side, &markers, &markers).err();
        let Some(PeerIncompatible::NoCommonAlgorithm { kind, ours, theirs }) = why else { panic!("{why:?}") };
        assert_eq!((kind, ours.as_str(), theirs.as_bytes()), (AlgorithmKind::Kex, "", all.as_bytes()));
    }
    let with_one = Lists::with(|lists| lists.kex = [&all, P256].join(","));
    assert_eq!(chosen(&with_one, &with_one).kex, P256);
}

/// A guess: the methods and host keys of who guesses and of the other end, whether they name Dropbear's rule,
/// and whether the guess is right.
type Guess = ([&'static [&'static str]; 2], [&'static [&'static str]; 2], [bool; 2], bool);

#[test]
fn sm_14_a_guess_is_right_by_rfc_4253_or_by_dropbear_s_rule() {
    const BOTH: [bool; 2] = [true, true];
    const ONE_OR_NONE: [[bool; 2]; 3] = [[false, false], [true, false], [false, true]];
    // Who guesses is the client: what it has first of what the server has, too, is negotiated.
    let mut by_client: Vec<Guess> = Vec::new();
    // Who guesses is the server.
    let mut by_server: Vec<Guess> = Vec::new();
    for rule in ONE_OR_NONE {
        for guesses in [&mut by_client, &mut by_server] {
            guesses.extend([
                (([&[X25519], &[ED25519]]), ([&[X25519], &[ED25519]]), rule, true),
                ([&[X25519, P256], &[ED25519]], [&[X25519], &[ED25519, ECDSA]], rule, true),
                // The first names differ, though what is negotiated is what was guessed.
                ([&[X25519, P256], &[ED25519]], [&[P256, X25519], &[ED25519]], rule, false),
                ([&[X25519], &[ED25519, ECDSA]], [&[X25519], &[ECDSA, ED25519]], rule, false),
                ([&["x", X25519], &[ED25519]], [&[X25519], &[ED25519]], rule, false),
            ] as [Guess; 5]);
        }
    }
    by_client.extend([
        ([&[X25519], &[ED25519]], [&[X25519], &[ED25519]], BOTH, true),
        ([&[X25519, P256], &[ED25519]], [&[P256, X25519], &[ED25519]], BOTH, true),
        ([&[X25519], &[ED25519, ECDSA]], [&[X25519], &[ECDSA, ED25519]], BOTH, true),
        ([&["x", X25519], &[ED25519]], [&[X25519], &[ED25519]], BOTH, false),
        ([&[X25519], &["x", ED25519]], [&[X25519], &[ED25519]], BOTH, false),
    ] as [Guess; 5]);
    by_server.extend([
        ([&[X25519], &[ED25519]], [&[X25519], &[ED25519]], BOTH, true),
        // The client prefers another, and its order decides.
        ([&[X25519, P256], &[ED25519]], [&[P256, X25519], &[ED25519]], BOTH, false),
        ([&[X25519], &[ED25519, ECDSA]], [&[X25519], &[ECDSA, ED25519]], BOTH, false),
        // Its first is nothing the server has.
        ([&[X25519, P256], &[ED25519]], [&["x", X25519], &[ED25519]], BOTH, true),
        ([&[X25519], &[ED25519, ECDSA]], [&[X25519], &["x", ED25519]], BOTH, true),
    ] as [Guess; 5]);
    for (guesser, guesses) in [(Side::Client, by_client), (Side::Server, by_server)] {
        for (theirs, ours, named, right) in guesses {
            // Wherever the marker of the rule stands, and whatever other markers.
            for places in 0..4 {
                let lists = |lists: [&[&str]; 2], named: bool, in_front: bool, follows| {
                    let markers: Vec<_> =
                        MARKERS.into_iter().filter(|name| named || *name != KEXGUESS2).collect();
                    let kex = if in_front { [&markers, lists[0]] } else { [lists[0], &markers] };
                    Lists::with(|into| {
                        into.kex = kex.concat().join(",");
                        into.host_key = lists[1].join(",");
                        into.follows = follows;
                    })
                };
                let theirs_sent = lists(theirs, named[0], places & 1 == 1, true);
                let ours_sent = lists(ours, named[1], places & 2 == 2, false);
                let choice = match guesser {
                    Side::Client => choose(Side::Server, &theirs_sent, &ours_sent),
                    Side::Server => choose(Side::Client, &ours_sent, &theirs_sent),
                };
                let wrong = choice.unwrap().wrong_guess;
                assert_eq!(!wrong, right, "{guesser:?} guesses {theirs:?}, {ours:?}, {named:?}, {places}");
            }
        }
    }
}

#[test]
fn sm_14_without_a_guess_none_is_wrong() {
    for side in SIDES {
        let client = Lists::with(|lists| lists.kex = [X25519, P256].join(","));
        let server = Lists::with(|lists| lists.kex = [P256, X25519].join(","));
        assert!(!choose(side, &client, &server).unwrap().wrong_guess);
    }
}

/// RFC 4253 §7.1 once more, told over sets of names and without regard for cost.
mod model {
    use super::*;

    fn names(list: &str) -> Vec<&str> {
        list.split(',').filter(|name| !name.is_empty()).collect()
    }

    /// "The first algorithm on the client's name-list that is also on the server's", of those that exist.
    fn agreed<'a>(client: &'a str, server: &str, exist: &[&str]) -> Option<&'a str> {
        let server: BTreeSet<&str> = names(server).into_iter().collect();
        let common = names(client).into_iter().filter(|name| server.contains(name) && exist.contains(name));
        common.collect::<Vec<_>>().first().copied()
    }

    const KEX: [&str; 4] = ["mlkem768x25519-sha256", X25519, X25519_OLD, P256];
    const HOST_KEYS: [&str; 2] = [ED25519, ECDSA];
    const AEADS: [&str; 3] = [GCM, "aes256-gcm@openssh.com", CHACHA];
    const STREAMS: [&str; 2] = [CTR, CTR_256];
    const MACS: [&str; 4] =
        ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", SHA256, SHA512];

    type Direction<'a> = (&'a str, Option<&'a str>);

    #[derive(Debug, PartialEq)]
    pub(super) struct Outcome<'a> {
        pub(super) kex: &'a str,
        pub(super) host_key: &'a str,
        pub(super) c2s: Direction<'a>,
        pub(super) s2c: Direction<'a>,
    }

    fn direction<'a>(client: &'a [String; 3], server: &[String; 3]) -> Result<Direction<'a>, AlgorithmKind> {
        let ciphers = [&AEADS[..], &STREAMS].concat();
        let cipher = agreed(&client[0], &server[0], &ciphers).ok_or(AlgorithmKind::Cipher)?;
        if AEADS.contains(&cipher) {
            return Ok((cipher, None));
        }
        let mac = agreed(&client[1], &server[1], &MACS).ok_or(AlgorithmKind::Mac)?;
        Ok((cipher, Some(mac)))
    }

    pub(super) fn outcome<'a>(client: &'a Lists, server: &Lists) -> Result<Outcome<'a>, AlgorithmKind> {
        let kex = agreed(&client.kex, &server.kex, &KEX).ok_or(AlgorithmKind::Kex)?;
        let host_key =
            agreed(&client.host_key, &server.host_key, &HOST_KEYS).ok_or(AlgorithmKind::HostKey)?;
        let c2s = direction(&client.c2s, &server.c2s)?;
        let s2c = direction(&client.s2c, &server.s2c)?;
        for (client, server) in [(&client.c2s, &server.c2s), (&client.s2c, &server.s2c)] {
            agreed(&client[2], &server[2], &["none"]).ok_or(AlgorithmKind::Compression)?;
        }
        Ok(Outcome { kex, host_key, c2s, s2c })
    }

    /// The next packet of `guesser` is to be dropped.
    pub(super) fn guessed_wrong(guesser: &Lists, other: &Lists, outcome: &Outcome<'_>) -> bool {
        let first =
            |list: &str| names(list).into_iter().find(|name| !MARKERS.contains(name)).map(String::from);
        let guess = (first(&guesser.kex), first(&guesser.host_key));
        let dropbear = [guesser, other].iter().all(|lists| names(&lists.kex).contains(&KEXGUESS2));
        let truth = match dropbear {
            true => (Some(outcome.kex.into()), Some(outcome.host_key.into())),
            false => (first(&other.kex), first(&other.host_key)),
        };
        guesser.follows && guess != truth
    }
}

/// Some of these names, most of them mostly, in any order, some twice, with others that are nobody's.
fn list(names: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let names: Vec<_> = names.iter().chain(names).copied().chain(["x", "y@z"]).collect();
    let least = names.len() / 4;
    proptest::sample::subsequence(names.clone(), least..=names.len())
        .prop_shuffle()
        .prop_map(|names| names.join(","))
}

fn lists() -> impl Strategy<Value = Lists> {
    let kex = [&[X25519, X25519_OLD, P256, "mlkem768x25519-sha256"][..], &MARKERS].concat();
    let direction = || {
        let ciphers = list(&[GCM, "aes256-gcm@openssh.com", CHACHA, CTR, CTR_256]);
        let macs = list(&["hmac-sha2-256-etm@openssh.com", SHA256, SHA512]);
        let compression = prop_oneof![9 => Just(String::from("none")), 1 => list(&["none", "zlib"])];
        (ciphers, macs, compression).prop_map(|(ciphers, macs, compression)| [ciphers, macs, compression])
    };
    (list(&kex), list(&[ED25519, ECDSA]), direction(), direction(), any::<bool>())
        .prop_map(|(kex, host_key, c2s, s2c, follows)| Lists { kex, host_key, c2s, s2c, follows })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pk_18_negotiation_is_that_of_the_reference_model(client in lists(), server in lists()) {
        let expected = model::outcome(&client, &server);
        for side in SIDES {
            match (choose(side, &client, &server), &expected) {
                (Ok(choice), Ok(expected)) => {
                    let chosen = choice.negotiated(false);
                    let outcome = model::Outcome {
                        kex: chosen.kex,
                        host_key: chosen.host_key,
                        c2s: (chosen.cipher_client_to_server, chosen.mac_client_to_server),
                        s2c: (chosen.cipher_server_to_client, chosen.mac_server_to_client),
                    };
                    prop_assert_eq!(&outcome, expected);
                    let (guesser, other) = match side {
                        Side::Client => (&server, &client),
                        Side::Server => (&client, &server),
                    };
                    let wrong = model::guessed_wrong(guesser, other, expected);
                    prop_assert_eq!(choice.wrong_guess, wrong, "{:?}", side);
                    let right = other.follows && !model::guessed_wrong(other, guesser, expected);
                    prop_assert_eq!(choice.right_guess, right, "{:?}", side);
                }
                (Err(PeerIncompatible::NoCommonAlgorithm { kind, .. }), Err(expected)) => {
                    prop_assert_eq!(&kind, expected);
                }
                (found, expected) => prop_assert!(false, "{:?} for {expected:?}", found.err()),
            }
        }
    }
}
