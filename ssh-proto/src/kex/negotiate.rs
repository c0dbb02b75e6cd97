//! Algorithm negotiation, [RFC 4253 §7.1], and the pseudo-algorithms that travel with it.
//!
//! [RFC 4253 §7.1]: https://www.rfc-editor.org/rfc/rfc4253#section-7.1

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::config::{Algorithms, Common, StrictKexPolicy};
use crate::crypto::{KexAlgorithm, Provider, SignatureAlgorithm};
use crate::entropy::{Entropy, EntropyError};
use crate::error::{AlgorithmKind, PeerIncompatible};
use crate::msg::Message;
use crate::msg::kex::KexInit;
use crate::role::Side;
use crate::text::PeerText;
use crate::transport::keys::DirectionAlgorithms;
use crate::wire::NameList;

/// The most bytes of a peer's list kept for an error.
const MAX_LIST_IN_ERROR: usize = 2048;

const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
const EXT_INFO_CLIENT: &str = "ext-info-c";
const EXT_INFO_SERVER: &str = "ext-info-s";
/// Dropbear's rule for guesses: right when the first names are the negotiated ones.
const KEXGUESS2: &str = "kexguess2@matt.ucc.asn.au";

/// What was negotiated, and how the peer presented itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated {
    /// The key exchange method.
    pub kex: &'static str,
    /// The host key algorithm.
    pub host_key: &'static str,
    /// The cipher from client to server.
    pub cipher_client_to_server: &'static str,
    /// The cipher from server to client.
    pub cipher_server_to_client: &'static str,
    /// The MAC from client to server, unless the cipher is an AEAD.
    pub mac_client_to_server: Option<&'static str>,
    /// The MAC from server to client, unless the cipher is an AEAD.
    pub mac_server_to_client: Option<&'static str>,
    /// Whether both ends do strict key exchange. Without it, chacha20-poly1305 is open to
    /// [CVE-2023-48795](https://nvd.nist.gov/vuln/detail/CVE-2023-48795).
    pub strict_kex: bool,
}

/// The algorithms of one exchange.
pub(crate) struct Choice {
    pub(crate) kex: &'static dyn KexAlgorithm,
    pub(crate) host_key: &'static dyn SignatureAlgorithm,
    pub(crate) c2s: DirectionAlgorithms,
    pub(crate) s2c: DirectionAlgorithms,
    /// The peer guessed, wrongly: its next packet is to be dropped.
    pub(crate) wrong_guess: bool,
    /// We guessed, rightly: the peer takes the packet behind our KEXINIT.
    pub(crate) right_guess: bool,
}

impl Choice {
    pub(crate) fn negotiated(&self, strict_kex: bool) -> Negotiated {
        Negotiated {
            kex: self.kex.name(),
            host_key: self.host_key.name(),
            cipher_client_to_server: self.c2s.cipher.name(),
            cipher_server_to_client: self.s2c.cipher.name(),
            mac_client_to_server: self.c2s.mac.map(|mac| mac.name()),
            mac_server_to_client: self.s2c.mac.map(|mac| mac.name()),
            strict_kex,
        }
    }
}

/// What the markers in a first KEXINIT say about a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Markers {
    pub(crate) strict: bool,
    pub(crate) ext_info: bool,
}

impl Markers {
    /// Reads the markers of the peer of `side`.
    pub(crate) fn of_peer(side: Side, theirs: &KexInit<'_>) -> Self {
        let (strict, ext_info) = match side {
            Side::Client => (STRICT_SERVER, EXT_INFO_SERVER),
            Side::Server => (STRICT_CLIENT, EXT_INFO_CLIENT),
        };
        Self { strict: theirs.kex.contains(strict), ext_info: theirs.kex.contains(ext_info) }
    }
}

/// More than a KEXINIT without its names takes, in bytes.
const KEXINIT: usize = 80;

/// The bytes of the cookie in a KEXINIT.
const COOKIE: core::ops::Range<usize> = 1..17;

/// Our KEXINIT as a payload, with a fresh cookie.
pub(crate) fn build_kexinit(
    common: &Common,
    first: bool,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, EntropyError> {
    let [first_one, later_one] = &common.kexinits;
    let mut payload = if first { first_one } else { later_one }.clone();
    entropy.fill(payload.get_mut(COOKIE).ok_or(EntropyError)?)?;
    Ok(payload)
}

/// Our KEXINIT without its cookie. Strict-kex and ext-info markers go into the first one only, behind the real
/// names, so that they never decide a guess. `guess` says that a guessed packet follows.
pub(crate) fn kexinit_template(side: Side, algorithms: &Algorithms, first: bool, guess: bool) -> Vec<u8> {
    let markers: &[&str] = match (first, side) {
        (true, Side::Client) => &[EXT_INFO_CLIENT, STRICT_CLIENT, KEXGUESS2],
        (true, Side::Server) => &[EXT_INFO_SERVER, STRICT_SERVER, KEXGUESS2],
        (false, _) => &[KEXGUESS2],
    };
    let kex: Vec<&str> = algorithms.kex.iter().chain(markers).copied().collect();
    let (kex, host_key) = (kex.join(","), algorithms.host_keys.join(","));
    let (ciphers, macs) = (algorithms.ciphers.join(","), algorithms.macs.join(","));
    let list = |names| NameList::parse(names).unwrap_or(NameList::EMPTY);
    let twice = [&kex, &host_key, &ciphers, &macs].iter().map(|names| names.len().saturating_mul(2)).sum();
    let mut payload = Vec::with_capacity(KEXINIT.saturating_add(twice));
    KexInit {
        cookie: &[0; 16],
        kex: list(kex.as_bytes()),
        host_key: list(host_key.as_bytes()),
        cipher_c2s: list(ciphers.as_bytes()),
        cipher_s2c: list(ciphers.as_bytes()),
        mac_c2s: list(macs.as_bytes()),
        mac_s2c: list(macs.as_bytes()),
        compression_c2s: list(b"none"),
        compression_s2c: list(b"none"),
        languages_c2s: NameList::EMPTY,
        languages_s2c: NameList::EMPTY,
        first_kex_packet_follows: guess,
        reserved: 0,
    }
    .encode(&mut payload);
    payload
}

/// Chooses the algorithms, as `side` sees it. Strictness does not matter here.
pub(crate) fn negotiate(
    side: Side,
    common: &Common,
    ours: &KexInit<'_>,
    theirs: &KexInit<'_>,
) -> Result<Choice, Box<PeerIncompatible>> {
    let Provider { kex, signatures, ciphers, macs, .. } = *common.provider;
    let find_cipher = |name: &str| ciphers.iter().find(|cipher| cipher.name() == name).copied();
    let find_mac = |name: &str| macs.iter().find(|mac| mac.name() == name).copied();

    let kex_lists = (ours.kex, theirs.kex);
    let kex = pick(side, AlgorithmKind::Kex, kex_lists, |name| kex.iter().find(|kex| kex.name() == name))?;
    let key_lists = (ours.host_key, theirs.host_key);
    let host_key = pick(side, AlgorithmKind::HostKey, key_lists, |name| {
        signatures.iter().find(|key| key.name() == name)
    })?;
    let direction = |cipher_lists, mac_lists| {
        let cipher = pick(side, AlgorithmKind::Cipher, cipher_lists, find_cipher)?;
        // OpenSSH's rule for AEADs (PROTOCOL §1.6): the MAC lists are not looked at.
        let mac = match cipher.is_aead() {
            true => None,
            false => Some(pick(side, AlgorithmKind::Mac, mac_lists, find_mac)?),
        };
        Ok::<_, Box<PeerIncompatible>>(DirectionAlgorithms { cipher, mac })
    };
    let c2s = direction((ours.cipher_c2s, theirs.cipher_c2s), (ours.mac_c2s, theirs.mac_c2s))?;
    let s2c = direction((ours.cipher_s2c, theirs.cipher_s2c), (ours.mac_s2c, theirs.mac_s2c))?;
    for lists in
        [(ours.compression_c2s, theirs.compression_c2s), (ours.compression_s2c, theirs.compression_s2c)]
    {
        pick(side, AlgorithmKind::Compression, lists, |name| (name == "none").then_some(()))?;
    }
    let is_right = |guesser, other| guess_is_right(other, guesser, kex.name(), host_key.name());
    let wrong_guess = theirs.first_kex_packet_follows && !is_right(theirs, ours);
    let right_guess = ours.first_kex_packet_follows && is_right(ours, theirs);
    Ok(Choice { kex: *kex, host_key: *host_key, c2s, s2c, wrong_guess, right_guess })
}

/// The first algorithm in the client's list that is in the server's and that this end really has: a marker may be in
/// both lists and is no algorithm. `lists` are ours and theirs.
fn pick<T>(
    side: Side,
    kind: AlgorithmKind,
    lists: (NameList<'_>, NameList<'_>),
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, Box<PeerIncompatible>> {
    let (ours, theirs) = lists;
    let (client, server) = match side {
        Side::Client => (ours, theirs),
        Side::Server => (theirs, ours),
    };
    client.iter().filter(|name| server.contains(name)).find_map(&find).ok_or_else(|| {
        let real: Vec<&str> = ours.iter().filter(|name| find(name).is_some()).collect();
        Box::new(PeerIncompatible::NoCommonAlgorithm {
            kind,
            ours: real.join(","),
            theirs: PeerText::with_limit(theirs.as_str().as_bytes(), MAX_LIST_IN_ERROR),
        })
    })
}

/// The first name that is an algorithm's. Where markers stand makes no difference: nobody guesses one.
fn first_algorithm(list: NameList<'_>) -> Option<&str> {
    let is_marker =
        |name: &str| name.starts_with("ext-info-") || name.starts_with("kex-strict-") || name == KEXGUESS2;
    list.iter().find(|name| !is_marker(name))
}

/// RFC 4253 §7: a guess is right when both first names agree; by Dropbear's rule, which both ends must name,
/// when the guesser's first names are the negotiated ones.
fn guess_is_right(ours: &KexInit<'_>, theirs: &KexInit<'_>, kex: &str, host_key: &str) -> bool {
    let (first_kex, first_key) = (first_algorithm(theirs.kex), first_algorithm(theirs.host_key));
    if ours.kex.contains(KEXGUESS2) && theirs.kex.contains(KEXGUESS2) {
        first_kex == Some(kex) && first_key == Some(host_key)
    } else {
        first_kex == first_algorithm(ours.kex) && first_key == first_algorithm(ours.host_key)
    }
}

/// Whether the policy lets a peer without strict key exchange in, with these ciphers.
pub(crate) fn acceptable_without_strict(policy: StrictKexPolicy, choice: &Choice) -> bool {
    let open_to_terrapin = |direction: &DirectionAlgorithms| {
        direction.cipher.name() == "chacha20-poly1305@openssh.com"
            || (direction.cipher.name().ends_with("-cbc") && direction.mac.is_some_and(|mac| mac.is_etm()))
    };
    match policy {
        StrictKexPolicy::Offer => true,
        StrictKexPolicy::RequireStrictOrSafe => ![choice.c2s, choice.s2c].iter().any(open_to_terrapin),
        StrictKexPolicy::Require => false,
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests;
